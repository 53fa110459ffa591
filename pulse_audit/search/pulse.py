"""PULSE (Menon et al. 2020, arXiv:2003.03808): search a generator for images that downscale right.

The entry point for Python: low-resolution images and seeds in, high-resolution images out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from pulse_audit.degrade.resample import check_factor, downscale
from pulse_audit.generators.adapt import as_generator
from pulse_audit.generators.network import StyleNetwork
from pulse_audit.search.config import PRESETS, SearchConfig, check_coarse
from pulse_audit.search.engine import BatchSearch, ExtraLoss, Iterate, Observer, SearchResult
from pulse_audit.search.sphere import Start, draw_start
from pulse_audit.types import Generator, InputError, is_generator


class Pulse:
    """PULSE on one generator, with one of the downscaling operators by name.

    Parameters
    ----------
    generator : Generator, style network or decoder
        Moved to ``device`` and ``dtype``; what is no `Generator` yet goes through `as_generator`.
    scale : int
        Downscaling factor: the generator's resolution over the input's.
    search : str or SearchConfig
        ``official`` (100 steps, eps 2e-3), ``paper`` (eps 1e-3), ``fast`` (official, but each image
        stops at its first feasible iterate), or settings of your own.
    kernel : str
        The operator DS: ``pulse``, ``bicubic``, ``lanczos``, ``bilinear``, ``area``, ``nearest``.
    device : torch.device or str
        Where to search.
    dtype : torch.dtype
        Type of the generator's arithmetic; latents are float64 with float64, else float32.
    batch_size : int
        Images searched at once. It does not enter the result beyond rounding.

    Raises
    ------
    InputError
        If the scale does not fit the generator, or a name is unknown.
    """

    def __init__(
        self,
        generator: Generator | StyleNetwork,
        scale: int = 8,
        *,
        search: str | SearchConfig = "official",
        kernel: str = "pulse",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
    ) -> None:
        adapted = generator if is_generator(generator) else as_generator(generator)
        check_factor(adapted.card.resolution, scale, kernel)
        if isinstance(search, str):
            if search not in PRESETS:
                raise InputError(f'search "{search}" is not known; use one of {", ".join(PRESETS)}')
            search = PRESETS[search]
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, it must be at least 1")
        self.generator = adapted.to(device, dtype)
        self.config, self.scale, self.batch_size = search, scale, batch_size
        side = adapted.card.resolution // scale
        check_coarse(search, side)
        # By the factor that the side of a picture asks for: coarse steps have smaller ones.
        self._downscale = lambda images: downscale(images, images.shape[-1] // side, kernel)
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
        extra_losses, frames_every, observe
            As of `BatchSearch`; the ``rows`` of an `Iterate` count in the order of the results.

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
        inputs = lr[None] if lr.dim() == 3 else lr
        if inputs.dim() != 4 or inputs.shape[1] != 3 or not inputs.is_floating_point():
            raise InputError(
                f"inputs have shape {tuple(lr.shape)} and type {lr.dtype}; wanted floating-point "
                "RGB, (3, h, w) or (n, 3, h, w), in [0, 1]"
            )
        if not bool(torch.isfinite(inputs).all()):
            raise InputError("an input holds NaN or infinity")
        # Room for the overshoot of a downscaling kernel, none for bytes.
        if inputs.numel() and (inputs.min() < -0.5 or inputs.max() > 1.5):
            low, high = float(inputs.min()), float(inputs.max())
            raise InputError(
                f"inputs lie in [{low:g}, {high:g}], wanted [0, 1]: divide bytes by 255"
            )
        resolution = self.generator.card.resolution
        size = resolution // self.scale
        if inputs.shape[-2:] != (size, size):
            raise InputError(
                f"inputs are {lr.shape[-1]} x {lr.shape[-2]} px, but the generator's "
                f"{resolution} px at scale {self.scale} need {size} x {size}"
            )
        if start is not None and len(start) != len(inputs):
            raise InputError(f"start holds {len(start)} searches for {len(inputs)} inputs")

        inputs = inputs.to(self._device, self._dtype)
        if start is None:
            # One search for every input and seed, the seeds of an input side by side.
            drawn = list(seeds) * len(inputs)
            inputs = inputs.repeat_interleave(len(seeds), dim=0)
        results: list[SearchResult] = []
        for first in range(0, len(inputs), self.batch_size):
            rows = slice(first, min(first + self.batch_size, len(inputs)))
            search = BatchSearch(
                self.generator,
                inputs[rows],
                draw_start(self.generator, drawn[rows], self.config)
                if start is None
                else start[rows],
                self._downscale,
                self.config,
                extra_losses=extra_losses,
                frames_every=frames_every,
                observe=None if observe is None else partial(_observe_batch, observe, first),
            )
            results += search.run()
        return results


def _observe_batch(observe: Observer, first: int, iterate: Iterate) -> None:
    """Hand an iterate on, with rows that count over all batches."""
    observe(replace(iterate, rows=iterate.rows + first))
