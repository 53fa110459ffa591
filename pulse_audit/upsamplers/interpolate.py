"""The interpolating arms: nearest, bicubic, lanczos. They promise no feasibility."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from pulse_audit.types import Degradation, Request, Status, Upsampled

if TYPE_CHECKING:
    from torch import Tensor

Resize = Callable[["Tensor", int, str], "Tensor"]


class Interpolator:
    """Enlarges by interpolation; every draw of a face is the same.

    Parameters
    ----------
    kernel : str
        ``nearest``, ``bicubic`` or ``lanczos``; also the arm's name.
    resize : callable
        ``resize(images (n, 3, h, w), size, kernel) -> (n, 3, size, size)``.
    """

    promises_feasibility = False
    resolution: int | None = None

    def __init__(self, kernel: str, resize: Resize) -> None:
        self.name = kernel
        self._resize = resize

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Enlarge every request by the degradation's scale."""
        started = time.perf_counter()
        lr = torch.stack([request.lr for request in requests])
        size = lr.shape[-1] * degradation.scale
        images = self._resize(lr, size, self.name).clamp(0, 1)
        # MSE between DS of each output and its input, (n,).
        errors = (degradation.downscale(images) - lr).double().square().mean(dim=(1, 2, 3))
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            Upsampled(image, float(error), None, 0, seconds, Status.OK)
            for image, error in zip(images, errors, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Return the kind and the kernel."""
        return {"kind": "interpolation", "kernel": self.name}
