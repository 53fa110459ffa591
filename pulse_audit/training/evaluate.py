"""Measure a shipped generator: ``python -m pulse_audit.training.evaluate --help``.

What is found is written into the generator's card under ``measured``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.faces.attribute_net import ShippedAttributes, load_attribute_net
from pulse_audit.files import read_card, write_card
from pulse_audit.generators.checkpoints import read_checkpoint
from pulse_audit.generators.native_format import KIND
from pulse_audit.generators.searchable import prior_images
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.models.generators import load_generator
from pulse_audit.search.config import PRESETS
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.distances import frechet_distance, kernel_distance
from pulse_audit.stats.intervals import wilson
from pulse_audit.training.command import run
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import choose, chunks, held_out, pack, read_faces
from pulse_audit.training.samples import sample, save_sheet
from pulse_audit.types import Generator, InputError, Request, Unavailable

SAMPLES = 10_000
SEED = 10
#: Samples whose nearest training photos are looked up, and those shown on the sheet.
COMPARED, SHOWN = 1000, 24
#: Faces of either side for the kernel distance, whose cost grows with their product.
KERNEL_FACES = 2000
CHUNK = 250

Pixels = NDArray[np.uint8]
FloatArray = NDArray[np.float64]


def measure(
    name: str, assets: Path, attributes: ShippedAttributes, data: Path, sheet: Path | None
) -> dict[str, Any]:
    """Measure a generator against the faces it was trained on and those held out from it.

    Parameters
    ----------
    name : str
        Of the generator in ``assets``.
    assets : Path
        Folder of the shipped models.
    attributes : ShippedAttributes
        The feature net, and what tells the composition.
    data : Path
        Parquet table of faces.
    sheet : Path or None
        Where to write samples beside their nearest training photos; not for publishing, because
        the photos are of people.

    Returns
    -------
    dict
        Plain JSON values.
    """
    path = assets / f"{name}.safetensors"
    config = GanConfig.model_validate(read_card(path, KIND)["card"]["configuration"])
    network = read_checkpoint(path)
    if not isinstance(network, StyleGAN2):
        raise InputError(f"{path}: not a StyleGAN 2")
    drawn = sample(network, SAMPLES, SEED)
    apart, trained = _photos(config, data)
    attributes = attributes.at_resolution(config.resolution)
    features = {"drawn": seen(attributes, drawn), "apart": seen(attributes, apart)}
    return {
        "samples": SAMPLES,
        "attribute_net": {"name": attributes.card.name, "sha256": attributes.card.sha256},
        "composition": {
            attribute: composition(features["drawn"][1][attribute], words)
            for attribute, words in attributes.card.vocabulary.items()
        },
        "distances": distances(features["drawn"][0], features["apart"][0], attributes.card.name),
        "nearest_training_photo": nearest(drawn[:COMPARED], apart, trained, sheet),
        "feasible_on_own_samples": feasible_on_own(load_generator(str(path))),
    }


def _photos(config: GanConfig, data: Path) -> tuple[Pixels, Pixels]:
    """Return the faces held out and those trained on, (n, R, R, 3), at the generator's size."""
    faces = read_faces(data)
    apart = faces["file"].isin(held_out(faces, config.held_out_per_cell, config.seed))
    chosen = choose(faces[~apart], config.composition, config.seed)
    return pack(faces[apart], config.resolution).images, pack(chosen, config.resolution).images


@torch.no_grad()
def seen(attributes: ShippedAttributes, images: Pixels) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Features (n, d) of images (n, R, R, 3), and the probabilities of each attribute."""
    parts = [attributes(chunk) for chunk in chunks(images, CHUNK)]
    features = [part.features for part in parts if part.features is not None]
    return torch.cat(features).double().numpy(), {
        attribute: torch.cat([part.probabilities[attribute] for part in parts]).double().numpy()
        for attribute in attributes.card.vocabulary
    }


def composition(probabilities: FloatArray, words: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Share of each word among the most probable ones, its Wilson interval, mean probability."""
    n = len(probabilities)
    counts = np.bincount(probabilities.argmax(1), minlength=len(words))
    found = {}
    for number, word in enumerate(words):
        low, high = wilson(float(counts[number]), n)
        values = (counts[number] / n, low, high, probabilities[:, number].mean())
        names = ("share", "low", "high", "mean_probability")
        found[word] = dict(zip(names, (round(float(value), 4) for value in values), strict=True))
    return found


def distances(drawn: FloatArray, apart: FloatArray, network: str) -> dict[str, Any]:
    """Frechet and kernel distance between samples and held-out faces on a named network."""
    frechet = frechet_distance(drawn, apart)
    kernel = kernel_distance(drawn[:KERNEL_FACES], apart[:KERNEL_FACES])
    if isinstance(frechet, Unavailable) or isinstance(kernel, Unavailable):
        raise InputError("too few images for a distance between sets")
    estimate = kernel.estimate
    return {
        "features": network,
        "fid": round(frechet.value, 4),
        "fid_of_equal_sets": round(frechet.if_equal, 4),
        "kid": round(estimate.value, 6),
        "kid_low": round(estimate.low, 6),
        "kid_high": round(estimate.high, 6),
        "held_out_faces": len(apart),
    }


def nearest(drawn: Pixels, apart: Pixels, trained: Pixels, sheet: Path | None) -> dict[str, Any]:
    """Root mean square distance in 8-bit levels to the nearest training photo or its mirror image.

    Held-out faces, which nobody can have copied, give the scale.
    """
    reference = _flat(np.concatenate([trained, trained[:, :, ::-1]]))
    found: dict[str, Any] = {}
    for what, images in (("samples", drawn), ("held_out", apart[:: max(len(apart) // 1000, 1)])):
        away, which = _closest(_flat(images), reference)
        levels = np.percentile(away, [0, 1, 50])
        found[what] = dict(
            zip(("least", "first_percentile", "median"), levels.round(2).tolist(), strict=True)
        )
        if sheet is not None and what == "samples":
            pairs = np.stack([images[:SHOWN], trained[which[:SHOWN] % len(trained)]], axis=1)
            save_sheet(pairs.reshape(-1, *images.shape[1:]), 12, sheet, zoom=3)
    return found


def _flat(images: Pixels) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).astype(np.float32)


def _closest(
    images: NDArray[np.float32], reference: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distance of each image to the nearest of the reference, and which that is."""
    norms = np.square(reference).sum(1)
    away, which = [], []
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        squared = np.square(part).sum(1)[:, None] + norms - 2 * part @ reference.T
        which.append(squared.argmin(1))
        away.append(np.sqrt(np.maximum(squared.min(1), 0) / images.shape[1]))
    return np.concatenate(away), np.concatenate(which)


def feasible_on_own(generator: Generator, count: int = 1000) -> dict[str, Any]:
    """Share of a generator's own samples, at seeds of their own, that its search fits."""
    scale = generator.card.resolution // 8
    seeds = [fingerprint("own samples", i) for i in range(count)]
    originals = prior_images(generator, seeds, torch.device("cpu"))
    degradation = DegradationModel("clean", scale)
    low = degradation(originals, [0] * count)
    search = PulseUpsampler(generator, PRESETS["fast"])
    answers = []
    for start in range(0, count, 20):
        requests = [
            Request(low[i], str(i), {}, fingerprint("own", i)) for i in range(start, start + 20)
        ]
        answers += search(requests, degradation)
    reached = sum(bool(answered.feasible) for answered in answers)
    least, most = wilson(reached, count)
    return {
        "share": reached / count,
        "low": round(least, 4),
        "high": round(most, 4),
        "samples": count,
        "scale": scale,
        "mean_steps": round(float(np.mean([answered.steps for answered in answers])), 1),
    }


@click.command()
@click.option("--assets", type=Path, required=True, help="Folder of the shipped models.")
@click.option("--generator", "names", multiple=True, required=True, help="Name; repeatable.")
@click.option("--attributes", default="faces-attributes", show_default=True)
@click.option("--data", type=Path, required=True, help="Parquet table of faces.")
@click.option("--sheets", type=Path, help="Folder for samples beside their nearest photos.")
def main(
    assets: Path, names: tuple[str, ...], attributes: str, data: Path, sheets: Path | None
) -> None:
    """Measure shipped generators and write what is found into their cards."""
    net = load_attribute_net(assets / f"{attributes}.safetensors")
    for name in names:
        sheet = sheets / f"{name}-neighbours.png" if sheets else None
        found = measure(name, assets, net, data, sheet)
        path = assets / f"{name}.safetensors"
        content = read_card(path, KIND)
        content["card"]["measured"] = found
        write_card(path, KIND, content)
        print(json.dumps(found, indent=1))


if __name__ == "__main__":
    run(main)
