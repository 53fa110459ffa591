"""Divergences between shares of groups: corrected for bias, with intervals that can reach 0.

A divergence of estimated shares is too large on average ((k - 1) / n for chi2 under fairness,
with n independent draws), and a percentile bootstrap doubles that error and never reaches 0. Here
the mean excess over resamples is subtracted, and the interval inverts tests: it holds the values
of all points on the line from the reference through the estimate from which the resamples' noise
could have given what was seen.

References
----------
M. Laszkiewicz et al. (2024), Benchmarking the Fairness of Image Upsampling Methods, FAccT (the
four divergences). J. Carpenter (1999), J. R. Stat. Soc. B 61:159 (bootstrap test inversion).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from pulse_audit.stats.intervals import FloatArray

Name = Literal["chi2", "kl", "tv", "chebyshev"]
#: A function of points (..., m) to numbers (...).
Statistic: TypeAlias = Callable[[FloatArray], FloatArray]

#: How far beyond the estimate the upper end is looked for, in distances from the reference.
_FURTHEST = 64.0
_HALVINGS = 12


def chi2(shares: ArrayLike, reference: ArrayLike) -> FloatArray:
    """Pearson's sum (p - r)^2 / r, in [0, 1 / min r - 1]; over the last axis."""
    p, r = np.asarray(shares, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    return np.asarray(((p - r) ** 2 / np.where(r > 0, r, np.inf)).sum(axis=-1))


def kl(shares: ArrayLike, reference: ArrayLike) -> FloatArray:
    """Kullback-Leibler sum p ln(p / r) in nats, 0 ln 0 = 0; negative shares count as 0."""
    p, r = np.maximum(shares, 0.0), np.asarray(reference, dtype=np.float64)
    safe = np.where(r > 0, r, 1.0)
    # p ln(p/r) - p + r sums to the same for shares, and is no less than 0 for resampled noise
    return np.asarray((rel_entr(p, safe) - p + r).sum(axis=-1))


def tv(shares: ArrayLike, reference: ArrayLike) -> FloatArray:
    """Total variation, half the sum of absolute differences, in [0, 1]."""
    return np.asarray(np.abs(np.subtract(shares, reference)).sum(axis=-1) / 2)


def chebyshev(shares: ArrayLike, reference: ArrayLike) -> FloatArray:
    """Largest absolute difference of a share, in [0, 1]."""
    return np.asarray(np.abs(np.subtract(shares, reference)).max(axis=-1))


DIVERGENCES: Mapping[Name, Callable[[ArrayLike, ArrayLike], FloatArray]] = {
    "chi2": chi2,
    "kl": kl,
    "tv": tv,
    "chebyshev": chebyshev,
}
#: The published code of Laszkiewicz et al. (2024) over ours, where the reference is uniform.
LASZKIEWICZ_FACTOR: Mapping[Name, float] = {"chi2": 1.0, "kl": 1.0, "tv": 2.0, "chebyshev": 1.0}


def reference_shares(counts: ArrayLike) -> FloatArray:
    """Composition of the evaluation set, as a reference that is nowhere 0.

    Where a group has no face, every group gets half a face more: otherwise chi2 and kl would be
    infinite as soon as an output has that group.
    """
    faces = np.asarray(counts, dtype=np.float64)
    faces = faces if (faces > 0).all() else faces + 0.5
    return np.asarray(faces / faces.sum())


def between(name: Name) -> Statistic:
    """Divergence between two estimated distributions, given side by side as (..., 2 m).

    tv and chebyshev compare them directly. chi2 and kl compare the first with the mean of both,
    which is finite on classes that either lacks; for a matrix and its transpose that chi2 is
    Bowker's statistic over n.
    """

    def statistic(points: FloatArray) -> FloatArray:
        p, q = np.split(points, 2, axis=-1)
        if name in ("tv", "chebyshev"):
            return DIVERGENCES[name](p, q)
        return DIVERGENCES[name](p, np.maximum((p + q) / 2, 0.0))

    return statistic


@dataclass(frozen=True)
class Corrected:
    """A statistic: plug-in value, value less its bias (not below 0), and interval."""

    plug_in: float
    value: float
    low: float
    high: float


def corrected(
    statistic: Statistic,
    point: FloatArray,
    null: FloatArray,
    noise: FloatArray,
    confidence: float = 0.95,
) -> Corrected:
    """Correct a divergence for bias and give its interval.

    Parameters
    ----------
    statistic : callable
        (..., m) -> (...); 0 at ``null``.
    point, null : ndarray, (m,)
        The estimate, and the fair point it is compared with.
    noise : ndarray, (replicates, m)
        Resampled estimates less their mean.
    confidence : float
        Two-sided, in (0, 1).

    Notes
    -----
    The correction is exact for chi2, of second order for kl. tv and chebyshev have a kink at 0,
    where no correction without bias exists; this one removes about 40 % of the excess there and
    nearly all of it one standard error away.
    """
    seen = float(statistic(point))
    excess = float(statistic(point + noise).mean()) - seen
    tail = (1 - confidence) / 2
    low = _furthest(statistic, point, null, noise, seen, 1 - tail, above=False)
    high = _furthest(statistic, point, null, noise, seen, tail, above=True)
    return Corrected(seen, max(0.0, seen - excess), low, high)


def _furthest(
    statistic: Statistic,
    point: FloatArray,
    null: FloatArray,
    noise: FloatArray,
    seen: float,
    level: float,
    above: bool,
) -> float:
    """Value at the place on the line where the level's quantile of resamples is what was seen."""
    direction = point - null
    if np.abs(direction).max() < 1e-12:
        return float(np.quantile(statistic(null + noise), 1 - level)) if above else 0.0

    def reaches(t: float) -> bool:
        return float(np.quantile(statistic(null + t * direction + noise), level)) >= seen

    near, far = 0.0, 1.0
    while above and far < _FURTHEST and not reaches(far):
        near, far = far, 2 * far
    if reaches(near):
        return float(statistic(null + near * direction))
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        near, far = (near, middle) if reaches(middle) else (middle, far)
    return float(statistic(null + far * direction)) if math.isfinite(far) else math.nan
