"""Raters crossed with faces: the analysis of variance, and coverage where the truth is known."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import ndtr

from pulse_audit.stats.crossed import crossed, crossed_mean, crossed_share

#: Standard deviations of raters, faces and what neither explains.
MIXTURES = ((0.6, 0.6, 0.6), (0.0, 0.6, 0.6), (0.6, 0.0, 0.6), (1.0, 0.3, 0.3), (0.2, 1.0, 0.3))


def panel(rng, raters, faces, deviations, missing):
    """Ratings around 0, with their raters and faces; some are missing."""
    of_rater, of_face, rest = deviations
    y = of_rater * rng.standard_normal((raters, 1)) + of_face * rng.standard_normal((1, faces))
    y = y + rest * rng.standard_normal((raters, faces))
    kept = rng.random(y.shape) >= missing
    rater, face = np.indices(y.shape)
    return y[kept], rater[kept], face[kept]


def test_the_variance_is_that_of_the_two_way_analysis_of_variance():
    y, r, f = panel(np.random.default_rng(0), 5, 12, (0.6, 0.6, 0.6), 0)
    table, total = y.reshape(5, 12), y.mean()
    of_rater = 12 * np.square(table.mean(axis=1) - total).sum() / 4
    of_face = 5 * np.square(table.mean(axis=0) - total).sum() / 11
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + total
    rest = np.square(rest).sum() / 44
    found = crossed(y, r, f)
    assert found.variance == pytest.approx((of_rater + of_face - rest) / 60)
    expected = (of_rater + of_face - rest) ** 2 / (of_rater**2 / 4 + of_face**2 / 11 + rest**2 / 44)
    assert found.freedom == pytest.approx(expected)
    # nor does the order of the ratings matter
    mixed = np.random.default_rng(1).permutation(60)
    assert crossed(y[mixed], r[mixed], f[mixed]).variance == pytest.approx(found.variance)


@pytest.mark.parametrize("points", (False, True))
def test_intervals_of_means_cover_in_the_worst_cell(points):
    rng, coverage = np.random.default_rng(2), []
    for raters, faces, mixture, missing in itertools.product(
        (3, 5, 20), (7, 40), MIXTURES, (0, 0.1)
    ):
        deviation = math.hypot(*mixture)
        # expectation of a rating 2.6 + normal error, rounded to a whole step from 1 to 5
        truth = 2.6
        if points:
            truth = 5 - ndtr((np.arange(1, 5) + 0.5 - 2.6) / deviation).sum()
        hits = []
        for _ in range(200):
            y, r, f = panel(rng, raters, faces, mixture, missing)
            y = np.clip(np.round(2.6 + y), 1, 5) if points else 2.6 + y
            found = crossed_mean(y, r, f, (1, 5) if points else (-math.inf, math.inf))
            hits.append(found.low <= truth <= found.high)
        coverage.append(np.mean(hits))
    # the worst of 60 cells of 200 panels, each with a standard error of 1.5 to 2 points
    assert min(coverage) > 0.89 and np.mean(coverage) > 0.945


def test_intervals_of_shares_cover_in_the_worst_cell():
    rng, coverage = np.random.default_rng(3), []
    for raters, faces, mixture, shift in itertools.product((5, 20), (7, 40), MIXTURES, (0, 0.8)):
        truth, hits = ndtr(shift / math.hypot(*mixture)), []
        for _ in range(200):
            y, r, f = panel(rng, raters, faces, mixture, 0.05)
            found = crossed_share(y + shift > 0, r, f)
            hits.append(found.low <= truth <= found.high)
        coverage.append(np.mean(hits))
    assert min(coverage) > 0.89 and np.mean(coverage) > 0.945


def test_what_treats_ratings_as_independent_does_not_cover():
    # the same panels with the usual standard error: why raters are a sample too
    rng, hits = np.random.default_rng(4), []
    for _ in range(300):
        y, r, f = panel(rng, 5, 40, MIXTURES[0], 0)
        hits.append(abs(y.mean()) < 1.96 * y.std(ddof=1) / math.sqrt(len(y)))
    assert np.mean(hits) < 0.5


def test_few_raters_and_answers_that_all_agree():
    one = crossed_mean([3, 4, 5], [0, 0, 0], [0, 1, 2])
    assert one.value == 4 and math.isnan(one.low) and one.method == "no interval: one rater"
    assert crossed_share([1, 0], [0, 1], [7, 7]).method == "no interval: one face"
    flat = crossed_mean([5] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2, (1, 5))
    assert flat.low == flat.high == 5 and flat.method == "no width: all ratings agree"
    # four raters and six faces that all prefer one arm are not four times six answers
    r, f = np.divmod(np.arange(24), 6)
    found = crossed_share(np.ones(24), r, f)
    assert found.high == 1 and 0.2 < found.low < 0.4
    # one degree of freedom: nearly nothing is known
    pair = crossed_share([1, 0, 1, 1, 0, 0], [0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1])
    assert pair.low < 0.05 and pair.high > 0.95
    # two raters of different faces share nothing: neither variance is taken away
    apart = crossed([1, 2, 4, 5], [0, 0, 1, 1], [0, 1, 2, 3])
    assert apart.variance >= 2.25 and apart.freedom >= 1


def test_bad_ratings_are_refused():
    for values, raters in (([], []), ([1.0, 2.0], [0]), ([math.nan], [0])):
        with pytest.raises(ValueError, match="ratings|rating"):
            crossed(values, raters, [0] * len(values))
    with pytest.raises(ValueError, match="0 or 1"):
        crossed_share([0.5], [0], [0])
