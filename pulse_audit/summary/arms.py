"""Rows that compare arms on the same faces, such as two generators that saw different people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.summary.apparent import outcomes
from pulse_audit.summary.cells import Cell, Grouping, make_row
from pulse_audit.summary.measures import SAMPLED
from pulse_audit.summary.schema import EstimateRow

#: Metrics compared; retention is of the attribute that the grouping tests.
COMPARED = ("feasible_rate", "lightness_shift", "ita_shift")


def rows(
    cells: Sequence[Cell], groupings: Sequence[Grouping], trial: Sequence[str], seed: int
) -> Iterator[EstimateRow]:
    """Difference of every two arms on trial in the same setting, by group; paired by face."""
    on_trial = [cell for cell in cells if cell.arm in trial]
    for first, second in combinations(on_trial, 2):
        if (first.condition, first.scale) == (second.condition, second.scale):
            for grouping in groupings:
                yield from _differences(first, second, grouping, seed)
                if grouping.own:
                    yield from _share_differences(first, second, grouping, seed)


def _differences(first: Cell, second: Cell, grouping: Grouping, seed: int) -> Iterator[EstimateRow]:
    ours, theirs = _values(first, grouping), _values(second, grouping)
    faces = np.asarray(np.intersect1d(first.faces, second.faces), dtype=np.int64)
    number_of = dict(zip(first.faces, grouping.of_draw[first.rows], strict=True))
    of_face = np.array([number_of[face] for face in faces.tolist()], dtype=np.int64)
    for metric in (name for name in ours if name in theirs and len(faces)):
        gap = _by_face(ours[metric], first, faces) - _by_face(theirs[metric], second, faces)
        for number, group in enumerate(grouping.order):
            inside = (of_face == number) & np.isfinite(gap)
            if not inside.any():
                continue
            key = first.seed(seed, "arms", metric, grouping.name, group)
            made = cluster_bca(gap[inside], faces[inside], seed=key)
            yield make_row(
                first,
                metric,
                grouping.name,
                group,
                replace(made, method=f"paired by face; {made.method}"),
                statistic="difference",
                detail={"minus": second.arm},
            )


def _share_differences(
    first: Cell, second: Cell, grouping: Grouping, seed: int
) -> Iterator[EstimateRow]:
    """Difference of the share of outputs that have each apparent group, over all faces."""
    tests = grouping.tests
    faces = np.asarray(np.intersect1d(first.faces, second.faces), dtype=np.int64)
    if tests is None or not len(faces):
        return
    for number, word in enumerate(tests.words):
        ours, theirs = (
            _by_face((tests.output[cell.rows] == number).astype(np.float64), cell, faces)
            for cell in (first, second)
        )
        key = first.seed(seed, "arms", "output_share", grouping.name, word)
        made = cluster_bca(ours - theirs, faces, seed=key)
        yield make_row(
            first,
            "output_share",
            grouping.name,
            word,
            replace(made, method=f"paired by face; {made.method}"),
            statistic="difference",
            detail={"minus": second.arm},
        )


def _values(cell: Cell, grouping: Grouping) -> dict[str, FloatArray]:
    """Numbers a draw of each metric compared, as far as the samples have them."""
    found = {
        measure.name: measure.values(cell.samples)
        for measure in SAMPLED
        if measure.name in COMPARED and measure.missing(cell.samples, {}) is None
    }
    if grouping.tests is not None:
        columns = outcomes(grouping.tests, cell.samples, cell.rows)
        found["retention"] = np.asarray(columns["retention"], dtype=np.float64)
    return dict(sorted(found.items()))


def _by_face(values: FloatArray, cell: Cell, faces: IntArray) -> FloatArray:
    """Mean over the measured draws of each face, NaN where none was measured."""
    places = np.searchsorted(faces, cell.faces).clip(max=len(faces) - 1)
    kept = (faces[places] == cell.faces) & np.isfinite(values)
    sums = np.bincount(places[kept], values[kept], len(faces))
    counts = np.bincount(places[kept], minlength=len(faces))
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return np.asarray(means, dtype=np.float64)
