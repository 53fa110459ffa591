"""Optimisation on spheres: a plain step, then every vector goes back to its initial norm.

The mass of a standard Gaussian in d dimensions lies close to the sphere of radius sqrt(d), so
PULSE keeps each latent vector, and each noise map, on the sphere it was drawn on (Menon et al.
2020, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pulse_audit.search.rules import RULES

NORM_FLOOR = 1e-9


def slice_norms(tensor: Tensor) -> Tensor:
    """Norm of each slice over the dimensions from the third on: ``sqrt(sum + 1e-9)``.

    Latents (n, L, D) have one norm a vector, (n, L, 1); noise maps (n, 1, h, w) one a map,
    (n, 1, 1, 1).
    """
    dims = tuple(range(2, tensor.dim()))
    return (tensor.square().sum(dim=dims, keepdim=True) + NORM_FLOOR).sqrt()


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
        self._rule, self._steps = RULES[optimizer], 0
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
            for tensor, gradient, moments in zip(
                self.tensors, gradients, self._moments, strict=True
            ):
                direction = self._rule.direction(gradient, moments, self._steps)
                tensor.sub_(direction, alpha=learning_rate)
            for tensor, radius in zip(self.tensors, self._radii, strict=False):
                tensor.mul_(radius / slice_norms(tensor))

    @torch.no_grad()
    def keep(self, rows: Tensor) -> None:
        """Drop every image but those at ``rows``, their moments and radii included."""
        for tensor in self.tensors:
            tensor.data = tensor.data[rows]
        self._moments = [[moment[rows] for moment in moments] for moments in self._moments]
        self._radii = [radius[rows] for radius in self._radii]
