"""Rows that compare: the groups of a grouping in one metric, and two arms on the same faces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from pulse_audit.fairness import parity
from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.fairness.shift import Draws
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.registry import SAMPLE_METRICS
from pulse_audit.stats import gaps, power
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import FloatArray, IntArray, cluster_totals, intraclass_correlation
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.summary.attributes import AttributeLabels, Grouping, retention_columns
from pulse_audit.summary.groups import JOIN, UNLABELLED, UNMEASURED, Subset
from pulse_audit.summary.schema import ALL, Correction, Detail, EstimateRow, make_row
from pulse_audit.types import Estimate

CONFIDENCE = 0.95
#: Not groups of people, but faces about which something is not known.
UNKNOWN = {UNLABELLED, UNMEASURED}
#: Metrics in which arms are compared, beside retention of the attribute of the grouping.
COMPARED = ("feasible_rate", "lightness_shift", "ita_shift")
#: What a remedy may cost, in which two runs are compared over the whole sample.
PRICES = ("psnr", "ssim", "niqe", "steps")
#: Metrics that are means and not proportions.
MEANS = {metric.name for metric in SAMPLE_METRICS if metric.kind != "proportion"}


def group_comparisons(
    subset: Subset, metric: MetricDefinition, values: FloatArray, grouping: Grouping, seed: int
) -> Iterator[EstimateRow]:
    """Compare the groups in one metric; nothing for the whole sample, or without a direction."""
    if grouping.name == ALL or metric.direction == "neither" or metric.statistic is not None:
        return
    # Faces without a label or a measurement are not a group to compare.
    unknown = [n for n, group in enumerate(grouping.groups) if set(group.split(JOIN)) & UNKNOWN]
    of_draw = grouping.of_draw[subset.rows]
    values = np.where(np.isin(of_draw, unknown), np.nan, values)
    # Largest gap, ratio, worst group or distance from 0, as the direction of the metric asks.
    proportion = metric.kind == "proportion"
    comparisons = parity.compare(
        values,
        subset.faces,
        of_draw,
        proportion=proportion,
        better=metric.direction,
        seed=subset.seed(seed, "parity", metric.name, grouping.name) % 2**32,
        confidence=CONFIDENCE,
    )
    comparisons = {
        statistic: replace(comparison, estimate=_in_range(comparison.estimate, statistic, metric))
        for statistic, comparison in comparisons.items()
    }
    # A gap comes with the difference that a sample of this size could have detected.
    size: Detail = {}
    if "max_gap" in comparisons:
        size = sample_size(values, subset.faces, of_draw, proportion)
    yield from _comparison_rows(
        subset, metric.name, grouping.name, grouping.groups, comparisons, "raw", size
    )


def _in_range(
    estimate: Estimate, statistic: gaps.GroupStatistic, metric: MetricDefinition
) -> Estimate:
    """Clip the bounds of a comparison of groups to what the range of the metric allows."""
    lower, upper = metric.lower_bound, metric.upper_bound
    if metric.kind == "proportion":
        lower, upper = 0.0, 1.0
    ranges = {
        "max_gap": (0.0, upper - lower),
        "max_abs": (0.0, max(abs(lower), abs(upper))),
        "worst_group": (lower, upper),
    }
    ends = ranges.get(statistic, (-np.inf, np.inf))
    return replace(metric, lower_bound=ends[0], upper_bound=ends[1]).bounded(estimate)


def sample_size(values: FloatArray, faces: IntArray, groups: IntArray, proportion: bool) -> Detail:
    """Difference of two groups that this sample could show, and faces needed for 10 points.

    By the lower bound of the largest gap, with 90 % power, for two groups of the size of the
    smallest, one of them at the rate of the whole sample. Of a rise and a fall from there the
    larger difference counts; ``detectable_as`` says which of them can be shown.
    """
    measured = ~np.isnan(values)
    values, faces, groups = values[measured], faces[measured], groups[measured]
    # group of each face, groups that have faces, and their sizes in faces
    _, first = np.unique(faces, return_index=True)
    of_face = groups[first]
    strata, sizes = np.unique(of_face, return_counts=True)
    draws, fewest = max(1, round(len(faces) / len(first))), int(sizes.min())
    # the lower bound has half of the error, as in `parity.compare`
    alpha = (1 - CONFIDENCE) / 2
    if proportion:
        # without an estimable correlation, draws of a face count as one
        icc = intraclass_correlation(values, faces, groups)
        design = power.Design(draws, 1.0 if icc is None else icc, len(sizes), alpha)
        base = float(values.mean())
        shown = {
            word: power.detectable_proportion(base, end, fewest, design)
            for word, end in (("fall", 0.0), ("rise", 1.0))
        }
        differences = {word: size for word, size in shown.items() if size is not None}
        # a change of ten points, in the directions in which there is room for it
        others = [other for other in (base - 0.1, base + 0.1) if 0 <= other <= 1]
        return {
            "detectable": max(differences.values(), default=None),
            "detectable_as": " or ".join(differences) or None,
            "faces_needed": max(
                power.faces_for_proportions(base, other, design) for other in others
            ),
        }
    # standard deviation of the faces' means within their groups
    totals, counts = cluster_totals(values, faces)
    means = totals / counts
    centred = [means[of_face == group] - means[of_face == group].mean() for group in strata]
    freedom = max(1, len(means) - len(strata))
    spread = float(np.sqrt(np.square(np.concatenate(centred)).sum() / freedom))
    design = power.Design(groups=len(sizes), alpha=alpha)
    return {"detectable": power.detectable_mean(spread, fewest, design)}


def corrected_gap(
    subset: Subset, labels: AttributeLabels, draws: Draws, correction: CorrectedShift
) -> Iterator[EstimateRow]:
    """Largest gap of corrected retention; nothing where it cannot be corrected.

    Where a model gave the labels, retention may come out above 1 and is clipped first, and a gap is
    shown only as far as the gap of the raw agreement is shown, too (intersection-union test).
    """
    if correction.grade == "unavailable":
        return
    by_model, alpha = correction.labels_from == "model", (1 - CONFIDENCE) / 2
    retention = correction.values.diagonal()
    # retention is the diagonal of the matrix, (replicates, k, k) -> (replicates, k)
    diagonal = np.arange(len(labels.groups))
    gap = gaps.max_gap_of_replicates(
        np.minimum(retention, 1.0) if by_model else retention,
        correction.replicates[:, diagonal, diagonal],
        correction.faces,
        correction.draws,
        alpha=alpha,
    )
    if by_model:
        raw = gaps.max_gap(draws.retained, draws.faces, draws.truth, proportion=True, alpha=alpha)
        method = f"{gap.method}, and by raw agreement"
        gap = replace(gap, fail_bound=min(gap.fail_bound, raw.fail_bound), method=method)
    # clipped last: the inverse of a confusion matrix may leave [0, 1]
    gap = replace(gap, value=min(gap.value, 1.0), pass_bound=min(gap.pass_bound, 1.0))
    comparisons = parity.named([gap], CONFIDENCE)
    yield from _comparison_rows(
        subset, "retention", labels.attribute, labels.groups, comparisons, "corrected", {}
    )


def _comparison_rows(
    subset: Subset,
    metric: str,
    group_by: str,
    groups: Sequence[str],
    comparisons: Mapping[gaps.GroupStatistic, parity.Comparison],
    correction: Correction,
    size: Detail,
) -> Iterator[EstimateRow]:
    """One row a comparison; ``size`` goes into the detail of the largest gap."""
    for statistic, comparison in comparisons.items():
        ends = [groups[number] for number in comparison.groups]
        detail: Detail = (
            {"worst": ends[0]} if len(ends) == 1 else {"highest": ends[0], "lowest": ends[-1]}
        )
        if comparison.at_equality is not None:
            detail["at_equality"] = comparison.at_equality
        if statistic == "max_gap":
            detail.update(size)
        yield make_row(
            subset.key,
            metric,
            group_by,
            ends[0] if len(ends) == 1 else ALL,
            comparison.estimate,
            correction=correction,
            statistic=statistic,
            detail=detail,
        )


def arm_comparisons(
    subsets: Sequence[Subset], groupings: Sequence[Grouping], arms: Sequence[str], seed: int
) -> Iterator[EstimateRow]:
    """Difference of every two of the arms under one condition and scale, paired by face."""
    compared = [subset for subset in subsets if subset.key.arm in arms]
    for first, second in combinations(compared, 2):
        # faces that both arms were given; differences are taken within them
        faces = np.asarray(np.intersect1d(first.faces, second.faces), dtype=np.int64)
        if first.key[1:] != second.key[1:] or not len(faces):
            continue
        for grouping in groupings:
            for metric, group, differences in _differences(first, second, faces, grouping):
                measured = np.isfinite(differences)
                if metric in MEANS:
                    key = first.seed(seed, "arms", metric, grouping.name, group)
                    estimate = cluster_bca(differences[measured], faces[measured], seed=key)
                else:
                    estimate = paired_proportions(differences[measured])
                yield make_row(
                    first.key,
                    metric,
                    grouping.name,
                    group,
                    replace(estimate, method=f"paired by face; {estimate.method}"),
                    statistic="difference",
                    detail={"minus": second.key.arm},
                )


def _differences(
    first: Subset, second: Subset, faces: IntArray, grouping: Grouping
) -> Iterator[tuple[str, str, FloatArray]]:
    """Metric, group, and the first arm's mean less the second's of each face, (faces,).

    NaN for faces outside the group, or not measured in both arms.
    """
    # values of each metric compared, one per draw, for either arm
    sides: list[dict[str, FloatArray]] = []
    for subset in (first, second):
        values = {
            metric.name: metric.values(subset.samples)
            for metric in SAMPLE_METRICS
            if metric.name in COMPARED and metric.missing(subset.samples, {}) is None
        }
        if grouping.labels is not None:
            retention = retention_columns(subset, grouping.labels)["retention"]
            values["retention"] = np.asarray(retention, dtype=np.float64)
        sides.append(values)
    # group of each face, (faces,)
    group_of = np.zeros(int(first.faces.max()) + 1, dtype=np.int64)
    group_of[first.faces] = grouping.of_draw[first.rows]
    of_face = group_of[faces]
    for metric in sorted(sides[0].keys() & sides[1].keys()):
        means, others = (
            _means_by_face(values[metric], subset, faces)
            for values, subset in zip(sides, (first, second), strict=True)
        )
        for number, group in enumerate(grouping.groups):
            differences = np.where(of_face == number, means - others, np.nan)
            if np.isfinite(differences).any():
                yield metric, group, differences
    # the share of outputs with each apparent group, over all faces
    if grouping.labels is not None and grouping.by_attribute:
        shares = share_differences(first, second, faces, grouping.labels)
        for group, differences in zip(grouping.labels.groups, shares, strict=True):
            yield "output_share", group, differences


def share_differences(
    first: Subset, second: Subset, faces: IntArray, labels: AttributeLabels
) -> list[FloatArray]:
    """Share of each face's draws with an apparent group, first arm less second: (faces,) each."""
    shares = []
    for number in range(len(labels.groups)):
        of_first, of_second = (
            _means_by_face((labels.output[subset.rows] == number).astype(np.float64), subset, faces)
            for subset in (first, second)
        )
        shares.append(of_first - of_second)
    return shares


def _means_by_face(values: FloatArray, subset: Subset, faces: IntArray) -> FloatArray:
    """Mean over the measured draws of each face, NaN where none was measured; (faces,)."""
    # place of each draw's face; draws of other faces are dropped by the comparison below
    places = np.searchsorted(faces, subset.faces).clip(max=len(faces) - 1)
    used = (faces[places] == subset.faces) & np.isfinite(values)
    sums = np.bincount(places[used], values[used], len(faces))
    counts = np.bincount(places[used], minlength=len(faces))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return np.asarray(means, dtype=np.float64)


def differences_by_face(
    first: Subset, second: Subset, face_ids: Sequence[str], grouping: Grouping, other: Grouping
) -> Iterator[tuple[str, str, FloatArray]]:
    """Compare subsets of two runs: metric, group, first less second of each face, (faces,).

    ``face_ids`` are those that both were given, ``other`` the same grouping in the second run. NaN
    for faces that either run puts outside the group, or did not measure. ``output_share`` is over
    all faces: the share of their draws that show the group. `PRICES` are of the whole sample.
    """
    compared = (*COMPARED, *PRICES) if grouping.name == ALL else COMPARED
    faces = np.arange(len(face_ids), dtype=np.int64)
    number_of = {face_id: number for number, face_id in enumerate(face_ids)}
    sides = []
    for subset, by in ((first, grouping), (second, other)):
        # the draws of the shared faces, numbered alike in both runs
        kept = np.flatnonzero(subset.samples["face_id"].isin(number_of).to_numpy())
        samples = subset.samples.iloc[kept]
        numbers = np.array([number_of[i] for i in samples["face_id"]], dtype=np.int64)
        part = Subset(subset.key, samples, numbers, subset.rows[kept])
        values = {
            metric.name: metric.values(samples)
            for metric in SAMPLE_METRICS
            if metric.name in compared and metric.missing(samples, {}) is None
        }
        if by.labels is not None:
            retention = retention_columns(part, by.labels)["retention"]
            values["retention"] = np.asarray(retention, dtype=np.float64)
        names = np.full(len(faces), "", dtype=object)
        names[numbers] = [by.groups[number] for number in by.of_draw[part.rows]]
        sides.append((part, values, names))
    (one, of_one, groups), (two, of_two, others) = sides
    for metric in sorted(of_one.keys() & of_two.keys()):
        means = _means_by_face(of_one[metric], one, faces)
        differences = means - _means_by_face(of_two[metric], two, faces)
        for group in grouping.groups:
            inside = np.where((groups == group) & (others == group), differences, np.nan)
            if np.isfinite(inside).any():
                yield metric, group, inside
    if grouping.by_attribute and other.by_attribute:
        labels = [by.labels for by in (grouping, other) if by.labels is not None]
        for group in (g for g in labels[0].groups if g in labels[1].groups):
            shares = [
                _means_by_face(
                    (of.output[part.rows] == of.groups.index(group)).astype(np.float64), part, faces
                )
                for of, part in zip(labels, (one, two), strict=True)
            ]
            yield "output_share", group, shares[0] - shares[1]
