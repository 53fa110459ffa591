"""A few photos by hand: degrade, search, write; no data set and no statistics.

Of every photo there are its input, an output a draw, a contact sheet, and a record of how they were
made. Draws are written as they are found, so that an interrupted command goes on with the next.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pulse_audit import __version__
from pulse_audit.datasets.images import UnreadableImage, decode
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import check_factor
from pulse_audit.documents import read_json
from pulse_audit.faces.align import centre_square
from pulse_audit.files import atomic_write
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.harness.arms import default_scale
from pulse_audit.harness.inputs import check_search
from pulse_audit.harness.photos import (
    FacePreparer,
    PreparedFace,
    encode_png,
    synthetic_marks,
    to_bytes,
)
from pulse_audit.harness.plan import check_device
from pulse_audit.harness.sheet import MOST, Tile, contact_sheet
from pulse_audit.models.generators import load_generator
from pulse_audit.names import parse_generator
from pulse_audit.search.config import check_coarse, preset
from pulse_audit.search.engine import Iterate
from pulse_audit.search.memory import LARGEST_BATCH, images_at_once, keep_freed_memory
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import Draw, Generator, InputError, Progress, Request, Upsampled

WARNING = (
    "Outputs are synthetic faces, not photos. Each is one of many that downscale to the same few "
    "pixels; none is the person in the photo, and none is evidence of anyone's identity."
)
#: Changes whenever the same settings would give other draws.
VERSION = 1


@dataclass
class Photo:
    """A photo by hand: its file, what is searched for, and what is known of its draws.

    ``lr`` is the input (3, h, w). ``face`` is the prepared original, None where the photo is an
    input already. ``rows`` are the finished draws by their number.
    """

    path: Path
    sha256: str
    pixels: NDArray[np.float32]
    lr: Tensor
    face: PreparedFace | None
    settings: dict[str, Any]
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def frame(self) -> Frame | None:
        """The part of the generator's crop that the photo shows; None for all of it."""
        return None if self.face is None or self.face.frame == WHOLE else self.face.frame


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
    device: str,
    out: Path,
    progress: Progress,
    trusted_files: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Search images that downscale to each photo's low-resolution version.

    ``scale`` None means that of `pulse_audit.harness.arms.default_scale`. Draws that ``out`` holds
    with the same settings are kept; their files are checked by SHA-256.

    Returns
    -------
    list of dict
        One per output: photo, seed, status, downscale_error, steps, seconds, frame (the part of the
        generator's crop that photo and output show, None for all of it), image (the file written).

    Raises
    ------
    InputError
        If a photo, the generator or the scale cannot be used; nothing is written then.
    """
    # Everything is read and checked before the first search.
    check_search(photos, generator, search, coarse, device)
    check_outputs(photos, draws, out)
    contents = [_read(photo) for photo in photos]
    on = check_device(device)
    keep_freed_memory()
    reference = parse_generator(generator)
    loaded = load_generator(reference, trusted_files).to(on, torch.float32)
    config = preset(search, tied=reference.tied, coarse=coarse)
    settings = {
        "version": VERSION,
        "generator": loaded.card.as_dict(),
        "search": config.as_dict(),
        "seed": seed,
        "device": on.type,
    }
    work = _prepared(photos, contents, loaded, scale, align, is_lr, on, settings)
    for photo in work:
        check_coarse(config, photo.lr.shape[-1])
        photo.rows = finished_draws(photo, draws, out)

    # Progress counts the steps of every draw; those of an earlier process are restored.
    steps, kept = config.steps, sum(len(photo.rows) for photo in work)
    total, restored = len(work) * draws * steps, kept * steps
    done = restored

    def observe(iterate: Iterate) -> None:
        # Draws that have left the search need none of their remaining steps.
        left = (len(indices) - len(iterate.rows)) * steps
        progress(done + left + len(iterate.rows) * (iterate.step + 1), total, restored)

    # One photo after the other, as many of its draws together as memory allows.
    arm = PulseUpsampler(loaded, config, name="pulse", observe=observe)
    fit = images_at_once(loaded, on) if kept < len(work) * draws else None
    batch = min(LARGEST_BATCH, fit or LARGEST_BATCH)
    progress(done, total, restored)
    for photo in work:
        _write(out / f"{photo.path.stem}_lr.png", encode_png(photo.lr))
        missing = [index for index in range(draws) if index not in photo.rows]
        for start in range(0, len(missing), batch):
            indices = missing[start : start + batch]
            _search(arm, photo, indices, seed, out)
            done += len(indices) * steps
            progress(done, total, restored)
            _record(photo, out, {"images_at_once": batch})
        _write_sheet(photo, draws, loaded, out)
    return [photo.rows[index] for photo in work for index in range(draws)]


def check_outputs(photos: Sequence[Path], draws: int, out: Path) -> None:
    """Refuse photos whose outputs would overwrite each other's, or a photo; `InputError`."""
    stems: dict[str, Path] = {}
    for photo in photos:
        if photo.stem in stems:
            raise InputError(
                f"{photo}: outputs would have the names of those for {stems[photo.stem]}; rename "
                "one, or give each a command and --out of its own"
            )
        stems[photo.stem] = photo
    given = {photo.resolve() for photo in photos}
    for stem in stems:
        names = [f"{stem}_lr.png", f"{stem}_sheet.png", f"{stem}.json"]
        for name in [*names, *(f"{stem}_{index}.png" for index in range(draws))]:
            if (out / name).resolve() in given:
                raise InputError(f"--out {out}: {name} there is one of the photos; choose another")


def _read(photo: Path) -> tuple[str, NDArray[np.float32]]:
    """Return the SHA-256 of a photo and its pixels (H, W, 3)."""
    try:
        content = photo.read_bytes()
        return hashlib.sha256(content).hexdigest(), decode(content)
    except OSError as error:
        raise InputError(f"{photo}: cannot be read ({error.strerror})") from None
    except UnreadableImage as error:
        raise InputError(f"{photo}: {error}") from None


def _prepared(
    photos: Sequence[Path],
    contents: Sequence[tuple[str, NDArray[np.float32]]],
    generator: Generator,
    scale: int | None,
    align: bool | None,
    is_lr: bool,
    device: torch.device,
    settings: Mapping[str, Any],
) -> list[Photo]:
    """Return the inputs: the photos themselves, or their faces cut, resized and degraded."""
    size, crop = generator.card.resolution, generator.card.crop
    align = crop != "as-is" if align is None else align
    preparer = FacePreparer(size, crop, align, device)
    work = []
    for photo, (digest, pixels) in zip(photos, contents, strict=True):
        face = None
        if is_lr:
            height, width = pixels.shape[:2]
            if height != width or size % width:
                raise InputError(
                    f"{photo}: {width} x {height} px is no input for a {size} px generator; "
                    "--is-lr takes a square whose side divides it"
                )
            lr = centre_square(pixels, width)
        else:
            scale = scale or default_scale(size)
            check_factor(size, scale, "pulse")
            face = preparer.prepare(pixels)
            if face.aligned is False:
                raise InputError(
                    f"{photo}: no face found to align; --no-align takes its centre as it is"
                )
            lr = DegradationModel("clean", scale)(face.image[None], [0])[0]
        frame = None if face is None else face.frame.as_dict()
        own = {
            "photo": {"name": photo.name, "sha256": digest},
            "input": "the photo itself" if face is None else "the photo, downscaled",
            "aligned": None if face is None else face.aligned,
            "frame": frame,
            "input_sha256": hashlib.sha256(lr.numpy().tobytes()).hexdigest(),
            "scale": size // lr.shape[-1],
        }
        work.append(Photo(photo, digest, pixels, lr.to(device), face, {**settings, **own}))
    return work


def finished_draws(photo: Photo, draws: int, out: Path) -> dict[int, dict[str, Any]]:
    """Return the draws of an earlier command with the same settings, whose files are whole."""
    record = out / f"{photo.path.stem}.json"
    try:
        content = read_json(record)
        if content["settings"] != json.loads(json.dumps(photo.settings)):
            return {}
        rows = {int(index): row for index, row in content["draws"].items()}
        kept = {}
        for index in range(draws):
            image = out / f"{photo.path.stem}_{index}.png"
            digest = rows[index]["sha256"] if index in rows else None
            if digest and hashlib.sha256(image.read_bytes()).hexdigest() == digest:
                kept[index] = rows[index]
        return kept
    # No record, or one of something else: everything is searched anew.
    except (InputError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return {}


def _search(
    arm: PulseUpsampler, photo: Photo, indices: Sequence[int], seed: int, out: Path
) -> None:
    """Search some draws of one input as one batch, and write every output."""
    # Seeds as in an audit: a fingerprint of the photo's name, the factor and the draw.
    factor = (arm.resolution or 0) // photo.lr.shape[-1]
    name = photo.path.name
    seeds = [Draw(name, "clean", factor, index).seed(seed) for index in indices]
    requests = [Request(photo.lr, name, {}, s, photo.frame) for s in seeds]
    results: list[Upsampled] = arm(requests, DegradationModel("clean", factor))
    for index, draw_seed, result in zip(indices, seeds, results, strict=True):
        path, digest = out / f"{photo.path.stem}_{index}.png", None
        if result.image is not None:
            png = encode_png(result.image, synthetic_marks(arm.generator.card.name, draw_seed))
            _write(path, png)
            digest = hashlib.sha256(png).hexdigest()
        photo.rows[index] = {
            "photo": str(photo.path),
            "seed": draw_seed,
            "status": str(result.status),
            "downscale_error": result.downscale_error,
            "steps": result.steps,
            "seconds": round(result.seconds, 2),
            "frame": None if photo.frame is None else photo.frame.as_dict(),
            "image": str(path) if digest else None,
            "sha256": digest,
        }


def _record(photo: Photo, out: Path, memory: Mapping[str, Any]) -> None:
    """Write how the outputs of a photo were made."""
    content = {
        "warning": WARNING,
        "software": f"pulse-audit {__version__}",
        "settings": photo.settings,
        "memory": {**memory, "peak_of_process_bytes": peak_memory()},
        "draws": {str(index): photo.rows[index] for index in sorted(photo.rows)},
    }
    _write(out / f"{photo.path.stem}.json", json.dumps(content, indent=1).encode())


def peak_memory() -> int | None:
    """Bytes of memory that this process has had at most; None where that is not known."""
    try:
        import resource
    except ImportError:
        return None
    # Kilobytes, on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _write_sheet(photo: Photo, draws: int, generator: Generator, out: Path) -> None:
    """Write the contact sheet of a photo; it holds the photo, so it is not marked synthetic."""
    tiles, card = [], generator.card
    if photo.face is not None:
        square, outline = photo.face.square, None
        if square is not None:
            corners = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
            outline = square.to_photo(corners)
        pixels = (photo.pixels * 255).round().clip(0, 255).astype(np.uint8)
        part = "all of the crop" if photo.frame is None else f"{photo.frame.side:.0%} of its side"
        tiles = [
            Tile(pixels, ("photo", "what is compared in red" if square else ""), outline),
            Tile(to_bytes(photo.face.image), ("original, as compared", f"{card.crop}: {part}")),
        ]
    side = photo.lr.shape[-1]
    tiles.append(Tile(to_bytes(photo.lr), (f"input, {side} x {side} px",), magnified=True))
    shown = [index for index in range(draws) if photo.rows[index]["image"]][:MOST]
    for index in shown:
        row = photo.rows[index]
        feasible = "feasible" if row["status"] == "ok" else "infeasible"
        with Image.open(row["image"], formats=("PNG",)) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        lines = (f"draw {index}: {feasible}", f"error {row['downscale_error']:.2e}")
        tiles.append(Tile(pixels, lines))
    title = f"PULSE with {card.name}: {len(shown)} of {draws} draws"
    eps = photo.settings["search"]["eps"]
    below = f"Feasible: the output downscales to the input within eps {eps:g}. {WARNING}"
    texts = {"Software": f"pulse-audit {__version__}", "Description": f"Contact sheet. {WARNING}"}
    sheet = contact_sheet(tiles, title, below)
    _write(out / f"{photo.path.stem}_sheet.png", encode_png(sheet, texts))


def _write(path: Path, content: bytes) -> None:
    try:
        atomic_write(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
