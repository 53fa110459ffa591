import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import xlog1py, xlogy
from scipy.stats import binom
from statsmodels.stats import proportion as reference

from pulse_audit.stats.score import (
    difference_interval,
    difference_score,
    ratio_interval,
    ratio_score,
)

TABLES = [(7, 20, 3, 25), (1, 20, 0, 20), (20, 20, 15, 20), (50, 100, 30, 60), (2, 9, 40, 70)]
INNER = [(7, 20, 3, 25), (50, 100, 30, 60), (2, 9, 40, 70)]


def maximised_score(x1, n1, x2, n2, difference):
    """Score with the restricted likelihood maximised numerically, no cubic.

    statsmodels 0.15 cannot serve: its cubic for differences other than 0 has a count where the
    paper has a sample size.
    """

    def loss(q):
        p = q + difference
        first = xlogy(x1, p) + xlog1py(n1 - x1, -p)
        return -(first + xlogy(x2, q) + xlog1py(n2 - x2, -q))

    bounds = (max(0.0, -difference), min(1.0, 1 - difference))
    q = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    p = q + difference
    variance = (p * (1 - p) / n1 + q * (1 - q) / n2) * (n1 + n2) / (n1 + n2 - 1)
    return (x1 / n1 - x2 / n2 - difference) / np.sqrt(variance)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("difference", [-0.2, 0.01, 0.15])
def test_the_difference_s_score_maximises_the_restricted_likelihood(table, difference):
    x1, n1, x2, n2 = table
    score = difference_score(x1 / n1, n1, x2 / n2, n2, difference)
    assert_allclose(score, maximised_score(*table, difference), rtol=1e-4)


@pytest.mark.parametrize("table", INNER)
def test_the_score_of_no_difference_agrees_with_statsmodels(table):
    x1, n1, x2, n2 = table
    expected = reference.test_proportions_2indep(*table, method="score", compare="diff").statistic
    assert_allclose(difference_score(x1 / n1, n1, x2 / n2, n2, 0.0), expected, rtol=1e-8)


@pytest.mark.parametrize("table", INNER)
@pytest.mark.parametrize("ratio", [0.5, 1.0, 1.7])
def test_the_ratio_s_score_agrees_with_statsmodels(table, ratio):
    x1, n1, x2, n2 = table
    expected = reference.test_proportions_2indep(
        *table, value=ratio, method="score", compare="ratio"
    ).statistic
    assert_allclose(ratio_score(x1 / n1, n1, x2 / n2, n2, ratio), expected, rtol=1e-8)


@pytest.mark.parametrize("table", INNER)
def test_the_ratio_s_interval_agrees_with_statsmodels(table):
    x1, n1, x2, n2 = table
    expected = reference.confint_proportions_2indep(*table, method="score", compare="ratio")
    interval = ratio_interval(x1 / n1, n1, x2 / n2, n2, 1.959963984540054)
    assert_allclose(interval, expected, rtol=1e-5)


@pytest.mark.parametrize("table", TABLES)
def test_the_difference_s_interval_ends_where_the_score_is_critical(table):
    x1, n1, x2, n2 = table
    low, high = difference_interval(x1 / n1, n1, x2 / n2, n2, 1.7)
    assert maximised_score(*table, low) == pytest.approx(1.7, rel=1e-4)
    assert maximised_score(*table, high) == pytest.approx(-1.7, rel=1e-4)


def test_ends_of_impossible_tables_are_the_ends_of_the_range():
    assert_allclose(ratio_interval(0.0, 20, 0.0, 20, 1.96), (0, np.inf))
    assert ratio_interval(0.0, 20, 0.5, 20, 1.96)[0] == 0
    assert ratio_interval(0.5, 20, 0.0, 20, 1.96)[1] == np.inf
    low, high = difference_interval(1.0, 20, 1.0, 20, 1.96)
    assert low == pytest.approx(-high) and 0.1 < high < 0.2


def test_exact_coverage_at_20_faces_each():
    # every pair of counts weighed by its probability: .6 against .5, .95 against .85, .05 each
    counts = np.arange(21)
    x1, x2 = (axis.ravel() for axis in np.meshgrid(counts, counts, indexing="ij"))
    low, high = difference_interval(x1 / 20, 20, x2 / 20, 20, 1.959964)
    for p1, p2 in [(0.6, 0.5), (0.95, 0.85), (0.05, 0.05)]:
        weight = binom.pmf(x1, 20, p1) * binom.pmf(x2, 20, p2)
        assert 0.93 <= weight[(low <= p1 - p2) & (p1 - p2 <= high)].sum() <= 0.99
