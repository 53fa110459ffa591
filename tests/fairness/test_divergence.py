import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import chisquare, entropy

from pulse_audit.fairness.divergence import (
    DIVERGENCES,
    between,
    chebyshev,
    chi2,
    corrected,
    kl,
    reference_shares,
    tv,
    within,
)

COUNTS = np.array([180, 220, 150, 250, 190, 210, 200])
SHARES = COUNTS / COUNTS.sum()
UNIFORM = np.full(7, 1 / 7)

#: The formulas of fairness.py of Laszkiewicz et al. (2024), written out from facts/fairness.md.
#: Its total variation lacks the factor 1/2.
PUBLISHED = {
    "chi2": lambda p: len(p) * ((p - 1 / len(p)) ** 2).sum(),
    "kl": lambda p: (p * np.log(p)).sum() + np.log(len(p)),
    "tv": lambda p: np.abs(p - 1 / len(p)).sum() / 2,
    "chebyshev": lambda p: np.abs(p - 1 / len(p)).max(),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_published_formulas_agree_up_to_the_factor_of_tv(name):
    ours = DIVERGENCES[name](SHARES, UNIFORM)
    assert ours == pytest.approx(PUBLISHED[name](SHARES))


def test_chi2_and_kl_agree_with_scipy_against_any_reference():
    reference = np.array([0.3, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1])
    statistic = chisquare(COUNTS, reference * COUNTS.sum()).statistic
    assert chi2(SHARES, reference) == pytest.approx(statistic / COUNTS.sum())
    assert kl(SHARES, reference) == pytest.approx(entropy(SHARES, reference))


def test_one_class_only_gives_the_closed_forms():
    single = np.array([1.0, 0, 0, 0, 0, 0, 0])
    found = [float(f(single, UNIFORM)) for f in (chi2, kl, tv, chebyshev)]
    assert_allclose(found, [6, np.log(7), 6 / 7, 6 / 7])


def test_empty_classes_of_the_reference_get_half_a_face():
    assert_allclose(reference_shares([3, 0, 1]), np.array([3.5, 0.5, 1.5]) / 5.5)
    assert_allclose(reference_shares([3, 1]), [0.75, 0.25])
    assert np.isfinite(kl([0.2, 0.5, 0.3], reference_shares([3, 0, 1])))


def test_they_work_on_many_points_at_once():
    points = np.stack([SHARES, UNIFORM])
    for divergence in DIVERGENCES.values():
        both = divergence(points, UNIFORM)
        assert both.shape == (2,) and both[1] == pytest.approx(0, abs=1e-15)


def test_between_two_estimates_kl_is_finite_and_chi2_is_bowkers():
    matrix = np.array([[30, 5, 0], [2, 40, 8], [4, 1, 10]])
    p, q = (m.ravel() / matrix.sum() for m in (matrix, matrix.T))
    upper = [(0, 1), (0, 2), (1, 2)]
    bowker = sum(
        (matrix[i, j] - matrix[j, i]) ** 2 / (matrix[i, j] + matrix[j, i]) for i, j in upper
    )
    both = np.concatenate([p, q])
    assert between("chi2")(both) == pytest.approx(bowker / matrix.sum())
    assert between("tv")(both) == pytest.approx(np.abs(p - q).sum() / 2)
    assert 0 < between("kl")(both) < np.log(2)


def noise_of(rng, shares, n, replicates=2000):
    made = rng.multinomial(n, shares, replicates) / n
    return made - made.mean(axis=0)


def test_the_chi2_excess_taken_off_is_k_minus_1_over_n_under_fairness():
    made = corrected(
        lambda p: chi2(p, UNIFORM),
        UNIFORM,
        UNIFORM,
        noise_of(np.random.default_rng(0), UNIFORM, 100),
    )
    # value is clipped at 0, so read the excess from a point away from the reference
    point = np.array([0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    off = corrected(
        lambda p: chi2(p, UNIFORM), point, UNIFORM, noise_of(np.random.default_rng(1), UNIFORM, 100)
    )
    assert off.plug_in - off.value == pytest.approx(6 / 100, rel=0.05)
    assert made.value == 0 and made.low == 0 and made.high > 0


def test_intervals_reach_zero_under_fairness_and_leave_it_when_it_is_far():
    rng = np.random.default_rng(2)
    counts = rng.multinomial(200, UNIFORM) / 200
    fair = corrected(lambda p: tv(p, UNIFORM), counts, UNIFORM, noise_of(rng, counts, 200))
    assert fair.low == 0 < fair.high
    skewed = np.array([0.7, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05])
    unfair = corrected(lambda p: tv(p, UNIFORM), skewed, UNIFORM, noise_of(rng, skewed, 200))
    assert 0.4 < unfair.low < tv(skewed, UNIFORM) < unfair.high < 0.7


def test_bounds_between_intervals_of_shares_contain_every_point_of_them():
    rng = np.random.default_rng(0)
    reference = np.array([0.2, 0.3, 0.5])
    low, high = np.array([0.25, 0.1, 0.3]), np.array([0.4, 0.28, 0.6])
    inside = rng.dirichlet(np.ones(3), 200_000)
    inside = inside[((inside >= low) & (inside <= high)).all(axis=1)]
    for kind in ("chi2", "tv", "chebyshev"):
        values = DIVERGENCES[kind](inside, reference)
        least, greatest = within(low, high, reference, kind)
        assert least - 1e-12 <= values.min() and values.max() <= greatest + 1e-12
    # the least total variation is that of the nearest shares
    nearest = DIVERGENCES["tv"](inside, reference).min()
    assert within(low, high, reference, "tv")[0] == pytest.approx(nearest, abs=0.01)
    with pytest.raises(ValueError, match="no bounds of kl"):
        within(low, high, reference, "kl")
