"""Means and shares of ratings, whose raters and faces are both samples: a crossed design.

The same raters judge the same faces, so that two ratings are correlated where they share a rater or
a face. Five raters of a hundred faces are five raters: an interval that treats ratings, or faces
alone, as independent is too short by as much as raters differ.

References
----------
A. C. Cameron, J. B. Gelbach and D. L. Miller (2011), J. Bus. Econ. Stat. 29:238 (two-way cluster
variance). F. E. Satterthwaite (1946), Biometrics Bulletin 2:110 (degrees of freedom). A. B. Owen
(2007), Ann. Appl. Stat. 1:386 (crossed random effects). E. L. Korn and B. I. Graubard (1998),
Survey Methodology 24:193 (Wilson's interval at the effective size, Student's quantile).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtrit

from pulse_audit.stats.intervals import SPARSE, outcomes, wilson
from pulse_audit.types import Estimate


@dataclass(frozen=True)
class CrossedMean:
    """A mean over raters and faces, with its variance and degrees of freedom.

    ``variance`` and ``freedom`` are NaN where fewer than two raters or two faces are left.
    """

    value: float
    variance: float
    freedom: float
    raters: int
    faces: int
    ratings: int

    @property
    def reason(self) -> str:
        """Why there is no variance; empty where there is one."""
        if min(self.raters, self.faces) > 1:
            return ""
        return f"no interval: one {'rater' if self.raters < 2 else 'face'}"


def crossed(values: ArrayLike, raters: ArrayLike, faces: ArrayLike) -> CrossedMean:
    """Mean of ratings with its variance over raters and faces.

    Parameters
    ----------
    values : array_like, (ratings,)
        Finite.
    raters, faces : array_like, (ratings,)
        Who rated, and the face that was shown. Ratings may be missing, and a rater may have rated
        several outputs of a face.

    Raises
    ------
    ValueError
        If there is no rating, lengths differ, or a value is not finite.

    Notes
    -----
    With cell totals t of the residuals by rater r and face f, N ratings, R raters, F faces and C
    cells that are not empty, V = V_R + V_F - V_E:

        V_R = R / (R - 1) sum_r t_r.^2 / N^2,    V_F = F / (F - 1) sum_f t_.f^2 / N^2,
        V_E = C / (C - R - F + 1) (sum t_rf^2 - sum_r t_r.^2 / C_r - sum_f t_.f^2 / C_f) / N^2.

    With one rating in every cell this is the variance of the two-way random-effects analysis of
    variance, (MS_R + MS_F - MS_E) / N. It is at least the larger of V_R and V_F, whose expectations
    it exceeds. The degrees of freedom are Satterthwaite's, at least min(R, F) - 1.
    """
    y = np.asarray(values, dtype=np.float64)
    _, r = np.unique(np.asarray(raters), return_inverse=True)
    _, f = np.unique(np.asarray(faces), return_inverse=True)
    if y.ndim != 1 or not y.size or not (y.shape == r.shape == f.shape):
        raise ValueError("need a rater and a face for every rating")
    if not np.isfinite(y).all():
        raise ValueError("ratings must be finite")
    n, n_raters, n_faces = len(y), int(r.max()) + 1, int(f.max()) + 1
    value = float(y.mean())
    if min(n_raters, n_faces) < 2:
        return CrossedMean(value, math.nan, math.nan, n_raters, n_faces, n)

    # (R, F) totals of the residuals, and which cells have a rating
    totals = np.zeros((n_raters, n_faces))
    np.add.at(totals, (r, f), y - value)
    rated = np.zeros((n_raters, n_faces), dtype=bool)
    rated[r, f] = True
    of_rater, of_face = totals.sum(axis=1) ** 2, totals.sum(axis=0) ** 2
    by_rater = n_raters / (n_raters - 1) * float(of_rater.sum()) / n**2
    by_face = n_faces / (n_faces - 1) * float(of_face.sum()) / n**2
    # what neither rater nor face explains; unknown where the cells are too few
    cells = int(rated.sum())
    free = cells - n_raters - n_faces + 1
    left = np.square(totals).sum() - (of_rater / rated.sum(axis=1)).sum()
    left -= (of_face / rated.sum(axis=0)).sum()
    rest = cells / free * max(float(left), 0.0) / n**2 if free > 0 else 0.0

    variance = max(by_rater + by_face - rest, by_rater, by_face)
    parts = by_rater**2 / (n_raters - 1) + by_face**2 / (n_faces - 1) + rest**2 / max(free, 1)
    least = min(n_raters, n_faces) - 1
    freedom = max(variance**2 / parts, least) if parts > 0 else float(least)
    return CrossedMean(value, variance, float(freedom), n_raters, n_faces, n)


def crossed_mean(
    values: ArrayLike,
    raters: ArrayLike,
    faces: ArrayLike,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    confidence: float = 0.95,
) -> Estimate:
    """Mean of ratings with an interval over raters and faces.

    Parameters
    ----------
    values, raters, faces : array_like, (ratings,)
        As in `crossed`.
    bounds : tuple of float
        The least and the greatest rating; the interval is clipped to them.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    Estimate
        ``n_draws`` counts ratings. Both ends are NaN with one rater or one face.

    Notes
    -----
    Student's t with the variance and degrees of freedom of `crossed`. In 1,500 simulated panels a
    scenario (3 to 40 raters, 7 to 70 faces, continuous ratings and whole steps from 1 to 5, six
    mixtures of rater, face and residual variance, none or a tenth of the ratings missing) it
    covered at least 93 % from 5 raters on and 92 % with 3, 95 % on average; the usual interval over
    ratings covers less than half of the time.
    """
    found = crossed(values, raters, faces)
    numbers = found.faces, found.ratings
    if found.reason:
        return Estimate(found.value, math.nan, math.nan, *numbers, found.reason, confidence)
    half = float(stdtrit(found.freedom, 0.5 + confidence / 2)) * math.sqrt(found.variance)
    low, high = max(bounds[0], found.value - half), min(bounds[1], found.value + half)
    method = f"Student t, {found.freedom:.1f} degrees of freedom, raters and faces crossed"
    if not half:
        method = "no width: all ratings agree"
    return Estimate(found.value, low, high, *numbers, method, confidence)


def crossed_share(
    values: ArrayLike, raters: ArrayLike, faces: ArrayLike, confidence: float = 0.95
) -> Estimate:
    """Share of answers with an interval over raters and faces.

    Parameters
    ----------
    values : array_like, (answers,)
        0 or 1.
    raters, faces : array_like, (answers,)
        As in `crossed`.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    Estimate
        ``n_draws`` counts answers. Both ends are NaN with one rater or one face.

    Notes
    -----
    Wilson's interval at the effective size p (1 - p) / V, with the variance and degrees of freedom
    of `crossed`. Where few raters or faces gave the rarer answer V says little, and 1 / size is
    moved toward that of raters, or faces, who always agree: half as far for every one of them. In
    1,500 simulated panels a scenario (3 to 20 raters, 7 to 70 faces, true shares .5 to .94) it
    covered at least 92 %.
    """
    answers = outcomes(values)
    found = crossed(answers, raters, faces)
    numbers = found.faces, found.ratings
    if found.reason:
        return Estimate(found.value, math.nan, math.nan, *numbers, found.reason, confidence)
    # variance of one answer over that of the share; where few raters or faces gave the rarer
    # answer it says little, and is moved toward that of raters, or faces, who always agree
    rarer = answers == (found.value <= 0.5)
    few = min(len(np.unique(np.asarray(each)[rarer])) for each in (raters, faces))
    spread, weight = found.value * (1 - found.value), SPARSE**few
    inverse = max(found.variance / spread, 1 / found.ratings) if spread else 0.0
    size = 1 / ((1 - weight) * inverse + weight / min(found.raters, found.faces))
    # Wilson takes a normal quantile: the confidence at which that is Student's, as near to 1 as can
    # be told from it
    quantile = float(stdtrit(found.freedom, 0.5 + confidence / 2))
    low, high = wilson(found.value * size, size, min(2 * float(ndtr(quantile)) - 1, 1 - 1e-15))
    method = f"Wilson, effective size {size:.1f}, raters and faces crossed"
    return Estimate(found.value, low, high, *numbers, method, confidence)
