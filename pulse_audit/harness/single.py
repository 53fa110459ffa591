"""A few photos by hand: degrade, search, write; no data set and no statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from pulse_audit.datasets.images import UnreadableImage, decode
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import check_factor
from pulse_audit.faces.align import FaceAligner, centre_square
from pulse_audit.files import atomic_write
from pulse_audit.harness.inputs import check_search
from pulse_audit.harness.plan import check_device
from pulse_audit.harness.unit import encode_png
from pulse_audit.models.generators import load_generator
from pulse_audit.search.config import PRESETS
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import Draw, InputError, Request

Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

#: Draws searched at once.
BATCH = 8


def upsample_photos(
    photos: Sequence[Path],
    *,
    generator: str,
    scale: int,
    draws: int,
    seed: int,
    search: str,
    align: bool | None,
    is_lr: bool,
    device: str,
    out: Path,
    progress: Callable[[int, int, int], None],
    trusted_files: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Search images that downscale to each photo's low-resolution version.

    Returns
    -------
    list of dict
        One an output: photo, seed, status, downscale_error, steps, image (the file written).

    Raises
    ------
    InputError
        If a photo, the generator or the scale cannot be used; nothing is written then.
    """
    check_search(photos, generator, search, device)
    decoded = [(photo, _read(photo)) for photo in photos]
    on = check_device(device)
    loaded = load_generator(generator, trusted_files).to(on, torch.float32)
    size, crop = loaded.card.resolution, loaded.card.crop
    if align is None:
        align = crop != "as-is"
    aligner = FaceAligner(on) if align else None
    inputs = [
        _as_input(photo, pixels, size)
        if is_lr
        else _degraded(photo, pixels, size, crop, scale, aligner)
        for photo, pixels in decoded
    ]
    arm = PulseUpsampler(loaded, PRESETS[search], name="pulse")
    rows: list[dict[str, Any]] = []
    for number, (photo, lr) in enumerate(zip(photos, inputs, strict=True)):
        progress(number, len(photos), 0)
        rows += _search(arm, photo, lr.to(on), draws, seed, out)
    progress(len(photos), len(photos), 0)
    return rows


def _read(photo: Path) -> Pixels:
    try:
        return decode(photo.read_bytes())
    except OSError as error:
        raise InputError(f"{photo}: cannot be read ({error.strerror})") from None
    except UnreadableImage as error:
        raise InputError(f"{photo}: {error}") from None


def _as_input(photo: Path, pixels: Pixels, size: int) -> Tensor:
    """Take a photo as the low-resolution input itself."""
    height, width = pixels.shape[:2]
    if height != width or size % width:
        raise InputError(
            f"{photo}: {width} x {height} px is no input for a {size} px generator; "
            "--is-lr takes a square whose side divides it"
        )
    return centre_square(pixels, width)


def _degraded(
    photo: Path, pixels: Pixels, size: int, crop: str, scale: int, aligner: FaceAligner | None
) -> Tensor:
    """Bring a photo to the generator's frame and downscale it."""
    check_factor(size, scale, "pulse")
    face = centre_square(pixels, size) if aligner is None else aligner.align(pixels, crop, size)
    if face is None:
        raise InputError(f"{photo}: no face found to align; --no-align takes its centre as it is")
    return DegradationModel("clean", scale)(face[None], [0])[0]


def _search(
    arm: PulseUpsampler, photo: Path, lr: Tensor, draws: int, seed: int, out: Path
) -> list[dict[str, Any]]:
    """Search one input over its seeds and write the input and every output."""
    factor = (arm.resolution or 0) // lr.shape[-1]
    degradation = DegradationModel("clean", factor)
    seeds = [Draw(photo.name, "clean", factor, i).seed(seed) for i in range(draws)]
    answers = [
        answered
        for start in range(0, draws, BATCH)
        for answered in arm(
            [Request(lr, photo.name, {}, s) for s in seeds[start : start + BATCH]], degradation
        )
    ]
    _write(out / f"{photo.stem}_lr.png", lr)
    rows = []
    for index, (answered, draw_seed) in enumerate(zip(answers, seeds, strict=True)):
        path = out / f"{photo.stem}_{index}.png"
        if answered.image is not None:
            _write(path, answered.image)
        rows.append(
            {
                "photo": str(photo),
                "seed": draw_seed,
                "status": str(answered.status),
                "downscale_error": answered.downscale_error,
                "steps": answered.steps,
                "image": str(path) if answered.image is not None else None,
            }
        )
    return rows


def _write(path: Path, image: Tensor) -> None:
    try:
        atomic_write(path, encode_png(image))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
