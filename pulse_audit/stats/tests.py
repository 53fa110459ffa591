"""Tests whose unit is the face, with all its draws. No p-value comes without its sample size.

References
----------
Q. McNemar (1947), Psychometrika 12:153. N. A. Obuchowski (1998), Statistics in Medicine 17:1495
(McNemar's test for clusters). M. W. Fagerland, S. Lydersen and P. Laake (2013), BMC Medical
Research Methodology 13:91 (mid-p). E. Chung and J. P. Romano (2013), Annals of Statistics 41:484
(studentised permutation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import chdtrc, gammaln

from pulse_audit.stats.intervals import FloatArray, cluster_totals
from pulse_audit.stats.samples import by_group, outcomes

Alternative: TypeAlias = Literal["two-sided", "greater", "less"]

_BLOCK = 2_000_000  # random numbers held at once
_TIE = 1e-9  # relative: sums in another order must not break ties


@dataclass(frozen=True)
class TestResult:
    """A p-value with the sample behind it.

    ``statistic`` is that of the method; NaN where the data leave it undefined.
    """

    p: float
    statistic: float
    n_faces: int
    n_draws: int
    method: str


def mcnemar(
    faces: ArrayLike, first: ArrayLike, second: ArrayLike, *, mid_p: bool = False
) -> TestResult:
    """Test whether two arms succeed equally often on the same faces, draw by draw.

    The null distribution flips the two arms face by face, all draws of a face together, and is
    worked out exactly. With one draw a face this is McNemar's exact test (its mid-p version).

    Parameters
    ----------
    faces : array_like, (draws,)
        The face each pair of draws belongs to.
    first, second : array_like of bool, (draws,)
        Outcomes of the two arms on the same face, draw and seed.
    mid_p : bool
        Count half of what is as likely as the data, since the exact test rejects too seldom. Its
        size is then 4 to 5 % wherever at most 90 % of faces differ between the arms, but up to
        7.7 % where all do.

    Returns
    -------
    TestResult
        Two-sided; ``statistic`` is Obuchowski's chi-square of one degree of freedom, which with one
        draw a face is McNemar's.

    Raises
    ------
    ValueError
        If lengths differ, there is no draw, or an outcome is neither 0 nor 1.
    """
    differences = outcomes(first) - outcomes(second)
    wins, counts = cluster_totals(differences, faces)
    sizes = np.abs(wins).astype(np.int64)
    total = int(wins.sum())
    distribution = _sign_flips(sizes)
    distance = np.abs(np.arange(len(distribution)) - sizes.sum())
    beyond = distribution[distance > abs(total)].sum()
    level = distribution[distance == abs(total)].sum()
    squares = float(np.square(wins).sum())
    return TestResult(
        min(1.0, float(beyond + level * (0.5 if mid_p else 1.0))),
        total**2 / squares if squares else math.nan,
        len(counts),
        int(counts.sum()),
        f"McNemar by face, {'mid-p' if mid_p else 'exact'}",
    )


def paired_permutation(
    faces: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    seed: int,
    replicates: int = 9999,
    alternative: Alternative = "two-sided",
) -> TestResult:
    """Test whether two arms have the same mean on the same faces, by swapping them face by face.

    Parameters
    ----------
    faces : array_like, (draws,)
    first, second : array_like, (draws,)
        Finite values of the two arms on the same face, draw and seed.
    seed : int
    replicates : int
        Random swaps; with up to 12 faces all swaps are enumerated instead.
    alternative : str
        ``greater``: the first arm's mean is the larger.

    Returns
    -------
    TestResult
        ``statistic`` is the mean difference over draws.

    Raises
    ------
    ValueError
        If lengths differ, there is no draw, or a value is not finite.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    sums, counts = cluster_totals(differences, faces)
    observed = float(sums.sum())
    if len(sums) <= 12:
        flipped, how = _all_flips(sums), "all swaps"
    else:
        flipped, how = _random_flips(sums, replicates, seed), f"{replicates} random swaps"
    return TestResult(
        _as_extreme(flipped, observed, alternative, float(np.abs(sums).sum()), len(sums) <= 12),
        observed / float(counts.sum()),
        len(counts),
        int(counts.sum()),
        f"paired permutation by face, {how}",
    )


def homogeneity(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int,
    replicates: int = 4999,
) -> TestResult:
    """Test whether groups share one mean (of a proportion or a measurement), by permuting faces.

    The statistic is Welch's: squared distances from the common mean over each group's own
    variance between faces. Faces move among groups with all their draws. The test is exact where
    groups do not differ at all, and holds asymptotically where they differ in all but the mean:
    2 to 7 % at 5 % in simulations with 20 to 200 faces a group, rates .05 to .95 and correlations
    that differ from .05 to .95 between groups.

    Parameters
    ----------
    values : array_like, (draws,)
        Finite measurements. For outcomes take `equal_proportions`: at a rate of .05, where groups
        differ in within-face correlation, this test rejects true equality half the time.
    faces, groups : array_like, (draws,)
        Every face is in one group.
    seed : int
    replicates : int
        Random permutations.

    Returns
    -------
    TestResult
        p is NaN with fewer than two groups of two faces; groups of one face are left out.

    Raises
    ------
    ValueError
        If lengths differ, there is no draw, a value is not finite, or a face is in two groups.
    """
    sample = by_group(values, faces, groups)
    large = [number for number, size in enumerate(sample.n_faces) if size >= 2]
    sums = np.concatenate([sample.sums[number] for number in large] or [np.empty(0)])
    counts = np.concatenate([sample.counts[number] for number in large] or [np.empty(0)])
    method = f"Welch statistic of faces, {replicates} permutations of faces"
    if len(large) < 2:
        return TestResult(math.nan, math.nan, len(sums), int(counts.sum()), "fewer than two groups")
    starts = np.cumsum([0] + [int(sample.n_faces[number]) for number in large])[:-1]
    total = float(np.var(np.asarray(values, dtype=np.float64)))
    observed = float(_welch(sums[None], counts[None], starts, total)[0])
    rng = np.random.default_rng(seed)
    larger, left = 0, replicates
    while left:
        rows = min(left, max(1, _BLOCK // len(sums)))
        order = rng.permuted(np.tile(np.arange(len(sums)), (rows, 1)), axis=1)
        permuted = _welch(sums[order], counts[order], starts, total)
        larger += int((permuted >= observed * (1 - _TIE)).sum())
        left -= rows
    return TestResult(
        (larger + 1) / (replicates + 1), observed, len(sums), int(counts.sum()), method
    )


def equal_proportions(values: ArrayLike, faces: ArrayLike, groups: ArrayLike) -> TestResult:
    """Test whether groups share one proportion: chi-square at effective sample sizes.

    Pearson's statistic with every group's draws divided by its design effect, as its interval is:
    Kish's, with the larger of its own and the pooled correlation.

    Parameters
    ----------
    values : array_like of bool, (draws,)
    faces, groups : array_like, (draws,)
        Every face is in one group; groups are numbered from 0.

    Returns
    -------
    TestResult
        p is NaN with fewer than two groups, and 1 where all outcomes are equal.

    Raises
    ------
    ValueError
        If lengths differ, there is no draw, an outcome is neither 0 nor 1, or a face is in two
        groups.

    Notes
    -----
    Rejects true equality in 0.4 to 4.6 % of simulations: rates .05 to .95, 10 to 100 faces a
    group, groups with ICC .1 beside groups with .9.
    """
    sample = by_group(outcomes(values), faces, groups)
    present = sample.n_faces > 0
    n_faces, n_draws = int(sample.n_faces.sum()), int(sample.n_draws.sum())
    if present.sum() < 2:
        return TestResult(math.nan, math.nan, n_faces, n_draws, "fewer than two groups")
    rates, sizes = sample.means()[present], sample.effective_sizes()[present]
    common = float(rates @ sizes / sizes.sum())
    spread = common * (1 - common)
    statistic = float(sizes @ (rates - common) ** 2) / spread if spread > 1e-12 else 0.0
    p = float(chdtrc(len(rates) - 1, statistic))
    return TestResult(p, statistic, n_faces, n_draws, "chi-square at effective sample sizes")


def _sign_flips(sizes: NDArray[np.int64]) -> FloatArray:
    """Distribution of the sum of +-sizes, with equal chances, from -sum to +sum in steps of 1."""
    distribution = np.ones(1)
    for size in np.unique(sizes[sizes > 0]):
        n = int((sizes == size).sum())
        steps = np.zeros(2 * n * int(size) + 1)
        steps[:: 2 * int(size)] = _binomial(n)
        distribution = np.convolve(distribution, steps)
    return distribution


def _binomial(n: int) -> FloatArray:
    """Probabilities of 0 to n heads of a fair coin."""
    heads = np.arange(n + 1)
    logs = gammaln(n + 1) - gammaln(heads + 1) - gammaln(n - heads + 1)
    return np.asarray(np.exp(logs - n * math.log(2)), dtype=np.float64)


def _all_flips(sums: FloatArray) -> FloatArray:
    signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
    return np.asarray(signs @ sums, dtype=np.float64)


def _random_flips(sums: FloatArray, replicates: int, seed: int) -> FloatArray:
    rng, parts, left = np.random.default_rng(seed), [], replicates
    while left:
        rows = min(left, max(1, _BLOCK // len(sums)))
        parts.append(rng.choice([-1.0, 1.0], size=(rows, len(sums))) @ sums)
        left -= rows
    return np.concatenate(parts)


def _as_extreme(
    flipped: FloatArray, observed: float, alternative: Alternative, scale: float, complete: bool
) -> float:
    """Share of sums as extreme as observed; random swaps count the data as one more."""
    slack = _TIE * scale
    if alternative == "two-sided":
        hits = np.abs(flipped) >= abs(observed) - slack
    elif alternative == "greater":
        hits = flipped >= observed - slack
    else:
        hits = flipped <= observed + slack
    if complete:
        return float(hits.mean())
    return float((hits.sum() + 1) / (len(flipped) + 1))


def _welch(
    sums: FloatArray, counts: FloatArray, starts: NDArray[np.int64], total: float
) -> FloatArray:
    """Welch's statistic of rows of faces, groups one after another from ``starts`` on.

    Each group's variance takes in one degree of freedom of the pooled one. Where all faces of a
    group agree, nothing is known of their correlation: each then counts as one draw, of variance
    ``total``, as in `pulse_audit.stats.intervals.proportion_interval`.
    """
    sizes = np.diff(np.append(starts, sums.shape[1]))
    draws = np.add.reduceat(counts, starts, axis=1)
    means = np.add.reduceat(sums, starts, axis=1) / draws
    residuals = sums - counts * np.repeat(means, sizes, axis=1)
    squares = np.add.reduceat(residuals**2, starts, axis=1) / (draws / sizes) ** 2
    pooled = squares.sum(axis=1, keepdims=True) / (sizes.sum() - len(sizes))
    agree = squares <= 1e-12 * (total + 1e-300)
    variances = np.where(agree, total / sizes, (squares + pooled) / sizes**2)
    variances = np.maximum(variances, 1e-300)
    weights = 1 / variances
    common = (weights * means).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    return np.asarray((weights * (means - common) ** 2).sum(axis=1), dtype=np.float64)
