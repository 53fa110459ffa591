"""Scenarios about intervals of proportions, against closed forms and other libraries."""

import numpy as np
import pytest
from scipy.stats import betabinom, binom
from statsmodels.stats.proportion import proportion_confint

from pulse_audit.calibration import retention
from pulse_audit.calibration.scenarios import successes


@pytest.mark.parametrize(("faces", "rate"), [(20, 0.05), (50, 0.5), (200, 0.95)])
def test_exact_coverage_is_that_of_statsmodels_wilson(faces: int, rate: float) -> None:
    counts = np.arange(faces + 1)
    low, high = proportion_confint(counts, faces, method="wilson")
    # 0 and all: statsmodels leaves a rounding error where the end is exactly 0 or 1
    held = (low - 1e-12 <= rate) & (rate <= high + 1e-12)
    expected = binom.pmf(counts, faces, rate)[held].sum()
    found = retention.exact_coverage(np.random.default_rng(), 0, faces=faces, rate=rate)
    assert found.value == pytest.approx(expected, abs=1e-12)


def test_one_draw_at_20_faces_cannot_reach_93_to_97_percent() -> None:
    found = retention.exact_coverage(np.random.default_rng(), 0, faces=20, rate=0.05)
    assert found.value == pytest.approx(0.9245, abs=1e-4)


@pytest.mark.parametrize("icc", [0.0, 0.5, 1.0])
def test_successes_are_beta_binomial(icc: float) -> None:
    drawn = successes(np.random.default_rng(1), 40_000, 0.3, icc, 5)
    if icc in (0.0, 1.0):
        expected = binom.pmf(np.arange(6), 5, 0.3) if icc == 0 else [0.7, 0, 0, 0, 0, 0.3]
    else:
        expected = betabinom.pmf(np.arange(6), 5, 0.3, 0.7)  # a + b = 1 / ICC - 1
    shares = np.bincount(drawn.astype(int), minlength=6) / len(drawn)
    np.testing.assert_allclose(shares, expected, atol=0.01)


def test_the_scenarios_and_their_requirements() -> None:
    scenarios = list(retention.scenarios())
    equal = [s for s in scenarios if s.study == "retention"]
    assert len(equal) == 27 and {(s.low, s.high) for s in equal} == {(0.93, 0.975)}
    differing = [s for s in scenarios if s.study == "retention, ICCs differ"]
    assert len(differing) == 9 and {(s.low, s.high) for s in differing} == {(0.92, None)}
    apart = [s for s in scenarios if s.study == "retention, one ICC apart"]
    assert len(apart) == 27 and {(s.low, s.high) for s in apart} == {(0.92, None)}
    one = [s for s in scenarios if s.study == "one draw"]
    assert len(one) == 9 and all(s.exact and (s.low, s.high) == (0.92, 0.99) for s in one)


def test_where_correlations_differ_the_worst_counts() -> None:
    given = {"faces": 20, "rate": 0.05, "draws": 5}
    mixed = retention.coverage(np.random.default_rng(3), 100, iccs=(0.1,) * 6 + (0.9,), **given)
    assert mixed.value <= 0.97 and mixed.width is not None and mixed.width > 0.15
