"""Bounds on groups and on pairs of groups, individual and simultaneous.

Individual bounds support a claim about every group: if all of them are inside a limit, so is the
worst group (intersection-union test, Berger 1982). Simultaneous bounds support a claim about some
group that is selected after looking at all of them (Tukey's range, max-T).

References
----------
R. L. Berger (1982), Technometrics 24:295. J. W. Tukey (1953), The Problem of Multiple Comparisons.
J. P. Romano and M. Wolf (2005), JASA 100:94 (max-T, whose first step is used). A. C. Davison and
D. V. Hinkley (1997), Bootstrap Methods and their Application, section 5.2 (bootstrap-t).
E. C. Fieller (1954), JRSS-B 16:175 (ratios of means). P. Hall (1992), The Bootstrap and Edgeworth
Expansion, section 2.5 (expansion of resampled means).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from pulse_audit.stats import studentised
from pulse_audit.stats.bootstrap import MANY_FACES
from pulse_audit.stats.intervals import FloatArray, Groups, IntArray, clopper_pearson
from pulse_audit.stats.score import difference_interval, ratio_interval

#: With fewer faces, too many resamples have no spread to be divided by.
FEWEST_FACES = 8
#: Resampling weights held in memory at a time.
_BLOCK = 2_000_000


@dataclass(frozen=True, eq=False)
class Bounds:
    """Bounds on some quantities: ``low``, ``high`` individual, ``all_low``, ``all_high`` joint.

    Each of ``low`` and ``high`` is exceeded with probability alpha; any of ``all_low`` or
    ``all_high`` with probability alpha together. ``value`` holds the estimates.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    all_low: FloatArray
    all_high: FloatArray


def pairs(k: int) -> tuple[IntArray, IntArray]:
    """Both members of every unordered pair of k groups, (k (k - 1) / 2,) each."""
    first, second = np.triu_indices(k, 1)
    return first.astype(np.int64), second.astype(np.int64)


def proportion_pairs(sample: Groups, alpha: float) -> Bounds:
    """Differences of proportions: score intervals at effective sizes, Tukey's range for all."""
    p, n = sample.means(), sample.effective_sizes()
    i, j = pairs(len(p))
    # critical values (2, 1): of one pair, of all pairs
    critical = np.array([[ndtri(1 - alpha)], [tukey(len(p), math.inf, alpha)]], dtype=np.float64)
    low, high = difference_interval(p[i], n[i], p[j], n[j], critical)
    return Bounds(p[i] - p[j], low[0], high[0], low[1], high[1])


def proportion_ratios(sample: Groups, alpha: float) -> Bounds:
    """Ratios of proportions, first over second of every unordered pair: score intervals."""
    p, n = sample.means(), sample.effective_sizes()
    i, j = pairs(len(p))
    critical = np.array([[ndtri(1 - alpha)], [tukey(len(p), math.inf, alpha)]], dtype=np.float64)
    # as for differences, (2, pairs): individual ends first
    low, high = ratio_interval(p[i], n[i], p[j], n[j], critical)
    return Bounds(_quotient(p[i], p[j]), low[0], high[0], low[1], high[1])


def proportion_bounds(sample: Groups, alpha: float) -> Bounds:
    """Proportions: Clopper-Pearson at effective sizes, Sidak's level for all groups."""
    p, n = sample.means(), sample.effective_sizes()
    sidak = 1 - (1 - alpha) ** (1 / len(p))
    # one-sided alpha is two-sided 2 alpha
    individual, joint = (clopper_pearson(p * n, n, 1 - level) for level in (2 * alpha, sidak))
    return Bounds(p, *individual, *joint)


def mean_pairs(sample: Groups, alpha: float, seed: int, replicates: int) -> Bounds:
    """Differences of means: bootstrap-t over faces, max-T for all pairs.

    With fewer than 8 faces in some group, Student's t and Tukey's range with the degrees of freedom
    of the smaller group. A pair with a group of one face is unbounded.
    """
    means, errors = sample.means(), sample.errors()
    i, j = pairs(len(means))
    differences, spread = means[i] - means[j], np.hypot(errors[i], errors[j])
    # of two independent groups variances add; Student's t has the smaller group's df
    if sample.n_faces.min() < FEWEST_FACES:
        df = np.minimum(sample.n_faces[i], sample.n_faces[j]) - 1
        return _student(differences, spread, df, tukeys(len(means), df, alpha), alpha)
    drawn, drawn_errors = replicated_means(sample, replicates, seed)
    # (replicates, pairs)
    roots = drawn[:, i] - drawn[:, j] - differences
    return _from_roots(
        differences, spread, roots, np.hypot(drawn_errors[:, i], drawn_errors[:, j]), alpha
    )


def mean_bounds(sample: Groups, alpha: float, seed: int, replicates: int) -> Bounds:
    """Means: bootstrap-t over faces, max-T for all groups; Student's t where faces are few."""
    means, errors = sample.means(), sample.errors()
    if sample.n_faces.min() < FEWEST_FACES:
        df, level = sample.n_faces - 1, (1 - alpha) ** (1 / len(means))
        return _student(means, errors, df, stdtrit(np.maximum(df, 1), 0.5 + level / 2), alpha)
    drawn, drawn_errors = replicated_means(sample, replicates, seed)
    return _from_roots(means, errors, drawn - means, drawn_errors, alpha)


def mean_differences(
    first: Groups, second: Groups, alpha: float, seed: int, replicates: int
) -> Bounds:
    """Differences of two samples' means, first less second of every group, of different faces.

    Bootstrap-t over faces, max-T for all groups; with fewer than 8 faces in some group Student's t
    with the smaller sample's degrees of freedom.
    """
    means, errors = first.means() - second.means(), np.hypot(first.errors(), second.errors())
    fewest = np.minimum(first.n_faces, second.n_faces)
    if fewest.min() < FEWEST_FACES:
        df, level = fewest - 1, (1 - alpha) ** (1 / len(means))
        return _student(means, errors, df, stdtrit(np.maximum(df, 1), 0.5 + level / 2), alpha)
    # each sample is resampled by itself
    (ones, one_errors), (others, other_errors) = (
        replicated_means(sample, replicates, seed + number)
        for number, sample in enumerate((first, second))
    )
    return _from_roots(
        means, errors, ones - others - means, np.hypot(one_errors, other_errors), alpha
    )


def mean_ratios(sample: Groups, alpha: float) -> Bounds:
    """Ratios of positive means by Fieller's method, Student's t and Tukey's range over faces.

    NaN where a mean is not positive: such a ratio has no meaning.
    """
    means, errors = sample.means(), sample.errors()
    i, j = pairs(len(means))
    m1, e1, m2, e2 = means[i], errors[i], means[j], errors[j]
    df = np.minimum(sample.n_faces[i], sample.n_faces[j]) - 1
    # a ratio needs positive means, and an error of either
    is_defined = (m1 > 0) & (m2 > 0) & (df > 0)
    ends = []
    for critical in (stdtrit(np.maximum(df, 1), 1 - alpha), tukeys(len(means), df, alpha)):
        # ratios r with |m1 - r m2| <= critical sqrt(e1^2 + r^2 e2^2)
        a, c = m2**2 - (critical * e2) ** 2, m1**2 - (critical * e1) ** 2
        root = np.sqrt(np.maximum((m1 * m2) ** 2 - a * c, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = c / (m1 * m2 + root), (m1 * m2 + root) / a
        ends += [np.where(c > 0, low, 0.0), np.where(a > 0, high, np.inf)]
    return Bounds(*(np.where(is_defined, part, np.nan) for part in (_quotient(m1, m2), *ends)))


def replicate_pairs(
    values: FloatArray, replicates: FloatArray, faces: IntArray, alpha: float
) -> Bounds:
    """Differences of estimates that have joint bootstrap replicates, such as corrected retention.

    `joint_bounds` of all pairs. ``values`` and ``faces`` are (k,), ``replicates`` (replicates, k).
    """
    i, j = pairs(len(values))
    fewest = np.minimum(faces[i], faces[j])
    return joint_bounds(values[i] - values[j], replicates[:, i] - replicates[:, j], fewest, alpha)


def joint_bounds(
    values: FloatArray,
    replicates: FloatArray,
    faces: IntArray,
    alpha: float,
    least_error: FloatArray | float = 0.0,
    *,
    one_sided: bool = False,
) -> Bounds:
    """Bounds on estimates that share a bootstrap, together by max-T.

    Student's t times the bootstrap standard error, enlarged by n / (n - 1) as a variance is.

    Parameters
    ----------
    values : ndarray, (m,)
    replicates : ndarray, (replicates, m)
        Rows with a not-a-number are left out.
    faces : ndarray of int, (m,)
        Faces of the smallest sample behind each estimate; below 2 its bounds are infinite.
    alpha : float
        One-sided for ``low`` and ``high``; two-sided and together for the joint ends.
    least_error : ndarray, (m,), or float
        Standard errors are at least this: where all faces agree a bootstrap does not vary.
    one_sided : bool
        The joint ends are one-sided too: all of ``all_low`` hold together, or all of ``all_high``.
    """
    finite = replicates[np.isfinite(replicates).all(axis=1)]
    deviation = finite.std(axis=0, ddof=1)
    errors = np.maximum(deviation * np.sqrt(faces / np.maximum(faces - 1, 1e-9)), least_error)
    # max-T: the quantile of the largest standardised deviation over all estimates
    standard = (finite - finite.mean(axis=0)) / np.maximum(deviation, 1e-12)
    standard = standard if one_sided else np.abs(standard)
    largest = float(np.quantile(standard.max(axis=1), 1 - alpha))
    # a level that the replicates do not reach: Bonferroni's quantile, which is larger
    if alpha * len(finite) < 1:
        each = alpha / (standard.shape[1] * (1 if one_sided else 2))
        largest = max(largest, -float(ndtri(each)))
    # Student's quantile at the level that this quantile is of a normal distribution
    df = np.maximum(faces - 1, 1)
    return _student(values, errors, faces - 1, stdtrit(df, ndtr(largest)), alpha)


def resampled_means(sample: Groups, replicates: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Means and standard errors of every group with faces resampled, (replicates, k) each."""
    sizes = tuple(len(sums) for sums in sample.sums)
    # statistics of the same faces share their resamples, which are kept up to 48 MB of them
    is_small = replicates * sum(sizes) <= 3 * _BLOCK
    draws = iter((_kept_resamples if is_small else _resamples)(sizes, replicates, seed))
    means, errors = [], []
    for n, sums, counts in zip(sizes, sample.sums, sample.counts, strict=True):
        columns = np.stack([sums, counts, sums**2, sums * counts, counts**2], axis=1)
        # how often each face is drawn, (rows, n), times its columns: sums over the resample
        blocks = -(-replicates // _rows(n))
        s, c, ss, sc, cc = np.concatenate([next(draws) @ columns for _ in range(blocks)]).T
        # mean and its linearised error in every resample, as in `Groups.errors`
        mean = s / c
        squares = np.maximum(ss - 2 * mean * sc + mean**2 * cc, 0)
        means.append(mean)
        errors.append(np.sqrt(n / (n - 1) * squares) / c)
    return np.stack(means, axis=1), np.stack(errors, axis=1)


def replicated_means(sample: Groups, replicates: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """`resampled_means`, but where every group has `MANY_FACES` their distribution is expanded.

    With residuals r of every face, the resampled total u of r has variance sum r^2 and skewness g,
    and is normal but for a term g (z^2 - 1) / 6; the total of r^2, from which the standard error is
    computed, is lognormal and that of draws normal, with their covariances. What is left out is of
    order 1 / faces.
    """
    if sample.n_faces.min() < MANY_FACES:
        return resampled_means(sample, replicates, seed)
    rng, means, errors = np.random.default_rng(seed), [], []
    for sums, counts in zip(sample.sums, sample.counts, strict=True):
        n, draws = len(sums), counts.sum()
        mean = sums.sum() / draws
        residuals = sums - mean * counts
        squares = np.square(residuals).sum()
        if squares <= 1e-24 * np.square(sums).sum():
            # all faces agree
            means.append(np.full(replicates, mean))
            errors.append(np.zeros(replicates))
            continue
        # deviations of u, of the total of squares and of draws: (faces, 3)
        columns = np.stack([residuals, residuals**2, counts], axis=1)
        columns -= columns.mean(axis=0)
        covariance = columns.T @ columns
        z = with_covariance(rng.standard_normal((replicates, 3)), covariance)
        root, skewness = math.sqrt(squares), float((residuals**3).sum() / squares**1.5)
        u = z[:, 0] + skewness / 6 * root * ((z[:, 0] / root) ** 2 - 1)
        # the total of squares is positive: lognormal, of its variance
        relative = math.sqrt(math.log1p(covariance[1, 1] / squares**2))
        shift = relative / max(math.sqrt(covariance[1, 1]), 1e-300) * z[:, 1]
        resampled = squares * np.exp(shift - relative**2 / 2)
        number = draws + z[:, 2]
        means.append(mean + u / number)
        errors.append(np.sqrt(n / (n - 1) * resampled) / number)
    return np.stack(means, axis=1), np.stack(errors, axis=1)


def with_covariance(standard: FloatArray, covariance: FloatArray) -> FloatArray:
    """Give standard normal rows, (n, d), a covariance that may be singular, (d, d).

    Signs of eigenvectors, and directions among equal eigenvalues, are the processor's, so that
    another one may give other numbers of the same distribution: ends of corrected intervals then
    differ by their simulation error (up to 0.015 at 1,000 replicates and 20 faces a group). The
    root with V^T behind it would be the same everywhere, and would move every published interval.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(standard @ root.T, dtype=np.float64)


def _rows(n: int) -> int:
    """Resamples of n faces that are drawn at once."""
    return max(1, _BLOCK // n)


def _resamples(sizes: tuple[int, ...], replicates: int, seed: int) -> Iterator[IntArray]:
    """Yield how often each face of each group is drawn, in blocks, (rows, n)."""
    rng = np.random.default_rng(seed)
    for n in sizes:
        for start in range(0, replicates, _rows(n)):
            rows = min(_rows(n), replicates - start)
            yield rng.multinomial(n, np.full(n, 1 / n), size=rows)


@lru_cache(maxsize=4)
def _kept_resamples(sizes: tuple[int, ...], replicates: int, seed: int) -> list[IntArray]:
    return list(_resamples(sizes, replicates, seed))


@lru_cache(maxsize=256)
def tukey(k: int, df: float, alpha: float) -> float:
    """Return the critical value of all differences of k groups, jointly, in standard errors."""
    if k == 2:  # the range of two is their distance
        half = 1 - alpha / 2
        return float(ndtri(half) if math.isinf(df) else stdtrit(df, half))
    # the studentised range is in errors of one mean, a difference has sqrt(2) of it
    return studentised.quantile(1 - alpha, k, df) / math.sqrt(2)


def tukeys(k: int, df: IntArray, alpha: float) -> FloatArray:
    """`tukey` for several degrees of freedom; below 1 they are taken as 1."""
    return np.array([tukey(k, float(max(number, 1)), alpha) for number in df])


def expected_range(errors: FloatArray) -> float:
    """Mean of maximum minus minimum of equal groups with these standard errors, by simulation."""
    return float(np.ptp(_normal_draws(len(errors)) * errors, axis=1).mean())


@lru_cache(maxsize=16)
def _normal_draws(k: int) -> FloatArray:
    return np.random.default_rng(0).standard_normal((20_000, k))


def _from_roots(
    values: FloatArray, errors: FloatArray, roots: FloatArray, root_errors: FloatArray, alpha: float
) -> Bounds:
    """Bootstrap-t bounds: quantiles of each studentised root, and of the largest in size."""
    # t* = (estimate* - estimate) / error*; a root of 0 stays 0 where its error is 0 too
    floor = 1e-12 * np.maximum(np.abs(values), 1e-300)
    t = np.where(np.abs(roots) <= floor, 0.0, roots / np.maximum(root_errors, 1e-300))
    lower, upper = np.quantile(t, [alpha, 1 - alpha], axis=0)
    largest = float(np.quantile(np.abs(t).max(axis=1), 1 - alpha))
    # the upper quantile of the roots gives the lower bound, and the reverse
    return Bounds(
        values,
        values - upper * errors,
        values - lower * errors,
        values - largest * errors,
        values + largest * errors,
    )


def _student(
    values: FloatArray, errors: FloatArray, df: IntArray, joint: FloatArray | float, alpha: float
) -> Bounds:
    """Student's t individually, ``joint`` standard errors together; infinite where df is 0."""
    has_error = df > 0
    alone = np.where(has_error, stdtrit(np.maximum(df, 1), 1 - alpha) * errors, np.inf)
    both = np.where(has_error, joint * errors, np.inf)
    return Bounds(values, values - alone, values + alone, values - both, values + both)


def _quotient(first: FloatArray, second: FloatArray) -> FloatArray:
    out = np.full(first.shape, np.nan)
    return np.asarray(np.divide(first, second, out=out, where=second != 0), dtype=np.float64)
