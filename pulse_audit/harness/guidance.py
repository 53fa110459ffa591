"""Searches guided toward an apparent group, to test whether the generator could have shown it.

The search of PULSE with one more term in its loss: the cross-entropy of an attribute model for the
wanted group. An image counts as shown only where it fits the input as every output of the arm has
to, so it is an image that the arm could have returned.

Whoever looks through the iterates of a search for one that shows the group finds some by chance. A
search whose term has weight 0, the placebo, is therefore made beside a guided one: from the same
start, with as many iterates at most, stopped and chosen by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
#: Weight of the cross-entropy (in nats) in PULSE's loss (benchmarks/guidance.py).
WEIGHT = 0.3


@dataclass(frozen=True)
class Guided:
    """Result of one search.

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
    """

    image: Tensor | None
    feasible: bool
    shown: bool
    downscale_error: float | None
    steps: int


class Guidance:
    """Guidance of one batch: the term in the loss, and the choice of the best iterates.

    Parameters
    ----------
    reader : Reader
        Differentiable in the images.
    wanted : mapping of str to Tensor
        For each guided attribute the wanted class of every image, (n,) of int64.
    weights : Tensor
        Of the term for every image, (n,); 0 for a placebo.
    eps : float
        Largest downscale error of a feasible image.

    Raises
    ------
    InputError
        By `term`, if the reader is not differentiable.
    """

    def __init__(
        self, reader: Reader, wanted: Mapping[str, Tensor], weights: Tensor, eps: float
    ) -> None:
        self._reader, self._wanted, self._weights, self._eps = reader, wanted, weights, eps
        n, device = len(weights), weights.device
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
        clamped, weights = images.clamp(0, 1), self._weights[self._rows]
        loss = torch.zeros_like(images[:, 0, 0, 0])
        margin, probability = torch.zeros_like(self._margin[self._rows]), torch.zeros_like(loss)
        # Placebos are read without gradients: they need none, and it takes a third of the time.
        for guided in (True, False):
            places = torch.nonzero((weights > 0) == guided)[:, 0]
            if not len(places):
                continue
            with torch.set_grad_enabled(guided and torch.is_grad_enabled()):
                log_p, of_margin, of_group = self._read(clamped[places], self._rows[places])
            if guided and images.requires_grad and not log_p.requires_grad:
                raise InputError(
                    "--sources: the attribute model gives no gradients, so it cannot guide a "
                    "search; guide by another one with --attributes"
                )
            loss = loss.index_copy(0, places, (-weights[places] * log_p).to(loss.dtype))
            margin[places] = of_margin.detach().to(margin.dtype)
            probability[places] = of_group.detach().to(probability.dtype)
        self._current = (margin, probability)
        return loss

    def _read(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability, margin and probability of the wanted group, (m,) each.

        Two attributes have to be shown at once: their log-probabilities are summed, and of margins
        and probabilities the smallest counts.
        """
        probabilities = self._reader(images)
        log_p, margins, wanted_p = [], [], []
        for attribute, wanted in self._wanted.items():
            # (m, k) -> (m,): the wanted class, and the likeliest of the others.
            p, classes = probabilities[attribute], wanted[rows][:, None]
            own = p.gather(1, classes)[:, 0]
            others = p.scatter(1, classes, -torch.inf).amax(1)
            log_p.append(own.clamp(min=MIN_PROBABILITY).log())
            margins.append(own - others)
            wanted_p.append(own)
        return (
            torch.stack(log_p).sum(0),
            torch.stack(margins).amin(0),
            torch.stack(wanted_p).amin(0),
        )

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
    weights: Tensor,
) -> list[Guided]:
    """Search one batch with guidance, some of it perhaps with weight 0.

    An image is done when it is feasible and shows the wanted group with a probability of at least
    `STOP_PROBABILITY`; stopping at feasibility does not apply. The weight changes nothing else, so
    that a placebo differs from a guided search of the same start in its gradients alone.

    Parameters
    ----------
    generator, lr, start, downscale, config
        As of `BatchSearch`, with its errors.
    reader, wanted, weights
        As of `Guidance`.
    """
    guidance = Guidance(reader, wanted, weights, config.eps)
    BatchSearch(
        generator,
        lr,
        start,
        downscale,
        replace(config, stop_at_feasibility=False),
        extra_losses=[guidance.term],
        should_stop=guidance.should_stop,
    ).run()
    return guidance.results()
