"""How much the apparent group depends on the seed: diversity over the draws of one face.

References
----------
E. H. Simpson (1949), Nature 163:688 (unbiased probability that two draws differ). Z. Zhang (2012),
Neural Computation 24:1368 (entropy in Turing's perspective: bias decays exponentially).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import digamma

from pulse_audit.fairness.shift import UNCLASSIFIED, Draws
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import FloatArray, wilson
from pulse_audit.types import Estimate, Unavailable

ONE_DRAW = Unavailable("diversity over seeds needs faces with at least two classified draws")


def flip_rate(draws: Draws, confidence: float = 0.95) -> Estimate | Unavailable:
    """Probability that two draws of one face differ in apparent group, mean over faces.

    A face's value is the share of differing pairs among its classified draws, which is unbiased
    at any number of draws; every face counts the same. It lies in [0, 1] and so varies no more
    than a yes-or-no outcome of the same mean: the Wilson interval at the number of faces is never
    too short, and exact in kind for two draws.
    """
    counts = _counts(draws)
    if not len(counts):
        return ONE_DRAW
    values, n = _differing(counts), len(counts)
    low, high = wilson(float(values.sum()), n, confidence)
    method = "Wilson over faces; share of pairs of draws that differ"
    return Estimate(
        float(values.mean()), low, high, n, int(counts.sum()), method, confidence=confidence
    )


def entropy(draws: Draws, *, seed: int, confidence: float = 0.95) -> Estimate | Unavailable:
    """Entropy of the apparent group over the draws of a face, in nats, mean over faces.

    Notes
    -----
    Zhang's (2012) estimator sum_i (x_i / n) (psi(n) - psi(x_i)): of the series
    H = sum_v 1/v sum_i p_i (1 - p_i)^v it estimates the first n - 1 terms without bias. So few
    draws still say too little (at two draws it is the flip rate), but far less so than the plug-in
    entropy. The interval resamples faces (BCa); where all faces agree it is the Wilson interval of
    a quantity bounded by what that many draws can show.
    """
    counts = _counts(draws)
    if not len(counts):
        return ONE_DRAW
    values = _entropies(counts)
    if np.ptp(values) > 0 and len(values) > 1:
        made = cluster_bca(values, np.arange(len(values)), seed=seed, confidence=confidence)
        value, low, high, method = made.value, max(0.0, made.low), made.high, made.method
    else:
        most = float(digamma(counts.sum(axis=1).max()) - digamma(1))
        value = float(values.mean())
        ends = wilson(min(1.0, value / most) * len(values), len(values), confidence)
        (low, high), method = (most * ends[0], most * ends[1]), "Wilson over faces, scaled"
    return replace(
        Estimate(value, low, high, len(counts), int(counts.sum()), method, confidence),
        method=f"{method}; Zhang's entropy in nats",
    )


def _counts(draws: Draws) -> FloatArray:
    """Draws of each apparent group, a row for each face with at least two classified draws."""
    kept = draws.predicted != UNCLASSIFIED
    _, face = np.unique(draws.faces[kept], return_inverse=True)
    counts = np.zeros((int(face.max()) + 1 if face.size else 0, draws.k))
    np.add.at(counts, (face, draws.predicted[kept]), 1.0)
    several: FloatArray = counts[counts.sum(axis=1) >= 2]
    return several


def _differing(counts: FloatArray) -> FloatArray:
    n = counts.sum(axis=1)
    differing: FloatArray = 1.0 - (counts * (counts - 1)).sum(axis=1) / (n * (n - 1))
    return differing


def _entropies(counts: FloatArray) -> FloatArray:
    n = counts.sum(axis=1, keepdims=True)
    surprise = np.where(counts > 0, digamma(n) - digamma(np.maximum(counts, 1.0)), 0.0)
    found: FloatArray = (counts / n * surprise).sum(axis=1)
    return found
