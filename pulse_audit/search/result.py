"""What a search shows on its way and hands out at its end, and the best iterate so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_audit.types import Upsampled


@dataclass(frozen=True)
class Iterate:
    """One step of a batch, before its update; handed to observers, without gradients.

    Attributes
    ----------
    step : int
        Number of updates made before.
    rows : Tensor
        Which images these are (m,); images that have left the search are missing.
    latents, styles : Tensor
        (m, L, D).
    images : Tensor
        (m, 3, R, R), not clamped.
    terms : mapping of str to Tensor
        Unweighted loss terms, (m,) each.
    total : Tensor
        The loss (m,).
    downscale_error : Tensor
        MSE between DS of the clamped image and the input, (m,), float64.
    """

    step: int
    rows: Tensor
    latents: Tensor
    styles: Tensor
    images: Tensor
    terms: Mapping[str, Tensor]
    total: Tensor
    downscale_error: Tensor


@dataclass(frozen=True)
class Frame:
    """The best of one image after ``steps`` iterates: ``image`` (3, R, R), DS of it ``lr``."""

    steps: int
    image: Tensor
    lr: Tensor


@dataclass(frozen=True)
class SearchResult(Upsampled):
    """An `Upsampled` with its latents (L, D), its total loss, and frames where asked for."""

    latents: Tensor | None = None
    loss: float | None = None
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True)
class Candidates:
    """What an iterate offers: clamped images, DS of them, and how good they are, all (m, ...)."""

    images: Tensor
    lr: Tensor
    latents: Tensor
    total: Tensor
    error: Tensor
    feasible: Tensor

    def finite(self) -> Tensor:
        """Which of them are usable (m,)."""
        return torch.isfinite(self.total) & torch.isfinite(self.error)

    def better_than(self, best: Candidates, rows: Tensor) -> Tensor:
        """Which of them beat the best so far, found at ``rows`` of ``best`` (m,).

        A feasible image beats an infeasible one; among feasible ones the lower loss wins, among
        infeasible ones the lower downscale error. NaN never wins.
        """
        was_feasible = best.feasible[rows]
        first = self.feasible & ~was_feasible
        loss = self.feasible & was_feasible & (self.total < best.total[rows])
        error = ~self.feasible & ~was_feasible & (self.error < best.error[rows])
        return self.finite() & (first | loss | error)

    def at(self, rows: Tensor) -> Candidates:
        """Return some of them."""
        return Candidates(*(field[rows] for field in self._fields()))

    def overwrite(self, rows: Tensor, others: Candidates) -> None:
        """Put others in the places ``rows``."""
        for own, new in zip(self._fields(), others._fields(), strict=True):
            own.index_copy_(0, rows, new)

    def _fields(self) -> tuple[Tensor, ...]:
        return self.images, self.lr, self.latents, self.total, self.error, self.feasible
