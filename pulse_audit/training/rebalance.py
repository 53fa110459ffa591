"""Train a generator on toward balanced photos, without a discriminator.

The shipped generators come without their discriminators, and a new one learns too slowly to be of
use (``benchmarks/results/remedies.md``). Here the generator's samples are brought to the photos'
distribution in the features of a network that is there and stays as it is: the attribute net
``faces-attributes-check``, which does not judge the outputs of an audit. This is feature matching
by a frozen network (dos Santos et al. 2019, arXiv:1904.02762), with the energy distance (Szekely
and Rizzo 2013, J. Stat. Plan. Inference 143:1249) in the place of means and variances: it is zero
for equal distributions alone, and its gradient needs no kernel width.

    python -m pulse_audit.training.rebalance --generator faces-skewed --data faces64.parquet \
        --config faces-balanced-32 --out models/faces-rebalanced.safetensors
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_audit.faces.attribute_net import AttributeNet, ShippedAttributes
from pulse_audit.faces.attributes import resized
from pulse_audit.files import read_card
from pulse_audit.generators.native_format import KIND, read_native, save_generator
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import find_generator
from pulse_audit.models.shipped import CHECK
from pulse_audit.training import command
from pulse_audit.training.config import read_gan_config
from pulse_audit.training.data import TrainingSet, training_set
from pulse_audit.types import InputError

#: What is trained: the mapping network and the blocks that decide the shape of a face.
PARTS = ("map.", "syn.b4.", "syn.b8.")
#: Photos whose features are compared with, photos and samples of a step, side for the network.
PHOTOS, OF_PHOTOS, OF_SAMPLES, SIDE = 3_000, 512, 64, 48
#: Steps until the learning rate is whole, share of the steps before it falls, averaged steps.
WARM_UP, CONSTANT, AVERAGED = 20, 0.7, 30
#: A line every so many steps.
LOGGED = 10


def features(network: AttributeNet, images: Tensor) -> list[Tensor]:
    """Return what two sets of images are compared in, a tensor (n, k) each.

    Parameters
    ----------
    network : AttributeNet
        Frozen.
    images : Tensor, (n, 3, R, R)
        In [0, 1].

    Returns
    -------
    list of Tensor
        The network's features; means and deviations of the channels after every stage; the
        pixels at a quarter of the size.
    """
    folded = F.pixel_unshuffle((resized(images, SIDE) - 0.5) / 0.25, 2)
    x, statistics = F.relu(network.norm(network.stem(folded))), list[Tensor]()
    ends = np.cumsum(network.blocks) - 1
    for index, block in enumerate(network.stages):
        x = block(x)
        if index in ends:
            statistics += [x.mean((2, 3)), (x.var((2, 3)) + 1e-4).sqrt()]
    return [x.mean((2, 3)), torch.cat(statistics, 1), F.avg_pool2d(images, 4).flatten(1)]


def energy_distance(samples: Tensor, photos: Tensor) -> Tensor:
    """Energy distance of two sets (n, k) and (m, k), unbiased, less what ``photos`` alone decide.

    Distances are divided by the root of k.
    """
    n, k = samples.shape
    across = torch.cdist(samples, photos).mean()
    within = torch.cdist(samples, samples).sum() / (n * (n - 1))
    distance: Tensor = (2 * across - within) / k**0.5
    return distance


class Rebalancing:
    """Steps of training a generator toward photos.

    Parameters
    ----------
    generator : StyleGAN2
        Where it begins; not changed.
    network : AttributeNet
        Whose features are compared.
    training : TrainingSet
        The photos, of the generator's size.
    steps : int
    rate : float
        Of Adam, before its schedule.
    seed : int

    Attributes
    ----------
    average : StyleGAN2
        The averaged generator.
    """

    def __init__(
        self,
        generator: StyleGAN2,
        network: AttributeNet,
        training: TrainingSet,
        steps: int,
        rate: float,
        seed: int,
    ) -> None:
        self.network, self.steps, self.rate = network, steps, rate
        self.generator = copy.deepcopy(generator).train()
        for key, parameter in self.generator.named_parameters():
            parameter.requires_grad_(key.startswith(PARTS))
        self.average = copy.deepcopy(self.generator)
        trained = [p for p in self.generator.parameters() if p.requires_grad]
        self._adam = torch.optim.Adam(trained, lr=rate, betas=(0.0, 0.99))
        self._source = torch.Generator().manual_seed(seed)
        # Features of some photos, every second of them mirrored, each to mean 0 and deviation 1.
        chosen = np.random.default_rng(seed).permutation(len(training.images))[:PHOTOS]
        photos = torch.from_numpy(training.images[chosen]).permute(0, 3, 1, 2).float() / 255
        photos[1::2] = photos[1::2].flip(3)
        with torch.no_grad():
            parts = [features(network, part) for part in torch.split(photos, 100)]
        raw = [torch.cat(part) for part in zip(*parts, strict=True)]
        self._scales = [(part.mean(0), part.std(0) + 1e-3) for part in raw]
        self._photos = [
            (part - mean) / std for part, (mean, std) in zip(raw, self._scales, strict=True)
        ]

    def sample(self) -> Tensor:
        """Return samples of the generator as it is, (n, 3, R, R), nominally in [0, 1]."""
        z = torch.randn(OF_SAMPLES, self.generator.z_dim, generator=self._source)
        noise = [
            torch.randn(OF_SAMPLES, 1, *shape, generator=self._source)
            for shape in self.generator.noise_shapes
        ]
        return (self.generator.synthesis(self.generator.mapping(z), noise) + 1) / 2

    def __iter__(self) -> Iterator[list[float]]:
        """Take every step, and yield its distances: features, statistics, pixels."""
        falling = self.steps * (1 - CONSTANT)
        for step in range(self.steps):
            # The rate rises, stays, and falls to 0.
            share = min((step + 1) / WARM_UP, 1.0, (self.steps - step) / falling)
            for group in self._adam.param_groups:
                group["lr"] = self.rate * share
            found = features(self.network, self.sample())
            photos = len(self._photos[0])
            rows = torch.randint(photos, (min(OF_PHOTOS, photos),), generator=self._source)
            distances = [
                energy_distance((values - mean) / std, of_photos[rows])
                for values, of_photos, (mean, std) in zip(
                    found, self._photos, self._scales, strict=True
                )
            ]
            self._adam.zero_grad()
            torch.autograd.backward(torch.stack(distances).sum())
            self._adam.step()
            with torch.no_grad():
                for kept, now in zip(
                    self.average.parameters(), self.generator.parameters(), strict=True
                ):
                    kept.lerp_(now, 1 / min(step + 1, AVERAGED))
            yield [float(distance.detach()) for distance in distances]


@click.command()
@click.option(
    "--generator", "begin_with", required=True, help="Name of a shipped one, or our own file."
)
@command.config_option
@command.data_option
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.safetensors.")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True)
@click.option("--rate", type=float, default=0.001, show_default=True)
@click.option("--seed", type=int, default=2020, show_default=True)
def main(
    begin_with: str, name: str, data: Path, out: Path, steps: int, rate: float, seed: int
) -> None:
    """Train a generator on toward the photos of a configuration, and write it with its card."""
    path, photos = find_generator(begin_with).path, read_gan_config(name)
    generator, model = read_native(path), load_attributes(CHECK, torch.device("cpu"))
    if not isinstance(generator, StyleGAN2) or not isinstance(model, ShippedAttributes):
        raise InputError(
            f"{begin_with}: only generators of the family StyleGAN 2 can be trained on"
        )
    if generator.resolution != photos.resolution:
        raise InputError(f"{begin_with}: {generator.resolution} px, where {name} has another size")
    training = training_set(
        data, photos.composition, photos.resolution, photos.held_out_per_cell, photos.seed
    )
    run = Rebalancing(generator, model.network, training, steps, rate, seed)
    for step, distances in enumerate(run, 1):
        if step % LOGGED == 0 or step == steps:
            shown = zip(("features", "statistics", "pixels"), distances, strict=True)
            print(f"step {step}", *(f"{key} {value:.4f}" for key, value in shown), flush=True)
    # The card says what differs from the generator that it began with.
    network = run.average.eval().requires_grad_(False)
    network.map.estimate_average()
    card = read_card(path, KIND)["card"]
    kept = {key: card[key] for key in ("resolution", "crop", "licence", "attribution")}
    card = kept | {
        "name": out.stem,
        "title": f"{begin_with}, trained on toward the features of {len(training.images):,} photos",
        "training_data": f"{card['training_data']}; then {steps * OF_SAMPLES:,} samples compared "
        f"with photos of {photos.name} by {CHECK}",
        "composition": training.race_counts(),
        "interim": True,
        "caveat": f"not independent of {CHECK}, in whose features it was trained",
    }
    save_generator(network, out, card)
    print(out)


if __name__ == "__main__":
    command.run(main)
