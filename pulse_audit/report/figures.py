"""Figures of the report: estimates with their intervals, one panel an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from pulse_audit.report.drawing import (
    GRID,
    INK,
    MOST_GROUPS,
    MUTED,
    ORIGINAL,
    OUTPUT,
    dress,
    grid,
    one_line,
    panels,
    style,
)
from pulse_audit.summary.schema import EstimateRow, Summary

MOST_CLASSES = 12
_NOTHING = {"value": None, "low": None, "high": None}

_TONES = ("hr_lightness", "sr_lightness", "lightness_shift", "hr_ita", "sr_ita")
_TONE_LABELS = ("lightness, L*", "lightness shift, L*", "individual typology angle, °")


def feasibility(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """Feasible rate of every group with its interval; None where there is nothing to draw."""
    found = _panels(summary, "feasible_rate", arms, condition, scale, group_by)
    if not found:
        return None

    def draw_one(axis: Axes, arm: str) -> None:
        whole = _whole(summary, "feasible_rate", arm, condition, scale)
        _rates(axis, arm, found[arm], whole)

    with style():
        return panels(list(found), _most(found), "feasible draws, %", draw_one, most=4)


def skin_tone(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """Skin tone of originals and outputs per group, and the paired shift: a line an arm.

    Columns: lightness of both, lightness shift (output minus original), ITA of both.
    """
    cells = {
        arm: [summary.select(name, arm, condition, scale, group_by) for name in _TONES]
        for arm in arms
    }
    drawn = {arm: found for arm, found in cells.items() if 0 < len(found[2]) <= MOST_GROUPS}
    if not drawn:
        return None
    with style():
        most = max(len(found[2]) for found in drawn.values())
        figure, axes = grid(len(drawn), 3, most, width=10.0, share_x="col")
        for line, (arm, (light_hr, light_sr, shift, ita_hr, ita_sr)) in enumerate(drawn.items()):
            left, middle, right = axes[3 * line : 3 * line + 3]
            _both(left, arm, light_hr, light_sr)
            _shift(middle, shift)
            _both(right, "", ita_hr, ita_sr)
            middle.set_title("shift of lightness", loc="left", color=MUTED)
            right.set_title("ITA", loc="left", color=MUTED)
        for column, label in enumerate(_TONE_LABELS):
            axes[column - 3].set_xlabel(label)
        _legend(figure)
    return figure


def retention(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """Retention of every group, raw and corrected, beside what the originals themselves score."""
    found = _panels(summary, "retention", arms, condition, scale, group_by)
    if not found:
        return None

    def draw_one(axis: Axes, arm: str) -> None:
        cell = (arm, condition, scale, group_by)
        floor = summary.select("retention", *cell, correction="original_baseline")
        corrected = summary.select("retention_corrected", *cell)
        _retention(axis, found[arm], _by_group(floor), _by_group(corrected))

    with style():
        figure = panels(list(found), _most(found), "retained draws, %", draw_one, most=3)
        _marks(figure)
    return figure


def shift_matrix(
    summary: Summary, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> Figure | None:
    """P(apparent group of the output | group of the face), in per cent: a panel an arm."""
    matrices = {
        arm: matrix
        for arm in arms
        if (matrix := _matrix(summary, arm, condition, scale, group_by)) is not None
    }
    if not matrices:
        return None
    columns = min(len(matrices), 3)
    lines, most = -(-len(matrices) // columns), max(len(m.index) for m in matrices.values())
    with style():
        layout = ConstrainedLayoutEngine(wspace=0.04)
        size = (10.0 if columns > 1 else 6.5, lines * (0.36 * most + 1.4))
        figure = Figure(figsize=size, layout=layout)
        axes = list(figure.subplots(lines, columns, sharey="row", squeeze=False).flat)
        for axis, (arm, matrix) in zip(axes, matrices.items(), strict=False):
            _heat(axis, arm, matrix)
        for axis in axes[len(matrices) :]:
            axis.remove()
        axes[0].set_ylabel("group of the face")
    return figure


def _rates(axis: Axes, arm: str, rows: Sequence[EstimateRow], whole: EstimateRow | None) -> None:
    _points(axis, rows, 0.0, 100.0, OUTPUT, "o")
    if whole is not None and whole.value is not None:
        axis.axvline(100 * whole.value, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axis.set_xlim(-3, 103)
    dress(axis, arm, rows)


def _retention(
    axis: Axes,
    rows: Sequence[EstimateRow],
    floor: Mapping[str, EstimateRow],
    corrected: Mapping[str, EstimateRow],
) -> None:
    for line, row in enumerate(rows):
        if row.group in floor:
            level = 100 * _number(floor[row.group].value)
            axis.vlines(level, line - 0.36, line + 0.36, color=MUTED, linewidth=1.6, zorder=2)
    _points(axis, rows, -0.13, 100.0, OUTPUT, "o")
    after = [corrected.get(row.group, row.model_copy(update=_NOTHING)) for row in rows]
    _points(axis, after, 0.17, 100.0, ORIGINAL, "D", filled=False)
    axis.set_xlim(-3, 103)
    dress(axis, rows[0].arm, rows)


def _marks(figure: Figure) -> None:
    raw = Line2D([], [], color=OUTPUT, marker="o", label="as classified")
    corrected = Line2D(
        [], [], color=ORIGINAL, marker="D", markerfacecolor="white", label="corrected"
    )
    floor = Line2D([], [], color=MUTED, marker="|", linestyle="", markersize=9, label="originals")
    figure.legend(handles=[raw, corrected, floor], loc="outside upper left", ncols=3, frameon=False)


def _by_group(rows: Sequence[EstimateRow]) -> dict[str, EstimateRow]:
    return {row.group: row for row in rows if row.value is not None}


def _matrix(
    summary: Summary, arm: str, condition: str, scale: int, group_by: str
) -> pd.DataFrame | None:
    """Raw shift matrix in per cent; None where there is none, or it is too large to read."""
    wanted = ("shift", arm, condition, scale, group_by, "raw")
    cells = [
        r
        for r in summary.estimates
        if (r.metric, r.arm, r.condition, r.scale, r.group_by, r.correction) == wanted
    ]
    lines = list(dict.fromkeys(r.group for r in cells))
    columns = list(dict.fromkeys(str(r.to_group) for r in cells))
    if not cells or max(len(lines), len(columns)) > MOST_CLASSES:
        return None
    matrix = pd.DataFrame(np.nan, index=lines, columns=columns)
    for row in cells:
        matrix.loc[row.group, str(row.to_group)] = 100 * _number(row.value)
    never = [c for c in columns if c not in lines and not matrix[c].any()]
    return matrix.drop(columns=never)


def _heat(axis: Axes, arm: str, matrix: pd.DataFrame) -> None:
    sns.heatmap(
        matrix, ax=axis, cmap="Blues", vmin=0, vmax=100, cbar=False, linewidths=1, linecolor=GRID
    )
    for (line, column), value in np.ndenumerate(matrix.to_numpy()):
        if np.isfinite(value):
            colour = "#fefefe" if value > 55 else "#10151c"
            axis.text(
                column + 0.5, line + 0.5, f"{value:.0f}", ha="center", va="center", color=colour
            )
    axis.set_title(one_line(arm), loc="left", fontweight="bold")
    axis.set_xlabel("apparent group of the output")
    axis.set_xticklabels([one_line(c) for c in matrix.columns], rotation=40, ha="right")
    axis.set_yticklabels([one_line(str(line)) for line in matrix.index], rotation=0)
    axis.tick_params(length=0)


def _both(
    axis: Axes, title: str, before: Sequence[EstimateRow], after: Sequence[EstimateRow]
) -> None:
    starts, ends = ([_number(row.value) for row in rows] for rows in (before, after))
    axis.hlines(range(len(before)), starts, ends, color=GRID, linewidth=3, zorder=1)
    _points(axis, before, -0.13, 1.0, ORIGINAL, "D", filled=False)
    _points(axis, after, 0.13, 1.0, OUTPUT, "o")
    dress(axis, title, before)


def _shift(axis: Axes, rows: Sequence[EstimateRow]) -> None:
    axis.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    _points(axis, rows, 0.0, 1.0, INK, "s")
    dress(axis, "", rows)


def _points(
    axis: Axes,
    rows: Sequence[EstimateRow],
    offset: float,
    times: float,
    colour: str,
    marker: str,
    filled: bool = True,
) -> None:
    """Values with their intervals, a line a group; what was not measured is left out."""
    values, lows, highs = (
        times * np.array([_number(getattr(row, name)) for row in rows])
        for name in ("value", "low", "high")
    )
    axis.errorbar(
        values,
        np.arange(len(rows)) + offset,
        xerr=np.clip(np.nan_to_num([values - lows, highs - values]), 0, None),
        fmt=marker,
        color=colour,
        markersize=5.5,
        markerfacecolor=colour if filled else "white",
        markeredgewidth=1.4,
        elinewidth=1.6,
        zorder=3,
    )


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _legend(figure: Figure) -> None:
    original = Line2D(
        [], [], color=ORIGINAL, marker="D", markerfacecolor="white", label="originals"
    )
    output = Line2D([], [], color=OUTPUT, marker="o", label="outputs")
    shift = Line2D([], [], color=INK, marker="s", label="output minus original")
    figure.legend(
        handles=[original, output, shift], loc="outside upper left", ncols=3, frameon=False
    )


def _panels(
    summary: Summary, metric: str, arms: Sequence[str], condition: str, scale: int, group_by: str
) -> dict[str, list[EstimateRow]]:
    rows = {arm: summary.select(metric, arm, condition, scale, group_by) for arm in arms}
    return {arm: found for arm, found in rows.items() if 0 < len(found) <= MOST_GROUPS}


def _whole(
    summary: Summary, metric: str, arm: str, condition: str, scale: int
) -> EstimateRow | None:
    return next(iter(summary.select(metric, arm, condition, scale)), None)


def _most(panels: Mapping[str, Sequence[EstimateRow]]) -> int:
    return max(len(rows) for rows in panels.values())
