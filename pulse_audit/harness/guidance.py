"""Searches guided toward an apparent group, to test whether the generator could have shown it.

The search of PULSE with one more term in its loss: the cross-entropy of an attribute model for the
wanted group. An image counts as shown only where it fits the input as every output of the arm has
to, so it is an image that the arm could have returned.

Where the first weight of the term finds no such image, the next is tried from the same start: a
weight can be too small to guide or too large to fit the input (benchmarks/guidance.py).
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

#: A search stops when its image is feasible and the wanted group has this probability.
STOP_PROBABILITY = 0.8
#: Log-probabilities are floored here, so that a certain classifier still gives a finite loss.
MIN_PROBABILITY = 1e-6
#: Weights of the cross-entropy (in nats) in PULSE's loss, in the order in which they are tried.
WEIGHTS = (1.0, 0.1, 10.0)


@dataclass(frozen=True)
class Guided:
    """Result of one guided search.

    Attributes
    ----------
    image : Tensor or None
        (3, R, R) in [0, 1]: the feasible iterate that shows the wanted group most clearly, else
        the one that fits the input best; None if no iterate was finite.
    feasible : bool
        Whether any iterate was.
    shown : bool
        Whether a feasible iterate was classified as the wanted group, in every guided attribute.
    downscale_error : float or None
        Of ``image``.
    steps : int
        Over all weights tried.
    weight : float
        That gave ``image``.
    """

    image: Tensor | None
    feasible: bool
    shown: bool
    downscale_error: float | None
    steps: int
    weight: float

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """Sort key of results for one image, the best last: shown, feasible, smallest error."""
        error = float("inf") if self.downscale_error is None else self.downscale_error
        return self.shown, self.feasible, -error


class Guidance:
    """Guidance of one batch: the term in the loss, and the choice of the best iterates.

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
        classes = next(iter(wanted.values()))
        n, device = len(classes), classes.device
        # Images that are still searched.
        self._rows = torch.arange(n, device=device)
        # Of the best iterate of each image so far, all (n,).
        self._margin = torch.full((n,), -torch.inf, device=device)
        self._error = torch.full((n,), torch.inf, device=device, dtype=torch.float64)
        self._feasible = torch.zeros(n, dtype=torch.bool, device=device)
        self._steps = torch.zeros(n, dtype=torch.int64, device=device)
        self._images: list[Tensor | None] = [None] * n
        # Margin and probability of the wanted group at the current iterate, both (m,).
        self._current: tuple[Tensor, Tensor] = (self._margin, self._margin)

    def term(self, images: Tensor, latents: Tensor) -> Tensor:
        """Weighted cross-entropy of the wanted group, (m,); see `BatchSearch.extra_losses`."""
        probabilities = self._reader(images.clamp(0, 1))
        log_p, margin, probability = torch.zeros_like(images[:, 0, 0, 0]), None, None
        for attribute, wanted in self._wanted.items():
            p = probabilities[attribute]
            if not p.requires_grad and images.requires_grad:
                raise InputError(
                    "--sources: the attribute model gives no gradients, so it cannot guide a "
                    "search; guide by another one with --attributes"
                )
            # (m, k) -> (m,): the wanted class, and the likeliest of the others.
            classes = wanted[self._rows][:, None]
            own = p.gather(1, classes)[:, 0]
            others = p.scatter(1, classes, -torch.inf).amax(1)
            log_p = log_p + own.clamp(min=MIN_PROBABILITY).log()
            # All attributes have to be shown at once: the smallest counts.
            margin = own - others if margin is None else torch.minimum(margin, own - others)
            probability = own if probability is None else torch.minimum(probability, own)
        assert margin is not None and probability is not None
        self._current = (margin.detach().float(), probability.detach().float())
        return -self._weight * log_p

    def should_stop(self, iterate: Iterate) -> Tensor:
        """Keep the images of an iterate that improve, and say which searches are done, (m,)."""
        rows, error, (margin, probability) = iterate.rows, iterate.downscale_error, self._current
        feasible = error <= self._eps
        # Better: feasible before infeasible, then the larger margin or the smaller error.
        was_feasible = self._feasible[rows]
        shows_more = feasible & (~was_feasible | (margin > self._margin[rows]))
        fits_more = ~feasible & ~was_feasible & (error < self._error[rows])
        better = shows_more | fits_more
        improved = rows[better]
        self._error[improved], self._margin[improved] = error[better], margin[better]
        self._feasible[improved] = feasible[better]
        for row, image in zip(improved.tolist(), iterate.images[better], strict=True):
            self._images[row] = image.clamp(0, 1).float()

        self._steps[rows] = iterate.step + 1
        done = feasible & (margin > 0) & (probability >= STOP_PROBABILITY)
        # The search drops the images that are done, and those that are no longer finite.
        finite = torch.isfinite(iterate.total) & torch.isfinite(error)
        self._rows = rows[finite & ~done]
        return done

    def results(self) -> list[Guided]:
        """Return the result of each image."""
        return [
            Guided(
                image=image,
                feasible=bool(self._feasible[row]),
                shown=bool(self._feasible[row] & (self._margin[row] > 0)),
                downscale_error=None if image is None else float(self._error[row]),
                steps=int(self._steps[row]),
                weight=self._weight,
            )
            for row, image in enumerate(self._images)
        ]


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

    An image is done when it is feasible and shows the wanted group with a probability of at least
    `STOP_PROBABILITY`; stopping at feasibility does not apply.

    Parameters
    ----------
    generator, lr, start, downscale, config
        As of `BatchSearch`, with its errors.
    reader, wanted
        As of `Guidance`.
    weights : sequence of float
        Of the guidance, tried in turn on the images that do not show their group yet.
    """
    results: dict[int, Guided] = {}
    waiting = list(range(len(lr)))
    for weight in weights:
        if not waiting:
            break
        # Search the images that are waiting, all from their own starts.
        rows = torch.tensor(waiting)
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
        # The better result counts, with the steps of both.
        for row, result in zip(waiting, guidance.results(), strict=True):
            before = results.get(row, replace(result, steps=0))
            best = max(before, result, key=lambda one: one.rank)
            results[row] = replace(best, steps=before.steps + result.steps)
        waiting = [row for row in waiting if not results[row].shown]
    return [results[row] for row in range(len(lr))]
