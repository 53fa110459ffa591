"""Agreement of raters beyond chance, with intervals that respect faces."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import stdtrit

from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.types import Estimate

#: What differs between two answers: whether they differ, ranks between them, their distance.
Level: TypeAlias = Literal["nominal", "ordinal", "interval"]


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
    # the (k, k) table of each face
    of_face = _totals(faces, one * k + two, k * k)
    return _jackknife(
        of_face,
        lambda tables: _kappa(tables.reshape(-1, k, k)),
        len(one),
        "Cohen's kappa",
        confidence,
    )


def krippendorff_alpha(
    units: IntArray,
    answers: IntArray,
    k: int,
    level: Level,
    faces: IntArray | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Krippendorff's alpha of any number of raters, with the jackknife over faces.

    Parameters
    ----------
    units : ndarray of int, (n,)
        What was judged. A unit with one answer alone is left out; answers may be missing.
    answers : ndarray of int, (n,)
        In [0, k), in their order where ``level`` is not nominal.
    k : int
    level : str
        ``nominal``, ``ordinal`` or ``interval``.
    faces : ndarray of int, (n,), optional
        Face of each unit: units of one face are one cluster. Default: every unit its own.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    Estimate
        1: raters agree; 0: as by chance. NaN where all answers are the same, which shows neither
        agreement nor its lack.

    Notes
    -----
    alpha = 1 - observed / expected disagreement of pairs of answers (K. Krippendorff 2011,
    Computing Krippendorff's alpha-reliability, whose worked example C it gives). The interval is
    that of `kappa_interval`; raters are taken as given.
    """
    _, unit = np.unique(units, return_inverse=True)
    counts = _totals(unit, answers, k)
    pairable = counts.sum(axis=1) > 1
    # coincidences of a unit: pairs of its answers over the others it has, summed by face
    kept = counts[pairable]
    pairs = kept[:, :, None] * kept[:, None, :] - kept[:, :, None] * np.eye(k)
    coincidences = pairs / (kept.sum(axis=1) - 1)[:, None, None]
    owner = np.zeros(len(counts), dtype=np.int64)
    owner[unit] = unit if faces is None else faces
    names, cluster = np.unique(owner[pairable], return_inverse=True)
    of_face = np.zeros((len(names), k * k))
    np.add.at(of_face, cluster, coincidences.reshape(-1, k * k))
    return _jackknife(
        of_face,
        lambda tables: _alpha(tables.reshape(-1, k, k), level),
        int(kept.sum()),
        f"Krippendorff's alpha, {level}",
        confidence,
    )


def _totals(rows: IntArray, columns: IntArray, k: int) -> FloatArray:
    """Count pairs of a row and a column: (rows that occur, k)."""
    names, place = np.unique(rows, return_inverse=True)
    counts = np.zeros((len(names), k))
    np.add.at(counts, (place, columns), 1.0)
    return counts


def _jackknife(
    of_face: FloatArray,
    statistic: Callable[[FloatArray], FloatArray],
    n: int,
    name: str,
    confidence: float,
) -> Estimate:
    """Statistic of the total of the faces' tables (faces, cells), with the jackknife over faces."""
    m, whole = len(of_face), of_face.sum(axis=0)
    value = float(statistic(whole[None])[0])
    method = f"{name}, jackknife over faces"
    without = statistic(whole - of_face) if m > 1 else np.array([math.nan])
    if not np.isfinite(without).all():
        return Estimate(value, math.nan, math.nan, m, n, f"{method}: too few faces", confidence)
    error = math.sqrt((m - 1) / m * float(((without - without.mean()) ** 2).sum()))
    half = float(stdtrit(m - 1, 0.5 + confidence / 2)) * error
    return Estimate(
        value, max(-1.0, value - half), min(1.0, value + half), m, n, method, confidence
    )


def _alpha(tables: FloatArray, level: Level) -> FloatArray:
    """Alpha of coincidences (m, k, k); NaN where all answers are the same."""
    n_of = tables.sum(axis=2)
    n, k = n_of.sum(axis=1), tables.shape[1]
    number = np.arange(k, dtype=np.float64)
    if level == "nominal":
        distance = np.broadcast_to(1 - np.eye(k), tables.shape)
    elif level == "interval":
        distance = np.broadcast_to((number[:, None] - number) ** 2, tables.shape)
    else:
        # answers ranked between the two, these by half
        middle = np.cumsum(n_of, axis=1) - n_of / 2
        distance = (middle[:, :, None] - middle[:, None, :]) ** 2
    observed = (tables * distance).sum(axis=(1, 2))
    expected = (n_of[:, :, None] * n_of[:, None, :] * distance).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        alpha = 1 - (n - 1) * observed / expected
    return np.asarray(np.where(expected > 0, alpha, math.nan))


def _kappa(tables: FloatArray) -> FloatArray:
    """Kappa of tables of counts (m, k, k); NaN where both raters use one word alone."""
    n = tables.sum(axis=(1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / n
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / n**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance < 1, (observed - chance) / (1 - chance), math.nan))
