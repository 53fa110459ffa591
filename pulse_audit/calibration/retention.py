"""Coverage of the intervals for proportions: the shipped ones, and those of row resampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from scipy.stats import binom

from pulse_audit.calibration.cells import Cell, Measured, Setting, share
from pulse_audit.calibration.draws import successes
from pulse_audit.stats.intervals import (
    correlation_of_totals,
    interval_of_totals,
    proportion_interval,
)

FACES = (20, 50, 200)
ICCS = (0.1, 0.5, 0.9)
RATES = (0.05, 0.5, 0.95)
GROUPS = 7
DRAWS = 5
#: Within-face correlations of the groups where they differ.
UNEQUAL = (0.1, 0.1, 0.1, 0.5, 0.5, 0.9, 0.9)

CODE = ("pulse_audit.stats.intervals",)
SHIPPED = "Wilson, design effect of the larger ICC"


def cells() -> Iterator[Cell]:
    """Cells of the study, in order."""
    for faces in FACES:
        for rate in RATES:
            for icc in ICCS:
                yield _cell("retention", faces, rate, (icc,) * GROUPS, str(icc), 0.93, 0.97)
            yield _cell("retention, ICCs differ", faces, rate, UNEQUAL, "0.1-0.9", 0.90, None)
            yield _one_draw(faces, rate)


def _cell(
    study: str,
    faces: int,
    rate: float,
    iccs: Sequence[float],
    shown: str,
    low: float,
    high: float | None,
) -> Cell:
    settings: dict[str, Setting] = {"faces": faces, "draws": DRAWS, "rate": rate, "icc": shown}
    simulate = partial(coverage, faces=faces, rate=rate, iccs=iccs, draws=DRAWS)
    return Cell(study, SHIPPED, settings, "coverage", simulate, CODE, low, high)


def _one_draw(faces: int, rate: float) -> Cell:
    settings: dict[str, Setting] = {"faces": faces, "draws": 1, "rate": rate}
    simulate = partial(exact_coverage, faces=faces, rate=rate)
    low, high = 0.92, 0.99
    return Cell("one draw", "Wilson", settings, "coverage", simulate, CODE, low, high, exact=True)


def coverage(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    rate: float,
    iccs: Sequence[float],
    draws: int,
) -> Measured:
    """Share of 95 % intervals that hold the truth, over the groups of simulated audits.

    Groups with one within-face correlation count together; where there are several correlations
    the worst of them is returned.
    """
    held = np.empty((replicates, len(iccs)), dtype=bool)
    widths = np.empty((replicates, len(iccs)))
    counts = np.full(faces, float(draws))
    for replicate in range(replicates):
        sums = [successes(random, faces, rate, icc, draws) for icc in iccs]
        pooled = correlation_of_totals([(each, counts) for each in sums])
        for i, each in enumerate(sums):
            estimate = interval_of_totals(each, counts, pooled, 0.95)
            held[replicate, i] = estimate.low <= rate <= estimate.high
            widths[replicate, i] = estimate.high - estimate.low
    kinds = [np.flatnonzero(np.asarray(iccs) == icc) for icc in sorted(set(iccs))]
    return min((share(held[:, kind], widths[:, kind]) for kind in kinds), key=lambda m: m.value)


def exact_coverage(
    random: np.random.Generator, replicates: int, *, faces: int, rate: float
) -> Measured:
    """Coverage at one draw a face, summed over every possible number of successes.

    Nothing is drawn: random numbers and replicates are not used.
    """
    face = np.arange(faces)
    estimates = [
        proportion_interval((face < successes).astype(float), face)
        for successes in range(faces + 1)
    ]
    chances = binom.pmf(np.arange(faces + 1), faces, rate)
    held = [estimate.low <= rate <= estimate.high for estimate in estimates]
    order = np.argsort(widths := np.array([e.high - e.low for e in estimates]))
    middle = order[np.searchsorted(np.cumsum(chances[order]), 0.5)]
    return Measured(float(chances @ held), 0.0, float(widths[middle]))
