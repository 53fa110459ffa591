"""Agreement of two raters beyond chance, with an interval that respects faces."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit

from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.types import Estimate


def cohen_kappa(one: IntArray, two: IntArray, k: int) -> float:
    """Agreement of two raters beyond chance, in [-1, 1]; NaN where both use one word alone.

    Parameters
    ----------
    one, two : ndarray of int, (n,)
        Groups in [0, k).
    k : int
    """
    table = np.bincount(one * k + two, minlength=k * k).reshape(k, k)
    return float(_kappa(table[None].astype(np.float64))[0])


def kappa_interval(
    one: IntArray, two: IntArray, faces: IntArray, k: int, confidence: float = 0.95
) -> Estimate:
    """Cohen's kappa (1960) with the jackknife over faces.

    Parameters
    ----------
    one, two : ndarray of int, (n,)
        Groups in [0, k).
    faces : ndarray of int, (n,)
        Face of each image; images of one face are one cluster.
    k : int
    confidence : float
        Two-sided, in (0, 1).

    Notes
    -----
    Student's t with the delete-one-face standard error, clipped to [-1, 1]. The interval is NaN
    where fewer than two faces are left, or kappa is not defined without one of them.
    """
    names, cluster = np.unique(faces, return_inverse=True)
    m, n = len(names), len(one)
    # The (k, k) table of each face, and the whole one without it.
    of_face = np.zeros((m, k * k))
    np.add.at(of_face, (cluster, one * k + two), 1.0)
    whole = of_face.sum(axis=0)
    value = float(_kappa(whole.reshape(1, k, k))[0])
    method = "Cohen's kappa, jackknife over faces"
    without = _kappa((whole - of_face).reshape(m, k, k)) if m > 1 else np.array([math.nan])
    if not np.isfinite(without).all():
        return Estimate(value, math.nan, math.nan, m, n, f"{method}: too few faces", confidence)
    error = math.sqrt((m - 1) / m * float(((without - without.mean()) ** 2).sum()))
    half = float(stdtrit(m - 1, 0.5 + confidence / 2)) * error
    return Estimate(
        value, max(-1.0, value - half), min(1.0, value + half), m, n, method, confidence
    )


def _kappa(tables: FloatArray) -> FloatArray:
    """Kappa of tables of counts (m, k, k); NaN where both raters use one word alone."""
    n = tables.sum(axis=(1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / n
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance < 1, (observed - chance) / (1 - chance), math.nan))
