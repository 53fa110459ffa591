"""Gaps between groups, with a bound that can prove them small and one that can prove them large.

The gap between the best and the worst group is too large on average, even among equals: with 25
faces in each of 7 groups it averages about .24. A bootstrap of the gap itself therefore condemns
innocent models (36 % at a limit of .20). Here a rule passes only if every pair of groups is inside
the limit by its own one-sided bound, and fails only if some pair is outside by a bound that holds
for all pairs at once; between the two it is undecided.

References
----------
See `pulse_audit.stats.contrasts`. O. Miettinen and M. Nurminen (1985), Statistics in Medicine 4:213
(score intervals of differences and ratios).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from pulse_audit.stats import contrasts
from pulse_audit.stats.contrasts import Bounds
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.stats.samples import Groups, by_group, outcomes
from pulse_audit.stats.score import difference_interval
from pulse_audit.types import Estimate

Decision: TypeAlias = Literal["pass", "fail", "inconclusive"]

REPLICATES = 1999


@dataclass(frozen=True)
class Gap:
    """A worst case over groups, with what can and cannot be claimed of it.

    Parameters
    ----------
    statistic : str
        ``max_gap``, ``min_ratio``, ``worst_group``, ``max_abs`` or ``worst_drop``.
    value : float
        Computed from the estimates as they stand, so too extreme on average.
    pass_bound, fail_bound : float
        See `decide`. NaN where there is nothing to compare.
    larger_is_worse : bool
    groups : tuple of int
        The groups that make ``value``: highest and lowest, or the worst one.
    at_equality : float or None
        What ``value`` would average if all groups were equal; for ``max_gap`` only.
    alpha : float
        Chance of a wrong pass at most, and of a wrong fail at most.
    n_faces, n_draws : int
    method : str
    """

    statistic: str
    value: float
    pass_bound: float
    fail_bound: float
    larger_is_worse: bool
    groups: tuple[int, ...]
    at_equality: float | None
    alpha: float
    n_faces: int
    n_draws: int
    method: str

    def decide(self, limit: float) -> Decision:
        """Pass if the worst case is shown to keep to ``limit``, fail if shown to break it."""
        sign = 1.0 if self.larger_is_worse else -1.0
        if sign * self.pass_bound <= sign * limit:
            return "pass"
        return "fail" if sign * self.fail_bound > sign * limit else "inconclusive"


@dataclass(frozen=True)
class Pair:
    """The difference of two groups, first less second, at a confidence of its own."""

    first: int
    second: int
    difference: Estimate


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
        Finite; 0 and 1 for a proportion.
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
        return _nothing("max_gap", sample, alpha, larger_is_worse=True)
    if proportion:
        bounds = contrasts.proportion_pairs(sample, alpha)
        method = "score intervals at effective sample sizes; fail by Tukey's range"
    else:
        bounds = contrasts.mean_pairs(sample, alpha, seed, REPLICATES)
        method = _of_means(sample, "Tukey's range")
    gap = _gap(bounds, sample.means(), names, alpha, _errors_at_equality(sample, proportion))
    return _complete(gap, sample, method)


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
    there = np.flatnonzero(np.isfinite(estimates) & (numbers > 0))
    of_draws = int(np.asarray(draws, dtype=np.int64)[there].sum())
    empty = Groups([], [], numbers[there], np.array([of_draws]))
    if len(there) < 2:
        return _nothing("max_gap", empty, alpha, larger_is_worse=True)
    drawn = np.asarray(replicates, dtype=np.float64)[:, there]
    bounds = contrasts.replicate_pairs(estimates[there], drawn, numbers[there], alpha)
    errors = np.nanstd(drawn, axis=0, ddof=1)
    gap = _gap(bounds, estimates[there], there.tolist(), alpha, errors)
    return _complete(gap, empty, "t x joint bootstrap by face; fail by max-T")


def min_ratio(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    proportion: bool,
    alpha: float = 0.05,
) -> Gap:
    """Smallest ratio of two groups' means: the worst group over the best.

    Parameters and errors as in `max_gap`. Means must be positive for their ratio to say anything;
    they get Fieller's bounds.

    Returns
    -------
    Gap
        All NaN with fewer than two groups, or where the largest mean is not positive.
    """
    sample, names = _sample(values, faces, groups, proportion, alpha)
    means = sample.means()
    if len(names) < 2 or means.max() <= 0 or (not proportion and means.min() <= 0):
        return _nothing("min_ratio", sample, alpha, larger_is_worse=False)
    ratios = contrasts.proportion_ratios if proportion else contrasts.mean_ratios
    bounds = ratios(sample, alpha)
    # the other way round, a pair's upper bound is its lower one
    passed = np.fmin(bounds.low, _inverse(bounds.high)).min()
    failed = np.fmin(bounds.all_high, _inverse(bounds.all_low)).min()
    low, high = int(means.argmin()), int(means.argmax())
    how = "score intervals at effective sample sizes" if proportion else "Fieller by face"
    gap = Gap(
        "min_ratio",
        float(means[low] / means[high]),
        float(passed),
        min(float(failed), 1.0),
        False,
        (names[high], names[low]),
        None,
        alpha,
        0,
        0,
        "",
    )
    return _complete(gap, sample, f"{how}; fail by Tukey's range")


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
        return _nothing("worst_group", sample, alpha, larger_is_worse=not higher_is_better)
    bounds, method = _each(sample, proportion, alpha, seed)
    return _complete(_worst("worst_group", bounds, names, higher_is_better, alpha), sample, method)


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
        return _nothing("max_abs", sample, alpha, larger_is_worse=True)
    bounds, method = _each(sample, False, alpha, seed)
    worst = int(np.abs(bounds.value).argmax())
    gap = Gap(
        "max_abs",
        float(abs(bounds.value[worst])),
        float(np.maximum(bounds.high, -bounds.low).max()),
        max(float(np.maximum(bounds.all_low, -bounds.all_high).max()), 0.0),
        True,
        (names[worst],),
        None,
        alpha,
        0,
        0,
        "",
    )
    return _complete(gap, sample, method)


def worst_drop(
    trial: tuple[ArrayLike, ArrayLike, ArrayLike],
    baseline: tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    alpha: float = 0.05,
) -> Gap:
    """Largest fall of a group's proportion from a baseline that shares no face with the trial.

    For paired runs, give ``baseline - trial`` of every draw to `worst_group` as a mean, with
    ``higher_is_better=False``.

    Parameters
    ----------
    trial, baseline : tuple of array_like
        Outcomes, faces and groups, (draws,) each; higher is better. Groups without draws in either
        are left out.
    alpha : float

    Raises
    ------
    ValueError
        As `max_gap`.
    """
    k = 1 + max(int(np.max(part[2], initial=-1)) for part in (trial, baseline))
    new, old = (by_group(outcomes(v), f, g, k) for v, f, g in (trial, baseline))
    names = np.flatnonzero((new.n_faces > 0) & (old.n_faces > 0)).tolist()
    sample = Groups([], [], new.n_faces[names] + old.n_faces[names], (new.n_draws + old.n_draws))
    if not names:
        return _nothing("worst_drop", sample, alpha, larger_is_worse=True)
    before, after = old.means()[names], new.means()[names]
    members = before, old.effective_sizes()[names], after, new.effective_sizes()[names]
    several = 1 - (1 - alpha) ** (1 / len(names))
    alone = difference_interval(*members, float(ndtri(1 - alpha)))
    joint = difference_interval(*members, float(ndtri(1 - several / 2)))
    bounds = Bounds(before - after, *alone, *joint)
    gap = _worst("worst_drop", bounds, names, False, alpha)
    return _complete(
        gap, sample, "score intervals at effective sample sizes; fail by Sidak's level"
    )


def pairwise(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    proportion: bool,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Pair]:
    """Difference of every pair of groups, each with an interval of its own (not simultaneous).

    Miettinen and Nurminen's interval at effective sample sizes for proportions, bootstrap-t over
    faces for means. Parameters and errors as in `max_gap`.
    """
    level = (1 - confidence) / 2
    sample, names = _sample(values, faces, groups, proportion, level)
    if len(names) < 2:
        return []
    if proportion:
        bounds, method = contrasts.proportion_pairs(sample, level), "score, effective sample sizes"
    else:
        bounds = contrasts.mean_pairs(sample, level, seed, REPLICATES)
        method = "bootstrap-t by face" if _enough(sample) else "Student t by face"
    found = []
    for place, (i, j) in enumerate(zip(*contrasts.pairs(len(names)), strict=True)):
        n_faces, n_draws = (int(part[i] + part[j]) for part in (sample.n_faces, sample.n_draws))
        value, low, high = (float(p[place]) for p in (bounds.value, bounds.low, bounds.high))
        estimate = Estimate(value, low, high, n_faces, n_draws, method, confidence)
        found.append(Pair(names[i], names[j], estimate))
    return found


def _sample(
    values: ArrayLike, faces: ArrayLike, groups: ArrayLike, proportion: bool, alpha: float
) -> tuple[Groups, list[int]]:
    """Return groups that have a draw, and their numbers."""
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and .5, not {alpha}")
    every = by_group(outcomes(values) if proportion else values, faces, groups)
    names: list[int] = np.flatnonzero(every.n_faces).tolist()
    kept = [every.sums[name] for name in names], [every.counts[name] for name in names]
    return Groups(*kept, every.n_faces[names], every.n_draws[names]), names


def _each(sample: Groups, proportion: bool, alpha: float, seed: int) -> tuple[Bounds, str]:
    if proportion:
        bounds = contrasts.proportion_bounds(sample, alpha)
        return bounds, "Wilson at effective sample sizes; fail by Sidak's level"
    bounds = contrasts.mean_bounds(sample, alpha, seed, REPLICATES)
    return bounds, _of_means(sample, "Sidak's level")


def _of_means(sample: Groups, otherwise: str) -> str:
    if _enough(sample):
        return f"bootstrap-t by face, {REPLICATES} replicates; fail by max-T"
    return f"Student t by face; fail by {otherwise}"


def _enough(sample: Groups) -> bool:
    return bool(sample.n_faces.min() >= contrasts.FEWEST_FACES)


def _gap(
    bounds: Bounds, means: FloatArray, names: Sequence[int], alpha: float, errors: FloatArray
) -> Gap:
    return Gap(
        "max_gap",
        float(np.ptp(means)),
        float(np.maximum(bounds.high, -bounds.low).max()),
        max(float(np.maximum(bounds.all_low, -bounds.all_high).max()), 0.0),
        True,
        (names[int(means.argmax())], names[int(means.argmin())]),
        contrasts.expected_range(errors) if np.isfinite(errors).all() else None,
        alpha,
        0,
        0,
        "",
    )


def _worst(
    statistic: str, bounds: Bounds, names: Sequence[int], higher_is_better: bool, alpha: float
) -> Gap:
    if higher_is_better:
        place, passed, failed = bounds.value.argmin(), bounds.low.min(), bounds.all_high.min()
    else:
        place, passed, failed = bounds.value.argmax(), bounds.high.max(), bounds.all_low.max()
    worst, ends = int(place), (float(passed), float(failed))
    value = float(bounds.value[worst])
    shown = (names[worst],)
    return Gap(statistic, value, *ends, not higher_is_better, shown, None, alpha, 0, 0, "")


def _complete(gap: Gap, sample: Groups, method: str) -> Gap:
    n_faces, n_draws = int(sample.n_faces.sum()), int(sample.n_draws.sum())
    return replace(gap, n_faces=n_faces, n_draws=n_draws, method=method)


def _nothing(statistic: str, sample: Groups, alpha: float, *, larger_is_worse: bool) -> Gap:
    nan = math.nan
    gap = Gap(statistic, nan, nan, nan, larger_is_worse, (), None, alpha, 0, 0, "")
    return _complete(gap, sample, "nothing to compare")


def _errors_at_equality(sample: Groups, proportion: bool) -> FloatArray:
    """Return standard errors of the groups' means if they were equal."""
    if not proportion:
        return sample.errors()
    sizes = sample.effective_sizes()
    share = float((sample.means() * sizes).sum() / sizes.sum())
    return np.asarray(np.sqrt(share * (1 - share) / sizes), dtype=np.float64)


def _inverse(numbers: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return 1 / numbers
