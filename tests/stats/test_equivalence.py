import math

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp, ttest_ind
from statsmodels.stats.weightstats import ttost_ind, ttost_paired

from pulse_audit.stats.equivalence import (
    equivalence_paired,
    equivalence_unpaired,
    noninferiority_paired,
    noninferiority_unpaired,
)
from pulse_audit.stats.score import difference_score


def test_one_draw_a_face_is_student_s_test():
    rng = np.random.default_rng(0)
    trial, baseline = rng.normal(0.1, 1, 30), rng.normal(0, 1, 30)
    result = noninferiority_paired(range(30), trial, baseline, 0.3, proportion=False)
    expected = ttest_1samp(trial - baseline, -0.3, alternative="greater")
    assert result.p == pytest.approx(expected.pvalue)
    assert result.statistic == pytest.approx(expected.statistic)


def test_two_one_sided_tests_agree_with_statsmodels():
    rng = np.random.default_rng(1)
    first, second = rng.normal(0.1, 1, 40), rng.normal(0, 1, 40)
    paired = equivalence_paired(range(40), first, second, 0.4, proportion=False)
    assert paired.p == pytest.approx(ttost_paired(first, second, -0.4, 0.4)[0])
    samples = (first, range(40)), (second[:30], range(30))
    apart = equivalence_unpaired(*samples, 0.6, proportion=False)
    reference = ttost_ind(first, second[:30], -0.6, 0.6, usevar="unequal")[0]
    assert apart.p == pytest.approx(reference)
    assert (apart.n_faces, apart.n_draws) == (70, 70)


def test_unpaired_means_are_welch_s_test():
    rng = np.random.default_rng(2)
    trial, baseline = rng.normal(0, 1, 25), rng.normal(0, 3, 40)
    result = noninferiority_unpaired(
        (trial, range(25)), (baseline, range(40)), 0.5, proportion=False
    )
    expected = ttest_ind(trial + 0.5, baseline, equal_var=False, alternative="greater")
    assert result.p == pytest.approx(expected.pvalue)


def test_unpaired_proportions_are_farrington_and_manning_s_test():
    trial, baseline = [1] * 70 + [0] * 30, [1] * 72 + [0] * 28
    result = noninferiority_unpaired(
        (trial, range(100)), (baseline, range(100)), 0.15, proportion=True
    )
    assert result.statistic == pytest.approx(difference_score(0.7, 100, 0.72, 100, -0.15))
    assert result.p == pytest.approx(norm.sf(result.statistic))


def test_repeated_draws_say_no_more_than_their_faces():
    trial, baseline = [1] * 30 + [0] * 10, [1] * 28 + [0] * 12
    once = noninferiority_unpaired((trial, range(40)), (baseline, range(40)), 0.2, proportion=True)
    thrice = noninferiority_unpaired(
        (np.repeat(trial, 3), np.repeat(range(40), 3)),
        (np.repeat(baseline, 3), np.repeat(range(40), 3)),
        0.2,
        proportion=True,
    )
    assert thrice.statistic == pytest.approx(once.statistic, rel=0.01)
    assert thrice.p == pytest.approx(t.sf(thrice.statistic, 78)), "the design effect is estimated"
    assert (thrice.n_faces, thrice.n_draws) == (80, 240)


def test_size_of_paired_noninferiority_on_the_margin():
    # true difference -.1 = the margin, 60 faces x 2 draws: 2,000 audits, standard error .5 points
    rng, faces = np.random.default_rng(3), np.repeat(np.arange(60), 2)
    rejected = 0
    for _ in range(2000):
        rates = rng.beta(1, 1, (60, 1)) * 0.8 + 0.1
        baseline = rng.random((60, 2)) < rates + 0.05
        trial = rng.random((60, 2)) < rates - 0.05
        result = noninferiority_paired(faces, trial.ravel(), baseline.ravel(), 0.1, proportion=True)
        rejected += result.p <= 0.05
    assert 0.035 <= rejected / 2000 <= 0.065


def test_size_of_unpaired_equivalence_on_the_margin():
    # .85 against .95 with the margin .1, 80 faces x 3 draws of ICC .5; standard error .7 points
    rng, faces = np.random.default_rng(4), np.repeat(np.arange(80), 3)
    rejected = 0
    for _ in range(1000):
        low, high = (
            (rng.random((80, 3)) < rng.beta(p, 1 - p, (80, 1))).ravel() for p in (0.85, 0.95)
        )
        rejected += (
            equivalence_unpaired((low, faces), (high, faces), 0.1, proportion=True).p <= 0.05
        )
    assert 0.02 <= rejected / 1000 <= 0.07


def test_a_few_identical_pairs_prove_nothing_but_many_do():
    def identical(n):
        return noninferiority_paired(range(n), [1] * n, [1] * n, 0.05, proportion=True).p

    assert identical(20) > 0.1 and identical(200) < 0.01
    assert identical(20) == pytest.approx(t.sf(0.05 / math.sqrt(0.05 * 0.95 / 20), 19))


def test_identical_means_are_equivalent():
    result = equivalence_paired(range(5), [1.5] * 5, [1.5] * 5, 0.1, proportion=False)
    assert result.p == 0.0
    assert noninferiority_paired(range(5), [1.5] * 5, [1.5] * 5, 0.0, proportion=False).p == 0.5


def test_one_face_shows_nothing():
    assert math.isnan(noninferiority_paired([0, 0], [1, 2], [1, 1], 1.0, proportion=False).p)
    samples = ([1.0, 2.0], [0, 0]), ([1.0, 2.0], [0, 1])
    assert math.isnan(equivalence_unpaired(*samples, 5.0, proportion=False).p)


def test_unusable_input_is_refused():
    with pytest.raises(ValueError, match="margin must be"):
        noninferiority_paired([0, 1], [1, 0], [1, 0], -0.1, proportion=True)
    with pytest.raises(ValueError, match="must be 0 or 1"):
        equivalence_paired([0, 1], [0.5, 0], [1, 0], 0.1, proportion=True)
    with pytest.raises(ValueError, match="each sample needs a draw"):
        noninferiority_unpaired(([], []), ([1], [0]), 0.1, proportion=True)
