"""The hierarchical model recovers known rows, pools alike groups and leaves large ones alone."""

import numpy as np
import pytest

from pulse_audit.calibration.apparent import draws_of, population_rows, with_unclassified
from pulse_audit.fairness.hierarchical import hierarchical_shift
from pulse_audit.fairness.shift import Draws


def cells(draws, seed=0):
    """Ends, values and weights of the prior: (k, k + 1) each."""
    rows = hierarchical_shift(draws, seed=seed, samples=1000)
    return tuple(
        np.array([[part(cell) for cell in row] for row in rows])
        for part in (
            lambda cell: cell.estimate.low,
            lambda cell: cell.estimate.value,
            lambda cell: cell.estimate.high,
            lambda cell: cell.shrunk,
        )
    )


def observed(draws):
    counts = np.zeros((draws.k, draws.k + 1))
    np.add.at(counts, (draws.truth, draws.predicted), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def test_error_is_reduced_and_intervals_cover_on_average():
    # 30 replicates of 56 cells of 10 faces, of groups from one population
    random, ours, raw, inside = np.random.default_rng(0), [], [], []
    for seed in range(30):
        matrix = with_unclassified(0.05)
        matrix[:, :-1] = 0.95 * population_rows(random)
        draws = draws_of(random, matrix, 10, 2)
        low, value, high, _ = cells(draws, seed)
        ours.append(np.square(value - matrix).mean())
        raw.append(np.square(observed(draws) - matrix).mean())
        inside.append(((low <= matrix) & (matrix <= high)).mean())
    assert np.mean(ours) < 0.7 * np.mean(raw)
    assert 0.89 <= np.mean(inside) <= 0.97


def test_rows_sum_to_one_and_values_lie_between_their_ends():
    draws = draws_of(np.random.default_rng(1), with_unclassified(0.05), 8, 2)
    low, value, high, shrunk = cells(draws)
    np.testing.assert_allclose(value.sum(axis=1), 1)
    assert (low <= value).all() and (value <= high).all() and (low >= 0).all() and (high <= 1).all()
    assert ((shrunk > 0) & (shrunk < 1)).all()


def test_many_faces_leave_the_planted_matrix_where_it_is():
    matrix = with_unclassified(0.05)
    _, value, _, shrunk = cells(draws_of(np.random.default_rng(2), matrix, 2000, 2))
    np.testing.assert_allclose(value, matrix, atol=0.03)
    assert shrunk.max() < 0.05


def test_alike_groups_are_pooled_more_than_different_ones():
    random, k = np.random.default_rng(3), 7
    alike = np.column_stack([0.95 * (0.6 * np.eye(k) + 0.4 / k), np.full(k, 0.05)])
    near = cells(draws_of(random, alike, 10, 2))[3].mean()
    far = cells(draws_of(random, with_unclassified(0.05), 10, 2))[3].mean()
    assert near > far + 0.15


def test_a_group_without_faces_has_no_row_and_two_groups_are_too_few():
    truth = np.repeat([0, 1, 3], 6)
    rows = hierarchical_shift(Draws(np.arange(18), truth, truth, 4), seed=0)
    assert rows[2] == [None] * 5 and rows[0][0].estimate.value > 0.7
    with pytest.raises(ValueError, match="nothing to pool"):
        hierarchical_shift(Draws(np.arange(12), truth[:12], truth[:12], 4), seed=0)
