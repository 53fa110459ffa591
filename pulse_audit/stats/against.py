"""Groups on trial against a baseline: how much worse the worst of them became.

Each rule has two bounds, as in `pulse_audit.stats.gaps`: every group or pair of groups is shown to
be no worse than the limit (intersection-union), or some of them is shown to be worse by a bound
that holds for all of them simultaneously. The unit is the face with all its draws. Where both sides
have the same faces, differences are taken within faces.

What is compared are *ways to be bad*. A group has one (its mean, of the worse sign) or two (too far
above 0, too far below), a pair of groups two (either is ahead). A side is as bad as the worst of
them, so that the trial exceeds the baseline by more than m if *some* way of the trial exceeds *all*
ways of the baseline by more than m, and does not if every way of the trial exceeds some way of the
baseline by at most m. The latter choice is paid for by Bonferroni.

References
----------
R. L. Berger (1982), Technometrics 24:295 (intersection-union). Z. Sidak (1967), JASA 62:626. T.
Tango (1998), Statistics in Medicine 17:891 (paired proportions). O. Miettinen and M. Nurminen
(1985), Statistics in Medicine 4:213 (unpaired). J. P. Romano and M. Wolf (2005), JASA 100:94
(max-T).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from pulse_audit.stats import contrasts
from pulse_audit.stats.gaps import Gap, GroupStatistic, method_of_means, nothing, replicates_at
from pulse_audit.stats.intervals import FloatArray, Groups, IntArray
from pulse_audit.stats.paired import IDENTICAL, paired_proportions
from pulse_audit.stats.score import difference_interval

#: Ratios need every mean to exceed this many of its standard errors.
FAR_FROM_ZERO = 3.0


@dataclass(frozen=True, eq=False)
class Sampled:
    """Estimates of groups with replicates of their sampling errors.

    ``values`` is (k,), ``drawn`` (replicates, k); ``least_error`` (k,) is what a standard error is
    at least, where all faces may agree. ``faces`` and ``draws``, (k,), are the numbers behind them.
    Two sides that share faces have replicates of the same faces.
    """

    values: FloatArray
    drawn: FloatArray
    least_error: FloatArray
    faces: IntArray
    draws: IntArray


def largest_drop(
    trial: Groups,
    baseline: Groups,
    *,
    paired: bool,
    proportion: bool,
    higher_is_better: bool,
    alpha: float,
    seed: int = 0,
    other_faces: bool = True,
) -> Gap:
    """Largest worsening of a group's mean from the baseline to the trial, over groups.

    Parameters
    ----------
    trial, baseline : Groups
        The same groups in the same order; where paired, the same faces in the same order.
    paired : bool
        Tango's score interval of each group's differences (`paired_proportions`), or bootstrap-t of
        them; else the score interval of two samples at effective sizes, or bootstrap-t of both.
    proportion, higher_is_better : bool
    alpha : float
        Level of either claim.
    seed : int
        Of the bootstrap of means.
    other_faces : bool
        Whether groups have different faces, as groups of people do, so that Sidak's level holds;
        else Bonferroni's, for shares of the same draws.

    Returns
    -------
    Gap
        ``larger_is_worse``; above 0 where some group is worse than before. Where paired values are
        identical throughout it is 0 with bounds of 0.
    """
    sign = 1.0 if higher_is_better else -1.0
    k = len(trial.sums)
    if (np.minimum(trial.n_faces, baseline.n_faces) == 0).any():
        return nothing("worst_group", trial, larger_is_worse=True)
    # level of each group, of which all hold together
    each_level = 1 - (1 - alpha) ** (1 / k) if other_faces else alpha / k
    joint_name = "Sidak's level" if other_faces else "Bonferroni's level"
    if paired:
        drops = [
            sign * (b / m - t / n)
            for t, n, b, m in zip(
                trial.sums, trial.counts, baseline.sums, baseline.counts, strict=True
            )
        ]
        if not any(drop.any() for drop in drops):
            return _gap("worst_group", 0.0, 0.0, 0.0, (0,), trial, f"paired by face; {IDENTICAL}")
        if proportion:
            alone = [paired_proportions(drop, 1 - 2 * alpha) for drop in drops]
            joint = [paired_proportions(drop, 1 - 2 * each_level) for drop in drops]
            values = np.array([each.value for each in alone])
            high = np.array([each.high for each in alone])
            all_low = np.array([each.low for each in joint])
            method = f"paired by face; Tango's score interval, fail by {joint_name}"
        else:
            ones = [np.ones(len(drop)) for drop in drops]
            sample = Groups(drops, ones, trial.n_faces, trial.n_faces)
            bounds = contrasts.mean_bounds(sample, alpha, seed, replicates_at(alpha))
            values, high, all_low = bounds.value, bounds.high, bounds.all_low
            method = f"paired by face; {method_of_means(sample, 'Sidak level', alpha)}"
    elif proportion:
        # worsening: second less first where higher is better
        first, second = (baseline, trial) if higher_is_better else (trial, baseline)
        p, n, q, m = (
            first.means(),
            first.effective_sizes(),
            second.means(),
            second.effective_sizes(),
        )
        critical = np.array([[ndtri(1 - alpha)], [ndtri(1 - each_level)]], dtype=np.float64)
        lows, highs = difference_interval(p, n, q, m, critical)
        values, high, all_low = p - q, highs[0], lows[1]
        method = f"two samples; score interval at effective sizes, fail by {joint_name}"
    else:
        first, second = (baseline, trial) if higher_is_better else (trial, baseline)
        bounds = contrasts.mean_differences(first, second, alpha, seed, replicates_at(alpha))
        values, high, all_low = bounds.value, bounds.high, bounds.all_low
        smaller = first if first.n_faces.min() < second.n_faces.min() else second
        method = f"two samples; {method_of_means(smaller, 'Sidak level', alpha)}"
    worst = int(values.argmax())
    return _gap(
        "worst_group",
        float(values[worst]),
        float(high.max()),
        float(all_low.max()),
        (worst,),
        trial,
        method,
    )


def sampled_means(sample: Groups, proportion: bool, replicates: int, seed: int) -> Sampled | None:
    """Resample the means of every group by face; None where a group has fewer than two faces.

    Samples of equal numbers of faces that are given the same seed have the same faces resampled.
    """
    if (sample.n_faces < 2).any():
        return None
    drawn, _ = contrasts.resampled_means(sample, replicates, seed)
    n = sample.n_faces
    # of a proportion: that of a share which one face of n + 2 does not have
    least = np.sqrt((n + 1.0) / n) / (n + 2.0) if proportion else np.zeros(len(n))
    return Sampled(sample.means(), drawn, least, n, sample.n_draws)


def worst_of_sampled(
    statistic: GroupStatistic,
    trial: Sampled,
    baseline: Sampled | None = None,
    *,
    higher_is_better: bool = True,
    alpha: float,
) -> Gap:
    """Worst case over groups of estimates with replicates, by itself or against a baseline.

    Parameters
    ----------
    statistic : str
        ``max_gap``, ``min_ratio``, ``worst_group`` or ``max_abs``.
    trial, baseline : Sampled
        The same groups in the same order.
    higher_is_better : bool
        For ``worst_group``.
    alpha : float
        Level of either claim.

    Returns
    -------
    Gap
        Without a baseline in the units of the statistic; with one, by how much the trial is worse
        (the largest over groups, or pairs of groups), ``larger_is_worse``. All NaN with too few
        groups, and for ratios of means that are not well above 0.

    Notes
    -----
    Student's t times the standard error of the replicates for each comparison; together by max-T. A
    ratio's error is linearised, its denominator's with a factor of at least 1, which is what a
    ratio of two equal groups has: errors are not understated on the side of a fail.
    """
    fewest = 1 if statistic in ("worst_group", "max_abs") else 2
    sides = [side for side in (trial, baseline) if side is not None]
    numbers = Groups([], [], trial.faces, trial.draws)
    larger_is_worse = baseline is not None or statistic == "max_gap" or statistic == "max_abs"
    larger_is_worse = larger_is_worse or (statistic == "worst_group" and not higher_is_better)
    unusable = len(trial.values) < fewest or any((side.faces < 1).any() for side in sides)
    if statistic == "min_ratio":
        unusable = unusable or any(_near_zero(side) for side in sides)
    if unusable:
        return nothing(statistic, numbers, larger_is_worse=larger_is_worse)

    # ways to be bad: values (cells, ways), their replicates and least errors
    ways, drawn, least, members = _ways(statistic, trial, higher_is_better)
    faces = np.array([trial.faces[list(each)].min() for each in members])
    if baseline is None:
        # one way of the baseline: 0
        excess, roots, errors = ways[..., None], drawn[..., None], least[..., None]
    else:
        base, base_drawn, base_least, _ = _ways(statistic, baseline, higher_is_better)
        # every way of the trial less every way of the baseline: (cells, ways, ways)
        excess = ways[:, :, None] - base[:, None, :]
        roots = drawn[:, :, :, None] - base_drawn[:, :, None, :]
        errors = np.hypot(least[:, :, None], base_least[:, None, :])
        faces = np.minimum(faces, np.array([baseline.faces[list(each)].min() for each in members]))
    shape = excess.shape
    flat = excess.ravel(), roots.reshape(len(roots), -1), np.repeat(faces, shape[1] * shape[2])
    individual = contrasts.joint_bounds(*flat, alpha / shape[2], errors.ravel())
    together = contrasts.joint_bounds(*flat, alpha, errors.ravel(), one_sided=True)

    # some way of the trial, all ways of the baseline; then the worst cell
    def worst(each: FloatArray) -> FloatArray:
        return np.asarray(each.reshape(shape).min(axis=2).max(axis=1), dtype=np.float64)

    values = worst(excess)
    cell = int(values.argmax())
    ends = np.array([values[cell], worst(individual.high).max(), worst(together.all_low).max()])
    if baseline is None and not larger_is_worse:
        ends = -ends
    method = "t x joint errors by face; fail by max-T"
    value, passed, failed = ends.tolist()
    gap = _gap(statistic, value, passed, failed, members[cell], numbers, method)
    return Gap(**{**gap.__dict__, "larger_is_worse": larger_is_worse})


def _near_zero(side: Sampled) -> bool:
    """Whether some mean could be 0 or less, so that a ratio to it has no meaning."""
    errors = np.maximum(side.drawn.std(axis=0, ddof=1), side.least_error)
    return bool((side.values <= FAR_FROM_ZERO * errors).any())


def _ways(
    statistic: GroupStatistic, side: Sampled, higher_is_better: bool
) -> tuple[FloatArray, FloatArray, FloatArray, list[tuple[int, ...]]]:
    """Ways in which a side can be bad, larger is worse.

    Returns
    -------
    values, drawn, least : ndarray, (cells, ways), (replicates, cells, ways) and (cells, ways)
    members : list of tuple of int
        The groups of each cell.
    """
    values, drawn, least = side.values, side.drawn, side.least_error
    if statistic in ("worst_group", "max_abs"):
        signs = np.array([1.0, -1.0])
        if statistic == "worst_group":
            signs = np.array([-1.0 if higher_is_better else 1.0])
        errors = np.repeat(least[:, None], len(signs), axis=1)
        members: list[tuple[int, ...]] = [(group,) for group in range(len(values))]
        return values[:, None] * signs, drawn[:, :, None] * signs, errors, members
    i, j = contrasts.pairs(len(values))
    members = [(int(one), int(other)) for one, other in zip(i, j, strict=True)]
    if statistic == "max_gap":
        signs = np.array([1.0, -1.0])
        errors = np.repeat(np.hypot(least[i], least[j])[:, None], 2, axis=1)
        of_drawn = (drawn[:, i] - drawn[:, j])[:, :, None] * signs
        return (values[i] - values[j])[:, None] * signs, of_drawn, errors, members
    # the smaller ratio is the worse: minus first over second, minus second over first
    parts = []
    for one, other in ((i, j), (j, i)):
        ratio, factor = values[one] / values[other], np.maximum(values[one] / values[other], 1.0)
        moved = (drawn[:, one] - values[one]) - factor * (drawn[:, other] - values[other])
        error = np.hypot(least[one], factor * least[other]) / values[other]
        parts.append((-ratio, -(ratio + moved / values[other]), error))
    ratios, of_drawn, errors = (
        np.stack([part[number] for part in parts], axis=-1) for number in range(3)
    )
    return ratios, of_drawn, errors, members


def _gap(
    statistic: GroupStatistic,
    value: float,
    pass_bound: float,
    fail_bound: float,
    groups: tuple[int, ...],
    sample: Groups,
    method: str,
) -> Gap:
    numbers = int(sample.n_faces.sum()), int(sample.n_draws.sum())
    if not math.isfinite(value):
        return nothing(statistic, sample, larger_is_worse=True)
    return Gap(statistic, value, pass_bound, fail_bound, True, groups, None, *numbers, method)
