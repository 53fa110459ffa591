"""Where searches start, chosen by the apparent group that a start shows: two remedies.

PULSE starts each search at a draw of its prior, and so at the groups that this prior shows most
often. Here a bank of such draws is classified once by an attribute model, and a search starts at
one of those that show a given group: a draw of the prior, given the group. With ``strata`` the
draws of a face take the groups in turn (stratified sampling with equal allocation); with
``balanced`` the group of every draw is drawn uniformly, which weights the prior's draws by
1 / (K share of their group), K the number of groups (importance sampling), and the mean of the
prior is moved by the same weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.generators.gaussianise import SLOPE
from pulse_audit.generators.searchable import StyleGenerator, drawn_from
from pulse_audit.search.bank import bank_folder, kept_rows
from pulse_audit.seeding import fingerprint
from pulse_audit.types import Generator, InputError, Progress, Request

#: Samples of a bank, and how many must show a group for it to be a stratum.
BANK, LEAST = 5_000, 5
#: Samples of one file of the cache.
PART = 500


@dataclass(frozen=True)
class StartBank:
    """Classified draws of a prior, and the choice among them.

    Parameters
    ----------
    remedy : {"strata", "balanced"}
    seeds_of : mapping of str to sequence of int
        Seeds of `draw_start` by the apparent group that the start shows, for every group of the
        vocabulary; those with fewer than ``LEAST`` are no strata.
    source : mapping
        What the bank was made with, as plain JSON values.

    Raises
    ------
    InputError
        If fewer than two groups are strata.
    """

    remedy: str
    seeds_of: Mapping[str, Sequence[int]]
    source: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Check that there is something to spread starts over."""
        if len(self.strata) < 2:
            shown = ", ".join(self.strata) or "none"
            raise InputError(
                f"@{self.remedy}: the prior shows fewer than two apparent groups ({shown}), so "
                "there is nothing to spread starts over"
            )

    @property
    def strata(self) -> list[str]:
        """The groups that starts are spread over."""
        return [group for group, seeds in self.seeds_of.items() if len(seeds) >= LEAST]

    def group(self, request: Request) -> str:
        """Return the apparent group at which the search of a request starts.

        With ``strata`` that of draw k of a face is stratum k + an offset of the face, modulo their
        number K: K draws of a face hit every stratum once, and over faces each stratum is as
        frequent as any other whatever the number of draws.
        """
        if self.remedy == "strata":
            place = fingerprint("stratum", request.face_id) + request.draw
        else:
            place = fingerprint(request.seed, "stratum")
        return self.strata[place % len(self.strata)]

    def seeds(self, requests: Sequence[Request]) -> list[int]:
        """Return the seed of each request's start: one of its group, chosen by its own seed."""
        chosen = []
        for request in requests:
            of_group = self.seeds_of[self.group(request)]
            chosen.append(of_group[fingerprint(request.seed, "start") % len(of_group)])
        return chosen

    @property
    def caveats(self) -> tuple[str, ...]:
        """Sentences that a report on such a search has to carry."""
        model, size = self.source["attribute_model"], self.source["samples"]
        spread = (
            "the draws of a face take the groups in turn"
            if self.remedy == "strata"
            else "the group of every draw is drawn uniformly, and the prior's mean is the mean of "
            "the groups' means"
        )
        notes = [
            f"starts are spread evenly over {len(self.strata)} apparent groups of {size:,} samples "
            f"of the prior, as {model} sees them: {spread}; what {model} says of the outputs is "
            "not independent of the starts"
        ]
        missing = [
            f"{group} ({len(seeds)})"
            for group, seeds in self.seeds_of.items()
            if group not in self.strata
        ]
        if missing:
            notes.append(
                f"no search starts at {', '.join(missing)}: fewer than {LEAST} samples show them"
            )
        return tuple(notes)

    def describe(self) -> dict[str, Any]:
        """Return the remedy, what it was made with and the samples of every group."""
        counts = {group: len(seeds) for group, seeds in self.seeds_of.items()}
        return {"remedy": self.remedy, **self.source, "groups": counts, "least": LEAST}


def classified(
    render: Callable[[Sequence[int]], Tensor],
    classify: Callable[[Tensor], Tensor],
    seeds: Sequence[int],
    model: str,
    progress: Progress = lambda done, total, restored: None,
) -> Tensor:
    """Return the class of every sample of a prior, (n,) int64, from the cache where it is there.

    Parameters
    ----------
    render : callable
        Seeds to images (n, 3, R, R); what it gives for the first four is part of the cache's key.
    classify : callable
        Images to classes (n,).
    seeds : sequence of int
    model : str
        What identifies ``classify``, such as the SHA-256 of its weights.
    progress : callable, optional
        Called with the samples classified; finished parts survive an interruption.
    """
    first = render(seeds[:4])
    folder = bank_folder("starts", first, model, list(seeds))

    def classes(indices: range) -> Tensor:
        return classify(render([seeds[index] for index in indices]))

    like, n = torch.zeros(1, dtype=torch.int64), len(seeds)
    return kept_rows(folder, classes, like, n, PART, first.shape[-1], progress, exist=n)


def reweighted(generator: Generator, seeds: Sequence[int], classes: Tensor) -> Generator:
    """Return a generator whose prior has the mean of the mean latents of the classes.

    Each sample has the weight 1 / (K n_c), n_c the samples of its class c and K the number of
    classes: importance weights toward equal shares. Deviations and covariance stay.

    Parameters
    ----------
    generator : Generator
        With its mapping network; not changed.
    seeds : sequence of int
        Of samples of `prior_images`.
    classes : Tensor
        (n,) their classes; those with fewer than ``LEAST`` samples count for nothing.

    Raises
    ------
    InputError
        If the generator has no mapping network, or classes of its own.
    """
    style = generator.whole if isinstance(generator, FramedGenerator) else generator
    if not isinstance(style, StyleGenerator) or drawn_from(style) != "mapping":
        raise InputError(
            f"{generator.card.name}@balanced: the mean of a prior is made from the mapping network "
            "of one without classes, which this generator lacks; @strata does without"
        )
    # z of every sample as `prior_images` draws it, (n, z_dim); w before its last leaky ReLU.
    device, size = style.fit.mean.device, style.network.z_dim
    sources = (torch.Generator().manual_seed(seed) for seed in seeds)
    z = torch.stack([torch.randn(size, generator=source) for source in sources])
    with torch.no_grad():
        before = F.leaky_relu(style.mapping(z.to(device))[:, 0], 1 / SLOPE).double()
    counts = torch.bincount(classes).tolist()
    shown = [number for number, count in enumerate(counts) if count >= LEAST]
    means = [before[(classes == number).to(device)].mean(0) for number in shown]
    moved = copy.copy(style)
    moved.fit = replace(style.fit, mean=torch.stack(means).mean(0).to(style.fit.mean))
    if not isinstance(generator, FramedGenerator):
        return moved
    framed = copy.copy(generator)
    framed.whole = moved
    return framed
