"""CLEAM: the published formula for two groups, and what taking the accuracy as known leaves out."""

import numpy as np
import pytest

from pulse_audit.fairness.cleam import cleam


def test_two_groups_have_the_published_formula():
    # shares predicted as the first group in four batches of five draws; accuracies .9 and .8
    shares = np.array([0.6, 0.8, 0.4, 0.6])
    predicted = np.concatenate([np.arange(5) >= round(5 * share) for share in shares]).astype(int)
    found = cleam(np.repeat(np.arange(4), 5), predicted, [[0.9, 0.1], [0.2, 0.8]])
    value, half = (shares.mean() - 0.2) / 0.7, 1.959964 * shares.std() / 2 / 0.7
    assert found[0].value == pytest.approx(value)
    assert found[0].high - found[0].value == pytest.approx(half)
    assert found[1].value == pytest.approx(1 - value)
    assert (found[0].n_faces, found[0].n_draws) == (4, 20)


def test_unclassified_draws_are_in_the_denominator():
    found = cleam([0, 0, 1, 1], [0, -1, 0, -1], np.eye(2))
    assert [e.value for e in found] == [0.5, 0.0]


def test_an_accuracy_that_is_itself_an_estimate_is_not_allowed_for():
    # 40 originals a group behind the accuracies, 2,000 draws: the interval is far too short
    rng, model, covered = np.random.default_rng(1), np.array([[0.8, 0.2], [0.3, 0.7]]), []
    for _ in range(100):
        card = np.stack([rng.multinomial(40, row) for row in model]) / 40
        truth = rng.random(2000) < 0.5
        predicted = (rng.random(2000) < model[truth.astype(int), 1]).astype(int)
        found = cleam(np.arange(2000), predicted, card)[1]
        covered.append(found.low <= 0.5 <= found.high)
    assert np.mean(covered) < 0.6
