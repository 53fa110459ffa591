"""A few photos by hand: degrade, search, write; no data set and no statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pulse_audit.datasets.images import UnreadableImage, decode
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import check_factor
from pulse_audit.faces.align import centre_square
from pulse_audit.files import atomic_write
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.harness.arms import default_scale
from pulse_audit.harness.inputs import check_search
from pulse_audit.harness.photos import FacePreparer, encode_png
from pulse_audit.harness.plan import check_device
from pulse_audit.models.generators import load_generator
from pulse_audit.search.config import PRESETS
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import Draw, InputError, Progress, Request, Upsampled

#: Draws searched at once.
BATCH = 8


def upsample_photos(
    photos: Sequence[Path],
    *,
    generator: str,
    scale: int | None,
    draws: int,
    seed: int,
    search: str,
    align: bool | None,
    is_lr: bool,
    device: str,
    out: Path,
    progress: Progress,
    trusted_files: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Search images that downscale to each photo's low-resolution version.

    ``scale`` None means that of `pulse_audit.harness.arms.default_scale`.

    Returns
    -------
    list of dict
        One per output: photo, seed, status, downscale_error, steps, frame (the part of the
        generator's crop that photo and output show, None for all of it), image (the file written).

    Raises
    ------
    InputError
        If a photo, the generator or the scale cannot be used; nothing is written then.
    """
    # Everything is read and checked before the first search.
    check_search(photos, generator, search, device)
    decoded = []
    for photo in photos:
        try:
            decoded.append(decode(photo.read_bytes()))
        except OSError as error:
            raise InputError(f"{photo}: cannot be read ({error.strerror})") from None
        except UnreadableImage as error:
            raise InputError(f"{photo}: {error}") from None
    on = check_device(device)
    loaded = load_generator(generator, trusted_files).to(on, torch.float32)
    size, crop = loaded.card.resolution, loaded.card.crop
    align = crop != "as-is" if align is None else align

    # The inputs (3, h, w): the photos themselves, or their faces at the generator's size, degraded.
    inputs: list[tuple[Tensor, Frame | None]] = []
    preparer = FacePreparer(size, crop, align, on)
    for photo, pixels in zip(photos, decoded, strict=True):
        if is_lr:
            height, width = pixels.shape[:2]
            if height != width or size % width:
                raise InputError(
                    f"{photo}: {width} x {height} px is no input for a {size} px generator; "
                    "--is-lr takes a square whose side divides it"
                )
            inputs.append((centre_square(pixels, width), None))
            continue
        scale = scale or default_scale(size)
        check_factor(size, scale, "pulse")
        face = preparer.prepare(pixels)
        if face.aligned is False:
            raise InputError(
                f"{photo}: no face found to align; --no-align takes its centre as it is"
            )
        lr = DegradationModel("clean", scale)(face.image[None], [0])[0]
        inputs.append((lr, None if face.frame == WHOLE else face.frame))

    # One photo after the other, all of its draws together.
    arm = PulseUpsampler(loaded, PRESETS[search], name="pulse")
    rows: list[dict[str, Any]] = []
    for number, (photo, (lr, frame)) in enumerate(zip(photos, inputs, strict=True)):
        progress(number, len(photos), 0)
        rows += _search(arm, photo, lr.to(on), frame, draws, seed, out)
    progress(len(photos), len(photos), 0)
    return rows


def _search(
    arm: PulseUpsampler,
    photo: Path,
    lr: Tensor,
    frame: Frame | None,
    draws: int,
    seed: int,
    out: Path,
) -> list[dict[str, Any]]:
    """Search one input over its seeds and write the input and every output.

    ``frame`` is the part of the generator's crop that the photo shows, None for all of it.
    """
    # Seeds as in an audit: a fingerprint of the photo's name, the factor and the draw.
    factor = (arm.resolution or 0) // lr.shape[-1]
    degradation = DegradationModel("clean", factor)
    seeds = [Draw(photo.name, "clean", factor, i).seed(seed) for i in range(draws)]
    results: list[Upsampled] = []
    for start in range(0, draws, BATCH):
        batch = seeds[start : start + BATCH]
        requests = [Request(lr, photo.name, {}, s, frame) for s in batch]
        results += arm(requests, degradation)

    # The input and every output that exists.
    _write(out / f"{photo.stem}_lr.png", lr)
    rows = []
    for index, (result, draw_seed) in enumerate(zip(results, seeds, strict=True)):
        path = out / f"{photo.stem}_{index}.png"
        if result.image is not None:
            _write(path, result.image)
        rows.append(
            {
                "photo": str(photo),
                "seed": draw_seed,
                "status": str(result.status),
                "downscale_error": result.downscale_error,
                "steps": result.steps,
                "frame": None if frame is None else frame.as_dict(),
                "image": str(path) if result.image is not None else None,
            }
        )
    return rows


def _write(path: Path, image: Tensor) -> None:
    try:
        atomic_write(path, encode_png(image))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
