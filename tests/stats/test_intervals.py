import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binom
from statsmodels.stats.proportion import proportion_confint

from pulse_audit.stats.intervals import (
    clopper_pearson,
    cluster_totals,
    intraclass_correlation,
    proportion_interval,
    wilson,
)


def nested_outcomes(rng, shape, draws, icc, rate):
    """Beta-binomial draws, (*shape, draws): within-face correlation exactly icc."""
    strength = 1 / icc - 1
    rates = rng.beta(rate * strength, (1 - rate) * strength, shape)
    return (rng.random((*shape, draws)) < rates[..., None]).astype(float)


@pytest.mark.parametrize(("successes", "n"), [(0, 7), (1, 20), (10, 20), (63, 70), (70, 70)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_agrees_with_statsmodels(successes, n, confidence):
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert_allclose(wilson(successes, n, confidence), expected, atol=1e-12)


def test_wilson_takes_fractional_sample_sizes():
    expected = proportion_confint(3.3, 12.7, method="wilson")
    assert_allclose(wilson(3.3, 12.7), expected, atol=1e-12)


def test_wilson_ends_are_exact_at_the_boundary():
    assert wilson(0, 20)[0] == 0.0
    assert wilson(20, 20)[1] == 1.0


@pytest.mark.parametrize("arguments", [(0, 0), (-1, 5), (6, 5), (1, 5, 1.0), (float("nan"), 5)])
def test_wilson_refuses_impossible_counts(arguments):
    with pytest.raises(ValueError, match="need 0 <= successes <= n"):
        wilson(*arguments)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_exact_intervals_agree_with_statsmodels(confidence):
    successes, n = np.array([0, 1, 10, 63.5, 70, 0]), np.array([7, 20, 20, 70.25, 70, 0.4])
    expected = proportion_confint(successes, n, alpha=1 - confidence, method="beta")
    assert_allclose(clopper_pearson(successes, n, confidence), expected, atol=1e-12)
    assert clopper_pearson(0, 7)[0] == 0 and clopper_pearson(7, 7)[1] == 1


def test_one_draw_a_face_is_the_plain_wilson_interval():
    outcomes = [1, 0, 0, 1, 0, 0, 0, 0]
    estimate = proportion_interval(outcomes, range(8))
    assert (estimate.low, estimate.high) == wilson(2, 8)
    assert (estimate.n_faces, estimate.n_draws, estimate.method) == (8, 8, "Wilson")


def test_exact_coverage_at_one_draw_is_what_enumeration_gives():
    # 20 faces at rate .05: the interval holds .05 for 0-2 successes, not for 3; so 92.5 %
    inside = [
        low <= 0.05 <= high
        for low, high in (
            (e.low, e.high)
            for k in range(21)
            for e in [proportion_interval([1] * k + [0] * (20 - k), range(20))]
        )
    ]
    coverage = binom.pmf(np.arange(21), 20, 0.05)[inside].sum()
    assert coverage == pytest.approx(0.925, abs=0.0005)


# coverage from facts of an independent simulation; 1,000 replicates here: at a true coverage of
# 95 % the standard error is 0.7 points, so +-2.2 points is 3 of them
@pytest.mark.parametrize(
    ("faces", "draws", "icc", "rate", "expected"),
    [
        (20, 5, 0.5, 0.05, 0.965),
        (20, 5, 0.9, 0.05, 0.95),
        (50, 5, 0.5, 0.05, 0.965),
        (200, 5, 0.5, 0.05, 0.955),
        (20, 5, 0.5, 0.5, 0.95),
    ],
)
def test_coverage_of_seven_groups_with_pooled_correlation(faces, draws, icc, rate, expected):
    rng = np.random.default_rng([faces, draws, int(icc * 10), int(rate * 100)])
    replicates = 1000
    outcomes = nested_outcomes(rng, (replicates, 7, faces), draws, icc, rate)
    clusters = np.repeat(np.arange(7 * faces), draws)
    groups = np.repeat(np.arange(7), faces * draws)
    inside = 0
    for replicate in outcomes:
        pooled = intraclass_correlation(replicate.ravel(), clusters, groups)
        estimate = proportion_interval(replicate[0].ravel(), clusters[: faces * draws], pooled)
        inside += estimate.low <= rate <= estimate.high
    assert inside / replicates == pytest.approx(expected, abs=0.022)


@pytest.mark.parametrize("icc", [0.1, 0.5, 0.9])
def test_correlation_is_recovered_from_beta_binomial_draws(icc):
    outcomes = nested_outcomes(np.random.default_rng(3), (4000,), 5, icc, 0.3)
    clusters = np.repeat(np.arange(4000), 5)
    assert intraclass_correlation(outcomes.ravel(), clusters) == pytest.approx(icc, abs=0.03)


def test_correlation_is_recovered_with_unequal_numbers_of_draws():
    rng = np.random.default_rng(4)
    outcomes = nested_outcomes(rng, (6000,), 8, 0.4, 0.2)
    kept = np.arange(8) < rng.integers(1, 9, 6000)[:, None]
    clusters = np.broadcast_to(np.arange(6000)[:, None], kept.shape)
    assert intraclass_correlation(outcomes[kept], clusters[kept]) == pytest.approx(0.4, abs=0.03)


def test_correlation_matches_the_textbook_mean_squares():
    # 3 faces x 2 draws: MSB = 2/6... face means 1, .5, 0; grand mean .5; SSB = 1, SSW = .5
    outcomes, clusters = [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 2, 2]
    between, within = 1 / 2, 0.5 / 3
    assert intraclass_correlation(outcomes, clusters) == pytest.approx(
        (between - within) / (between + within)
    )


def test_pooling_ignores_differences_between_groups():
    rng = np.random.default_rng(5)
    outcomes = np.concatenate([rng.random(2000) < 0.1, rng.random(2000) < 0.9])
    clusters, groups = np.repeat(np.arange(1000), 4), np.repeat([0, 1], 2000)
    assert intraclass_correlation(outcomes, clusters) > 0.5
    assert intraclass_correlation(outcomes, clusters, groups) < 0.05


@pytest.mark.parametrize(
    ("outcomes", "clusters"),
    [([1, 0, 1], [0, 1, 2]), ([1, 1, 1, 1], [0, 0, 1, 1]), ([1, 0], [0, 0])],
)
def test_correlation_is_none_where_the_data_cannot_tell(outcomes, clusters):
    assert intraclass_correlation(outcomes, clusters) is None


def test_negative_correlation_estimates_become_zero():
    assert intraclass_correlation([1, 0, 1, 0, 1, 0], [0, 0, 1, 1, 2, 2]) == 0.0


def test_equal_outcomes_everywhere_count_each_face_once():
    estimate = proportion_interval([1] * 20, np.repeat(np.arange(10), 2))
    assert (estimate.low, estimate.high) == pytest.approx(wilson(10, 10))
    assert "taken as 1" in estimate.method


def test_pooled_correlation_widens_a_group_that_shows_none():
    outcomes, clusters = [1, 1, 0, 1, 1, 0, 1, 0], np.repeat(np.arange(4), 2)
    own = proportion_interval(outcomes, clusters)
    pooled = proportion_interval(outcomes, clusters, pooled_icc=1.0)
    assert pooled.low < own.low and pooled.high > own.high
    assert (pooled.low, pooled.high) == pytest.approx(wilson(2.5, 4))


def test_kish_design_effect_weighs_unequal_faces():
    # counts 3 and 1 at ICC 1: deff = (9 + 1) / 4 = 2.5, effective n 1.6
    estimate = proportion_interval([1, 1, 1, 0], [0, 0, 0, 1], pooled_icc=1.0)
    assert (estimate.low, estimate.high) == pytest.approx(wilson(0.75 * 1.6, 1.6))


def test_a_group_without_faces_has_no_proportion():
    with pytest.raises(ValueError, match="need one face a draw"):
        proportion_interval([], [])


def test_outcomes_that_are_not_binary_are_refused():
    with pytest.raises(ValueError, match="must be 0 or 1"):
        proportion_interval([0.5, 1], [0, 1])


def test_cluster_totals_refuse_missing_values():
    with pytest.raises(ValueError, match="must be finite"):
        cluster_totals([1.0, np.nan], [0, 1])


@pytest.mark.parametrize("outcome", [0, 1])
@pytest.mark.parametrize("pooled", [0.1, None])
def test_a_group_whose_outcomes_are_all_equal_counts_each_face_once(outcome, pooled):
    faces = np.repeat(np.arange(20), 5)
    estimate = proportion_interval(np.full(100, outcome), faces, pooled_icc=pooled)
    assert (estimate.low, estimate.high) == pytest.approx(wilson(20 * outcome, 20))


@pytest.mark.parametrize(("faces", "weight"), [(1, 0.5), (2, 0.25), (5, 2**-5)])
def test_every_face_with_the_rarer_outcome_halves_what_is_added_to_the_correlation(faces, weight):
    # one success in each of some faces of 40 x 5: own correlation below the pooled .2
    values = np.zeros((40, 5))
    values[:faces, 0] = 1
    expected = 0.2 + 0.8 * weight
    effective = 200 / (1 + 4 * expected)
    for outcomes, share in ((values, faces / 200), (1 - values, 1 - faces / 200)):
        estimate = proportion_interval(outcomes.ravel(), np.repeat(np.arange(40), 5), 0.2)
        assert (estimate.low, estimate.high) == pytest.approx(wilson(share * effective, effective))


# 600 replicates: at a true coverage of 95 % the standard error is 0.9 points; before the sparse
# groups were allowed for, 70 to 83 %
@pytest.mark.parametrize(
    ("faces", "draws", "rate"), [(10, 10, 0.1), (60, 10, 0.02), (20, 10, 0.96), (10, 5, 0.1)]
)
def test_a_group_of_more_correlation_than_the_others_is_covered(faces, draws, rate):
    rng, inside = np.random.default_rng([faces, draws]), 0
    clusters = np.repeat(np.arange(7 * faces), draws)
    groups = np.repeat(np.arange(7), faces * draws)
    for _ in range(600):
        first = nested_outcomes(rng, (faces,), draws, 0.9, rate).ravel()
        others = nested_outcomes(rng, (6, faces), draws, 0.1, rate).ravel()
        pooled = intraclass_correlation(np.concatenate([first, others]), clusters, groups)
        estimate = proportion_interval(first, clusters[: len(first)], pooled)
        inside += estimate.low <= rate <= estimate.high
    assert inside / 600 >= 0.92
