"""Face-cluster bootstrap for means of continuous measurements.

Faces are resampled, each with all its draws. Resampling draws as if they were independent makes
intervals too short: 200 faces of 5 draws with within-face correlation .45 gave 76 % coverage
instead of 95 %.

References
----------
B. Efron (1987), JASA 82:171 (BCa). A. C. Davison and D. V. Hinkley (1997), Bootstrap Methods and
their Application, sections 3.8 (clusters) and 5.3 (BCa). T. C. Hesterberg (2015), The American
Statistician 69:371 (levels expanded for small samples). P. Hall (1992), The Bootstrap and Edgeworth
Expansion, section 2.5 (Cornish-Fisher expansion of resampled means).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from pulse_audit.stats.intervals import FloatArray, cluster_totals
from pulse_audit.types import Estimate

#: Totals of the values and numbers of draws, (n,) each -> (n,).
Statistic: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]

#: With fewer faces there are too few distinct resamples, and the interval cannot reach beyond the
#: data (2 faces: coverage 50 % instead of 95 %).
FEWEST_FACES = 6
METHOD = "face-cluster BCa bootstrap with small-sample levels"
#: From so many faces on, the distribution of resampled means is expanded and not sampled: its terms
#: of order 1 / faces are far below the sampling error of 2,000 resamples, 6 % of a standard error.
MANY_FACES = 1000
#: Resampled faces held in memory at a time.
_MEMORY = 2_000_000


def mean(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Mean over draws: totals of the values divided by numbers of draws, elementwise."""
    return sums / counts


def cluster_bca(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    seed: int,
    statistic: Statistic = mean,
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> Estimate:
    """BCa bootstrap interval with faces as the unit, acceleration by jackknife over faces.

    With 2 to 5 faces it is Student's t interval with the jackknife standard error instead, which
    for equal numbers of draws is the classical one.

    Parameters
    ----------
    values : array_like, (draws,)
        One finite number a draw.
    clusters : array_like, (draws,)
        The face each draw belongs to; unequal numbers of draws are fine.
    seed : int
        Of the resampling, from `pulse_audit.seeding.fingerprint`. The order of the rows does not
        matter beyond floating-point rounding.
    statistic : callable
        Elementwise function of totals and numbers of draws, each (n,) -> (n,), that increases with
        their ratio; default the mean.
    n_resamples : int
        At least 100. From `MANY_FACES` faces on nothing is resampled: see `_expanded`.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    Estimate
        With one face no interval exists: both ends are NaN. When all faces agree the interval has
        no width. ``method`` says so in either case.

    Raises
    ------
    ValueError
        If there is no draw, a value is not finite, or ``n_resamples`` is below 100.

    Notes
    -----
    Plain BCa is too short for few faces, as every percentile method is: the normal quantile is
    replaced by sqrt(n / (n - 1)) times Student's t with n - 1 degrees of freedom (Hesterberg 2015).
    Coverage of nominal 95 % intervals in 1,000 to 1,500 simulations a scenario, for normal and
    exponential faces: 93 % at 10 faces (plain BCa 89 %), 94 % at 20, 95 % at 50 and 200; for
    lognormal faces (sigma 1) 89, 90, 92 and 93 %. At 2 to 5 faces: 95, 91 and 83 to 91 % for the
    three; at 6 to 9 faces 92, 90 and 85 %.
    """
    if n_resamples < 100 or not 0 < confidence < 1:
        raise ValueError(f"{n_resamples} resamples at confidence {confidence} give no interval")
    sums, counts = cluster_totals(values, clusters)
    value = float(statistic(sums.sum(keepdims=True), counts.sum(keepdims=True))[0])
    n = len(sums)
    numbers = n, int(counts.sum())
    if n == 1:
        return Estimate(value, math.nan, math.nan, *numbers, "no interval: one face", confidence)
    # jackknife: the statistic without each face
    left_out = statistic(sums.sum() - sums, counts.sum() - counts)
    if np.ptp(left_out) <= 1e-12 * np.abs(left_out).max():
        return Estimate(value, value, value, *numbers, "no width: all faces agree", confidence)
    student = stdtrit(n - 1, 0.5 + confidence / 2)
    if n < FEWEST_FACES:
        error = math.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())
        half = error * float(student)
        method = "Student t over faces, jackknife standard error"
        return Estimate(value, value - half, value + half, *numbers, method, confidence)

    # normal quantiles of the two ends, expanded for few faces, and the acceleration
    spread = float(math.sqrt(n / (n - 1)) * student)
    ends = np.array([-spread, spread])
    deviations = left_out.mean() - left_out
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    if n >= MANY_FACES:
        low, high = statistic(*_expanded(sums, counts, ends))
        method = f"{METHOD}, resampling distribution by Cornish-Fisher expansion"
        return Estimate(value, float(low), float(high), *numbers, method, confidence)

    # resample as many faces as there are, with replacement
    rng, rows = np.random.default_rng(seed), max(1, _MEMORY // n)
    parts = []
    for start in range(0, n_resamples, rows):
        picked = rng.integers(0, n, size=(min(rows, n_resamples - start), n))
        parts.append(statistic(sums[picked].sum(axis=1), counts[picked].sum(axis=1)))
    resampled = np.concatenate(parts)

    # quantile levels of the resamples after Efron's (1987) two corrections, median bias and
    # acceleration
    below = np.mean(resampled < value) + np.mean(resampled == value) / 2
    bias = ndtri(np.clip(below, 0.5 / n_resamples, 1 - 0.5 / n_resamples))
    shifted = bias + ends
    # a denominator at or below 0 (a few, very uneven faces) gives the outermost resample
    levels = ndtr(bias + shifted / np.maximum(1 - acceleration * shifted, 1e-9))
    low, high = np.quantile(resampled, levels)
    method = f"{METHOD}, {n_resamples} resamples"
    return Estimate(value, float(low), float(high), *numbers, method, confidence)


def _expanded(
    sums: FloatArray, counts: FloatArray, ends: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Totals and numbers of draws at the ends of the BCa interval of many faces.

    With residuals r = sum - mean count of every face, a resampled mean exceeds the mean by u / c:
    u, the total of r, has variance sum r^2 and skewness 6 a, where a = sum r^3 / 6 (sum r^2)^1.5 is
    the acceleration and, since u <= 0 has probability Phi(a), the median bias too. At the normal
    quantile z, u is the root of its variance times z + a (z^2 - 1), and c is regressed on u.

    Parameters
    ----------
    sums, counts : ndarray, (faces,)
    ends : ndarray, (m,)
        Normal quantiles of the ends.

    Returns
    -------
    totals, draws : ndarray, (m,)
    """
    draws = counts.sum()
    ratio = sums.sum() / draws
    residuals = sums - ratio * counts
    error = math.sqrt(np.square(residuals).sum())
    bias = (residuals**3).sum() / (6 * error**3)
    shifted = bias + ends
    z = bias + shifted / np.maximum(1 - bias * shifted, 1e-9)
    # resampled number of draws given u
    number = draws + (residuals * counts).sum() / error * z
    return ratio * number + error * (z + bias * (z**2 - 1)), number
