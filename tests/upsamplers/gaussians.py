"""A prior that is Gaussian: the exact answer of its network, its exact posterior, and distances."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pulse_audit.upsamplers.diffusion import Schedule

#: The levels of Ho et al. 2020.
SIGNAL = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
SIDE, FACTOR = 4, 2
PIXELS = 3 * SIDE**2


def covariance() -> Tensor:
    """Pixels of a small image: near ones alike, the channels alike."""
    axis = torch.arange(SIDE, dtype=torch.float64)
    places = torch.cartesian_prod(axis, axis)
    channels = torch.full((3, 3), 0.75, dtype=torch.float64).fill_diagonal_(1.0)
    return 0.25 * torch.kron(channels, torch.exp(-torch.cdist(places, places) / 2))


MEAN = 0.3 * torch.sin(torch.arange(PIXELS, dtype=torch.float64))
COVARIANCE = covariance()
VARIANCES, AXES = torch.linalg.eigh(COVARIANCE)


def network(noisy: Tensor, level: Tensor) -> Tensor:
    """Expected noise of a noisy image, exactly."""
    signal = SIGNAL[int(level[0])]
    scores = (noisy.flatten(1) - signal.sqrt() * MEAN) @ AXES
    expected = (1 - signal).sqrt() * scores / (signal * VARIANCES + 1 - signal)
    return (expected @ AXES.T).view_as(noisy)


def downscale(images: Tensor) -> Tensor:
    return torch.nn.functional.avg_pool2d(images, FACTOR)


def matrix(operator: Callable[[Tensor], Tensor] = downscale, side: int = SIDE) -> Tensor:
    """The whole matrix of an operator, (3 r r, 3 side side)."""
    units = torch.eye(3 * side**2, dtype=torch.float64).view(-1, 3, side, side)
    return operator(units).flatten(1).T


def posterior(lr: Tensor, noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the images, given an input (3, r, r) with Gaussian noise."""
    small = matrix()
    spread = small @ COVARIANCE @ small.T + noise**2 * torch.eye(len(small))
    gain = COVARIANCE @ small.T @ torch.linalg.inv(spread)
    return MEAN + gain @ (lr.flatten() - small @ MEAN), COVARIANCE - gain @ small @ COVARIANCE


def root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def distance(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Wasserstein-2 distance of two Gaussians, a pixel (Dowson and Landau 1982)."""
    inner = root(root(one[1]) @ other[1] @ root(one[1]))
    squared = (one[0] - other[0]).square().sum() + (one[1] + other[1] - 2 * inner).trace()
    return math.sqrt(max(0.0, float(squared)) / len(one[0]))


def noise(count: int, seed: int = 1) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(count, 3, SIDE, SIDE, dtype=torch.float64, generator=random)


def schedule(**how: object) -> Schedule:
    return Schedule(SIGNAL, clip=None, **how)  # type: ignore[arg-type]
