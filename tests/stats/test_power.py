import math

import numpy as np
import pytest
from scipy.stats import norm, studentized_range
from statsmodels.stats.power import NormalIndPower, normal_sample_size_one_tail
from statsmodels.stats.proportion import power_proportions_2indep

from pulse_audit.stats.gaps import max_gap
from pulse_audit.stats.power import (
    Design,
    detectable_mean,
    detectable_proportion,
    faces_for_max_gap,
    faces_for_means,
    faces_for_proportions,
    power_of_max_gap,
    power_of_means,
    power_of_proportions,
)

#: Holm's first of 4 rules, each on the worst of 7 groups; 5 draws with ICC .5
AUDIT = Design(draws=5, icc=0.5, tests=28)


def paired(correlation):
    return Design(draws=5, icc=0.5, tests=28, paired=correlation)


# published by an independent simulation; correlations rounded to two digits there
@pytest.mark.parametrize(
    ("design", "margin", "published"),
    [
        (AUDIT, 0.0, 521),
        (AUDIT, 0.05, 2077),
        (paired(0.38), 0.0, 322),
        (paired(0.63), 0.0, 194),
        (paired(0.77), 0.0, 122),
        (paired(0.38), 0.05, 1282),
        (paired(0.63), 0.05, 768),
        (paired(0.77), 0.05, 482),
    ],
)
def test_faces_for_a_drop_of_ten_points(design, margin, published):
    faces = faces_for_proportions(0.6, 0.1, design, margin=margin)
    assert faces == pytest.approx(published, rel=0.03)


def test_what_25_faces_a_group_can_see():
    # published .28 and .45 keep the variance of a ten-point drop; that of a larger one is smaller
    deviation = math.sqrt((0.24 + 0.25) / 2)
    assert detectable_mean(deviation, 25, paired(0.63)) == pytest.approx(0.28, abs=0.005)
    assert detectable_mean(deviation, 25, AUDIT) == pytest.approx(0.45, abs=0.006)
    assert 0.4 < detectable_proportion(0.6, 25, AUDIT) < 0.42
    # published 4 to 7 % by simulation, with quantiles of t
    assert 0.02 < power_of_proportions(0.6, 0.1, 25, AUDIT) < 0.05
    assert 0.06 < power_of_proportions(0.6, 0.1, 25, paired(0.63)) < 0.09


def test_more_than_five_draws_cut_variance_by_at_most_17_percent():
    five, many = Design(draws=5, icc=0.5), Design(draws=10**6, icc=0.5)
    assert many.of_face(1.0) / five.of_face(1.0) == pytest.approx(1 - 0.17, abs=0.005)


@pytest.mark.parametrize("sides", [1, 2])
def test_power_of_means_agrees_with_statsmodels(sides):
    expected = NormalIndPower().power(
        0.4, 60, 0.05, alternative="two-sided" if sides == 2 else "larger"
    )
    assert power_of_means(0.8, 2.0, 60, Design(sides=sides)) == pytest.approx(expected)


def test_power_of_proportions_agrees_with_statsmodels():
    # its variance under the null is pooled; with that, the two agree to the digit
    result = power_proportions_2indep(
        -0.1, 0.6, 300, alpha=0.05, alternative="smaller", return_results=True
    )
    ours = power_of_proportions(0.6, 0.1, 300, Design())
    assert ours == pytest.approx(result.power, abs=0.005)


def test_faces_for_means_agree_with_statsmodels():
    expected = normal_sample_size_one_tail(0.3, 0.9, 0.025, std_null=math.sqrt(2) * 1.5)
    assert faces_for_means(0.3, 1.5, Design(sides=2)) == math.ceil(expected)


def test_faces_reach_the_power_they_are_for():
    faces = faces_for_proportions(0.7, 0.12, AUDIT)
    assert power_of_proportions(0.7, 0.12, faces, AUDIT) >= 0.9
    assert power_of_proportions(0.7, 0.12, faces - 1, AUDIT) < 0.9


def test_what_is_detectable_is_found_with_the_power_asked_for():
    drop = detectable_proportion(0.6, 200, AUDIT, power=0.8)
    assert power_of_proportions(0.6, drop, 200, AUDIT) == pytest.approx(0.8)
    difference = detectable_mean(2.0, 50, AUDIT, power=0.8)
    assert power_of_means(difference, 2.0, 50, AUDIT) == pytest.approx(0.8)
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


def test_equal_groups_pass_as_the_studentised_range_says():
    error = math.sqrt(Design(draws=5, icc=0.5).of_face(0.24) / 200)
    allowed = 0.2 / error - norm.ppf(0.9875) * math.sqrt(2)
    expected = studentized_range.cdf(allowed, 7, math.inf)
    design = Design(draws=5, icc=0.5, tests=4)
    assert power_of_max_gap([0.6] * 7, 0.2, 200, design).passes == pytest.approx(expected, abs=0.01)


def test_faces_for_decisions_on_seven_groups():
    # published: about 200 faces to pass at gap 0; 300 to fail at gap .3 and 100 at .4; 25 cannot
    design = Design(draws=5, icc=0.5, tests=4)
    assert 140 <= faces_for_max_gap([0.6] * 7, 0.2, "pass", design) <= 220
    assert 220 <= faces_for_max_gap([0.6] * 6 + [0.3], 0.2, "fail", design) <= 360
    assert 60 <= faces_for_max_gap([0.6] * 6 + [0.2], 0.2, "fail", design) <= 120
    assert power_of_max_gap([0.6] * 7, 0.2, 25, design).passes == 0


def test_no_number_of_faces_shows_what_is_not_so():
    assert faces_for_max_gap([0.6, 0.3], 0.2, "pass", Design()) is None
    assert faces_for_max_gap([0.6, 0.5], 0.2, "fail", Design()) is None


def test_the_decision_itself_has_the_power_promised():
    # 3 groups of 60 faces x 2 draws: 150 audits, standard error 4 points
    rng, design = np.random.default_rng(1), Design(draws=2, icc=0.5)
    rates, decisions = np.array([0.85, 0.6, 0.45]), []
    faces, groups = np.repeat(np.arange(180), 2), np.repeat([0, 1, 2], 120)
    for _ in range(150):
        own = rng.beta(np.repeat(rates, 60), 1 - np.repeat(rates, 60))
        outcomes = (rng.random((180, 2)) < own[:, None]).ravel()
        decisions.append(max_gap(outcomes, faces, groups, proportion=True).decide(0.15))
    promised = power_of_max_gap(rates.tolist(), 0.15, 60, design)
    assert decisions.count("fail") / 150 == pytest.approx(promised.fails, abs=0.12)


def test_impossible_designs_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Design(draws=0)
    with pytest.raises(ValueError, match="icc must lie"):
        Design(icc=1.5)
    with pytest.raises(ValueError, match="must exceed the margin"):
        faces_for_proportions(0.6, 0.05, Design(), margin=0.05)
    with pytest.raises(ValueError, match="between 0 and 1"):
        faces_for_proportions(0.05, 0.1, Design())
    with pytest.raises(ValueError, match="two groups"):
        power_of_max_gap([0.5], 0.1, 10, Design())
