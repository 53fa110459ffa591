"""Draws of a generator's posterior by rejection: the reference for a search at a coarse eps.

Of a bank of samples of a prior, those whose downscaled image lies within eps of an input (MSE) are
independent draws of that prior given that they do: rejection sampling, without a gradient and
without an approximation (Tavare et al. 1997, Genetics 145; eps is the uniform kernel of approximate
Bayesian computation). What a search at the same eps shows more or less often than these draws is
the search's doing. The price is eps: only at a coarse one does a bank hold samples for most inputs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pulse_audit.degrade.resample import cut_to_frame
from pulse_audit.frames import Frame
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.generators.searchable import drawn_from, prior_images
from pulse_audit.search.bank import bank_folder, kept_rows
from pulse_audit.search.config import PRESETS, SearchConfig
from pulse_audit.search.sphere import draw_start
from pulse_audit.seeding import fingerprint
from pulse_audit.types import (
    Degradation,
    Generator,
    InputError,
    Progress,
    Request,
    Status,
    Upsampled,
)

#: Samples of a bank: two CPU minutes for a generator of 32 px.
BANK = 60_000
#: An input with fewer samples within eps than this has no answer.
LEAST = 20
#: Samples of one file of the cache.
PART = 2_000
#: ``own``: z through the generator's mapping; ``pulse``: where PULSE's searches start.
PRIORS = ("own", "pulse")


@torch.no_grad()
def start_images(
    generator: Generator, seeds: Sequence[int], config: SearchConfig, device: torch.device
) -> Tensor:
    """Render where searches start, (n, 3, R, R) in [0, 1]: samples of PULSE's own prior."""
    start = draw_start(generator, seeds, config).to(device, torch.float32)
    for layer, noise in enumerate(start.noise):
        if layer in config.silenced_layers():
            noise.zero_()
    latents = start.latents.expand(-1, generator.card.n_latents, -1)
    return generator.synthesize(latents, start.noise).clamp(0, 1).float()


class PosteriorBank:
    """Answers requests with draws of a generator's posterior, taken from a bank of samples.

    A request gets one of the samples within eps of its input, chosen uniformly by its seed from
    those that no earlier request of the call with the same input got: the draws of a face are
    independent. An input with fewer than ``LEAST`` of them, or fewer than it is asked for, is
    infeasible and has no image. The bank's own seeds are fixed, so runs share it; it is kept in the
    cache.

    Parameters
    ----------
    generator : Generator
        On the device of the requests' images.
    config : SearchConfig
        Its ``eps``; of the prior ``pulse`` also the noise and whether latents are tied.
    name : str
    prior : {"own", "pulse"}
    size : int
        Samples of the bank.
    """

    promises_feasibility = True

    def __init__(
        self,
        generator: Generator,
        config: SearchConfig = PRESETS["official"],
        *,
        name: str | None = None,
        prior: str = "own",
        size: int = BANK,
    ) -> None:
        if prior not in PRIORS:
            raise InputError(f'prior "{prior}" is not known; use one of {", ".join(PRIORS)}')
        self.generator, self.config, self.prior, self.size = generator, config, prior, size
        self.name = name or f"posterior:{generator.card.name}"
        self.resolution: int | None = generator.card.resolution
        self.crop = generator.card.crop
        self.caveats: tuple[str, ...] = (
            f"draws of a bank of {size:,} samples whose downscaled image is within eps "
            f"{config.eps:g} of the input: rejection sampling, exact at that eps; inputs with "
            f"fewer than {LEAST} of them are infeasible and have no image",
        )
        # Low-resolution images (size, 3 r r) of every side r that was asked for.
        self._banks: dict[int, Tensor] = {}

    def framed(self, frame: Frame, resolution: int, crop: str) -> PosteriorBank:
        """Return the bank of the pictures within a frame; see `FramedGenerator`."""
        generator = FramedGenerator(self.generator, frame, resolution, crop, cut_to_frame)
        return PosteriorBank(
            generator, self.config, name=self.name, prior=self.prior, size=self.size
        )

    def images(self, indices: Sequence[int], device: torch.device) -> Tensor:
        """Render samples of the bank, (n, 3, R, R) in [0, 1]."""
        seeds = [fingerprint("posterior bank", self.prior, index) for index in indices]
        if self.prior == "own":
            return prior_images(self.generator, seeds, device)
        return start_images(self.generator, seeds, self.config, device)

    def prepare(
        self,
        degradation: Degradation,
        side: int,
        device: torch.device,
        progress: Progress = lambda done, total, restored: None,
    ) -> Tensor:
        """Return the bank of a DS: float32 (size, 3 side side), made unless it is in the cache.

        ``progress`` is called with the samples rendered; finished parts survive an interruption.
        """
        if side in self._banks:
            return self._banks[side]
        factor = self.generator.card.resolution // side

        def small(indices: range) -> Tensor:
            """Downscaled samples (n, 3 side side)."""
            images = self.images(indices, device)
            return degradation.downscale(images, scale=factor).flatten(1)

        first, rendered = small(range(4)), self.generator.card.resolution
        folder = bank_folder("banks", first, self.prior, side)
        bank = kept_rows(folder, small, first, self.size, PART, rendered, progress)
        self._banks[side] = bank.to(device)
        return self._banks[side]

    def within(self, lr: Tensor, degradation: Degradation) -> tuple[Tensor, Tensor]:
        """Return the samples (k,) within eps of an input (3, r, r), and their errors (k,)."""
        bank = self.prepare(degradation, lr.shape[-1], lr.device)
        wanted = lr.flatten()
        errors = torch.cat(
            [
                (bank[first : first + 10 * PART] - wanted).square().mean(1)
                for first in range(0, len(bank), 10 * PART)
            ]
        )
        places = (errors <= self.config.eps).nonzero()[:, 0]
        return places, errors[places]

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Answer every request, in order; no two with the same input get the same sample."""
        answers = []
        # Of every input: how many ask for it, and the samples that are left, with their errors.
        keys = [request.lr.cpu().numpy().tobytes() for request in requests]
        asked, left = Counter(keys), dict[bytes, list[tuple[int, float]]]()
        reasons: dict[bytes, str] = {}
        for request, key in zip(requests, keys, strict=True):
            began = time.perf_counter()
            if request.frame is not None and self.crop != "as-is":
                reason = "photos show different parts of the crop, and a bank is of one"
                answers.append(Upsampled(None, None, False, 0, 0.0, Status.ERROR, reason))
                continue
            if key not in left:
                places, errors = self.within(request.lr, degradation)
                least, pairs = max(LEAST, asked[key]), zip(places, errors, strict=True)
                fits = len(places) >= least
                left[key] = [(int(place), float(error)) for place, error in pairs] if fits else []
                few = f"{len(places)} of {self.size} samples within eps, fewer than {least}"
                reasons[key] = few
            if not left[key]:
                seconds = time.perf_counter() - began
                answers.append(
                    Upsampled(None, None, False, 0, seconds, Status.INFEASIBLE, reasons[key])
                )
                continue
            chosen, error = left[key].pop(fingerprint(request.seed, "posterior") % len(left[key]))
            image = self.images([chosen], request.lr.device)[0]
            seconds = time.perf_counter() - began
            answers.append(Upsampled(image, error, True, 0, seconds, Status.OK))
        return answers

    def describe(self) -> dict[str, Any]:
        """Return the generator's card, the prior and the bank, as plain JSON values."""
        distribution = "search start" if self.prior == "pulse" else drawn_from(self.generator)
        return {
            "kind": "posterior",
            "generator": self.generator.card.as_dict(),
            "prior": distribution,
            **({"tied_latent": True} if self.prior == "pulse" and self.config.tied_latent else {}),
            "eps": self.config.eps,
            "bank": self.size,
            "least": LEAST,
            "caveats": list(self.caveats),
        }
