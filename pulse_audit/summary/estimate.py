"""Samples -> estimates with intervals, per group, arm, condition and scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulse_audit.fairness import sources
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import (
    FloatArray,
    IntArray,
    intraclass_correlation,
    proportion_interval,
)
from pulse_audit.store import Manifest, Run
from pulse_audit.summary import apparent, arms, composed, distances, further, parities, shifts
from pulse_audit.summary.cells import Cell, Grouping, cells, face_numbers, make_row, partitions
from pulse_audit.summary.described import TESTED, numbers
from pulse_audit.summary.distances import Array
from pulse_audit.summary.findings import findings, on_trial
from pulse_audit.summary.kinds import SampleMeasure
from pulse_audit.summary.measures import PSNR_CEILING, SAMPLED
from pulse_audit.summary.schema import SCHEMA_VERSION, EstimateRow, Summary
from pulse_audit.types import Estimate

KEYS = ["arm", "condition", "scale", "face_id", "draw"]
#: Metrics of apparent groups, which no grouping can have without predictions.
APPARENT = (
    *(measure.name for measure in TESTED),
    *("retention_corrected", "shift", "net_flow", "flip_rate", "entropy"),
)


def summarise_run(run: Run, samples: pd.DataFrame | None = None) -> Summary:
    """Summarise all that a run directory holds: samples, features, and ``sources/``.

    Raises
    ------
    InputError
        If something stored cannot be read, or does not fit the manifest.
    """
    frame = run.samples() if samples is None else samples
    return summarise(run.manifest, frame, run.features(), sources.read_tables(run.path))


def summarise(
    manifest: Manifest,
    samples: pd.DataFrame,
    features: tuple[Array, Mapping[str, Array]] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> Summary:
    """Estimate every metric for every group under every arm, condition and scale.

    Proportions are over all draws and get Wilson intervals at the effective sample size; other
    metrics are means over the draws that were measured and get face-cluster BCa intervals. The
    same samples in any order give the same summary.

    Parameters
    ----------
    manifest : Manifest
        The run's manifest.
    samples : DataFrame
        One row a draw, columns as in the samples of a run.
    features : tuple, optional
        As `pulse_audit.store.Run.features` gives them, aligned with ``samples``.
    tables : mapping of str to DataFrame, optional
        Of ``sources/``, as `pulse_audit.fairness.sources.read_tables` gives them.

    Raises
    ------
    InputError
        If a grouping names a column the samples do not have.
    """
    ordered = samples.reset_index(drop=True).sort_values(KEYS, kind="stable")
    stored = _features(manifest, features, ordered)
    frame = ordered.reset_index(drop=True)
    measures, unavailable = _sort_out(frame, manifest)
    groupings, seed = partitions(manifest, frame), manifest.spec.seed
    unavailable |= _without_groups(groupings, frame, manifest.unavailable)
    if isinstance(stored, str):
        unavailable |= dict.fromkeys(distances.NAMES, stored)
    every = list(cells(manifest, frame))
    rows = [
        row
        for cell in every
        for part in (
            _cell_rows(cell, measures, groupings, seed),
            () if isinstance(stored, str) else _distances(cell, groupings, stored),
        )
        for row in part
    ]
    rows += arms.rows(every, groupings[:2], on_trial(manifest, rows), seed)
    if tables is not None:
        rows += further.sources(tables, frame, manifest, seed)
    return Summary(
        schema=SCHEMA_VERSION,
        estimates=rows,
        unavailable=dict(sorted(unavailable.items())),
        findings=findings(manifest, rows),
    )


def _features(
    manifest: Manifest,
    stored: tuple[Array, Mapping[str, Array]] | None,
    samples: pd.DataFrame,
) -> distances.Features | str:
    """Features in the order of the sorted samples, or why there are none."""
    if stored is None:
        return manifest.features.why or "this run keeps no features of outputs"
    network = manifest.features.network or "unnamed network"
    found = distances.aligned(network, stored, samples, face_numbers(samples))
    return found if found is not None else "features of the originals come with a finished run"


def _distances(
    cell: Cell, groupings: Sequence[Grouping], stored: distances.Features
) -> Iterator[EstimateRow]:
    for grouping in groupings:
        yield from distances.rows(cell, grouping, stored)


def _cell_rows(
    cell: Cell, measures: Sequence[SampleMeasure], groupings: Sequence[Grouping], seed: int
) -> Iterator[EstimateRow]:
    for measure in measures:
        values = measure.values(cell.samples)
        for place, grouping in enumerate(groupings):
            yield from _rows(cell, measure, values, grouping, seed)
            # bootstrapped comparisons of means are for the run's first grouping alone
            if measure.kind == "proportion" or place == 1:
                yield from parities.rows(cell, measure, values, grouping, seed)
    for grouping in groupings:
        yield from shifts.faceless(cell, grouping)
        if grouping.tests is not None:
            yield from _tested_rows(cell, grouping, grouping.tests, seed)


def _tested_rows(
    cell: Cell, grouping: Grouping, tests: apparent.AttributeLabels, seed: int
) -> Iterator[EstimateRow]:
    """Everything about the apparent groups of outputs."""
    columns = apparent.outcomes(tests, cell.samples, cell.rows)
    for measure in TESTED:
        values = measure.values(columns)
        for row in _rows(cell, measure, values, grouping, seed):
            yield row.model_copy(update={"detail": _excluded(columns, row, grouping, cell, tests)})
        yield from parities.rows(cell, measure, values, grouping, seed)
    yield from shifts.rows(cell, grouping, tests, seed)
    if grouping.own:
        yield from composed.rows(cell, grouping, tests, seed)


def _excluded(
    columns: pd.DataFrame,
    row: EstimateRow,
    grouping: Grouping,
    cell: Cell,
    tests: apparent.AttributeLabels,
) -> dict[str, str | int | float | None]:
    """Attribute tested, and the share of the group's draws that a conditional rate leaves out."""
    inside = grouping.of_draw[cell.rows] == grouping.order.index(row.group)
    draws = int(columns["retention"][inside].notna().sum())
    left_out = 1 - row.n_draws / draws if draws else 0.0
    return {"attribute": tests.attribute, **({"excluded": round(left_out, 10)} if left_out else {})}


def _sort_out(
    samples: pd.DataFrame, manifest: Manifest
) -> tuple[list[SampleMeasure], dict[str, str]]:
    """Measures that can be taken, and why the others and other empty columns cannot."""
    reasons, known = manifest.unavailable, [*SAMPLED, *further.measures(manifest)]
    missing = {m.name: reason for m in known if (reason := m.missing(samples, reasons))}
    measures = [m for m in known if m.name not in missing]
    return measures, {**reasons, **missing}


def _without_groups(
    groupings: Sequence[Grouping], samples: pd.DataFrame, reasons: Mapping[str, str]
) -> dict[str, str]:
    """Why metrics of apparent groups are missing: altogether, or of single groupings."""
    if len(samples) and all(grouping.tests is None for grouping in groupings):
        named = [reasons.get(f"sr_{g.name}") for g in groupings]
        reason = next((r for r in named if r), "no grouping of this run has predicted groups")
        return dict.fromkeys(APPARENT, reason)
    tests = groupings[0].tests
    if tests is not None and tests.confusion is None:
        return {"retention_corrected": tests.uncorrected}
    return {}


def _rows(
    cell: Cell, measure: SampleMeasure, values: FloatArray, grouping: Grouping, seed: int
) -> Iterator[EstimateRow]:
    of_draw = grouping.of_draw[cell.rows]
    pooled = _pooled(measure, values, cell.faces, of_draw)
    for number, group in enumerate(grouping.order):
        inside = of_draw == number
        if not inside.any():
            continue
        key = cell.seed(seed, measure.name, grouping.name, group)
        estimate = _estimate(measure, values[inside], cell.faces[inside], pooled, key)
        method = estimate.method + _caveat(measure, cell.samples, inside)
        yield make_row(cell, measure.name, grouping.name, group, replace(estimate, method=method))


def _pooled(
    measure: SampleMeasure, values: FloatArray, faces: IntArray, of_draw: IntArray
) -> float | None:
    measured = ~np.isnan(values)
    if measure.kind != "proportion" or not measured.any():
        return None
    return intraclass_correlation(values[measured], faces[measured], of_draw[measured])


def _estimate(
    measure: SampleMeasure, values: FloatArray, faces: IntArray, pooled: float | None, seed: int
) -> Estimate:
    measured = ~np.isnan(values)
    if not measured.any():
        reason = f"not measured: none of {len(values)} draws has a value"
        return Estimate(math.nan, math.nan, math.nan, 0, 0, reason)
    if measure.kind == "proportion":
        return proportion_interval(values[measured], faces[measured], pooled)
    estimate = cluster_bca(
        values[measured], faces[measured], seed=seed, statistic=measure.statistic
    )
    # Student's interval of a few faces may reach where the quantity cannot.
    return replace(estimate, low=max(estimate.low, measure.least))


def _caveat(measure: SampleMeasure, samples: pd.DataFrame, inside: NDArray[np.bool_]) -> str:
    """Say how many draws were identical to their original, where that bounds a mean."""
    if measure.name != "psnr":
        return ""
    identical = int(np.isposinf(numbers(samples, "psnr")[inside]).sum())
    return f"; {identical} identical images counted as {PSNR_CEILING:.0f} dB" if identical else ""
