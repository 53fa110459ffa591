"""Coverage of the intervals of proportions, at the numbers of faces and draws of audits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np
from scipy.stats import binom

from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    ScenarioSettings,
    successes,
    worst,
)
from pulse_audit.stats.intervals import intraclass_correlation, proportion_interval

FACES = (20, 50, 200)
ICCS = (0.1, 0.5, 0.9)
RATES = (0.05, 0.5, 0.95)
GROUPS = 7
DRAWS = 5
#: Within-face correlations of the groups where they differ.
UNEQUAL = (0.1, 0.1, 0.1, 0.5, 0.5, 0.9, 0.9)
ONE_APART = (0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)

CODE = ("pulse_audit.stats.intervals.proportion_interval",)
SHIPPED = "Wilson, design effect of the larger ICC, sparse groups toward 1"


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    for faces in FACES:
        for rate in RATES:
            settings: ScenarioSettings = {"faces": faces, "draws": DRAWS, "rate": rate}
            simulate = partial(coverage, faces=faces, rate=rate, draws=DRAWS)
            # all groups have one correlation
            for icc in ICCS:
                yield Scenario(
                    "retention", SHIPPED, {**settings, "icc": str(icc)}, "coverage",
                    partial(simulate, iccs=(icc,) * GROUPS), CODE, 0.93, 0.975,
                )  # fmt: skip
            # groups differ in correlation: the lowest coverage counts
            yield Scenario(
                "retention, ICCs differ", SHIPPED, {**settings, "icc": "0.1-0.9"}, "coverage",
                partial(simulate, iccs=UNEQUAL), CODE, 0.92, None,
            )  # fmt: skip
            # discrete outcomes: coverage oscillates about 95 %, and is enumerated
            yield Scenario(
                "one draw", "Wilson", {"faces": faces, "draws": 1, "rate": rate}, "coverage",
                partial(exact_coverage, faces=faces, rate=rate), CODE, 0.92, 0.99, exact=True,
            )  # fmt: skip
    # one group of high correlation, whose outcomes are few: nothing but its own faces shows it
    for faces, draws, rate in product((10, 20, 60), (2, 5, 10), (0.02, 0.1, 0.5)):
        settings = {"faces": faces, "draws": draws, "rate": rate, "icc": "one 0.9, others 0.1"}
        simulate = partial(coverage, faces=faces, rate=rate, draws=draws, iccs=ONE_APART)
        yield Scenario("retention, one ICC apart", SHIPPED, settings, "coverage", simulate, CODE,
                       0.92, None)  # fmt: skip
    # the whole sample, which has no other groups to pool with
    for faces, rate in ((10, 0.3), (20, 0.1), (40, 0.07), (100, 0.02)):
        settings = {"faces": faces, "draws": 10, "rate": rate, "icc": 0.5}
        simulate = partial(coverage, faces=faces, rate=rate, draws=10, iccs=(0.5,))
        yield Scenario("retention, no other group", SHIPPED, settings, "coverage", simulate, CODE,
                       0.91, None)  # fmt: skip


def coverage(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    rate: float,
    iccs: Sequence[float],
    draws: int,
) -> Performance:
    """Share of 95 % intervals that contain the truth, over the groups of simulated audits.

    Groups of equal within-face correlation count together; where there are several correlations
    the lowest coverage is returned.
    """
    # face and group of every draw
    owner = np.repeat(np.arange(len(iccs) * faces), draws)
    groups = np.repeat(np.arange(len(iccs)), faces * draws)
    is_covered = np.empty((replicates, len(iccs)), dtype=bool)
    widths = np.empty((replicates, len(iccs)))
    for replicate in range(replicates):
        sums = np.concatenate([successes(random, faces, rate, icc, draws) for icc in iccs])
        values = (np.arange(draws) < sums[:, None]).astype(np.float64).ravel()
        pooled = intraclass_correlation(values, owner, groups)
        for group in range(len(iccs)):
            inside = groups == group
            estimate = proportion_interval(values[inside], owner[inside], pooled)
            is_covered[replicate, group] = estimate.low <= rate <= estimate.high
            widths[replicate, group] = estimate.high - estimate.low
    # groups of one correlation are replicates of each other
    return worst(is_covered, widths, np.unique(iccs, return_inverse=True)[1])


def exact_coverage(
    random: np.random.Generator, replicates: int, *, faces: int, rate: float
) -> Performance:
    """Coverage at one draw a face, summed over every possible number of successes.

    Nothing is drawn: random numbers and replicates are not used.
    """
    face = np.arange(faces)
    estimates = [
        proportion_interval((face < successes).astype(float), face)
        for successes in range(faces + 1)
    ]
    chances = binom.pmf(np.arange(faces + 1), faces, rate)
    is_covered = [estimate.low <= rate <= estimate.high for estimate in estimates]
    # the median width, each weighted with its probability
    widths = np.array([estimate.high - estimate.low for estimate in estimates])
    order = np.argsort(widths)
    middle = order[np.searchsorted(np.cumsum(chances[order]), 0.5)]
    return Performance(float(chances @ is_covered), 0.0, float(widths[middle]))
