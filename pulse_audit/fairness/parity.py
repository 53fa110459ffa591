"""Parity of any metric over groups: gap, ratio, worst group, distance from 0.

Each comparison has two bounds of different kinds (see `pulse_audit.stats.gaps`). Read as an
interval: its end on the fair side is a bound on the largest difference after correcting for all
pairwise comparisons; at the other end is a limit that every single pair is within.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats import gaps
from pulse_audit.stats.gaps import Gap, GroupStatistic
from pulse_audit.types import Direction, Estimate


@dataclass(frozen=True)
class Comparison:
    """One comparison of groups.

    ``groups`` are the group numbers that give the value: highest and lowest, or the worst one.
    ``at_equality`` is the expected value if all groups were equal, where known.
    """

    estimate: Estimate
    groups: tuple[int, ...]
    at_equality: float | None


def compare(
    values: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    *,
    proportion: bool,
    better: Direction,
    seed: int,
    confidence: float = 0.95,
) -> Mapping[GroupStatistic, Comparison]:
    """Compare groups by every statistic that applies to a metric.

    Parameters
    ----------
    values : array_like, (draws,)
        NaN where not measured (left out); 0 and 1 for a proportion.
    faces, groups : array_like of int, (draws,)
        Group -1 is left out.
    proportion : bool
    better : str
        The better direction. Shifts (``nearer 0``) get ``max_gap`` and ``max_abs``, metrics without
        a direction ``max_gap``, all others ``max_gap``, ``worst_group`` and ``min_ratio``.
    seed : int
    confidence : float
        Of the two bounds together; each has half of the error.

    Returns
    -------
    mapping
        Empty with fewer than two groups; without the comparisons that cannot be made.
    """
    numbers, of_draw = np.asarray(values, dtype=np.float64), np.asarray(groups)
    # draws without a value or a group are left out
    measured = ~np.isnan(numbers) & (of_draw >= 0)
    if len(np.unique(of_draw[measured])) < 2:
        return {}
    data = numbers[measured], np.asarray(faces)[measured], of_draw[measured]
    # half of the error for the passing bound, half for the failing one
    alpha = (1 - confidence) / 2
    comparisons = [gaps.max_gap(*data, proportion=proportion, alpha=alpha, seed=seed)]
    # rates and other metrics with a direction have a worst group and a ratio
    if better in ("higher", "lower"):
        higher = better == "higher"
        comparisons.append(
            gaps.worst_group(
                *data, proportion=proportion, higher_is_better=higher, alpha=alpha, seed=seed
            )
        )
        comparisons.append(gaps.min_ratio(*data, proportion=proportion, alpha=alpha))
    # shifts are compared with 0 instead
    if better == "nearer 0":
        comparisons.append(gaps.max_abs(*data, alpha=alpha, seed=seed))
    return named(comparisons, confidence)


def named(comparisons: Sequence[Gap], confidence: float) -> dict[GroupStatistic, Comparison]:
    """Turn gaps into comparisons by statistic; those without a value are left out."""
    by_name: dict[GroupStatistic, Comparison] = {}
    for gap in comparisons:
        if math.isfinite(gap.value):
            # the failing bound is on the fair side
            ends = (gap.fail_bound, gap.pass_bound)
            low, high = ends if gap.larger_is_worse else ends[::-1]
            method = f"bounds: {gap.method}; pass by intersection-union"
            estimate = Estimate(gap.value, low, high, gap.n_faces, gap.n_draws, method, confidence)
            by_name[gap.statistic] = Comparison(estimate, gap.groups, gap.at_equality)
    return by_name
