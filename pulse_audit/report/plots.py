"""Forest plots and distributions as figures."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from pulse_audit.report.drawing import label_lines, legend, panel_grid, place_legend, style
from pulse_audit.report.drawings import INK, PAGE, PALETTE
from pulse_audit.report.forests import Forest, columns_at, line_heights

#: Of the series in a figure.
COLOURS, MARKERS = (*PALETTE[:4], INK, PALETTE[4]), "oDs^vp"


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
