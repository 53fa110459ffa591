"""Pictures for the page: which faces are shown, and their images as small PNGs.

A run directory may come from elsewhere: its paths are not trusted to stay inside it, nor its files
to be images.
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
LONGEST_SIDE, MAX_BYTES, MAX_PIXELS = 128, 32 * 2**20, 8192**2
#: Pictures on one page, faces per group, and draws per arm, at most.
MAX_PICTURES, MAX_FACES, MAX_DRAWS = 420, 2, 3


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
        """Number of pictures."""
        return sum(len(face.pictures) for _, faces in self.groups for face in faces)


def gallery(
    run_path: Path,
    manifest: Manifest,
    samples: pd.DataFrame,
    group_of_face: Mapping[str, str],
    order: Sequence[str],
) -> Gallery | None:
    """Lay out the first faces of every group whose images were kept, in the order of the plan.

    Parameters
    ----------
    run_path : Path
        The run directory.
    manifest : Manifest
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
    with_image = samples[samples["image"].notna()]
    if with_image.empty:
        return None

    # The first faces of each group in the order of the plan, never picked by hand.
    faces: dict[str, list[str]] = {}
    stored = set(with_image["face_id"])
    for face_id in (face.id for face in manifest.faces):
        if face_id in stored and face_id in group_of_face:
            of_group = faces.setdefault(group_of_face[face_id], [])
            of_group.extend([face_id] if len(of_group) < MAX_FACES else [])

    # Draws shown of each arm: one for interpolation, which gives the same answer each time.
    draws: dict[str, list[int]] = {}
    for arm in pd.unique(samples["arm"]):
        indices = sorted(int(i) for i in pd.unique(samples.loc[samples["arm"] == arm, "draw"]))
        interpolates = arm in manifest.arms and manifest.arms[arm].kind == "interpolation"
        draws[arm] = indices[: 1 if interpolates else MAX_DRAWS]

    # Their rows as plain values, null as None.
    columns = ["face_id", "arm", "condition", "scale", "draw", "status", "feasible"]
    columns += ["downscale_error", "image", "reason"]
    shown = {face_id for of_group in faces.values() for face_id in of_group}
    chosen = samples[samples["face_id"].isin(shown)].reindex(columns=columns)
    records = chosen.astype("object").where(chosen.notna(), None).to_dict("records")
    rows = {(r["face_id"], r["arm"], r["draw"]): r for r in records}

    groups = [
        (group, [_face(run_path, face_id, group, rows, draws) for face_id in faces[group]])
        for group in order
        if group in faces
    ]
    return Gallery([(arm, len(indices)) for arm, indices in draws.items()], groups)


def _face(
    run_path: Path,
    face_id: str,
    group: str,
    rows: Mapping[tuple[str, str, int], Mapping[Any, Any]],
    draws: Mapping[str, Sequence[int]],
) -> GalleryFace:
    """Pictures of one face: original, low-resolution input, then the outputs of every arm."""
    first = next(row for key, row in rows.items() if key[0] == face_id)
    lr_path = store.lr_path(face_id, str(first["condition"]), int(first["scale"]), 0)
    pictures = []
    for relative, alt, is_input in (
        (store.original_path(face_id), f"original photo {face_id}, {group}", False),
        (lr_path, f"low-resolution input made from {face_id}", True),
    ):
        uri, small = data_uri(run_path, relative)
        caption = "" if uri else "not kept"
        pictures.append(Picture(uri, alt, caption, "", is_input or small))

    for arm, index in ((arm, index) for arm, indices in draws.items() for index in indices):
        row, alt = rows.get((face_id, arm, index)), f"output of {arm}, draw {index}"
        if row is None:
            pictures.append(Picture(None, alt, "not finished"))
            continue
        uri, small = data_uri(run_path, row["image"])
        caption, state = _outcome(row)
        pictures.append(Picture(uri, f"{alt}: {caption}", caption, state, small))
    return GalleryFace(face_id, pictures)


def _outcome(row: Mapping[Any, Any]) -> tuple[str, str]:
    """Caption and state of one draw: ``infeasible 4.1e-3``."""
    if row["status"] in ("error", "no_face"):
        word = str(row["status"]).replace("_", " ")
        return f"{word}: {row['reason']}" if row["reason"] else word, "bad"
    word, state = ("feasible", "good") if row["feasible"] is True else ("infeasible", "bad")
    if row["downscale_error"] is None:
        return word, state
    # 4.1e-3: no leading zero in the exponent, and a hyphen at which no line breaks.
    mantissa, exponent = f"{row['downscale_error']:.1e}".split("e")
    number = f"{mantissa}e{int(exponent)}".replace("-", "\N{NON-BREAKING HYPHEN}")
    return f"{word} {number}", state


def data_uri(run_path: Path, relative: object) -> tuple[str | None, bool]:
    """Return an image of the run as a PNG data URI, and whether it is small enough for pixels.

    Anything that is not a readable PNG, JPEG or WebP inside the run gives (None, False).
    """
    # The file must lie in the run, links resolved, and be of a sensible size.
    if not isinstance(relative, str) or not relative or "\0" in relative:
        return None, False
    root = run_path.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None, False

    # Decoded and encoded again, so that nothing else in the file reaches the page.
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return None, False
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, False
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/png;base64,{encoded}", max(image.size) < 96
