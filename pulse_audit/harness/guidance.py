"""Searches guided toward an apparent group, to ask whether the generator could have shown it.

The search of PULSE is run with one more term in its loss, the cross-entropy of an attribute model
for the group that is wanted. An image counts as shown only where it fits the input as every
answer of the arm has to, so what is found is an image that the arm might have given.

Where the first weight of the term finds nothing the next is tried, from the same start: what one
weight does not find, because it is too small to guide or too large to fit, another may
(benchmarks/guidance.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pulse_audit.search.config import SearchConfig
from pulse_audit.search.engine import BatchSearch, Downscale, Iterate
from pulse_audit.search.sphere import Start
from pulse_audit.types import Generator, InputError

#: Reads images (m, 3, R, R) in [0, 1]: probabilities (m, k) of each attribute, rows summing to 1.
Reader = Callable[[Tensor], Mapping[str, Tensor]]

#: An image is done when it is feasible and the wanted group has this probability.
ENOUGH = 0.8
#: Log-probabilities are floored here, so that a certain classifier still gives a finite loss.
LEAST_PROBABILITY = 1e-6
#: Weights of the cross-entropy (in nats) in PULSE's loss, in the order in which they are tried.
WEIGHTS = (1.0, 0.1, 10.0)


@dataclass(frozen=True)
class Guided:
    """What one guided search found.

    Attributes
    ----------
    image : Tensor or None
        (3, R, R) in [0, 1]: of the feasible iterates the one that shows the wanted group most
        clearly; where none is feasible, the one that fits the input best; None if no iterate was
        finite.
    feasible : bool
        Whether any iterate was.
    shown : bool
        Whether a feasible iterate was seen as the wanted group, in every guided attribute.
    downscale_error : float or None
        Of ``image``.
    steps : int
        Over all weights tried.
    weight : float
        With which it was found.
    """

    image: Tensor | None
    feasible: bool
    shown: bool
    downscale_error: float | None
    steps: int
    weight: float

    def or_better(self, other: Guided) -> Guided:
        """Return the better of two finds, with the steps of both."""
        better = max(self, other, key=lambda one: one._rank)
        return replace(better, steps=self.steps + other.steps)

    @property
    def _rank(self) -> tuple[bool, bool, float]:
        error = float("inf") if self.downscale_error is None else self.downscale_error
        return self.shown, self.feasible, -error


class Guidance:
    """One batch's guidance: the term in the loss, and the judge of every iterate.

    Parameters
    ----------
    reader : Reader
        Differentiable in the images.
    wanted : mapping of str to Tensor
        For each guided attribute the wanted class of every image, (n,) of int64.
    eps : float
        Largest downscale error of a feasible image.
    weight : float
        Of the term.

    Raises
    ------
    InputError
        By `term`, if the reader is not differentiable.
    """

    def __init__(
        self, reader: Reader, wanted: Mapping[str, Tensor], eps: float, weight: float
    ) -> None:
        self._reader, self._wanted, self._eps, self._weight = reader, wanted, eps, weight
        first = next(iter(wanted.values()))
        n = len(first)
        self._rows = torch.arange(n, device=first.device)
        self._margin = torch.full((n,), -torch.inf, device=first.device)
        self._error = torch.full((n,), torch.inf, device=first.device, dtype=torch.float64)
        self._feasible = torch.zeros(n, dtype=torch.bool, device=first.device)
        self._steps = torch.zeros(n, dtype=torch.int64, device=first.device)
        self._images: list[Tensor | None] = [None] * n
        self._seen: tuple[Tensor, Tensor] = (self._margin, self._margin)

    def term(self, images: Tensor, latents: Tensor) -> Tensor:
        """Weighted cross-entropy of the wanted group, (m,); see `BatchSearch.extra_losses`."""
        probabilities = self._reader(images.clamp(0, 1))
        log_p, margin, least = torch.zeros_like(images[:, 0, 0, 0]), None, None
        for attribute, classes in self._wanted.items():
            p = probabilities[attribute]
            if not p.requires_grad and images.requires_grad:
                raise InputError(
                    "--sources: the attribute model gives no gradients, so it cannot guide a "
                    "search; guide by another one with --attributes"
                )
            own, others = _own_and_best_other(p, classes[self._rows])
            log_p = log_p + own.clamp(min=LEAST_PROBABILITY).log()
            margin = own - others if margin is None else torch.minimum(margin, own - others)
            least = own if least is None else torch.minimum(least, own)
        assert margin is not None and least is not None
        self._seen = (margin.detach().float(), least.detach().float())
        return -self._weight * log_p

    def should_stop(self, iterate: Iterate) -> Tensor:
        """Judge an iterate and say which images are done, (m,)."""
        rows, (margin, probability) = iterate.rows, self._seen
        error = iterate.downscale_error
        feasible = error <= self._eps
        self._keep(rows, iterate.images, error, feasible, margin)
        self._steps[rows] = iterate.step + 1
        done = feasible & (margin > 0) & (probability >= ENOUGH)
        finite = torch.isfinite(iterate.total) & torch.isfinite(error)
        self._rows = rows[finite & ~done]
        return done

    def found(self) -> list[Guided]:
        """Return what was found, one an image."""
        return [
            Guided(
                image=self._images[row],
                feasible=bool(self._feasible[row]),
                shown=bool(self._feasible[row] & (self._margin[row] > 0)),
                downscale_error=None if self._images[row] is None else float(self._error[row]),
                steps=int(self._steps[row]),
                weight=self._weight,
            )
            for row in range(len(self._images))
        ]

    def _keep(
        self, rows: Tensor, images: Tensor, error: Tensor, feasible: Tensor, margin: Tensor
    ) -> None:
        """Keep what improved: feasible before infeasible, then the margin or the error."""
        was = self._feasible[rows]
        shows_more = feasible & (~was | (margin > self._margin[rows]))
        fits_more = ~feasible & ~was & (error < self._error[rows])
        better = shows_more | fits_more
        places = rows[better]
        self._error[places], self._margin[places] = error[better], margin[better]
        self._feasible[places] = feasible[better]
        for place, image in zip(places.tolist(), images[better], strict=True):
            self._images[place] = image.clamp(0, 1).float()


def _own_and_best_other(probabilities: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each row's class, and the largest of the other classes, both (m,)."""
    own = probabilities.gather(1, classes[:, None])
    others = probabilities.scatter(1, classes[:, None], -torch.inf)
    return own[:, 0], others.amax(1)


def guided_search(
    generator: Generator,
    lr: Tensor,
    start: Start,
    downscale: Downscale,
    config: SearchConfig,
    reader: Reader,
    wanted: Mapping[str, Tensor],
    weights: Sequence[float] = WEIGHTS,
) -> list[Guided]:
    """Search one batch with guidance.

    Parameters
    ----------
    generator, lr, start, downscale, config
        As of `BatchSearch`. Stopping at feasibility does not apply: an image is done when it is
        feasible and shows the wanted group with a probability of at least `ENOUGH`.
    reader : Reader
        Sees the generator's images, clamped.
    wanted : mapping of str to Tensor
        The wanted class of every image, (n,) an attribute.
    weights : sequence of float
        Of the guidance, tried in turn on the images that do not show their group yet.

    Raises
    ------
    InputError
        As `BatchSearch`, and if the reader is not differentiable.
    """

    def attempt(rows: Tensor, weight: float) -> list[Guided]:
        here = rows.to(lr.device)
        classes = {name: classes[here] for name, classes in wanted.items()}
        guidance = Guidance(reader, classes, config.eps, weight)
        BatchSearch(
            generator,
            lr[here],
            Start(start.latents[rows], tuple(m[rows] for m in start.noise)),
            downscale,
            replace(config, stop_at_feasibility=False),
            extra_losses=[guidance.term],
            should_stop=guidance.should_stop,
        ).run()
        return guidance.found()

    found = attempt(torch.arange(len(lr)), weights[0])
    for weight in weights[1:]:
        left = [row for row, guided in enumerate(found) if not guided.shown]
        if not left:
            break
        for row, again in zip(left, attempt(torch.tensor(left), weight), strict=True):
            found[row] = found[row].or_better(again)
    return found
