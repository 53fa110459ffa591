"""Figures of where a shift comes from: its parts per group, and who is in prior and training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pulse_audit.report.drawing import (
    INK,
    MOST_GROUPS,
    dress,
    grid,
    one_line,
    style,
)
from pulse_audit.summary.schema import EstimateRow, Summary

#: Parts in the order of the bars: name, how the legend calls it, colour of the palette, hatch.
PARTS = (
    ("retained", "retained", 0, ""),
    ("classifier", "attribute model errs", 7, ""),
    ("preference", "preference", 1, "///"),
    ("fooled", "guidance fooled the model", 4, "..."),
    ("incapacity", "incapacity", 3, "xxx"),
)
COMPOSITIONS = (("evaluation", "s"), ("training", "D"), ("prior", "o"))


def split(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """Parts that each group's draws fall into; None where the sources were not asked for."""
    panels = {
        arm: cells
        for arm in arms
        if (cells := _parts(summary, arm, condition, scale, group_by)) and _fits(cells)
    }
    if not panels:
        return None
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    with style():
        most = max(len(cells["retained"]) for cells in panels.values())
        figure, axes = grid(lines, columns, most, width=10.0 if columns > 1 else 6.5)
        for axis, (arm, cells) in zip(axes, panels.items(), strict=False):
            _stack(axis, arm, cells)
        for axis in axes[len(panels) :]:
            axis.remove()
        for axis in axes[len(panels) - columns : len(panels)]:
            axis.set_xlabel("draws, %")
            axis.tick_params(labelbottom=True)
        seen = {part for cells in panels.values() for part in cells}
        _legend(figure, [part for part in PARTS if part[0] in seen])
    return figure


def compositions(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """Who is in the evaluation set, the training set and the prior: a panel an arm."""
    panels = {
        arm: found
        for arm in arms
        if (found := {name: _shares(summary, arm, name, group_by) for name, _ in COMPOSITIONS})[
            "prior"
        ]
    }
    if not panels:
        return None
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    palette = sns.color_palette("colorblind").as_hex()
    with style():
        most = max(len(found["prior"]) for found in panels.values())
        figure, axes = grid(lines, columns, most, width=10.0 if columns > 1 else 6.5)
        for axis, (arm, found) in zip(axes, panels.items(), strict=False):
            places = {row.group: line for line, row in enumerate(found["prior"])}
            for (name, marker), colour in zip(COMPOSITIONS, palette, strict=False):
                rows = [row for row in found[name] if row.group in places]
                if not rows:
                    continue
                axis.plot(
                    [100 * (row.value or 0.0) for row in rows],
                    [places[row.group] for row in rows],
                    marker,
                    color=colour,
                    label=name,
                )
            dress(axis, arm, found["prior"])
            axis.set_xlabel("share, %")
        axes[0].legend(loc="best", frameon=False)
        for axis in axes[len(panels) :]:
            axis.remove()
    return figure


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


def _shares(summary: Summary, arm: str, name: str, group_by: str) -> list[EstimateRow]:
    """Raw shares of one composition; of the evaluation set they belong to no arm."""
    wanted = (f"{name}_share", group_by, "raw", "value")
    rows = [
        r
        for r in summary.estimates
        if (r.metric, r.group_by, r.correction, r.statistic) == wanted and r.scale == 0
    ]
    own = [r for r in rows if r.arm == arm]
    return own or ([r for r in rows if name == "evaluation"])


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
    dress(axis, one_line(arm), rows)


def _legend(figure: Figure, parts: Sequence[tuple[str, str, int, str]]) -> None:
    palette = sns.color_palette("colorblind").as_hex()
    patches = [
        Patch(facecolor=palette[colour], hatch=hatch, edgecolor="#fefefe", label=called)
        for _, called, colour, hatch in parts
    ]
    figure.legend(handles=patches, loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)
