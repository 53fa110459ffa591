"""Rows that compare the groups of a grouping: gap, ratio, worst group, distance from 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pulse_audit.fairness import parity
from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.stats import bootstrap, gaps, power
from pulse_audit.stats.intervals import FloatArray, IntArray, cluster_totals, intraclass_correlation
from pulse_audit.summary import groups
from pulse_audit.summary.apparent import AttributeLabels
from pulse_audit.summary.cells import ALL, Cell, Correction, Grouping, make_row, number
from pulse_audit.summary.kinds import SampleMeasure
from pulse_audit.summary.schema import EstimateRow

CONFIDENCE = 0.95
#: Not groups of people, but faces about which something is not known.
UNKNOWN = (groups.UNLABELLED, groups.UNMEASURED)


def rows(
    cell: Cell, measure: SampleMeasure, values: FloatArray, grouping: Grouping, seed: int
) -> Iterator[EstimateRow]:
    """Compare the groups in one metric; nothing for the whole sample, or without a direction."""
    if (
        grouping.name == ALL
        or measure.better == "neither"
        or measure.statistic is not bootstrap.mean
    ):
        return
    unknown = [n for n, group in enumerate(grouping.order) if set(_parts(group)) & set(UNKNOWN)]
    of_draw = grouping.of_draw[cell.rows]
    values = np.where(np.isin(of_draw, unknown), np.nan, values)
    found = parity.compare(
        values,
        cell.faces,
        of_draw,
        proportion=measure.kind == "proportion",
        better=measure.better,
        seed=cell.seed(seed, "parity", measure.name, grouping.name) % 2**32,
        confidence=CONFIDENCE,
    )
    proportion = measure.kind == "proportion"
    size = sample_size(values, cell.faces, of_draw, proportion) if "max_gap" in found else {}
    for row in _rows(cell, measure.name, grouping.name, grouping.order, found, "raw"):
        if row.statistic == "max_gap":
            more = {k: number(v) if isinstance(v, float) else v for k, v in size.items()}
            row = row.model_copy(update={"detail": {**(row.detail or {}), **more}})
        yield row


def sample_size(
    values: FloatArray, faces: IntArray, groups_of: IntArray, proportion: bool
) -> dict[str, str | int | float | None]:
    """Say what difference of two groups this sample could show, and the faces that 10 points need.

    Two-sided, 5 % over all pairs of groups (Bonferroni), 90 % power, for two groups of the size of
    the smallest and the rate of the whole sample.
    """
    kept = ~np.isnan(values)
    values, faces, groups_of = values[kept], faces[kept], groups_of[kept]
    _, first = np.unique(faces, return_index=True)
    sizes = np.unique(groups_of[first], return_counts=True)[1]
    draws, fewest = max(1, round(len(faces) / len(first))), int(sizes.min())
    tests = len(sizes) * (len(sizes) - 1) // 2
    if proportion:
        icc = intraclass_correlation(values, faces, groups_of)
        design = power.Design(draws, 1.0 if icc is None else icc, tests=tests, sides=2)
        base = min(max(float(values.mean()), 0.11), 1.0)
        return {
            "detectable": power.detectable_proportion(base, fewest, design),
            "faces_needed": power.faces_for_proportions(base, 0.1, design),
        }
    totals, counts = cluster_totals(values, faces)
    spread = _within(totals / counts, groups_of[first])
    design = power.Design(1, 0.0, tests=tests, sides=2)
    return {"detectable": power.detectable_mean(spread, fewest, design)}


def _within(means: FloatArray, groups_of: IntArray) -> float:
    """Return the standard deviation of faces within their groups."""
    strata = np.unique(groups_of)
    centred = [means[groups_of == g] - means[groups_of == g].mean() for g in strata]
    freedom = max(1, len(means) - len(strata))
    return float(np.sqrt(np.square(np.concatenate(centred)).sum() / freedom))


def of_corrected(cell: Cell, tests: AttributeLabels, made: CorrectedShift) -> Iterator[EstimateRow]:
    """Largest gap of corrected retention; nothing where the correction is not to be had."""
    if made.grade == "unavailable":
        return
    gap = gaps.max_gap_of_replicates(
        np.diag(made.values),
        made.replicates[:, np.arange(len(tests.words)), np.arange(len(tests.words))],
        made.faces,
        made.draws,
        alpha=(1 - CONFIDENCE) / 2,
    )
    # clipped last: the inverse of a confusion matrix may leave [0, 1]
    gap = replace(gap, value=min(gap.value, 1.0), pass_bound=min(gap.pass_bound, 1.0))
    found = parity.named([gap], CONFIDENCE)
    yield from _rows(cell, "retention", tests.attribute, tests.words, found, "corrected")


def _parts(group: str) -> list[str]:
    return group.split(groups.JOIN)


def _rows(
    cell: Cell,
    metric: str,
    group_by: str,
    names: Sequence[str],
    found: Mapping[gaps.GroupStatistic, parity.Comparison],
    correction: Correction,
) -> Iterator[EstimateRow]:
    for statistic, comparison in found.items():
        ends = [names[group] for group in comparison.groups]
        said: dict[str, str | float | None] = (
            {"worst": ends[0]} if len(ends) == 1 else {"highest": ends[0], "lowest": ends[-1]}
        )
        if comparison.at_equality is not None:
            said["at_equality"] = comparison.at_equality
        yield make_row(
            cell,
            metric,
            group_by,
            ends[0] if len(ends) == 1 else ALL,
            comparison.estimate,
            correction=correction,
            statistic=statistic,
            detail=said,
        )
