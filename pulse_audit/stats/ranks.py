"""Ranks of two samples compared, and p-values of several comparisons."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import FloatArray


@dataclass(frozen=True)
class RankComparison:
    """Mann-Whitney's U of the first sample, and its two-sided p.

    ``superiority`` is U / (n m): the probability that a value of the first sample is the larger, a
    tie counted as one half.
    """

    u: float
    p: float
    superiority: float


def mann_whitney(one: ArrayLike, two: ArrayLike) -> RankComparison:
    """Mann-Whitney U test: normal approximation, corrected for ties and continuity.

    Parameters
    ----------
    one, two : array_like, (n,) and (m,)
        Finite, neither empty. Where all values are equal, p is 1.

    References
    ----------
    H. B. Mann and D. R. Whitney (1947), Ann. Math. Stat. 18:50. W. H. Kruskal (1952), Ann. Math.
    Stat. 23:525 (ties).
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(two, dtype=np.float64)
    if not first.size or not second.size or not np.isfinite([*first, *second]).all():
        raise ValueError("need finite values of both samples")
    from scipy.stats import mannwhitneyu  # most of a second, of runs with ratings alone

    found = mannwhitneyu(first, second, alternative="two-sided", method="asymptotic")
    u, p = float(found.statistic), float(found.pvalue)
    return RankComparison(u, 1.0 if math.isnan(p) else p, u / (first.size * second.size))


def holm(p_values: ArrayLike) -> FloatArray:
    """P-values of a family, (k,), adjusted by Holm (1979), Scand. J. Stat. 6:65.

    The family-wise error is at most alpha where those at most alpha are rejected, however the tests
    depend on each other.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    # the i-th smallest times the hypotheses not yet rejected, never below one before it
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
