"""The settings of one search, the presets known by name, and PULSE's learning-rate schedules."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pulse_audit.names import parse_coarse
from pulse_audit.search.losses import parse_loss
from pulse_audit.sweeps import Point
from pulse_audit.types import InputError

#: For each schedule, corners (progress, factor) joined by straight lines.
SCHEDULES = {
    "fixed": ((0.0, 1.0), (1.0, 1.0)),
    "linear1cycle": ((0.0, 0.1), (0.5, 1.0), (1.0, 0.1)),
    "linear1cycledrop": ((0.0, 0.1), (0.45, 1.0), (0.9, 0.1), (1.0, 0.001)),
}

#: The settings that take one of several words.
CHOICES = {
    "optimizer": ("adam", "adamax", "sgd", "sgdm"),
    "schedule": tuple(SCHEDULES),
    "noise": ("zero", "fixed", "trainable"),
    "prior": ("sphere", "none", "nll"),
    "vary": ("start", "noise"),
}


@dataclass(frozen=True)
class SearchConfig:
    """Settings of the search; the defaults are those of the official PULSE.

    Raises
    ------
    InputError
        If a value is unknown or out of range.
    """

    #: Terms ``Lp`` and ``GEOCROSS`` with weights, see `parse_loss`.
    loss: str = "100*L2+0.05*GEOCROSS"
    #: An image is feasible when the MSE between its DS and the input is at most this, on the
    #: [0, 1] scale; also the floor of the pixel terms.
    eps: float = 2e-3
    #: Number of images rendered and judged; one update lies between two of them.
    steps: int = 100
    #: ``adam``, ``adamax``, ``sgd``, or ``sgdm`` with momentum 0.9.
    optimizer: str = "adam"
    #: Before the schedule's factor.
    learning_rate: float = 0.4
    #: ``linear1cycledrop``, ``linear1cycle`` or ``fixed``, see `learning_rate_factor`.
    schedule: str = "linear1cycledrop"
    #: The noise maps: ``zero``, ``fixed`` as drawn, or ``trainable``, which optimises the first
    #: ``trainable_noise_layers`` (coarsest first) and leaves the others as drawn.
    noise: str = "trainable"
    trainable_noise_layers: int = 5
    #: Layers whose noise is zero, numbers separated by dots; those a network lacks are ignored.
    bad_noise_layers: str = "17"
    #: Whether one latent vector serves all layers of an image.
    tied_latent: bool = False
    #: ``sphere`` keeps each vector and map at its initial norm, ``none`` leaves the norms free,
    #: ``nll`` leaves them free and adds ``nll_weight`` times ``-log p`` of what is optimised.
    prior: str = "sphere"
    #: With the default the term starts out about as large as ``0.05*GEOCROSS`` does for the 18
    #: vectors of a 1024 px StyleGAN.
    nll_weight: float = 1e-3
    #: Radius of the spheres of the latents over that of PULSE, the norm of what is drawn: the
    #: truncation trick in the space of the search.
    truncation: float = 1.0
    #: What differs between the draws of a face: the whole ``start``, or the ``noise`` maps alone,
    #: whose latents are those of its first draw.
    vary: str = "start"
    #: Whether an image leaves the search at its first feasible iterate.
    stop_at_feasibility: bool = False
    #: How many of the first steps render pictures of ``coarse_resolution`` px, of a generator that
    #: has smaller pictures (``at_resolution``). They are not judged and never returned.
    coarse_steps: int = 0
    coarse_resolution: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        parse_loss(self.loss)
        self.silenced_layers()
        for name, words in CHOICES.items():
            value = getattr(self, name)
            if value not in words:
                raise InputError(
                    f'search: {name} "{value}" is not known; use one of {", ".join(words)}'
                )
        # NaN compares as false, so it fails every check below.
        for name, lowest in (("steps", 1), ("trainable_noise_layers", 0), ("nll_weight", 0)):
            value = getattr(self, name)
            if not lowest <= value < math.inf:
                raise InputError(f"search: {name} is {value}, it must be at least {lowest}")
        if not 0 <= self.coarse_steps < self.steps or bool(self.coarse_steps) != bool(
            self.coarse_resolution
        ):
            raise InputError(
                f"search: {self.coarse_steps} coarse steps at {self.coarse_resolution} px; wanted "
                f"fewer than its {self.steps} steps, and a resolution with them"
            )
        for name in ("eps", "learning_rate", "truncation"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise InputError(f"search: {name} is {value}, it must be above 0")

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON values; those that came later only where they are set.

        Runs of an earlier release are resumed by equal values.
        """
        later = ("coarse_steps", "coarse_resolution", "truncation", "vary")
        usual = {field.name: field.default for field in fields(self) if field.name in later}
        return {k: v for k, v in asdict(self).items() if k not in usual or v != usual[k]}

    def silenced_layers(self) -> frozenset[int]:
        """Numbers of the layers in ``bad_noise_layers``."""
        try:
            return frozenset(int(part) for part in self.bad_noise_layers.split(".") if part)
        except ValueError:
            raise InputError(
                f'search: bad_noise_layers "{self.bad_noise_layers}" must be numbers separated by '
                "dots, such as 15.16.17"
            ) from None


PRESETS = {
    "official": SearchConfig(),
    "paper": SearchConfig(eps=1e-3),
    "fast": SearchConfig(stop_at_feasibility=True),
}


def preset(
    name: str, eps: float | None = None, tied: bool = False, coarse: str | None = None
) -> SearchConfig:
    """Return a preset, with another eps, tied latents or coarse steps where they are asked for.

    ``coarse`` is ``STEPS@RESOLUTION``, see `parse_coarse`, with fewer steps than the preset's.
    """
    found = replace(PRESETS[name], tied_latent=tied)
    if eps is not None:
        found = replace(found, eps=eps)
    if coarse is None:
        return found
    steps, resolution = parse_coarse(coarse)
    return replace(found, coarse_steps=steps, coarse_resolution=resolution)


def tuned(config: SearchConfig, point: Point) -> SearchConfig:
    """Return a search with the settings of a variant in a sweep; see `pulse_audit.sweeps`.

    Raises
    ------
    InputError
        If they do not fit the search, such as fewer steps than its coarse ones.
    """
    changes: dict[str, Any] = dict(point)
    prior, _, weight = str(changes.get("prior", config.prior)).partition(":")
    if weight:
        changes["nll_weight"] = float(weight)
    return replace(config, **{**changes, "prior": prior})


def check_coarse(config: SearchConfig, side: int) -> None:
    """Raise InputError unless coarse pictures can be downscaled to inputs of ``side`` px."""
    coarse = config.coarse_resolution
    if coarse % side:
        raise InputError(
            f"coarse steps at {coarse} px: no whole multiple of the inputs, which have {side} px"
        )


def learning_rate_factor(schedule: str, step: int, steps: int) -> float:
    """Factor on the learning rate at one update.

    Parameters
    ----------
    schedule : {"fixed", "linear1cycle", "linear1cycledrop"}
        ``linear1cycle`` rises from 0.1 to 1 at half way and falls back; ``linear1cycledrop``
        (PULSE's default) does so within the first 90 % and then falls towards 0.001.
    step : int
        Number of updates already made, 0 <= step <= steps.
    steps : int
        Length of the whole search, at least 1.

    Raises
    ------
    InputError
        If the schedule is unknown.
    """
    if schedule not in SCHEDULES:
        raise InputError(f'schedule "{schedule}" is not known; use one of {", ".join(SCHEDULES)}')
    progress, corners = step / steps, SCHEDULES[schedule]
    # Interpolate on the line between the two corners around the present progress.
    for (start, low), (end, high) in zip(corners, corners[1:], strict=False):
        if progress <= end:
            return low + (high - low) * (progress - start) / (end - start)
    return corners[-1][1]
