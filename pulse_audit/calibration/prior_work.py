"""Tests and intervals of earlier suites on simulated data, with the right ones beside them.

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
from pulse_audit.fairness.published_tests import published_p_values
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import FloatArray, proportion_interval
from pulse_audit.types import Estimate

STUDY = "earlier suites"
#: Size of the test set of Laszkiewicz et al. (2024).
GROUPS, PER_GROUP = 7, 200
IMAGES = GROUPS * PER_GROUP
#: Tests of a question, by what they compare.
TESTS = {
    "PR": {
        "counts against a made-up sample": "pr_p_published",
        "goodness of fit": "pr_p",
    },
    "RDP": {
        "shares x images as counts": "rdp_p_published",
        "homogeneity of retention": "rdp_p",
    },
}
#: Error rate of the better arm, correlation of two arms' errors, and a true difference.
ERRORS, CORRELATION, DIFFERENCE = 0.3, 0.6, 0.03


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order; requirements are made of what the package does itself."""
    # PR holds, at retention .5; RDP holds, at several retentions: the published test, the right one
    code = ("pulse_audit.fairness.published_tests.published_p_values",)
    questions = [("PR", 0.5), *(("RDP", retention) for retention in (0.1, 0.2, 0.5, 0.9))]
    for question, retention in questions:
        held: ScenarioSettings = {
            "question": question, "images": IMAGES, "groups": GROUPS, "retention": retention,
        }  # fmt: skip
        for method, name in TESTS[question].items():
            simulate = partial(rejections, name=name, retention=retention)
            high = None if name.endswith("published") else 0.06
            yield Scenario(STUDY, method, held, "size", simulate, code, None, high)
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


def rejections(
    random: np.random.Generator, replicates: int, *, name: str, retention: float
) -> Performance:
    """Share of rejections at the 5 % level of an arm that fulfils both PR and RDP."""
    # every face is kept with the same probability, else it becomes any other group alike
    truth = np.repeat(np.arange(GROUPS), PER_GROUP)
    hits = []
    for _ in range(replicates):
        others = (truth + random.integers(1, GROUPS, IMAGES)) % GROUPS
        predicted = np.where(random.random(IMAGES) < retention, truth, others)
        p = published_p_values(Draws(np.arange(IMAGES), truth, predicted, GROUPS))[name]
        hits.append(isinstance(p, Estimate) and p.value <= 0.05)
    return share(hits)


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
