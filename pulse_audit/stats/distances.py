"""Distances between two sets of features: the Frechet and the kernel distance.

FID and KID are these two on the features of a named network; values from different networks are
not comparable.

The Frechet distance of two samples is biased upwards, by about a constant over n that differs
between distributions (Binkowski et al. 2018; Chong and Forsyth 2020): groups of different size
cannot be compared by it, and it has no interval here. Every value is reported with the one expected
of two samples of one distribution. The kernel distance is unbiased at any n, so groups are compared
by it: per group, it is GPI with KID (Ohayon et al. 2024).

Outputs and originals are of the same faces, and a face has several outputs. Pairs of images of one
face are not independent, and are excluded from all three terms of the kernel distance: the result
is a U-statistic over faces, unbiased for the distance between the two distributions.

References
----------
M. Heusel et al. (2017), NeurIPS (FID). M. Binkowski et al. (2018), Demystifying MMD GANs, ICLR,
section 4 and appendix B (KID). M. J. Chong and D. Forsyth (2020), CVPR. D. Dowson and B. Landau
(1982), J. Multivariate Analysis 12:450. G. Ohayon et al. (2024), NeurIPS. J. N. Arvesen (1969),
Ann. Math. Statist. 40:2076 (jackknife of U-statistics).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import qr, svdvals
from scipy.special import stdtrit

from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.types import Estimate, Unavailable

#: Faces on either side that the interval of the kernel distance needs (coverage: see its notes).
FEWEST_FACES = 10

METHOD = "unbiased MMD^2, kernel (x.y/d + 1)^3, no pairs within a face; jackknife over faces, t"
#: Rows of the kernel matrix held in memory at a time.
_ROWS = 512


@dataclass(frozen=True)
class FrechetDistance:
    """A Frechet distance, and its expectation for equal distributions.

    Attributes
    ----------
    value : float
        Biased upwards.
    if_equal : float
        The expected value of two samples of these sizes from one Gaussian distribution with the
        pooled covariance.
    n_first, n_second : int
        Images in either set.
    """

    value: float
    if_equal: float
    n_first: int
    n_second: int


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance with its interval, jackknife standard error and degrees of freedom."""

    estimate: Estimate
    standard_error: float
    degrees: float

    def at(self, confidence: float) -> Estimate:
        """Return the estimate with bounds for tests, each missed with half of 1 - ``confidence``.

        The upper one has a term of second order, half-width squared over the distance: the
        statistic is skewed to the right and its standard error grows with it. At a nominal 5 %,
        upper bounds without the term were below the truth in 6 to 11 % of 1,000 simulations (15
        and 40 faces, 4 and 16 normal features of shifted means), these in 4 to 5 %.
        """
        value, error = self.estimate.value, self.standard_error
        half = error * float(stdtrit(self.degrees, 0.5 + confidence / 2))
        # No distance counts as less than its error: the term stays finite at 0.
        skew = half**2 / max(value, error) if error else 0.0
        return replace(
            self.estimate, low=value - half, high=value + half + skew, confidence=confidence
        )


def frechet_distance(first: ArrayLike, second: ArrayLike) -> FrechetDistance | Unavailable:
    """Frechet distance between Gaussians fitted to two sets of features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances with n - 1. The trace of the root is
    the sum of the singular values of A1 A2', where A is the centred set over the root of n - 1: no
    covariance is formed and none needs full rank.

    Parameters
    ----------
    first, second : array_like, (n, d) and (m, d)
        Features, one row an image, finite.

    Returns
    -------
    FrechetDistance or Unavailable
        Unavailable where a set has no more images than features: its covariance is singular, and
        the bias exceeds the distance.

    Raises
    ------
    ValueError
        If the features are not finite or do not fit together.
    """
    x, y = _features(first, second)
    n, dimension = min(len(x), len(y)), x.shape[1]
    if n <= dimension:
        return Unavailable(
            f"a Frechet distance on {dimension} features needs more than {dimension} images in "
            f"either set, not {n}; the kernel distance (kid) has no such limit"
        )
    # A (d, d) with A'A the covariance: the R of a QR decomposition of the centred set
    a, b = (
        qr((z - z.mean(0)) / math.sqrt(len(z) - 1), mode="r", overwrite_a=True)[0][:dimension]
        for z in (x, y)
    )
    # |m1 - m2|^2 + tr(S1) + tr(S2) - 2 ||A1 A2'||_*
    shift = np.square(x.mean(0) - y.mean(0)).sum()
    spread = np.square(a).sum() + np.square(b).sum()
    value = float(shift + spread - 2 * svdvals(a @ b.T).sum())
    # the expectation if both sets had the pooled covariance
    pooled = np.concatenate([a, b]) / math.sqrt(2)
    if_equal = frechet_bias(svdvals(pooled) ** 2, len(x), len(y))
    return FrechetDistance(value, if_equal, len(x), len(y))


def frechet_bias(variances: ArrayLike, n_first: int, n_second: int) -> float:
    """Return the expected Frechet distance of two samples from one Gaussian distribution.

    To second order in the errors of means and covariances, accurate where n is well above d:
    (1/n + 1/m) (5/4 sum_i v_i + sum_ij v_i v_j / (2 (v_i + v_j))).

    Parameters
    ----------
    variances : array_like, (d,)
        Eigenvalues of the covariance.
    n_first, n_second : int
        Independent images in either sample.
    """
    v = np.asarray(variances, dtype=np.float64)
    # features that never vary add nothing
    v = v[v > 0]
    pairs = np.outer(v, v) / (2 * np.add.outer(v, v))
    return float((1 / n_first + 1 / n_second) * (1.25 * v.sum() + pairs.sum()))


def kernel_distance(
    first: ArrayLike,
    second: ArrayLike,
    first_faces: ArrayLike | None = None,
    second_faces: ArrayLike | None = None,
    *,
    confidence: float = 0.95,
) -> KernelDistance | Unavailable:
    """Kernel distance (KID) between the distributions behind two sets of features.

    Parameters
    ----------
    first, second : array_like, (n, d) and (m, d)
        Features, one row an image, finite: outputs and originals.
    first_faces, second_faces : array_like, (n,) and (m,), optional
        The face of each image; a face in both sets is one face. Without them every image counts as
        independent, which is correct only for two sets of different faces with one image each.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    KernelDistance or Unavailable
        Unbiased, so it may be negative where the distributions are equal. Unavailable with fewer
        than `FEWEST_FACES` faces on a side.

    Raises
    ------
    ValueError
        If the features are not finite or do not fit together.

    Notes
    -----
    Every image has the same weight. The standard error leaves out one face at a time, from both
    sets; Student's t has as many degrees of freedom as the smaller side has faces, less one.

    Coverage of nominal 95 % intervals (benchmarks/kid_intervals.py: 400 simulations a scenario with
    known truth, 3 outputs a face, 16 or 128 features, 10 to 50 faces against their own originals or
    200 other faces): 92 to 96 % at large distances, 93 to 98 % at small ones, 97 to 100 % at 0:
    there the jackknife is about twice the variance, because the U-statistic degenerates. At 10 and
    20 faces and a large distance the cluster bootstrap over faces covered 87 to 91 %, the jackknife
    without its second-order term 89 to 94 %.
    """
    x, y = _features(first, second)
    x_faces, y_faces, n_faces = _numbered(first_faces, second_faces, len(x), len(y))
    # images of every face on either side, (n_faces,)
    a, b = (np.bincount(faces, minlength=n_faces) for faces in (x_faces, y_faces))
    smaller = min(int((a > 0).sum()), int((b > 0).sum()))
    if smaller < FEWEST_FACES:
        message = f"a kernel distance needs {FEWEST_FACES} faces on either side, not {smaller}"
        return Unavailable(message)
    # mean kernel over pairs of different faces within x, within y and between them; each in all
    # and without each face, (n_faces,)
    value, left_out = 0.0, np.zeros(n_faces)
    for features, faces, counts in ((x, x_faces, a), (y, y_faces, b)):
        sums, _, own = _kernel_sums(features, faces, features, faces, n_faces)
        total, pairs = sums.sum() - own.sum(), counts.sum() ** 2 - (counts**2).sum()
        fewer = pairs - 2 * counts * (counts.sum() - counts)
        value += float(total / pairs)
        left_out += (total - 2 * (sums - own)) / fewer
    by_x, by_y, own = _kernel_sums(x, x_faces, y, y_faces, n_faces)
    total, pairs = by_x.sum() - own.sum(), a.sum() * b.sum() - (a * b).sum()
    fewer = pairs - a * (b.sum() - b) - b * (a.sum() - a)
    # MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)
    value -= 2.0 * float(total / pairs)
    left_out -= 2.0 * ((total - (by_x - own) - (by_y - own)) / fewer)
    # jackknife over faces
    spread = np.square(left_out - left_out.mean()).sum()
    error, degrees = math.sqrt((n_faces - 1) / n_faces * spread), smaller - 1
    half = error * float(stdtrit(degrees, 0.5 + confidence / 2))
    low, high = value - half, value + half
    estimate = Estimate(value, low, high, n_faces, len(x), METHOD, confidence)
    return KernelDistance(estimate, error, degrees)


def kernel_distance_gap(
    first: KernelDistance, second: KernelDistance, *, confidence: float = 0.95
) -> Estimate:
    """Difference of the kernel distances of two groups that share no face.

    Standard errors add in squares, with Welch's degrees of freedom.
    """
    # Welch-Satterthwaite
    a, b = first.standard_error**2, second.standard_error**2
    degrees = (a + b) ** 2 / (a**2 / first.degrees + b**2 / second.degrees) if a + b else 1.0
    half = math.sqrt(a + b) * float(stdtrit(degrees, 0.5 + confidence / 2))
    one, other = first.estimate, second.estimate
    value, faces = one.value - other.value, one.n_faces + other.n_faces
    method = f"difference, Welch's t; {METHOD}"
    draws = one.n_draws + other.n_draws
    return Estimate(value, value - half, value + half, faces, draws, method, confidence)


def widest_gap(
    distances: Mapping[str, KernelDistance | Unavailable], *, confidence: float = 0.95
) -> tuple[str, str, Estimate] | Unavailable:
    """Largest difference between two groups' kernel distances: (larger, smaller, difference).

    The pair is selected because it is the widest, so ``confidence`` is Bonferroni-corrected for
    all k (k - 1) / 2 pairs of k groups.
    """
    measured = {g: d for g, d in distances.items() if isinstance(d, KernelDistance)}
    if len(measured) < 2:
        return Unavailable("a gap needs two groups with a kernel distance")
    ordered = sorted(measured, key=lambda group: measured[group].estimate.value)
    pairs = len(measured) * (len(measured) - 1) // 2
    level = 1 - (1 - confidence) / pairs
    gap = kernel_distance_gap(measured[ordered[-1]], measured[ordered[0]], confidence=level)
    return ordered[-1], ordered[0], gap


def _kernel_sums(
    x: FloatArray,
    x_faces: IntArray,
    y: FloatArray,
    y_faces: IntArray,
    n_faces: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sum the kernel by the face of x, by the face of y, and over pairs of one face."""
    by_x, own, columns = np.zeros(n_faces), np.zeros(n_faces), np.zeros(len(y))
    for start in range(0, len(x), _ROWS):
        rows, faces = x[start : start + _ROWS], x_faces[start : start + _ROWS]
        # (x.y / d + 1)^3, (rows, m)
        kernel = (rows @ y.T / x.shape[1] + 1) ** 3
        columns += kernel.sum(0)
        by_x += np.bincount(faces, kernel.sum(1), n_faces)
        # keep the pairs of one face only
        kernel[faces[:, None] != y_faces] = 0
        own += np.bincount(faces, kernel.sum(1), n_faces)
    by_y = np.asarray(np.bincount(y_faces, columns, n_faces), dtype=np.float64)
    return by_x, by_y, own


def _features(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = (np.asarray(features, dtype=np.float64) for features in (first, second))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features {x.shape} and {y.shape} must be (n, d) and (m, d)")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features must be finite: leave out images that have none")
    return x, y


def _numbered(
    first: ArrayLike | None, second: ArrayLike | None, n: int, m: int
) -> tuple[IntArray, IntArray, int]:
    """Return the faces of both sets as numbers from 0, the same face the same one."""
    if (first is None) != (second is None):
        raise ValueError("give the faces of both sets or of neither")
    if first is None or second is None:
        return np.arange(n), np.arange(n, n + m), n + m
    # number the faces of both sets together
    labels = np.concatenate([np.asarray(first), np.asarray(second)])
    if len(labels) != n + m:
        raise ValueError(f"{len(labels)} faces for {n} + {m} images")
    names, numbers = np.unique(labels, return_inverse=True)
    return numbers[:n], numbers[n:], len(names)
