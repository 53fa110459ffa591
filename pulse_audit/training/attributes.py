"""Train and export the attribute net: ``python -m pulse_audit.training.attributes --help``.

The exported card carries the net's errors on held-out faces. The temperatures are fitted on one
half of these and the calibration error is measured on the other; confusion matrices and accuracies
come from all of them, since a temperature changes no prediction.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from pulse_audit.datasets.registry import load_registry
from pulse_audit.faces.attribute_net import RESOLUTION as NATIVE
from pulse_audit.faces.attribute_net import AttributeNet, save_attribute_net
from pulse_audit.faces.attributes import Column, columns, resized
from pulse_audit.files import atomic_write
from pulse_audit.seeding import fingerprint
from pulse_audit.training import command
from pulse_audit.training.attribute_trainer import (
    AttributeTrainer,
    LabelledFaces,
    labelled_faces,
)
from pulse_audit.training.config import AttributeConfig, read_attribute_config
from pulse_audit.training.data import ATTRIBUTION, chunks, list_photos
from pulse_audit.types import Attributes, InputError

#: Sizes in pixels to which the held-out faces are reduced.
SIZES = (16, 32, 64)
#: Bins of the calibration error.
BINS = 15
RACE = "race"


def train(
    config: AttributeConfig, state: Path, data: Path, device: torch.device
) -> AttributeTrainer:
    """Train, or continue training, until the last epoch or a signal.

    Raises InputError if state or data do not fit.
    """
    faces, _ = labelled_faces(config, data)
    trainer = AttributeTrainer(config, faces, device)
    trainer.resume(state)
    state.mkdir(parents=True, exist_ok=True)
    print(f"{config.name}: {len(faces)} faces, step {trainer.step} of {trainer.steps}", flush=True)
    logged, losses = time.monotonic(), []
    for _ in command.steps(lambda: trainer.step < trainer.steps, lambda: trainer.save(state)):
        losses.append(trainer.advance())
        # Every 20 seconds, log the mean loss since the last line.
        seconds = time.monotonic() - logged
        if seconds > command.LOG_SECONDS:
            rate = len(losses) / seconds
            line = {
                "time": time.strftime("%F %T"),
                "step": trainer.step,
                "of": trainer.steps,
                "images_per_s": round(rate * config.batch, 1),
                "minutes_left": round((trainer.steps - trainer.step) / rate / 60, 1),
                "loss": round(sum(losses) / len(losses), 4),
            }
            with (state / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            logged, losses = time.monotonic(), []
    print(f"{config.name}: saved at step {trainer.step}", flush=True)
    return trainer


def export(trainer: AttributeTrainer, held_out: LabelledFaces, folder: Path) -> Path:
    """Write the averaged network of a run and return its path.

    The folder receives ``<name>.safetensors``, its card ``<name>.json`` with the errors on the
    held-out faces, and ``<name>-images.txt.gz``, the list of the training photos.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network, name = trainer.averaged(), trainer.config.name
    equal_priors(network, trainer.faces.labels, trainer.config.equal_prior)
    photos = list_photos(trainer.faces.files, trainer.faces.digests)
    atomic_write(folder / f"{name}-images.txt.gz", photos)
    weights = folder / f"{name}.safetensors"
    save_attribute_net(network, weights, card_content(trainer, network, held_out, photos))
    return weights


def card_content(
    trainer: AttributeTrainer, network: AttributeNet, held_out: LabelledFaces, photos: bytes
) -> dict[str, Any]:
    """Measure a network on the held-out faces and return its card's content."""
    config, labels = trainer.config, held_out.labels
    answers = {size: logits(network, held_out, size) for size in SIZES}
    # Temperatures from a random half of the faces, calibration errors from the other.
    half = np.array(
        [fingerprint(config.seed, "calibration", file) % 2 == 0 for file in held_out.files]
    )
    temperatures, errors = {}, {}
    for attribute, numbers in labels.items():
        native = answers[NATIVE][attribute]
        temperatures[attribute] = temperature(native[half], numbers[half])
        p = F.softmax(native[~half] / temperatures[attribute], 1).numpy()
        errors[attribute] = calibration_error(p, numbers[~half])
    # Which predictions are correct: size -> attribute -> (n,).
    correct = {
        str(size): {a: answer[a].argmax(1).numpy() == numbers for a, numbers in labels.items()}
        for size, answer in answers.items()
    }
    weights = age_weights(trainer.faces, held_out)
    return {
        "name": config.name,
        "crop": "fairface-0.25",
        "licence": "Apache-2.0",
        "training_data": f"{len(trainer.faces):,} photos of FairFace's training part, {NATIVE} px",
        "attribution": ATTRIBUTION,
        "selection": (
            f"all faces but {len(held_out):,} that were held out by race, gender and age, "
            f"{config.held_out_per_cell} of each race and gender"
        ),
        "temperatures": {k: round(v, 4) for k, v in temperatures.items()},
        "calibration_error": errors,
        "accuracy": {
            size: {attribute: round(float(right.mean()), 4) for attribute, right in by.items()}
            for size, by in correct.items()
        },
        "accuracy_at_training_ages": {
            attribute: round(float(np.average(right, weights=weights)), 4)
            for attribute, right in correct[str(NATIVE)].items()
        },
        "accuracy_by_race": {
            size: {
                attribute: {
                    race: round(float(right[labels[RACE] == number].mean()), 4)
                    for number, race in enumerate(config.vocabulary[RACE])
                }
                for attribute, right in by.items()
            }
            for size, by in correct.items()
        },
        "held_out": {
            str(size): confusions(answer, temperatures, held_out, config.vocabulary)
            for size, answer in answers.items()
        },
        "held_out_groups": {
            column.name: {
                group: [config.vocabulary[column.attribute][index] for index in classes]
                for group, classes in zip(column.words, column.members, strict=True)
            }
            for column in fairface_columns(config.vocabulary)
            if column.derived
        },
        "photos_sha256": hashlib.sha256(photos).hexdigest(),
        "steps": trainer.step,
        "cycles": len(trainer.ends),
        "configuration": config.model_dump(mode="json"),
        "notes": [
            "apparent attributes in FairFace's words: what crowd workers saw, not who people are",
            "the held-out faces are FairFace photos: its errors on other photos, and on generated "
            "faces, are not known",
        ],
    }


@torch.no_grad()
def equal_priors(
    network: AttributeNet, labels: Mapping[str, NDArray[np.int64]], attributes: Sequence[str]
) -> None:
    """Change a network's posterior to that under equally frequent words, for some attributes.

    The logarithm of a word's share of the training photos is subtracted from its logit, in the
    head's bias (Menon et al. 2021, arXiv:2007.07314, section 4.1), so that frequent training
    classes are not over-predicted.

    Parameters
    ----------
    network : AttributeNet
        Changed in place.
    labels : mapping of str to array, (n,)
        Index of the word of every training photo.
    attributes : sequence of str
        The attributes to change.
    """
    for attribute in attributes:
        words = network.vocabulary[attribute]
        counts = np.bincount(labels[attribute], minlength=len(words)).clip(1)
        bias = network.heads[attribute].bias
        assert isinstance(bias, Tensor)
        bias.sub_(torch.from_numpy(np.log(counts / counts.sum())).to(bias))


@torch.no_grad()
def logits(network: AttributeNet, faces: LabelledFaces, size: int) -> dict[str, Tensor]:
    """Logits (n, k) of faces reduced to ``size`` px, over both mirror images, as shipped."""
    device = next(network.parameters()).device
    parts: dict[str, list[Tensor]] = {name: [] for name in network.vocabulary}
    for chunk in chunks(faces.images):
        images = resized(resized(chunk.to(device), size), NATIVE)
        features = (network.trunk(images) + network.trunk(images.flip(3))) / 2
        for name, head in network.heads.items():
            parts[name].append(head(features).cpu())
    return {name: torch.cat(values) for name, values in parts.items()}


def age_weights(training: LabelledFaces, held_out: LabelledFaces) -> NDArray[np.float64]:
    """Weights (n,) that give the held-out faces, spread evenly over ages, the training ages."""
    ages = held_out.labels["age"]
    length = int(max(ages.max(), training.labels["age"].max())) + 1
    natural = np.bincount(training.labels["age"], minlength=length) / len(training)
    even = np.bincount(ages, minlength=length) / len(held_out)
    return (natural / np.maximum(even, 1e-12))[ages]


def temperature(logits: Tensor, labels: NDArray[np.int64]) -> float:
    """Temperature that minimises the cross-entropy (Guo et al. 2017, arXiv:1706.04599)."""
    # The logarithm is searched, from e^-2 to e^2, so that the temperature stays positive.
    target = torch.from_numpy(labels)

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits / float(np.exp(log_t)), target))

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the expected calibration error: |confidence - accuracy|, averaged over bins."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    # Bin the faces by confidence, and weight each bin's difference by its share of the faces.
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    error = sum(
        abs(float(right[inside].mean()) - float(confidence[inside].mean())) * float(inside.mean())
        for number in range(BINS)
        if (inside := bins == number).any()
    )
    return round(error, 4)


def fairface_columns(vocabulary: Mapping[str, tuple[str, ...]]) -> list[Column]:
    """Columns that the net fills for FairFace: its attributes, and the groupings derived there."""
    derived = {
        name: (grouping.source, grouping.group_of(vocabulary[grouping.source]))
        for name, grouping in load_registry().get("fairface").derived.items()
        if grouping.source in vocabulary and not grouping.no_group
    }
    words = {name: tuple(dict.fromkeys(groups.values())) for name, (_, groups) in derived.items()}
    return columns(vocabulary, {**vocabulary, **words}, derived)[0]


def confusions(
    logits: Mapping[str, Tensor],
    temperatures: Mapping[str, float],
    faces: LabelledFaces,
    vocabulary: Mapping[str, tuple[str, ...]],
) -> dict[str, list[list[int]]]:
    """Count the confusions of every column of FairFace.

    Derived groupings are predicted by the summed probabilities of their words.
    """
    answer = Attributes(
        {name: F.softmax(values / temperatures[name], 1) for name, values in logits.items()}, None
    )
    counts = {}
    for column in fairface_columns(vocabulary):
        # The group of each class: members lists the classes of every group.
        group_of = np.argsort([number for classes in column.members for number in classes])
        sizes = [len(classes) for classes in column.members]
        groups = np.repeat(np.arange(len(sizes)), sizes)[group_of]
        labels = groups[faces.labels[column.attribute]]
        counts[column.name] = confusion(labels, column.probabilities(answer)).tolist()
    return counts


def confusion(labels: NDArray[np.int64], scores: Tensor) -> NDArray[np.int64]:
    """Count (k, k): row the label, column the prediction with the highest of scores (n, k)."""
    k = scores.shape[1]
    return np.bincount(labels * k + scores.argmax(1).numpy(), minlength=k * k).reshape(k, k)


@click.group()
def main() -> None:
    """Train the shipped attribute net. A run is seeded and resumes where it stopped."""


@main.command("train")
@command.config_option
@command.state_option
@command.data_option
@command.device_option
def train_command(name: str, state: Path, data: Path, device: str) -> None:
    """Train or resume; SIGTERM saves and ends."""
    train(read_attribute_config(name), state, data, torch.device(device))


@main.command("export")
@command.config_option
@command.state_option
@command.data_option
@click.option("--out", type=Path, required=True, help="Folder for weights and card.")
def export_command(name: str, state: Path, data: Path, out: Path) -> None:
    """Calibrate the averaged weights, measure them on the held-out faces, write them."""
    config = read_attribute_config(name)
    faces, held_out = labelled_faces(config, data)
    trainer = AttributeTrainer(config, faces, torch.device("cpu"))
    if not trainer.resume(state):
        raise InputError(f"{state}: no state to export")
    print(export(trainer, held_out, out))


if __name__ == "__main__":
    command.run(main)
