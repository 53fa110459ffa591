import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from pulse_audit.stats.sequential import (
    HORIZONS,
    FixedLooks,
    log_capital,
    lower_at_level,
    lower_bound,
    obrien_fleming,
    upper_bound,
)


def test_capital_of_the_first_face_is_the_bet_by_hand():
    # before a face is seen its variance is taken for 1/4
    alpha, planned, mean = 0.05, 400, 0.5
    stakes = [math.sqrt(2 * math.log(20) / (0.25 * part * planned)) for part in HORIZONS]
    wanted = sum(1 + min(stake, 0.9 / mean) * (0.8 - mean) for stake in stakes) / len(stakes)
    found = log_capital([0.8], mean, alpha, planned)
    assert math.exp(found[0]) == pytest.approx(wanted, rel=1e-12)


def test_expected_capital_under_the_hypothesis_is_one():
    # all 2^8 sequences of a fair coin, each with the same chance
    coins = np.array([[number >> place & 1 for place in range(8)] for number in range(256)])
    capitals = [np.exp(log_capital(each, 0.5, 0.05, 8)) for each in coins]
    np.testing.assert_allclose(np.mean(capitals, axis=0), 1.0, rtol=1e-12)


def test_no_face_changes_bets_that_came_before():
    values = np.random.default_rng(0).random(50)
    whole = log_capital(values, 0.4, 0.05, 60)
    np.testing.assert_allclose(log_capital(values[:20], 0.4, 0.05, 60), whole[:20], rtol=1e-12)


def test_capital_falls_in_the_mean_so_that_bounds_are_intervals():
    values = np.random.default_rng(1).random(80)
    found = [log_capital(values, mean, 0.05, 80)[-1] for mean in np.linspace(0.01, 1, 100)]
    assert (np.diff(found) < 0).all()


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_bounds_cover_the_mean_at_every_look(rate):
    # 400 sequences of 200 faces; at 10 %, 40 are expected at most, 60 are 3.3 deviations more
    random, alpha, missed = np.random.default_rng(2), 0.1, np.zeros(2, dtype=int)
    for _ in range(400):
        values = random.binomial(2, rate, 200) / 2
        for side, (each, mean) in enumerate(((values, rate), (1 - values, 1 - rate))):
            missed[side] += log_capital(each, mean, alpha, 200).max() >= math.log(1 / alpha)
    assert (missed <= 60).all()


def test_bounds_enclose_the_mean_and_are_exactly_where_capital_is_enough():
    values = np.random.default_rng(3).beta(3, 2, 300)
    low, high = lower_bound(values, 0.025, 300), upper_bound(values, 0.025, 300)
    assert low < values.mean() < high < low + 0.12
    enough = math.log(1 / 0.025)
    assert log_capital(values, low, 0.025, 300).max() >= enough
    assert log_capital(values, low + 1e-6, 0.025, 300).max() < enough


def test_bounds_only_tighten_and_start_at_the_range():
    values = np.random.default_rng(4).uniform(-1, 1, 60)
    ends = [(lower_bound(values[:n], 0.05, 60, -1, 1), upper_bound(values[:n], 0.05, 60, -1, 1))
            for n in range(0, 61, 10)]  # fmt: skip
    lows, highs = np.array(ends).T
    assert (lows[0], highs[0]) == (-1.0, 1.0)
    assert (np.diff(lows) >= 0).all() and (np.diff(highs) <= 0).all()


def test_bounds_of_differences_are_those_of_rescaled_values():
    values = np.random.default_rng(5).uniform(-0.5, 1, 100)
    scaled = 2 * lower_bound((values + 1) / 2, 0.05, 100) - 1
    assert lower_bound(values, 0.05, 100, -1, 1) == pytest.approx(scaled, abs=1e-8)


@pytest.mark.parametrize("values", [[0.5, 1.1], [math.nan]])
def test_values_outside_the_range_are_refused(values):
    with pytest.raises(ValueError, match="between 0 and 1"):
        lower_bound(values, 0.05, 10)


def test_obrien_fleming_of_five_looks_as_published():
    # Lan and DeMets' O'Brien-Fleming type boundary, two-sided 5 %, as ldbounds and gsDesign print
    found = obrien_fleming([0.2, 0.4, 0.6, 0.8, 1.0], 0.025)
    np.testing.assert_allclose(found, [4.877, 3.357, 2.680, 2.290, 2.031], atol=2e-3)


def test_obrien_fleming_of_one_look_is_the_usual_test():
    assert obrien_fleming([1.0], 0.05)[0] == pytest.approx(-ndtri(0.05), abs=1e-9)


def test_obrien_fleming_spends_its_level():
    # (repeats, looks) sums of a random walk
    looks = np.array([0.1, 0.5, 1.0])
    steps = np.random.default_rng(6).normal(size=(200_000, 3)) * np.sqrt(np.diff(looks, prepend=0))
    critical = obrien_fleming(looks, 0.05)
    beyond = np.cumsum(steps, axis=1) / np.sqrt(looks) > critical
    assert beyond.any(axis=1).mean() == pytest.approx(0.05, abs=0.002)
    spent = 2 * ndtr(ndtri(0.025) / np.sqrt(0.5))
    assert beyond[:, :2].any(axis=1).mean() == pytest.approx(spent, abs=0.001)


@pytest.mark.parametrize("looks", [[], [0.5, 0.5], [0.5, 1.2]])
def test_obrien_fleming_refuses_looks_that_do_not_increase(looks):
    with pytest.raises(ValueError, match="looks must increase"):
        obrien_fleming(looks, 0.05)


@pytest.mark.parametrize("rate", [0.05, 0.6, 0.95])
def test_fixed_looks_are_rarely_ever_wrong(rate):
    rng, schedule, wrong = np.random.default_rng(1), FixedLooks((12, 24, 36, 48, 60), 5), 0
    blocks = np.arange(60)
    for _ in range(400):
        # two draws a face, alike with probability one half
        usual, own = (rng.random((2, 60, 2)) < rate).astype(float)
        faces = np.where(rng.random(60) < 0.5, usual[:, 0], (usual[:, 1] + own[:, 0]) / 2)
        sides = (faces, (0.0, 1.0), rate), (-faces, (-1.0, 0.0), -rate)
        wrong += any(schedule.lower(x, blocks, 0.025, ends) > mean for x, ends, mean in sides)
    # 5 % of 400 are 20; 33 or more have a chance of 0.4 %
    assert wrong < 33
    with pytest.raises(ValueError, match="must lie between"):
        schedule.lower(faces + 1, blocks, 0.025, (0.0, 1.0))


def test_fixed_looks_decide_what_is_far_from_the_limit():
    blocks, values = np.arange(60), np.tile([1.0, 1.0, 1.0, 0.0], 15)
    bounds = [FixedLooks((20, 40, 60), n).lower(values, blocks, 0.05, (0, 1)) for n in (1, 2, 3)]
    assert bounds[0] < bounds[1] < bounds[2] < 0.75
    # at the last look nearly the whole level is left: about the bound of a fixed size
    assert bounds[2] == pytest.approx(lower_at_level(values, 0.05, 0, 1), abs=0.01)
    assert lower_at_level([1.0], 0.05, 0, 1) == 0
