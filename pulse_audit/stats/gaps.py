"""Gaps between groups, with one bound that supports a pass and one that supports a fail.

The observed gap between the best and the worst group is biased upwards, also where all groups are
equal: with 25 faces in each of 7 groups it averages about .24. A rule on a percentile bootstrap of
the gap therefore fails fair models (36 % at a limit of .20). Here a rule passes only if every
pair of groups is inside the limit by its own one-sided bound, and fails only if some pair is
outside by a bound that holds for all pairs simultaneously; otherwise it is inconclusive.

References
----------
See `pulse_audit.stats.contrasts`. O. Miettinen and M. Nurminen (1985), Statistics in Medicine 4:213
(score intervals of differences and ratios).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats import contrasts
from pulse_audit.stats.contrasts import Bounds
from pulse_audit.stats.intervals import FloatArray, Groups, by_group, outcomes

GroupStatistic: TypeAlias = Literal["max_gap", "min_ratio", "worst_group", "max_abs"]
Decision: TypeAlias = Literal["pass", "fail", "inconclusive"]

#: Bootstrap replicates of bounds on means: at least, and at most at the small levels of a family.
REPLICATES, MOST_REPLICATES = 1999, 40_000


@dataclass(frozen=True)
class Gap:
    """A worst case over groups, with the bounds for claims about it.

    Parameters
    ----------
    statistic : str
    value : float
        Computed from the point estimates, so too extreme on average.
    pass_bound, fail_bound : float
        See `decide`: each decision is wrong with probability alpha at most. NaN where there is
        nothing to compare.
    larger_is_worse : bool
    groups : tuple of int
        The groups that give ``value``: highest and lowest, or the worst one.
    at_equality : float or None
        Expectation of ``value`` if all groups were equal; for ``max_gap`` only.
    n_faces, n_draws : int
    method : str
    """

    statistic: GroupStatistic
    value: float
    pass_bound: float
    fail_bound: float
    larger_is_worse: bool
    groups: tuple[int, ...]
    at_equality: float | None
    n_faces: int
    n_draws: int
    method: str

    def decide(self, limit: float) -> Decision:
        """Pass if the worst case is shown to be within ``limit``, fail if shown to be beyond it."""
        # reverse the order of limits where smaller is worse
        sign = 1.0 if self.larger_is_worse else -1.0
        if sign * self.pass_bound <= sign * limit:
            return "pass"
        return "fail" if sign * self.fail_bound > sign * limit else "inconclusive"


def replicates_at(alpha: float) -> int:
    """Bootstrap replicates of a bound at a level: at least 20 lie beyond it, as far as it goes."""
    return min(max(REPLICATES, math.ceil(20 / alpha)), MOST_REPLICATES)


def max_gap(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    proportion: bool,
    alpha: float = 0.05,
    seed: int = 0,
) -> Gap:
    """Largest difference of two groups' means.

    Parameters
    ----------
    values : array_like, (draws,)
        Finite; 0 and 1 for a proportion, or from 0 to 1 where every face has one value: it varies
        no more than an outcome of the same mean.
    faces : array_like, (draws,)
        The face each draw belongs to.
    groups : array_like of int, (draws,)
        From 0 on; numbers without a draw are left out.
    proportion : bool
        Score intervals at effective sample sizes with Tukey's range; else bootstrap-t over faces
        with max-T.
    alpha : float
        Level of either claim; divide it among the rules of a family.
    seed : int
        Of the bootstrap of means.

    Returns
    -------
    Gap
        All NaN with fewer than two groups.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite or not an outcome, or a face is in two groups.
    """
    sample, names = _sample(values, faces, groups, proportion, alpha)
    if len(names) < 2:
        return nothing("max_gap", sample, larger_is_worse=True)
    # errors: standard errors of the groups' means if all groups were equal
    if proportion:
        bounds = contrasts.proportion_pairs(sample, alpha)
        method = "score intervals at effective sample sizes; fail by Tukey's range"
        # at the common proportion, weighted by effective sizes
        sizes = sample.effective_sizes()
        share = float((sample.means() * sizes).sum() / sizes.sum())
        errors = np.asarray(np.sqrt(share * (1 - share) / sizes), dtype=np.float64)
    else:
        bounds = contrasts.mean_pairs(sample, alpha, seed, replicates_at(alpha))
        method, errors = method_of_means(sample, "Tukey's range", alpha), sample.errors()
    return _largest_difference(bounds, sample.means(), names, errors, sample, method)


def max_gap_of_replicates(
    values: ArrayLike,
    replicates: ArrayLike,
    faces: ArrayLike,
    draws: ArrayLike,
    *,
    alpha: float = 0.05,
) -> Gap:
    """Largest difference of estimates that share a bootstrap, such as corrected retention.

    Parameters
    ----------
    values : array_like, (k,)
        Estimates before clipping; NaN where a group has none.
    replicates : array_like, (replicates, k)
    faces, draws : array_like of int, (k,)
        Numbers behind every estimate.
    alpha : float

    Returns
    -------
    Gap
        All NaN with fewer than two groups.
    """
    estimates, numbers = np.asarray(values, dtype=np.float64), np.asarray(faces, dtype=np.int64)
    present = np.flatnonzero(np.isfinite(estimates) & (numbers > 0))
    n_draws = np.asarray(draws, dtype=np.int64)[present]
    # only the numbers of faces and draws are needed: the replicates replace the totals of faces
    sample = Groups([], [], numbers[present], n_draws)
    if len(present) < 2:
        return nothing("max_gap", sample, larger_is_worse=True)
    drawn = np.asarray(replicates, dtype=np.float64)[:, present]
    bounds = contrasts.replicate_pairs(estimates[present], drawn, numbers[present], alpha)
    errors = np.nanstd(drawn, axis=0, ddof=1)
    method = "t x joint bootstrap by face; fail by max-T"
    names = present.tolist()
    return _largest_difference(bounds, estimates[present], names, errors, sample, method)


def min_ratio(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    proportion: bool,
    alpha: float = 0.05,
) -> Gap:
    """Smallest ratio of two groups' means: the worst group over the best.

    Parameters and errors as in `max_gap`. A ratio of means is defined where they are positive; its
    bounds are Fieller's.

    Returns
    -------
    Gap
        All NaN with fewer than two groups, or where the largest mean is not positive.
    """
    sample, names = _sample(values, faces, groups, proportion, alpha)
    means = sample.means()
    if len(names) < 2 or means.max() <= 0 or (not proportion and means.min() <= 0):
        return nothing("min_ratio", sample, larger_is_worse=False)
    # bounds on first / second of every pair
    ratios = contrasts.proportion_ratios if proportion else contrasts.mean_ratios
    bounds = ratios(sample, alpha)
    # a pair in reverse order has the inverse ratio, whose lower bound is 1 / upper
    with np.errstate(divide="ignore"):
        passed = np.fmin(bounds.low, 1 / bounds.high).min()
        failed = np.fmin(bounds.all_high, 1 / bounds.all_low).min()
    # the worst group over the best; a ratio of a group to itself is 1, so no fail bound is above 1
    low, high = int(means.argmin()), int(means.argmax())
    how = "score intervals at effective sample sizes" if proportion else "Fieller by face"
    return Gap(
        "min_ratio",
        float(means[low] / means[high]),
        float(passed),
        min(float(failed), 1.0),
        False,
        (names[high], names[low]),
        None,
        int(sample.n_faces.sum()),
        int(sample.n_draws.sum()),
        f"{how}; fail by Tukey's range",
    )


def worst_group(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    proportion: bool,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    seed: int = 0,
) -> Gap:
    """Mean of the worst group; parameters and errors as in `max_gap`."""
    sample, names = _sample(values, faces, groups, proportion, alpha)
    if not names:
        return nothing("worst_group", sample, larger_is_worse=not higher_is_better)
    if proportion:
        bounds = contrasts.proportion_bounds(sample, alpha)
        method = "Clopper-Pearson at effective sample sizes; fail by Sidak's level"
    else:
        bounds = contrasts.mean_bounds(sample, alpha, seed, replicates_at(alpha))
        method = method_of_means(sample, "Sidak's level", alpha)
    # pass: the worst of the individual bounds; fail: the worst of the simultaneous ones
    if higher_is_better:
        worst, passed, failed = bounds.value.argmin(), bounds.low.min(), bounds.all_high.min()
    else:
        worst, passed, failed = bounds.value.argmax(), bounds.high.max(), bounds.all_low.max()
    return Gap(
        "worst_group",
        float(bounds.value[worst]),
        float(passed),
        float(failed),
        not higher_is_better,
        (names[int(worst)],),
        None,
        int(sample.n_faces.sum()),
        int(sample.n_draws.sum()),
        method,
    )


def max_abs(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    alpha: float = 0.05,
    seed: int = 0,
) -> Gap:
    """Largest distance of a group's mean from 0; parameters and errors as in `max_gap`."""
    sample, names = _sample(values, faces, groups, False, alpha)
    if not names:
        return nothing("max_abs", sample, larger_is_worse=True)
    bounds = contrasts.mean_bounds(sample, alpha, seed, replicates_at(alpha))
    # pass: every mean is within +- limit; fail: some interval lies wholly beyond it, on either side
    worst = int(np.abs(bounds.value).argmax())
    return Gap(
        "max_abs",
        float(abs(bounds.value[worst])),
        float(np.maximum(bounds.high, -bounds.low).max()),
        max(float(np.maximum(bounds.all_low, -bounds.all_high).max()), 0.0),
        True,
        (names[worst],),
        None,
        int(sample.n_faces.sum()),
        int(sample.n_draws.sum()),
        method_of_means(sample, "Sidak's level", alpha),
    )


def _sample(
    values: ArrayLike, faces: ArrayLike, groups: ArrayLike, proportion: bool, alpha: float
) -> tuple[Groups, list[int]]:
    """Return the groups that have a draw, and their numbers."""
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and .5, not {alpha}")
    # groups without a draw are left out, so positions differ from group numbers
    every = by_group(values, faces, groups)
    if proportion and (every.n_draws != every.n_faces).any():
        outcomes(values)
    elif proportion and any(((sums < 0) | (sums > 1)).any() for sums in every.sums):
        raise ValueError("numbers of faces must lie between 0 and 1")
    names: list[int] = np.flatnonzero(every.n_faces).tolist()
    totals = [every.sums[name] for name in names], [every.counts[name] for name in names]
    return Groups(*totals, every.n_faces[names], every.n_draws[names]), names


def method_of_means(sample: Groups, joint: str, alpha: float) -> str:
    """Say how means of groups of these sizes are bounded."""
    if sample.n_faces.min() >= contrasts.FEWEST_FACES:
        return f"bootstrap-t by face, {replicates_at(alpha)} replicates; fail by max-T"
    return f"Student t by face; fail by {joint}"


def _largest_difference(
    bounds: Bounds,
    means: FloatArray,
    names: list[int],
    errors: FloatArray,
    sample: Groups,
    method: str,
) -> Gap:
    """Largest difference from bounds on all pairs; ``errors`` are those of equal groups."""
    # pass: the largest bound in size over pairs, either way round; fail: the largest distance that
    # some pair is shown to have, 0 where there is none
    return Gap(
        "max_gap",
        float(np.ptp(means)),
        float(np.maximum(bounds.high, -bounds.low).max()),
        max(float(np.maximum(bounds.all_low, -bounds.all_high).max()), 0.0),
        True,
        (names[int(means.argmax())], names[int(means.argmin())]),
        contrasts.expected_range(errors) if np.isfinite(errors).all() else None,
        int(sample.n_faces.sum()),
        int(sample.n_draws.sum()),
        method,
    )


def nothing(statistic: GroupStatistic, sample: Groups, *, larger_is_worse: bool) -> Gap:
    """Return a gap of NaN: there are too few groups to compare."""
    nan, (faces, draws) = math.nan, (int(n.sum()) for n in (sample.n_faces, sample.n_draws))
    method = "nothing to compare"
    return Gap(statistic, nan, nan, nan, larger_is_worse, (), None, faces, draws, method)
