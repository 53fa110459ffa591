"""A sheet of faces as a figure: originals, inputs and outputs under all that a run varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pulse_audit import store
from pulse_audit.report.content import NamedFigure
from pulse_audit.report.drawings import COLUMN, PAGE
from pulse_audit.report.gallery import read_picture, seeded
from pulse_audit.store import Manifest
from pulse_audit.sweeps import VARIANT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Rows of a sheet, faces in it, pictures beside each other and their side in pixels, at most.
MAX_ROWS, MAX_FACES, MAX_COLUMNS, MAX_SIDE = 10, 4, 14, 160
STEM = "faces"
#: Inches of a picture with its margin, at most.
MAX_CELL = 0.95
CAPTION = (
    "Faces drawn by the run's seed, not selected by hand: original, input, and outputs of every "
    "arm; an orange frame is an output that does not downscale to its input within eps."
)


@dataclass(frozen=True)
class Sheet:
    """Pictures in rows and columns; None where there is none."""

    columns: Sequence[str]
    rows: Sequence[str]
    pictures: Sequence[Sequence[Image.Image | None]]
    #: Whether an output fits its input; None for other pictures.
    feasible: Sequence[Sequence[bool | None]]


def sheet_figure(
    manifest: Manifest, run_path: Path, made: Sequence[Mapping[str, Any]]
) -> list[NamedFigure]:
    """Draw the sheet of a run from its cards; nothing where no picture was kept.

    It is never cached: faces may be withdrawn.
    """
    sheet = sheet_of(manifest, run_path, made)
    if not any(picture for row in sheet.pictures for picture in row):
        return []
    from pulse_audit.report.drawing import draw

    drawing, narrow = (draw(_draw(sheet, width)) for width in (PAGE, COLUMN))
    alt = f"Faces: {', '.join(dict.fromkeys(sheet.columns))}; rows {', '.join(sheet.rows)}"
    return [NamedFigure(STEM, drawing, narrow, CAPTION, alt)]


def sheet_of(manifest: Manifest, run_path: Path, made: Sequence[Mapping[str, Any]]) -> Sheet:
    """Choose faces by the seed, and gather their pictures under every condition and scale."""
    settings = list(dict.fromkeys((c["condition"], c["scale"]) for c in made))[:MAX_ROWS]
    cards = {(c["face"], c["condition"], c["scale"]): c for c in made}
    number = max(1, min(MAX_FACES, MAX_ROWS // max(1, len(settings))))
    faces = [
        face
        for face in seeded(manifest, list(dict.fromkeys(c["face"] for c in made)))
        if (run_path / store.original_path(face)).is_file()
    ][:number]
    # As many draws of every arm as there is room for; interpolation has one.
    arms = list(manifest.arms)[: MAX_COLUMNS - 2]
    searched = [arm for arm in arms if manifest.arms[arm].kind != "interpolation"]
    room = MAX_COLUMNS - 2 - (len(arms) - len(searched))
    most = max(1, room // max(1, len(searched)))
    draws = max((d["draw"] + 1 for c in made for d in c["draws"]), default=1)
    columns = [
        (arm, draw) for arm in arms for draw in range(min(draws, most) if arm in searched else 1)
    ]
    several = len({scale for _, scale in settings}) > 1
    rows, pictures, feasible = [], [], []
    for face in faces:
        for condition, scale in settings:
            card = cards.get((face, condition, scale))
            if card is None:
                continue
            words = [condition] * (len({c for c, _ in settings}) > 1) + [f"×{scale}"] * several
            rows.append(" ".join(words))
            fits = {(d["arm"], d["draw"]): d["feasible"] for d in card["draws"]}
            paths = [store.original_path(face), store.lr_path(face, condition, scale, 0)]
            paths += [store.output_path(a, face, condition, scale, d) for a, d in columns]
            pictures.append([read_picture(run_path, path) for path in paths])
            feasible.append([None, None, *(fits.get(column) for column in columns)])
    titles = ["original", "input", *(arm for arm, _ in columns)]
    return Sheet(titles, rows, pictures, feasible)


def _draw(sheet: Sheet, width: float) -> Figure:
    """Draw a sheet; only one that was not drawn before needs matplotlib."""
    from matplotlib.figure import Figure

    from pulse_audit.report.drawing import style
    from pulse_audit.report.drawings import PALETTE

    n_rows, n_columns = len(sheet.rows), len(sheet.columns)
    # Titles stand above the first picture of each arm, slanted where pictures are narrower; rows
    # are named at the left.
    left = 0.06 * max(map(len, sheet.rows)) + 0.05
    names = ["\n".join(title.split(VARIANT)) for title in sheet.columns]
    longest = max(len(part) for name in names for part in name.split("\n"))
    cell = min((width - left - 0.35) / n_columns, MAX_CELL)
    slanted = 0.055 * longest > cell
    above = 0.042 * longest + 0.15 if slanted else 0.3
    with style():
        height = above + n_rows * cell
        figure = Figure(figsize=(width, height))
        for row, column in np.ndindex(n_rows, n_columns):
            bottom = (height - above - (row + 1) * cell) / height
            place = (
                (left + column * cell) / width,
                bottom,
                0.94 * cell / width,
                0.94 * cell / height,
            )
            axis = figure.add_axes(place)
            axis.set_xticks([])
            axis.set_yticks([])
            picture = sheet.pictures[row][column]
            if picture is not None:
                picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
                axis.imshow(np.asarray(picture), interpolation="nearest", aspect="auto")
            if sheet.feasible[row][column] is False:
                axis.spines[:].set(visible=True, color=PALETTE[3], linewidth=1.2)
            first = column == 0 or sheet.columns[column] != sheet.columns[column - 1]
            if row == 0 and first:
                look: dict[str, Any] = {"rotation": 40} if slanted else {}
                look |= {"ha": "left", "va": "bottom", "fontsize": 6, "transform": axis.transAxes}
                axis.text(0.1 * slanted, 1.05, names[column], **look)
            if column == 0:
                axis.set_ylabel(sheet.rows[row], rotation=0, ha="right", va="center", fontsize=6)
    return figure
