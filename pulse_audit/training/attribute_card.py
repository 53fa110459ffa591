"""From the state of a training run to an attribute net that can be shipped, with what it errs on.

The temperatures are fitted on one half of the held-out faces and judged on the other; confusion
matrices and accuracies come from all of them, for a temperature changes no prediction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from pulse_audit.training.attribute_trainer import LabelledFaces, Trainer
from pulse_audit.training.data import chunks
from pulse_audit.training.export import ATTRIBUTION, list_photos
from pulse_audit.types import Attributes

#: Sizes in pixels at which the held-out faces are shown.
SIZES = (16, 32, 64)
BINS = 15
RACE = "race"


def export(trainer: Trainer, apart: LabelledFaces, folder: Path) -> Path:
    """Write the averaged network of a run, its card, and the list of the photos it saw.

    Parameters
    ----------
    trainer : Trainer
        A run that was resumed.
    apart : LabelledFaces
        The faces held out from it.
    folder : Path
        Where ``<name>.safetensors``, ``<name>.json`` and ``<name>-images.txt.gz`` go.

    Returns
    -------
    Path
        The weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network, name = trainer.averaged(), trainer.config.name
    equal_priors(network, trainer.faces.labels, trainer.config.equal_prior)
    photos = list_photos(trainer.faces.files, trainer.faces.digests)
    atomic_write(folder / f"{name}-images.txt.gz", photos)
    weights = folder / f"{name}.safetensors"
    save_attribute_net(network, weights, card(trainer, network, apart, photos))
    return weights


def card(
    trainer: Trainer, network: AttributeNet, apart: LabelledFaces, photos: bytes
) -> dict[str, Any]:
    """Measure a network on the held-out faces and say what is known of it."""
    config = trainer.config
    answers = {size: logits(network, apart, size) for size in SIZES}
    half = first_half(apart, config.seed)
    temperatures = {
        attribute: temperature(answers[NATIVE][attribute][half], labels[half])
        for attribute, labels in apart.labels.items()
    }
    return {
        "name": config.name,
        "crop": "fairface-0.25",
        "licence": "Apache-2.0",
        "training_data": f"{len(trainer.faces):,} photos of FairFace's training part, {NATIVE} px",
        "attribution": ATTRIBUTION,
        "selection": (
            f"all faces but {len(apart):,} that were held out by race, gender and age, "
            f"{config.held_out_per_cell} of each race and gender"
        ),
        "temperatures": {k: round(v, 4) for k, v in temperatures.items()},
        "calibration_error": {
            attribute: calibration_error(
                F.softmax(answers[NATIVE][attribute][~half] / temperatures[attribute], 1).numpy(),
                labels[~half],
            )
            for attribute, labels in apart.labels.items()
        },
        "accuracy": {
            str(size): {
                attribute: round(float((found[attribute].argmax(1).numpy() == labels).mean()), 4)
                for attribute, labels in apart.labels.items()
            }
            for size, found in answers.items()
        },
        "accuracy_at_training_ages": {
            attribute: round(float(np.average(right, weights=age_weights(trainer.faces, apart))), 4)
            for attribute, labels in apart.labels.items()
            for right in [answers[NATIVE][attribute].argmax(1).numpy() == labels]
        },
        "accuracy_by_race": by_race(answers, apart, config.vocabulary),
        "held_out": {
            str(size): confusions(found, temperatures, apart, config.vocabulary)
            for size, found in answers.items()
        },
        "held_out_words": {
            column.name: list(column.words) for column in fairface_columns(config.vocabulary)
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
    """Make a network answer as if the words of some attributes had been equally frequent.

    The logarithm of a word's share of the training photos is taken off its logit, by way of the
    head's bias (Menon et al. 2021, arXiv:2007.07314, section 4.1): what a face shows then decides
    alone, and no group is seen more because more of it was there to learn from.

    Parameters
    ----------
    network : AttributeNet
        Changed in place.
    labels : mapping of str to array, (n,)
        Index of the word of every training photo.
    attributes : sequence of str
        Which ones.
    """
    for attribute in attributes:
        words = network.vocabulary[attribute]
        counts = np.bincount(labels[attribute], minlength=len(words)).clip(1)
        bias = network.heads[attribute].bias
        assert isinstance(bias, Tensor)
        bias.sub_(torch.from_numpy(np.log(counts / counts.sum())).to(bias))


@torch.no_grad()
def logits(network: AttributeNet, faces: LabelledFaces, size: int) -> dict[str, Tensor]:
    """Logits (n, k) of faces shown at ``size`` px, over both mirror images, as shipped."""
    device = next(network.parameters()).device
    parts: dict[str, list[Tensor]] = {name: [] for name in network.vocabulary}
    for chunk in chunks(faces.images):
        shown = resized(resized(chunk.to(device), size), NATIVE)
        features = (network.trunk(shown) + network.trunk(shown.flip(3))) / 2
        for name, head in network.heads.items():
            parts[name].append(head(features).cpu())
    return {name: torch.cat(found) for name, found in parts.items()}


def age_weights(trained: LabelledFaces, apart: LabelledFaces) -> NDArray[np.float64]:
    """Weigh held-out faces, which are spread evenly over the ages, as the training ages occur."""
    ages = apart.labels["age"]
    length = int(max(ages.max(), trained.labels["age"].max())) + 1
    natural = np.bincount(trained.labels["age"], minlength=length) / len(trained)
    held = np.bincount(ages, minlength=length) / len(apart)
    return (natural / np.maximum(held, 1e-12))[ages]


def first_half(faces: LabelledFaces, seed: int) -> NDArray[np.bool_]:
    """Choose half of the faces by the seeded fingerprint of their file names."""
    return np.array([fingerprint(seed, "calibration", file) % 2 == 0 for file in faces.files])


def temperature(logits: Tensor, labels: NDArray[np.int64]) -> float:
    """Temperature that minimises the cross-entropy (Guo et al. 2017, arXiv:1706.04599)."""
    target = torch.from_numpy(labels)

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits / float(np.exp(log_t)), target))

    return float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x))


def calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Measure the expected calibration error: |confidence - accuracy| averaged over bins."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
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
        if grouping.source in vocabulary
    }
    words = {name: tuple(dict.fromkeys(groups.values())) for name, (_, groups) in derived.items()}
    return columns(vocabulary, {**vocabulary, **words}, derived)[0]


def confusions(
    logits: Mapping[str, Tensor],
    temperatures: Mapping[str, float],
    faces: LabelledFaces,
    vocabulary: Mapping[str, tuple[str, ...]],
) -> dict[str, list[list[int]]]:
    """Count every column of FairFace; those of derived groupings by summed probabilities."""
    answer = Attributes(
        {name: F.softmax(found / temperatures[name], 1) for name, found in logits.items()}, None
    )
    found = {}
    for column in fairface_columns(vocabulary):
        group_of = np.argsort([number for classes in column.members for number in classes])
        sizes = [len(classes) for classes in column.members]
        groups = np.repeat(np.arange(len(sizes)), sizes)[group_of]
        labels = groups[faces.labels[column.attribute]]
        found[column.name] = confusion(labels, column.probabilities(answer)).tolist()
    return found


def confusion(labels: NDArray[np.int64], logits: Tensor) -> NDArray[np.int64]:
    """Count (k, k): row the label, column the prediction."""
    k = logits.shape[1]
    return np.bincount(labels * k + logits.argmax(1).numpy(), minlength=k * k).reshape(k, k)


def by_race(
    answers: Mapping[int, Mapping[str, Tensor]],
    faces: LabelledFaces,
    vocabulary: Mapping[str, tuple[str, ...]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy of every attribute for each labelled race, at each size."""
    races = faces.labels[RACE]
    return {
        str(size): {
            attribute: {
                race: round(
                    float((found[attribute].argmax(1).numpy() == labels)[races == number].mean()), 4
                )
                for number, race in enumerate(vocabulary[RACE])
            }
            for attribute, labels in faces.labels.items()
        }
        for size, found in answers.items()
    }
