"""Samples of a generator's own prior."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pulse_audit.generators.adapt import StyleGenerator
from pulse_audit.types import Generator


def drawn_from(generator: Generator) -> str:
    """Say which distribution `prior_images` draws from.

    ``mapping`` is the network's own prior, z through its mapping. ``gaussian`` is a latent vector
    of the search's prior: of a plain decoder the same thing, of a style network that came without
    its mapping, or with classes, an approximation (one vector for all layers).
    """
    return "mapping" if _mapped(generator) is not None else "gaussian"


@torch.no_grad()
def prior_images(generator: Generator, seeds: Sequence[int], device: torch.device) -> Tensor:
    """Draw one image a seed from a generator's prior, untruncated.

    Parameters
    ----------
    generator : Generator
        On ``device``.
    seeds : sequence of int
        Drawn on the CPU, each sample from its own seed.
    device : torch.device

    Returns
    -------
    Tensor
        (n, 3, R, R) in [0, 1], float32.
    """
    style, card = _mapped(generator), generator.card
    size = card.latent_dim if style is None else style.network.z_dim
    vectors, maps = [], []
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        vectors.append(torch.randn(size, generator=source))
        maps.append([torch.randn(1, *s, generator=source) for s in generator.noise_shapes])
    z = torch.stack(vectors).to(device)
    noise = [torch.stack(layer).to(device) for layer in zip(*maps, strict=True)]
    if style is None:
        images = generator.synthesize(z[:, None].expand(-1, card.n_latents, -1), noise)
    else:
        images = generator.images(style.network.mapping(z), noise)
    return images.clamp(0, 1).float()


def _mapped(generator: Generator) -> StyleGenerator | None:
    """Return a generator whose mapping gives its prior; None where it has none, or has classes."""
    if not isinstance(generator, StyleGenerator):
        return None
    network = generator.network
    return generator if network.map is not None and network.c_dim == 0 else None
