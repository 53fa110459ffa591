"""Bounds on means that hold at every look, so that faces can be added until a rule is decided.

The unit is a face with all its draws: its mean lies in a known range, and nothing else is assumed
of it. A gambler bets on each face before it is seen that the mean exceeds m. If it does not, the
capital is a nonnegative supermartingale and ever reaches 1 / alpha with probability alpha at most
(Ville's inequality); the values of m at which it did are excluded for good. Levels of many rules
and groups are divided among them (Bonferroni): Holm's steps and max-T do not carry over to
continuous looks.

References
----------
I. Waudby-Smith and A. Ramdas (2024), JRSS-B 86:1 (betting; predictable plug-in).
J. Ville (1939), Etude critique de la notion de collectif. P. C. O'Brien and T. R. Fleming (1979),
Biometrics 35:549. K. K. G. Lan and D. L. DeMets (1983), Biometrika 70:659 (spending function). P.
Armitage, C. K. McPherson and B. C. Rowe (1969), JRSS-A 132:235 (recursive integration). C. J.
Clopper and E. S. Pearson (1934), Biometrika 26:404 (exact bound).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtr, ndtri

from pulse_audit.stats.intervals import FloatArray, IntArray

#: Least and greatest value of a quantity.
Ends: TypeAlias = tuple[float, float]

#: Parts of the planned number of faces at which the bets of one third of the capital each are
#: sharpest.
HORIZONS = (0.25, 0.5, 1.0)
#: Largest part of its capital that a bet can lose on one face.
MOST_STAKED = 0.9
#: Of a range 1 wide: bounds are exact to 1e-9, rounded outward.
_HALVINGS = 30
#: Nodes of the integral between two looks.
_NODES = 801


def log_capital(values: ArrayLike, mean: float, alpha: float, planned: int) -> FloatArray:
    """Log capital, after each face, of bets that the mean exceeds ``mean``.

    Parameters
    ----------
    values : array_like, (faces,)
        Means of faces, in [0, 1], in the order in which they were drawn; each has the same
        expectation, whatever came before.
    mean : float
        Hypothesis: the expectation is at most this, in (0, 1].
    alpha : float
        Level that the size of the bets is chosen for.
    planned : int
        Number of faces that the bets are chosen for, fixed before the first is seen. The capital
        is valid at any number.

    Returns
    -------
    array, (faces,)
        Under the hypothesis it ever exceeds log(1 / alpha) with probability alpha at most. It
        falls as ``mean`` rises.
    """
    x = np.asarray(values, dtype=np.float64)
    return _capital(x, _stakes(x, alpha, planned), mean)


def _stakes(x: FloatArray, alpha: float, planned: int) -> FloatArray:
    """Stakes of `log_capital` before they are limited, (horizons, faces); no mean enters."""
    n = np.arange(1, len(x) + 1)
    # variance estimated from the faces before each, one face of 1/2 and one variance of 1/4 added
    means = (0.5 + np.cumsum(x)) / (n + 1)
    variances = (0.25 + np.cumsum((x - means) ** 2)) / (n + 1)
    before = np.concatenate([[0.25], variances[:-1]]) if len(x) else variances
    # one bet for each horizon; none can lose more than its share of the capital
    horizons = np.array(HORIZONS)[:, None] * planned
    stakes: FloatArray = np.sqrt(2 * math.log(1 / alpha) / (before * horizons))
    return stakes


def _capital(x: FloatArray, stakes: FloatArray, mean: float) -> FloatArray:
    limited = np.minimum(stakes, MOST_STAKED / mean)
    grown = np.cumsum(np.log1p(limited * (x - mean)), axis=1)
    total: FloatArray = np.logaddexp.reduce(grown, axis=0) - math.log(len(HORIZONS))
    return total


def lower_bound(
    values: ArrayLike, alpha: float, planned: int, low: float = 0.0, high: float = 1.0
) -> float:
    """Lower confidence bound of a mean that holds at every look simultaneously.

    Parameters
    ----------
    values : array_like, (faces,)
        As of `log_capital`, in [``low``, ``high``].
    alpha : float
        One-sided level, of all looks together.
    planned : int
    low, high : float
        Range of the values.

    Returns
    -------
    float
        Largest bound after any of the faces; ``low`` without any.

    Raises
    ------
    ValueError
        If a value lies outside the range or is not finite.
    """
    x = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    # sums of draws are rounded
    if not ((x >= -1e-9) & (x <= 1 + 1e-9)).all():
        raise ValueError(f"values must lie between {low:g} and {high:g}")
    x, enough = np.clip(x, 0.0, 1.0), math.log(1 / alpha)
    excluded, possible = 0.0, 1.0
    stakes = _stakes(x, alpha, planned)
    # capital falls in the mean: bisection for the largest excluded one
    for _ in range(_HALVINGS if len(x) else 0):
        middle = (excluded + possible) / 2
        is_excluded = _capital(x, stakes, middle).max() >= enough
        excluded, possible = (middle, possible) if is_excluded else (excluded, middle)
    return low + (high - low) * excluded


def upper_bound(
    values: ArrayLike, alpha: float, planned: int, low: float = 0.0, high: float = 1.0
) -> float:
    """Upper confidence bound of a mean; see `lower_bound`."""
    return -lower_bound(-np.asarray(values, dtype=np.float64), alpha, planned, -high, -low)


@dataclass(frozen=True)
class EveryLook:
    """Bounds of a mean by betting, at any number of looks.

    ``planned`` is the number of faces that the bets are chosen for.
    """

    planned: int
    method = "betting confidence sequence over faces"

    def lower(self, values: FloatArray, blocks: IntArray, alpha: float, ends: Ends) -> float:
        """Return the lower bound at every look so far; ``blocks`` are not needed."""
        return lower_bound(values, alpha, self.planned, *ends)


@dataclass(frozen=True)
class FixedLooks:
    """Bounds of a mean at a few looks that are fixed beforehand, after O'Brien and Fleming.

    ``looks`` are the numbers of blocks of faces at each look, the last one the budget; ``done`` is
    the number of looks so far.
    """

    looks: tuple[int, ...]
    done: int
    method = "O'Brien-Fleming schedule over faces, exact bound at the level of each look"

    def lower(self, values: FloatArray, blocks: IntArray, alpha: float, ends: Ends) -> float:
        """Return the largest of the lower bounds of all looks so far.

        Parameters
        ----------
        values : ndarray, (n,)
            In the order of ``blocks``, between ``ends``.
        blocks : ndarray of int, (n,)
            Block of each value, from 0 on.
        alpha : float
            One-sided level of all looks together.
        ends : tuple of float
            Least and greatest value.

        Raises
        ------
        ValueError
            If a value lies outside ``ends``.
        """
        levels = levels_of_looks(tuple(look / self.looks[-1] for look in self.looks), alpha)
        found = [ends[0]]
        for look, level in zip(self.looks[: self.done], levels, strict=False):
            found.append(lower_at_level(values[blocks < look], float(level), *ends))
        return max(found)


@cache
def levels_of_looks(parts: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """Level of a sample of fixed size at each look, by `obrien_fleming`."""
    return tuple(ndtr(-obrien_fleming(parts, alpha)).tolist())


def lower_at_level(values: ArrayLike, level: float, low: float, high: float) -> float:
    """Lower bound of the mean of values of a known range, by one sample of fixed size.

    Clopper and Pearson's at the number of outcomes that vary as much as the values do, to which
    one of each end of the range is added: few faces show too little of their spread.

    Raises
    ------
    ValueError
        If a value lies outside the range.
    """
    x = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    if not ((x >= -1e-9) & (x <= 1 + 1e-9)).all():
        raise ValueError(f"values must lie between {low:g} and {high:g}")
    n, level = len(x), max(level, 1e-300)
    if n < 2:
        return low
    mean = float(np.clip(x.mean(), 0.0, 1.0))
    # sums of squares: as they are, and as they would be of outcomes
    observed = float(np.square(x - mean).sum()) * n / (n - 1) + 0.5
    effective = n * max((n * mean * (1 - mean) + 0.5) / observed, 1.0)
    successes = mean * effective
    if successes <= 0:
        return low
    return low + (high - low) * float(betaincinv(successes, effective - successes + 1, level))


def obrien_fleming(looks: Sequence[float], alpha: float) -> FloatArray:
    """Critical values of a statistic that is looked at a fixed number of times.

    Parameters
    ----------
    looks : sequence of float
        Parts of the planned sample at each look, increasing, in (0, 1].
    alpha : float
        One-sided level of all looks together, below 1/2.

    Returns
    -------
    array, (looks,)
        A standardised mean that exceeds its value at some look does so with probability alpha
        under the hypothesis, by the spending function 2 - 2 Phi(z / sqrt(part)) of Lan and DeMets
        whose boundary is close to O'Brien and Fleming's.

    Raises
    ------
    ValueError
        If looks do not increase within (0, 1], or alpha is not in (0, 1/2).
    """
    times = np.asarray(looks, dtype=np.float64)
    steps = np.diff(times, prepend=0.0)
    if not (len(times) and (steps > 0).all() and times[-1] <= 1 + 1e-12 and 0 < alpha < 0.5):
        raise ValueError("looks must increase within (0, 1], and alpha lie in (0, 1/2)")
    spent = 2 * ndtr(ndtri(alpha / 2) / np.sqrt(times))
    critical = [-float(ndtri(spent[0]))]
    # density of the sum at each look, of those that went on; below -8 deviations there is nothing
    grid = np.linspace(-8 * math.sqrt(times[0]), critical[0] * math.sqrt(times[0]), _NODES)
    density = np.exp(-(grid**2) / (2 * times[0])) / math.sqrt(2 * math.pi * times[0])
    for number in range(1, len(times)):
        deviation = math.sqrt(steps[number])
        weights = density * _simpson(grid)
        wanted = spent[number] - spent[number - 1]
        # bisection for the end beyond which the wanted part lies
        root, low, high = math.sqrt(times[number]), -8.0, 12.0
        for _ in range(60):
            middle = (low + high) / 2
            beyond = float(weights @ ndtr((grid - middle * root) / deviation))
            low, high = (middle, high) if beyond > wanted else (low, middle)
        critical.append(high)
        ends = np.linspace(-8 * root, high * root, _NODES)
        kernel = np.exp(-((ends[:, None] - grid) ** 2) / (2 * steps[number]))
        density = kernel @ weights / (deviation * math.sqrt(2 * math.pi))
        grid = ends
    return np.array(critical)


def _simpson(grid: FloatArray) -> FloatArray:
    """Weights of Simpson's rule on an even grid of an odd number of nodes."""
    weights = np.ones(len(grid))
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    weights *= (grid[1] - grid[0]) / 3
    return weights
