"""Samples of generators, and the synthetic evaluation faces made of them.

``python -m pulse_audit.training.synthetic --help``. Every face is sampled from one of the shipped
generators at a seed of its own, labelled by the shipped attribute net with its most probable
classes, and taken in the order of the seeds until each race of each generator has enough. Nothing
else decides which samples are taken.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pulse_audit.faces.attribute_net import ShippedAttributes, load_attribute_net
from pulse_audit.files import atomic_write
from pulse_audit.generators.searchable import prior_images
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.models.generators import load_generator
from pulse_audit.seeding import fingerprint
from pulse_audit.training import command
from pulse_audit.training.data import to_pixels, to_unit
from pulse_audit.types import Generator, InputError

#: Images computed at a time: for sheets and measurements, and for evaluation faces.
SAMPLE_CHUNK, FACE_CHUNK = 64, 100
#: Largest number of samples of one generator that are searched for a race.
MOST = 40_000
COLUMNS = ("race", "gender", "age")


@torch.no_grad()
def sample(network: StyleGAN2, count: int, seed: int) -> NDArray[np.uint8]:
    """Draw images (count, R, R, 3) from z and noise that follow from the seed, untruncated."""
    source = torch.Generator().manual_seed(seed)
    device = network.map.w_avg.device
    images = []
    for start in range(0, count, SAMPLE_CHUNK):
        n = min(SAMPLE_CHUNK, count - start)
        # Drawn on the CPU, so that every device gives the same images.
        z = torch.randn(n, network.z_dim, generator=source)
        noise = [torch.randn(n, 1, *shape, generator=source) for shape in network.noise_shapes]
        drawn = network.synthesis(network.mapping(z.to(device)), [m.to(device) for m in noise])
        images.append(to_pixels(drawn))
    return np.concatenate(images)


def save_sheet(images: NDArray[np.uint8], columns: int, path: Path, zoom: int = 2) -> None:
    """Write images (n, R, R, 3) as one PNG, row by row; n is a multiple of ``columns``."""
    n, side = images.shape[:2]
    # (rows, columns, R, R, 3) -> (rows, R, columns, R, 3) -> (rows * R, columns * R, 3)
    rows = images.reshape(n // columns, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    sheet = Image.fromarray(rows.reshape(n // columns * side, columns * side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST).save(path)


@dataclass(frozen=True)
class SyntheticFace:
    """One synthetic face: pixels (R, R, 3) uint8, labels, and the seed it was drawn from."""

    generator: str
    seed: int
    pixels: NDArray[np.uint8]
    labels: dict[str, str]

    @property
    def file(self) -> str:
        """Name below the data set's folder."""
        return f"{self.generator}/{self.seed:05d}.png"


def draw(generator: Generator, name: str, seeds: Sequence[int]) -> NDArray[np.uint8]:
    """Draw one image (R, R, 3) from each seed; z and noise follow from name and seed alone."""
    # The generator's name is part of the seed, so that the twins' faces are independent.
    own = [fingerprint("synthetic-faces", name, seed) for seed in seeds]
    return to_pixels(2 * prior_images(generator, own, torch.device("cpu")) - 1)


def labelled(
    generator: Generator, name: str, attributes: ShippedAttributes
) -> Iterator[SyntheticFace]:
    """Yield samples of a generator in the order of their seeds, with the net's labels."""
    words = attributes.card.vocabulary
    for start in range(0, MOST, FACE_CHUNK):
        seeds = range(start, start + FACE_CHUNK)
        pixels = draw(generator, name, seeds)
        with torch.no_grad():
            p = attributes(to_unit(pixels)).probabilities
        for row, seed in enumerate(seeds):
            labels = {c: words[c][int(p[c][row].argmax())] for c in COLUMNS}
            yield SyntheticFace(name, seed, pixels[row], labels)


def balanced(
    generator: Generator, name: str, attributes: ShippedAttributes, per_race: int
) -> list[SyntheticFace]:
    """Take the first ``per_race`` faces of every race.

    Raises InputError if ``MOST`` samples show too few of a race.
    """
    # Samples come in the order of their seeds; those of a race that is complete are passed over.
    races = attributes.card.vocabulary["race"]
    faces: list[SyntheticFace] = []
    counts: Counter[str] = Counter()
    for face in labelled(generator, name, attributes):
        if counts[face.labels["race"]] < per_race:
            counts[face.labels["race"]] += 1
            faces.append(face)
        if len(faces) == per_race * len(races):
            return faces
    missing = ", ".join(race for race in races if counts[race] < per_race)
    raise InputError(f"{name}: {MOST} samples show too few of {missing}; lower --per-race")


def write(faces: Sequence[SyntheticFace], folder: Path) -> None:
    """Write photos and labels.csv; the folder is replaced."""
    new = folder.with_name(f"new-{folder.name}")
    shutil.rmtree(new, ignore_errors=True)
    for face in faces:
        buffer = io.BytesIO()
        Image.fromarray(face.pixels).save(buffer, format="PNG", optimize=True)
        (new / face.file).parent.mkdir(parents=True, exist_ok=True)
        (new / face.file).write_bytes(buffer.getvalue())
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", *COLUMNS, "generator", "sample_seed"])
    for face in faces:
        words = [face.labels[column] for column in COLUMNS]
        writer.writerow([face.file, *words, face.generator, face.seed])
    atomic_write(new / "labels.csv", table.getvalue().encode())
    # Only a complete folder takes the place of the one before.
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)


@click.command()
@command.assets_option
@command.generators_option
@command.attributes_option
@click.option("--per-race", default=20, show_default=True, help="Faces of each race per generator.")
@click.option("--out", type=Path, required=True, help="Folder to write; replaced.")
def main(assets: Path, names: tuple[str, ...], attributes: str, per_race: int, out: Path) -> None:
    """Make the evaluation faces from the shipped generators and the shipped attribute net."""
    net = load_attribute_net(assets / f"{attributes}.safetensors")
    faces: list[SyntheticFace] = []
    for name in names:
        generator = load_generator(str(assets / f"{name}.safetensors"))
        faces += balanced(generator, name, net, per_race)
    write(faces, out)
    print(f"{out}: {len(faces)} faces")


if __name__ == "__main__":
    command.run(main)
