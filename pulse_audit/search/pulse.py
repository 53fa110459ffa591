"""PULSE (Menon et al. 2020, arXiv:2003.03808): search a generator for images that downscale right.

The one door for Python: give low-resolution images and seeds, get high-resolution ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pulse_audit.search.config import PRESETS, SearchConfig
from pulse_audit.search.engine import BatchSearch, Downscale, ExtraLoss, Observer
from pulse_audit.search.result import Iterate, SearchResult
from pulse_audit.search.start import Start, draw_start
from pulse_audit.types import Generator, InputError

__all__ = ["PRESETS", "Pulse", "SearchConfig"]


class Pulse:
    """Search of one generator at one scale.

    Parameters
    ----------
    generator : Generator
        Moved to ``device`` and ``dtype``.
    scale : int
        Downscaling factor: the generator's resolution over the input's.
    downscale : callable
        DS: images (n, 3, R, R) in [0, 1] -> (n, 3, R / scale, R / scale), differentiable.
    config : str or SearchConfig
        ``official`` (100 steps, eps 2e-3), ``paper`` (eps 1e-3), ``fast`` (official, but each image
        stops at its first feasible iterate), or settings of your own.
    device : torch.device or str
        Where to search.
    dtype : torch.dtype
        Type of the generator's arithmetic; latents are float64 with float64, else float32.
    batch_size : int
        Images searched at once. It does not enter the result beyond rounding.

    Raises
    ------
    InputError
        If ``config`` is not a preset's name, or the scale does not divide the resolution.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        scale: int,
        downscale: Downscale,
        config: str | SearchConfig = "official",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
    ) -> None:
        self.config = preset(config) if isinstance(config, str) else config
        resolution = generator.card.resolution
        if scale < 1 or resolution % scale:
            raise InputError(f"scale {scale} does not divide the generator's {resolution} px")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, it must be at least 1")
        self.generator = generator.to(device, dtype)
        self.scale, self.downscale, self.batch_size = scale, downscale, batch_size
        self._device = torch.device(device)
        self._dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def upsample(
        self,
        lr: Tensor,
        seeds: Sequence[int] = (0,),
        *,
        start: Start | None = None,
        extra_losses: Sequence[ExtraLoss] = (),
        frames_every: int | None = None,
        observe: Observer | None = None,
    ) -> list[SearchResult]:
        """Search each input once for each seed.

        Parameters
        ----------
        lr : Tensor
            (3, h, w) or (n, 3, h, w), floating-point in [0, 1].
        seeds : sequence of int
            Seeds of the start; each draws its own latents and noise.
        start : Start, optional
            Explicit start of n searches, one an input; ``seeds`` are not used then.
        extra_losses : sequence of callable
            ``term(images, latents) -> (m,)``, added to the loss; see `BatchSearch`.
        frames_every : int, optional
            Keep the best so far of every image each time so many iterates have been judged.
        observe : callable, optional
            Called with every `Iterate`; its ``rows`` count in the order of the results.

        Returns
        -------
        list of SearchResult
            Inputs in order, the seeds of each in order; images (3, R, R) in [0, 1], float32, on
            the search's device.

        Raises
        ------
        InputError
            If the inputs are not finite RGB images in [0, 1] of R / scale px, or the start does
            not fit.
        """
        inputs = _as_batch(lr).to(self._device, self._dtype)
        self._check_size(inputs)
        if start is None:
            inputs = inputs.repeat_interleave(len(seeds), dim=0)
            drawn = list(seeds) * (len(inputs) // max(len(seeds), 1))
        elif len(start) != len(inputs):
            raise InputError(f"start holds {len(start)} searches for {len(inputs)} inputs")
        results: list[SearchResult] = []
        for first in range(0, len(inputs), self.batch_size):
            rows = slice(first, min(first + self.batch_size, len(inputs)))
            search = BatchSearch(
                self.generator,
                inputs[rows],
                draw_start(self.generator, drawn[rows], self.config)
                if start is None
                else start[rows],
                self.downscale,
                self.config,
                extra_losses=extra_losses,
                frames_every=frames_every,
                observe=_counting_from(first, observe),
            )
            results += search.run()
        return results

    def _check_size(self, lr: Tensor) -> None:
        size = self.generator.card.resolution // self.scale
        if lr.shape[-2:] != (size, size):
            raise InputError(
                f"inputs are {lr.shape[-1]} x {lr.shape[-2]} px, but the generator's "
                f"{self.generator.card.resolution} px at scale {self.scale} need {size} x {size}"
            )


def preset(name: str) -> SearchConfig:
    """Return a preset.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if name not in PRESETS:
        raise InputError(f'search "{name}" is not known; use one of {", ".join(PRESETS)}')
    return PRESETS[name]


def _as_batch(lr: Tensor) -> Tensor:
    batch = lr[None] if lr.dim() == 3 else lr
    if batch.dim() != 4 or batch.shape[1] != 3 or not batch.is_floating_point():
        raise InputError(
            f"inputs have shape {tuple(lr.shape)} and type {lr.dtype}; wanted floating-point RGB, "
            "(3, h, w) or (n, 3, h, w), in [0, 1]"
        )
    if not bool(torch.isfinite(batch).all()):
        raise InputError("an input holds NaN or infinity")
    if batch.numel() and (batch.min() < -0.5 or batch.max() > 1.5):
        low, high = float(batch.min()), float(batch.max())
        raise InputError(f"inputs lie in [{low:g}, {high:g}], wanted [0, 1]: divide bytes by 255")
    return batch


def _counting_from(first: int, observe: Observer | None) -> Observer | None:
    if observe is None:
        return None

    def observe_all(iterate: Iterate) -> None:
        observe(replace(iterate, rows=iterate.rows + first))

    return observe_all
