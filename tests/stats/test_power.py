import math

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import power_proportions_2indep

from pulse_audit.stats.power import (
    Design,
    detectable_mean,
    detectable_proportion,
    faces_for_proportions,
    power_of_proportions,
)

#: Holm's first of 4 rules, each on the worst of 7 groups; 5 draws with ICC .5
AUDIT = Design(draws=5, icc=0.5, tests=28)


def test_faces_for_a_drop_of_ten_points():
    # published by an independent simulation
    assert faces_for_proportions(0.6, 0.1, AUDIT) == pytest.approx(521, rel=0.03)


def test_what_25_faces_a_group_can_see():
    # published .45 keeps the variance of a ten-point drop; that of a larger one is smaller
    deviation = math.sqrt((0.24 + 0.25) / 2)
    assert detectable_mean(deviation, 25, AUDIT) == pytest.approx(0.45, abs=0.006)
    assert 0.4 < detectable_proportion(0.6, 25, AUDIT) < 0.42
    # published 4 % by simulation, with quantiles of t
    assert 0.02 < power_of_proportions(0.6, 0.1, 25, AUDIT) < 0.05


def test_more_than_five_draws_cut_variance_by_at_most_17_percent():
    five, many = Design(draws=5, icc=0.5), Design(draws=10**6, icc=0.5)
    assert many.of_face(1.0) / five.of_face(1.0) == pytest.approx(1 - 0.17, abs=0.005)


@pytest.mark.parametrize("sides", [1, 2])
def test_the_detectable_mean_has_the_power_of_statsmodels(sides):
    difference = detectable_mean(2.0, 60, Design(sides=sides), power=0.8)
    power = NormalIndPower().power(
        difference / 2.0, 60, 0.05, alternative="two-sided" if sides == 2 else "larger"
    )
    assert power == pytest.approx(0.8, abs=1e-4)


def test_power_of_proportions_agrees_with_statsmodels():
    # its variance under the null is pooled; with that, the two agree to the digit
    result = power_proportions_2indep(
        -0.1, 0.6, 300, alpha=0.05, alternative="smaller", return_results=True
    )
    ours = power_of_proportions(0.6, 0.1, 300, Design())
    assert ours == pytest.approx(result.power, abs=0.005)


def test_faces_reach_the_power_they_are_for():
    faces = faces_for_proportions(0.7, 0.12, AUDIT)
    assert power_of_proportions(0.7, 0.12, faces, AUDIT) >= 0.9
    assert power_of_proportions(0.7, 0.12, faces - 1, AUDIT) < 0.9


def test_what_is_detectable_is_found_with_the_power_asked_for():
    drop = detectable_proportion(0.6, 200, AUDIT, power=0.8)
    assert power_of_proportions(0.6, drop, 200, AUDIT) == pytest.approx(0.8)
    assert detectable_proportion(0.05, 10, AUDIT) is None


def test_the_published_gap_of_two_groups_of_200():
    # base .5, 80 %, two-sided: 13.8 points; 18.9 over 21 pairs
    assert detectable_proportion(0.5, 200, Design(sides=2), power=0.8) == pytest.approx(
        0.138, abs=0.003
    )
    pairs = Design(sides=2, tests=21)
    assert detectable_proportion(0.5, 200, pairs, power=0.8) == pytest.approx(0.189, abs=0.005)


def test_power_is_what_nested_draws_give():
    # 2,000 audits of 40 faces x 3 draws, ICC .5, z test with known variance: standard error 1 point
    rng, design = np.random.default_rng(0), Design(draws=3, icc=0.5)
    means = [
        (rng.random((2000, 40, 3)) < rng.beta(p, 1 - p, (2000, 40, 1))).mean(axis=(1, 2))
        for p in (0.6, 0.4)
    ]
    error = math.sqrt(2 * design.of_face(0.24) / 40)
    found = np.mean((means[0] - means[1]) / error > norm.ppf(0.95))
    assert found == pytest.approx(power_of_proportions(0.6, 0.2, 40, design), abs=0.035)


def test_impossible_designs_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Design(draws=0)
    with pytest.raises(ValueError, match="icc must lie"):
        Design(icc=1.5)
    with pytest.raises(ValueError, match="must be positive"):
        faces_for_proportions(0.6, 0.0, Design())
    with pytest.raises(ValueError, match="between 0 and 1"):
        faces_for_proportions(0.05, 0.1, Design())
