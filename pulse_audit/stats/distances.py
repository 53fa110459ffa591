"""How far two sets of features lie apart: the Frechet and the kernel distance.

FID and KID are these two on the features of a named network; the numbers of two networks are never
to be compared.

The Frechet distance of two samples is biased upwards, by about a constant over n that differs
between distributions (Binkowski et al. 2018; Chong and Forsyth 2020): groups of different size
cannot be compared by it, and it has no interval here. What two samples of one distribution would
score stands beside every value. The kernel distance is unbiased at any n, so groups are compared
by that: per group, it is GPI with KID (Ohayon et al. 2024).

Outputs and originals are of the same faces, and a face has several outputs. Pairs of images of one
face say nothing about two strangers, and are left out of all three terms of the kernel distance:
what remains is a U-statistic over faces, unbiased for the distance between the two distributions.

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
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import qr, svdvals
from scipy.special import stdtrit

from pulse_audit.stats.intervals import FloatArray
from pulse_audit.types import Estimate, Unavailable

#: Faces on either side that an interval of the kernel distance needs (coverage in the notes there).
FEWEST_FACES = 10

METHOD = "unbiased MMD^2, kernel (x.y/d + 1)^3, no pairs within a face; jackknife over faces, t"
_ROWS = 512  # of the kernel matrix held at once


@dataclass(frozen=True)
class FrechetDistance:
    """A Frechet distance, and what it would be if nothing differed.

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
        Unavailable where a set has no more images than features: its covariance leaves whole
        directions empty, and the bias outweighs the distance.

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
    first_factor, second_factor = _factor(x), _factor(y)
    value = _frechet(x.mean(0), first_factor, y.mean(0), second_factor)
    pooled = np.concatenate([first_factor, second_factor]) / math.sqrt(2)
    if_equal = frechet_bias(svdvals(pooled) ** 2, len(x), len(y))
    return FrechetDistance(value, if_equal, len(x), len(y))


def frechet_between(
    first_mean: ArrayLike,
    first_covariance: ArrayLike,
    second_mean: ArrayLike,
    second_covariance: ArrayLike,
) -> float:
    """Frechet distance between two Gaussians given by mean (d,) and covariance (d, d).

    Covariances may be singular; eigenvalues below zero, which rounding leaves, count as zero.
    """
    means = [np.asarray(mean, dtype=np.float64) for mean in (first_mean, second_mean)]
    factors = [_root(covariance) for covariance in (first_covariance, second_covariance)]
    return _frechet(means[0], factors[0], means[1], factors[1])


def frechet_bias(variances: ArrayLike, n_first: int, n_second: int) -> float:
    """Frechet distance to be expected of two samples from one Gaussian distribution.

    To the second order in the errors of means and covariances, good where n is well above d:
    (1/n + 1/m) (5/4 sum_i v_i + sum_ij v_i v_j / (2 (v_i + v_j))).

    Parameters
    ----------
    variances : array_like, (d,)
        Eigenvalues of the covariance.
    n_first, n_second : int
        Independent images in either sample.
    """
    v = np.asarray(variances, dtype=np.float64)
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
        The face of each image; a face in both sets is one face. Without them every image is an
        independent one: right for two sets of strangers with one image each, and for nothing else.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    KernelDistance or Unavailable
        Unbiased, so it may fall below zero where the sets are alike. Unavailable with fewer than
        `FEWEST_FACES` faces on a side.

    Raises
    ------
    ValueError
        If the features are not finite or do not fit together.

    Notes
    -----
    Every image has the same weight. The standard error leaves out a face at a time, from both sets,
    and Student's t has the smaller number of faces less one degrees of freedom.

    Coverage of nominal 95 % intervals (benchmarks/kid_intervals.py: 400 simulations a cell with
    known truth, 3 outputs a face, 16 or 128 features, 10 to 50 faces against their own originals or
    200 strangers): 92 to 96 % where the sets are clearly apart, 93 to 98 % where they are near,
    97 to 100 % where they are alike: there the jackknife is about twice the variance, because the
    U-statistic degenerates. At 10 and 20 faces clearly apart the cluster bootstrap over faces
    covered 87 to 91 %, the jackknife with its second-order term taken off 89 to 94 %.
    """
    x, y = _features(first, second)
    x_faces, y_faces, n_faces = _numbered(first_faces, second_faces, len(x), len(y))
    sides = len(np.unique(x_faces)), len(np.unique(y_faces))
    if min(sides) < FEWEST_FACES:
        message = f"a kernel distance needs {FEWEST_FACES} faces on either side, not {min(sides)}"
        return Unavailable(message)
    terms = (
        (1.0, _Pairs.within(x, x_faces, n_faces)),
        (1.0, _Pairs.within(y, y_faces, n_faces)),
        (-2.0, _Pairs.between(x, x_faces, y, y_faces, n_faces)),
    )
    value = sum(sign * pairs.mean for sign, pairs in terms)
    left_out = sum((sign * pairs.without_each for sign, pairs in terms), np.zeros(n_faces))
    spread = np.square(left_out - left_out.mean()).sum()
    error, degrees = math.sqrt((n_faces - 1) / n_faces * spread), min(sides) - 1
    half = error * float(stdtrit(degrees, 0.5 + confidence / 2))
    low, high = value - half, value + half
    estimate = Estimate(value, low, high, n_faces, len(x), METHOD, confidence)
    return KernelDistance(estimate, error, degrees)


def kernel_distance_by_group(
    first: ArrayLike,
    second: ArrayLike,
    faces: tuple[ArrayLike, ArrayLike],
    groups: tuple[ArrayLike, ArrayLike],
    *,
    confidence: float = 0.95,
) -> dict[str, KernelDistance | Unavailable]:
    """Kernel distance between the outputs and the originals of each group's faces.

    Parameters
    ----------
    first, second : array_like, (n, d) and (m, d)
        Features of outputs and originals.
    faces, groups : pair of array_like, (n,) and (m,)
        The face, and the face's labelled group, of every image of the two sets.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    dict
        By group, in the order of their names.
    """
    (x, y), (x_faces, y_faces) = _features(first, second), map(np.asarray, faces)
    x_groups, y_groups = (np.asarray(labels) for labels in groups)
    result: dict[str, KernelDistance | Unavailable] = {}
    for group in np.union1d(x_groups, y_groups):
        a, b = x_groups == group, y_groups == group
        if not (a.any() and b.any()):
            result[str(group)] = Unavailable(f"group {group} has images in one of the sets only")
            continue
        result[str(group)] = kernel_distance(
            x[a], y[b], x_faces[a], y_faces[b], confidence=confidence
        )
    return result


def kernel_distance_gap(
    first: KernelDistance, second: KernelDistance, *, confidence: float = 0.95
) -> Estimate:
    """Difference of the kernel distances of two groups that share no face.

    Standard errors add in squares, with Welch's degrees of freedom.
    """
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

    The pair was picked because it is the widest, so its interval is not a confidence interval for
    the largest difference; each of k groups is to be compared at a level corrected for k (k - 1) /
    2 pairs. ``confidence`` is corrected so (Bonferroni).
    """
    known = {g: d for g, d in distances.items() if isinstance(d, KernelDistance)}
    if len(known) < 2:
        return Unavailable("a gap needs two groups with a kernel distance")
    ordered = sorted(known, key=lambda group: known[group].estimate.value)
    pairs = len(known) * (len(known) - 1) // 2
    level = 1 - (1 - confidence) / pairs
    gap = kernel_distance_gap(known[ordered[-1]], known[ordered[0]], confidence=level)
    return ordered[-1], ordered[0], gap


@dataclass(frozen=True)
class _Pairs:
    """Mean of the kernel over pairs of different faces: in all, and without each face."""

    mean: float
    without_each: FloatArray

    @classmethod
    def within(cls, x: FloatArray, faces: NDArray[np.int64], n_faces: int) -> _Pairs:
        sums, _, own = _kernel_sums(x, faces, x, faces, n_faces)
        counts = np.bincount(faces, minlength=n_faces)
        total, pairs = sums.sum() - own.sum(), counts.sum() ** 2 - (counts**2).sum()
        fewer = pairs - 2 * counts * (counts.sum() - counts)
        return cls(float(total / pairs), (total - 2 * (sums - own)) / fewer)

    @classmethod
    def between(
        cls,
        x: FloatArray,
        x_faces: NDArray[np.int64],
        y: FloatArray,
        y_faces: NDArray[np.int64],
        n_faces: int,
    ) -> _Pairs:
        by_x, by_y, own = _kernel_sums(x, x_faces, y, y_faces, n_faces)
        a, b = (np.bincount(faces, minlength=n_faces) for faces in (x_faces, y_faces))
        total, pairs = by_x.sum() - own.sum(), a.sum() * b.sum() - (a * b).sum()
        fewer = pairs - a * (b.sum() - b) - b * (a.sum() - a)
        return cls(float(total / pairs), (total - (by_x - own) - (by_y - own)) / fewer)


def _kernel_sums(
    x: FloatArray,
    x_faces: NDArray[np.int64],
    y: FloatArray,
    y_faces: NDArray[np.int64],
    n_faces: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sum the kernel by the face of x, by the face of y, and over pairs of one face."""
    by_x, own, columns = np.zeros(n_faces), np.zeros(n_faces), np.zeros(len(y))
    for start in range(0, len(x), _ROWS):
        rows, faces = x[start : start + _ROWS], x_faces[start : start + _ROWS]
        kernel = (rows @ y.T / x.shape[1] + 1) ** 3
        columns += kernel.sum(0)
        by_x += np.bincount(faces, kernel.sum(1), n_faces)
        kernel[faces[:, None] != y_faces] = 0
        own += np.bincount(faces, kernel.sum(1), n_faces)
    by_y = np.asarray(np.bincount(y_faces, columns, n_faces), dtype=np.float64)
    return by_x, by_y, own


def _frechet(
    first_mean: FloatArray, first: FloatArray, second_mean: FloatArray, second: FloatArray
) -> float:
    """Distance from means and factors A (k, d) with A'A the covariance."""
    shift = np.square(first_mean - second_mean).sum()
    spread = np.square(first).sum() + np.square(second).sum()
    return float(shift + spread - 2 * svdvals(first @ second.T).sum())


def _factor(features: FloatArray) -> FloatArray:
    """Return A (d, d) with A'A the covariance of more than d rows."""
    centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    factor: FloatArray = qr(centred, mode="r", overwrite_a=True)[0][: features.shape[1]]
    return factor


def _root(covariance: ArrayLike) -> FloatArray:
    values, vectors = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    root: FloatArray = np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T
    return root


def _features(first: ArrayLike, second: ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = (np.asarray(features, dtype=np.float64) for features in (first, second))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features {x.shape} and {y.shape} must be (n, d) and (m, d)")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("features must be finite: leave out images that have none")
    return x, y


def _numbered(
    first: ArrayLike | None, second: ArrayLike | None, n: int, m: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the faces of both sets as numbers from 0, the same face the same one."""
    if (first is None) != (second is None):
        raise ValueError("give the faces of both sets or of neither")
    if first is None or second is None:
        return np.arange(n), np.arange(n, n + m), n + m
    labels = np.concatenate([np.asarray(first), np.asarray(second)])
    if len(labels) != n + m:
        raise ValueError(f"{len(labels)} faces for {n} + {m} images")
    names, numbers = np.unique(labels, return_inverse=True)
    return numbers[:n], numbers[n:], len(names)
