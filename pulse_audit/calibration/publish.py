"""The study's table and figure: calibration.csv, calibration.md and calibration.svg."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pulse_audit.calibration.cells import Cell
from pulse_audit.calibration.study import FULL, Row
from pulse_audit.files import atomic_write

COLUMNS = (
    "study", "settings", "method", "measures", "value", "error", "low", "high", "verdict", "width",
    "replicates",
)  # fmt: skip
OVERVIEW = ("study", "method", "measured", "cells", "found, %", "promised, %", "kept")
COLOURS = {"met": "#0173b2", "": "#949494", "unclear": "#de8f05", "missed": "#d55e00"}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pulse-audit", "svg.fonttype": "none", "font.size": 7, "axes.titlesize": 8,
    "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def publish(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write table and figure of a study; equal rows give equal bytes."""
    texts = {"csv": as_csv(rows), "md": as_markdown(rows), "svg": as_svg(rows)}
    paths = {out / f"calibration.{kind}": text for kind, text in texts.items()}
    for path, text in paths.items():
        atomic_write(path, text.encode())
    return list(paths)


def as_dicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as plain JSON values; keys are those of the table."""
    return [dict(zip(COLUMNS, _values(row), strict=True)) for row in rows]


def as_csv(rows: Sequence[Row]) -> str:
    """Every cell in one line; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_values(row) for row in rows)
    return text.getvalue()


def _values(row: Row) -> list[Any]:
    cell, found = row.cell, row.measured
    width = None if found.width is None else round(found.width, 4)
    return [
        cell.study, settings(cell), cell.method, cell.measures, round(found.value, 5),
        round(found.error, 5), cell.low, cell.high, row.verdict, width, row.replicates,
    ]  # fmt: skip


def settings(cell: Cell) -> str:
    """Return the situation in words."""
    return ", ".join(f"{name} {value}" for name, value in cell.settings.items())


def as_markdown(rows: Sequence[Row]) -> str:
    """One table a study, with what was promised and what was found."""
    parts = ["# The audit on trial\n", f"{headline(rows)}\n"]
    for study, members in by_study(rows).items():
        parts.append(f"\n## {study[0].upper()}{study[1:]}\n")
        parts.append("| situation | method | measured | % (± error) | promised | kept | width |")
        parts.append("|---|---|---|---|---|---|---|")
        parts.extend(_line(row) for row in members)
    return "\n".join(parts) + "\n"


def by_study(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each study, wherever they stand, in the order in which studies first occur."""
    studies: dict[str, list[Row]] = {}
    for row in rows:
        studies.setdefault(row.cell.study, []).append(row)
    return studies


def headline(rows: Sequence[Row]) -> str:
    """How many promises were kept, and on how many replicates that rests."""
    verdicts = [row.verdict for row in rows]
    counts = {word: verdicts.count(word) for word in ("met", "unclear", "missed")}
    replicates = max((row.replicates for row in rows), default=0)
    few = "" if replicates >= FULL else f" A quick look: the published table takes {FULL:,}."
    return (
        f"{counts['met']} of {sum(counts.values())} promises kept, {counts['missed']} missed, "
        f"{counts['unclear']} not told apart by {replicates:,} replicates a cell.{few}"
    )


def overview(rows: Sequence[Row]) -> list[list[str]]:
    """One line a study, method and promise: the range of what was found."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        cell = row.cell
        kinds.setdefault((cell.study, cell.method, cell.measures, promise(cell)), []).append(row)
    return [
        [study, method, measures, str(len(members)), _range(members), promised, _kept(members)]
        for (study, method, measures, promised), members in kinds.items()
    ]


def _range(rows: Sequence[Row]) -> str:
    values = [100 * row.measured.value for row in rows]
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _kept(rows: Sequence[Row]) -> str:
    verdicts = [row.verdict for row in rows if row.verdict]
    return f"{verdicts.count('met')} of {len(verdicts)}" if verdicts else "-"


def _line(row: Row) -> str:
    cell, found = row.cell, row.measured
    error = "exact" if cell.exact else f"± {100 * found.error:.1f}"
    width = "" if found.width is None else f"{found.width:.2f}"
    value = f"{100 * found.value:.1f} ({error})"
    cells = (settings(cell), cell.method, cell.measures, value, promise(cell), row.verdict, width)
    return "| " + " | ".join(cells) + " |"


def promise(cell: Cell) -> str:
    """Return what is promised, in per cent; empty where nothing is."""
    if cell.low is None:
        return "" if cell.high is None else f"at most {100 * cell.high:g}"
    low = f"{100 * cell.low:g}"
    return f"at least {low}" if cell.high is None else f"{low}-{100 * cell.high:g}"


def as_svg(rows: Sequence[Row]) -> str:
    """One panel a study: a dot a cell with its Monte Carlo error, promises shaded."""
    # the longer panels first, to the left and to the right in turn
    ordered = sorted(by_study(rows).items(), key=lambda item: -len(item[1]))
    halves = [half for half in (ordered[0::2], ordered[1::2]) if half]
    tallest = max(sum(len(members) + 4 for _, members in half) for half in halves)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.5 * len(halves), 0.13 * tallest + 0.5), layout="constrained")
        parts = figure.subfigures(1, len(halves), squeeze=False)[0]
        for part, half in zip(parts, halves, strict=True):
            heights = [len(members) + 3 for _, members in half]
            axes = part.subplots(len(half), 1, squeeze=False, height_ratios=heights)
            for ax, (study, members) in zip(axes[:, 0], half, strict=True):
                _panel(ax, study, members)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _panel(ax: Axes, study: str, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        cell, found = row.cell, row.measured
        if cell.low is not None or cell.high is not None:
            high = 1.0 if cell.high is None else cell.high
            span = 100 * (cell.low or 0.0), 100 * high
            ax.fill_betweenx([place - 0.5, place + 0.5], *span, color="#dde7f0", linewidth=0)
        reach = 200 * found.error
        ax.errorbar(100 * found.value, place, xerr=reach, fmt="o", markersize=3,
                    color=COLOURS[row.verdict], linewidth=0.8)  # fmt: skip
    several = len({row.cell.method for row in rows}) > 1
    labels = [
        f"{settings(row.cell)}; {row.cell.method}" if several else settings(row.cell)
        for row in rows
    ]
    measured = ", ".join(dict.fromkeys(row.cell.measures for row in rows))
    ax.set_title(f"{study}: {measured}, %", loc="left")
    ax.set_yticks(range(len(rows)), labels, fontsize=5.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(length=2)
