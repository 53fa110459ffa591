"""The contact sheet of a photo by hand: photo, crop, input and outputs in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

#: Pixels of a tile, of the space around it, and of the lines of text.
TILE, GAP, LINE = 288, 16, 20
#: Tiles in a row, and outputs that are shown at most.
COLUMNS, MOST = 6, 22
PAPER, INK, MARK = (255, 255, 255), (20, 20, 20), (230, 60, 20)


@dataclass(frozen=True)
class Tile:
    """A picture (H, W, 3) of uint8 with its lines of text.

    ``outline`` are the corners (k, 2) of a figure drawn on it, x and y in pixels; pictures that
    are ``magnified`` show their pixels as squares.
    """

    picture: NDArray[np.uint8]
    lines: tuple[str, ...]
    outline: NDArray[np.float64] | None = None
    magnified: bool = False


def contact_sheet(tiles: Sequence[Tile], title: str, warning: str) -> Image.Image:
    """Draw tiles in rows, with a title above and a warning below."""
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = max(len(tile.lines) for tile in tiles)
    height = TILE + lines * LINE + GAP
    width = columns * (TILE + GAP) + GAP
    font = ImageFont.load_default(15)
    # About 7.5 pixels a letter at this size.
    below = textwrap.wrap(warning, (width - 2 * GAP) // 8)
    top = LINE + 2 * GAP
    sheet = Image.new("RGB", (width, top + rows * height + (len(below) + 1) * LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP), title, INK, font)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        left, upper = GAP + column * (TILE + GAP), top + row * height
        sheet.paste(_fitted(tile), (left, upper))
        for line, text in enumerate(tile.lines):
            draw.text((left, upper + TILE + 4 + line * LINE), text, INK, font)
    for line, text in enumerate(below):
        draw.text((GAP, top + rows * height + line * LINE), text, MARK, font)
    return sheet


def _fitted(tile: Tile) -> Image.Image:
    """Fit the picture of a tile into its square, with its figure."""
    picture = Image.fromarray(tile.picture)
    scale = TILE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    kernel = Image.Resampling.NEAREST if tile.magnified else Image.Resampling.LANCZOS
    square = Image.new("RGB", (TILE, TILE), PAPER)
    square.paste(picture.resize(size, kernel), (0, 0))
    if tile.outline is not None:
        corners = [(float(x), float(y)) for x, y in tile.outline * scale]
        ImageDraw.Draw(square).line([*corners, corners[0]], MARK, 3)
    return square
