"""Draws of made-up arms whose shift matrix is known."""

import numpy as np
import pytest

from pulse_audit.fairness.shift import Draws

MATRIX = np.array(
    [
        [0.85, 0.05, 0.05, 0.03, 0.02],
        [0.50, 0.38, 0.05, 0.02, 0.05],
        [0.10, 0.02, 0.80, 0.05, 0.03],
        [0.05, 0.00, 0.05, 0.85, 0.05],
    ]
)


def plant(rng, matrix, per_group, draws, icc):
    """Draws with P(column | row) = matrix, last column unclassified; correlation icc in a face.

    The draws of a face share one Dirichlet row of mean ``matrix[truth]``, so that every cell has
    within-face correlation exactly icc.
    """
    k = len(matrix)
    truth = np.repeat(np.arange(k), per_group)
    mean = np.asarray(matrix)[truth]
    gammas = rng.gamma(np.maximum(mean, 1e-12) * (1 / icc - 1))
    rows = gammas / np.maximum(gammas.sum(axis=1, keepdims=True), 1e-300)
    cumulative = np.cumsum(rows, axis=1)[:, None, :]
    out = (rng.random((len(truth), draws))[..., None] > cumulative).sum(axis=-1)
    predicted = np.where(out >= k, -1, out).ravel()
    faces = np.repeat(np.arange(len(truth)), draws)
    return Draws(faces, np.repeat(truth, draws), predicted, k)


@pytest.fixture(scope="session")
def planted():
    return plant


@pytest.fixture(scope="session")
def matrix():
    return MATRIX
