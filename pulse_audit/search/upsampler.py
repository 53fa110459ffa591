"""PULSE as an arm of an audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pulse_audit.search.config import SearchConfig
from pulse_audit.search.pulse import Found, Pulse
from pulse_audit.types import Degradation, Generator, InputError, Request, Upsampled


class PulseUpsampler:
    """Searches one generator for every request.

    Parameters
    ----------
    generator : Generator
        Already on its device.
    config : SearchConfig
    name : str, optional
        Default ``pulse:<generator's name>``.
    """

    promises_feasibility = True

    def __init__(self, generator: Generator, config: SearchConfig, name: str | None = None) -> None:
        self.generator, self.config = generator, config
        self.name = name or f"pulse:{generator.card.name}"
        self.resolution: int | None = generator.card.resolution
        self.crop = generator.card.crop
        self.caveats: tuple[str, ...] = tuple(getattr(generator, "caveats", ()))

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Search at the generator's own size; the factor is that size over the input's.

        Raises
        ------
        InputError
            If the input's size does not divide the generator's.
        """
        lr = torch.stack([request.lr for request in requests])
        size = self.generator.card.resolution
        factor, rest = divmod(size, lr.shape[-1])
        if rest or not factor:
            raise InputError(f"{self.name}: {lr.shape[-1]} px inputs do not divide its {size} px")
        search = Pulse(
            self.generator,
            self.config,
            downscale=lambda images: degradation.downscale(images, factor),
        )
        return [_answer(found) for found in search.search(lr, [r.seed for r in requests])]

    def describe(self) -> dict[str, Any]:
        """Return the generator's card and the search's settings for the manifest."""
        card = self.generator.card.as_dict()
        return {"kind": "pulse", "generator": card, "search": asdict(self.config)}


def _answer(found: Found) -> Upsampled:
    return Upsampled(
        image=found.image,
        downscale_error=found.downscale_error,
        feasible=found.feasible,
        steps=found.steps,
        seconds=found.seconds,
        status=found.status,
        reason=found.reason,
    )
