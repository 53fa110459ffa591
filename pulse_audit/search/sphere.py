"""Latents on spheres: where a search starts, and how one step moves it.

The mass of a standard Gaussian in d dimensions lies close to the sphere of radius sqrt(d), so
PULSE keeps each latent vector, and each noise map, on the sphere it was drawn on (Menon et al.
2020, section 3.2): a plain step of the optimiser, then every vector goes back to its initial norm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_audit.search.config import SearchConfig
from pulse_audit.types import Generator, InputError

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
MOMENTUM = 0.9
NORM_FLOOR = 1e-9


@dataclass(frozen=True)
class Start:
    """Start of a batch of searches."""

    #: (n, L, D), or (n, 1, D) where one vector serves all layers.
    latents: Tensor
    #: One map (n, 1, h, w) for each entry of the generator's ``noise_shapes``.
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
        expected = [latents, *((n, 1, *shape) for shape in generator.noise_shapes)]
        shapes = [tuple(t.shape) for t in (self.latents, *self.noise)]
        if shapes != expected:
            raise InputError(f"start: latents and noise have shapes {shapes}, wanted {expected}")


def draw_start(
    generator: Generator,
    seeds: Sequence[int],
    config: SearchConfig,
    latent_seeds: Sequence[int] | None = None,
) -> Start:
    """Draw latents and noise from the standard normal distribution.

    Drawn on the CPU in float32, for each image from its own seed: the same whatever the device,
    the precision and the batch mates.

    Parameters
    ----------
    generator : Generator
        For the shapes.
    seeds : sequence of int
        One an image; 0 is a seed like any other.
    config : SearchConfig
        For ``tied_latent``, ``noise`` and ``truncation``, the factor of the latents' norms.
    latent_seeds : sequence of int, optional
        One an image, of the latents alone; default: ``seeds``.
    """
    card = generator.card
    shape = (1 if config.tied_latent else card.n_latents, card.latent_dim)
    latents, maps = [], []
    for seed, of_latents in zip(seeds, latent_seeds or seeds, strict=True):
        source = torch.Generator().manual_seed(seed)
        # Latents are drawn first, so that they do not depend on the setting of the noise.
        vectors = torch.randn(shape, generator=source)
        if of_latents != seed:
            vectors = torch.randn(shape, generator=torch.Generator().manual_seed(of_latents))
        latents.append(vectors * config.truncation)
        maps.append(
            [
                torch.zeros(1, *size)
                if config.noise == "zero"
                else torch.randn(1, *size, generator=source)
                for size in generator.noise_shapes
            ]
        )
    # One list of maps an image -> one batch of maps (n, 1, h, w) a layer.
    noise = tuple(torch.stack(layer) for layer in zip(*maps, strict=True))
    return Start(torch.stack(latents), noise)


@dataclass(frozen=True)
class UpdateRule:
    """From a gradient and its moments to the direction of one step.

    ``direction(gradient, moments, t)`` at step t = 1, 2, ...; moments begin at zero and are updated
    in place; the step is ``-learning_rate * direction``. The rules are written out here, because
    building the optimisers of torch takes seconds (they load its compiler) and because images that
    leave a search take their moments along.
    """

    moments: int
    direction: Callable[[Tensor, Sequence[Tensor], int], Tensor]


def _adam(gradient: Tensor, moments: Sequence[Tensor], t: int) -> Tensor:
    """Kingma & Ba 2015, algorithm 1."""
    first, second = moments
    first.lerp_(gradient, 1 - BETA1)
    second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    scale = second.sqrt().div_(math.sqrt(1 - BETA2**t)).add_(EPS)
    return (first / scale).div_(1 - BETA1**t)


def _adamax(gradient: Tensor, moments: Sequence[Tensor], t: int) -> Tensor:
    """Kingma & Ba 2015, algorithm 2."""
    first, largest = moments
    first.lerp_(gradient, 1 - BETA1)
    torch.maximum(largest.mul_(BETA2), gradient.abs().add_(EPS), out=largest)
    return (first / largest).div_(1 - BETA1**t)


UPDATE_RULES = {
    "adam": UpdateRule(2, _adam),
    "adamax": UpdateRule(2, _adamax),
    "sgd": UpdateRule(0, lambda gradient, moments, t: gradient),
    "sgdm": UpdateRule(1, lambda gradient, moments, t: moments[0].mul_(MOMENTUM).add_(gradient)),
}


def slice_norms(tensor: Tensor) -> Tensor:
    """Norm of each slice over the dimensions from the third on: ``sqrt(sum + 1e-9)``.

    Latents (n, L, D) have one norm a vector, (n, L, 1); noise maps (n, 1, h, w) one a map,
    (n, 1, 1, 1).
    """
    dims = tuple(range(2, tensor.dim()))
    return (tensor.square().sum(dim=dims, keepdim=True) + NORM_FLOOR).sqrt()


def latent_radius(latents: Tensor) -> float:
    """Mean norm of the vectors (L, D) of an image over sqrt(D): about 1 for draws of the prior."""
    return float(latents.norm(dim=-1).mean()) / math.sqrt(latents.shape[-1])


class SphericalOptimizer:
    """Steps on leaf tensors whose first dimension is the image; no image affects another.

    Parameters
    ----------
    tensors : sequence of Tensor
        Leaves that require gradients: latents (n, L, D) and noise maps (n, 1, h, w).
    optimizer : {"adam", "adamax", "sgd", "sgdm"}
        The rule of the plain step; moments are not transported along the sphere, as in PULSE.
    on_sphere : bool
        Whether each slice is rescaled to its initial norm after the step.
    """

    def __init__(self, tensors: Sequence[Tensor], optimizer: str, on_sphere: bool) -> None:
        self.tensors = list(tensors)
        self._rule, self._steps = UPDATE_RULES[optimizer], 0
        self._moments = [
            [torch.zeros_like(t, requires_grad=False) for _ in range(self._rule.moments)]
            for t in tensors
        ]
        self._radii = [slice_norms(t.detach()) for t in tensors] if on_sphere else []

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """Take one step down the gradient of ``loss``, a scalar."""
        gradients = torch.autograd.grad(loss, self.tensors, materialize_grads=True)
        self._steps += 1
        with torch.no_grad():
            # The plain step of the rule ...
            for tensor, gradient, moments in zip(
                self.tensors, gradients, self._moments, strict=True
            ):
                direction = self._rule.direction(gradient, moments, self._steps)
                tensor.sub_(direction, alpha=learning_rate)
            # ... and back to the sphere; there are no radii where norms are free.
            for tensor, radius in zip(self.tensors, self._radii, strict=False):
                tensor.mul_(radius / slice_norms(tensor))

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Drop every image but those at ``rows``, their moments and radii included."""
        for tensor in self.tensors:
            tensor.data = tensor.data[rows]
        self._moments = [[moment[rows] for moment in moments] for moments in self._moments]
        self._radii = [radius[rows] for radius in self._radii]
