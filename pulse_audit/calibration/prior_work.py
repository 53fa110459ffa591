"""Tests and intervals of earlier suites on simulated data, with the shipped interval beside them.

References
----------
M. Laszkiewicz, I. Daunhawer, J. E. Vogt, A. Fischer and J. Lederer (2024), Benchmarking the
fairness of image upsampling methods, FAccT (its tests as in its published code: counts against an
artificial uniform sample, shares times 1,400 as counts, a 2 x 2 chi-square of paired losses).
fairlearn's bootstrap resamples rows as if each were an independent observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy.stats import binom, chi2_contingency

from pulse_audit.calibration.scenarios import (
    Performance,
    PerformanceMeasure,
    Scenario,
    ScenarioSettings,
    share,
    successes,
)
from pulse_audit.stats.intervals import FloatArray, proportion_interval

STUDY = "earlier suites"
#: Size of the test set of Laszkiewicz et al. (2024).
GROUPS, PER_GROUP = 7, 200
IMAGES = GROUPS * PER_GROUP
#: Error rate of the better arm, correlation of two arms' errors, and a true difference.
ERRORS, CORRELATION, DIFFERENCE = 0.3, 0.6, 0.03


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order; requirements are made of the shipped interval only."""
    # shares of the groups among outputs, all equal in truth (PR)
    yield Scenario(
        STUDY, "counts against a made-up sample",
        {"question": "PR", "images": IMAGES, "groups": GROUPS}, "size", composition, (),
    )  # fmt: skip
    # equal retention in all groups (RDP)
    for recall in (0.1, 0.2, 0.5, 0.9):
        yield Scenario(
            STUDY, "shares x 1,400 as counts",
            {"question": "RDP", "images": IMAGES, "retention": recall}, "size",
            partial(recalls, recall=recall), (),
        )  # fmt: skip
    # two arms on the same images: errors equally frequent, or not
    measures: tuple[tuple[PerformanceMeasure, float], ...] = (("size", 0.0), ("power", DIFFERENCE))
    for measure, difference in measures:
        settings: ScenarioSettings = {
            "question": "two arms", "images": IMAGES, "errors": ERRORS, "correlation": CORRELATION,
            "difference": difference,
        }  # fmt: skip
        simulate = partial(two_arms, difference=difference)
        yield Scenario(STUDY, "2 x 2 chi-square, unpaired", settings, measure, simulate, ())
    # a rate of .5 from draws nested in faces
    nested: ScenarioSettings = {"question": "interval", "faces": 200, "draws": 5, "icc": 0.45}
    rows = partial(nested_coverage, ends=rows_bootstrap)
    yield Scenario(STUDY, "percentile bootstrap of rows", nested, "coverage", rows, ())
    shipped = partial(nested_coverage, ends=shipped_interval)
    code = ("pulse_audit.stats.intervals.proportion_interval",)
    yield Scenario(
        STUDY, "Wilson at the effective size", nested, "coverage", shipped, code, 0.93, 0.97
    )


def composition(random: np.random.Generator, replicates: int) -> Performance:
    """Share of rejections when outputs are spread evenly over the groups."""
    counts = random.multinomial(IMAGES, [1 / GROUPS] * GROUPS, size=replicates)
    return share([artificial_sample(each) <= 0.05 for each in counts])


def artificial_sample(counts: FloatArray) -> float:
    """Return p of the counts against a uniform sample of as many images, as if it were drawn."""
    return float(chi2_contingency([counts, [IMAGES / GROUPS] * GROUPS])[1])


def recalls(random: np.random.Generator, replicates: int, *, recall: float) -> Performance:
    """Share of rejections when retention is the same in every group."""
    retained = random.binomial(PER_GROUP, recall, size=(replicates, GROUPS))
    return share([shares_as_counts(each) <= 0.05 for each in retained])


def shares_as_counts(retained: FloatArray) -> float:
    """Return p of recall shares times the number of images, as if these were counts."""
    return artificial_sample(IMAGES * retained / max(retained.sum(), 1))


def two_arms(random: np.random.Generator, replicates: int, *, difference: float) -> Performance:
    """Share of rejections for two arms that err on the same images."""
    first, second = ERRORS, ERRORS + difference
    # P(both err) of two binary errors with this correlation
    both = first * second + CORRELATION * np.sqrt(first * (1 - first) * second * (1 - second))
    chances = [both, first - both, second - both, 1 - first - second + both]
    tables = random.multinomial(IMAGES, chances, size=replicates)
    return share([unpaired(table) <= 0.05 for table in tables])


def unpaired(table: FloatArray) -> float:
    """Return p of the two arms' numbers of errors as if they came from different images.

    ``table`` counts images on which both, the first, the second and neither arm err.
    """
    both, first, second, _ = table
    errors = np.array([both + first, both + second])
    return float(chi2_contingency([errors, IMAGES - errors])[1])


def nested_coverage(
    random: np.random.Generator,
    replicates: int,
    *,
    ends: Callable[[FloatArray], tuple[float, float]],
) -> Performance:
    """Coverage at 200 faces of 5 draws whose rates are Beta(.6, .6): ICC .45, mean rate .5."""
    icc = 1 / (1 + 2 * 0.6)
    intervals = [ends(successes(random, 200, 0.5, icc, 5)) for _ in range(replicates)]
    widths = [high - low for low, high in intervals]
    return share([low <= 0.5 <= high for low, high in intervals], widths)


def rows_bootstrap(sums: FloatArray) -> tuple[float, float]:
    """Percentile interval of resampled rows: of 0 and 1 these are binomial quantiles, exactly."""
    n = 5 * len(sums)
    low, high = binom.ppf([0.025, 0.975], n, sums.sum() / n) / n
    return float(low), float(high)


def shipped_interval(sums: FloatArray) -> tuple[float, float]:
    """Wilson at the effective sample size."""
    values = (np.arange(5) < sums[:, None]).ravel()
    estimate = proportion_interval(values, np.repeat(np.arange(len(sums)), 5))
    return estimate.low, estimate.high
