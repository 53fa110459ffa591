import math

import numpy as np
import pytest
from scipy.stats import nct, t
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import power_proportions_2indep

from pulse_audit.calibration.scenarios import successes
from pulse_audit.stats import power
from pulse_audit.stats.contrasts import proportion_pairs, tukey
from pulse_audit.stats.gaps import max_gap
from pulse_audit.stats.intervals import Groups
from pulse_audit.stats.power import (
    Design,
    detectable_mean,
    detectable_proportion,
    faces_for_proportions,
    power_of_proportions,
)

#: Holm's first of 4 rules, each on the worst of 7 groups, one-sided; 5 draws with ICC .5
AUDIT = Design(draws=5, icc=0.5, alpha=2 * 0.05 / 28)


def test_faces_for_a_drop_of_ten_points():
    # published by an independent simulation
    assert faces_for_proportions(0.6, 0.5, AUDIT) == pytest.approx(521, rel=0.03)


def test_what_25_faces_a_group_can_see():
    # published .45 keeps the variance of a ten-point drop; that of a larger one is smaller
    assert 0.4 < detectable_proportion(0.6, 0.0, 25, AUDIT) < 0.45
    # published 4 % by simulation, with quantiles of t; less with the correlation that is used
    assert 0.015 < power_of_proportions(0.6, 0.5, 25, AUDIT) < 0.05


def test_more_than_five_draws_cut_variance_by_at_most_17_percent():
    five, many = (design.effect(0.5) / design.draws for design in (Design(5, 0.5), Design(10**6)))
    assert many / five == pytest.approx(1 - 0.17, abs=0.005)


def test_the_detectable_mean_has_its_power_by_student_s_t():
    # two groups of 30; the critical value has the degrees of freedom of one of them
    difference = detectable_mean(2.0, 30, Design(), power=0.8)
    noncentral = nct(58, difference / 2.0 * math.sqrt(30 / 2))
    assert noncentral.sf(t.ppf(0.975, 29)) == pytest.approx(0.8, abs=1e-4)
    assert detectable_mean(2.0, 1, Design()) == math.inf
    # with many faces, statsmodels' normal approximation
    difference = detectable_mean(2.0, 2000, Design(), power=0.8)
    expected = NormalIndPower().power(difference / 2.0, 2000, 0.05)
    assert expected == pytest.approx(0.8, abs=1e-3)


def test_power_of_proportions_agrees_with_statsmodels():
    result = power_proportions_2indep(-0.1, 0.6, 3000, alpha=0.05, return_results=True)
    assert power_of_proportions(0.6, 0.5, 3000, Design()) == pytest.approx(result.power, abs=1e-3)
    result = power_proportions_2indep(0.1, 0.15, 200, alpha=0.05, return_results=True)
    assert power_of_proportions(0.15, 0.25, 200, Design()) == pytest.approx(result.power, abs=5e-3)


def test_faces_reach_the_power_they_are_for():
    faces = faces_for_proportions(0.7, 0.58, AUDIT)
    assert power_of_proportions(0.7, 0.58, faces, AUDIT) >= 0.9
    assert power_of_proportions(0.7, 0.58, faces - 1, AUDIT) < 0.9


def test_what_is_detectable_is_found_with_the_power_asked_for():
    drop = detectable_proportion(0.6, 0.0, 200, AUDIT, power=0.8)
    assert power_of_proportions(0.6, 0.6 - drop, 200, AUDIT) == pytest.approx(0.8)
    # where even a fall to 0 is not, a rise is
    assert detectable_proportion(0.05, 0.0, 10, AUDIT) is None
    rise = detectable_proportion(0.05, 1.0, 10, AUDIT)
    assert power_of_proportions(0.05, 0.05 + rise, 10, AUDIT) == pytest.approx(0.9)


def test_a_fall_and_the_rise_of_the_complement_need_the_same():
    assert faces_for_proportions(0.85, 0.75, AUDIT) == faces_for_proportions(0.15, 0.25, AUDIT)
    assert detectable_proportion(0.9, 0.0, 50, AUDIT) == pytest.approx(
        detectable_proportion(0.1, 1.0, 50, AUDIT)
    )


def test_the_published_gap_of_two_groups_of_200():
    # base .5, 80 %, two-sided: 13.8 points; 18.9 over 21 pairs
    assert detectable_proportion(0.5, 0.0, 200, Design(), power=0.8) == pytest.approx(
        0.138, abs=0.003
    )
    pairs = Design(alpha=0.05 / 21)
    assert detectable_proportion(0.5, 0.0, 200, pairs, power=0.8) == pytest.approx(0.189, abs=0.005)


def audits(rng, replicates, rates, faces, design):
    """Totals of groups at these rates, as an audit of this design has them."""
    counts = [np.full(faces, float(design.draws))] * len(rates)
    n = np.full(len(rates), faces)
    for _ in range(replicates):
        sums = [successes(rng, faces, rate, design.icc, design.draws) for rate in rates]
        yield Groups(sums, counts, n, n * design.draws)


# 500 audits: standard error 1.3 points at 90 %
@pytest.mark.parametrize(
    ("base", "end", "faces", "design"),
    [
        (0.15, 1.0, 25, Design(5, 0.5, 7, 0.025)),
        (0.6, 0.0, 60, Design(2, 0.9, 7, 0.025)),
        (0.5, 1.0, 25, Design(10, 0.1, 3, 0.025)),
        (0.9, 0.0, 100, Design(5, 0.5, 2, 0.025)),
    ],
)
def test_a_detectable_difference_is_shown_by_tukey_s_pairs_in_nine_of_ten_audits(
    base, end, faces, design
):
    difference = detectable_proportion(base, end, faces, design)
    other = base + math.copysign(difference, end - base)
    rates, shown = [other, *[base] * (design.groups - 1)], 0
    for sample in audits(np.random.default_rng([14, faces]), 500, rates, faces, design):
        bounds = proportion_pairs(sample, design.alpha)
        # the pair of the first two groups
        shown += bounds.all_low[0] > 0 if other > base else bounds.all_high[0] < 0
    assert 0.86 <= shown / 500 <= 0.95


@pytest.mark.parametrize(("base", "other", "icc"), [(0.15, 0.25, 0.5), (0.6, 0.5, 0.1)])
def test_faces_needed_show_ten_points_in_nine_of_ten_audits(base, other, icc):
    design, shown = Design(5, icc, 3, 0.025), 0
    faces = faces_for_proportions(base, other, design)
    for sample in audits(np.random.default_rng(15), 400, [other, base, base], faces, design):
        bounds = proportion_pairs(sample, design.alpha)
        shown += bounds.all_low[0] > 0 if other > base else bounds.all_high[0] < 0
    assert 0.85 <= shown / 400 <= 0.95


def test_a_detectable_difference_of_means_is_shown_in_nine_of_ten_audits():
    rng, design, shown = np.random.default_rng(16), Design(groups=3, alpha=0.025), 0
    shift, groups = detectable_mean(1.0, 20, design), np.repeat([0, 1, 2], 20)
    for replicate in range(150):
        # the third group lies between the two that differ
        values = rng.normal(size=60) + np.array([0, shift, shift / 2])[groups]
        gap = max_gap(
            values, range(60), groups, proportion=False, alpha=design.alpha, seed=replicate
        )
        shown += gap.fail_bound > 0
    assert 0.83 <= shown / 150 <= 0.97


def test_the_critical_value_is_that_of_the_gap():
    # one draw a face and rates known well: z = (difference - critical x error) / error
    power = power_of_proportions(0.5, 0.45, 5000, Design(groups=7, alpha=0.025))
    error = math.sqrt(2 * 0.25 / 5000)
    expected = t.cdf(0.05 / error - tukey(7, math.inf, 0.025), 1e9)
    assert power == pytest.approx(expected, abs=0.005)


def test_impossible_designs_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Design(draws=0)
    with pytest.raises(ValueError, match="icc must lie"):
        Design(icc=1.5)
    with pytest.raises(ValueError, match="must not be 0"):
        faces_for_proportions(0.6, 0.6, Design())
    with pytest.raises(ValueError, match="between 0 and 1"):
        faces_for_proportions(0.05, -0.05, Design())


@pytest.mark.parametrize(
    ("correlation", "margin", "expected"),
    [
        # faces for a drop of 10 points: base .6, ICC .5, 5 draws, 7 groups, 4 rules
        (None, 0.0, 521), (None, 0.05, 2077), (0.38, 0.0, 322), (0.63, 0.0, 194),
        (0.77, 0.0, 122), (0.38, 0.05, 1282), (0.63, 0.05, 768), (0.77, 0.05, 482),
    ],
)  # fmt: skip
def test_faces_for_a_drop_agree_with_the_reference_cells(correlation, margin, expected):
    design = power.DropDesign(correlation=correlation, margin=margin)
    n = power.faces_for_drop(0.1, design)
    assert n == pytest.approx(expected, rel=0.05)
    assert design.power(0.1, n) >= 0.9 > design.power(0.1, n - 1)
    assert power.detectable_drop(n, design) == pytest.approx(0.1, abs=1e-3)


def test_a_drop_that_no_sample_of_this_size_shows():
    design = power.DropDesign(base=0.3)
    assert power.detectable_drop(5, design) is None
    assert power.detectable_drop(1, design) is None
    assert power.detectable_drop(25, power.DropDesign(correlation=0.63)) == pytest.approx(
        0.28, abs=0.02
    )
    with pytest.raises(ValueError, match="exceed the margin"):
        power.faces_for_drop(0.05, power.DropDesign(margin=0.05))
