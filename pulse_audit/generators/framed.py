"""A generator of which only a frame of its pictures is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from pulse_audit.frames import WHOLE, Frame
from pulse_audit.types import Generator, smaller

#: Cuts pictures (n, 3, R, R) to a frame: (n, 3, size, size), differentiable.
Cut = Callable[[Tensor, Frame, int], Tensor]


class FramedGenerator:
    """A generator seen through a frame: the same latents, and the part of its pictures within.

    With the whole as its frame it is a generator whose pictures are shrunk.

    Parameters
    ----------
    whole : Generator
        The generator itself.
    frame : Frame
        The part that is shown, in units of the side of its pictures.
    resolution : int
        Side of the part in pixels.
    crop : str
        How a face lies in the part.
    cut : callable
        See `Cut`; `pulse_audit.degrade.resample.cut_to_frame`.
    """

    def __init__(
        self, whole: Generator, frame: Frame, resolution: int, crop: str, cut: Cut
    ) -> None:
        self.whole: Generator = whole
        self.frame: Frame = frame
        self._cut = cut
        # A frame of a frame is a smaller frame of the whole.
        if isinstance(whole, FramedGenerator):
            self.whole, self.frame = whole.whole, frame.seen_within(whole.frame)
        shown = None if self.frame == WHOLE else self.frame
        self.card = replace(whole.card, resolution=resolution, crop=crop, frame=shown)
        self.noise_shapes = whole.noise_shapes
        self.caveats: tuple[str, ...] = tuple(getattr(whole, "caveats", ()))

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (n, L, D) to the network's own input."""
        return self.whole.styles(latents)

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render styles and cut them to the frame: (n, 3, ``resolution``, ``resolution``)."""
        return self._cut(self.whole.images(styles, noise), self.frame, self.card.resolution)

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render latents (n, L, D) and cut them to the frame."""
        return self.images(self.styles(latents), noise)

    def at_resolution(self, resolution: int) -> FramedGenerator:
        """Return the same frame of the generator's smaller pictures, ``resolution`` px a side."""
        # As much smaller as the part is to be.
        side = self.whole.card.resolution * resolution // self.card.resolution
        coarse = smaller(self.whole, side)
        return FramedGenerator(coarse, self.frame, resolution, self.card.crop, self._cut)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Move the generator itself."""
        self.whole = self.whole.to(device, dtype)
        return self
