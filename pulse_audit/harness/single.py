"""Photos by hand: degrade, search, write; no data set and no statistics.

Of every face there are its input, an output a draw, a contact sheet, and a record of how they were
made. Draws are written as they are found, so that an interrupted command goes on with the next.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from pulse_audit import __version__
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.documents import read_json
from pulse_audit.files import atomic_write
from pulse_audit.harness.given import (
    GivenFace,
    UnusablePhotoError,
    check_outputs,
    read_faces,
    read_photo,
)
from pulse_audit.harness.inputs import check_search, listed_photos
from pulse_audit.harness.photos import encode_png, synthetic_marks
from pulse_audit.harness.pictures import FRAMES_EVERY, WARNING, pasted, search_gif, sheet
from pulse_audit.harness.plan import check_device
from pulse_audit.models.generators import load_generator
from pulse_audit.models.remedies import with_remedy
from pulse_audit.names import parse_generator
from pulse_audit.search.config import check_coarse, preset
from pulse_audit.search.engine import Iterate, SearchResult
from pulse_audit.search.memory import LARGEST_BATCH, images_at_once, keep_freed_memory
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import GeneratorCard, InputError, Progress, Request, Upsampled

#: Changes whenever the same settings would give other draws.
VERSION = 2
#: Photos that cannot be used whose reasons are given where none can.
REASONS = 3


def upsample_photos(
    photos: Sequence[Path],
    *,
    generator: str,
    scale: int | None,
    draws: int,
    seed: int,
    search: str,
    coarse: str | None = None,
    align: bool | None,
    is_lr: bool,
    paste: bool = False,
    gif: bool = False,
    device: str,
    out: Path,
    progress: Progress,
    reading: Progress = lambda done, total, restored: None,
    announce: Callable[[str], None] = lambda note: None,
    trusted_files: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Search images that downscale to the low-resolution version of each face of each photo.

    Draw k has seed ``seed`` + k, the same start for every face. Draws that ``out`` holds with the
    same settings are kept; their files are checked by SHA-256. Photos that cannot be used are
    set aside, and the others go on.

    Parameters
    ----------
    photos : sequence of Path
        Files, and folders of them.
    scale : int, optional
        Downscaling factor; default that of `pulse_audit.harness.arms.default_scale`.
    draws, seed : int
        Outputs for each face, and the seed of the first.
    align : bool, optional
        Whether faces are found and aligned to the generator's crop; default: where it is known.
    is_lr : bool
        Whether the photos are inputs already.
    paste, gif : bool
        Whether outputs are set into the photo, and searches drawn.
    progress, reading : callable
        Count steps of all draws, and photos that are read before.
    announce : callable, optional
        Called before the search with sentences that have to be known.

    Returns
    -------
    list of dict
        One per output: photo, face (its number from the left), seed, status, reason,
        downscale_error, steps, seconds, frame (the part of the generator's crop that photo and
        output show, None for all of it), photo_px and output_px (sides of the face in the photo
        and of the output), image, gif and pasted (files). Then one per photo that cannot be used,
        with status no_face or error and the reason.

    Raises
    ------
    InputError
        If the generator or the scale or none of the photos can be used; nothing is written then.
    """
    # Everything is read and checked before the first search.
    photos = listed_photos(photos, out)
    check_search(photos, generator, search, coarse, device)
    if paste and is_lr:
        raise InputError("--paste: an input has no photo to paste into; leave --is-lr out")
    on = check_device(device)
    keep_freed_memory()
    reference = parse_generator(generator)
    loaded = load_generator(reference, trusted_files).to(on, torch.float32)
    config = preset(search, tied=reference.tied, coarse=coarse)
    starts = None
    if reference.remedy is not None:
        loaded, starts = with_remedy(loaded, reference.remedy, config, on, progress=reading)
    settings = {
        "version": VERSION,
        "generator": loaded.card.as_dict(),
        "search": config.as_dict(),
        **({} if starts is None else {"starts": starts.describe()}),
        "seed": seed,
        "device": on.type,
    }
    faces, unusable = read_faces(
        photos, loaded, scale=scale, align=align, is_lr=is_lr, device=on, settings=settings,
        progress=reading,
    )  # fmt: skip
    _check_photos(faces, unusable)
    check_outputs(faces, photos, draws, out)
    for face in faces:
        check_coarse(config, face.lr.shape[-1])
        face.rows = finished_draws(face, draws, out, gif)
    for note in _notes(faces, unusable, loaded.card):
        announce(note)

    # Progress counts the steps of every draw; those of an earlier process are restored.
    steps, kept = config.steps, sum(len(face.rows) for face in faces)
    total, restored = len(faces) * draws * steps, kept * steps
    done = restored

    def observe(iterate: Iterate) -> None:
        # Draws that have left the search need none of their remaining steps.
        left = (len(indices) - len(iterate.rows)) * steps
        progress(done + left + len(iterate.rows) * (iterate.step + 1), total, restored)

    # One face after the other, as many of its draws together as memory allows.
    every = FRAMES_EVERY if gif else None
    arm = PulseUpsampler(
        loaded, config, name="pulse", observe=observe, frames_every=every, starts=starts
    )
    fit = images_at_once(loaded, on) if kept < len(faces) * draws else None
    batch = min(LARGEST_BATCH, fit or LARGEST_BATCH)
    progress(done, total, restored)
    for path, of_photo in groupby(faces, key=lambda face: face.photo):
        group = list(of_photo)
        for face in group:
            _write(out / f"{face.stem}_lr.png", encode_png(face.lr))
            missing = [index for index in range(draws) if index not in face.rows]
            for start in range(0, len(missing), batch):
                indices = missing[start : start + batch]
                _search(arm, face, indices, seed, out, gif)
                done += len(indices) * steps
                progress(done, total, restored)
                _record(face, out, {"images_at_once": batch})
        _write_pictures(path, group, draws, paste, loaded.card, out)
    rows = [face.rows[index] for face in faces for index in range(draws)]
    return [*rows, *(error.row() for error in unusable)]


def _check_photos(faces: Sequence[GivenFace], unusable: Sequence[UnusablePhotoError]) -> None:
    """Refuse a command that has no face to search."""
    if faces:
        return
    if len(unusable) == 1:
        raise unusable[0]
    reasons = "; ".join(str(error) for error in unusable[:REASONS])
    more = f"; {len(unusable) - REASONS} more" if len(unusable) > REASONS else ""
    raise InputError(f"none of {len(unusable)} photos can be used: {reasons}{more}")


def _notes(
    faces: Sequence[GivenFace], unusable: Sequence[UnusablePhotoError], card: GeneratorCard
) -> list[str]:
    """Say which photos are left out, and where outputs are smaller than the photo."""
    notes = [f"{error}; the other photos go on" for error in unusable]
    sides = [face.square.side for face in faces if face.square is not None]
    smaller = [side for side in sides if side > card.resolution]
    if smaller:
        notes.append(
            f"outputs have {card.resolution} px a side, fewer than {len(smaller)} of "
            f"{len(faces)} faces have in the photo (up to {max(smaller):.0f} px); "
            "`pulse-audit list generators` shows larger generators"
        )
    return notes


def finished_draws(face: GivenFace, draws: int, out: Path, gif: bool) -> dict[int, dict[str, Any]]:
    """Return the draws of an earlier command with the same settings, whose files are whole."""
    record = out / f"{face.stem}.json"
    try:
        content = read_json(record)
        if content["settings"] != json.loads(json.dumps(face.settings)):
            return {}
        rows = {int(index): row for index, row in content["draws"].items()}
        kept = {}
        for index in range(draws):
            image, row = out / f"{face.stem}_{index}.png", rows.get(index, {})
            drawn, digest = image.with_suffix(".gif"), row.get("sha256")
            whole = digest and hashlib.sha256(image.read_bytes()).hexdigest() == digest
            if whole and (not gif or (row["gif"] and drawn.is_file())):
                # The folders may have moved since.
                here = {"photo": str(face.photo), "image": str(image)}
                kept[index] = {**row, **here, "gif": str(drawn) if row["gif"] else None}
        return kept
    # No record, or one of something else: everything is searched anew.
    except (InputError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return {}


def _search(
    arm: PulseUpsampler, face: GivenFace, indices: Sequence[int], seed: int, out: Path, gif: bool
) -> None:
    """Search some draws of one input as one batch, and write every output."""
    size = arm.generator.card.resolution
    degradation = DegradationModel("clean", size // face.lr.shape[-1])
    seeds = [seed + index for index in indices]
    requests = [
        Request(face.lr, face.photo.name, {}, draw_seed, face.frame, index)
        for draw_seed, index in zip(seeds, indices, strict=True)
    ]
    results: list[Upsampled] = arm(requests, degradation)
    for index, draw_seed, result in zip(indices, seeds, results, strict=True):
        path, digest, drawn = out / f"{face.stem}_{index}.png", None, None
        if result.image is not None:
            # The picture of the search comes first: the record counts on both.
            if gif and isinstance(result, SearchResult):
                drawn = path.with_suffix(".gif")
                downscaled = degradation.downscale(result.image[None])[0]
                _write(drawn, search_gif(face.lr, result, result.image, downscaled))
            png = encode_png(result.image, synthetic_marks(arm.generator.card.name, draw_seed))
            _write(path, png)
            digest = hashlib.sha256(png).hexdigest()
        face.rows[index] = {
            "photo": str(face.photo),
            "face": face.number,
            "seed": draw_seed,
            "status": str(result.status),
            "reason": result.reason,
            "downscale_error": result.downscale_error,
            "steps": result.steps,
            "seconds": round(result.seconds, 2),
            "frame": None if face.frame is None else face.frame.as_dict(),
            "photo_px": None if face.square is None else round(face.square.side, 1),
            "output_px": size,
            "image": str(path) if digest else None,
            "sha256": digest,
            "gif": None if drawn is None else str(drawn),
        }


def _write_pictures(
    photo: Path, faces: Sequence[GivenFace], draws: int, paste: bool, card: GeneratorCard, out: Path
) -> None:
    """Write the pictures that show a photo too, whose pixels are read once more."""
    pixels = read_photo(photo, faces[0].sha256)[1]
    for face in faces:
        _write(out / f"{face.stem}_sheet.png", sheet(face, pixels, draws, card))
    for index in range(draws):
        target = out / f"{photo.stem}_pasted_{index}.png"
        picture = pasted(faces, pixels, index, card) if paste else None
        if picture is not None:
            _write(target, picture)
        for face in faces:
            face.rows[index]["pasted"] = None if picture is None else str(target)


def _record(face: GivenFace, out: Path, memory: Mapping[str, Any]) -> None:
    """Write how the outputs of a face were made."""
    content = {
        "warning": WARNING,
        "software": f"pulse-audit {__version__}",
        "settings": face.settings,
        "memory": {**memory, "peak_of_process_bytes": peak_memory()},
        "draws": {str(index): face.rows[index] for index in sorted(face.rows)},
    }
    _write(out / f"{face.stem}.json", json.dumps(content, indent=1).encode())


def peak_memory() -> int | None:
    """Bytes of memory that this process has had at most; None where that is not known."""
    try:
        import resource
    except ImportError:
        return None
    # Kilobytes, on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _write(path: Path, content: bytes) -> None:
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
