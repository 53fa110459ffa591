import math

import numpy as np
import pytest

from pulse_audit.fairness.diversity import entropy, flip_rate
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import wilson
from pulse_audit.types import Unavailable

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
