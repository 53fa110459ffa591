"""How tests and intervals of earlier suites fare, beside the ones used here, on the same data.

References
----------
M. Laszkiewicz, I. Daunhawer, J. E. Vogt, A. Fischer and J. Lederer (2024), Benchmarking the
fairness of image upsampling methods, FAccT (its tests are described from its published code:
counts against a made-up uniform sample, shares times 1,400 as counts, a 2 x 2 chi-square of
paired losses). fairlearn's bootstrap resamples rows as if each were an independent observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy.stats import binom, chi2_contingency

from pulse_audit.calibration.cells import Cell, Measured, Measures, Setting, share
from pulse_audit.calibration.draws import successes
from pulse_audit.stats.goodness import goodness_of_fit
from pulse_audit.stats.intervals import FloatArray, interval_of_totals
from pulse_audit.stats.tests import equal_proportions, mcnemar

GROUPS, PER_GROUP = 7, 200
IMAGES = GROUPS * PER_GROUP
#: Rate of errors of the better arm, correlation of two arms' errors, and a real difference.
ERRORS, CORRELATION, DIFFERENCE = 0.3, 0.6, 0.03

Test = Callable[[FloatArray], float]


def cells() -> Iterator[Cell]:
    """Cells of the study, in order; what is shipped promises, what is not is for the reader."""
    yield from _composition_cells()
    for recall in (0.1, 0.2, 0.5, 0.9):
        yield from _recall_cells(recall)
    yield from _paired_cells("size", 0.0)
    yield from _paired_cells("power", DIFFERENCE)
    yield from _interval_cells()


def _composition_cells() -> Iterator[Cell]:
    """Shares of the groups among outputs, all equal in truth (PR)."""
    settings: dict[str, Setting] = {"question": "PR", "images": IMAGES, "groups": GROUPS}
    for method, test, promised in (
        ("counts against a made-up sample", phantom_sample, False),
        ("goodness of fit", known_reference, True),
    ):
        simulate = partial(composition, test=test)
        yield _cell(method, settings, "size", simulate, "goodness", 0.06 if promised else None)


def _recall_cells(recall: float) -> Iterator[Cell]:
    """Equal retention in all groups (RDP)."""
    settings: dict[str, Setting] = {"question": "RDP", "images": IMAGES, "retention": recall}
    for method, test, promised in (
        ("shares x 1,400 as counts", shares_as_counts, False),
        ("chi-square at effective sizes", equal_retention, True),
    ):
        simulate = partial(recalls, recall=recall, test=test)
        yield _cell(method, settings, "size", simulate, "tests", 0.06 if promised else None)


def _paired_cells(measures: Measures, difference: float) -> Iterator[Cell]:
    """Two arms on the same images: errors equally frequent, or not."""
    settings: dict[str, Setting] = {
        "question": "two arms", "images": IMAGES, "errors": ERRORS, "correlation": CORRELATION,
        "difference": difference,
    }  # fmt: skip
    for method, test, promised in (
        ("2 x 2 chi-square, unpaired", unpaired, False),
        ("McNemar, mid-p", paired, measures == "size"),
    ):
        simulate = partial(two_arms, difference=difference, test=test)
        yield _cell(method, settings, measures, simulate, "tests", 0.06 if promised else None)


def _interval_cells() -> Iterator[Cell]:
    settings: dict[str, Setting] = {"question": "interval", "faces": 200, "draws": 5, "icc": 0.45}
    for method, ends, low in (
        ("percentile bootstrap of rows", rows_bootstrap, None),
        ("Wilson at the effective size", shipped_interval, 0.93),
    ):
        simulate = partial(nested_coverage, ends=ends)
        high = None if low is None else 0.97
        yield _cell(method, settings, "coverage", simulate, "intervals", high, low)


def _cell(
    method: str,
    settings: dict[str, Setting],
    measures: Measures,
    simulate: Callable[[np.random.Generator, int], Measured],
    module: str,
    high: float | None,
    low: float | None = None,
) -> Cell:
    code = (f"pulse_audit.stats.{module}",)
    return Cell("earlier suites", method, settings, measures, simulate, code, low, high)


def composition(random: np.random.Generator, replicates: int, *, test: Test) -> Measured:
    """Share of rejections when outputs are spread evenly over the groups."""
    counts = random.multinomial(IMAGES, [1 / GROUPS] * GROUPS, size=replicates)
    return share([test(each) <= 0.05 for each in counts])


def phantom_sample(counts: FloatArray) -> float:
    """Return p of the counts against as many images made up to be uniform, as if drawn."""
    return float(chi2_contingency([counts, [IMAGES / GROUPS] * GROUPS])[1])


def known_reference(counts: FloatArray) -> float:
    """Return p of the counts against the known shares."""
    categories = np.repeat(np.arange(GROUPS), counts.astype(np.int64))
    uniform = np.full(GROUPS, 1 / GROUPS)
    return goodness_of_fit(np.arange(IMAGES), categories, uniform, seed=0).p


def recalls(random: np.random.Generator, replicates: int, *, recall: float, test: Test) -> Measured:
    """Share of rejections when retention is the same in every group."""
    kept = random.binomial(PER_GROUP, recall, size=(replicates, GROUPS))
    return share([test(each) <= 0.05 for each in kept])


def shares_as_counts(kept: FloatArray) -> float:
    """Return p of recall shares times the number of images, as if these were counts."""
    return phantom_sample(IMAGES * kept / max(kept.sum(), 1))


def equal_retention(kept: FloatArray) -> float:
    """Return p of the shipped test that all groups share one retention."""
    values = np.concatenate([np.arange(PER_GROUP) < k for k in kept]).astype(np.float64)
    groups = np.repeat(np.arange(GROUPS), PER_GROUP)
    return equal_proportions(values, np.arange(IMAGES), groups).p


def two_arms(
    random: np.random.Generator, replicates: int, *, difference: float, test: Test
) -> Measured:
    """Share of rejections for two arms that err on the same images."""
    first, second = ERRORS, ERRORS + difference
    both = first * second + CORRELATION * np.sqrt(first * (1 - first) * second * (1 - second))
    cells = [both, first - both, second - both, 1 - first - second + both]
    tables = random.multinomial(IMAGES, cells, size=replicates)
    return share([test(table) <= 0.05 for table in tables])


def unpaired(table: FloatArray) -> float:
    """Return p of the two arms' numbers of errors as if they came from different images."""
    both, first, second, _ = table
    errors = np.array([both + first, both + second])
    return float(chi2_contingency([errors, IMAGES - errors])[1])


def paired(table: FloatArray) -> float:
    """Return p of the shipped test."""
    first = np.repeat([1.0, 1.0, 0.0, 0.0], table.astype(np.int64))
    second = np.repeat([1.0, 0.0, 1.0, 0.0], table.astype(np.int64))
    return mcnemar(np.arange(IMAGES), first, second).p


def nested_coverage(
    random: np.random.Generator,
    replicates: int,
    *,
    ends: Callable[[FloatArray], tuple[float, float]],
) -> Measured:
    """Coverage at 200 faces of 5 draws whose chances are Beta(.6, .6): ICC .45, rate .5."""
    icc = 1 / (1 + 2 * 0.6)
    found = [ends(successes(random, 200, 0.5, icc, 5)) for _ in range(replicates)]
    return share([low <= 0.5 <= high for low, high in found], [high - low for low, high in found])


def rows_bootstrap(sums: FloatArray) -> tuple[float, float]:
    """Percentile interval of resampled rows: of 0 and 1 these are binomial quantiles, exactly."""
    n = 5 * len(sums)
    low, high = binom.ppf([0.025, 0.975], n, sums.sum() / n) / n
    return float(low), float(high)


def shipped_interval(sums: FloatArray) -> tuple[float, float]:
    """Wilson at the effective sample size."""
    estimate = interval_of_totals(sums, np.full(len(sums), 5.0), None, 0.95)
    return estimate.low, estimate.high
