"""How figures of the report are drawn: colours, style, panels, and every format of a file.

Drawn without pyplot's global state. Colours are from the colour-blind safe palette of seaborn
(Okabe and Ito's), and shape carries what colour does. Equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pulse_audit.summary.schema import EstimateRow

INK, MUTED, GRID = "#1c2430", "#5b6675", "#dde2e8"
ORIGINAL, OUTPUT = (sns.color_palette("colorblind").as_hex()[i] for i in (1, 0))

#: Colours of the dark page; it needs a lighter blue to keep its contrast.
DARK = {
    INK: "#e6eaf0",
    MUTED: "#9aa6b5",
    GRID: "#323b48",
    OUTPUT: "#56b4e9",
    "fill: #ffffff": "fill: #161b22",
}
PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"

_STYLE: dict[Any, Any] = {
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": INK,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "figure.facecolor": "white",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "pulse-audit",
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
    "text.parse_math": False,  # labels are text
}


@dataclass(frozen=True)
class Drawing:
    """A finished figure as bytes; ``page`` and ``page_dark`` are SVGs in the reader's own font."""

    svg: bytes
    png: bytes
    pdf: bytes
    page: bytes
    page_dark: bytes


def draw(figure: Figure) -> Drawing:
    """Render a figure to every format, without dates."""

    def saved(kind: str, undated: dict[str, None]) -> bytes:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, metadata=undated)
        return buffer.getvalue()

    with style():
        # Laid out once, not once per format.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        png = saved("png", {"Software": None})
        pdf = saved("pdf", {"CreationDate": None, "Creator": None, "Producer": None})
        figure.patch.set_alpha(0)
        svg = saved("svg", {"Date": None, "Creator": None})
        figure.patch.set_alpha(1)

    # The page's SVGs use the reader's own font, as the page does, and a dark edition of them.
    page = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", PAGE_FONT, svg.decode())
    dark = page
    for colour, dark_colour in DARK.items():
        dark = dark.replace(colour, dark_colour)
    return Drawing(svg, png, pdf, page.encode(), dark.encode())


def style() -> AbstractContextManager[None]:
    """Within this context matplotlib draws in the style of the report."""
    seaborn_style: dict[Any, Any] = sns.axes_style("whitegrid")
    return matplotlib.rc_context({**seaborn_style, **_STYLE})


def panel_grid(
    lines: int, columns: int, groups: int, width: float, share_x: Literal["all", "col"] = "all"
) -> tuple[Figure, list[Axes]]:
    """Make a figure of lines x columns panels with room for so many groups per panel."""
    height = lines * (0.27 * groups + 0.55) + 0.5
    layout = ConstrainedLayoutEngine(wspace=0.05)
    figure = Figure(figsize=(width, height), layout=layout)
    axes = figure.subplots(lines, columns, sharex=share_x, sharey="row", squeeze=False)
    return figure, list(axes.flat)


def panels(
    titles: Sequence[str],
    groups: int,
    label: str,
    draw_panel: Callable[[Axes, str], None],
    most: int,
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
    most : int
        Panels side by side, at most.
    """
    # Rows of panels with the same width; unused places of the last row stay empty.
    columns = min(len(titles), most)
    figure, axes = panel_grid(
        -(-len(titles) // columns), columns, groups, width=10.0 if columns > 1 else 6.5
    )
    for axis, title in zip(axes, titles, strict=False):
        draw_panel(axis, title)
    for axis in axes[len(titles) :]:
        axis.remove()
    # The lowest panel of each column carries the x axis.
    for axis in axes[len(titles) - columns : len(titles)]:
        axis.set_xlabel(label)
        axis.tick_params(labelbottom=True)
    return figure


def label_groups(axis: Axes, title: str, rows: Sequence[EstimateRow]) -> None:
    """Set the title of a panel and label its lines with groups and their numbers of faces."""
    axis.set_title(one_line(title), loc="left", fontweight="bold")
    axis.set_yticks(range(len(rows)), [one_line(f"{r.group} ({r.n_faces})") for r in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(visible=False, axis="y")
    axis.tick_params(length=0)
    sns.despine(ax=axis, left=True, bottom=True)


def one_line(text: str) -> str:
    """Return untrusted text on one line."""
    return " ".join(text.split())
