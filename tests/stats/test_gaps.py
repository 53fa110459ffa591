import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm, t, tukey_hsd
from statsmodels.stats.proportion import proportion_confint

from pulse_audit.stats import contrasts
from pulse_audit.stats.contrasts import expected_range, resampled_means, tukey
from pulse_audit.stats.gaps import (
    max_abs,
    max_gap,
    max_gap_of_replicates,
    min_ratio,
    worst_group,
)
from pulse_audit.stats.intervals import by_group
from pulse_audit.stats.score import difference_interval, ratio_interval


def nested(rng, rates, faces, draws, icc=0.5):
    """Beta-binomial outcomes (draws,) of len(rates) groups, with their faces and groups."""
    rates, strength = np.repeat(rates, faces)[:, None], 1 / icc - 1
    own = rng.beta(rates * strength, (1 - rates) * strength)
    outcomes = rng.random((len(rates), draws)) < own
    groups = np.repeat(np.arange(len(rates)) // faces, draws)
    return outcomes.ravel(), np.repeat(np.arange(len(rates)), draws), groups


def single(*shares, n=100):
    """One draw a face, n faces a group, exactly these shares."""
    outcomes = np.concatenate([np.arange(n) < round(share * n) for share in shares])
    return outcomes, np.arange(len(outcomes)), np.repeat(np.arange(len(shares)), n)


def test_bounds_of_two_groups_are_miettinen_and_nurminen_s():
    gap = max_gap(*single(0.7, 0.55), proportion=True)
    assert gap.value == pytest.approx(0.15)
    assert gap.pass_bound == pytest.approx(
        difference_interval(0.7, 100, 0.55, 100, norm.ppf(0.95))[1]
    )
    assert gap.fail_bound == pytest.approx(
        difference_interval(0.7, 100, 0.55, 100, norm.ppf(0.975))[0]
    )
    assert (gap.groups, gap.n_faces, gap.n_draws) == ((0, 1), 200, 200)


def test_a_gap_passes_fails_or_stays_open():
    gap = max_gap(*single(0.8, 0.5, 0.75), proportion=True)
    assert gap.fail_bound < gap.value < gap.pass_bound
    assert gap.decide(gap.pass_bound + 0.01) == "pass"
    assert gap.decide(gap.fail_bound - 0.01) == "fail"
    assert gap.decide(gap.value) == "inconclusive"


def test_all_pairs_of_means_agree_with_tukey_s_test_where_faces_are_few():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (3, 6))
    reference = tukey_hsd(*values)
    pooled = math.sqrt(values.var(axis=1, ddof=1).mean() * 2 / 6)
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        difference = values[i].mean() - values[j].mean()
        half = reference.confidence_interval().high[i, j] - difference
        assert tukey(3, 15.0, 0.05) * pooled == pytest.approx(half, rel=1e-5)
    gap = max_gap(values.ravel(), range(18), np.repeat([0, 1, 2], 6), proportion=False)
    order = values.mean(axis=1).argsort()
    spread = math.hypot(*(values[g].std(ddof=1) / math.sqrt(6) for g in order[[0, 2]]))
    bound = gap.value - tukey(3, 5.0, 0.05) * spread
    assert gap.fail_bound == pytest.approx(max(bound, 0)) or gap.fail_bound > bound


def test_the_range_of_equals_is_known():
    # mean range of 7 standard normals 2.704 (Tippett 1925); seven groups of 25 faces at .6
    assert expected_range(np.ones(7)) == pytest.approx(2.704, rel=0.01)
    gap = max_gap(*single(*[0.6] * 7, n=25), proportion=True)
    assert gap.at_equality == pytest.approx(2.704 * math.sqrt(0.24 / 25), rel=0.01)
    assert gap.value == 0


# limit .2 at alpha .05; 250 audits a cell, standard error 1.4 points at 5 %
def test_false_passes_at_a_gap_on_the_limit():
    rng, passed = np.random.default_rng(1), 0
    for _ in range(250):
        sample = nested(rng, [0.7, 0.6, 0.6, 0.5], 200, 2)
        passed += max_gap(*sample, proportion=True).decide(0.2) == "pass"
    assert passed / 250 <= 0.09


def test_false_fails_at_a_gap_on_the_limit_with_four_low_groups():
    # the gap itself exceeds the limit in nine of ten such audits
    rng, failed, above = np.random.default_rng(2), 0, 0
    for _ in range(250):
        sample = nested(rng, [0.7, 0.7, 0.7, 0.5, 0.5, 0.5, 0.5], 25, 2)
        gap = max_gap(*sample, proportion=True)
        failed += gap.decide(0.2) == "fail"
        above += gap.value > 0.2
    assert failed / 250 <= 0.09
    assert above / 250 > 0.85


def test_equal_groups_pass_with_200_faces_and_cannot_with_25():
    rng = np.random.default_rng(3)
    decisions = [
        max_gap(*nested(rng, [0.6] * 7, 200, 5), proportion=True, alpha=0.0125).decide(0.2)
        for _ in range(40)
    ]
    assert decisions.count("pass") / 40 >= 0.85
    few = [
        max_gap(*nested(rng, [0.6] * 7, 25, 5), proportion=True, alpha=0.0125).decide(0.2)
        for _ in range(20)
    ]
    assert few.count("pass") == 0 and few.count("fail") <= 1


def test_skewed_means_keep_both_levels():
    # exponential faces of means 1, 1.25 and 1.5, 40 a group x 2 draws, limit exactly .5
    rng, passed, failed = np.random.default_rng(4), 0, 0
    faces, groups = np.repeat(np.arange(120), 2), np.repeat([0, 1, 2], 80)
    scales = np.repeat([1.0, 1.25, 1.5], 40)
    for replicate in range(120):
        values = np.repeat(rng.exponential(scales), 2) + rng.normal(0, 0.2, 240)
        gap = max_gap(values, faces, groups, proportion=False, seed=replicate)
        passed += gap.decide(0.5) == "pass"
        failed += gap.decide(0.5) == "fail"
    assert passed / 120 <= 0.11 and failed / 120 <= 0.11


def test_resampled_means_scatter_as_their_standard_errors_say():
    rng = np.random.default_rng(5)
    sample = by_group(rng.normal(size=80), np.repeat(np.arange(40), 2), np.repeat([0, 1], 40))
    means, errors = resampled_means(sample, 4000, 0)
    assert_allclose(means.mean(axis=0), sample.means(), atol=0.01)
    assert_allclose(means.std(axis=0), sample.errors() * math.sqrt(19 / 20), rtol=0.05)
    assert_allclose(errors.mean(axis=0), sample.errors(), rtol=0.1)


def test_estimates_with_joint_replicates_use_their_covariance():
    # two estimates that share nearly all their error: their difference is known well
    rng = np.random.default_rng(6)
    shared, own = rng.normal(0, 0.2, (4000, 1)), rng.normal(0, 0.01, (4000, 2))
    gap = max_gap_of_replicates([0.7, 0.6], [0.7, 0.6] + shared + own, [200, 200], [400, 400])
    assert gap.value == pytest.approx(0.1)
    half = t.ppf(0.95, 199) * 0.01 * math.sqrt(2)
    assert gap.pass_bound == pytest.approx(0.1 + half, rel=0.02)
    assert gap.fail_bound == pytest.approx(0.1 - half * 1.9719 / 1.6525, rel=0.02)
    assert (gap.n_faces, gap.n_draws) == (400, 800)


def test_max_t_of_independent_replicates_is_tukey_s_range():
    drawn = np.random.default_rng(7).normal(0.5, 0.02, (20_000, 5))
    values = np.array([0.7, 0.5, 0.5, 0.5, 0.5])
    gap = max_gap_of_replicates(values, drawn, [100_000] * 5, [100_000] * 5)
    expected = 0.2 - tukey(5, math.inf, 0.05) * 0.02 * math.sqrt(2)
    assert gap.fail_bound == pytest.approx(expected, rel=0.02)


def test_groups_without_estimate_are_left_out_of_joint_replicates():
    drawn = np.random.default_rng(8).normal(0.5, 0.02, (500, 3))
    drawn[:, 1] = np.nan
    gap = max_gap_of_replicates([0.5, np.nan, 0.6], drawn, [50, 0, 50], [50, 0, 50])
    assert gap.groups == (2, 0) and gap.n_faces == 100
    assert math.isnan(max_gap_of_replicates([0.5, np.nan], drawn[:, :2], [9, 0], [9, 0]).value)


def test_the_ratio_of_two_groups_has_the_score_bounds():
    gap = min_ratio(*single(0.4, 0.8), proportion=True)
    assert gap.value == pytest.approx(0.5) and gap.groups == (1, 0)
    assert gap.pass_bound == pytest.approx(ratio_interval(0.4, 100, 0.8, 100, norm.ppf(0.95))[0])
    assert gap.fail_bound == pytest.approx(ratio_interval(0.4, 100, 0.8, 100, norm.ppf(0.975))[1])
    assert gap.decide(0.3) == "pass" and gap.decide(0.8) == "fail"


def test_the_ratio_does_not_depend_on_the_order_of_groups():
    one = min_ratio(*single(0.4, 0.8, 0.6), proportion=True)
    other = min_ratio(*single(0.6, 0.8, 0.4), proportion=True)
    assert (one.pass_bound, one.fail_bound) == pytest.approx((other.pass_bound, other.fail_bound))


def test_fieller_s_bounds_of_means_are_where_the_test_rejects():
    rng = np.random.default_rng(9)
    values = np.r_[rng.normal(5, 1, 12), rng.normal(8, 1, 12)]
    gap = min_ratio(values, range(24), np.repeat([0, 1], 12), proportion=False)
    low, high = values[:12], values[12:]
    r = gap.pass_bound
    distance = low.mean() - r * high.mean()
    error = math.sqrt((low.var(ddof=1) + r**2 * high.var(ddof=1)) / 12)
    assert distance / error == pytest.approx(t.ppf(0.95, 11))
    assert r < gap.value < gap.fail_bound < 1


def test_ratios_of_means_that_are_not_positive_say_nothing():
    gap = min_ratio([-1.0, 1.0, 2.0, 3.0], range(4), [0, 0, 1, 1], proportion=False)
    assert math.isnan(gap.value) and gap.decide(0.8) == "inconclusive"


def test_the_worst_group_has_an_exact_bound_alone_and_sidak_s_among_all():
    gap = worst_group(*single(0.6, 0.8, 0.9), proportion=True)
    assert gap.value == 0.6 and gap.groups == (0,)
    alone, joint = (
        proportion_confint(60, 100, alpha=level, method="beta")
        for level in (0.1, 1 - 0.95 ** (1 / 3))
    )
    assert gap.pass_bound == pytest.approx(alone[0])
    assert gap.fail_bound == pytest.approx(joint[1])
    assert gap.decide(0.5) == "pass" and gap.decide(0.75) == "fail"


# 400 audits a cell at alpha .05, standard error 1.1 points; with Wilson's bounds and the larger
# correlation alone 11 to 33 %
@pytest.mark.parametrize(
    ("faces", "draws", "rate"), [(60, 10, 0.98), (25, 10, 0.95), (10, 10, 0.9), (20, 10, 0.1)]
)
def test_a_worst_group_that_correlates_more_than_the_others_rarely_passes(faces, draws, rate):
    rng, passed = np.random.default_rng([12, faces]), 0
    for _ in range(400):
        first = nested(rng, [rate], faces, draws, icc=0.9)
        # the others succeed nearly always, and with little correlation
        values, owners, groups = nested(rng, [0.995] * 6, faces, draws, icc=0.1)
        sample = (
            np.concatenate([first[0], values]),
            np.concatenate([first[1], owners + faces]),
            np.concatenate([first[2], groups + 1]),
        )
        passed += worst_group(*sample, proportion=True).decide(rate) == "pass"
    assert passed / 400 <= 0.08


@pytest.mark.parametrize(("faces", "draws", "icc"), [(10, 2, 0.1), (25, 2, 0.9), (60, 2, 0.9)])
def test_equal_groups_at_a_high_rate_rarely_fail_in_the_worst_group(faces, draws, icc):
    rng, failed = np.random.default_rng([13, faces]), 0
    for _ in range(400):
        sample = nested(rng, [0.98] * 7, faces, draws, icc)
        failed += worst_group(*sample, proportion=True).decide(0.98) == "fail"
    assert failed / 400 <= 0.08


def test_the_worst_group_may_be_the_highest():
    gap = worst_group(*single(0.1, 0.3), proportion=True, higher_is_better=False)
    assert gap.value == 0.3 and gap.larger_is_worse
    assert gap.decide(0.5) == "pass" and gap.decide(0.1) == "fail"


def test_the_largest_shift_looks_both_ways():
    rng = np.random.default_rng(10)
    values = np.r_[rng.normal(0.2, 1, 50), rng.normal(-3, 1, 50)]
    gap = max_abs(values, range(100), np.repeat([0, 1], 50))
    assert gap.value == pytest.approx(-values[50:].mean()) and gap.groups == (1,)
    error = values[50:].std(ddof=1) / math.sqrt(50)
    assert gap.pass_bound == pytest.approx(gap.value + t.ppf(0.95, 49) * error, abs=0.1 * error)
    assert gap.decide(2.0) == "fail" and gap.decide(4.0) == "pass"


def test_the_worst_group_of_paired_differences_is_a_worst_mean():
    rng = np.random.default_rng(11)
    drops = (rng.random(200) < 0.7).astype(float) - (rng.random(200) < 0.65)
    gap = worst_group(
        drops, range(200), np.repeat([0, 1], 100), proportion=False, higher_is_better=False
    )
    assert gap.value == max(drops[:100].mean(), drops[100:].mean())
    assert gap.fail_bound < gap.value < gap.pass_bound


def test_means_that_never_vary_differ_for_certain():
    gap = max_gap([1.0] * 10 + [2.0] * 10, range(20), [0] * 10 + [1] * 10, proportion=False)
    assert (gap.fail_bound, gap.value, gap.pass_bound) == (1.0, 1.0, 1.0)


def test_a_group_of_one_face_keeps_a_mean_from_passing():
    gap = max_gap([1.0, 1.1, 1.0, 0.9, 1.2], range(5), [0, 0, 1, 1, 2], proportion=False)
    assert gap.pass_bound == math.inf and gap.decide(10.0) == "inconclusive"


def test_one_group_has_nothing_to_be_compared_with():
    gap = max_gap([1, 0], [0, 1], [3, 3], proportion=True)
    assert math.isnan(gap.value) and gap.method == "nothing to compare"
    assert gap.decide(0.5) == "inconclusive"


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match="must be 0 or 1"):
        max_gap([0.5, 1, 1], [0, 1, 1], [0, 1, 1], proportion=True)
    with pytest.raises(ValueError, match="between 0 and 1"):
        max_gap([1.5, 1], [0, 1], [0, 1], proportion=True)
    with pytest.raises(ValueError, match="alpha must lie"):
        worst_group([1, 1], [0, 1], [0, 1], proportion=True, alpha=0.7)


def test_expanded_means_of_many_faces_are_distributed_as_resampled_ones():
    rng = np.random.default_rng(8)
    faces = np.repeat(np.arange(2000), rng.integers(1, 4, 2000))
    sample = by_group(rng.lognormal(size=2000)[faces], faces, (faces >= 1000).astype(int))
    means, errors = contrasts.replicated_means(sample, 20_000, 0)
    others, other_errors = contrasts.resampled_means(sample, 4_000, 0)
    levels = [0.025, 0.16, 0.5, 0.84, 0.975]
    # studentised: the quantiles of 4,000 resamples have errors of 0.02 to 0.05
    ours, theirs = (
        np.quantile((m - sample.means()) / e, levels, axis=0)
        for m, e in ((means, errors), (others, other_errors))
    )
    np.testing.assert_allclose(ours, theirs, atol=0.12)
    assert ours[0, 0] < -2.05 and ours[-1, 0] < 1.9  # skewed to the left, as studentised means are
    np.testing.assert_allclose(means.std(axis=0), others.std(axis=0), rtol=0.04)
    np.testing.assert_allclose(errors.std(axis=0), other_errors.std(axis=0), rtol=0.08)


def test_many_faces_that_agree_have_no_error_and_few_are_resampled():
    equal = by_group(np.full(2000, 0.3), np.arange(2000), np.repeat([0, 1], 1000))
    means, errors = contrasts.replicated_means(equal, 50, 0)
    np.testing.assert_allclose(means, 0.3)
    assert not errors.any()
    few = by_group(np.arange(40.0), np.arange(40), np.repeat([0, 1], 20))
    for ours, resampled in zip(
        contrasts.replicated_means(few, 50, 3), contrasts.resampled_means(few, 50, 3), strict=True
    ):
        np.testing.assert_array_equal(ours, resampled)
