"""Differences of two arms' proportions on the same faces: coverage; size where arms are equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, TypeAlias

import numpy as np
from scipy.special import betaincinv, ndtr

from pulse_audit.calibration.scenarios import (
    Performance,
    PerformanceMeasure,
    Scenario,
    ScenarioSettings,
    share,
)
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.types import Estimate

Pair: TypeAlias = tuple[float, float]
Interval: TypeAlias = Callable[[FloatArray], Estimate]

FACES = (6, 10, 25, 100)
DRAWS = (2, 10)
RATES: tuple[Pair, ...] = ((0.98, 0.98), (0.5, 0.5), (0.98, 0.9), (0.7, 0.5), (1.0, 0.9))
#: Within-face correlations of the two arms, and the correlation of their faces: two searches, and
#: an interpolation (all draws of a face agree) beside a search.
DEPENDENCE: tuple[tuple[Pair, float], ...] = (((0.5, 0.5), 0.5), ((1.0, 0.3), 0.0))
CODE = ("pulse_audit.stats.paired.paired_proportions",)
SHIPPED = "Tango at the effective number of faces"
BOOTSTRAP = "BCa bootstrap of faces"


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order; the bootstrap stands beside it in the hardest."""
    situations: list[tuple[str, Interval, Pair, int, int, tuple[Pair, float]]] = [
        (SHIPPED, paired_proportions, *each) for each in product(RATES, FACES, DRAWS, DEPENDENCE)
    ]
    for faces in (6, 10):
        situations.append((BOOTSTRAP, bootstrapped, (0.98, 0.9), faces, 2, DEPENDENCE[0]))
    for method, interval, rates, faces, draws, (iccs, correlation) in situations:
        settings: ScenarioSettings = {
            "faces": faces, "draws": draws, "rates": "{} and {}".format(*rates),
            "icc": "{} and {}".format(*iccs), "correlation": correlation,
        }  # fmt: skip
        simulate = partial(
            excluded if rates[0] == rates[1] else covered,
            faces=faces, draws=draws, rates=rates, iccs=iccs, correlation=correlation,
            interval=interval,
        )  # fmt: skip
        # where the arms are equal, an interval without 0 is a false difference
        measure: PerformanceMeasure = "size" if rates[0] == rates[1] else "coverage"
        low, high = (None, 0.055) if measure == "size" else (0.93, None)
        if method == BOOTSTRAP:
            low = high = None
        code = CODE if method == SHIPPED else ()
        yield Scenario("difference of arms", method, settings, measure, simulate, code, low, high)


def covered(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    draws: int,
    rates: Pair,
    iccs: Pair,
    correlation: float,
    interval: Interval,
) -> Performance:
    """Share of 95 % intervals that contain the true difference."""
    truth, is_covered, widths = rates[0] - rates[1], [], []
    for _ in range(replicates):
        each = face_differences(random, faces, rates, iccs, correlation, draws)
        estimate = interval(each)
        is_covered.append(estimate.low - 1e-9 <= truth <= estimate.high + 1e-9)
        widths.append(estimate.high - estimate.low)
    return share(is_covered, widths)


def excluded(random: np.random.Generator, replicates: int, **situation: Any) -> Performance:
    """Share of 95 % intervals that do not contain the true difference; see `covered`."""
    performance = covered(random, replicates, **situation)
    return replace(performance, value=1 - performance.value)


def bootstrapped(differences: FloatArray) -> Estimate:
    """Interval of a mean difference by the bootstrap that is used for means."""
    return cluster_bca(differences, np.arange(len(differences)), seed=0, n_resamples=1000)


def face_differences(
    random: np.random.Generator,
    faces: int,
    rates: Pair,
    iccs: Pair,
    correlation: float,
    draws: int,
) -> FloatArray:
    """Differences of two arms' proportions of every face, (faces,).

    The rates of a face are Beta distributed in either arm, as in `scenarios.successes`, and joined
    by a Gaussian copula of this correlation.
    """
    first = random.standard_normal(faces)
    second = correlation * first + np.sqrt(1 - correlation**2) * random.standard_normal(faces)
    shares = []
    for normal, rate, icc in zip((first, second), rates, iccs, strict=True):
        level = ndtr(normal)
        if rate in (0.0, 1.0):
            own = np.full(faces, rate)
        elif icc == 1:
            own = (level < rate).astype(np.float64)
        else:
            # Beta(a, b) has ICC 1 / (a + b + 1)
            weight = (1 - icc) / icc
            own = betaincinv(rate * weight, (1 - rate) * weight, level)
        shares.append(random.binomial(draws, own) / draws)
    return np.asarray(shares[0] - shares[1], dtype=np.float64)
