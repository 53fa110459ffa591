import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, chi2_contingency, f_oneway, permutation_test
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar

from pulse_audit.stats.tests import equal_proportions, homogeneity, mcnemar, paired_permutation


def pairs(won, lost, tied=5):
    """One draw a face: the first arm alone succeeds ``won`` times, the second ``lost`` times."""
    first = [1] * won + [0] * lost + [1] * tied
    return range(won + lost + tied), first, [0] * won + [1] * lost + [1] * tied


@pytest.mark.parametrize(("won", "lost"), [(1, 0), (3, 9), (10, 10), (40, 22)])
def test_one_draw_a_face_is_mcnemar_s_exact_test(won, lost):
    exact = mcnemar(*pairs(won, lost))
    assert exact.p == pytest.approx(reference_mcnemar([[0, won], [lost, 5]], exact=True).pvalue)
    assert exact.p == pytest.approx(binomtest(won, won + lost).pvalue)
    plain = reference_mcnemar([[0, won], [lost, 5]], exact=False, correction=False)
    assert exact.statistic == pytest.approx(plain.statistic)
    assert (exact.n_faces, exact.n_draws) == (won + lost + 5, won + lost + 5)


def test_mid_p_leaves_out_half_of_what_is_as_likely():
    result = mcnemar(*pairs(3, 9), mid_p=True)
    assert result.p == pytest.approx(2 * binom.cdf(3, 12, 0.5) - binom.pmf(3, 12, 0.5))
    assert result.method == "McNemar by face, mid-p"


def test_faces_flip_with_all_their_draws():
    # wins 2, 1, -1 of three faces: sums +-2 +-1 +-1; |sum| >= 2 in 6 of 8, |sum| = 4 in 2
    faces = [0, 0, 1, 2]
    result = mcnemar(faces, [1, 1, 1, 0], [0, 0, 0, 1])
    assert result.p == pytest.approx(6 / 8)
    assert result.statistic == pytest.approx(4 / 6)  # (2 + 1 - 1)^2 / (4 + 1 + 1)


def test_arms_that_never_differ_have_p_one():
    result = mcnemar([0, 1], [1, 0], [1, 0])
    assert result.p == 1.0
    assert math.isnan(result.statistic)


def nested_pair(rng, faces, draws):
    """Two arms of equal rates: a face's own rate, and draws that differ between arms."""
    rates = rng.beta(0.6, 0.6, (faces, 1))
    return rng.random((2, faces, draws)) < rates


def test_size_of_mcnemar_with_nested_draws():
    # 1,500 audits of 25 faces x 3 draws: standard error .5 points at 5 %; an exact test is below
    rng, faces = np.random.default_rng(1), np.repeat(np.arange(25), 3)
    p = [mcnemar(faces, *nested_pair(rng, 25, 3).reshape(2, -1)).p for _ in range(1500)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.06


def conditional_size(n, mid_p):
    """Chance of rejection at 5 % given that n faces differ between the arms."""
    rejected = [mcnemar(*pairs(won, n - won), mid_p=mid_p).p <= 0.05 for won in range(n + 1)]
    return binom.pmf(np.arange(n + 1), n, 0.5)[rejected].sum()


def test_exact_size_at_the_least_favourable_number_of_differing_faces():
    assert max(conditional_size(n, mid_p=False) for n in range(1, 41)) <= 0.05


def test_exact_size_of_mid_p_where_at_most_nine_in_ten_faces_differ():
    sizes = np.array([0.0] + [conditional_size(n, mid_p=True) for n in range(1, 41)])
    of_forty = [binom.pmf(np.arange(41), 40, share) @ sizes for share in (0.1, 0.3, 0.6, 0.9)]
    assert 0.04 <= max(of_forty) <= 0.055


def test_all_swaps_of_few_faces_agree_with_scipy():
    rng = np.random.default_rng(2)
    first, second = rng.normal(0.4, 1, 8), rng.normal(0, 1, 8)
    for alternative in ("two-sided", "greater", "less"):
        expected = permutation_test(
            (first, second),
            lambda a, b, axis: np.mean(a - b, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
            alternative=alternative,
        )
        result = paired_permutation(range(8), first, second, seed=0, alternative=alternative)
        assert result.p == pytest.approx(expected.pvalue)
        assert result.statistic == pytest.approx(expected.statistic)


def test_random_swaps_approach_all_swaps():
    rng = np.random.default_rng(3)
    first, second, faces = rng.normal(0.5, 1, 12), rng.normal(0, 1, 12), np.arange(12)
    complete = paired_permutation(faces, first, second, seed=0)
    # a face that never differs makes it 13 faces, and changes no sum
    swapped = paired_permutation(range(13), [*first, 0.0], [*second, 0.0], seed=0)
    assert "random" in swapped.method and "all" in complete.method
    assert swapped.p == pytest.approx(complete.p, abs=4 * math.sqrt(complete.p / 9999))


def test_swaps_of_many_faces_are_made_in_blocks():
    values = np.random.default_rng(4).normal(size=30_000)
    result = paired_permutation(range(30_000), values, -values, seed=0, replicates=300)
    assert 1 / 301 <= result.p <= 1


def test_a_difference_between_arms_is_found():
    rng, faces = np.random.default_rng(5), np.repeat(np.arange(40), 2)
    base = np.repeat(rng.normal(0, 3, 40), 2)
    shifted = base + 0.5 + rng.normal(0, 0.5, 80)
    assert paired_permutation(faces, shifted, base, seed=0).p <= 0.001
    assert paired_permutation(faces, shifted, base, seed=0, alternative="less").p > 0.99


def test_size_of_homogeneity_when_groups_are_alike():
    # 4 groups of 15 faces x 3 draws, rate .85 with ICC .5: 400 audits, standard error 1.1 points
    rng = np.random.default_rng(6)
    faces, groups = np.repeat(np.arange(60), 3), np.repeat(np.arange(4), 45)
    rejected = 0
    for replicate in range(400):
        outcomes = rng.random((60, 3)) < rng.beta(0.85, 0.15, (60, 1))
        p = homogeneity(outcomes.ravel(), faces, groups, seed=replicate, replicates=199).p
        rejected += p <= 0.05
    assert 0.02 <= rejected / 400 <= 0.08


def test_size_of_homogeneity_when_only_correlation_and_size_differ():
    # rate .5 everywhere, ICC .05 with 80 faces against ICC .95 with 20: the hard way round
    rng = np.random.default_rng(7)
    faces = np.repeat(np.arange(100), 4)
    groups = np.repeat([0, 1], [320, 80])
    strength = np.repeat([1 / 0.05 - 1, 1 / 0.95 - 1], [80, 20])[:, None] / 2
    rejected = 0
    for replicate in range(400):
        outcomes = rng.random((100, 4)) < rng.beta(strength, strength)
        p = homogeneity(outcomes.ravel(), faces, groups, seed=replicate, replicates=199).p
        rejected += p <= 0.05
    assert 0.02 <= rejected / 400 <= 0.085


def test_size_of_homogeneity_when_a_small_group_may_show_no_success():
    # rate .1: 80 faces of ICC .05, and 20 of ICC .95 of which one sample in eight has no success;
    # taking their correlation from the large group would reject 12 % of the time
    rng, rejected = np.random.default_rng(9), 0
    faces, groups = np.repeat(np.arange(100), 4), np.repeat([0, 1], [320, 80])
    strength = np.repeat([1 / 0.05 - 1, 1 / 0.95 - 1], [80, 20])[:, None]
    for replicate in range(400):
        outcomes = rng.random((100, 4)) < rng.beta(0.1 * strength, 0.9 * strength)
        p = homogeneity(outcomes.ravel(), faces, groups, seed=replicate, replicates=199).p
        rejected += p <= 0.05
    assert rejected / 400 <= 0.06


def test_homogeneity_resembles_the_classical_tests_where_those_hold():
    rng = np.random.default_rng(8)
    groups = np.repeat([0, 1, 2], 80)
    outcomes = rng.random(240) < np.repeat([0.5, 0.62, 0.66], 80)
    table = [np.bincount(outcomes[groups == g], minlength=2) for g in range(3)]
    result = homogeneity(outcomes, range(240), groups, seed=0)
    assert result.p == pytest.approx(chi2_contingency(table, correction=False).pvalue, abs=0.05)
    values = rng.normal(0, 1, 240) + np.repeat([0, 0.1, 0.3], 80)
    expected = f_oneway(*(values[groups == g] for g in range(3)), equal_var=False)
    assert homogeneity(values, range(240), groups, seed=0).p == pytest.approx(
        expected.pvalue, abs=0.03
    )


def test_equal_proportions_at_one_draw_a_face_is_pearson_s_chi_square():
    rng = np.random.default_rng(8)
    groups = np.repeat([0, 1, 2], 80)
    outcomes = rng.random(240) < np.repeat([0.5, 0.62, 0.66], 80)
    table = [np.bincount(outcomes[groups == g], minlength=2) for g in range(3)]
    expected = chi2_contingency(table, correction=False)
    result = equal_proportions(outcomes, range(240), groups)
    assert (result.statistic, result.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_size_of_equal_proportions_where_correlations_differ_and_rates_are_low():
    # rate .05, ICC .9 beside .1, 20 and 40 faces: the permutation test rejects half of these
    rng = np.random.default_rng(9)
    sizes, weights = [20, 40] * 3, [1 / icc - 1 for icc in (0.9, 0.1, 0.5, 0.1, 0.9, 0.5)]
    faces, groups = np.repeat(np.arange(180), 5), np.repeat(np.arange(6), np.array(sizes) * 5)
    weight = np.repeat(weights, sizes)[:, None]
    rejected = 0
    for _ in range(400):
        outcomes = rng.random((180, 5)) < rng.beta(0.05 * weight, 0.95 * weight)
        rejected += equal_proportions(outcomes.ravel(), faces, groups).p <= 0.05
    assert rejected / 400 <= 0.07


def test_proportions_that_all_agree_do_not_differ():
    assert equal_proportions([1, 1, 1, 1], [0, 1, 2, 3], [0, 0, 1, 1]).p == 1
    assert math.isnan(equal_proportions([1, 0], [0, 1], [1, 1]).p)


def test_homogeneity_needs_two_groups_of_two_faces():
    result = homogeneity([1, 0, 1], [0, 1, 2], [0, 0, 1], seed=0)
    assert math.isnan(result.p) and result.method == "fewer than two groups"
    assert result.n_faces == 2


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match="must be 0 or 1"):
        mcnemar([0, 1], [0.5, 1], [0, 1])
    with pytest.raises(ValueError, match="must be finite"):
        paired_permutation([0, 1], [math.nan, 1], [0, 1], seed=0)
    with pytest.raises(ValueError, match="a face is in two groups"):
        homogeneity([1, 0], [0, 0], [0, 1], seed=0)
    with pytest.raises(ValueError, match="groups must be whole numbers"):
        homogeneity([1, 0], [0, 1], [0, -1], seed=0)
