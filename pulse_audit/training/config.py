"""Configurations of training runs: the values of a YAML file, checked, and their schedules."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pulse_audit.documents import read_yaml
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.types import InputError

FOLDER = Path(__file__).parent / "configs"

Config = TypeVar("Config", bound="RunConfig")


class RunConfig(BaseModel):
    """Base of the configurations: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str


class GanConfig(RunConfig):
    """One training run of a generator and its discriminator."""

    #: Side of the images; follows from ``channels`` and is checked against them.
    resolution: int
    #: Training faces for each race.
    composition: dict[str, int]
    #: Faces set aside for each race and gender before anything is chosen.
    held_out_per_cell: int = Field(gt=0)
    #: Seed of the choice of faces, the initial weights and every draw.
    seed: int
    #: Feature maps at 4, 8, 16, ... px, in both networks.
    channels: tuple[int, ...] = Field(min_length=2)
    #: Length of z and w.
    latent_dim: int = Field(gt=0)
    #: Layers of the mapping network, all ``latent_dim`` wide.
    mapping_layers: int = Field(gt=0)
    #: Images a step; a multiple of four.
    batch: int = Field(gt=0, multiple_of=4)
    #: Thousands of real images after which training is complete.
    budget_kimg: float = Field(gt=0)
    #: Learning rate of Adam (beta1 0, beta2 0.99), in both networks.
    learning_rate: float = Field(gt=0)
    #: Thousands of images after which both networks get their last block, and during which it is
    #: faded in; before, they are trained at half the resolution. 0: whole from the start.
    grow_kimg: float = Field(default=0.0, ge=0)
    fade_kimg: float = Field(default=0.0, ge=0)
    #: Fine-tuning: the shipped generator, or file of our own, whose weights the run begins with,
    #: and for how many thousand images they stay as they are while the new discriminator learns.
    begin_with: str | None = None
    freeze_kimg: float = Field(default=0.0, ge=0)
    #: Learning rate of the generator, where it is not that of the discriminator.
    generator_rate: float | None = Field(default=None, gt=0)
    #: Weight of the gradient penalty, and every how many steps it is taken.
    r1_gamma: float = Field(ge=0)
    r1_interval: int = Field(gt=0)
    #: Half-life of the averaged weights in thousands of images, and its largest share of the
    #: images seen so far.
    ema_kimg: float = Field(gt=0)
    ema_rampup: float = Field(gt=0)
    #: Share of the images whose later layers take another z.
    style_mixing: float = Field(ge=0, le=1)
    #: See `pulse_audit.training.augment.AdaptiveStrength`.
    ada_target: float = Field(ge=0, le=1)
    ada_kimg: float = Field(gt=0)
    ada_ceiling: float = Field(ge=0, lt=1)
    #: Precision of the activations; weights, losses and augmentations are float32.
    precision: Literal["bfloat16", "float32"]

    @model_validator(mode="after")
    def _growth_has_a_fade(self) -> Self:
        if (self.grow_kimg > 0) != (self.fade_kimg > 0):
            raise ValueError("grow_kimg and fade_kimg are both 0 or both above 0")
        return self

    @model_validator(mode="after")
    def _fine_tuning_begins_whole(self) -> Self:
        if self.begin_with is not None and self.grow_kimg > 0:
            raise ValueError("a run that has begin_with does not grow: leave grow_kimg out")
        if self.freeze_kimg > 0 and self.begin_with is None:
            raise ValueError("freeze_kimg is of a run that has begin_with")
        return self

    def fade(self, images_seen: int) -> float:
        """Share of the last block after so many images: 0 before growth, 1 from the fade's end."""
        if self.grow_kimg == 0:
            return 1.0
        return min(max((images_seen / 1000 - self.grow_kimg) / self.fade_kimg, 0.0), 1.0)

    def penalty_weight(self, fade: float) -> float:
        """Weight of the gradient penalty: a quarter of ``r1_gamma`` at half the resolution.

        A pixel of the averaged image stands for four pixels, each with a quarter of its gradient.
        The penalty of the whole resolution therefore begins at a quarter of that of the half, and
        weight times penalty is continuous where the network grows.
        """
        return self.r1_gamma / 4 if fade == 0 else self.r1_gamma

    def generator_config(self) -> StyleGAN2Config:
        """Shape of the generator."""
        return StyleGAN2Config(
            channels=self.channels,
            z_dim=self.latent_dim,
            w_dim=self.latent_dim,
            hidden=(self.latent_dim,) * (self.mapping_layers - 1),
        )


class AttributeConfig(RunConfig):
    """One training run of an attribute net."""

    #: Faces of each race and gender set aside, see `pulse_audit.training.data.held_out_files`.
    held_out_per_cell: int = Field(gt=0)
    held_out_seed: int
    #: Seed of the initial weights and every draw.
    seed: int
    #: Words of each attribute, in the order of the logits.
    vocabulary: dict[str, tuple[str, ...]]
    #: Weight of each attribute's cross-entropy.
    attribute_weights: dict[str, float]
    #: See `AttributeNet`.
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    #: Epochs and the side of their images in pixels, one pair after the other.
    epochs: tuple[tuple[int, int], ...]
    #: Images a step.
    batch: int = Field(gt=1)
    #: AdamW: the peak, reached after the share ``warmup`` of the steps, then a cosine to 0.
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    warmup: float = Field(ge=0, lt=1)
    #: Further cycles of the learning rate, each with its epochs, the side of their images and its
    #: peak (Loshchilov and Hutter 2017, arXiv:1608.03983).
    restarts: tuple[tuple[int, int, float], ...] = ()
    #: Share of the target spread evenly over the classes.
    label_smoothing: float = Field(ge=0, lt=1)
    #: Parameter of Beta(a, a), from which images and targets of a batch are blended (Zhang et al.
    #: 2018, arXiv:1710.09412); 0 switches it off.
    mixup: float = Field(ge=0)
    #: Share of the batches reduced to 16 to 40 px and enlarged again.
    blurred: float = Field(ge=0, le=1)
    #: Attributes for which the exported network assumes equally frequent words, however often they
    #: occur among the training photos.
    equal_prior: tuple[str, ...] = ()
    #: Half-life of the averaged weights, in steps.
    ema_steps: float = Field(gt=0)
    #: Precision of the activations.
    precision: Literal["bfloat16", "float32"]

    @model_validator(mode="after")
    def _attributes_are_known(self) -> Self:
        for field in ("attribute_weights", "equal_prior"):
            unknown = sorted(set(getattr(self, field)) - set(self.vocabulary))
            if unknown:
                raise ValueError(f"{field}: {unknown[0]!r} is not in the vocabulary")
        return self

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Epochs and the side of their images, over all cycles."""
        return [*self.epochs, *((count, size) for count, size, _ in self.restarts)]

    @property
    def cycles(self) -> list[tuple[int, float]]:
        """Epochs and the peak of the learning rate of each cycle."""
        first = sum(count for count, _ in self.epochs), self.learning_rate
        return [first, *((count, peak) for count, _, peak in self.restarts)]

    def image_size(self, epoch: int) -> int:
        """Side in pixels of the images of an epoch; after the last epoch, that of the last."""
        ends = itertools.accumulate(count for count, _ in self.sizes)
        sides = (size for end, (_, size) in zip(ends, self.sizes, strict=True) if epoch < end)
        return next(sides, self.sizes[-1][1])

    def rate(self, epochs: float) -> float:
        """Learning rate after so many epochs: in every cycle a linear warm-up, then a cosine to 0.

        With the share t of the cycle done and the share u of its cosine, the rate is
        peak * t / warmup, then peak * (1 + cos(pi * u)) / 2.
        """
        # Find the cycle; a rate beyond the last cycle continues its cosine.
        remaining = self.cycles
        while len(remaining) > 1 and epochs >= remaining[0][0]:
            epochs -= remaining.pop(0)[0]
        count, peak = remaining[0]
        progress = epochs / count
        # The warm-up starts at a hundredth of the peak, not at 0.
        if progress < self.warmup:
            return peak * max(progress / self.warmup, 0.01)
        rest = (progress - self.warmup) / (1 - self.warmup)
        return peak * (1 + math.cos(math.pi * rest)) / 2


class FSRConfig(RunConfig):
    """One training run of FSRNet, or, with an adversarial loss, of FSRGAN."""

    #: Shape of the network; what is not here is the paper's, see `FSRNetConfig`.
    scale: int = Field(gt=1)
    resolution: int = Field(gt=0)
    width: int = Field(gt=0)
    depth: int = Field(default=4, gt=0)
    #: Training faces for each race, faces set aside for each race and gender, seed of the choice.
    composition: dict[str, int]
    held_out_per_cell: int = Field(gt=0)
    faces_seed: int
    #: Seed of the initial weights and every draw.
    seed: int
    #: Images a step, and how many steps.
    batch: int = Field(gt=1)
    steps: int = Field(gt=0)
    #: Adam: the peak, reached after the share ``warmup`` of the steps, then a cosine to 0.
    learning_rate: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    #: Weight of the coarse image, of the heatmaps and of the parsing maps beside the image's, 1.
    coarse: float = Field(default=1.0, ge=0)
    heatmaps: float = Field(default=1.0, ge=0)
    parsing: float = Field(default=1.0, ge=0)
    #: Weight of the adversarial and of the perceptual loss; both 0 in FSRNet.
    adversarial: float = Field(default=0.0, ge=0)
    perceptual: float = Field(default=0.0, ge=0)
    #: Learning rate of the discriminator, constant.
    discriminator_rate: float = Field(default=0.0, ge=0)
    #: Precision of the activations.
    precision: Literal["bfloat16", "float32"]

    @model_validator(mode="after")
    def _discriminator_learns(self) -> Self:
        if (self.adversarial > 0) != (self.discriminator_rate > 0):
            raise ValueError("adversarial and discriminator_rate are both 0 or both above 0")
        return self

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        # Neither the first nor the last step has a rate of 0.
        progress = (step + 0.5) / self.steps
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        rest = (progress - self.warmup) / (1 - self.warmup)
        return self.learning_rate * (1 + math.cos(math.pi * rest)) / 2


def read_gan_config(name: str | Path) -> GanConfig:
    """Read the configuration of a generator: the name of a shipped one, or a YAML file.

    Raises InputError if there is no such file or it is not valid.
    """
    config = _read(GanConfig, name, FOLDER)
    if config.resolution != config.generator_config().resolution:
        raise InputError(f"{name}: {len(config.channels)} channels do not give {config.resolution}")
    return config


def read_attribute_config(name: str | Path) -> AttributeConfig:
    """Read the configuration of an attribute net, as `read_gan_config` does."""
    return _read(AttributeConfig, name, FOLDER / "attributes")


def read_fsr_config(name: str | Path) -> FSRConfig:
    """Read the configuration of FSRNet or FSRGAN, as `read_gan_config` does."""
    return _read(FSRConfig, name, FOLDER / "fsr")


def _read(model: type[Config], name: str | Path, folder: Path) -> Config:
    path = Path(name) if str(name).endswith((".yaml", ".yml")) else folder / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise InputError(f"{path}: no such configuration; shipped ones are {known}")
    try:
        return model.model_validate(read_yaml(path))
    except ValidationError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a valid configuration ({reason})") from error
