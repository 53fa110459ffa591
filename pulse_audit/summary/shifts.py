"""Rows of the shift matrix: retention's floor and correction, cells, flows, diversity."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pulse_audit.fairness import shift
from pulse_audit.fairness.correction import CorrectedShift, corrected_shift
from pulse_audit.fairness.pooling import partial_pooling
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import IntArray, proportion_interval
from pulse_audit.summary import parities
from pulse_audit.summary.apparent import NONE, AttributeLabels
from pulse_audit.summary.cells import ALL, Cell, Correction, Grouping, make_row
from pulse_audit.summary.groups import JOIN
from pulse_audit.summary.schema import EstimateRow
from pulse_audit.types import Estimate, Unavailable

NOT_CLASSIFIED = "not classified"
REPLICATES = 1000


def rows(
    cell: Cell, grouping: Grouping, tests: AttributeLabels, seed: int
) -> Iterator[EstimateRow]:
    """Rows of one cell and grouping, as far as draws have groups."""
    draws = tests.draws(cell.rows, cell.faces)
    if draws is None:
        return
    yield from _diversity(cell, grouping, tests, seed)
    yield from _floor(cell, grouping, tests)
    yield from _pooled(cell, grouping, tests)
    if grouping.own:
        yield from _matrix(cell, tests, draws, "raw")
        if (floor := floor_draws(cell, tests)) is not None:
            yield from _matrix(cell, tests, floor, "original_baseline")
        yield from _flows(cell, tests, draws)
        yield from _output_shares(cell, tests)
    if grouping.own or grouping.name == ALL:
        yield from _corrected(cell, grouping, tests, draws, seed)


def floor_draws(cell: Cell, tests: AttributeLabels) -> Draws | None:
    """Take the originals as draws, one a face; None where they are measured as outputs are."""
    known = tests.truth[cell.rows] != NONE
    rows = cell.rows[known]
    if tests.measured_tone or (tests.original[rows] == NONE).all():
        return None
    return shift.original_baseline(
        cell.faces[known], tests.truth[rows], tests.original[rows], len(tests.words)
    )


def _detail(tests: AttributeLabels, **more: str | float | None) -> dict[str, str | float | None]:
    return {"attribute": tests.attribute, **more}


def _matrix(
    cell: Cell, tests: AttributeLabels, draws: Draws, correction: Correction
) -> Iterator[EstimateRow]:
    """Cells of the shift matrix; the column "not classified" only where there are such draws."""
    columns = [*tests.words, NOT_CLASSIFIED]
    lost = bool((draws.predicted == shift.UNCLASSIFIED).any())
    for group, row in zip(tests.words, shift.shift_matrix(draws), strict=True):
        for to_group, share in zip(columns, row, strict=True):
            if share is not None and (to_group != NOT_CLASSIFIED or lost):
                yield make_row(
                    cell,
                    "shift",
                    tests.attribute,
                    group,
                    share,
                    to_group=to_group,
                    correction=correction,
                )


def _floor(cell: Cell, grouping: Grouping, tests: AttributeLabels) -> Iterator[EstimateRow]:
    """Retention that a perfect upsampler would score, by the groups of any grouping."""
    _, first = np.unique(cell.faces, return_index=True)
    rows = cell.rows[first]
    if tests.measured_tone or (tests.original[rows] == NONE).all():
        return
    known = (tests.truth[rows] != NONE) & (tests.original[rows] != NONE)
    hits = np.where(known, tests.original[rows] == tests.truth[rows], np.nan).astype(np.float64)
    found = shift.shares(hits, cell.faces[first], grouping.of_draw[rows], len(grouping.order))
    for group, share in zip(grouping.order, found, strict=True):
        if share is not None:
            yield make_row(
                cell,
                "retention",
                grouping.name,
                group,
                share,
                correction="original_baseline",
                detail=_detail(tests),
            )


def _pooled(cell: Cell, grouping: Grouping, tests: AttributeLabels) -> Iterator[EstimateRow]:
    """Retention of the cells of an intersection, shrunk toward what its parts predict."""
    parts = [group.split(JOIN) for group in grouping.order]
    if "," not in grouping.name or len(parts) < 3:
        return
    known = tests.truth[cell.rows] != NONE
    rows = cell.rows[known]
    retained = tests.truth[rows] == tests.output[rows]
    cells = grouping.of_draw[rows]
    for number, made in enumerate(partial_pooling(retained, cell.faces[known], cells, parts)):
        if (cells == number).any():
            yield make_row(
                cell,
                "retention_pooled",
                grouping.name,
                grouping.order[number],
                made.estimate,
                detail=_detail(tests, shrunk=made.shrunk),
            )


def faceless(cell: Cell, grouping: Grouping) -> Iterator[EstimateRow]:
    """Share of originals in which the detector finds no face, beside that of outputs."""
    if "hr_face_found" not in cell.samples or cell.samples["hr_face_found"].isna().all():
        return
    _, first = np.unique(cell.faces, return_index=True)
    found = cell.samples["hr_face_found"].astype("float64").to_numpy()[first]
    of_face = grouping.of_draw[cell.rows[first]]
    missing = shift.shares(1.0 - found, cell.faces[first], of_face, len(grouping.order))
    for group, share in zip(grouping.order, missing, strict=True):
        if share is not None:
            name = "no_face_rate"
            yield make_row(cell, name, grouping.name, group, share, correction="original_baseline")


def _flows(cell: Cell, tests: AttributeLabels, draws: Draws) -> Iterator[EstimateRow]:
    """Net flow between every two groups that have faces, and each group's from all others."""
    flows, gains = shift.net_flows(draws), shift.net_gains(draws)
    for i, group in enumerate(tests.words):
        gain = gains[i]
        if gain is not None:
            yield make_row(cell, "net_flow", tests.attribute, group, gain)
        for j, to_group in enumerate(tests.words):
            flow = flows[i][j]
            if flow is not None:
                yield make_row(cell, "net_flow", tests.attribute, group, flow, to_group=to_group)


def _output_shares(cell: Cell, tests: AttributeLabels) -> Iterator[EstimateRow]:
    """Share of each apparent group among all draws, and among the originals."""
    _, first = np.unique(cell.faces, return_index=True)
    sides: tuple[tuple[Correction, IntArray, IntArray], ...] = (
        ("raw", tests.output[cell.rows], cell.faces),
        ("original_baseline", tests.original[cell.rows[first]], cell.faces[first]),
    )
    for correction, seen, faces in sides:
        for number, word in enumerate(tests.words):
            if (seen != NONE).any():
                share = proportion_interval((seen == number).astype(np.float64), faces)
                yield make_row(
                    cell, "output_share", tests.attribute, word, share, correction=correction
                )


def _diversity(
    cell: Cell, grouping: Grouping, tests: AttributeLabels, seed: int
) -> Iterator[EstimateRow]:
    """Flip rate and entropy over the draws of a face, by the groups of any grouping."""
    of_draw = grouping.of_draw[cell.rows]
    for number, group in enumerate(grouping.order):
        inside = of_draw == number
        draws = tests.draws(cell.rows[inside], cell.faces[inside])
        if draws is None:
            continue
        key = cell.seed(seed, "entropy", grouping.name, group)
        made = {
            "flip_rate": shift.flip_rate(draws),
            "entropy": shift.entropy(draws, seed=key),
        }
        for metric, found in made.items():
            estimate = none(found.reason) if isinstance(found, Unavailable) else found
            yield make_row(cell, metric, grouping.name, group, estimate, detail=_detail(tests))


def none(reason: str) -> Estimate:
    """Make an estimate of nothing: the reason in place of the method."""
    return Estimate(math.nan, math.nan, math.nan, 0, 0, reason)


def _corrected(
    cell: Cell, grouping: Grouping, tests: AttributeLabels, draws: Draws, seed: int
) -> Iterator[EstimateRow]:
    """Retention, and the whole matrix, corrected for the attribute model's errors."""
    if tests.confusion is None:
        return
    made = corrected(cell, tests, draws, seed)
    if grouping.name == ALL:
        weights = np.diag(draws.composition)
        yield _corrected_row(cell, tests, made, ALL, ALL, made.combination(weights, 0.0, 1.0), None)
        return
    yield from parities.of_corrected(cell, tests, made)
    for group, word in enumerate(tests.words):
        if draws.composition[group] == 0:
            continue
        em = float(made.em[group, group])
        share = made.estimates[group][group]
        yield _corrected_row(cell, tests, made, grouping.name, word, share, em)
        for to_group, cell_share in zip(tests.words, made.estimates[group], strict=True):
            if cell_share is not None:
                yield make_row(
                    cell,
                    "shift",
                    tests.attribute,
                    word,
                    cell_share,
                    to_group=to_group,
                    correction="corrected",
                    detail={"trust": made.trust, "grade": made.grade},
                )


def corrected(cell: Cell, tests: AttributeLabels, draws: Draws, seed: int) -> CorrectedShift:
    """Corrected shift matrix of a cell; the same seed wherever it is asked for."""
    assert tests.confusion is not None
    return corrected_shift(
        draws.faces,
        draws.truth,
        draws.predicted,
        draws.k,
        tests.confusion,
        replicates=REPLICATES,
        seed=cell.seed(seed, "correction", tests.attribute),
    )


def _corrected_row(
    cell: Cell,
    tests: AttributeLabels,
    made: CorrectedShift,
    group_by: str,
    group: str,
    share: Estimate | None,
    em: float | None,
) -> EstimateRow:
    """Corrected retention with its trust; null with the reason where it is not to be had."""
    known = {} if em is None or math.isnan(em) else {"em": em}
    return make_row(
        cell,
        "retention",
        group_by,
        group,
        share or none(made.reason or "no draw of this group"),
        correction="corrected",
        detail=_detail(tests, trust=made.trust, grade=made.grade, **known),
    )
