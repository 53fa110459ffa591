"""Figures of the report: estimates with their intervals, one panel per arm.

Every figure takes a summary, the arms to draw, a condition, a scale, a grouping and a width in
inches; it is None where there is nothing to draw, or more groups than can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from pulse_audit.names import INTERPOLATION
from pulse_audit.report.drawing import (
    beside,
    fitted,
    label_groups,
    legend,
    panel_grid,
    panels,
    place_legend,
    set_title,
    style,
)
from pulse_audit.report.drawings import GRID, INK, LINE, MUTED, ORIGINAL, OUTPUT, PAGE, PALETTE
from pulse_audit.summary.schema import EstimateRow, Summary

#: Groups in a panel, and classes on a side of a shift matrix, at most.
MAX_GROUPS, MAX_CLASSES = 30, 12
#: Inches of three digits of 7 points, with some space.
NUMBER = 0.19

#: Where draws were lost, in the order of the bars: name, legend, colour of the palette, hatch.
SOURCES = (
    ("retained", "retained", 0, ""),
    ("chance", "chance (placebo)", 7, ""),
    ("preference", "preference", 1, "///"),
    ("adversarial", "adversarial for the attribute model", 4, "..."),
    ("incapacity", "incapacity", 3, "xxx"),
)
COMPOSITIONS = (("evaluation", "s"), ("training", "D"), ("prior", "o"))


def feasibility(
    summary: Summary,
    arms: Sequence[str],
    condition: str,
    scale: int,
    group_by: str,
    width: float = PAGE,
) -> Figure | None:
    """Feasible rate of every group with its interval; the dashed line is the whole sample."""
    rates = _by_arm(summary, "feasible_rate", arms, condition, scale, group_by)
    if not rates:
        return None

    def draw_panel(axis: Axes, arm: str) -> None:
        _points(axis, rates[arm], 0.0, 100.0, OUTPUT, "o")
        for whole in summary.select("feasible_rate", arm, condition, scale)[:1]:
            if whole.value is not None:
                dashes = (0, (3, 3))
                axis.axvline(100 * whole.value, color=MUTED, lw=0.8, linestyle=dashes, zorder=1)
        axis.set_xlim(-3, 103)
        label_groups(axis, arm, rates[arm])

    with style():
        return panels(list(rates), _longest(rates), "feasible draws, %", draw_panel, width)


def retention(
    summary: Summary,
    arms: Sequence[str],
    condition: str,
    scale: int,
    group_by: str,
    width: float = PAGE,
) -> Figure | None:
    """Retention of every group, raw and corrected, beside the original baseline."""
    raw = _by_arm(summary, "retention", arms, condition, scale, group_by)
    if not raw:
        return None

    def draw_panel(axis: Axes, arm: str) -> None:
        key = ("retention", arm, condition, scale, group_by)
        baseline = {r.group: r for r in summary.select(*key, correction="original_baseline")}
        corrected = {r.group: r for r in summary.select(*key, correction="corrected")}
        # A bar marks what the originals themselves score; groups without one have no bar.
        for line, row in enumerate(raw[arm]):
            original = baseline.get(row.group)
            if original is not None and original.value is not None:
                level = 100 * original.value
                axis.vlines(level, line - 0.36, line + 0.36, color=MUTED, linewidth=1.2, zorder=2)
        _points(axis, raw[arm], -0.13, 100.0, OUTPUT, "o")
        # Groups without a correction keep their line, empty.
        empty = {"value": None, "low": None, "high": None}
        rows = [corrected.get(row.group, row.model_copy(update=empty)) for row in raw[arm]]
        _points(axis, rows, 0.17, 100.0, ORIGINAL, "D", filled=False)
        axis.set_xlim(-3, 103)
        label_groups(axis, arm, raw[arm])

    with style():
        figure = panels(list(raw), _longest(raw), "retained draws, %", draw_panel, width)
        # Of skin tone there is no correction, and originals are in their own class.
        entries = [(OUTPUT, "o", "as classified")]
        for correction, entry in (
            ("corrected", (ORIGINAL, "D", "corrected")),
            ("original_baseline", (MUTED, "|", "originals")),
        ):
            key = (condition, scale, group_by, correction)
            rows = (r for arm in raw for r in summary.select("retention", arm, *key))
            entries += [entry] if any(r.value is not None for r in rows) else []
        legend(figure, *entries)
    return figure


def shift_matrix(
    summary: Summary,
    arms: Sequence[str],
    condition: str,
    scale: int,
    group_by: str,
    width: float = PAGE,
) -> Figure | None:
    """P(apparent group of the output | group of the face), in per cent."""
    # One matrix per arm: rows the labelled groups, columns the apparent ones.
    matrices = {}
    for arm in arms:
        key = ("shift", arm, condition, scale, group_by, "raw")
        cells = [
            r
            for r in summary.estimates
            if (r.metric, r.arm, r.condition, r.scale, r.group_by, r.correction) == key
        ]
        lines = list(dict.fromkeys(r.group for r in cells))
        columns = list(dict.fromkeys(str(r.to_group) for r in cells))
        if cells and max(len(lines), len(columns)) <= MAX_CLASSES:
            matrix = pd.DataFrame(np.nan, index=lines, columns=columns)
            for row in cells:
                matrix.loc[row.group, str(row.to_group)] = 100 * _number(row.value)
            # "not classified" has a column only where there are such draws.
            unused = [c for c in columns if c not in lines and not matrix[c].any()]
            matrices[arm] = matrix.drop(columns=unused)
    if not matrices:
        return None

    # One heat map per arm; those side by side leave room for three digits in a cell.
    longest, widest = (max(m.shape[i] for m in matrices.values()) for i in (0, 1))
    fitting = int((width - 1.1) / (NUMBER * widest))
    columns_of_panels = max(1, min(len(matrices), beside(width), fitting))
    lines_of_panels = -(-len(matrices) // columns_of_panels)
    # Below a panel stand slanting labels, of at most two lines.
    letters = max(len(column) for matrix in matrices.values() for column in matrix.columns)
    below = 0.04 * min(letters, 22) + (0.25 if letters > 22 else 0.05)
    with style():
        figure = Figure(
            figsize=(width, lines_of_panels * (LINE * longest + below + 0.6)),
            layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.03),
        )
        grid = figure.subplots(lines_of_panels, columns_of_panels, sharey="row", squeeze=False)
        axes = list(grid.flat)
        for axis, (arm, matrix) in zip(axes, matrices.items(), strict=False):
            _heat_map(axis, arm, matrix)
        for axis in axes[len(matrices) :]:
            axis.remove()
        for axis in grid[:, 0]:
            axis.set_ylabel("group of the face")
    return figure


def _heat_map(axis: Axes, arm: str, matrix: pd.DataFrame) -> None:
    """Draw a matrix of per cents with its numbers, light on dark cells and dark on light ones."""
    axis.pcolormesh(matrix.to_numpy(), cmap="Blues", vmin=0, vmax=100, edgecolors=GRID, lw=0.6)
    for (line, column), value in np.ndenumerate(matrix.to_numpy()):
        if np.isfinite(value):
            colour = "#fefefe" if value > 55 else "#10151c"
            place = (column + 0.5, line + 0.5)
            axis.text(*place, f"{value:.0f}", ha="center", va="center", color=colour)
    set_title(axis, arm)
    axis.set_xlabel("apparent group of the output")
    # A group is read along its line or column: from the top, and each label at its cell.
    columns = [fitted(column, 22) for column in matrix.columns]
    axis.set_xticks(np.arange(len(columns)) + 0.5, columns, rotation=40, ha="right")
    axis.set_yticks(np.arange(len(matrix)) + 0.5, [fitted(str(line), 22) for line in matrix.index])
    axis.set_ylim(len(matrix), 0)
    axis.grid(visible=False)


def skin_tone(
    summary: Summary,
    arms: Sequence[str],
    condition: str,
    scale: int,
    group_by: str,
    width: float = PAGE,
) -> Figure | None:
    """Skin tone of originals and outputs per group, and the paired shift: one line per arm.

    Columns: lightness of both, lightness shift (output minus original), ITA of both. Beside the
    shift of an arm stands that of plain interpolation, which invents nothing: the floor.
    """
    # Five metrics per arm; an arm without a lightness shift is left out.
    names = ("hr_lightness", "sr_lightness", "lightness_shift", "hr_ita", "sr_ita")
    tones = {
        arm: [summary.select(name, arm, condition, scale, group_by) for name in names]
        for arm in arms
    }
    tones = {arm: rows for arm, rows in tones.items() if 0 < len(rows[2]) <= MAX_GROUPS}
    if not tones:
        return None
    floors = [
        summary.select(names[2], arm, condition, scale, group_by)
        for arm in INTERPOLATION
        if any(row.arm == arm for row in summary.estimates)
    ]

    with style():
        longest = max(len(rows[2]) for rows in tones.values())
        # One column of a page has no room for the ITA.
        columns = 2 if width < 5 else 3
        figure, axes = panel_grid(len(tones), columns, longest, width, share_x="col")
        for line, (arm, rows) in enumerate(tones.items()):
            lightness_hr, lightness_sr, shift, ita_hr, ita_sr = rows
            left, middle, *right = axes[columns * line : columns * (line + 1)]
            _levels(left, arm, lightness_hr, lightness_sr)
            for axis in right:
                _levels(axis, "ITA", ita_hr, ita_sr)
            # The shift compares every output with its own original; 0 is no shift.
            middle.axvline(0, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
            _points(middle, shift, 0.0, 1.0, INK, "s")
            # Each interpolating arm that ran: a hollow grey diamond in the line of its group.
            lines = {row.group: line for line, row in enumerate(shift)}
            for floor in () if arm in INTERPOLATION else floors:
                known = [row for row in floor if row.group in lines and row.value is not None]
                places = [lines[row.group] + 0.3 for row in known]
                values = [_number(row.value) for row in known]
                middle.plot(values, places, "D", color=MUTED, markersize=3, fillstyle="none")
            label_groups(middle, "output minus original", shift)
        labels = ("lightness, L*", "lightness shift, L*", "individual typology angle, °")
        for axis, label in zip(axes[-columns:], labels, strict=False):
            axis.set_xlabel(label)
        entries = [
            (ORIGINAL, "D", "originals"),
            (OUTPUT, "o", "outputs"),
            (INK, "s", "output minus original"),
        ]
        if floors and not set(tones) <= {*INTERPOLATION}:
            entries.append((MUTED, "D", "the same for interpolation"))
        legend(figure, *entries)
    return figure


def _levels(
    axis: Axes, title: str, originals: Sequence[EstimateRow], outputs: Sequence[EstimateRow]
) -> None:
    """Draw the levels of originals and outputs, joined by a line per group."""
    starts, ends = ([_number(row.value) for row in rows] for rows in (originals, outputs))
    axis.hlines(range(len(originals)), starts, ends, color=GRID, linewidth=2, zorder=1)
    _points(axis, originals, -0.13, 1.0, ORIGINAL, "D", filled=False)
    _points(axis, outputs, 0.13, 1.0, OUTPUT, "o")
    label_groups(axis, title, originals)


def sources(
    summary: Summary,
    arms: Sequence[str],
    condition: str,
    scale: int,
    group_by: str,
    width: float = PAGE,
) -> Figure | None:
    """Where each group's draws were lost, as stacked bars: all draws with originals read right."""
    # Shares per part and group; an arm that was not searched with guidance has none.
    parts_of = {}
    for arm in arms:
        parts = {
            name: rows
            for name, *_ in SOURCES
            if (rows := summary.select(f"source_{name}", arm, condition, scale, group_by))
        }
        if 0 < len(parts.get("retained", ())) <= MAX_GROUPS:
            parts_of[arm] = parts
    if not parts_of:
        return None

    def draw_panel(axis: Axes, arm: str) -> None:
        groups = parts_of[arm]["retained"]
        shares = {
            name: {row.group: 100 * (row.value or 0.0) for row in rows}
            for name, rows in parts_of[arm].items()
        }
        # A preference below 0 has no bar; it takes its length from that of chance.
        for group, preference in shares.get("preference", {}).items():
            if preference < 0:
                shares["preference"][group] = 0.0
                shares["chance"][group] += preference
        # Each part starts where the last one ended.
        left = np.zeros(len(groups))
        for name, _, colour, hatch in SOURCES:
            share = shares.get(name, {})
            length = np.array([share.get(row.group, 0.0) for row in groups])
            if share:
                look: dict[str, Any] = {
                    "color": PALETTE[colour],
                    "hatch": hatch,
                    "edgecolor": "#fefefe",
                }
                axis.barh(range(len(groups)), length, 0.7, left, **look)
            left += length
        axis.set_xlim(0, 100)
        label_groups(axis, arm, groups)

    with style():
        longest = max(len(parts["retained"]) for parts in parts_of.values())
        figure = panels(list(parts_of), longest, "draws, %", draw_panel, width)
        drawn = {name for parts in parts_of.values() for name in parts}
        patches = [
            Patch(facecolor=PALETTE[colour], hatch=hatch, edgecolor="#fefefe", label=label)
            for name, label, colour, hatch in SOURCES
            if name in drawn
        ]
        place_legend(figure, patches)
    return figure


def compositions(
    summary: Summary,
    arms: Sequence[str],
    condition: str,
    scale: int,
    group_by: str,
    width: float = PAGE,
) -> Figure | None:
    """Share of each group in the evaluation set, the training set and the generator's samples."""
    # Compositions belong to no condition and scale: rows of condition "all" and scale 0.
    shares = {
        arm: {
            name: summary.select(f"{name}_share", arm, "all", 0, group_by)
            for name, _ in COMPOSITIONS
        }
        for arm in arms
    }
    shares = {arm: of_arm for arm, of_arm in shares.items() if of_arm["prior"]}
    if not shares:
        return None

    def draw_panel(axis: Axes, arm: str) -> None:
        # Groups in the order of the prior; others have no line.
        lines = {row.group: line for line, row in enumerate(shares[arm]["prior"])}
        for (name, marker), colour in zip(COMPOSITIONS, PALETTE, strict=False):
            rows = [row for row in shares[arm][name] if row.group in lines]
            if rows:
                values = [100 * (row.value or 0.0) for row in rows]
                places = [lines[row.group] for row in rows]
                axis.plot(values, places, marker, color=colour, label=name)
        label_groups(axis, arm, shares[arm]["prior"])

    with style():
        longest = max(len(of_arm["prior"]) for of_arm in shares.values())
        figure = panels(list(shares), longest, "share, %", draw_panel, width)
        handles, _ = figure.axes[0].get_legend_handles_labels()
        place_legend(figure, handles)
    return figure


def _by_arm(
    summary: Summary, metric: str, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> dict[str, list[EstimateRow]]:
    """Raw estimates of a metric per arm, for arms with groups and not too many of them."""
    rows = {
        arm: [r for r in summary.select(metric, arm, condition, scale, group_by) if r.n_faces]
        for arm in arms
    }
    return {arm: of_arm for arm, of_arm in rows.items() if 0 < len(of_arm) <= MAX_GROUPS}


def _longest(rows: dict[str, list[EstimateRow]]) -> int:
    return max(len(of_arm) for of_arm in rows.values())


def _points(
    axis: Axes,
    rows: Sequence[EstimateRow],
    offset: float,
    scale: float,
    colour: str,
    marker: str,
    filled: bool = True,
) -> None:
    """Draw values with their intervals, one line per group; unmeasured ones are left out."""
    values, lows, highs = (
        scale * np.array([_number(getattr(row, name)) for row in rows])
        for name in ("value", "low", "high")
    )
    axis.errorbar(
        values,
        np.arange(len(rows)) + offset,
        xerr=np.clip(np.nan_to_num([values - lows, highs - values]), 0, None),
        fmt=marker,
        color=colour,
        markersize=3.6,
        markerfacecolor=colour if filled else "white",
        markeredgewidth=1,
        elinewidth=1.1,
        zorder=3,
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value


#: Figures of a grouping, by name.
FIGURES = {
    "retention": retention,
    "shift-matrix": shift_matrix,
    "sources": sources,
    "compositions": compositions,
    "feasible-rate": feasibility,
    "skin-tone": skin_tone,
}
