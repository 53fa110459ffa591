"""Measure a shipped generator: ``python -m pulse_audit.training.evaluate --help``.

The results are written into the generator's card under ``measured``.
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
from pulse_audit.training import command
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import choose, chunks, held_out_files, pack, read_faces
from pulse_audit.training.synthetic import sample, save_sheet
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
    """Measure a generator against its training faces and the faces held out from it.

    Parameters
    ----------
    name : str
        Name of the generator in ``assets``.
    assets : Path
        Folder of the shipped models.
    attributes : ShippedAttributes
        The net whose features and predicted attributes are compared.
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
    # Samples, held-out faces and training faces, (n, R, R, 3), at the generator's size.
    samples = sample(network, SAMPLES, SEED)
    faces = read_faces(data)
    apart = faces["file"].isin(held_out_files(faces, config.held_out_per_cell, config.seed))
    chosen = choose(faces[~apart], config.composition, config.seed)
    held_out = pack(faces[apart], config.resolution).images
    training = pack(chosen, config.resolution).images
    # The attribute net's features and probabilities of both.
    attributes = attributes.at_resolution(config.resolution)
    features, probabilities = predict(attributes, samples)
    held_out_features, _ = predict(attributes, held_out)
    return {
        "samples": SAMPLES,
        "attribute_net": {"name": attributes.card.name, "sha256": attributes.card.sha256},
        "composition": {
            attribute: composition(probabilities[attribute], words)
            for attribute, words in attributes.card.vocabulary.items()
        },
        "distances": distances(features, held_out_features, attributes.card.name),
        "nearest_training_photo": nearest(samples[:COMPARED], held_out, training, sheet),
        "feasible_on_own_samples": feasible_on_own(load_generator(str(path))),
    }


@torch.no_grad()
def predict(
    attributes: ShippedAttributes, images: Pixels
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Features (n, d) of images (n, R, R, 3), and the probabilities (n, k) of each attribute."""
    parts = [attributes(chunk) for chunk in chunks(images, CHUNK)]
    features = [part.features for part in parts if part.features is not None]
    return torch.cat(features).double().numpy(), {
        attribute: torch.cat([part.probabilities[attribute] for part in parts]).double().numpy()
        for attribute in attributes.card.vocabulary
    }


def composition(probabilities: FloatArray, words: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Share of images with each word most probable, its Wilson interval, the mean probability."""
    n = len(probabilities)
    counts = np.bincount(probabilities.argmax(1), minlength=len(words))
    shares = {}
    for number, word in enumerate(words):
        low, high = wilson(float(counts[number]), n)
        values = (counts[number] / n, low, high, probabilities[:, number].mean())
        names = ("share", "low", "high", "mean_probability")
        shares[word] = dict(zip(names, (round(float(value), 4) for value in values), strict=True))
    return shares


def distances(samples: FloatArray, held_out: FloatArray, network: str) -> dict[str, Any]:
    """Frechet and kernel distance between the features (n, d) of samples and held-out faces."""
    # Both are unavailable below a smallest number of images.
    frechet = frechet_distance(samples, held_out)
    kernel = kernel_distance(samples[:KERNEL_FACES], held_out[:KERNEL_FACES])
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
        "held_out_faces": len(held_out),
    }


def nearest(
    samples: Pixels, held_out: Pixels, training: Pixels, sheet: Path | None
) -> dict[str, Any]:
    """Root mean square distance in 8-bit levels to the nearest training photo or its mirror image.

    Held-out faces, which cannot have been copied, give the scale.
    """
    photos = np.concatenate([training, training[:, :, ::-1]])
    reference = photos.reshape(len(photos), -1).astype(np.float32)
    norms = np.square(reference).sum(1)
    result: dict[str, Any] = {}
    every = max(len(held_out) // 1000, 1)
    for name, images in (("samples", samples), ("held_out", held_out[::every])):
        # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b, a chunk of images at a time.
        pixels = images.reshape(len(images), -1).astype(np.float32)
        levels, closest = [], []
        for start in range(0, len(pixels), CHUNK):
            part = pixels[start : start + CHUNK]
            squared = np.square(part).sum(1)[:, None] + norms - 2 * part @ reference.T
            closest.append(squared.argmin(1))
            levels.append(np.sqrt(np.maximum(squared.min(1), 0) / pixels.shape[1]))
        percentiles = np.percentile(np.concatenate(levels), [0, 1, 50]).round(2).tolist()
        result[name] = dict(zip(("least", "first_percentile", "median"), percentiles, strict=True))
        # The sheet shows samples and their nearest photos in turn.
        if sheet is not None and name == "samples":
            neighbours = training[np.concatenate(closest)[:SHOWN] % len(training)]
            pairs = np.stack([images[:SHOWN], neighbours], axis=1)
            save_sheet(pairs.reshape(-1, *images.shape[1:]), 12, sheet, zoom=3)
    return result


def feasible_on_own(generator: Generator, count: int = 1000) -> dict[str, Any]:
    """Share of a generator's own samples for which its search finds a feasible image."""
    scale = generator.card.resolution // 8
    seeds = [fingerprint("own samples", i) for i in range(count)]
    originals = prior_images(generator, seeds, torch.device("cpu"))
    degradation = DegradationModel("clean", scale)
    low = degradation(originals, [0] * count)
    # The search starts from seeds of its own, not from those of the samples.
    search = PulseUpsampler(generator, PRESETS["fast"])
    answers = []
    for start in range(0, count, 20):
        requests = [
            Request(low[i], str(i), {}, fingerprint("own", i)) for i in range(start, start + 20)
        ]
        answers += search(requests, degradation)
    feasible = sum(bool(answer.feasible) for answer in answers)
    lower, upper = wilson(feasible, count)
    return {
        "share": feasible / count,
        "low": round(lower, 4),
        "high": round(upper, 4),
        "samples": count,
        "scale": scale,
        "mean_steps": round(float(np.mean([answer.steps for answer in answers])), 1),
    }


@click.command()
@command.assets_option
@command.generators_option
@command.attributes_option
@command.data_option
@click.option("--sheets", type=Path, help="Folder for samples beside their nearest photos.")
def main(
    assets: Path, names: tuple[str, ...], attributes: str, data: Path, sheets: Path | None
) -> None:
    """Measure shipped generators and write the results into their cards."""
    net = load_attribute_net(assets / f"{attributes}.safetensors")
    for name in names:
        sheet = sheets / f"{name}-neighbours.png" if sheets else None
        measured = measure(name, assets, net, data, sheet)
        path = assets / f"{name}.safetensors"
        content = read_card(path, KIND)
        content["card"]["measured"] = measured
        write_card(path, KIND, content)
        print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    command.run(main)
