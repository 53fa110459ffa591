"""Partial identification under drift: closed forms, a brute-force search, and what is refused."""

import numpy as np
import pytest

from pulse_audit.fairness.drift import bounds_under_drift, drifted, tipping_point

MATRIX = np.array([[0.8, 0.15, 0.05], [0.1, 0.85, 0.05], [0.2, 0.1, 0.7]])
OBSERVED = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.2, 0.1, 0.7]])


def cell(i, j):
    return lambda matrices: (OBSERVED @ np.linalg.inv(matrices))[:, i, j]


def test_errors_keep_their_proportions_and_rows_sum_to_one():
    (matrix,) = drifted(MATRIX, [[-0.1, 0.05, 0.5]])
    assert matrix.sum(axis=1) == pytest.approx(1)
    assert matrix.diagonal() == pytest.approx([0.7, 0.9, 1.0])
    assert matrix[0, 1] / matrix[0, 2] == pytest.approx(3)
    # a group without errors makes all others alike
    (even,) = drifted(np.eye(3), [[-0.2, 0, 0]])
    assert even[0] == pytest.approx([0.8, 0.1, 0.1])


def test_two_groups_agree_with_the_closed_form():
    # retention of group 0: (q - (1 - b)) / (a + b - 1)
    matrix, q, d = np.array([[0.9, 0.1], [0.2, 0.8]]), 0.6, 0.05

    def retention(matrices):
        return (np.array([q, 1 - q]) @ np.linalg.inv(matrices))[:, 0]

    low, high = bounds_under_drift(retention, matrix, d)
    ends = [(q - (1 - b)) / (a + b - 1) for a in (0.9 - d, 0.9 + d) for b in (0.8 - d, 0.8 + d)]
    assert (low, high) == pytest.approx((min(ends), max(ends)))


@pytest.mark.parametrize("quantity", [cell(1, 0), cell(2, 2), cell(0, 2)])
def test_no_drift_inside_the_box_leaves_the_bounds(quantity):
    low, high = bounds_under_drift(quantity, MATRIX, 0.08)
    inside = np.random.default_rng(0).uniform(-0.08, 0.08, (4000, 3))
    values = quantity(drifted(MATRIX, inside))
    assert low <= values.min() and values.max() <= high
    # and they are attained: some draws come near
    assert values.min() - low < 0.15 * (high - low)


def test_the_tipping_point_is_where_the_bound_reaches_the_sampling_error():
    error = 0.1
    drift = tipping_point(cell(1, 0), MATRIX, error)
    assert 0 < drift < 0.5
    assert bounds_under_drift(cell(1, 0), MATRIX, drift)[0] >= error
    assert bounds_under_drift(cell(1, 0), MATRIX, drift + 0.002)[0] < error
    # a larger sampling error tips earlier; a claim that does not hold tips at once
    assert tipping_point(cell(1, 0), MATRIX, 0.2) < drift
    assert tipping_point(cell(1, 0), MATRIX, 0.9) == 0


def test_a_claim_that_no_drift_undoes_gets_the_largest_one():
    sure = np.array([[0.0, 1.0], [0.0, 1.0]])
    almost = tipping_point(
        lambda matrices: (sure @ np.linalg.inv(matrices))[:, 0, 1], np.eye(2), 0.1, most=0.2
    )
    assert almost == 0.2


@pytest.mark.parametrize(("groups", "drift"), [(13, 0.1), (2, -0.1), (2, 1.1)])
def test_too_many_groups_and_impossible_drifts_are_refused(groups, drift):
    with pytest.raises(ValueError, match="at most 12"):
        bounds_under_drift(lambda m: m[:, 0, 0], np.eye(groups), drift)
