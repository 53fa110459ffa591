"""Where a search starts: latents and noise, drawn for each image from its own seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_audit.search.config import SearchConfig
from pulse_audit.types import Generator, InputError


@dataclass(frozen=True)
class Start:
    """Start of a batch of searches.

    Attributes
    ----------
    latents : Tensor
        (n, L, D), or (n, 1, D) where one vector serves all layers.
    noise : tuple of Tensor
        One map (n, 1, h, w) for each entry of the generator's ``noise_shapes``.
    """

    latents: Tensor
    noise: tuple[Tensor, ...]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.latents)

    def __getitem__(self, rows: slice) -> Start:
        """Return some of the images."""
        return Start(self.latents[rows], tuple(m[rows] for m in self.noise))

    def to(self, device: torch.device, dtype: torch.dtype) -> Start:
        """Return a copy on a device, in a floating-point type."""
        noise = tuple(m.detach().to(device, dtype, copy=True) for m in self.noise)
        return Start(self.latents.detach().to(device, dtype, copy=True), noise)

    def check(self, generator: Generator, n: int, config: SearchConfig) -> None:
        """Raise InputError unless this is a start of ``n`` searches of the generator."""
        card = generator.card
        latents = (n, 1 if config.tied_latent else card.n_latents, card.latent_dim)
        wanted = [latents, *((n, 1, *shape) for shape in generator.noise_shapes)]
        given = [tuple(t.shape) for t in (self.latents, *self.noise)]
        if given != wanted:
            raise InputError(f"start: latents and noise have shapes {given}, wanted {wanted}")


def draw_start(generator: Generator, seeds: Sequence[int], config: SearchConfig) -> Start:
    """Draw latents and noise from the standard normal distribution.

    Drawn on the CPU in float32, for each image from its own seed: the same whatever the device,
    the precision and the batch mates. Latents come first, so they do not depend on the noise.

    Parameters
    ----------
    generator : Generator
        For the shapes.
    seeds : sequence of int
        One an image; 0 is a seed like any other.
    config : SearchConfig
        For ``tied_latent`` and ``noise``; with ``noise="zero"`` all maps are zero.
    """
    card = generator.card
    shape = (1 if config.tied_latent else card.n_latents, card.latent_dim)
    latents, maps = [], []
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        latents.append(torch.randn(shape, generator=source))
        maps.append([_noise_map(s, source, config) for s in generator.noise_shapes])
    noise = tuple(torch.stack(layer) for layer in zip(*maps, strict=True))
    return Start(torch.stack(latents), noise)


def _noise_map(shape: tuple[int, int], source: torch.Generator, config: SearchConfig) -> Tensor:
    if config.noise == "zero":
        return torch.zeros(1, *shape)
    return torch.randn(1, *shape, generator=source)
