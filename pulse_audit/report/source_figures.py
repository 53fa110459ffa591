"""Figures of where a shift comes from: its parts per group, and who is in prior and training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pulse_audit.report.drawing import (
    INK,
    MOST_GROUPS,
    dress,
    panels,
    style,
)
from pulse_audit.summary.schema import EstimateRow, Summary

#: Parts in the order of the bars: name, how the legend calls it, colour of the palette, hatch.
PARTS = (
    ("retained", "retained", 0, ""),
    ("classifier", "attribute model errs", 7, ""),
    ("preference", "preference", 1, "///"),
    ("adversarial", "guidance adversarial the model", 4, "..."),
    ("incapacity", "incapacity", 3, "xxx"),
)
COMPOSITIONS = (("evaluation", "s"), ("training", "D"), ("prior", "o"))


def split(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """Parts that each group's draws fall into; None where the sources were not asked for."""
    found = {
        arm: cells
        for arm in arms
        if (cells := _parts(summary, arm, condition, scale, group_by)) and _fits(cells)
    }
    if not found:
        return None
    most = max(len(cells["retained"]) for cells in found.values())
    with style():
        figure = panels(
            list(found), most, "draws, %", lambda axis, arm: _stack(axis, arm, found[arm]), most=3
        )
        seen = {part for cells in found.values() for part in cells}
        _legend(figure, [part for part in PARTS if part[0] in seen])
    return figure


def compositions(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """Who is in the evaluation set, the training set and the prior: a panel an arm."""
    found = {arm: _compositions(summary, arm, group_by) for arm in arms}
    found = {arm: shares for arm, shares in found.items() if shares["prior"]}
    if not found:
        return None
    most = max(len(shares["prior"]) for shares in found.values())
    with style():
        figure = panels(
            list(found), most, "share, %", lambda axis, arm: _dots(axis, arm, found[arm]), most=3
        )
        figure.axes[0].legend(loc="best", frameon=False)
    return figure


def _compositions(summary: Summary, arm: str, group_by: str) -> dict[str, list[EstimateRow]]:
    """Raw shares of each composition; they belong to no condition and scale."""
    return {
        name: summary.select(f"{name}_share", arm, "all", 0, group_by) for name, _ in COMPOSITIONS
    }


def _dots(axis: Axes, arm: str, shares: Mapping[str, Sequence[EstimateRow]]) -> None:
    places = {row.group: line for line, row in enumerate(shares["prior"])}
    palette = sns.color_palette("colorblind").as_hex()
    for (name, marker), colour in zip(COMPOSITIONS, palette, strict=False):
        rows = [row for row in shares[name] if row.group in places]
        if rows:
            values = [100 * (row.value or 0.0) for row in rows]
            lines = [places[row.group] for row in rows]
            axis.plot(values, lines, marker, color=colour, label=name)
    dress(axis, arm, shares["prior"])


def _parts(
    summary: Summary, arm: str, condition: str, scale: int, group_by: str
) -> dict[str, list[EstimateRow]]:
    found = {
        name: summary.select(f"source_{name}", arm, condition, scale, group_by)
        for name, *_ in PARTS
    }
    return {name: rows for name, rows in found.items() if rows}


def _fits(cells: dict[str, list[EstimateRow]]) -> bool:
    return "retained" in cells and len(cells["retained"]) <= MOST_GROUPS


def _stack(axis: Axes, arm: str, cells: dict[str, list[EstimateRow]]) -> None:
    rows = cells["retained"]
    left = np.zeros(len(rows))
    palette = sns.color_palette("colorblind").as_hex()
    for name, _, colour, hatch in PARTS:
        if name not in cells:
            continue
        by_group = {row.group: 100 * (row.value or 0.0) for row in cells[name]}
        width = np.array([by_group.get(row.group, 0.0) for row in rows])
        axis.barh(
            range(len(rows)),
            width,
            0.7,
            left,
            color=palette[colour],
            hatch=hatch,
            edgecolor="#fefefe",
        )
        left += width
    axis.set_xlim(0, 100)
    dress(axis, arm, rows)


def _legend(figure: Figure, parts: Sequence[tuple[str, str, int, str]]) -> None:
    palette = sns.color_palette("colorblind").as_hex()
    patches = [
        Patch(facecolor=palette[colour], hatch=hatch, edgecolor="#fefefe", label=called)
        for _, called, colour, hatch in parts
    ]
    figure.legend(handles=patches, loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)
