import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import ndtr, stdtrit
from scipy.stats import binom, bootstrap, ttest_1samp

from pulse_audit.stats.bootstrap import cluster_bca, mean


def coverage(rng, draw_faces, truth, n_faces, draws, replicates):
    clusters = np.repeat(np.arange(n_faces), draws)
    inside = 0
    for replicate in range(replicates):
        values = draw_faces(rng, n_faces)[:, None] + rng.normal(0, 0.3, (n_faces, draws))
        estimate = cluster_bca(values.ravel(), clusters, seed=replicate, n_resamples=1000)
        inside += estimate.low <= truth <= estimate.high
    return inside / replicates


# 1,000 replicates: standard error 0.7 points at 95 %, 0.8 at 93 %; +-2.5 points is 3 of them
@pytest.mark.parametrize(("n_faces", "expected"), [(3, 0.90), (10, 0.93), (50, 0.945)])
def test_coverage_on_skewed_values_in_clusters(n_faces, expected):
    rng = np.random.default_rng(n_faces)
    held = coverage(rng, lambda r, n: r.exponential(1, n), 1.0, n_faces, 3, 1000)
    assert held == pytest.approx(expected, abs=0.025)


def test_faces_are_the_unit_where_independent_draws_would_fail():
    # 200 faces x 5 draws, face rates Beta(.6, .6): 400 replicates, standard errors 2.1 and 1.1
    rng = np.random.default_rng(11)
    clusters = np.repeat(np.arange(200), 5)
    ours = independent = 0
    for replicate in range(400):
        rates = rng.beta(0.6, 0.6, 200)
        outcomes = (rng.random((200, 5)) < rates[:, None]).astype(float).ravel()
        estimate = cluster_bca(outcomes, clusters, seed=replicate, n_resamples=500)
        ours += estimate.low <= 0.5 <= estimate.high
        low, high = binom.ppf([0.025, 0.975], 1000, estimate.value) / 1000  # exact iid bootstrap
        independent += low <= 0.5 <= high
    assert ours / 400 == pytest.approx(0.95, abs=0.033)
    assert independent / 400 == pytest.approx(0.76, abs=0.065)


@pytest.mark.parametrize("n_faces", [20, 80])
def test_one_draw_a_face_agrees_with_scipy(n_faces):
    values = np.random.default_rng(n_faces).gamma(4, 1, n_faces)
    student = stdtrit(n_faces - 1, 0.975) * math.sqrt(n_faces / (n_faces - 1))
    reference = bootstrap(
        (values,),
        np.mean,
        n_resamples=40_000,
        confidence_level=1 - 2 * ndtr(-student),
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    estimate = cluster_bca(values, np.arange(n_faces), seed=1, n_resamples=40_000)
    width = reference.high - reference.low
    # Monte Carlo error of a 2.5 % quantile from 40,000 resamples is about 0.5 % of the width
    assert_allclose((estimate.low, estimate.high), reference, atol=0.03 * width)
    assert estimate.value == pytest.approx(values.mean())


def test_repeating_each_draw_changes_nothing():
    values = np.random.default_rng(2).normal(size=30)
    once = cluster_bca(values, np.arange(30), seed=5)
    thrice = cluster_bca(np.repeat(values, 3), np.repeat(np.arange(30), 3), seed=5)
    assert (once.low, once.high) == pytest.approx((thrice.low, thrice.high))
    assert (thrice.n_faces, thrice.n_draws) == (30, 90)


def test_unequal_draws_weigh_by_draws():
    estimate = cluster_bca([1.0, 1.0, 1.0, 5.0], [0, 0, 0, 1], seed=0)
    assert estimate.value == 2.0
    assert estimate.low < 2.0 < estimate.high


def test_a_monotone_statistic_transforms_the_interval():
    def root(sums, counts):
        return np.sqrt(mean(sums, counts))

    values = np.random.default_rng(3).exponential(1, 60)
    plain = cluster_bca(values, np.arange(60), seed=4)
    rooted = cluster_bca(values, np.arange(60), seed=4, statistic=root)
    # only the acceleration differs, by the curvature of the root
    assert rooted.value == pytest.approx(math.sqrt(plain.value))
    assert rooted.low == pytest.approx(math.sqrt(plain.low), rel=0.03)
    assert rooted.high == pytest.approx(math.sqrt(plain.high), rel=0.03)


def test_rows_may_come_in_any_order():
    rng = np.random.default_rng(6)
    values, clusters = rng.normal(size=40), np.repeat(np.arange(20), 2)
    order = rng.permutation(40)
    first = cluster_bca(values, clusters, seed=1)
    second = cluster_bca(values[order], clusters[order], seed=1)
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)


def test_many_faces_are_resampled_in_blocks_without_changing_the_level():
    values = np.random.default_rng(7).normal(size=30_000)
    estimate = cluster_bca(values, np.arange(30_000), seed=0, n_resamples=200)
    half = 1.96 * values.std() / math.sqrt(30_000)
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.25)


def test_same_seed_same_interval():
    values = np.random.default_rng(8).normal(size=25)
    assert cluster_bca(values, np.arange(25), seed=9) == cluster_bca(values, np.arange(25), seed=9)


def test_few_faces_get_student_s_interval():
    values, clusters = [1.0, 2.0, 4.0, 5.0, 3.0, 3.5], [0, 0, 1, 1, 2, 2]
    estimate = cluster_bca(values, clusters, seed=0)
    of_faces = ttest_1samp([1.5, 4.5, 3.25], 0).confidence_interval(0.95)
    assert_allclose((estimate.low, estimate.high), of_faces)
    assert estimate.method == "Student t over faces, jackknife standard error"


def test_unequal_draws_of_few_faces_use_the_jackknife_of_the_ratio():
    estimate = cluster_bca([1.0, 1.0, 1.0, 5.0, 2.0], [0, 0, 0, 1, 2], seed=0)
    left_out = np.array([7 / 2, 5 / 4, 8 / 4])
    error = math.sqrt(2 / 3 * ((left_out - left_out.mean()) ** 2).sum())
    assert estimate.high - estimate.value == pytest.approx(error * 4.302652729911275)


def test_a_single_face_has_no_interval():
    estimate = cluster_bca([1.0, 2.0, 3.0], [7, 7, 7], seed=0)
    assert estimate.value == 2.0
    assert math.isnan(estimate.low) and math.isnan(estimate.high)
    assert estimate.method == "no interval: one face"


def test_equal_faces_have_an_interval_without_width():
    estimate = cluster_bca([0.1] * 6, [0, 0, 1, 1, 2, 2], seed=0)
    assert (estimate.low, estimate.high) == (estimate.value, estimate.value)
    assert estimate.method == "no width: all faces agree"


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "need one face a draw"),
        ([1.0, math.inf], {}, "must be finite"),
        ([1.0, 2.0], {"n_resamples": 10}, "give no interval"),
        ([1.0, 2.0], {"confidence": 1.0}, "give no interval"),
    ],
)
def test_unusable_input_is_refused(values, options, message):
    with pytest.raises(ValueError, match=message):
        cluster_bca(values, range(len(values)), seed=0, **options)


@pytest.mark.parametrize("draw_faces", ["exponential", "lognormal"])
def test_many_faces_have_the_interval_of_their_resamples_without_resampling(
    monkeypatch, draw_faces
):
    rng = np.random.default_rng(4)
    faces = np.repeat(np.arange(1000), rng.integers(1, 6, 1000))
    values = getattr(rng, draw_faces)(size=1000)[faces] + rng.normal(0, 0.3, len(faces))
    expanded = cluster_bca(values, faces, seed=0)
    monkeypatch.setattr("pulse_audit.stats.bootstrap.MANY_FACES", 10**9)
    resampled = cluster_bca(values, faces, seed=0, n_resamples=20_000)
    assert "expansion" in expanded.method and "20000 resamples" in resampled.method
    # standard error of a 2.5 % quantile of 20,000 resamples: 0.5 % of the width
    width = resampled.high - resampled.low
    assert_allclose(
        (expanded.low, expanded.high), (resampled.low, resampled.high), atol=0.02 * width
    )
    # the two ends are not at the same distance, as those of a normal interval would be
    assert expanded.high - expanded.value > 1.05 * (expanded.value - expanded.low)


def test_a_root_of_many_faces_is_the_root_of_their_mean_s_interval():
    values = np.random.default_rng(5).exponential(size=3000)
    plain = cluster_bca(values, np.arange(3000), seed=0)
    root = cluster_bca(values, np.arange(3000), seed=0, statistic=lambda s, n: np.sqrt(s / n))
    assert (root.low, root.high) == pytest.approx((plain.low**0.5, plain.high**0.5))
