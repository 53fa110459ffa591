"""One step of training an attribute net: photos, augmentation, loss, averaged weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pulse_audit.faces.attribute_net import RESOLUTION, AttributeNet
from pulse_audit.seeding import fingerprint
from pulse_audit.training.augment import augment_photos, mixup
from pulse_audit.training.config import AttributeConfig
from pulse_audit.training.data import chunks, held_out_files, pack, read_faces, to_unit
from pulse_audit.training.state import STATE, restore_state, write_state
from pulse_audit.types import InputError

#: Photos over which the normalisations of averaged weights take their statistics.
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
    files = held_out_files(faces, config.held_out_per_cell, config.held_out_seed)
    held_out = faces["file"].isin(files).to_numpy()
    return _packed(config, faces[~held_out]), _packed(config, faces[held_out])


def _packed(config: AttributeConfig, faces: pd.DataFrame) -> LabelledFaces:
    # Words become their numbers in the vocabulary, which is the order of the logits.
    labels: dict[str, NDArray[np.int64]] = {}
    for attribute, words in config.vocabulary.items():
        numbers = faces[attribute].map({word: i for i, word in enumerate(words)})
        if numbers.isna().any():
            word = faces[attribute][numbers.isna()].iloc[0]
            raise InputError(f"{attribute}: {word!r} is not in the vocabulary of {config.name}")
        labels[attribute] = np.asarray(numbers, dtype=np.int64)
    packed = pack(faces, RESOLUTION)
    return LabelledFaces(packed.images, labels, packed.files, packed.digests)


class AttributeTrainer:
    """Network, optimiser, averaged weights and the number of steps done.

    Every random number of a step follows from the seed and the number of the step, so a resumed
    run equals an undisturbed one.

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
        # Biases and normalisations are vectors; weight decay is for matrices and kernels.
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        free = [p for p in self.network.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=config.learning_rate)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        # The averaged weights at the end of each cycle of the learning rate.
        self.ends: list[dict[str, Tensor]] = []
        self.per_epoch = len(faces) // config.batch
        self.steps = self.per_epoch * sum(count for count, _ in config.sizes)

    def advance(self) -> float:
        """Take one step; return the loss of the first attribute."""
        config = self.config
        source = torch.Generator().manual_seed(fingerprint(config.seed, "step", self.step))
        images, targets = self._batch(source)
        # Predict, at the rate of this step.
        for group in self.adam.param_groups:
            group["lr"] = config.rate(self.step / self.per_epoch)
        self.adam.zero_grad()
        half = config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits = self.network.train()(images)
        # Loss: the weighted sum of the attributes' cross-entropies.
        smoothing = config.label_smoothing
        losses = {
            name: F.cross_entropy(logits[name].float(), target, label_smoothing=smoothing)
            for name, target in targets.items()
        }
        loss = torch.stack([config.attribute_weights[n] * one for n, one in losses.items()]).sum()
        torch.autograd.backward(loss)
        self.adam.step()
        self.step += 1
        # Average: early on the half-life is a quarter of the steps done, so that it keeps up.
        decay = 0.5 ** (1 / max(min(config.ema_steps, self.step / 4), 1e-6))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - decay)
        # Keep the averaged weights where a cycle of the learning rate ends.
        epochs = itertools.accumulate(count for count, _ in config.cycles)
        if self.step in [self.per_epoch * count for count in epochs]:
            self.ends.append({name: value.clone() for name, value in self.average.items()})
        return float(losses[next(iter(losses))].detach())

    def _batch(self, source: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Augmented images (batch, 3, size, size) and targets (batch, k) of each attribute."""
        config, faces = self.config, self.faces
        # Every epoch shows the photos in an order of its own.
        epoch, within = divmod(self.step, self.per_epoch)
        shuffle = np.random.default_rng(fingerprint(config.seed, "epoch", epoch))
        rows = shuffle.permutation(len(faces))[within * config.batch : (within + 1) * config.batch]
        size = config.image_size(epoch)
        images = augment_photos(to_unit(faces.images[rows]), size, config.blurred, source)
        targets = {
            name: F.one_hot(torch.from_numpy(labels[rows]), len(config.vocabulary[name])).float()
            for name, labels in faces.labels.items()
        }
        if config.mixup:
            images, targets = mixup(images, targets, config.mixup, source)
        images = images.to(self.device, memory_format=torch.channels_last)
        return images, {name: target.to(self.device) for name, target in targets.items()}

    @torch.no_grad()
    def averaged(self) -> AttributeNet:
        """Return a frozen network with the averaged weights.

        Where more than one cycle has ended, they are the mean over the ends of the cycles, which
        has a smaller error than any of them, and the statistics of the normalisations are taken
        anew (Izmailov et al. 2018, arXiv:1803.05407, algorithm 1).
        """
        config = self.config
        network = AttributeNet(config.vocabulary, config.widths, config.blocks)
        network.to(self.device)
        if len(self.ends) < 2:
            network.load_state_dict(self.average)
            return network.eval().requires_grad_(False)
        # Mean weights; counters, which are integers, are taken from the last cycle.
        mean = {
            name: torch.stack([end[name] for end in self.ends]).mean(0)
            if value.is_floating_point()
            else value
            for name, value in self.ends[-1].items()
        }
        network.load_state_dict(mean)
        # Means and variances of the normalisations, over photos augmented as in training.
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # the plain mean over the batches
        seed = fingerprint(config.seed, "statistics")
        source = torch.Generator().manual_seed(seed)
        rows = np.random.default_rng(seed).permutation(len(self.faces))[:STATISTICS]
        network.train()
        for chunk in chunks(self.faces.images[rows], config.batch):
            images = augment_photos(chunk, config.sizes[-1][1], config.blurred, source)
            network.trunk(images.to(self.device))
        return network.eval().requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write the state whole or not at all."""
        state = {
            "config": self.config.model_dump(mode="json"),
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average,
            "ends": self.ends,
            "adam": self.adam.state_dict(),
        }
        write_state(folder, state)

    def resume(self, folder: Path) -> bool:
        """Restore a stored state; False where there is none.

        Raises InputError if it is damaged, or of another configuration.
        """
        path = folder / STATE
        if not path.exists():
            return False

        def use(state: dict[str, Any]) -> None:
            self.network.load_state_dict(state["network"])
            self.adam.load_state_dict(state["adam"])
            self.average, self.ends = state["average"], state["ends"]
            self.step = int(state["step"])

        restore_state(path, self.device, use, self.config.model_dump(mode="json"))
        return True
