"""Groups against a baseline: bounds by hand, their error rates, and what they are defined as."""

import numpy as np
import pytest
from scipy.stats import norm

from pulse_audit.stats import against, contrasts
from pulse_audit.stats.against import Sampled, largest_drop, worst_of_sampled
from pulse_audit.stats.gaps import replicates_at
from pulse_audit.stats.intervals import Groups
from pulse_audit.stats.paired import IDENTICAL, paired_proportions

ALPHA = 0.05


def groups_of(values):
    """Totals of (groups, faces, draws)."""
    k, n, m = values.shape
    counts = [np.full(n, float(m))] * k
    totals = [each.sum(1).astype(float) for each in values]
    return Groups(totals, counts, np.full(k, n), np.full(k, n * m))


def outcomes(rng, rates, n, m=2, icc=0.5, usual=None):
    """Outcomes (groups, faces, draws); ``usual`` shares faces with another sample."""
    k = len(rates)
    shared = rng.random((k, n, 1)) if usual is None else usual
    numbers = np.where(rng.random((k, n, m)) < np.sqrt(icc), shared, rng.random((k, n, m)))
    return (numbers < np.array(rates)[:, None, None]).astype(float)


def test_a_paired_drop_has_tangos_bounds_of_the_worst_group():
    rng = np.random.default_rng(0)
    before, after = (outcomes(rng, [0.7, 0.8, 0.6], 40) for _ in range(2))
    gap = largest_drop(
        groups_of(after), groups_of(before), paired=True, proportion=True, higher_is_better=True,
        alpha=ALPHA,
    )  # fmt: skip
    drops = (before - after).mean(axis=2)
    sidak = 1 - (1 - ALPHA) ** (1 / 3)
    assert gap.value == pytest.approx(drops.mean(axis=1).max())
    high = max(paired_proportions(each, 1 - 2 * ALPHA).high for each in drops)
    low = max(paired_proportions(each, 1 - 2 * sidak).low for each in drops)
    assert (gap.pass_bound, gap.fail_bound) == (high, low)
    assert gap.groups == (int(drops.mean(axis=1).argmax()),) and gap.larger_is_worse
    # where lower is better, the roles of the sides are exchanged
    other = largest_drop(
        groups_of(before), groups_of(after), paired=True, proportion=True, higher_is_better=False,
        alpha=ALPHA,
    )  # fmt: skip
    assert (other.value, other.pass_bound) == pytest.approx((gap.value, gap.pass_bound))


def test_identical_faces_have_a_drop_of_exactly_zero():
    rng = np.random.default_rng(1)
    same = groups_of(outcomes(rng, [0.7, 0.8], 10))
    for proportion in (True, False):
        gap = largest_drop(
            same, same, paired=True, proportion=proportion, higher_is_better=True, alpha=ALPHA
        )
        assert (gap.value, gap.pass_bound, gap.fail_bound) == (0, 0, 0)
        assert IDENTICAL in gap.method and gap.decide(0.0) == "pass"


@pytest.mark.parametrize("proportion", [True, False])
def test_two_samples_agree_with_the_normal_approximation(proportion):
    rng = np.random.default_rng(2)
    before, after = outcomes(rng, [0.6], 900, 1), outcomes(rng, [0.5], 900, 1)
    gap = largest_drop(
        groups_of(after), groups_of(before), paired=False, proportion=proportion,
        higher_is_better=True, alpha=ALPHA,
    )  # fmt: skip
    one, two = before.mean(), after.mean()
    error = np.sqrt((one * (1 - one) + two * (1 - two)) / 900)
    half = norm.ppf(1 - ALPHA) * error
    assert gap.value == pytest.approx(one - two)
    assert gap.pass_bound == pytest.approx(one - two + half, abs=0.003)
    # of means the joint bound is two-sided
    joint = half if proportion else norm.ppf(1 - ALPHA / 2) * error
    assert gap.fail_bound == pytest.approx(one - two - joint, abs=0.004)


def test_a_group_without_a_face_gives_nothing():
    empty = Groups([np.empty(0), np.ones(3)], [np.empty(0), np.ones(3)], np.array([0, 3]),
                   np.array([0, 3]))  # fmt: skip
    gap = largest_drop(
        empty, empty, paired=True, proportion=True, higher_is_better=True, alpha=ALPHA
    )
    assert np.isnan(gap.value) and gap.decide(0.5) == "inconclusive"


def sampled(values, error=0.02, faces=400, seed=0, drawn=None):
    rng, k = np.random.default_rng(seed), len(values)
    roots = rng.normal(0, error, (4000, k)) if drawn is None else drawn
    numbers = np.full(k, faces)
    return Sampled(np.array(values), np.array(values) + roots, np.zeros(k), numbers, numbers)


@pytest.mark.parametrize(
    ("statistic", "trial", "baseline", "expected", "groups"),
    [
        # by itself, in the units of the statistic
        ("max_gap", [0.9, 0.6, 0.7], None, 0.3, (0, 1)),
        ("min_ratio", [0.9, 0.6, 0.7], None, 0.6 / 0.9, (0, 1)),
        ("worst_group", [0.9, 0.6, 0.7], None, 0.6, (1,)),
        ("max_abs", [0.5, -0.6, 0.1], None, 0.6, (1,)),
        # against a baseline: the pair that became worst, not the difference of the worst pairs
        ("max_gap", [0.9, 0.6, 0.7], [0.9, 0.5, 0.9], 0.2, (0, 2)),
        ("max_abs", [0.5, -0.6, 0.1], [0.5, -0.7, 0.0], 0.1, (2,)),
        ("worst_group", [0.9, 0.6, 0.7], [0.9, 0.5, 0.9], 0.2, (2,)),
        ("min_ratio", [0.8, 0.4, 0.8], [0.8, 0.8, 0.4], 0.5, (0, 1)),
        # a gap of the same size the other way round is no larger
        ("max_gap", [0.9, 0.6], [0.6, 0.9], 0.0, (0, 1)),
    ],
)
def test_the_worst_case_is_what_it_says(statistic, trial, baseline, expected, groups):
    other = None if baseline is None else sampled(baseline, seed=1)
    gap = worst_of_sampled(statistic, sampled(trial), other, alpha=ALPHA)
    assert gap.value == pytest.approx(expected) and gap.groups == groups
    sign = 1 if gap.larger_is_worse else -1
    assert sign * gap.fail_bound < sign * gap.value < sign * gap.pass_bound


def test_a_single_comparison_has_students_bounds():
    trial, baseline = sampled([0.7], 0.03), sampled([0.8], 0.04, seed=1)
    gap = worst_of_sampled("worst_group", trial, baseline, alpha=ALPHA)
    error = np.std(trial.drawn - baseline.drawn, ddof=1) * np.sqrt(400 / 399)
    half = 1.6487 * error  # t of 399 degrees of freedom at 95 %
    assert gap.value == pytest.approx(0.1)
    assert gap.pass_bound == pytest.approx(0.1 + half, rel=1e-3)
    assert gap.fail_bound == pytest.approx(0.1 - half, rel=0.05)


def test_a_ratio_to_nearly_nothing_is_not_formed():
    gap = worst_of_sampled("min_ratio", sampled([0.9, 0.05], 0.02), alpha=ALPHA)
    assert np.isnan(gap.value)


def test_equal_samples_with_one_seed_are_resampled_alike():
    rng = np.random.default_rng(3)
    sample = groups_of(outcomes(rng, [0.7, 0.8], 30))
    one, two = (against.sampled_means(sample, True, 500, 7) for _ in range(2))
    assert np.array_equal(one.drawn, two.drawn)
    gap = worst_of_sampled("max_gap", one, two, alpha=ALPHA)
    assert gap.value == 0 and gap.pass_bound > 0 > gap.fail_bound
    small = groups_of(outcomes(rng, [0.7], 1))
    assert against.sampled_means(small, True, 500, 7) is None


@pytest.mark.parametrize(("statistic", "margin"), [("max_gap", 0.1), ("worst_group", 0.1)])
def test_error_rates_at_the_limit(statistic, margin):
    # a gap that grew by exactly the margin, from groups that were equal: the hardest case
    rng, repeats, decided = np.random.default_rng(4), 300, {"pass": 0, "fail": 0, "inconclusive": 0}
    for repeat in range(repeats):
        usual = rng.random((3, 60, 1))
        before = outcomes(rng, [0.7, 0.7, 0.7], 60, usual=usual)
        after = outcomes(rng, [0.7, 0.6, 0.7], 60, usual=usual)
        one, two = (
            against.sampled_means(groups_of(each), True, 500, repeat) for each in (after, before)
        )
        decided[worst_of_sampled(statistic, one, two, alpha=ALPHA).decide(margin)] += 1
    # 5 % and three standard errors
    assert decided["pass"] <= 0.088 * repeats and decided["fail"] <= 0.088 * repeats


def test_a_level_that_replicates_do_not_reach_takes_bonferroni_s_bound():
    drawn, faces = np.random.default_rng(0).normal(size=(2000, 3)), np.full(3, 10_000)
    found = contrasts.joint_bounds(np.zeros(3), drawn, faces, 1e-9, one_sided=True)
    errors = drawn.std(axis=0, ddof=1)
    assert found.all_low == pytest.approx(errors * norm.ppf(1e-9 / 3), rel=2e-2)


def test_joint_bounds_on_one_side_are_shorter():
    rng = np.random.default_rng(5)
    drawn, faces = rng.normal(0, 1, (4000, 7)), np.full(7, 500)
    both, one = (
        contrasts.joint_bounds(np.zeros(7), drawn, faces, ALPHA, one_sided=side)
        for side in (False, True)
    )
    # independent normals: Sidak's levels
    for bounds, level in ((both, 0.5 + 0.95 ** (1 / 7) / 2), (one, 0.95 ** (1 / 7))):
        assert -bounds.all_low.mean() == pytest.approx(norm.ppf(level), abs=0.08)


def test_means_of_two_samples_agree_with_welch():
    rng = np.random.default_rng(6)
    first, second = (groups_of(rng.normal(mean, 1, (2, 200, 1))) for mean in (0.5, 0.0))
    bounds = contrasts.mean_differences(first, second, ALPHA, 0, 1999)
    error = np.hypot(first.errors(), second.errors())
    assert bounds.value == pytest.approx(first.means() - second.means())
    assert bounds.low == pytest.approx(bounds.value - 1.65 * error, abs=0.03)
    few = [groups_of(rng.normal(0, 1, (2, 4, 1))) for _ in range(2)]
    wide = contrasts.mean_differences(*few, ALPHA, 0, 1999)
    error = np.hypot(few[0].errors(), few[1].errors())
    assert wide.high == pytest.approx(wide.value + 2.353 * error, rel=1e-3)


def test_small_levels_get_more_replicates():
    assert [replicates_at(alpha) for alpha in (0.05, 0.025, 0.001, 1e-9)] == [
        1999, 1999, 20_000, 40_000,
    ]  # fmt: skip
