"""Pictures for the page: which faces are shown, and their images as small PNGs.

A run directory may come from elsewhere: paths in it are not trusted to stay inside it, nor files
to be the images they claim to be.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from pulse_audit import store
from pulse_audit.store import Manifest

#: Longest side of an embedded picture, pixels, and the largest file and image that is opened.
LONGEST, MOST_BYTES, MOST_PIXELS = 128, 32 * 2**20, 8192**2
#: Pictures on one page, faces a group, and draws an arm, at most.
MOST_PICTURES, MOST_FACES, MOST_DRAWS = 420, 2, 3
NON_BREAKING_HYPHEN = "\N{NON-BREAKING HYPHEN}"
_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery; ``source`` is a data URI, or None where there is no image."""

    source: str | None
    alt: str
    caption: str = ""
    state: str = ""
    pixelated: bool = False


@dataclass(frozen=True)
class GalleryFace:
    """One face: its id, and original, input and outputs in the order of the heads."""

    face_id: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """Faces of every group under one condition and scale; ``heads`` are (arm, pictures) pairs."""

    heads: Sequence[tuple[str, int]]
    groups: Sequence[tuple[str, Sequence[GalleryFace]]]

    @property
    def n_pictures(self) -> int:
        """How many pictures it holds."""
        return sum(len(face.pictures) for _, faces in self.groups for face in faces)


def gallery(
    run_path: Path,
    manifest: Manifest,
    samples: pd.DataFrame,
    group_of_face: Mapping[str, str],
    order: Sequence[str],
) -> Gallery | None:
    """Lay out the first kept faces of every group, in the order of the plan.

    Parameters
    ----------
    run_path : Path
        The run directory.
    manifest : mapping
    samples : DataFrame
        The draws of one condition and scale.
    group_of_face : mapping
        Face id -> group.
    order : sequence of str
        Groups, in the order shown.

    Returns
    -------
    Gallery or None
        None where the run kept no image of this condition and scale.
    """
    kept = samples[samples["image"].notna()]
    if kept.empty:
        return None
    faces = _first_faces(manifest, set(kept["face_id"]), group_of_face)
    draws = {arm: _draws(manifest, samples, arm) for arm in pd.unique(samples["arm"])}
    heads = [(arm, len(indices)) for arm, indices in draws.items()]
    rows = {(r["face_id"], r["arm"], r["draw"]): r for r in _records(samples, faces)}
    groups = [
        (group, [_face(run_path, face, group, rows, draws) for face in faces[group]])
        for group in order
        if group in faces
    ]
    return Gallery(heads, groups)


def data_uri(run_path: Path, relative: object) -> tuple[str | None, bool]:
    """Return an image of the run as a PNG data URI, and whether it is small enough for pixels.

    Anything that is not a readable PNG, JPEG or WebP inside the run gives (None, False).
    """
    path = _inside(run_path, relative)
    if path is None:
        return None, False
    try:
        with Image.open(path, formats=_FORMATS) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                return None, False
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, False
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/png;base64,{encoded}", max(image.size) < 96


def _inside(run_path: Path, relative: object) -> Path | None:
    """Return the file a run names, if it lies in the run (links resolved) and is not huge."""
    if not isinstance(relative, str) or not relative or "\0" in relative:
        return None
    root = run_path.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return None
    return path


def _first_faces(
    manifest: Manifest, kept: set[str], group_of_face: Mapping[str, str]
) -> dict[str, list[str]]:
    faces: dict[str, list[str]] = {}
    for face_id in (face.id for face in manifest.faces):
        if face_id in kept and face_id in group_of_face:
            of_group = faces.setdefault(group_of_face[face_id], [])
            of_group.extend([face_id] if len(of_group) < MOST_FACES else [])
    return faces


def _draws(manifest: Manifest, samples: pd.DataFrame, arm: str) -> list[int]:
    """Draws shown of an arm: one for interpolation, which gives the same answer each time."""
    indices = sorted(int(i) for i in pd.unique(samples.loc[samples["arm"] == arm, "draw"]))
    interpolates = arm in manifest.arms and manifest.arms[arm].kind == "interpolation"
    return indices[: 1 if interpolates else MOST_DRAWS]


def _records(samples: pd.DataFrame, faces: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    shown = {face for of_group in faces.values() for face in of_group}
    columns = ["face_id", "arm", "condition", "scale", "draw", "status", "feasible"]
    columns += ["downscale_error", "image", "reason"]
    chosen = samples[samples["face_id"].isin(shown)].reindex(columns=columns)
    records = chosen.astype("object").where(chosen.notna(), None).to_dict("records")
    return [{str(key): value for key, value in record.items()} for record in records]


def _face(
    run_path: Path,
    face_id: str,
    group: str,
    rows: Mapping[tuple[str, str, int], Mapping[str, Any]],
    draws: Mapping[str, Sequence[int]],
) -> GalleryFace:
    of_face = [row for key, row in rows.items() if key[0] == face_id]
    first = of_face[0]
    lr_path = store.lr_path(face_id, str(first["condition"]), int(first["scale"]), 0)
    pictures = [
        _given(run_path, store.original_path(face_id), f"original photo {face_id}, {group}"),
        _given(run_path, lr_path, f"low-resolution input made from {face_id}", pixelated=True),
    ]
    for arm, indices in draws.items():
        for index in indices:
            row = rows.get((face_id, arm, index))
            pictures.append(_output(run_path, arm, index, row))
    return GalleryFace(face_id, pictures)


def _given(run_path: Path, relative: str, alt: str, pixelated: bool = False) -> Picture:
    source, small = data_uri(run_path, relative)
    return Picture(source, alt, "" if source else "not kept", "", pixelated or small)


def _output(run_path: Path, arm: str, index: int, row: Mapping[str, Any] | None) -> Picture:
    alt = f"output of {arm}, draw {index}"
    if row is None:
        return Picture(None, alt, "not finished")
    source, small = data_uri(run_path, row["image"])
    caption, state = _outcome(row)
    return Picture(source, f"{alt}: {caption}", caption, state, small)


def _outcome(row: Mapping[str, Any]) -> tuple[str, str]:
    """Caption and state of one draw: ``infeasible 4.1e-3``."""
    if row["status"] in ("error", "no_face"):
        word = str(row["status"]).replace("_", " ")
        return f"{word}: {row['reason']}" if row["reason"] else word, "bad"
    word, state = ("feasible", "good") if row["feasible"] is True else ("infeasible", "bad")
    error = row["downscale_error"]
    return word if error is None else f"{word} {_scientific(error)}", state


def _scientific(number: float) -> str:
    """``4.1e-3``: no leading zero in the exponent, and a hyphen at which no line breaks."""
    mantissa, exponent = f"{number:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}".replace("-", NON_BREAKING_HYPHEN)
