"""Kappa against its definition and statsmodels; its interval against simulations."""

import math

import numpy as np
import pytest

from pulse_audit.stats.agreement import cohen_kappa, kappa_interval, krippendorff_alpha


def test_kappa_is_agreement_beyond_chance() -> None:
    one, two = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0])
    assert cohen_kappa(one, two, 2) == pytest.approx((0.75 - 0.5) / 0.5)
    assert math.isnan(cohen_kappa(one * 0, one * 0, 2))


def test_with_one_image_a_face_it_is_statsmodels_interval_nearly() -> None:
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    rng = np.random.default_rng(0)
    one = rng.integers(0, 3, 600)
    two = np.where(rng.random(600) < 0.6, one, rng.integers(0, 3, 600))
    found = kappa_interval(one, two, np.arange(600), 3)
    table = np.zeros((3, 3))
    np.add.at(table, (one, two), 1)
    known = rater.cohens_kappa(table)
    assert found.value == pytest.approx(known.kappa)
    assert found.high - found.low == pytest.approx(known.kappa_upp - known.kappa_low, rel=0.03)


def test_it_covers_where_images_of_a_face_go_together() -> None:
    """Both raters err for whole faces: 60 faces of 5 images, kappa .625 for agreement .75 of 3."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        truth = np.repeat(rng.integers(0, 3, 60), 5)
        errs = np.repeat(rng.random(60) < 0.25, 5)
        two = np.where(errs, (truth + rng.integers(1, 3, 300)) % 3, truth)
        found = kappa_interval(truth, two, np.repeat(np.arange(60), 5), 3)
        covered += found.low <= 0.625 <= found.high
    assert 368 <= covered <= 396


def test_what_has_no_interval() -> None:
    alone = kappa_interval(np.array([0, 1]), np.array([0, 1]), np.array([7, 7]), 2)
    assert (alone.value, math.isnan(alone.low)) == (1, True)
    assert "too few faces" in alone.method


#: K. Krippendorff (2011), Computing Krippendorff's alpha-reliability, example C; 0: missing.
EXAMPLE = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_that_of_the_published_example(level, published):
    _, units = np.nonzero(EXAMPLE)
    found = krippendorff_alpha(units, EXAMPLE[EXAMPLE > 0] - 1, 5, level)
    assert found.value == pytest.approx(published, abs=5e-4)
    # the last unit has one answer, which can be paired with none
    assert (found.n_faces, found.n_draws) == (11, 40)
    assert found.low < found.value < found.high <= 1


def test_alpha_of_chance_and_of_one_word():
    rng = np.random.default_rng(0)
    units = np.repeat(np.arange(300), 4)
    chance = krippendorff_alpha(units, rng.integers(0, 3, 1200), 3, "nominal", units // 2)
    assert chance.low < 0 < chance.high and abs(chance.value) < 0.05 and chance.n_faces == 150
    alike = krippendorff_alpha(units, np.repeat(rng.integers(0, 3, 300), 4), 3, "nominal")
    assert alike.value == alike.low == alike.high == 1
    assert math.isnan(krippendorff_alpha(units, np.zeros(1200, int), 3, "nominal").value)


def test_the_interval_of_alpha_covers():
    rng, covered = np.random.default_rng(1), []
    # of four raters each reports the true word with probability .8, else any of the three
    truth = rng.integers(0, 3, 200_000)
    pair = [np.where(rng.random(200_000) < 0.8, truth, rng.integers(0, 3, 200_000)) for _ in "ab"]
    alpha = 1 - (pair[0] != pair[1]).mean() / (2 / 3)
    for _ in range(300):
        words = rng.integers(0, 3, (40, 1))
        said = np.where(rng.random((40, 4)) < 0.8, words, rng.integers(0, 3, (40, 4)))
        found = krippendorff_alpha(np.repeat(np.arange(40), 4), said.ravel(), 3, "nominal")
        covered.append(found.low <= alpha <= found.high)
    assert np.mean(covered) > 0.91
