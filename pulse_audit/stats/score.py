"""Score intervals for the difference and the ratio of two independent proportions.

The variance is evaluated at the maximum-likelihood proportions under the hypothesis, so the
intervals keep their level near 0 and 1 and for few faces. All functions work elementwise over
arrays; sample sizes may be fractional: with draws nested in faces they are effective sizes.

References
----------
O. Miettinen and M. Nurminen (1985), Statistics in Medicine 4:213. C. P. Farrington and G. Manning
(1990), Statistics in Medicine 9:1447 (the cubic's solution).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import FloatArray

#: Of a bracket at most 28 wide: the ends are exact to 3e-11.
_HALVINGS = 40
_LARGEST_RATIO = 1e6


def difference_score(
    p1: ArrayLike, n1: ArrayLike, p2: ArrayLike, n2: ArrayLike, difference: ArrayLike
) -> FloatArray:
    """Score statistic of the hypothesis p1 - p2 = ``difference``; standard normal under it.

    Parameters
    ----------
    p1, n1, p2, n2 : array_like
        Observed proportions and (effective) sample sizes.
    difference : array_like
        In [-1, 1].
    """
    p1, n1, p2, n2, delta = _broadcast(p1, n1, p2, n2, difference)
    # restricted maximum likelihood: a cubic in the first proportion (Farrington and Manning 1990)
    theta = n2 / n1
    a = 1 + theta
    b = -(1 + theta + p1 + theta * p2 + delta * (theta + 2))
    c = delta**2 + delta * (2 * p1 + theta + 1) + p1 + theta * p2
    d = -p1 * delta * (1 + delta)
    # its trigonometric solution; u has the sign of v, and rounding must not leave [-1, 1]
    v = (b / (3 * a)) ** 3 - b * c / (6 * a**2) + d / (2 * a)
    u = np.copysign(np.sqrt(np.maximum((b / (3 * a)) ** 2 - c / (3 * a), 1e-30)), v)
    angle = (np.pi + np.arccos(np.clip(v / u**3, -1, 1))) / 3
    first = np.clip(2 * u * np.cos(angle) - b / (3 * a), 0, 1)
    second = np.clip(first - delta, 0, 1)
    # p (1 - p) / n of either sample, at the restricted estimates
    variance = first * (1 - first) / n1 + second * (1 - second) / n2
    return _standardised(p1 - p2 - delta, variance, n1 + n2)


def ratio_score(
    p1: ArrayLike, n1: ArrayLike, p2: ArrayLike, n2: ArrayLike, ratio: ArrayLike
) -> FloatArray:
    """Score statistic of the hypothesis p1 / p2 = ``ratio`` > 0; standard normal under it."""
    p1, n1, p2, n2, r = _broadcast(p1, n1, p2, n2, ratio)
    # restricted maximum likelihood: a quadratic in the second proportion
    a = r * (n1 + n2)
    b = -(r * (n1 + n2 * p2) + n2 + n1 * p1)
    c = n1 * p1 + n2 * p2
    second = np.clip((-b - np.sqrt(np.maximum(b**2 - 4 * a * c, 0))) / (2 * a), 0, 1)
    first = np.clip(r * second, 0, 1)
    variance = first * (1 - first) / n1 + r**2 * second * (1 - second) / n2
    return _standardised(p1 - r * p2, variance, n1 + n2)


def difference_interval(
    p1: ArrayLike, n1: ArrayLike, p2: ArrayLike, n2: ArrayLike, critical: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Differences p1 - p2 that the score test does not reject.

    Parameters
    ----------
    p1, n1, p2, n2 : array_like
        Observed proportions and (effective) sample sizes.
    critical : array_like
        Standard errors allowed: 1.96 for 95 %, Tukey's q / sqrt(2) for all pairs at once.

    Returns
    -------
    low, high : ndarray
        In [-1, 1].
    """
    p1, n1, p2, n2, limit = _broadcast(p1, n1, p2, n2, critical)

    def score(at: FloatArray) -> FloatArray:
        return difference_score(p1, n1, p2, n2, at)

    # the lower end lies below the estimate, the upper end above it
    estimate, edge = p1 - p2, np.ones(p1.shape)
    brackets = np.stack([-edge, estimate]), np.stack([estimate, edge])
    low, high = crossing(score, *brackets, np.stack([limit, -limit]))
    return low, high


def ratio_interval(
    p1: ArrayLike, n1: ArrayLike, p2: ArrayLike, n2: ArrayLike, critical: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Ratios p1 / p2 that the score test does not reject.

    Returns
    -------
    low, high : ndarray
        In [0, inf]; the whole range where both proportions are 0.
    """
    p1, n1, p2, n2, limit = _broadcast(p1, n1, p2, n2, critical)
    top = np.log(_LARGEST_RATIO)  # bisected on the log scale

    def score(at: FloatArray) -> FloatArray:
        return ratio_score(p1, n1, p2, n2, np.exp(at))

    ends = np.full((2, *p1.shape), -top), np.full((2, *p1.shape), top)
    low, high = crossing(score, *ends, np.stack([limit, -limit]))
    # a crossing at the end of the range, or none, means 0 or infinity
    return (
        np.where((p1 == 0) | (low <= -top + 1e-6), 0.0, np.exp(low)),
        np.where((p2 == 0) | (high >= top - 1e-6), np.inf, np.exp(high)),
    )


def _broadcast(*numbers: ArrayLike) -> list[FloatArray]:
    arrays = np.broadcast_arrays(*(np.asarray(array, dtype=np.float64) for array in numbers))
    return list(arrays)


def _standardised(distance: FloatArray, variance: FloatArray, size: FloatArray) -> FloatArray:
    """Distance in standard errors, by Miettinen and Nurminen's factor N / (N - 1); 0 for 0 / 0."""
    scaled = variance * size / np.maximum(size - 1, 1e-9)
    return np.asarray(distance / np.sqrt(np.maximum(scaled, 1e-300)), dtype=np.float64)


def crossing(
    score: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray, level: FloatArray
) -> FloatArray:
    """Find where a decreasing score crosses a level, by bisection; an end where it does not."""
    low, high = np.array(low), np.array(high)
    # every element has its own bracket, all are halved at once
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        above = score(middle) > level
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2
