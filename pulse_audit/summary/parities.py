"""Rows that compare the groups of a grouping: gap, ratio, worst group, distance from 0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pulse_audit.fairness import parity
from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.stats import bootstrap, gaps
from pulse_audit.stats.intervals import Floats
from pulse_audit.summary import groups
from pulse_audit.summary.apparent import Tested
from pulse_audit.summary.cells import ALL, Cell, Correction, Grouping, make_row
from pulse_audit.summary.kinds import SampleMeasure
from pulse_audit.summary.schema import EstimateRow

CONFIDENCE = 0.95
#: Not groups of people, but faces about which something is not known.
UNKNOWN = (groups.UNLABELLED, groups.UNMEASURED)


def rows(
    cell: Cell, measure: SampleMeasure, values: Floats, grouping: Grouping, seed: int
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
    found = parity.compare(
        values,
        cell.faces,
        np.where(np.isin(of_draw, unknown), -1, of_draw),
        proportion=measure.kind == "proportion",
        better=measure.better,
        seed=cell.seed(seed, "parity", measure.name, grouping.name) % 2**32,
        confidence=CONFIDENCE,
    )
    yield from _rows(cell, measure.name, grouping.name, grouping.order, found, "raw")


def of_corrected(cell: Cell, tests: Tested, made: CorrectedShift) -> Iterator[EstimateRow]:
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
    found = parity.named([gap], CONFIDENCE)
    yield from _rows(cell, "retention", tests.attribute, tests.words, found, "corrected")


def _parts(group: str) -> list[str]:
    return group.split(groups.JOIN)


def _rows(
    cell: Cell,
    metric: str,
    group_by: str,
    names: Sequence[str],
    found: Mapping[parity.Statistic, parity.Comparison],
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
