"""Parity of any metric over groups: gap, ratio, worst group, distance from 0.

Each comparison comes with two bounds of different kinds (see `pulse_audit.stats.gaps`). Read as an
interval: the end on the fair side is where the data show a difference to lie beyond, allowing for
every pair of groups having been looked at; the other end is what every single pair stays within.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats import gaps
from pulse_audit.stats.gaps import Gap
from pulse_audit.types import Estimate

Better: TypeAlias = Literal["higher", "lower", "nearer 0", "neither"]
Statistic: TypeAlias = Literal["max_gap", "min_ratio", "worst_group", "max_abs"]
STATISTICS: tuple[Statistic, ...] = get_args(Statistic)


@dataclass(frozen=True)
class Comparison:
    """One comparison of groups.

    ``groups`` are the group numbers that make the value: highest and lowest, or the worst one.
    ``at_equality`` is what the value would average if all groups were equal, where known.
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
    better: Better,
    seed: int,
    confidence: float = 0.95,
) -> Mapping[Statistic, Comparison]:
    """Compare groups in every way that makes sense for a metric.

    Parameters
    ----------
    values : array_like, (draws,)
        NaN where not measured (left out); 0 and 1 for a proportion.
    faces, groups : array_like of int, (draws,)
        Group -1 is left out.
    proportion : bool
    better : str
        Which way is better. Shifts (``nearer 0``) get ``max_gap`` and ``max_abs``, metrics without
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
    kept = ~np.isnan(numbers) & (of_draw >= 0)
    if len(np.unique(of_draw[kept])) < 2:
        return {}
    data, alpha = (numbers[kept], np.asarray(faces)[kept], of_draw[kept]), (1 - confidence) / 2
    found = [gaps.max_gap(*data, proportion=proportion, alpha=alpha, seed=seed)]
    if better in ("higher", "lower"):
        higher = better == "higher"
        found.append(
            gaps.worst_group(
                *data, proportion=proportion, higher_is_better=higher, alpha=alpha, seed=seed
            )
        )
        found.append(gaps.min_ratio(*data, proportion=proportion, alpha=alpha))
    if better == "nearer 0":
        found.append(gaps.max_abs(*data, alpha=alpha, seed=seed))
    return named(found, confidence)


def named(found: Sequence[Gap], confidence: float) -> dict[Statistic, Comparison]:
    """Turn gaps into comparisons by statistic; those without a value are left out."""
    return {
        statistic: Comparison(_estimate(gap, confidence), gap.groups, gap.at_equality)
        for gap in found
        for statistic in STATISTICS
        if gap.statistic == statistic and math.isfinite(gap.value)
    }


def _estimate(gap: Gap, confidence: float) -> Estimate:
    ends = (gap.fail_bound, gap.pass_bound)
    low, high = ends if gap.larger_is_worse else ends[::-1]
    method = f"bounds: {gap.method}; pass by intersection-union"
    return Estimate(gap.value, low, high, gap.n_faces, gap.n_draws, method, confidence)
