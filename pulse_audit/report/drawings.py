"""Finished figures as bytes, the sizes and colours they have, and the cache of those drawn before.

Without matplotlib, which takes as long to import as a report of figures drawn before.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

from pulse_audit.files import as_json, atomic_write, cache_folder
from pulse_audit.summary.schema import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Inches: one column of a two-column page, and the page.
COLUMN, PAGE = 3.25, 6.9
#: Summaries whose drawings stay in the cache, some 4 MB each.
KEPT = 24
#: Inches of a line of a panel, and of what stands above and below its lines.
LINE, MARGIN = 0.17, 0.46

#: Seaborn's "colorblind" palette (Okabe and Ito's colours); a test compares them.
PALETTE = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc",
    "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9",
)  # fmt: skip
INK, MUTED, GRID = "#1c2430", "#5b6675", "#dde2e8"
OUTPUT, ORIGINAL = PALETTE[:2]

#: Colours of the dark page; it needs a lighter blue to keep its contrast.
DARK = {
    INK: "#e6eaf0",
    MUTED: "#9aa6b5",
    GRID: "#323b48",
    OUTPUT: "#56b4e9",
    "fill: #ffffff": "fill: #161b22",
}
PAGE_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


@dataclass(frozen=True)
class Drawing:
    """A finished figure as bytes."""

    svg: bytes
    png: bytes
    pdf: bytes

    @property
    def page(self) -> bytes:
        """The SVG in the reader's own font, as the page is."""
        return re.sub(r"'DejaVu Sans'(, [^;\"]*)?", PAGE_FONT, self.svg.decode()).encode()

    @property
    def page_dark(self) -> bytes:
        """The page's SVG in the colours of the dark page."""
        dark = self.page.decode()
        for colour, dark_colour in DARK.items():
            dark = dark.replace(colour, dark_colour)
        return dark.encode()


class Drawings:
    """Drawings of one summary; what this code drew of it before is taken from the cache.

    Figures are most of the time that a report takes, and a report is often rendered again.

    Parameters
    ----------
    summary : Summary
    *others : object
        What else the figures depend on; anything with a ``repr`` that says all of it.
    """

    def __init__(self, summary: Summary, *others: object) -> None:
        key = hashlib.sha256(as_json(summary.as_json()))
        key.update(repr((others, version("matplotlib"), version("numpy"))).encode())
        for module in sorted(files("pulse_audit.report").iterdir(), key=lambda each: each.name):
            if module.name.endswith(".py"):
                key.update(module.read_bytes())
        self._folder = cache_folder() / "figures" / key.hexdigest()[:32]

    def drawing(self, stem: str, make: Callable[[], Figure | None]) -> Drawing | None:
        """Return the drawing of a figure; None where there is nothing to draw."""
        paths = [self._folder / f"{stem}.{kind}" for kind in ("svg", "png", "pdf")]
        nothing = self._folder / f"{stem}.none"
        with contextlib.suppress(OSError):
            return None if nothing.exists() else Drawing(*(path.read_bytes() for path in paths))
        from pulse_audit.report.drawing import draw

        figure = make()
        drawing = None if figure is None else draw(figure)
        # A cache that cannot be written costs time at the next report, and nothing else.
        with contextlib.suppress(OSError):
            if drawing is None:
                atomic_write(nothing, b"")
            else:
                contents = (drawing.svg, drawing.png, drawing.pdf)
                for path, content in zip(paths, contents, strict=True):
                    atomic_write(path, content)
        return drawing

    def forget_older(self) -> None:
        """Remove the drawings of all but the latest `KEPT` summaries."""
        with contextlib.suppress(OSError):
            self._folder.touch()
            folders = sorted(self._folder.parent.iterdir(), key=lambda each: each.stat().st_mtime)
            for folder in folders[:-KEPT]:
                shutil.rmtree(folder, ignore_errors=True)
