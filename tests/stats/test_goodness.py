import math

import numpy as np
import pytest
from scipy.stats import chisquare, multinomial

from pulse_audit.stats.goodness import goodness_of_fit

REFERENCE = [0.4, 0.3, 0.2, 0.1]


def clustered(rng, faces, draws, icc, shares):
    """Categories (faces, draws) of faces whose own shares scatter about the given ones."""
    own = rng.dirichlet(np.asarray(shares) * (1 / icc - 1), faces).cumsum(axis=1)
    picked = (rng.random((faces, draws))[..., None] > own[:, None]).sum(-1)
    return np.minimum(picked, len(shares) - 1)


def test_one_draw_a_face_resembles_pearson_s_test():
    categories = np.random.default_rng(0).choice(4, 600, p=[0.46, 0.28, 0.17, 0.09])
    result = goodness_of_fit(range(600), categories, REFERENCE, seed=0)
    expected = chisquare(np.bincount(categories, minlength=4), 600 * np.array(REFERENCE))
    assert result.statistic == pytest.approx(expected.statistic)
    assert result.p == pytest.approx(expected.pvalue, abs=0.02)
    assert (result.n_faces, result.n_draws) == (600, 600)


def test_sparse_counts_get_the_exact_multinomial_test():
    # 7 faces, all tables enumerated: those with a chi-square at least as large as observed
    categories = np.array([0, 0, 0, 1, 3, 3, 3])
    result = goodness_of_fit(range(7), categories, REFERENCE, seed=1)
    tables = [
        (a, b, c, 7 - a - b - c) for a in range(8) for b in range(8 - a) for c in range(8 - a - b)
    ]
    expected = 7 * np.array(REFERENCE)
    chi2 = [float(((np.array(t) - expected) ** 2 / expected).sum()) for t in tables]
    weights = multinomial.pmf(tables, 7, REFERENCE)
    exact = weights[np.array(chi2) >= result.statistic - 1e-9].sum()
    assert "exact multinomial" in result.method
    assert result.p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9999))


# 300 audits a cell: standard error 1.3 points at 5 %; 2,000 gave 3.8 to 5.6 % in these and others
@pytest.mark.parametrize(("faces", "draws", "icc"), [(60, 4, 0.5), (200, 2, 0.9), (400, 1, 0.5)])
def test_size_with_draws_nested_in_faces(faces, draws, icc):
    rng, rejected = np.random.default_rng([faces, draws, 1]), 0
    owners = np.repeat(np.arange(faces), draws)
    for replicate in range(300):
        categories = clustered(rng, faces, draws, icc, REFERENCE).ravel()
        p = goodness_of_fit(owners, categories, REFERENCE, seed=replicate).p
        rejected += p <= 0.05
    assert 0.015 <= rejected / 300 <= 0.09


def test_draws_as_the_unit_would_reject_an_innocent_model():
    rng, rejected = np.random.default_rng(3), 0
    for _ in range(200):
        categories = clustered(rng, 60, 4, 0.5, REFERENCE).ravel()
        counts = np.bincount(categories, minlength=4)
        rejected += chisquare(counts, 240 * np.array(REFERENCE)).pvalue <= 0.05
    assert rejected / 200 > 0.25


def test_size_with_few_nested_draws_by_simulation():
    rng, owners, rejected = np.random.default_rng(4), np.repeat(np.arange(12), 3), 0
    for replicate in range(200):
        categories = clustered(rng, 12, 3, 0.5, REFERENCE).ravel()
        result = goodness_of_fit(owners, categories, REFERENCE, seed=replicate, replicates=199)
        assert "Dirichlet-multinomial" in result.method
        rejected += result.p <= 0.05
    assert rejected / 200 <= 0.1  # 3 standard errors above 5 %


def test_size_when_the_composition_is_fixed_by_design():
    # two strata of 100 faces whose own shares average to the reference: less scatter than
    # multinomial, which the strata give back as power; 400 audits, standard error 1.1 points
    rng, rejected, plain = np.random.default_rng(5), 0, 0
    strata = np.repeat([0, 1], 100)
    for replicate in range(400):
        first = rng.choice(3, 100, p=[0.8, 0.1, 0.1])
        second = rng.choice(3, 100, p=[0.2, 0.5, 0.3])
        categories = np.r_[first, second]
        options = {"reference": [0.5, 0.3, 0.2], "seed": replicate}
        rejected += goodness_of_fit(range(200), categories, strata=strata, **options).p <= 0.05
        plain += goodness_of_fit(range(200), categories, **options).p <= 0.05
    assert 0.02 <= rejected / 400 <= 0.085
    assert plain / 400 < 0.03


def test_another_composition_is_found():
    rng = np.random.default_rng(6)
    categories = clustered(rng, 300, 3, 0.3, [0.25] * 4).ravel()
    owners = np.repeat(np.arange(300), 3)
    assert goodness_of_fit(owners, categories, REFERENCE, seed=0).p < 1e-4


def test_a_category_the_reference_excludes_ends_it():
    result = goodness_of_fit([0, 1], [0, 1], [1.0, 0.0], seed=0)
    assert result.p == 0.0 and result.statistic == math.inf
    assert goodness_of_fit([0, 1], [0, 0], [1.0, 0.0], seed=0).p == 1.0


@pytest.mark.parametrize(
    ("faces", "categories", "reference", "message"),
    [
        ([0], [0], [0.5, 0.6], "sum to 1"),
        ([0], [2], [0.5, 0.5], "from 0 to 1"),
        ([0, 1], [0], [0.5, 0.5], "one face a draw"),
        ([], [], [0.5, 0.5], "one face a draw"),
    ],
)
def test_unusable_input_is_refused(faces, categories, reference, message):
    with pytest.raises(ValueError, match=message):
        goodness_of_fit(faces, categories, reference, seed=0)
