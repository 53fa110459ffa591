"""Photos given by hand: read, their faces found and cut, and the inputs made of them.

A photo that cannot be used is set aside with the reason, and the others go on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_audit.datasets.images import UnreadableImage, decode
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import check_factor
from pulse_audit.faces.align import centre_square, cut
from pulse_audit.faces.crops import Square, largest_square
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.harness.arms import default_scale
from pulse_audit.harness.photos import FacePreparer, PreparedFace
from pulse_audit.types import Generator, InputError, Progress, Status

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


@dataclass
class GivenFace:
    """A face in a photo by hand: what is searched for, and what is known of its draws.

    ``number`` counts the faces of the photo from the left, of ``faces``. ``lr`` is the input
    (3, h, w). ``square`` is the part of the photo that is compared, None where the photo is an
    input already; ``aligned`` whether a face placed it. ``rows`` are the finished draws by number.
    """

    photo: Path
    sha256: str
    number: int
    faces: int
    lr: Tensor
    square: Square | None
    aligned: bool
    frame: Frame | None
    settings: dict[str, Any]
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """What the names of its outputs begin with: the photo's, and which of several faces."""
        return self.photo.stem if self.faces == 1 else f"{self.photo.stem}_face{self.number}"

    def original(self, pixels: NDArray[np.float32], size: int) -> Tensor:
        """Cut the original (3, size, size) from the photo's pixels again."""
        if self.square is None or not self.aligned:
            return centre_square(pixels, size)
        return cut(pixels, self.square, size)


class UnusablePhotoError(InputError):
    """A photo cannot be used, and why."""

    def __init__(self, photo: Path, reason: str, status: Status = Status.ERROR) -> None:
        super().__init__(f"{photo}: {reason}")
        self.photo, self.reason, self.status = photo, reason, status

    def row(self) -> dict[str, Any]:
        """Return what `upsample_photos` says of the photo."""
        known = {"photo": str(self.photo), "status": str(self.status), "reason": self.reason}
        unknown = ("face", "seed", "downscale_error", "frame", "photo_px", "output_px", "image")
        return {
            **known,
            **dict.fromkeys((*unknown, "sha256", "gif", "pasted")),
            "steps": 0,
            "seconds": 0.0,
        }


def read_photo(photo: Path, sha256: str | None = None) -> tuple[str, NDArray[np.float32]]:
    """Return the SHA-256 of a photo and its upright pixels (H, W, 3).

    `UnusablePhotoError` if it cannot be read, or is not the one of ``sha256`` any more.
    """
    try:
        content = photo.read_bytes()
        digest, pixels = hashlib.sha256(content).hexdigest(), decode(content)
    except OSError as error:
        raise UnusablePhotoError(photo, f"cannot be read ({error.strerror})") from None
    except UnreadableImage as error:
        raise UnusablePhotoError(photo, str(error)) from None
    if sha256 not in (None, digest):
        raise UnusablePhotoError(photo, "changed while it was searched; run the command again")
    return digest, pixels


def read_faces(
    photos: Sequence[Path],
    generator: Generator,
    *,
    scale: int | None,
    align: bool | None,
    is_lr: bool,
    device: torch.device,
    settings: Mapping[str, Any],
    progress: Progress,
) -> tuple[list[GivenFace], list[UnusablePhotoError]]:
    """Read photos, and make an input of every face in them.

    Of the pixels only the inputs are kept: a folder may hold many large photos.

    Parameters
    ----------
    photos : sequence of Path
    generator : Generator
        Gives the size and the crop of the originals.
    scale : int, optional
        Downscaling factor; default `default_scale`.
    align : bool, optional
        Whether faces are found and aligned to the crop; default: where the crop is known.
    is_lr : bool
        Whether the photos are inputs already.
    device : torch.device
        Of detector and inputs.
    settings : mapping
        What all faces share of what decides their draws.
    progress : callable
        Counts photos.
    """
    size, crop = generator.card.resolution, generator.card.crop
    factor = scale or default_scale(size)
    if not is_lr:
        check_factor(size, factor, "pulse")
    preparer = FacePreparer(size, crop, crop != "as-is" if align is None else align, device)
    degradation = DegradationModel("clean", factor)
    faces: list[GivenFace] = []
    unusable: list[UnusablePhotoError] = []
    for done, photo in enumerate(photos):
        progress(done, len(photos), 0)
        try:
            digest, pixels = read_photo(photo)
            prepared = _input(photo, pixels, size) if is_lr else _cut(photo, pixels, preparer)
        except UnusablePhotoError as error:
            unusable.append(error)
            continue
        for number, face in enumerate(prepared, 1):
            if face is None:
                lr, square = centre_square(pixels, pixels.shape[1]), None
            else:
                lr = degradation(face.image[None], [0])[0]
                square = face.square or largest_square(*pixels.shape[:2])
            frame = None if face is None or face.frame == WHOLE else face.frame
            own = {
                "photo": {"name": photo.name, "sha256": digest},
                "face": {"number": number, "of": len(prepared)},
                "input": "the photo itself" if face is None else "the photo, downscaled",
                "aligned": None if face is None else face.aligned,
                "frame": None if face is None else face.frame.as_dict(),
                # Corners in the upright photo, clockwise from the upper left of the face.
                "square": None if square is None else square.to_photo(CORNERS).round(3).tolist(),
                "input_sha256": hashlib.sha256(lr.numpy().tobytes()).hexdigest(),
                "scale": size // lr.shape[-1],
            }
            aligned = face is not None and face.aligned is True
            given = (photo, digest, number, len(prepared), lr.to(device), square, aligned, frame)
            faces.append(GivenFace(*given, {**settings, **own}))
    progress(len(photos), len(photos), 0)
    return faces, unusable


def _cut(
    photo: Path, pixels: NDArray[np.float32], preparer: FacePreparer
) -> Sequence[PreparedFace | None]:
    """Cut the faces of a photo, at least one."""
    faces = preparer.prepare_every(pixels)
    if not faces:
        reason = (
            "no face found to align; --no-align takes its centre as it is, --is-lr the whole as a "
            "low-resolution input"
        )
        raise UnusablePhotoError(photo, reason, Status.NO_FACE)
    return faces


def _input(photo: Path, pixels: NDArray[np.float32], size: int) -> Sequence[PreparedFace | None]:
    """Check that a photo is an input of a generator of ``size`` px; it has no original."""
    height, width = pixels.shape[:2]
    if height != width or size % width:
        reason = (
            f"{width} x {height} px is no input for a {size} px generator; --is-lr takes a square "
            "whose side divides it"
        )
        raise UnusablePhotoError(photo, reason)
    return [None]


def check_outputs(
    faces: Sequence[GivenFace], photos: Sequence[Path], draws: int, out: Path
) -> None:
    """Refuse photos whose outputs would overwrite each other's, or a photo; `InputError`."""
    owners: dict[str, Path] = {}
    given = {photo.resolve() for photo in photos}
    for face in faces:
        names = [f"{face.stem}{end}" for end in ("_lr.png", "_sheet.png", ".json")]
        for index in range(draws):
            names += [f"{face.stem}_{index}.png", f"{face.stem}_{index}.gif"]
            names += [f"{face.photo.stem}_pasted_{index}.png"] if face.number == 1 else []
        for name in names:
            if name in owners:
                raise InputError(
                    f"{face.photo}: outputs would have the names of those for {owners[name]}; "
                    "rename one, or give each a command and --out of its own"
                )
            if (out / name).resolve() in given:
                raise InputError(f"--out {out}: {name} there is one of the photos; choose another")
            owners[name] = face.photo
