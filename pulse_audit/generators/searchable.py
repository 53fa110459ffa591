"""The generators that the search takes, and samples of their own prior.

Build them with `adapt.as_generator`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.generators.gaussianise import GaussianFit, uniform_from_gaussian
from pulse_audit.generators.network import Noise, StyleNetwork
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.types import Generator, GeneratorCard, InputError

# Above this relative spread of a Gaussian's norm the sphere leaves out much of the prior.
MAX_NORM_SPREAD = 0.1

Decoder = Callable[[Tensor], Tensor]


class StyleGenerator:
    """A style network, searched in gaussianised W+: one sphere for each style vector.

    ``styles`` are those of ``fit`` (see `GaussianFit`), the network's own w, and images are
    ``(synthesis + 1) / 2``. ``network`` is moved along by `to`; ``caveats`` are sentences that a
    report on this generator has to carry.
    """

    def __init__(self, network: StyleNetwork, fit: GaussianFit, card: GeneratorCard) -> None:
        self.network, self.fit, self.card = network, fit, card
        self.noise_shapes = network.noise_shapes
        self.caveats = sphere_caveats(card)

    def mapping(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z (n, z_dim) and one-hot labels (n, c_dim) to w (n, num_ws, w_dim)."""
        return self.network.mapping(z, labels, truncation)

    def synthesis(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Render w (n, num_ws, w_dim) to the network's raw images (n, 3, R, R), about [-1, 1]."""
        return self.network.synthesis(w, noise)

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (n, num_ws, w_dim) to w of the same shape."""
        return self.fit.styles(latents)

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render w (n, num_ws, w_dim) to images (n, 3, R, R), nominally in [0, 1]."""
        # The network renders black as -1 and white as 1.
        return (self.network.synthesis(styles, noise if self.noise_shapes else "none") + 1) / 2

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render latents (n, num_ws, w_dim) to images (n, 3, R, R)."""
        return self.images(self.styles(latents), noise)

    def at_resolution(self, resolution: int) -> StyleGenerator:
        """Return the network cut off at a resolution below its own; InputError if it cannot be."""
        name, network = self.card.name, self.network
        if not isinstance(network, StyleGAN2) or resolution >= self.card.resolution:
            raise InputError(f"{name}: it has no smaller pictures of {resolution} px")
        try:
            cut = network.at_resolution(resolution)
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        card = replace(self.card, resolution=resolution, n_latents=cut.num_ws)
        return StyleGenerator(cut, self.fit, card)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Move the network; bfloat16 concerns its feature maps only."""
        self.network.to(device=device, dtype=dtype)
        # The fit stays in float32 whatever the arithmetic of the network.
        self.fit = self.fit.to(device)
        return self


class DecoderGenerator:
    """Any decoder from one latent vector to images: one sphere an image, no noise maps.

    ``decoder`` maps latents (n, latent_dim) to (n, 3, R, R); ``caveats`` are sentences that a
    report on this generator has to carry.
    """

    noise_shapes: tuple[tuple[int, int], ...] = ()

    def __init__(self, decoder: Decoder, card: GeneratorCard, output_range: tuple[float, float]):
        self.decoder, self.card, self.output_range = decoder, card, output_range
        self.caveats = sphere_caveats(card)
        self._dtype = torch.float32

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (n, 1, latent_dim) to the decoder's own prior."""
        return uniform_from_gaussian(latents) if self.card.prior == "uniform" else latents

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render (n, 1, latent_dim) to images (n, 3, R, R); ``noise`` is not used."""
        # (n, 1, latent_dim) -> (n, latent_dim), and the decoder's range to [0, 1]
        low, high = self.output_range
        raw = self.decoder(styles[:, 0].to(self._dtype)).to(styles.dtype)
        return (raw - low) / (high - low)

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render latents (n, 1, latent_dim) to images (n, 3, R, R)."""
        return self.images(self.styles(latents), noise)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Move the decoder, weights included; a plain callable is given ``dtype`` latents.

        What bfloat16 rounds off the weights does not come back.
        """
        if isinstance(self.decoder, nn.Module):
            self.decoder.to(device=device, dtype=dtype)
        # An exported program keeps its own precision.
        self._dtype = getattr(self.decoder, "dtype", dtype)
        return self


def norm_spread(latent_dim: int) -> float:
    """Return the relative standard deviation of a Gaussian vector's norm.

    That of the chi distribution to leading order, ``1 / sqrt(2 d)``.
    """
    return 1 / math.sqrt(2 * latent_dim)


def sphere_caveats(card: GeneratorCard) -> tuple[str, ...]:
    """Say what the sphere leaves out where the latent space is small."""
    spread = norm_spread(card.latent_dim)
    if spread <= MAX_NORM_SPREAD:
        return ()
    return (
        f"{card.name}: with {card.latent_dim} latent values the norm of a draw from the prior "
        f"varies by {spread:.0%}, so the sphere PULSE searches holds only part of the faces this "
        'generator can draw; compare with the search prior "none"',
    )


def drawn_from(generator: Generator) -> str:
    """Say which distribution `prior_images` draws from.

    ``mapping`` is the network's own prior, z through its mapping. ``gaussian`` is a latent vector
    of the search's prior: of a plain decoder the same thing, of a style network that came without
    its mapping, or with classes, an approximation (one vector for all layers).
    """
    if isinstance(generator, FramedGenerator):
        return drawn_from(generator.whole)
    if not isinstance(generator, StyleGenerator):
        return "gaussian"
    network = generator.network
    return "mapping" if network.map is not None and network.c_dim == 0 else "gaussian"


@torch.no_grad()
def prior_images(
    generator: Generator, seeds: Sequence[int], device: torch.device, truncation: float = 1.0
) -> Tensor:
    """Draw one image a seed from a generator's prior.

    Parameters
    ----------
    generator : Generator
        On ``device``.
    seeds : sequence of int
        Drawn on the CPU, each sample from its own seed.
    device : torch.device
    truncation : float
        Of what is `drawn_from` the mapping: 1 is the whole prior, 0 its average.

    Returns
    -------
    Tensor
        (n, 3, R, R) in [0, 1], float32.
    """
    mapped = drawn_from(generator) == "mapping"
    whole = generator.whole if isinstance(generator, FramedGenerator) else generator
    style = whole if mapped and isinstance(whole, StyleGenerator) else None
    size = generator.card.latent_dim if style is None else style.network.z_dim
    vectors, maps = [], []
    # Each seed gives its latent vector first, then its noise maps.
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        vectors.append(torch.randn(size, generator=source))
        maps.append([torch.randn(1, *s, generator=source) for s in generator.noise_shapes])
    z = torch.stack(vectors).to(device)
    noise = [torch.stack(layer).to(device) for layer in zip(*maps, strict=True)]
    # Without a mapping of its own: one Gaussian vector for all layers, (n, d) -> (n, L, d).
    if style is None:
        images = generator.synthesize(z[:, None].expand(-1, generator.card.n_latents, -1), noise)
    else:
        images = generator.images(style.mapping(z, truncation=truncation), noise)
    return images.clamp(0, 1).float()
