"""Shifts attributed to their sources: the definition, and the intervals of shares."""

import numpy as np
import pytest

from pulse_audit.fairness import sources
from pulse_audit.fairness.sources import (
    ADVERSARIAL,
    CLASSIFIER,
    INCAPACITY,
    PREFERENCE,
    RETAINED,
)

N_FACES, N_DRAWS = 40, 3


def test_every_draw_has_the_one_source_of_the_definition():
    retained = np.array([1, 1, 0, 0, 0, 0, 0], dtype=bool)
    misread = np.array([0, 1, 1, 0, 0, 0, 0], dtype=bool)
    shown = np.array([1, 0, 1, 1, 1, 0, 0], dtype=bool)
    confirmed = np.array([1, 0, 1, 1, 0, 1, 0], dtype=bool)
    assert sources.parts(retained, misread, shown, confirmed).tolist() == [
        RETAINED, RETAINED, CLASSIFIER, PREFERENCE, ADVERSARIAL, INCAPACITY, INCAPACITY
    ]  # fmt: skip
    assert sources.parts(retained, misread, shown).tolist()[4] == PREFERENCE


def test_shares_have_goodman_s_intervals():
    statsmodels = pytest.importorskip("statsmodels.stats.proportion")
    counts = [5, 60, 35, 0]
    expected = statsmodels.multinomial_proportions_confint(counts, 0.05, method="goodman")
    for share, (low, high) in zip(sources.composition(counts), expected, strict=True):
        assert (share.low, share.high) == pytest.approx((low, high), abs=1e-12)


def test_intervals_of_the_parts_cover_the_truth():
    """Draws of a face resemble each other: each face has its own chances, Dirichlet around these.

    With concentration 2 the within-face correlation is 1 / 3.
    """
    chances = np.array([0.2, 0.0, 0.15, 0.05, 0.6])
    used = chances > 0
    rng = np.random.default_rng(3)
    faces = np.repeat(np.arange(N_FACES), N_DRAWS)
    hits = np.zeros(5)
    for _ in range(300):
        own = np.zeros((N_FACES, 5))
        own[:, used] = rng.dirichlet(2 * chances[used], N_FACES)
        part = np.array([rng.choice(5, p=own[face]) for face in faces])
        shown, yes = part < INCAPACITY, np.ones(len(faces), dtype=bool)
        draws = sources.GuidedDraws(
            faces, part, part == RETAINED, shown, shown, part != ADVERSARIAL, yes, yes
        )
        made = sources.split_estimates(draws, 0.95, {})
        for number, name in enumerate(sources.PARTS):
            estimate = made[f"source_{name}", "raw"]
            hits[number] += estimate.low <= chances[number] <= estimate.high
    # 300 runs at 95 %: 271 or more but for one time in a thousand; at .05 Wilson's steps cost more
    assert (hits[[RETAINED, PREFERENCE, INCAPACITY]] >= 271).all(), hits
    assert hits[ADVERSARIAL] >= 265
    assert hits[CLASSIFIER] == 300
