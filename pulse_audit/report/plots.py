"""Forest plots and distributions as figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.report.drawing import (
    fitted,
    label_lines,
    legend,
    panel_grid,
    place_legend,
    set_title,
    style,
)
from pulse_audit.report.drawings import COLUMN, INK, OUTPUT, PAGE, PALETTE
from pulse_audit.report.forests import Forest, columns_at, line_heights
from pulse_audit.report.settings import Axis, Estimates, Line, label_of
from pulse_audit.summary.schema import ALL
from pulse_audit.sweeps import VARIANT

#: Of the series in a figure.
COLOURS, MARKERS = (*PALETTE[:4], INK, PALETTE[4]), "oDs^vp"
#: Of groups that are lines.
GROUP_COLOURS = tuple(colour for colour in PALETTE if colour not in ("#ece133", "#fbafe4"))


def draw_forests(plots: Sequence[Forest], width: float = PAGE) -> Figure:
    """Draw plots as panels under one legend.

    Parameters
    ----------
    plots : sequence of Forest
        Not empty, such as those that `pulse_audit.report.forests.pages` puts into one figure.
    width : float
        Inches.
    """
    # Series keep colour and marker in all panels; where one is missing, another may come up.
    series = list(dict.fromkeys(name for plot in plots for name in plot.series))[: len(MARKERS)]
    labels = list(dict.fromkeys(label for plot in plots for label, _ in plot.lines))
    columns = min(len(plots), columns_at(width))
    with style():
        rows = -(-len(plots) // columns)
        figure, axes = panel_grid(rows, columns, line_heights(plots), width, share_x="none")
        for axis, plot in zip(axes, plots, strict=False):
            _draw_panel(axis, plot, series, labels)
        for axis in axes[len(plots) :]:
            axis.remove()
        legend(figure, *((COLOURS[i], MARKERS[i], name) for i, name in enumerate(series)))
    return figure


def distribution(
    faces: pd.DataFrame, groups: Sequence[str], label: str, width: float = PAGE
) -> Figure:
    """Means of the faces of every group and arm: a smoothed density, and a point a face.

    Parameters
    ----------
    faces : DataFrame
        Columns ``group``, ``arm`` and ``value``: one row a face and arm.
    groups : sequence of str
        In the order in which they are drawn.
    label : str
        Of the values.
    width : float
        Inches.
    """
    import seaborn as sns  # a second to import, and no figure of the report needs it

    arms = list(dict.fromkeys(faces["arm"]))
    with style():
        height = len(groups) * (0.08 + 0.16 * len(arms)) + 0.6
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine())
        axis = figure.subplots()
        shared = {
            "data": faces, "x": "value", "y": "group", "hue": "arm", "order": groups,
            "hue_order": arms, "palette": list(PALETTE[: len(arms)]), "ax": axis, "legend": False,
        }  # fmt: skip
        sns.violinplot(
            cut=0, inner=None, linewidth=0.6, saturation=1, density_norm="width", **shared
        )
        shared |= {"palette": [INK] * len(arms)}
        sns.stripplot(dodge=True, size=1.6, alpha=0.6, jitter=False, **shared)
        label_lines(axis, "", groups)
        axis.set_xlabel(label)
        axis.set_ylabel("")
        patches = [
            Patch(facecolor=c, edgecolor=INK, label=a) for a, c in zip(arms, PALETTE, strict=False)
        ]
        place_legend(figure, patches)
    return figure


def _draw_panel(axis: Axes, plot: Forest, series: Sequence[str], labels: Sequence[str]) -> None:
    """Draw the intervals of a plot, every series in its colour, marker and place in the line."""
    for own, name in enumerate(plot.series):
        if name not in series:
            continue
        rank = series.index(name)
        offset = 0.7 * ((rank + 0.5) / len(series) - 0.5)
        points = [
            (labels.index(label) + offset, point)
            for label, of_line in plot.lines
            for point in of_line
            if point.series == own
        ]
        for place, point in points:
            if point.low is not None and point.high is not None:
                axis.plot((point.low, point.high), (place, place), color=COLOURS[rank], lw=1)
        axis.plot(
            [point.value for _, point in points],
            [place for place, _ in points],
            MARKERS[rank],
            color=COLOURS[rank],
            markersize=3.4,
            markerfacecolor="white" if MARKERS[rank] == "D" else None,
        )
    title = f"{plot.title}, {plot.unit}" if plot.unit else plot.title
    label_lines(axis, title, labels)
    # Ends and middle of the axis; the page has room for quarters.
    ticks = plot.ticks[::2]
    axis.set_xlim(-0.05, 1.05)
    axis.set_xticks([place for place, _ in ticks], [text for _, text in ticks])


def draw_axis(
    axis: Axis,
    lines: Sequence[Line],
    estimates: Estimates,
    measures: Sequence[str],
    width: float = PAGE,
) -> Figure:
    """Draw measures against what a run varies: a row a line, a panel a measure.

    All faces are black, with their 95 % intervals, groups in colour; numbers are joined by lines,
    words are not. Values stand side by side at equal distances, in the order of the run.

    Parameters
    ----------
    axis : Axis
        Its values make the x axis.
    lines : sequence of Line
        Those of this figure, not empty.
    estimates : Estimates
    measures : sequence of str
        Metrics.
    width : float
        Inches.
    """
    columns = min(len(measures), 2 if width == COLUMN else 4)
    per_line = -(-len(measures) // columns)
    rows, values = per_line * len(lines), axis.values
    groups = estimates.groups if len(estimates.groups) <= len(GROUP_COLOURS) else []
    slanted = sum(map(len, values)) * 0.07 > width / columns - 0.5
    with style():
        layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.03, hspace=0.04)
        height = rows * 1.35 + 0.45 * slanted + 0.35
        figure = Figure(figsize=(width, height), layout=layout)
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for place, line in enumerate(lines):
            panels = list(grid[place * per_line : (place + 1) * per_line].flat)
            for panel, metric in zip(panels, measures, strict=False):
                _draw_line(panel, line, axis, estimates, metric, groups)
                panel.set_ylabel(label_of(metric))
            set_title(panels[0], line.title, whole=True)
            for panel in panels[len(measures) :]:
                panel.remove()
        # The values stand below the lowest panel of each column.
        for panel in [[p for p in column if p.get_figure() is not None][-1] for column in grid.T]:
            panel.set_xlabel(axis.label)
            panel.tick_params(labelbottom=True)
        rotation: dict[str, Any] = {"rotation": 40, "ha": "right"} if slanted else {}
        for panel in figure.axes:
            panel.set_xticks(range(len(values)), values, **rotation)
            panel.set_xlim(-0.4, len(values) - (0.6 if axis.ordered else 0.5))
        entries = [(INK, "o", "all faces")]
        entries += [(GROUP_COLOURS[i], "", group) for i, group in enumerate(groups)]
        legend(figure, *entries)
    return figure


def _draw_line(
    panel: Axes,
    line: Line,
    axis: Axis,
    estimates: Estimates,
    metric: str,
    groups: Sequence[str],
) -> None:
    """Draw one measure of a line: of each group, and of all faces with intervals."""
    scale, values = BY_NAME[metric].display_scale, axis.values
    for rank, (series, colour) in enumerate(
        [*zip(groups, GROUP_COLOURS, strict=False), (ALL, INK)]
    ):
        # (points, 3): value, low and high of those that were measured
        found = [(values.index(v), estimates.at(metric, key, series)) for v, key in line.places]
        known = [(place, row) for place, row in found if row is not None and row.value is not None]
        # Words have the groups side by side, at the right of all faces.
        aside = 0.0 if axis.ordered or series == ALL else 0.08 + 0.3 * rank / len(GROUP_COLOURS)
        places = [place + aside for place, _ in known]
        numbers = scale * np.array(
            [[row.value, row.low, row.high] for _, row in known], dtype=np.float64
        ).reshape(-1, 3)
        if series != ALL:
            look: dict[str, Any] = {"ls": "-"} if axis.ordered else {"ls": "", "marker": "_"}
            panel.plot(places, numbers[:, 0], color=colour, lw=0.9, ms=4, zorder=2, **look)
            continue
        ends = np.abs(np.nan_to_num(numbers[:, 1:] - numbers[:, :1]))
        look = {"markersize": 3.6, "lw": 1.4, "elinewidth": 1.0, "zorder": 4}
        look["fmt"] = "o-" if axis.ordered else "o"
        panel.errorbar(places, numbers[:, 0], yerr=ends.T, color=INK, **look)
    if BY_NAME[metric].unit == "%":
        panel.set_ylim(-4, 104)
    elif BY_NAME[metric].lower_bound == 0:
        panel.set_ylim(bottom=0)


def radii(by_arm: Mapping[str, tuple[Sequence[float], float]], width: float = PAGE) -> Figure:
    """Draw how long the latents of searches ended, beside the shell where the prior has its mass.

    The soap bubble of Menon et al. 2020, section 3.2: nearly all of a Gaussian in many dimensions
    lies near the sphere of radius sqrt(d), none of it near 0, where its density is highest.

    Parameters
    ----------
    by_arm : mapping of str to tuple
        Of each arm the latent radii of its draws, and the standard deviation of that of a draw
        from the prior, ``1 / sqrt(2 L d)`` for L vectors of d values.
    width : float
        Inches.
    """
    arms = list(by_arm)
    with style():
        figure, (panel,) = panel_grid(1, 1, 1.5 * len(arms), width)
        # The shell of 95 % of the prior's draws, as wide as the widest arm's.
        spread = 1.96 * max(sd for _, sd in by_arm.values())
        panel.axvspan(1 - spread, 1 + spread, color=PALETTE[9], alpha=0.35, lw=0, zorder=0)
        for place, arm in enumerate(arms):
            found = np.asarray(by_arm[arm][0])
            # Points of equal radius stand above each other, in the order of the draws.
            offsets = place + 0.5 * ((np.arange(len(found)) * 0.618034) % 1 - 0.5)
            panel.plot(found, offsets, "o", color=OUTPUT, markersize=2.2, alpha=0.6, mew=0)
            middle = float(np.median(found))
            panel.vlines(middle, place - 0.38, place + 0.38, color=INK, lw=1.4, zorder=3)
        label_lines(panel, "", arms)
        # The settings of a variant stand below the name of its arm.
        names = ["\n".join(fitted(part, 40) for part in arm.split(VARIANT)) for arm in arms]
        panel.set_yticks(range(len(arms)), names)
        panel.set_xlim(0, max(1.15, 1.05 * max(max(found) for found, _ in by_arm.values())))
        panel.set_xlabel("mean norm of an image's latent vectors over √d")
        patch = Patch(facecolor=PALETTE[9], alpha=0.35, label="95 % of the prior's draws")
        dots = Line2D([], [], color=OUTPUT, marker="o", ls="", ms=3, label="a draw")
        median = Line2D([], [], color=INK, marker="|", ls="", ms=8, label="median")
        place_legend(figure, [dots, median, patch])
    return figure
