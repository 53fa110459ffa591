"""Draws of a diffusion model for a given input: ``dps:MODEL`` and ``ddnm:MODEL``.

A diffusion model is a network that sees an image in noise of a known level and says what the noise
is. From pure noise it draws an image of its prior, one level after the other (Ho et al. 2020,
algorithm 2). Two methods bend these draws toward an input y, a matrix A being DS:

- DPS (Chung et al., ICLR 2023, algorithm 1): after every step the image moves down the gradient of
  ``|| y - A x0(x_t) ||``, where x0(x_t) is what the network takes the image to be. The norm is
  over one image; the public code takes it over the batch, where a draw depends on its batch mates.
- DDNM (Wang et al., ICLR 2023, algorithm 1): at every step what A sees of x0 is replaced by the
  input, ``x0 + A^+ (y - A x0)``.

Neither is a draw of the posterior: how far they are from it where it is known, by number of steps
and size of a step, is in ``benchmarks/results/diffusion.md``.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from pulse_audit.frames import WHOLE, Frame
from pulse_audit.types import Degradation, GeneratorCard, InputError, Request, Status, Upsampled
from pulse_audit.upsamplers.pseudo_inverse import SeparableOperator

#: The noisy images (n, 3, R, R) and their level (n,), from 0, to the network's answer: (n, 3, R, R)
#: or, with a variance, (n, 6, R, R). Images are in [-1, 1] here, without noise.
Network = Callable[[Tensor, Tensor], Tensor]
#: Cuts pictures (n, 3, R, R) to a frame, (n, 3, size, size), differentiable.
Cut = Callable[[Tensor, Frame, int], Tensor]
Prediction = Literal["epsilon", "v_prediction", "sample"]
Variance = Literal["fixed_small", "fixed_large", "learned_range"]

#: Length of a step of DPS in the public code's convention, where the norm is not squared.
STEP_SIZE = 0.3
#: Pixels that are drawn at once, by device: a constant, because batches enter results by rounding.
#: A network of 256 px keeps some 3 GB an image for its gradient.
PIXELS = {"cpu": 2**16, "cuda": 2**18}


@dataclass(frozen=True)
class Schedule:
    """The noise levels of a diffusion model, and what its network says at each.

    Attributes
    ----------
    signal : Tensor, (T,)
        float64, falling: the share of the image in the variance at level t, the product of
        (1 - beta) up to t.
    prediction : {"epsilon", "v_prediction", "sample"}
        The noise, ``sqrt(signal) noise - sqrt(1 - signal) image`` or the image.
    variance : {"fixed_small", "fixed_large", "learned_range"}
        Of a step's noise: that of the level below given the image, beta, or between the two as
        the network says (Nichol and Dhariwal 2021, equation 15).
    clip : float or None
        Every x0 is kept within [-clip, clip].
    """

    signal: Tensor
    prediction: Prediction = "epsilon"
    variance: Variance = "fixed_small"
    clip: float | None = 1.0

    def levels(self, steps: int | None = None) -> list[int]:
        """Return ``steps`` levels, evenly spaced from the last to 0; None: all of them.

        Raises
        ------
        InputError
            If there are fewer levels than that.
        """
        count = len(self.signal)
        steps = count if steps is None else steps
        if not 2 <= steps <= count:
            raise InputError(
                f"{steps} diffusion steps: the model has {count} noise levels; choose 2 to {count}"
            )
        return [round(i * (count - 1) / (steps - 1)) for i in reversed(range(steps))]

    def image(self, level: int, noisy: Tensor, answer: Tensor) -> Tensor:
        """Return x0, the image as the network sees it in noise at a level, (n, 3, R, R)."""
        signal = float(self.signal[level])
        root, noise = signal**0.5, (1 - signal) ** 0.5
        if self.prediction == "epsilon":
            found = (noisy - noise * answer) / root
        elif self.prediction == "v_prediction":
            found = root * noisy - noise * answer
        else:
            found = answer
        return found if self.clip is None else torch.clamp(found, -self.clip, self.clip)

    def step(
        self, level: int, below: int | None, noisy: Tensor, image: Tensor, spread: Tensor | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return mean and standard deviation of the next noisy image, given x0.

        Parameters
        ----------
        level, below : int
            Of this step and the next; None: the next is the image itself, without noise.
        noisy, image : Tensor, (n, 3, R, R)
        spread : Tensor or None
            Of ``learned_range``: the network's second answer, -1 for the smaller variance.
        """
        signal = float(self.signal[level])
        above = 1.0 if below is None else float(self.signal[below])
        # Variance that this step adds on the way up, where several levels are taken as one.
        beta = 1 - signal / above
        mean = (above**0.5 * beta / (1 - signal)) * image + (
            (1 - beta) ** 0.5 * (1 - above) / (1 - signal)
        ) * noisy
        if below is None:
            return mean, 0.0
        small = beta * (1 - above) / (1 - signal)
        if self.variance == "fixed_small":
            return mean, small**0.5
        if self.variance == "fixed_large":
            return mean, beta**0.5
        assert spread is not None
        share = (spread + 1) / 2
        return mean, beta ** (share / 2) * small ** ((1 - share) / 2)


def draws(
    network: Network,
    schedule: Schedule,
    lr: Tensor,
    noise: Iterator[Tensor],
    downscale: Callable[[Tensor], Tensor],
    *,
    steps: int | None = None,
    step_size: float | None = STEP_SIZE,
    inverse: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Draw one image for each input: DPS, or DDNM where a pseudo-inverse is given.

    Parameters
    ----------
    network : callable
        See `Network`.
    schedule : Schedule
    lr : Tensor, (n, 3, r, r)
        The inputs, in [-1, 1].
    noise : iterator of Tensor
        Standard normal (n, 3, R, R), one for the start and one for every step but the last.
    downscale : callable
        A: (n, 3, R, R) to (n, 3, r, r), differentiable.
    steps : int, optional
        See `Schedule.levels`.
    step_size : float or None
        Of DPS, where the norm is not squared: twice the paper's. None draws from the prior.
    inverse : callable, optional
        A^+: (n, 3, r, r) to (n, 3, R, R). No gradient is taken then.

    Returns
    -------
    Tensor, (n, 3, R, R)
        Nominally in [-1, 1], not clamped.
    """
    levels = schedule.levels(steps)
    guided = inverse is None and step_size is not None
    noisy = next(noise)
    for level, below in zip(levels, [*levels[1:], None], strict=True):
        with torch.set_grad_enabled(guided):
            noisy = noisy.detach().requires_grad_(guided)
            # The network's answer, and what it takes the image to be.
            at = torch.full((len(noisy),), level, device=noisy.device)
            answer = network(noisy, at)
            answer, spread = answer[:, :3], answer[:, 3:]
            image = schedule.image(level, noisy, answer)
            gradient: Tensor | float = 0.0
            if guided:
                # One norm an image: the gradient of their sum is that of each.
                residual = (lr - downscale(image)).flatten(1).norm(dim=1)
                gradient = torch.autograd.grad(residual.sum(), noisy)[0]
        with torch.no_grad():
            if inverse is not None:
                image = image + inverse(lr - downscale(image))
            # An ancestral step, then one down the gradient.
            mean, deviation = schedule.step(level, below, noisy, image, spread)
            if below is not None:
                mean = mean + deviation * next(noise)
            noisy = mean - (step_size or 0.0) * gradient
    return noisy.detach()


def seeded_noise(seeds: Sequence[int], side: int, like: Tensor) -> Iterator[Tensor]:
    """Yield standard normal (n, 3, side, side), every image's from its own seed.

    Drawn on the CPU in float32, so that neither batch mates nor the device change it.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    while True:
        yield torch.stack([torch.randn(3, side, side, generator=g) for g in generators]).to(like)


@dataclass(frozen=True)
class DiffusionModel:
    """A network with its schedule, and what is known of it."""

    network: Network
    schedule: Schedule
    card: GeneratorCard


class DiffusionUpsampler:
    """Answers requests by DPS or DDNM on one diffusion model.

    Images have the model's own size; the factor is that size over the input's. Feasibility is
    measured and not promised: an output is feasible if it downscales to its input within the
    run's eps.

    Parameters
    ----------
    model : DiffusionModel
        On the device of the requests' images.
    method : {"dps", "ddnm"}
    cut : callable
        See `Cut`; `pulse_audit.degrade.resample.cut_to_frame`.
    name : str, optional
    steps : int, optional
        Noise levels that are visited; default: all.
    step_size : float
        Of DPS; see `draws`.

    Raises
    ------
    InputError
        If the model has fewer levels than steps.
    """

    promises_feasibility = False

    def __init__(
        self,
        model: DiffusionModel,
        method: Literal["dps", "ddnm"],
        cut: Cut,
        *,
        name: str | None = None,
        steps: int | None = None,
        step_size: float = STEP_SIZE,
    ) -> None:
        self.model, self.method, self.step_size, self._cut = model, method, step_size, cut
        self.steps = len(model.schedule.levels(steps))
        self.name = name or f"{method}:{model.card.name}"
        self.resolution: int | None = model.card.resolution
        self.crop = model.card.crop
        #: The part of the model's pictures that is shown.
        self.frame = WHOLE

    @property
    def card(self) -> GeneratorCard:
        """What is known of the model, as far as it is shown; see `GeneratorCard`."""
        shown = None if self.frame == WHOLE else self.frame
        assert self.resolution is not None
        return replace(self.model.card, resolution=self.resolution, crop=self.crop, frame=shown)

    @property
    def whole(self) -> DiffusionModel:
        """The model itself, as a generator that is seen through a frame has one."""
        return self.model

    @property
    def caveats(self) -> tuple[str, ...]:
        """Sentences a report on this arm has to carry."""
        levels = len(self.model.schedule.signal)
        fewer = f", {self.steps} of the model's {levels}" if self.steps < levels else ""
        if self.method == "ddnm":
            return (
                f"DDNM in {self.steps} steps{fewer}: outputs downscale to the input up to "
                "clamping, noise in it included; their other part is no draw of the posterior",
            )
        return (
            f"DPS in {self.steps} steps{fewer}, step size {self.step_size:g}: an approximation "
            "of the posterior that depends on both",
        )

    def framed(self, frame: Frame, resolution: int, crop: str) -> DiffusionUpsampler:
        """Return the same method on the pictures within a frame, before DS and every metric."""
        arm = copy.copy(self)
        arm.frame = frame.seen_within(self.frame)
        arm.resolution, arm.crop = resolution, crop
        return arm

    def for_frame(self, frame: Frame | None) -> DiffusionUpsampler:
        """Return the arm for the requests with a frame; see `Request`.

        A model of no known crop takes every photo as it is.
        """
        if frame is None or self.crop == "as-is" or self.resolution is None:
            return self
        return self.framed(frame, self.resolution, self.crop)

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Answer every request, in order; each is drawn from its own seed.

        Raises
        ------
        InputError
            If the side of an input does not divide the arm's resolution, or a DS is none that
            DDNM can take.
        """
        places: dict[Frame | None, list[int]] = {}
        for i, request in enumerate(requests):
            places.setdefault(request.frame, []).append(i)
        answers: dict[int, Upsampled] = {}
        for frame, of_frame in places.items():
            arm = self.for_frame(frame)
            pixels = PIXELS.get(requests[of_frame[0]].lr.device.type, PIXELS["cpu"])
            most = max(1, pixels // self.model.card.resolution**2)
            for first in range(0, len(of_frame), most):
                batch = of_frame[first : first + most]
                found = arm._draw([requests[i] for i in batch], degradation)
                answers |= zip(batch, found, strict=True)
        return [answers[i] for i in range(len(requests))]

    def _draw(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Answer requests of one frame as one batch."""
        started = time.perf_counter()
        lr = torch.stack([request.lr for request in requests])
        (height, width), resolution = lr.shape[-2:], self.resolution or 0
        if height != width or resolution % width:
            raise InputError(
                f"{self.name}: inputs of {width} x {height} px; the side has to divide the "
                f"model's {resolution} px"
            )

        def shown(images: Tensor) -> Tensor:
            return self._cut(images, self.frame, resolution)

        def downscale(images: Tensor) -> Tensor:
            return degradation.downscale(shown(images), scale=resolution // width)

        # DS of the pictures within the frame, and its pseudo-inverse.
        side, inverse = self.model.card.resolution, None
        if self.method == "ddnm":
            inverse = SeparableOperator.of(downscale, side, lr.device).inverse
        # Kernels sum to 1, so DS commutes with the change from [0, 1] to [-1, 1].
        drawn = draws(
            self.model.network,
            self.model.schedule,
            2 * lr - 1,
            seeded_noise([request.seed for request in requests], side, lr),
            downscale,
            steps=self.steps,
            step_size=self.step_size,
            inverse=inverse,
        )
        images = shown((drawn + 1) / 2).clamp(0, 1)
        small = degradation.downscale(images, scale=resolution // width)
        errors = (small - lr).double().square().mean(dim=(1, 2, 3))
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            Upsampled(image, float(error), None, self.steps, seconds, Status.OK)
            for image, error in zip(images, errors, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Return the model's card, its schedule and the settings, as plain JSON values."""
        schedule = self.model.schedule
        return {
            "kind": self.method,
            "generator": self.card.as_dict(),
            "levels": len(schedule.signal),
            "prediction": schedule.prediction,
            "variance": schedule.variance,
            "clip": schedule.clip,
            "steps": self.steps,
            **({"step_size": self.step_size} if self.method == "dps" else {}),
            "caveats": list(self.caveats),
        }
