"""The photos that a shipped model is trained on: which ones, in which order, at which size."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pulse_audit.datasets.images import UnreadableImage, decode
from pulse_audit.seeding import fingerprint
from pulse_audit.types import InputError

ATTRIBUTION = (
    "Karkkainen and Joo 2021, FairFace: Face Attribute Dataset for Balanced Race, Gender, and Age "
    "for Bias Measurement and Mitigation (WACV); https://github.com/joojs/fairface; CC BY 4.0; "
    "photos reduced in size"
)
COLUMNS = ("file", "image", "age", "gender", "race")
#: Photos whose mean luma (ITU-R 601, 0 to 255) is below this show no face that can be learned.
DARKEST = 20.0


@dataclass(frozen=True)
class TrainingSet:
    """Photos ready for training.

    ``images`` are (n, R, R, 3) uint8, ``files`` the data set's names, ``races`` their labels and
    ``digests`` the SHA-256 of each photo's encoded bytes.
    """

    images: NDArray[np.uint8]
    files: tuple[str, ...]
    races: tuple[str, ...]
    digests: tuple[str, ...]

    def rows(self, start: int, size: int, seed: int) -> NDArray[np.int64]:
        """Return the rows of ``images`` at places start ... start + size of the endless stream.

        Every epoch is a fresh permutation that follows from the seed and the epoch alone, so a
        resumed run sees the photos that an undisturbed one sees.
        """
        n = len(self.images)
        # A batch may reach over the end of an epoch into the next.
        epochs = range(start // n, (start + size - 1) // n + 1)
        sources = (np.random.default_rng(fingerprint(seed, "epoch", epoch)) for epoch in epochs)
        order = np.concatenate([source.permutation(n) for source in sources])
        offset = start - epochs[0] * n
        rows: NDArray[np.int64] = order[offset : offset + size]
        return rows

    def race_counts(self) -> dict[str, int]:
        """Faces for each race."""
        return dict(sorted(Counter(self.races).items()))


def read_faces(path: Path) -> pd.DataFrame:
    """Read the Parquet table of faces: file, image (encoded bytes), age, gender, race.

    Raises InputError if the file cannot be read or lacks a column.
    """
    try:
        return pd.read_parquet(path, columns=list(COLUMNS))
    except (OSError, ValueError, KeyError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path}: cannot be read as a table of faces ({line})") from error


def held_out_files(faces: pd.DataFrame, per_cell: int, seed: int) -> list[str]:
    """Choose the faces that no shipped model is trained on.

    Each race and gender gives ``per_cell`` faces, as evenly over the ages as possible while every
    age keeps at least half of its faces for training. Within an age the choice follows the
    fingerprint of the file name, not the order of the file.

    Parameters
    ----------
    faces : DataFrame
        Columns file, age, gender and race.
    per_cell : int
        Faces for each pair of race and gender.
    seed : int
        Seed of the choice.

    Returns
    -------
    list of str
        File names, sorted.

    Raises
    ------
    InputError
        If a pair of race and gender has fewer than twice that many faces.
    """
    # Each race and gender: order the files within an age, then share out the number by ages.
    chosen: list[str] = []
    for (race, gender), cell in faces.groupby(["race", "gender"]):
        by_age = {
            str(age): _shuffled(group["file"].tolist(), seed) for age, group in cell.groupby("age")
        }
        shares = even_shares({age: len(files) // 2 for age, files in by_age.items()}, per_cell)
        if sum(shares.values()) < per_cell:
            raise InputError(
                f"held out: {race}, {gender} has {len(cell)} faces, too few to set {per_cell} aside"
            )
        chosen += [file for age, files in by_age.items() for file in files[: shares[age]]]
    return sorted(chosen)


def even_shares(limits: Mapping[str, int], total: int) -> dict[str, int]:
    """Divide ``total`` as evenly as the limits allow; remainders go to the names in order."""
    shares = dict.fromkeys(sorted(limits), 0)
    left = total
    while left > 0 and (below := [k for k in shares if shares[k] < limits[k]]):
        # Raise all shares below their limit by the same amount, at least by one each.
        level = max(left // len(below), 1)
        for name in below:
            step = min(level, limits[name] - shares[name], left)
            shares[name] += step
            left -= step
    return shares


def choose(faces: pd.DataFrame, composition: Mapping[str, int], seed: int) -> pd.DataFrame:
    """Choose the faces of a composition, without those too dark to learn from.

    Groups are taken in one seeded order of file names, so the smaller of two compositions' shares
    of a group is part of the larger.

    Parameters
    ----------
    faces : DataFrame
        Columns file, image and race; without the faces held out.
    composition : mapping of str to int
        Number of faces for each race.
    seed : int
        Seed of the order.

    Raises
    ------
    InputError
        If a group has fewer usable faces than the composition needs, or a photo is unreadable.
    """
    chosen = []
    for race, count in composition.items():
        group = faces[faces["race"] == race].set_index("file", drop=False)
        order = group.loc[_shuffled(group["file"].tolist(), seed)]
        bright = order[[luma(photo) >= DARKEST for photo in photos(order)]]
        if len(bright) < count:
            raise InputError(
                f"composition: {count} faces of {race!r} are wanted, {len(bright)} may be used"
            )
        chosen.append(bright[:count])
    return pd.concat(chosen, ignore_index=True)


def _shuffled(files: Sequence[str], seed: int) -> list[str]:
    """Sort file names by their seeded fingerprint."""
    return sorted(files, key=lambda file: fingerprint(seed, file))


def photos(faces: pd.DataFrame) -> Iterator[Image.Image]:
    """Decode the photos of a table of faces, to 8-bit RGB; InputError names an unreadable one."""
    for file, encoded in zip(faces["file"], faces["image"], strict=True):
        try:
            pixels = decode(encoded)
        except UnreadableImage as error:
            raise InputError(f"{file}: unreadable photo ({error})") from error
        yield Image.fromarray((pixels * 255).round().astype(np.uint8))


def luma(photo: Image.Image) -> float:
    """Mean luma (ITU-R 601) of a photo, 0 to 255."""
    return float(np.asarray(photo.convert("L")).mean())


def pack(faces: pd.DataFrame, resolution: int) -> TrainingSet:
    """Decode and resize photos (Lanczos, antialiased), and list their SHA-256."""
    size = (resolution, resolution)
    images = [
        np.asarray(photo if photo.size == size else photo.resize(size, Image.Resampling.LANCZOS))
        for photo in photos(faces)
    ]
    digests = tuple(hashlib.sha256(encoded).hexdigest() for encoded in faces["image"])
    return TrainingSet(np.stack(images), tuple(faces["file"]), tuple(faces["race"]), digests)


def training_set(
    path: Path,
    composition: Mapping[str, int],
    resolution: int,
    held_out_per_cell: int,
    seed: int,
) -> TrainingSet:
    """Read a table of faces and pack the chosen ones; see `held_out_files` and `choose`."""
    faces = read_faces(path)
    held_out = held_out_files(faces, held_out_per_cell, seed)
    return pack(choose(faces[~faces["file"].isin(held_out)], composition, seed), resolution)


def save_set(training: TrainingSet, path: Path) -> None:
    """Write a packed set to an ``.npz`` file."""
    # Strings are stored as arrays of characters, which are read without unpickling.
    files, races, digests = map(np.array, (training.files, training.races, training.digests))
    with path.open("wb") as file:
        np.savez(file, images=training.images, files=files, races=races, digests=digests)


def load_set(path: Path) -> TrainingSet:
    """Read a packed set; InputError if the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = [tuple(map(str, stored[key])) for key in ("files", "races", "digests")]
            return TrainingSet(stored["images"], *names)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a packed training set; delete it to repack") from error


def list_photos(files: Sequence[str], digests: Sequence[str]) -> bytes:
    """List every photo, compressed: SHA-256 of its encoded bytes, file name."""
    lines = [f"{digest}  {file}\n" for file, digest in sorted(zip(files, digests, strict=True))]
    # Without a time stamp, so that the same list gives the same bytes.
    return gzip.compress("".join(lines).encode(), mtime=0)


# From pixels to tensors and back: (n, R, R, 3) uint8 <-> (n, 3, R, R) float32.


def to_range(images: Tensor) -> Tensor:
    """Map (n, R, R, 3) uint8 to (n, 3, R, R) float32 in [-1, 1], the range of generators."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_unit(images: NDArray[np.uint8]) -> Tensor:
    """Map (n, R, R, 3) uint8 to (n, 3, R, R) float32 in [0, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Map (n, 3, R, R) in [-1, 1] to (n, R, R, 3) uint8, rounded and clamped."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    out: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return out


def chunks(images: NDArray[np.uint8], size: int = 256) -> Iterator[Tensor]:
    """Cut photos (n, R, R, 3) uint8 into batches (size, 3, R, R) in [0, 1]."""
    for start in range(0, len(images), size):
        yield to_unit(images[start : start + size])
