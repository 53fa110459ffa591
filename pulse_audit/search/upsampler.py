"""PULSE as an arm of the audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pulse_audit.degrade.resample import cut_to_frame
from pulse_audit.frames import Frame
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.search.config import PRESETS, SearchConfig, check_coarse
from pulse_audit.search.engine import BatchSearch, Observer
from pulse_audit.search.memory import images_at_once
from pulse_audit.search.sphere import Start, draw_start
from pulse_audit.search.starts import StartBank
from pulse_audit.types import Degradation, Generator, InputError, Request, Upsampled, smaller


class PulseUpsampler:
    """Answers requests by a search of one generator, in the batches of `batches`.

    Images come out at the generator's own resolution; the factor of the search is that resolution
    over the input's, which need not be the run's scale.

    Parameters
    ----------
    generator : Generator
        On the device of the requests' images.
    config : SearchConfig
        Settings; default: the official ones.
    name : str, optional
        Name of the arm; default ``pulse:<generator>``.
    observe : callable, optional
        Called with every `Iterate` of every batch.
    frames_every : int, optional
        As of `BatchSearch`.
    starts : StartBank, optional
        Chooses where each search starts; default: at a draw of the prior, as in PULSE.

    Attributes
    ----------
    crop : str
        The crop of the faces the generator was trained on.
    caveats : tuple of str
        Sentences a report on this arm has to carry.
    at_once : int or None
        Most requests that are searched at once since the device's memory ran out; None: it never
        did.
    """

    promises_feasibility = True

    def __init__(
        self,
        generator: Generator,
        config: SearchConfig = PRESETS["official"],
        *,
        name: str | None = None,
        observe: Observer | None = None,
        frames_every: int | None = None,
        starts: StartBank | None = None,
    ) -> None:
        self.generator, self.config, self._observe = generator, config, observe
        self._frames_every, self.starts = frames_every, starts
        self.name = name or f"pulse:{generator.card.name}"
        self.resolution: int | None = generator.card.resolution
        self.crop = generator.card.crop
        self.at_once: int | None = None
        self.caveats: tuple[str, ...] = tuple(getattr(generator, "caveats", ()))
        if starts is not None:
            if config.vary == "noise":
                raise InputError(
                    f"{self.name}: its starts are spread over groups, and do not stay the same"
                )
            self.caveats += starts.caveats
        if config.coarse_steps:
            # A generator without smaller pictures is refused here, before any search.
            side = smaller(generator, config.coarse_resolution).card.resolution
            self.caveats += (
                f"coarse-to-fine: the first {config.coarse_steps} of {config.steps} steps are on "
                f"pictures of {side} px, the others, and every feasibility, on whole ones",
            )

    def framed(self, frame: Frame, resolution: int, crop: str) -> PulseUpsampler:
        """Return the same search of the pictures within a frame; see `FramedGenerator`."""
        generator = FramedGenerator(self.generator, frame, resolution, crop, cut_to_frame)
        return PulseUpsampler(
            generator,
            self.config,
            name=self.name,
            observe=self._observe,
            frames_every=self._frames_every,
            starts=self.starts,
        )

    def for_frame(self, frame: Frame | None) -> PulseUpsampler:
        """Return the search for the requests with a frame; see `Request`.

        A generator of no known crop takes every photo as it is.
        """
        if frame is None or self.crop == "as-is":
            return self
        card = self.generator.card
        return self.framed(frame, card.resolution, card.crop)

    def batches(self, requests: Sequence[Request]) -> Iterator[tuple[PulseUpsampler, list[int]]]:
        """Yield the places of requests that are searched at once, with the search `for_frame`.

        They have one frame; on a CPU there are no more of them than `images_at_once` allows, and
        nowhere more than ``at_once``.
        """
        places: dict[Frame | None, list[int]] = {}
        for i, request in enumerate(requests):
            places.setdefault(request.frame, []).append(i)
        fit = images_at_once(self.generator, requests[0].lr.device) if requests else None
        most = min(n for n in (fit, self.at_once, len(requests)) if n is not None)
        for frame, of_frame in places.items():
            search = self.for_frame(frame)
            for first in range(0, len(of_frame), most):
                yield search, of_frame[first : first + most]

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Answer every request, in order; each is searched from its own seed.

        Where the device's memory does not hold a batch, half as many are searched at once, in this
        call and in later ones (``at_once``): the same searches, rounded otherwise.

        Raises
        ------
        InputError
            If the inputs differ in size, or their side does not divide the generator's.
        torch.OutOfMemoryError
            If the memory does not hold a single search.
        """
        answers: dict[int, Upsampled] = {}
        while waiting := [i for i in range(len(requests)) if i not in answers]:
            places = waiting
            try:
                for search, chosen in self.batches([requests[i] for i in waiting]):
                    places = [waiting[i] for i in chosen]
                    found = search._search([requests[i] for i in places], degradation)
                    answers |= zip(places, found, strict=True)
            except torch.OutOfMemoryError:
                if len(places) == 1:
                    raise
                self.at_once = len(places) // 2
        return [answers[i] for i in range(len(requests))]

    def _search(self, requests: Sequence[Request], degradation: Degradation) -> Sequence[Upsampled]:
        """Answer requests of one frame as one batch."""
        sizes = {tuple(request.lr.shape) for request in requests}
        if len(sizes) > 1:
            raise InputError(f"inputs of one batch differ in size: {sorted(sizes)}")
        lr = torch.stack([request.lr for request in requests])
        height, width = lr.shape[-2:]
        resolution = self.generator.card.resolution
        if height != width or resolution % width:
            raise InputError(
                f"{self.name}: inputs of {width} x {height} px; the side has to divide the "
                f"generator's {resolution} px"
            )
        check_coarse(self.config, width)
        search = BatchSearch(
            self.generator,
            lr,
            self.start(requests),
            lambda images: degradation.downscale(images, scale=images.shape[-1] // width),
            self.config,
            observe=self._observe,
            frames_every=self._frames_every,
        )
        return search.run()

    def start(self, requests: Sequence[Request]) -> Start:
        """Draw where the searches of requests begin; see ``vary`` of `SearchConfig`."""
        if self.starts is not None:
            return draw_start(self.generator, self.starts.seeds(requests), self.config)
        seeds, latent_seeds = [request.seed for request in requests], None
        if self.config.vary == "noise":
            firsts = [request.first_seed for request in requests]
            pairs = zip(firsts, seeds, strict=True)
            latent_seeds = [seed if first is None else first for first, seed in pairs]
        return draw_start(self.generator, seeds, self.config, latent_seeds)

    def describe(self) -> dict[str, Any]:
        """Return the generator's card, the settings and the caveats, as plain JSON values."""
        return {
            "kind": "pulse",
            "generator": self.generator.card.as_dict(),
            "search": self.config.as_dict(),
            **({} if self.starts is None else {"starts": self.starts.describe()}),
            "caveats": list(self.caveats),
        }
