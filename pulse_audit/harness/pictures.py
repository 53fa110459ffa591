"""Pictures of a photo by hand beside its outputs: contact sheet, pasted photo, search as a GIF."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pulse_audit import __version__
from pulse_audit.faces.align import paste
from pulse_audit.harness.given import CORNERS, GivenFace
from pulse_audit.harness.photos import SYNTHETIC, encode_png, synthetic_marks, to_bytes
from pulse_audit.harness.sheet import INK, MARK, MOST, PAPER, Tile, contact_sheet
from pulse_audit.search.engine import SearchResult
from pulse_audit.types import GeneratorCard

WARNING = (
    "Outputs are synthetic faces, not photos. Each is one of many that downscale to the same few "
    "pixels; none is the person in the photo, and none is evidence of anyone's identity."
)
#: Iterates between two frames of a GIF; how long one is shown and the last, in milliseconds.
FRAMES_EVERY, SHOWN, LAST_SHOWN = 4, 120, 2000
#: Pixels of a picture in a frame, of the space around it, and of the lines of text.
PANEL, GAP, LINE = 256, 8, 20


def sheet(face: GivenFace, pixels: NDArray[np.float32], draws: int, card: GeneratorCard) -> bytes:
    """Draw the contact sheet of a face; it holds the photo, so it is not marked synthetic."""
    tiles = []
    if face.square is not None:
        which = f"photo, face {face.number} of {face.faces}" if face.faces > 1 else "photo"
        outline = face.square.to_photo(CORNERS)
        picture = (pixels * 255).round().clip(0, 255).astype(np.uint8)
        part = "all of the crop" if face.frame is None else f"{face.frame.side:.0%} of its side"
        original = to_bytes(face.original(pixels, card.resolution))
        tiles = [
            Tile(picture, (which, "what is compared in red"), outline),
            Tile(original, ("original, as compared", f"{card.crop}: {part}")),
        ]
    side = face.lr.shape[-1]
    tiles.append(Tile(to_bytes(face.lr), (f"input, {side} x {side} px",), magnified=True))
    shown = [index for index in range(draws) if face.rows[index]["image"]][:MOST]
    for index in shown:
        row = face.rows[index]
        feasible = "feasible" if row["status"] == "ok" else "infeasible"
        lines = (
            f"draw {index}: {feasible}",
            f"seed {row['seed']}, error {row['downscale_error']:.2e}",
        )
        tiles.append(Tile(_picture(row["image"]), lines))
    title = f"PULSE with {card.name}: {len(shown)} of {draws} draws, {card.resolution} px"
    eps = face.settings["search"]["eps"]
    below = f"Feasible: the output downscales to the input within eps {eps:g}. {WARNING}"
    texts = {"Software": f"pulse-audit {__version__}", "Description": f"Contact sheet. {WARNING}"}
    return encode_png(contact_sheet(tiles, title, below), texts)


def pasted(
    faces: Sequence[GivenFace], pixels: NDArray[np.float32], index: int, card: GeneratorCard
) -> bytes | None:
    """Set one draw of every face of a photo into it; None where no face has that draw."""
    pieces = [
        (face.square, _picture(face.rows[index]["image"]))
        for face in faces
        if face.square is not None and face.rows[index]["image"]
    ]
    if not pieces:
        return None
    photo = (paste(pixels, pieces) * 255).round().astype(np.uint8)
    marks = synthetic_marks(card.name, faces[0].rows[index]["seed"])
    marks["Description"] = f"photo whose faces were replaced: each a {SYNTHETIC}"
    return encode_png(Image.fromarray(photo), marks)


def search_gif(lr: Tensor, result: SearchResult, image: Tensor, downscaled: Tensor) -> bytes:
    """Draw a search: its input, the best iterate so far, and what that downscales to.

    Parameters
    ----------
    lr : Tensor, (3, h, w)
        The input.
    result : SearchResult
        With frames.
    image, downscaled : Tensor, (3, R, R) and (3, h, w)
        The output, and what it downscales to, for the last frame.
    """
    frames = [(frame.steps, frame.image, frame.lr) for frame in result.frames]
    frames = [*(f for f in frames if f[0] < result.steps), (result.steps, image, downscaled)]
    pictures = [_frame(lr, *frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=[SHOWN] * (len(pictures) - 1) + [LAST_SHOWN],
        loop=0,
        comment=f"pulse-audit {__version__}: {SYNTHETIC}".encode(),
    )
    return buffer.getvalue()


def _frame(lr: Tensor, steps: int, image: Tensor, downscaled: Tensor) -> Image.Image:
    """Draw one frame with its palette of 256 colours."""
    error = float((downscaled - lr).double().square().mean())
    panels = {"input": lr, f"best of {steps} steps": image, f"downscaled: {error:.1e}": downscaled}
    width = len(panels) * (PANEL + GAP) + GAP
    frame = Image.new("RGB", (width, PANEL + 2 * GAP + 2 * LINE), PAPER)
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(15)
    for place, (text, panel) in enumerate(panels.items()):
        left, picture = GAP + place * (PANEL + GAP), Image.fromarray(to_bytes(panel))
        shrinks = picture.width > PANEL
        kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST
        frame.paste(picture.resize((PANEL, PANEL), kernel), (left, GAP))
        draw.text((left, PANEL + GAP + 4), text, INK, font)
    draw.text((GAP, PANEL + GAP + 4 + LINE), f"A {SYNTHETIC}.", MARK, font)
    return frame.quantize(256, dither=Image.Dither.NONE)


def _picture(path: str | Path) -> NDArray[np.uint8]:
    """Read an output (R, R, 3) that was written before."""
    with Image.open(path, formats=("PNG",)) as opened:
        return np.asarray(opened.convert("RGB"))
