"""Configurations of attribute nets, and the schedule that one lays down."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pulse_audit.training.config import FOLDER, read_model


class AttributeConfig(BaseModel):
    """One training run of an attribute net.

    Attributes
    ----------
    name : str
        Of the model that comes out.
    held_out_per_cell, held_out_seed : int
        Faces of each race and gender set aside, see `pulse_audit.training.data.held_out`.
    seed : int
        Of the initial weights and every draw.
    vocabulary : dict of str to list of str
        Words of each attribute, in the order of the logits.
    attribute_weights : dict of str to float
        Weight of each attribute's cross-entropy.
    widths, blocks : list of int
        See `AttributeNet`.
    epochs : list of (int, int)
        Epochs and the side of their images in pixels, one pair after the other.
    batch : int
        Images a step.
    learning_rate, weight_decay, warmup : float
        Of AdamW: the peak, reached after the share ``warmup`` of the steps, then a cosine to 0.
    restarts : list of (int, int, float)
        Further cycles of the learning rate, each with its epochs, the side of their images and its
        peak (Loshchilov and Hutter 2017, arXiv:1608.03983).
    label_smoothing : float
        Share of the target spread evenly over the classes.
    mixup : float
        Parameter of Beta(a, a), from which images and targets of a batch are blended
        (Zhang et al. 2018, arXiv:1710.09412); 0 switches it off.
    blurred : float
        Share of the batches shown as if they came from 16 to 40 px.
    equal_prior : list of str
        Attributes whose words the exported network takes to be equally frequent, however often
        they occur among the photos it was trained on.
    ema_steps : float
        Half-life of the averaged weights, in steps.
    precision : {"bfloat16", "float32"}
        Of the activations.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    held_out_per_cell: int = Field(gt=0)
    held_out_seed: int
    seed: int
    vocabulary: dict[str, tuple[str, ...]]
    attribute_weights: dict[str, float]
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    epochs: tuple[tuple[int, int], ...]
    batch: int = Field(gt=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, lt=1)
    restarts: tuple[tuple[int, int, float], ...] = ()
    label_smoothing: float = Field(ge=0, lt=1)
    mixup: float = Field(ge=0)
    blurred: float = Field(ge=0, le=1)
    equal_prior: tuple[str, ...] = ()
    ema_steps: float = Field(gt=0)
    precision: Literal["bfloat16", "float32"]

    @model_validator(mode="after")
    def _attributes_are_known(self) -> Self:
        for field in ("attribute_weights", "equal_prior"):
            strangers = sorted(set(getattr(self, field)) - set(self.vocabulary))
            if strangers:
                raise ValueError(f"{field}: {strangers[0]!r} is not in the vocabulary")
        return self


def read_config(name: str | Path) -> AttributeConfig:
    """Read a configuration: the name of a shipped one, or the path of a YAML file.

    Raises
    ------
    InputError
        If there is no such file or it is not valid.
    """
    return read_model(AttributeConfig, name, FOLDER / "attributes")


def image_size(config: AttributeConfig, epoch: int) -> int:
    """Side in pixels of the images of an epoch."""
    last = 0
    for count, size in sizes(config):
        last += count
        if epoch < last:
            return size
    return sizes(config)[-1][1]


def sizes(config: AttributeConfig) -> list[tuple[int, int]]:
    """Epochs and the side of their images, over all cycles."""
    return [*config.epochs, *((count, size) for count, size, _ in config.restarts)]


def cycles(config: AttributeConfig) -> list[tuple[int, float]]:
    """Epochs and the peak of the learning rate of each cycle."""
    first = sum(count for count, _ in config.epochs), config.learning_rate
    return [first, *((count, peak) for count, _, peak in config.restarts)]


def learning_rate(config: AttributeConfig, epochs: float) -> float:
    """Learning rate after so many epochs: in every cycle a linear warm-up, then a cosine to 0."""
    left = cycles(config)
    while len(left) > 1 and epochs >= left[0][0]:
        epochs -= left.pop(0)[0]
    count, peak = left[0]
    progress = epochs / count
    if progress < config.warmup:
        return peak * max(progress / config.warmup, 0.01)
    rest = (progress - config.warmup) / (1 - config.warmup)
    return peak * (1 + math.cos(math.pi * rest)) / 2
