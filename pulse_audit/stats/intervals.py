"""Draws nested in faces: totals by face and group, within-face correlation, Wilson intervals.

Draws of one face are correlated, so 140 draws of 70 faces hold less information than 140 faces. The
Wilson score interval is computed at the effective sample size n / deff, with Kish's design effect
deff = 1 + (m - 1) ICC. In simulation it covers 92 to 98 % for 10 to 200 faces a group, rates near 0
or 1, and every within-face correlation tried, also where groups differ in it; percentile and BCa
bootstraps fall to 62-90 % there.

References
----------
E. B. Wilson (1927), JASA 22:209. C. J. Clopper and E. S. Pearson (1934), Biometrika 26:404.
L. Kish (1965), Survey Sampling, ch. 8. E. L. Korn and B. I. Graubard (1998), Survey Methodology
24:193. A. Donner (1986), Int. Stat. Rev. 54:67 (ANOVA estimator of the ICC, unequal cluster sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri

from pulse_audit.types import Estimate

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]

#: Factor, for every face that has an outcome of the rarer kind, on what a correlation lacks of 1.
SPARSE = 0.5


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion.

    Parameters
    ----------
    successes, n : float
        Counts; either may be fractional, as effective sample sizes are.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    low, high : float
        In [0, 1]; exactly 0 (1) when no (every) trial succeeded.

    Raises
    ------
    ValueError
        If n is not positive, or successes lie outside [0, n].
    """
    if not (n > 0 and 0 <= successes <= n and 0 < confidence < 1):
        raise ValueError(f"wilson({successes}, {n}, {confidence}): need 0 <= successes <= n, n > 0")
    # (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)
    z = float(ndtri(0.5 + confidence / 2))
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # rounding must not move an end that is exactly 0 or 1
    low = 0.0 if successes == 0 else max(0.0, (centre - half) / scale)
    high = 1.0 if successes == n else min(1.0, (centre + half) / scale)
    return low, high


def clopper_pearson(
    successes: ArrayLike, n: ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Clopper-Pearson interval of proportions: each end is wrong with half the error at most.

    Wilson's interval keeps its level on both sides together; near 0 and 1 one end takes nearly all
    of the error. A one-sided claim needs these ends, which are wider by an eighth on average.

    Parameters
    ----------
    successes, n : array_like
        Counts; either may be fractional, as effective sample sizes are (Korn and Graubard 1998).
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    low, high : ndarray
        In [0, 1]; exactly 0 (1) when no (every) trial succeeded.
    """
    x, size = np.broadcast_arrays(
        np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64)
    )
    tail = (1 - confidence) / 2
    # quantiles of Beta(x, n - x + 1) and Beta(x + 1, n - x); rounding must not leave [0, n]
    failures = np.maximum(size - x, 0.0)
    is_none, is_every = x <= 0, failures <= 1e-9 * size
    low = betaincinv(np.where(is_none, 1.0, x), failures + 1, tail)
    high = betaincinv(x + 1, np.where(is_every, 1.0, failures), 1 - tail)
    return np.where(is_none, 0.0, low), np.where(is_every, 1.0, high)


def outcomes(values: ArrayLike) -> FloatArray:
    """Return float64 values; raise ValueError unless all are 0 or 1."""
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isin(numbers, (0.0, 1.0)).all():
        raise ValueError("outcomes of a proportion must be 0 or 1")
    return numbers


def cluster_totals(values: ArrayLike, clusters: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Sum the values and count the draws of every face, faces in sorted order.

    Parameters
    ----------
    values : array_like, (draws,)
        One finite number a draw.
    clusters : array_like, (draws,)
        The face each draw belongs to.

    Returns
    -------
    sums, counts : ndarray, (faces,)

    Raises
    ------
    ValueError
        If there is no draw, the lengths differ, or a value is not finite.
    """
    numbers = np.asarray(values, dtype=np.float64)
    faces = np.asarray(clusters)
    if numbers.ndim != 1 or numbers.shape != faces.shape or not numbers.size:
        raise ValueError(f"need one face a draw: values {numbers.shape}, faces {faces.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError("values must be finite; leave out or bound what could not be measured")
    # (draws,) -> (faces,)
    index = _numbered(faces)
    sums = np.bincount(index, weights=numbers).astype(np.float64)
    return sums, np.bincount(index).astype(np.float64)


def _numbered(faces: NDArray[Any]) -> IntArray:
    """Return the number of each draw's face, (draws,); those of a run are sorted already."""
    if len(faces) > 1 and faces.dtype.kind in "iu" and (faces[1:] >= faces[:-1]).all():
        index = np.zeros(len(faces), dtype=np.int64)
        np.cumsum(faces[1:] != faces[:-1], out=index[1:])
        return index
    return np.asarray(np.unique(faces, return_inverse=True)[1], dtype=np.int64)


def intraclass_correlation(
    values: ArrayLike, clusters: ArrayLike, groups: ArrayLike | None = None
) -> float | None:
    """Within-face correlation of binary outcomes: the one-way ANOVA estimator.

    Parameters
    ----------
    values : array_like of bool, (draws,)
        Outcomes.
    clusters : array_like, (draws,)
        The face each draw belongs to; faces may have unequal numbers of draws.
    groups : array_like, (draws,), optional
        Pools the estimate over groups: mean squares are taken within groups, so that differences
        between groups are not mistaken for correlation within faces.

    Returns
    -------
    float or None
        In [0, 1] (negative estimates become 0). None where the data do not identify it: no face has
        two draws, no group has two faces, or all outcomes of every group are equal.

    Raises
    ------
    ValueError
        If an outcome is neither 0 nor 1, or there is no draw.
    """
    numbers, faces = outcomes(values), np.asarray(clusters)
    # without groups all faces are in one
    strata = np.zeros(len(numbers), dtype=np.int64) if groups is None else np.asarray(groups)
    return correlation_of_totals(
        [cluster_totals(numbers[strata == g], faces[strata == g]) for g in np.unique(strata)]
    )


def correlation_of_totals(groups: Sequence[tuple[FloatArray, FloatArray]]) -> float | None:
    """`intraclass_correlation` from the successes and draws of the faces of every group."""
    parts = []
    for sums, counts in groups:
        faces, draws = len(counts), counts.sum()
        # sums of squares between and within faces; a binary outcome is its own square
        of_faces = (sums**2 / counts).sum()
        between = of_faces - sums.sum() ** 2 / draws
        within = sums.sum() - of_faces
        size = draws - np.square(counts).sum() / draws  # k0 times (faces - 1)
        parts.append(np.array([between, faces - 1, within, draws - faces, size]))
    # pooled over groups
    between, df_between, within, df_within, size = np.sum(parts, axis=0)
    if df_between < 1 or df_within < 1 or between + within < 1e-9:
        return None
    # ICC = (MSB - MSW) / (MSB + (k0 - 1) MSW), k0 the effective number of draws a face
    mean_between, mean_within = between / df_between, within / df_within
    k0 = size / df_between
    spread = mean_between + (k0 - 1) * mean_within
    if spread < 1e-12:  # several draws only where there is no second face to compare with
        return None
    icc = (mean_between - mean_within) / spread
    return float(np.clip(icc, 0.0, 1.0))


def design_effect(
    sums: FloatArray, counts: FloatArray, pooled_icc: float | None
) -> tuple[float, float]:
    """Kish's design effect of one group's faces, from their successes and draws, (faces,) each.

    Returns
    -------
    effect : float
    icc : float
        See `proportion_interval`.
    """
    estimates = (correlation_of_totals([(sums, counts)]), pooled_icc)
    icc = max((each for each in estimates if each is not None), default=1.0)
    # faces with an outcome of the rarer kind: without them a group says nothing of its correlation
    successes, draws = sums.sum(), counts.sum()
    informative = int((sums > 0).sum() if 2 * successes <= draws else (sums < counts).sum())
    icc += (1 - icc) * SPARSE**informative
    # deff = 1 + (m - 1) ICC, with m the mean number of draws a face, weighted by draws
    size = float(np.square(counts).sum() / draws)
    return 1 + (size - 1) * icc, icc


def proportion_interval(
    values: ArrayLike,
    clusters: ArrayLike,
    pooled_icc: float | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Proportion over all draws, with the Wilson interval at Kish's effective sample size.

    The within-face correlation used is the larger of this group's own and the one pooled over
    groups: a small group's own estimate is too often 0. It is moved toward 1 where the group says
    little of its own: all the way where all outcomes are equal, so that a face counts once, and
    half as far for every face that has an outcome of the rarer kind. (60 faces of 10 draws, rate
    .02, ICC .9 where six other groups have .1: coverage 95 % instead of 74 %; the lowest of 500
    scenarios is 92 %.) With one draw a face this is the plain Wilson interval.

    Parameters
    ----------
    values : array_like of bool, (draws,)
        Outcomes.
    clusters : array_like, (draws,)
        The face each draw belongs to.
    pooled_icc : float, optional
        From `intraclass_correlation` with ``groups``; None where unknown.
    confidence : float
        Two-sided, in (0, 1).

    Raises
    ------
    ValueError
        If there is no draw: a group without faces has no proportion.
    """
    totals = cluster_totals(outcomes(values), clusters)
    return interval_of_totals(*totals, pooled_icc, confidence)


def interval_of_totals(
    sums: FloatArray, counts: FloatArray, pooled_icc: float | None, confidence: float
) -> Estimate:
    """`proportion_interval` from the successes and draws of every face, (faces,) each."""
    effect, icc = design_effect(sums, counts, pooled_icc)
    n_draws = counts.sum()
    effective = n_draws / effect
    value = float(sums.sum() / n_draws)
    low, high = wilson(value * effective, effective, confidence)
    # the design effect is reported only where faces have several draws
    method = "Wilson"
    if (counts > 1).any():
        source = " (taken as 1: all outcomes are equal)" if value in (0.0, 1.0) else ""
        method += f", design effect {effect:.2f}, ICC {icc:.2f}{source}"
    return Estimate(value, low, high, len(counts), int(n_draws), method, confidence)


@dataclass(frozen=True, eq=False)
class Groups:
    """Totals of every face of every group.

    ``sums`` and ``counts`` hold one array (faces of the group,) a group: the sum of its values and
    the number of its draws; empty where a group has no draw. ``n_faces`` and ``n_draws`` are (k,).
    """

    sums: list[FloatArray]
    counts: list[FloatArray]
    n_faces: IntArray
    n_draws: IntArray

    def means(self) -> FloatArray:
        """Return the mean over draws of every group, (k,); NaN without a draw."""
        totals = np.array([part.sum() for part in self.sums])
        return np.where(self.n_draws > 0, totals / np.maximum(self.n_draws, 1), np.nan)

    def errors(self) -> FloatArray:
        """Return the standard error of every mean, (k,), over faces; NaN below 2 faces.

        That of a ratio of totals, linearised: faces may have unequal numbers of draws.
        """
        errors = np.full(len(self.sums), np.nan)
        for group, (sums, counts) in enumerate(zip(self.sums, self.counts, strict=True)):
            if (n := len(sums)) > 1:
                draws = counts.sum()
                # residuals of the ratio, sum less mean times draws, of every face
                squares = float(np.square(sums - float(sums.sum() / draws) * counts).sum())
                errors[group] = math.sqrt(n / (n - 1) * squares) / float(draws)
        return errors

    def effective_sizes(self) -> FloatArray:
        """Return effective numbers of draws of proportions, (k,); 0 without a draw.

        Kish's design effect with the correlation of `proportion_interval`.
        """
        # every group with the correlation pooled over all of them
        pairs = list(zip(self.sums, self.counts, strict=True))
        pooled = correlation_of_totals([pair for pair in pairs if len(pair[0])])
        return np.array(
            [
                counts.sum() / design_effect(sums, counts, pooled)[0] if len(counts) else 0.0
                for sums, counts in pairs
            ]
        )


def by_group(
    values: ArrayLike, faces: ArrayLike, groups: ArrayLike, k: int | None = None
) -> Groups:
    """Sort draws by group and face.

    Parameters
    ----------
    values : array_like, (draws,)
        Finite.
    faces : array_like, (draws,)
    groups : array_like of int, (draws,)
        0 to k - 1; a face is in one group.
    k : int, optional
        Number of groups; default: as many as occur.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, a group is out of range, or a face is in two.
    """
    numbers, owners = np.asarray(values, dtype=np.float64), np.asarray(faces)
    members = np.asarray(groups)
    if not (numbers.ndim == 1 and numbers.shape == owners.shape == members.shape):
        raise ValueError("need a face and a group for every value")
    size = k if k is not None else int(members.max(initial=-1)) + 1
    if members.size and (
        members.dtype.kind not in "iu" or members.min() < 0 or members.max() >= size
    ):
        raise ValueError(f"groups must be whole numbers from 0 to {size - 1}")
    # totals of every face, group by group: (draws,) -> size arrays of (faces of the group,)
    parts = [members == group for group in range(size)]
    none = np.empty(0), np.empty(0)
    totals = [cluster_totals(numbers[part], owners[part]) if part.any() else none for part in parts]
    n_faces = np.array([len(pair[0]) for pair in totals], dtype=np.int64)
    # a face in two groups is counted twice
    if n_faces.sum() != len(np.unique(owners)):
        raise ValueError("a face is in two groups")
    n_draws = np.bincount(members.astype(np.int64), minlength=size)
    return Groups([s for s, _ in totals], [c for _, c in totals], n_faces, n_draws)
