import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pulse_audit.fairness import shift
from pulse_audit.fairness.shift import Draws, entropy, flip_rate
from pulse_audit.stats.intervals import intraclass_correlation, proportion_interval, wilson
from pulse_audit.types import Unavailable

#: 3 groups; faces 0-1 of group 0, 2-3 of group 1, none of group 2; two draws each
SMALL = Draws(
    faces=np.repeat(np.arange(4), 2),
    truth=[0, 0, 0, 0, 1, 1, 1, 1],
    predicted=[0, 0, 1, -1, 0, 0, 1, 2],
    k=3,
)


def values(estimates):
    return [None if e is None else e.value for e in estimates]


def retention_where(condition):
    """Retention among the draws that fulfil a condition; NaN outcomes are left out."""
    outcomes = np.where(condition, SMALL.retained, np.nan)
    return shift.shares(outcomes, SMALL.faces, SMALL.truth, SMALL.k)


def test_shares_are_of_all_draws_and_rows_sum_to_one():
    matrix = [values(row) for row in shift.shift_matrix(SMALL)]
    assert matrix[0] == [0.5, 0.25, 0.0, 0.25]
    assert matrix[1] == [0.5, 0.25, 0.25, 0.0]
    assert matrix[2] == [None] * 4


def test_the_diagonal_is_retention_with_its_interval(planted, matrix):
    draws = planted(np.random.default_rng(0), matrix, 12, 3, 0.5)
    rows = shift.shift_matrix(draws)
    assert [rows[g][g] for g in range(4)] == shift.retention(draws)


def test_retention_conversion_and_not_classified_are_all_there_is(planted, matrix):
    draws = planted(np.random.default_rng(1), matrix, 12, 3, 0.5)
    rows = shift.shift_matrix(draws)
    total = [
        kept.value + lost.value + row[-1].value
        for kept, lost, row in zip(
            shift.retention(draws), shift.conversion(draws), rows, strict=True
        )
    ]
    assert_allclose(total, 1.0)


def test_an_output_without_a_face_counts_against_retention_but_not_given_a_prediction():
    assert values(shift.retention(SMALL)) == [0.5, 0.25, None]
    classified = retention_where(SMALL.predicted != shift.UNCLASSIFIED)
    assert values(classified) == [pytest.approx(2 / 3), 0.25, None]
    assert classified[0].n_draws == 3


def test_retention_given_feasible_leaves_out_the_rest():
    feasible = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=bool)
    conditional = retention_where(feasible)
    assert values(conditional) == [1.0, pytest.approx(1 / 3), None]
    assert [e.n_draws for e in conditional[:2]] == [1, 3]


def test_nothing_measured_gives_no_estimate():
    assert retention_where(np.zeros(8, dtype=bool)) == [None] * 3


def test_intervals_use_the_larger_of_own_and_pooled_correlation(planted, matrix):
    draws = planted(np.random.default_rng(2), matrix, 15, 4, 0.5)
    pooled = intraclass_correlation(draws.retained, draws.faces, draws.truth)
    inside = draws.truth == 1
    expected = proportion_interval(draws.retained[inside], draws.faces[inside], pooled)
    assert shift.retention(draws)[1] == expected


def test_cells_and_gains_cover_the_planted_truth(planted, matrix):
    # 20 faces a group, 3 draws, correlation .5; 300 replicates: standard error 1.3 points at 95 %.
    # At rates of 0 to .05 the intervals are conservative (97 to 100 %).
    rng = np.random.default_rng(3)
    square = matrix[:, :4]
    lost = 1 - np.diag(square) - matrix[:, 4]
    gain = (square.sum(axis=0) - np.diag(square) - lost) / 4
    cells, gains = np.zeros((4, 5)), np.zeros(4)
    for _ in range(300):
        draws = planted(rng, matrix, 20, 3, 0.5)
        rows = shift.shift_matrix(draws)
        cells += [
            [e.low <= t <= e.high for e, t in zip(*pair, strict=True)]
            for pair in zip(rows, matrix, strict=True)
        ]
        found = shift.net_gains(draws)
        gains += [e.low <= t <= e.high for e, t in zip(found, gain, strict=True)]
    assert (cells / 300 >= 0.92).all()
    assert (gains / 300 >= 0.92).all()


def test_the_floor_counts_every_face_once_whatever_its_draws():
    floor = shift.original_baseline([5, 5, 5, 7, 9], [0, 0, 0, 0, 1], [0, 0, 0, 1, 1], 2)
    assert values(shift.retention(floor)) == [0.5, 1.0]
    assert shift.retention(floor)[0].n_faces == shift.retention(floor)[0].n_draws == 2


def test_net_flows_are_differences_of_joint_shares_and_antisymmetric():
    flows = shift.net_flows(SMALL)
    # P(in 1, out 0) = 2/8, P(in 0, out 1) = 1/8: group 0 gains 1/8 from group 1
    assert flows[1][0].value == pytest.approx(1 / 8)
    assert flows[0][1].value == pytest.approx(-1 / 8)
    assert (flows[0][1].low, flows[0][1].high) == pytest.approx(
        (-flows[1][0].high, -flows[1][0].low)
    )
    assert flows[0][0] is None


def test_flows_to_a_group_without_faces_are_known_from_one_side():
    assert shift.net_flows(SMALL)[1][2].value == pytest.approx(1 / 8)


def test_gains_are_outputs_less_inputs_among_the_classified_and_sum_to_zero(planted, matrix):
    draws = planted(np.random.default_rng(4), matrix, 15, 4, 0.5)
    gains = shift.net_gains(draws)
    kept = draws.predicted >= 0
    expected = [
        ((draws.predicted == g).sum() - ((draws.truth == g) & kept).sum()) / len(kept)
        for g in range(4)
    ]
    assert_allclose(values(gains), expected)
    assert sum(values(gains)) == pytest.approx(0)


def test_a_gain_has_width_where_no_loss_was_seen():
    draws = Draws(np.arange(10), [0] * 5 + [1] * 5, [0] * 5 + [1] * 5, 2)
    gain = shift.net_gains(draws)[0]
    assert gain.value == 0 and gain.low < -0.1 and gain.high > 0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([], [], [], 2), "at least one face"),
        (([0, 1], [0], [0], 2), "one number a draw"),
        (([0], [2], [0], 2), "groups must be"),
        (([0], [0], [-2], 2), "groups must be"),
    ],
)
def test_unusable_draws_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Draws(*arguments)


ROW = np.array([0.6, 0.3, 0.1])


def faces_of(rng, n, draws, rows=ROW):
    predicted = (rng.random((n, draws))[..., None] > np.cumsum(rows)).sum(axis=-1)
    faces = np.repeat(np.arange(n), draws)
    return Draws(faces, np.zeros(n * draws), np.minimum(predicted, 2).ravel(), 3)


def test_flip_rate_is_the_share_of_differing_pairs():
    # face 0: 0 0 1 -> 2 of 3 pairs differ; face 1: 2 2 -> none
    estimate = flip_rate(Draws([0, 0, 0, 1, 1], [0] * 5, [0, 0, 1, 2, 2], 3))
    assert estimate.value == pytest.approx(1 / 3)
    assert (estimate.low, estimate.high) == pytest.approx(wilson(2 / 3, 2))
    assert (estimate.n_faces, estimate.n_draws) == (2, 5)


@pytest.mark.parametrize("draws", [2, 5])
def test_flip_rate_is_unbiased_at_any_number_of_draws(draws):
    many = flip_rate(faces_of(np.random.default_rng(0), 20_000, draws))
    assert many.value == pytest.approx(1 - (ROW**2).sum(), abs=0.012)


def test_unclassified_draws_and_faces_with_fewer_than_two_are_left_out():
    estimate = flip_rate(Draws([0, 0, 0, 1, 1], [0] * 5, [0, 1, -1, 2, -1], 3))
    assert (estimate.value, estimate.n_faces, estimate.n_draws) == (1.0, 1, 2)


def test_one_draw_a_face_has_no_diversity():
    single = Draws([0, 1], [0, 1], [0, 1], 2)
    assert isinstance(flip_rate(single), Unavailable)
    assert isinstance(entropy(single, seed=0), Unavailable)
    assert isinstance(flip_rate(Draws([0, 0], [0, 0], [-1, -1], 2)), Unavailable)


def test_entropy_at_two_draws_is_the_flip_rate():
    draws = faces_of(np.random.default_rng(1), 50, 2)
    assert entropy(draws, seed=0).value == pytest.approx(flip_rate(draws).value)


def test_entropy_is_nearer_the_truth_than_the_plug_in():
    draws = faces_of(np.random.default_rng(2), 4000, 5)
    truth = -(ROW * np.log(ROW)).sum()
    counts = np.stack([(draws.predicted.reshape(-1, 5) == g).sum(axis=1) for g in range(3)], 1)
    shares = counts / 5
    plug_in = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1).mean()
    # the first four terms of the series, which is what five draws can estimate without bias
    terms = sum((ROW * (1 - ROW) ** v).sum() / v for v in range(1, 5))
    estimate = entropy(draws, seed=0)
    assert estimate.value == pytest.approx(terms, abs=0.03)
    assert abs(estimate.value - truth) < 0.6 * abs(plug_in - truth)


@pytest.mark.parametrize("n", [20, 60])
def test_intervals_cover_what_they_estimate(n):
    # 300 replicates, standard error 1.3 points
    rng = np.random.default_rng([4, n])
    flips, terms = 1 - (ROW**2).sum(), sum((ROW * (1 - ROW) ** v).sum() / v for v in (1, 2))
    inside = np.zeros(2)
    for replicate in range(300):
        draws = faces_of(rng, n, 3)
        pair = flip_rate(draws), entropy(draws, seed=replicate)
        inside += [e.low <= t <= e.high for e, t in zip(pair, (flips, terms), strict=True)]
    assert (inside / 300 >= 0.915).all()


def test_faces_that_never_flip_have_an_upper_bound():
    same = Draws(np.repeat(np.arange(10), 3), [0] * 30, [0] * 30, 3)
    for estimate in (flip_rate(same), entropy(same, seed=0)):
        assert estimate.value == estimate.low == 0
        assert 0.2 < estimate.high < 1 and math.isfinite(estimate.high)
