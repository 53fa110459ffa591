"""One step of training an attribute net: photos, augmentation, loss, averaged weights."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pulse_audit.faces.attribute_net import RESOLUTION, AttributeNet
from pulse_audit.faces.attributes import resized
from pulse_audit.seeding import fingerprint
from pulse_audit.training.attribute_config import (
    AttributeConfig,
    cycles,
    image_size,
    learning_rate,
    sizes,
)
from pulse_audit.training.data import chunks, held_out, pack, read_faces, to_unit
from pulse_audit.types import InputError

STATE = "state.pt"
#: Photos from which the statistics of averaged weights are taken.
STATISTICS = 8192


@dataclass(frozen=True)
class LabelledFaces:
    """Photos (n, R, R, 3) uint8, and of each: index of its words, file name, SHA-256."""

    images: NDArray[np.uint8]
    labels: Mapping[str, NDArray[np.int64]]
    files: tuple[str, ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        """Count the photos."""
        return len(self.images)


def labelled_faces(config: AttributeConfig, data: Path) -> tuple[LabelledFaces, LabelledFaces]:
    """Read a table of faces; return those to train on and those held out."""
    faces = read_faces(data)
    apart = (
        faces["file"]
        .isin(held_out(faces, config.held_out_per_cell, config.held_out_seed))
        .to_numpy()
    )
    return _packed(config, faces[~apart]), _packed(config, faces[apart])


def _packed(config: AttributeConfig, faces: pd.DataFrame) -> LabelledFaces:
    labels: dict[str, NDArray[np.int64]] = {}
    for attribute, words in config.vocabulary.items():
        numbers = faces[attribute].map({word: i for i, word in enumerate(words)})
        if numbers.isna().any():
            word = faces[attribute][numbers.isna()].iloc[0]
            raise InputError(f"{attribute}: {word!r} is not in the vocabulary of {config.name}")
        labels[attribute] = np.asarray(numbers, dtype=np.int64)
    packed = pack(faces, RESOLUTION)
    return LabelledFaces(packed.images, labels, packed.files, packed.digests)


class Trainer:
    """Network, optimiser, averaged weights and the number of steps done.

    Every random number of a step follows from the seed and the number of the step, so a resumed
    run is the undisturbed one.

    Parameters
    ----------
    config : AttributeConfig
    faces : LabelledFaces
        To train on.
    device : torch.device
    """

    def __init__(self, config: AttributeConfig, faces: LabelledFaces, device: torch.device):
        self.config, self.faces, self.device, self.step = config, faces, device, 0
        torch.manual_seed(fingerprint(config.seed, "weights") % 2**31)
        network = AttributeNet(config.vocabulary, config.widths, config.blocks)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        free = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.ends: list[dict[str, Tensor]] = []
        self.per_epoch = len(faces) // config.batch
        self.steps = self.per_epoch * sum(count for count, _ in sizes(config))

    def advance(self) -> float:
        """Take one step; return its loss."""
        config = self.config
        source = torch.Generator().manual_seed(fingerprint(config.seed, "step", self.step))
        images, targets = self._batch(source)
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(config, self.step / self.per_epoch)
        self.adam.zero_grad()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"
        ):
            logits = self.network.train()(images)
        losses = {
            name: F.cross_entropy(
                logits[name].float(), target, label_smoothing=config.label_smoothing
            )
            for name, target in targets.items()
        }
        loss = torch.stack([config.attribute_weights[n] * one for n, one in losses.items()]).sum()
        torch.autograd.backward(loss)
        self.adam.step()
        self.step += 1
        self._average()
        if self.step in self._last_steps():
            self.ends.append({name: value.clone() for name, value in self.average.items()})
        return float(losses[next(iter(losses))].detach())

    def _batch(self, source: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Augmented images (batch, 3, size, size) and targets (batch, k) of each attribute."""
        config, faces = self.config, self.faces
        epoch, within = divmod(self.step, self.per_epoch)
        order = np.random.default_rng(fingerprint(config.seed, "epoch", epoch)).permutation(
            len(faces)
        )
        rows = order[within * config.batch : (within + 1) * config.batch]
        pixels, size = to_unit(faces.images[rows]), image_size(config, epoch)
        images = augmented(pixels, size, config.blurred, source)
        targets = {
            name: F.one_hot(torch.from_numpy(labels[rows]), len(config.vocabulary[name])).float()
            for name, labels in faces.labels.items()
        }
        if config.mixup:
            images, targets = mixed(images, targets, config.mixup, source)
        return (
            images.to(self.device, memory_format=torch.channels_last),
            {name: target.to(self.device) for name, target in targets.items()},
        )

    @torch.no_grad()
    def _average(self) -> None:
        half_life = min(self.config.ema_steps, self.step / 4)
        decay = 0.5 ** (1 / max(half_life, 1e-6))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)

    def _last_steps(self) -> list[int]:
        """Count the steps done when each cycle of the learning rate ends."""
        counts = itertools.accumulate(count for count, _ in cycles(self.config))
        return [self.per_epoch * epochs for epochs in counts]

    def averaged(self) -> AttributeNet:
        """Return a frozen network with the averaged weights.

        Where more than one cycle has ended, they are the mean over the ends of the cycles, which
        errs less than any of them, and the statistics of the normalisations are taken anew
        (Izmailov et al. 2018, arXiv:1803.05407, algorithm 1).
        """
        network = AttributeNet(self.config.vocabulary, self.config.widths, self.config.blocks)
        network.to(self.device)
        if len(self.ends) > 1:
            network.load_state_dict(mean_of(self.ends))
            self._take_statistics(network)
        else:
            network.load_state_dict(self.average)
        return network.eval().requires_grad_(False)

    @torch.no_grad()
    def _take_statistics(self, network: AttributeNet) -> None:
        """Take means and variances of the normalisations from photos as training shows them."""
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the plain mean over the batches
        config, seed = self.config, fingerprint(self.config.seed, "statistics")
        source = torch.Generator().manual_seed(seed)
        rows = np.random.default_rng(seed).permutation(len(self.faces))[:STATISTICS]
        network.train()
        for chunk in chunks(self.faces.images[rows], config.batch):
            shown = augmented(chunk, sizes(config)[-1][1], config.blurred, source)
            network.trunk(shown.to(self.device))

    def save(self, folder: Path) -> None:
        """Write the state whole."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "config": self.config.model_dump(mode="json"),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average,
            "ends": self.ends,
            "adam": self.adam.state_dict(),
        }
        torch.save(state, folder / f"new-{STATE}")
        os.replace(folder / f"new-{STATE}", folder / STATE)

    def resume(self, folder: Path) -> bool:
        """Take up a stored state; False where there is none.

        Raises
        ------
        InputError
            If it is damaged, or of another configuration.
        """
        path = folder / STATE
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            if state["config"] == self.config.model_dump(mode="json"):
                self.network.load_state_dict(state["network"])
                self.adam.load_state_dict(state["adam"])
                self.average, self.ends = state["average"], state["ends"]
                self.step = int(state["step"])
                return True
        except Exception as error:
            raise InputError(f"{path}: damaged state ({type(error).__name__})") from error
        raise InputError(f"{path}: the state of another configuration; choose another --state")


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several sets of weights; what counts instead of measuring is taken from the last."""
    return {
        name: torch.stack([state[name] for state in states]).mean(0)
        if value.is_floating_point()
        else value
        for name, value in states[-1].items()
    }


def augmented(images: Tensor, size: int, blurred: float, source: torch.Generator) -> Tensor:
    """Augment (n, 3, R, R) in [0, 1]: mirror, small similarity, light, contrast; resize.

    Hue is left alone, because skin tone informs the apparent groups as people see them.
    """
    n = len(images)

    def normal(deviation: float, *shape: int) -> Tensor:
        return deviation * torch.randn(n, *shape, generator=source)

    flip = 1 - 2 * (torch.rand(n, generator=source) < 0.5).float()
    scale, angle = torch.exp(normal(0.08)), normal(math.radians(7))
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cosine * flip, -sine, sine * flip, cosine], 1).view(n, 2, 2)
    places = torch.cat([rows, normal(0.07, 2)[:, :, None]], 2)
    grid = F.affine_grid(places, [n, 3, size, size], align_corners=False)
    turned = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    contrast, light = torch.exp(normal(0.15, 1, 1, 1)), normal(0.08, 1, 1, 1)
    grey = turned.mean(1, keepdim=True)
    saturation = torch.exp(normal(0.15, 1, 1, 1))
    coloured = grey + (turned - grey) * saturation
    centre = coloured.mean((1, 2, 3), keepdim=True)
    lit = ((coloured - centre) * contrast + centre + light).clamp(0, 1)
    chance, side = torch.rand((), generator=source), torch.randint(16, 41, (), generator=source)
    if float(chance) < blurred and int(side) < size:
        lit = resized(resized(lit, int(side)), size)
    return lit


def mixed(
    images: Tensor, targets: Mapping[str, Tensor], alpha: float, source: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Blend each image and its targets with another of the batch, one weight for the batch."""
    seed = int(torch.randint(2**31, (), generator=source))
    weight = float(np.random.default_rng(seed).beta(alpha, alpha))
    order = torch.randperm(len(images), generator=source)
    return weight * images + (1 - weight) * images[order], {
        name: weight * target + (1 - weight) * target[order] for name, target in targets.items()
    }
