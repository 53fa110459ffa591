"""Goodness of fit of clustered categories to a known reference.

References
----------
J. N. K. Rao and A. J. Scott (1981), JASA 76:221. D. R. Thomas and J. N. K. Rao (1987), JASA 82:630
(the second-order correction with an F distribution, for few clusters).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import fdtrc

from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.stats.tests import TestResult

_TIE = 1e-9


def goodness_of_fit(
    faces: ArrayLike,
    categories: ArrayLike,
    reference: ArrayLike,
    *,
    seed: int,
    strata: ArrayLike | None = None,
    replicates: int = 9999,
) -> TestResult:
    """Test draws' categories against a known reference, such as the evaluation set's composition.

    Pearson's chi-square over the design effect of clustered draws, second order (Rao and Scott).
    Where a category is expected fewer than 5 times in effective draws, its distribution is
    simulated instead: exactly multinomial with one draw a face, else Dirichlet-multinomial with
    the estimated correlation.

    Parameters
    ----------
    faces, categories : array_like, (draws,)
        The face of each draw, and its category 0 to k - 1.
    reference : array_like, (k,)
        Known shares summing to 1: not a sample, whose own error would need a test of homogeneity.
    seed : int
        Of the simulation.
    strata : array_like, (draws,), optional
        Labelled groups of a set whose composition is fixed by design; then nothing is simulated.
    replicates : int

    Returns
    -------
    TestResult
        ``statistic`` is Pearson's chi-square of the draws before the adjustment.

    Raises
    ------
    ValueError
        If lengths differ, there is no draw, a category is out of range, or the reference is no
        distribution.
    """
    shares = _distribution(reference)
    counts = _table(faces, categories, len(shares))
    n_faces, n_draws = len(counts), int(counts.sum())
    observed = counts.sum(axis=0)
    possible = shares > 0
    if observed[~possible].any():
        return TestResult(0.0, math.inf, n_faces, n_draws, "a category that the reference excludes")
    shares, counts, observed = shares[possible], counts[:, possible], observed[possible]
    if len(shares) == 1:
        return TestResult(1.0, 0.0, n_faces, n_draws, "one category")
    statistic = _pearson(observed, shares)
    layers = np.zeros(n_faces, dtype=np.int64) if strata is None else _of_faces(faces, strata)
    roots = _design_effects(counts, shares, layers)
    sparse = n_draws / max(float(roots.mean()), 1.0) * shares.min() < 5
    if sparse and strata is None:
        p, method = _simulated(counts, shares, statistic, float(roots.mean()), seed, replicates)
    else:
        p, method = _rao_scott(statistic, roots, n_faces - len(np.unique(layers)))
    return TestResult(p, statistic, n_faces, n_draws, method)


def _distribution(reference: ArrayLike) -> FloatArray:
    shares = np.asarray(reference, dtype=np.float64)
    if shares.ndim != 1 or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise ValueError("the reference must be shares that sum to 1")
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def _table(faces: ArrayLike, categories: ArrayLike, k: int) -> IntArray:
    """Draws of every face by category, (faces, k)."""
    owners, kinds = np.asarray(faces), np.asarray(categories)
    if kinds.ndim != 1 or kinds.shape != owners.shape or not kinds.size:
        raise ValueError(f"need one face a draw: categories {kinds.shape}, faces {owners.shape}")
    if kinds.dtype.kind not in "iu" or kinds.min() < 0 or kinds.max() >= k:
        raise ValueError(f"categories must be whole numbers from 0 to {k - 1}")
    found, place = np.unique(owners, return_inverse=True)
    return np.bincount(place * k + kinds, minlength=len(found) * k).reshape(-1, k)


def _of_faces(faces: ArrayLike, strata: ArrayLike) -> IntArray:
    """Stratum number of every face, faces in sorted order."""
    owners, layers = np.asarray(faces), np.unique(np.asarray(strata), return_inverse=True)[1]
    if layers.shape != owners.shape:
        raise ValueError(f"need one stratum a draw: {layers.shape}, faces {owners.shape}")
    _, first, place = np.unique(owners, return_index=True, return_inverse=True)
    if (layers[first][place] != layers).any():
        raise ValueError("a face is in two strata")
    return np.asarray(layers[first], dtype=np.int64)


def _pearson(observed: IntArray | FloatArray, shares: FloatArray) -> float:
    expected = observed.sum() * shares
    return float(((observed - expected) ** 2 / expected).sum())


def _design_effects(counts: IntArray, shares: FloatArray, layers: IntArray) -> FloatArray:
    """Generalised design effects, (k - 1,): how far clustering inflates every contrast.

    Eigenvalues of the covariance of the shares between faces, relative to the multinomial's.
    """
    n, sizes = counts.sum(), counts.sum(axis=1, keepdims=True)
    residuals = counts - sizes * (counts.sum(axis=0) / n)
    covariance = np.zeros((len(shares), len(shares)))
    for layer in np.unique(layers):
        part = residuals[layers == layer]
        centred = part - part.mean(axis=0)
        covariance += centred.T @ centred * len(part) / max(len(part) - 1, 1)
    scaled = covariance / n / np.sqrt(np.outer(shares, shares))
    return np.asarray(np.linalg.eigvalsh(scaled)[1:].clip(0), dtype=np.float64)


def _rao_scott(statistic: float, roots: FloatArray, clusters: int) -> tuple[float, str]:
    """Second-order correction: mean and spread of the design effects, F for few clusters."""
    mean = float(roots.mean())
    if clusters < 1 or mean <= 0:
        return math.nan, "no test: faces do not vary"
    df = float(roots.sum() ** 2 / np.square(roots).sum())
    p = float(fdtrc(df, df * clusters, statistic / (mean * len(roots))))
    return p, f"Rao-Scott chi-square, second order, design effect {mean:.2f}"


def _simulated(
    counts: IntArray,
    shares: FloatArray,
    statistic: float,
    effect: float,
    seed: int,
    replicates: int,
) -> tuple[float, str]:
    rng, sizes = np.random.default_rng(seed), counts.sum(axis=1)
    if (sizes == 1).all():
        drawn = rng.multinomial(len(sizes), shares, size=replicates)
        method = f"exact multinomial, {replicates} simulations"
    else:
        size = float(np.square(sizes).sum() / sizes.sum())
        icc = min(max((effect - 1) / (size - 1), 0.01), 0.99)
        drawn = _dirichlet_multinomial(sizes, shares, icc, rng, replicates)
        method = f"Dirichlet-multinomial with ICC {icc:.2f}, {replicates} simulations"
    expected = sizes.sum() * shares
    simulated = ((drawn - expected) ** 2 / expected).sum(axis=1)
    hits = int((simulated >= statistic * (1 - _TIE)).sum())
    return (hits + 1) / (replicates + 1), method


def _dirichlet_multinomial(
    sizes: IntArray, shares: FloatArray, icc: float, rng: np.random.Generator, replicates: int
) -> IntArray:
    """Totals (replicates, k) over faces whose own shares scatter about the reference."""
    totals = np.zeros((replicates, len(shares)), dtype=np.int64)
    for size in sizes:
        own = rng.dirichlet(shares * (1 / icc - 1), size=replicates)
        totals += rng.multinomial(int(size), own)
    return totals
