import numpy as np
import pytest

from pulse_audit.fairness.parity import compare
from pulse_audit.stats import gaps

FACES = np.repeat(np.arange(90), 2)
GROUPS = np.repeat([0, 1, 2], 60)


def outcomes(rates, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random(180) < np.repeat(rates, 60)).astype(float)


def test_a_rate_gets_gap_ratio_and_worst_group_from_the_gaps_of_stats():
    values = outcomes([0.9, 0.3, 0.6])
    found = compare(values, FACES, GROUPS, proportion=True, better="higher", seed=1)
    assert set(found) == {"max_gap", "worst_group", "min_ratio"}
    gap = gaps.max_gap(values, FACES, GROUPS, proportion=True, alpha=0.025)
    made = found["max_gap"].estimate
    assert (made.value, made.low, made.high) == (gap.value, gap.fail_bound, gap.pass_bound)
    assert made.low < 0.6 < made.high and found["max_gap"].groups == (0, 1)
    ratio = gaps.min_ratio(values, FACES, GROUPS, proportion=True, alpha=0.025)
    made = found["min_ratio"].estimate
    assert (made.low, made.high) == (ratio.pass_bound, ratio.fail_bound)
    assert found["worst_group"].groups == (1,)


def test_the_fair_end_of_a_gap_between_equals_is_zero():
    found = compare(outcomes([0.6] * 3), FACES, GROUPS, proportion=True, better="higher", seed=0)
    assert found["max_gap"].estimate.low == 0 < found["max_gap"].at_equality
    assert found["min_ratio"].estimate.high == 1


def test_lower_is_better_makes_the_highest_the_worst():
    found = compare(
        outcomes([0.1, 0.5, 0.2]), FACES, GROUPS, proportion=True, better="lower", seed=0
    )
    assert found["worst_group"].groups == (1,)


def test_shifts_get_their_distance_from_zero_and_no_ratio():
    values = np.random.default_rng(0).normal(np.repeat([-3, 1, 0], 60))
    found = compare(values, FACES, GROUPS, proportion=False, better="nearer 0", seed=0)
    assert set(found) == {"max_gap", "max_abs"}
    assert found["max_abs"].estimate.value == pytest.approx(abs(values[:60].mean()))


def test_unmeasured_draws_and_unknown_groups_are_left_out():
    values, groups = outcomes([0.9, 0.3, 0.6]), GROUPS.copy()
    values[:10], groups[170:] = np.nan, -1
    found = compare(values, FACES, groups, proportion=True, better="higher", seed=0)
    assert found["max_gap"].estimate.n_draws == 160


def test_one_group_cannot_be_compared():
    alone = np.zeros(180, dtype=int)
    assert (
        compare(outcomes([0.5] * 3), FACES, alone, proportion=True, better="higher", seed=0) == {}
    )
