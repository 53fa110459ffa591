"""Partial identification under drift: closed forms, a brute-force search, and what is refused."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import xlog1py, xlogy
from scipy.stats import norm

from pulse_audit.fairness.drift import (
    FEWEST_LABELLED,
    accuracy_drift,
    bounds_under_drift,
    drifted,
    tipping_point,
)
from pulse_audit.types import Estimate, Unavailable

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


GROUPS = ["White", "Black", "Indian"]
PHOTOS = np.array([[160, 30, 10], [20, 170, 10], [40, 20, 140]])


def labelled(rng, matrix, per_group, draws=1):
    """Faces, groups that people see, and predictions by a confusion matrix on outputs."""
    seen = np.repeat(np.arange(3), per_group * draws)
    predicted = (rng.random(len(seen))[:, None] > np.cumsum(matrix, axis=1)[seen]).sum(axis=1)
    return np.repeat(np.arange(3 * per_group), draws), seen, np.minimum(predicted, 2)


def test_a_known_drift_of_the_worst_group_is_recovered():
    (on_outputs,) = drifted(PHOTOS / 200, [[0.0, -0.25, 0.1]])
    outputs = labelled(np.random.default_rng(0), on_outputs, 2000)
    found = accuracy_drift(*outputs, 100 * PHOTOS, GROUPS)
    assert [each.value for each in found.drift] == pytest.approx([0, -0.25, 0.1], abs=0.03)
    assert [each.value for each in found.accuracy] == pytest.approx([0.8, 0.6, 0.8], abs=0.03)
    assert found.largest.value == pytest.approx(0.25, abs=0.03)
    assert 0.2 < found.largest.low < 0.25 < found.largest.high < 0.3


def p_value(x1, n1, x2, n2, difference):
    """Score test of p1 - p2 = difference, the restricted likelihood maximised numerically."""

    def loss(q):
        p = q + difference
        first = xlogy(x1, p) + xlog1py(n1 - x1, -p)
        return -(first + xlogy(x2, q) + xlog1py(n2 - x2, -q))

    bounds = (max(0.0, -difference), min(1.0, 1 - difference))
    q = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    p = q + difference
    variance = (p * (1 - p) / n1 + q * (1 - q) / n2) * (n1 + n2) / (n1 + n2 - 1)
    return 2 * norm.sf(abs(x1 / n1 - x2 / n2 - difference) / np.sqrt(variance))


def test_with_one_draw_a_face_intervals_end_where_the_score_test_rejects():
    outputs = labelled(np.random.default_rng(1), MATRIX, 40)
    found = accuracy_drift(*outputs, PHOTOS, GROUPS, families=2)
    extremes = []
    for group, drift in enumerate(found.drift):
        hits = int((outputs[2][outputs[1] == group] == group).sum())
        counts = (hits, 40, PHOTOS[group, group], PHOTOS[group].sum())
        ends = [p_value(*counts, end) for end in (drift.low, drift.high)]
        assert ends == pytest.approx([0.05, 0.05], rel=1e-4)
        extremes += [p_value(*counts, end) for end in (found.largest.high, -found.largest.high)]
    # three groups and two arms: the group that reaches farthest is rejected at a sixth of the level
    assert max(extremes) == pytest.approx(0.05 / 6, rel=1e-4)


def test_draws_of_one_face_count_as_far_as_they_differ():
    outputs = labelled(np.random.default_rng(2), MATRIX, 30)
    once = accuracy_drift(*outputs, PHOTOS, GROUPS)
    copied = accuracy_drift(*(np.repeat(part, 5) for part in outputs), PHOTOS, GROUPS)
    assert [each.n_draws for each in copied.drift] == [150, 150, 150]
    for one, five in zip(once.drift, copied.drift, strict=True):
        assert (five.n_faces, five.low, five.high) == pytest.approx((30, one.low, one.high))


def test_a_group_with_few_labels_has_no_drift_and_says_how_many_there_are():
    outputs = labelled(np.random.default_rng(3), MATRIX, 40)
    kept = (outputs[1] != 2) | (np.arange(120) >= 117)
    found = accuracy_drift(*(part[kept] for part in outputs), PHOTOS, GROUPS)
    reason = "only 3 outputs of group Indian were labelled"
    assert found.accuracy[2] == found.drift[2] == found.largest == Unavailable(reason)
    assert isinstance(found.drift[0], Estimate)
    # many draws of few faces are no better
    faces = outputs[0].copy()
    faces[outputs[1] == 2] = 999
    found = accuracy_drift(faces, *outputs[1:], PHOTOS, GROUPS)
    assert found.largest.reason == "the 40 labelled outputs of group Indian are of only 1 faces"
    none = accuracy_drift([], [], [], PHOTOS, GROUPS)
    assert none.largest.reason == "only 0 outputs of group White were labelled"
    assert FEWEST_LABELLED == 10


def test_a_group_without_photos_has_an_accuracy_and_no_drift():
    outputs, photos = labelled(np.random.default_rng(4), MATRIX, 40), PHOTOS.copy()
    photos[1] = 0
    found = accuracy_drift(*outputs, photos, GROUPS)
    assert isinstance(found.accuracy[1], Estimate)
    assert found.largest == Unavailable("no photo of group Black was classified")
