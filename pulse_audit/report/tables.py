"""Tables of estimates: made once as rows, written as HTML, CSV and LaTeX from the same rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_audit.summary.kinds import Measure
from pulse_audit.summary.measures import BY_NAME
from pulse_audit.summary.schema import EstimateRow, Summary

#: Metrics a reader sees, in order; every other one is in ``data/estimates.csv``.
SHOWN = (
    "retention",
    "feasible_rate",
    "error_rate",
    "no_face_rate",
    "downscale_rmse",
    "psnr",
    "ssim",
    "ms_ssim",
    "lpips",
    "niqe",
    "identity_cosine",
    "verified",
    "attribute_cosine",
    "flip_rate",
    "kid",
    "lightness_shift",
    "ita_shift",
    "hue_shift",
    "monk_shift",
    "steps",
)
ARROWS = {"higher": "↑", "lower": "↓", "nearer 0": "→ 0", "neither": ""}
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """One estimate as text, in the unit shown; ``reason`` says why it is missing."""

    measure: Measure
    row: EstimateRow | None

    @property
    def value(self) -> str:
        """The value, or a dash."""
        return NONE if self.row is None else self._text(self.row.value)

    @property
    def interval(self) -> str:
        """``[low, high]``; empty where there is no interval or it has no width."""
        if self.row is None or self.row.low is None or self.row.low == self.row.high:
            return ""
        return f"[{self._text(self.row.low)}, {self._text(self.row.high)}]"

    @property
    def reason(self) -> str:
        """How the interval was made, or why there is none."""
        return self.row.method if self.row is not None else "not measured"

    def _text(self, number: float | None) -> str:
        if number is None:
            return NONE
        text = f"{number * self.measure.display_scale:.{self.measure.decimals}f}"
        text = text.removeprefix("-") if float(text) == 0 else text
        return text.replace("-", MINUS)


@dataclass(frozen=True)
class Row:
    """One group (or arm): its sample and its cells."""

    label: str
    n_faces: int
    n_draws: int
    cells: Sequence[Cell]
    whole: bool = False


@dataclass(frozen=True)
class Table:
    """A table of estimates. ``head`` titles the first column, ``caption`` says what it shows."""

    caption: str
    head: str
    columns: Sequence[Measure]
    rows: Sequence[Row]


def arrow(measure: Measure) -> str:
    """Return the mark for the better direction."""
    return ARROWS[measure.better]


def group_table(summary: Summary, arm: str, condition: str, scale: int, group_by: str) -> Table:
    """Metrics of one arm under one condition and scale: a row a group, the whole sample last."""
    wanted = (arm, condition, scale)
    cell = [r for r in summary.estimates if (r.arm, r.condition, r.scale) == wanted]
    grouped = _by_group([r for r in cell if r.group_by == group_by])
    whole = _by_group([r for r in cell if r.group_by == "all"])
    columns = _columns(cell)
    rows = [_row(group, estimates, columns) for group, estimates in grouped.items()]
    rows += [_row("all", estimates, columns, whole=True) for estimates in whole.values()]
    caption = f"{arm}, {condition}, scale {scale}, by {_plain(group_by)}"
    return Table(caption, _plain(group_by), columns, rows)


def arm_table(summary: Summary, condition: str, scale: int) -> Table:
    """Metrics over the whole sample under one condition and scale: a row an arm."""
    cell = [
        r
        for r in summary.estimates
        if r.plain and (r.condition, r.scale, r.group_by) == (condition, scale, "all")
    ]
    columns = _columns(cell)
    arms = list(dict.fromkeys(r.arm for r in cell))
    rows = [_row(a, {r.metric: r for r in cell if r.arm == a}, columns) for a in arms]
    return Table(f"All arms, {condition}, scale {scale}, whole sample", "arm", columns, rows)


def estimates_csv(summary: Summary) -> str:
    """Write every estimate, one a line, in stored units."""
    names = list(EstimateRow.model_fields)
    lines = [[_cell_text(getattr(row, name)) for name in names] for row in summary.estimates]
    return _csv([names, *lines])


def to_csv(table: Table) -> str:
    """Write a table as CSV: value, low and high of every metric in stored units (shares in 0-1)."""
    header = [table.head, "faces", "draws"]
    for measure in table.columns:
        header += [measure.name, f"{measure.name}_low", f"{measure.name}_high"]
    lines: list[list[Any]] = [
        [row.label, row.n_faces, row.n_draws, *(n for c in row.cells for n in _numbers(c))]
        for row in table.rows
    ]
    return _csv([[_cell_text(cell) for cell in line] for line in [header, *lines]])


def to_latex(table: Table) -> str:
    r"""Write a table as a LaTeX ``tabular`` with the rules of booktabs."""
    heads = [table.head, "faces", "draws", *(_latex_head(m) for m in table.columns)]
    lines = [
        r"% needs \usepackage{booktabs}; intervals are at 95 %",
        f"% {_latex_comment(table.caption)}",
        rf"\begin{{tabular}}{{lrr{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join([escape_latex(h) for h in heads[:3]] + heads[3:]) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        lines += [r"\midrule"] if row.whole else []
        cells = [escape_latex(row.label), str(row.n_faces), str(row.n_draws)]
        lines.append(" & ".join(cells + [_latex_cell(c) for c in row.cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escape_latex(text: str) -> str:
    """Escape what LaTeX reads as commands; other characters stay."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "×": r"$\times$",
        "°": r"$^\circ$",
        "²": r"$^2$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "→": r"$\to$",
        MINUS: "$-$",
        NONE: "--",
        **{c: rf"\{c}" for c in "&%$#_{}"},
    }
    return "".join(special.get(c, c) for c in " ".join(text.split()))


def neutralised(text: str) -> str:
    """Text on one line that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    line = " ".join(text.split())
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def _by_group(rows: Sequence[EstimateRow]) -> dict[str, dict[str, EstimateRow]]:
    groups: dict[str, dict[str, EstimateRow]] = {}
    for row in rows:
        if row.plain and row.metric in SHOWN:
            groups.setdefault(row.group, {})[row.metric] = row
    return groups


def _columns(cell: Sequence[EstimateRow]) -> list[Measure]:
    """Metrics with a value in this cell; error rates only where there are errors."""
    present = {r.metric for r in cell if r.value is not None}
    present -= {
        name
        for name in ("error_rate", "no_face_rate")
        if not any(r.value for r in cell if r.metric == name)
    }
    return [BY_NAME[name] for name in SHOWN if name in present]


def _row(
    label: str,
    estimates: Mapping[str, EstimateRow],
    columns: Sequence[Measure],
    whole: bool = False,
) -> Row:
    cells = [Cell(measure, estimates.get(measure.name)) for measure in columns]
    counted = max(estimates.values(), key=lambda r: r.n_draws)
    return Row(label, counted.n_faces, counted.n_draws, cells, whole)


def _plain(group_by: str) -> str:
    return group_by.replace(",", " × ").replace("_", " ")


def _numbers(cell: Cell) -> list[float | None]:
    row = cell.row
    return [None] * 3 if row is None else [row.value, row.low, row.high]


def _cell_text(cell: Any) -> str:
    """Numbers as they are, nothing for null, text neutralised."""
    if cell is None:
        return ""
    return neutralised(cell) if isinstance(cell, str) else repr(cell)


def _csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _latex_head(measure: Measure) -> str:
    parts = [measure.title, ARROWS[measure.better], f"({measure.unit})" if measure.unit else ""]
    return escape_latex(" ".join(part for part in parts if part))


def _latex_cell(cell: Cell) -> str:
    interval = f" {{\\scriptsize {escape_latex(cell.interval)}}}" if cell.interval else ""
    return escape_latex(cell.value) + interval


def _latex_comment(text: str) -> str:
    return " ".join(text.split())
