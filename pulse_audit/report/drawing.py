"""How figures of the report are drawn: style, panels, legends, and every format of a file.

Drawn without pyplot's global state. Colours are those of seaborn's colour-blind safe palette, and
shape carries what colour does. Equal input gives equal bytes. A figure is drawn at the two widths
of a paper, and its type is the same 7 to 8 points in both: a narrow one has fewer panels side by
side, not smaller letters.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from pulse_audit.report.drawings import GRID, INK, LINE, MARGIN, MUTED, PAGE, Drawing
from pulse_audit.summary.schema import EstimateRow

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.bottom": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlesize": 7.5,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "pulse-audit",
    "text.color": INK,
    "text.parse_math": False,  # labels are text
    "xtick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 7,
    "xtick.major.size": 0,
    "ytick.color": INK,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 7,
    "ytick.major.size": 0,
}


def draw(figure: Figure) -> Drawing:
    """Render a figure to every format, without dates."""
    svg, png, pdf = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with style():
        # Laid out once; each backend then draws once (`Figure.savefig` draws twice).
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        figure.set_dpi(matplotlib.rcParams["savefig.dpi"])
        canvas: Any = FigureCanvasAgg(figure)
        canvas.print_png(png, metadata={"Software": None})
        figure.set_dpi(72)
        canvas = FigureCanvasPdf(figure)
        undated = {"CreationDate": None, "Creator": None, "Producer": None}
        canvas.print_pdf(pdf, metadata=undated)
        figure.patch.set_alpha(0)
        canvas = FigureCanvasSVG(figure)
        canvas.print_svg(svg, metadata={"Date": None, "Creator": None})
    return Drawing(svg.getvalue(), png.getvalue(), pdf.getvalue())


def style() -> AbstractContextManager[None]:
    """Within this context matplotlib draws in the style of the report."""
    return matplotlib.rc_context(_STYLE)


def panel_grid(
    lines: int,
    columns: int,
    groups: float,
    width: float,
    share_x: Literal["all", "col", "none"] = "all",
) -> tuple[Figure, list[Axes]]:
    """Make a figure of lines x columns panels with room for so many groups per panel."""
    height = lines * (LINE * groups + MARGIN) + 0.3
    layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.03, hspace=0.02)
    figure = Figure(figsize=(width, height), layout=layout)
    axes = figure.subplots(lines, columns, sharex=share_x, sharey="row", squeeze=False)
    return figure, list(axes.flat)


def panels(
    titles: Sequence[str],
    groups: int,
    label: str,
    draw_panel: Callable[[Axes, str], None],
    width: float,
) -> Figure:
    """Draw one panel per title, all with the same x axis.

    Parameters
    ----------
    titles : sequence of str
        Arms.
    groups : int
        Lines a panel has room for.
    label : str
        Of the x axis, below the lowest panels.
    draw_panel : callable
        ``draw_panel(axis, title)``.
    width : float
        Inches.
    """
    # Rows of panels with the same width; unused places of the last row stay empty.
    columns = min(len(titles), beside(width))
    figure, axes = panel_grid(-(-len(titles) // columns), columns, groups, width)
    for axis, title in zip(axes, titles, strict=False):
        draw_panel(axis, title)
    for axis in axes[len(titles) :]:
        axis.remove()
    # The lowest panel of each column carries the x axis.
    for axis in axes[len(titles) - columns : len(titles)]:
        axis.set_xlabel(label)
        axis.tick_params(labelbottom=True)
    return figure


def beside(width: float) -> int:
    """Panels that stand side by side at a width: one in a column, three on a page."""
    return 1 if width < 5 else 3


def label_groups(axis: Axes, title: str, rows: Sequence[EstimateRow]) -> None:
    """Set the title of a panel and label its lines with groups and their numbers of faces."""
    label_lines(axis, title, [f"{r.group} ({r.n_faces})" for r in rows])


def label_lines(axis: Axes, title: str, labels: Sequence[str]) -> None:
    """Set the title of a panel and label its lines, the first at the top."""
    set_title(axis, title)
    axis.set_yticks(range(len(labels)), [fitted(label, 22) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")


def set_title(axis: Axes, title: str, whole: bool = False) -> None:
    """Set the title of a panel, as wide as its column of the figure, or the ``whole``, at most."""
    place, figure = axis.get_subplotspec(), axis.get_figure(root=True)
    columns = 1 if place is None or whole else place.get_gridspec().ncols
    width = PAGE if figure is None else figure.get_figwidth()
    # Labels of lines take about 1.1 inches, a letter of 7.5 points 0.062.
    axis.set_title(fitted(title, int((width - 1.1) / columns / 0.062)), loc="left")


def fitted(text: str, characters: int) -> str:
    """Return untrusted text on at most two lines of so many characters; the rest is cut off."""
    return "\n".join(
        textwrap.wrap(" ".join(text.split()), characters, max_lines=2, placeholder=" …")
    )


def legend(figure: Figure, *entries: tuple[str, str, str]) -> None:
    """Put a legend of (colour, marker, label) above the panels; diamonds are hollow."""
    handles = [
        Line2D(
            [],
            [],
            color=colour,
            marker=marker,
            markerfacecolor="white" if marker == "D" else None,
            linestyle="" if marker == "|" else "-",
            linewidth=1.2,
            markersize=7 if marker == "|" else 4,
            label=label,
        )
        for colour, marker, label in entries
    ]
    place_legend(figure, handles)


def place_legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend above the panels, in as many columns as its texts and the width allow."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = int(figure.get_figwidth() / (0.5 + 0.06 * longest))
    columns = min(len(handles), max(columns, 1))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns)
    figure.set_figheight(figure.get_figheight() + 0.15 * -(-len(handles) // columns))
