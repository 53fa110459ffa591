"""The whole path from a face to the low-resolution input."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pulse_audit.conditions import Condition, Corruption, parse_condition
from pulse_audit.degrade.corrupt import CORRUPTIONS
from pulse_audit.degrade.resample import KERNELS, check_kernel, downscale
from pulse_audit.seeding import fingerprint
from pulse_audit.types import InputError


@dataclass
class DegradationModel:
    """HR -> motion blur -> downscaling -> noise and JPEG -> clamp to [0, 1].

    The order is that of the robustness experiments of Menon et al. 2020. Motion blur's length is
    in pixels of the run's resolution, or in per cent of the side: the paper's 100 pixels at 1024
    are 6 at 64, or 9.8 %.

    Parameters
    ----------
    condition : str
        ``clean | gaussian:SIGMA | saltpepper:P | motion:LENGTH | jpeg:Q``, or several joined by
        ``+``, applied in the order written.
    scale : int
        Downscaling factor.
    kernel : str
        A name of `resample.KERNELS`.

    Raises
    ------
    InputError
        If the condition, the scale or the kernel is unknown or out of range.
    """

    condition: str
    scale: int
    kernel: str = "pulse"
    _parsed: Condition = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check everything that does not depend on an image."""
        self._parsed = parse_condition(self.condition)
        check_kernel(self.kernel)
        if self.scale < 1:
            raise InputError(f"scale {self.scale}: must be a positive whole number")

    def downscale(self, images: Tensor, scale: int | None = None) -> Tensor:
        """Apply the operator DS that the search inverts: linear, without noise, not clamped.

        Maps (n, 3, H, W) to (n, 3, H / scale, W / scale), by default at the degradation's own
        scale; generators of another size need another.

        Raises
        ------
        InputError
            If the images cannot be downscaled by the factor.
        """
        return downscale(images, self.scale if scale is None else scale, self.kernel)

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Degrade (n, 3, H, W) to (n, 3, H / scale, W / scale), both in [0, 1].

        There is one seed per image; an image's noise depends on nothing else.

        Raises
        ------
        InputError
            If the images cannot be downscaled by the factor, or are smaller than the blur.
        """
        if len(seeds) != len(images):
            raise ValueError(f"{len(images)} images need as many seeds, not {len(seeds)}")
        if not self._parsed.steps:
            return self.downscale(images).clamp(0, 1)
        # A corruption by itself has the face's own seed, several have one each.
        alone, numbered = len(self._parsed.steps) == 1, itertools.count()

        def corrupt(images: Tensor, step: Corruption) -> Tensor:
            place = next(numbered)
            own = list(seeds) if alone else [fingerprint(seed, place) for seed in seeds]
            return CORRUPTIONS[step.kind.name](images, step.amount(images.shape[-1]), own)

        for step in self._parsed.before:
            images = corrupt(images, step)
        # Each corruption is that of an image, so it starts from values that an image can hold.
        small = self.downscale(images).clamp(0, 1)
        for step in self._parsed.after:
            small = corrupt(small, step).clamp(0, 1)
        return small

    def describe(self) -> str:
        """Say in one sentence what is done to a face, in order."""
        before, after = (
            [step.describe() for step in steps]
            for steps in (self._parsed.before, self._parsed.after)
        )
        text = ", then ".join(
            [*before, f"{KERNELS[self.kernel]} by a factor of {self.scale}", *after]
        )
        return f"{text[0].upper()}{text[1:]}."
