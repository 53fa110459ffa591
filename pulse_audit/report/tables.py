"""Tables of estimates: built once as rows, written as HTML, CSV and LaTeX from the same rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.registry import BY_NAME, METRICS
from pulse_audit.summary.schema import ALL, CORRECTED, EstimateRow, Summary

#: Metrics of the tables that come first, in this order.
_FIRST = (
    "retention",
    "no_face_rate",
    "feasible_rate",
    "error_rate",
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
    "apparent_lightness_shift",
    "apparent_hue_shift",
    "steps",
)
#: Metrics shown in the tables, in order; all others are in ``data/estimates.csv``.
SHOWN = (*_FIRST, *(m.name for m in METRICS if m.in_report and m.name not in _FIRST))
#: Columns of the table for a paper in order of preference, and their short headings.
_PAPER = {
    "retention": "Retained",
    "retention_corrected": "Corrected",
    "no_face_rate": "No face",
    "feasible_rate": "Feasible",
    "lightness_shift": "Tone shift",
    "psnr": "PSNR",
    "ssim": "SSIM",
}
#: Metrics in the table for a paper, which has group and number of faces beside them.
MOST_PAPER_COLUMNS = 4
ARROWS = {"higher": "↑", "lower": "↓", "nearer 0": "→ 0", "neither": ""}
MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class TableCell:
    """One estimate as text in display units; ``reason`` says why it is missing."""

    measure: MetricDefinition
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
        """How the interval was computed, or why there is none."""
        return self.row.method if self.row is not None else "not measured"

    def _text(self, number: float | None) -> str:
        if number is None:
            return NONE
        text = f"{number * self.measure.display_scale:.{self.measure.decimals}f}"
        text = text.removeprefix("-") if float(text) == 0 else text
        return text.replace("-", MINUS)


@dataclass(frozen=True)
class TableRow:
    """One group or arm: its sample size and one cell per metric; ``whole`` marks all faces."""

    label: str
    n_faces: int
    n_draws: int
    cells: Sequence[TableCell]
    whole: bool = False


@dataclass(frozen=True)
class EstimateTable:
    """A table of estimates; ``head`` is the title of its first column."""

    caption: str
    head: str
    columns: Sequence[MetricDefinition]
    rows: Sequence[TableRow]


def arrow(measure: MetricDefinition) -> str:
    """Return the arrow for the direction in which a metric is better."""
    return ARROWS[measure.direction]


def display_name(group_by: str) -> str:
    """Name of a grouping as text: ``race × skin tone``."""
    return group_by.replace(",", " × ").replace("_", " ")


def group_table(
    summary: Summary, arm: str, condition: str, scale: int, group_by: str
) -> EstimateTable:
    """Metrics of one arm under one condition and scale: one row per group, all faces last."""
    setting = (arm, condition, scale)
    estimates = [r for r in summary.estimates if (r.arm, r.condition, r.scale) == setting]
    columns = _columns(estimates)

    # The groups of the grouping in the order of the summary, then the whole sample.
    rows = []
    for name in (group_by, "all"):
        groups: dict[str, dict[str, EstimateRow]] = {}
        for row in estimates:
            if row.group_by == name and row.plain and row.metric in SHOWN:
                groups.setdefault(row.group, {})[row.metric] = row
        rows += [
            _row("all" if name == "all" else group, by_metric, columns, whole=name == "all")
            for group, by_metric in groups.items()
        ]

    head = display_name(group_by)
    caption = f"{arm}, {condition}, scale {scale}, by {head}"
    caption += _retention_of([r for r in estimates if r.group_by == group_by], group_by)
    return EstimateTable(caption, head, columns, rows)


def arm_table(summary: Summary, condition: str, scale: int) -> EstimateTable:
    """Metrics over the whole sample under one condition and scale: one row per arm."""
    setting = (condition, scale, "all")
    estimates = [
        r for r in summary.estimates if r.plain and (r.condition, r.scale, r.group_by) == setting
    ]
    columns = _columns(estimates)
    rows = [
        _row(arm, {r.metric: r for r in estimates if r.arm == arm}, columns)
        for arm in dict.fromkeys(r.arm for r in estimates)
    ]
    caption = f"All arms, {condition}, scale {scale}, whole sample"
    caption += _retention_of(estimates, "all")
    return EstimateTable(caption, "arm", columns, rows)


def _retention_of(estimates: Sequence[EstimateRow], group_by: str) -> str:
    """Say which attributes retention compares where they are not those of the grouping."""
    details = (r.detail or {} for r in estimates if r.metric == "retention")
    attributes = (detail["attribute"] for detail in details if "attribute" in detail)
    compared = str(next(attributes, group_by))
    return "" if compared == group_by else f"; retention of {display_name(compared)}"


def _columns(estimates: Sequence[EstimateRow]) -> list[MetricDefinition]:
    """Shown metrics that have a value; rates of failures only where one occurred.

    Retention never stands without the no-face rate beside it, zero or not measured as it may be.
    """
    measured = {r.metric for r in estimates if r.value is not None}
    for rate in ("error_rate", "no_face_rate"):
        if not any(r.value for r in estimates if r.metric == rate):
            measured.discard(rate)
    if "retention" in measured:
        measured.add("no_face_rate")
    return [BY_NAME[name] for name in SHOWN if name in measured]


def _row(
    label: str,
    by_metric: Mapping[str, EstimateRow],
    columns: Sequence[MetricDefinition],
    whole: bool = False,
) -> TableRow:
    cells = [TableCell(measure, by_metric.get(measure.name)) for measure in columns]
    largest = max(by_metric.values(), key=lambda r: r.n_draws)
    return TableRow(label, largest.n_faces, largest.n_draws, cells, whole)


def estimates_csv(summary: Summary) -> str:
    """Write every estimate as CSV, one per line, in stored units."""
    names = list(EstimateRow.model_fields)
    return rows_csv([names, *([getattr(row, name) for name in names] for row in summary.estimates)])


def to_csv(table: EstimateTable) -> str:
    """Write a table as CSV: value, low and high of every metric in stored units (shares in 0-1)."""
    header = [table.head, "faces", "draws"]
    for measure in table.columns:
        header += [measure.name, f"{measure.name}_low", f"{measure.name}_high"]
    lines: list[list[Any]] = [header]
    for row in table.rows:
        line: list[Any] = [row.label, row.n_faces, row.n_draws]
        for estimate in (cell.row for cell in row.cells):
            missing = [None, None, None]
            line += missing if estimate is None else [estimate.value, estimate.low, estimate.high]
        lines.append(line)
    return rows_csv(lines)


def rows_csv(lines: Sequence[Sequence[Any]]) -> str:
    """Write lines as CSV: numbers as they are, nothing for null, no text that is a formula."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    for line in lines:
        writer.writerow(
            "" if cell is None else neutralised(cell) if isinstance(cell, str) else repr(cell)
            for cell in line
        )
    return sink.getvalue()


def paper_table(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> list[EstimateTable]:
    """Tables of a grouping for one column of a page, one per arm: the same metrics, at most four.

    Retention, its correction where there is one, and the no-face rate come first; whatever else
    was measured fills the places that are left.
    """
    estimates = [
        r
        for r in summary.estimates
        if (r.condition, r.scale) == (condition, scale)
        and (r.group_by == ALL or (r.group_by == group_by and r.group != ALL))
        and r.arm in arms
        and r.to_group is None
        and r.statistic == "value"
        and r.metric in _PAPER
    ]
    measured = {
        r.column for r in estimates if r.value is not None and r.correction != "original_baseline"
    }
    if "retention" in measured:
        measured.add("no_face_rate")
    columns = [(n, _measure(n)) for n in _PAPER if n in measured][:MOST_PAPER_COLUMNS]

    tables = []
    for arm in dict.fromkeys(r.arm for r in estimates):
        groups: dict[tuple[bool, str], dict[str, EstimateRow]] = {}
        for row in estimates:
            if row.arm == arm and row.correction != "original_baseline":
                groups.setdefault((row.group_by == ALL, row.group), {})[row.column] = row
        rows = [
            TableRow(
                group,
                max(r.n_faces for r in by_name.values()),
                max(r.n_draws for r in by_name.values()),
                [TableCell(measure, by_name.get(name)) for name, measure in columns],
                whole,
            )
            for (whole, group), by_name in sorted(groups.items(), key=lambda item: item[0][0])
        ]
        head = display_name(group_by)
        caption = f"{arm}, {condition}, scale {scale}, by {head}"
        tables.append(EstimateTable(caption, head, [m for _, m in columns], rows))
    return tables


def _measure(name: str) -> MetricDefinition:
    """Definition of a column of the paper's table, with its short heading there, in whole units."""
    metric = BY_NAME[name.removesuffix(CORRECTED)]
    decimals = 0 if metric.kind == "proportion" else metric.decimals
    title = _PAPER[name]
    return replace(metric, title=title, decimals=decimals)


def neutralised(text: str) -> str:
    """Text on one line that no spreadsheet takes for a formula (OWASP: CSV injection)."""
    line = " ".join(text.split())
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
