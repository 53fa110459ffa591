"""Kappa against its definition and statsmodels; its interval against simulations."""

import math

import numpy as np
import pytest

from pulse_audit.stats.agreement import cohen_kappa, kappa_interval


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
