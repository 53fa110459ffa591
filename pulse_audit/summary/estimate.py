"""Samples -> estimates with intervals, per group, arm, condition and scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulse_audit.seeding import fingerprint
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import Floats, intraclass_correlation, proportion_interval
from pulse_audit.summary import groups
from pulse_audit.summary.described import numbers
from pulse_audit.summary.findings import findings
from pulse_audit.summary.kinds import SampleMeasure
from pulse_audit.summary.measures import PSNR_CEILING, SAMPLED
from pulse_audit.summary.schema import SCHEMA_VERSION, EstimateRow, Summary
from pulse_audit.types import Estimate

Whole: TypeAlias = NDArray[np.int64]

ALL = "all"


@dataclass(frozen=True)
class Grouping:
    """A partition of the draws: its name, its groups in order, and the group number of each."""

    name: str
    order: Sequence[str]
    of_draw: Whole


@dataclass(frozen=True)
class Cell:
    """The draws of one arm under one condition and scale; ``rows`` are their places in all."""

    arm: str
    condition: str
    scale: int
    samples: pd.DataFrame
    faces: Whole
    rows: Whole


def summarise(manifest: Mapping[str, Any], samples: pd.DataFrame) -> Summary:
    """Estimate every metric for every group under every arm, condition and scale.

    Proportions are over all draws and get Wilson intervals at the effective sample size; other
    metrics are means over the draws that were measured and get face-cluster BCa intervals. The
    same samples in any order give the same summary.

    Parameters
    ----------
    manifest : mapping
        The run's manifest.
    samples : DataFrame
        One row a draw, columns as in the samples of a run.

    Raises
    ------
    InputError
        If a grouping names a column the samples do not have.
    """
    keys = ["arm", "condition", "scale", "face_id", "draw"]
    frame = samples.sort_values(keys, kind="stable").reset_index(drop=True)
    measures, unavailable = _sort_out(frame, manifest.get("unavailable", {}))
    partitions = _partitions(manifest, frame)
    rows = [
        row
        for cell in _cells(manifest, frame)
        for measure in measures
        for row in _rows(cell, measure, partitions, int(manifest["spec"].get("seed", 0)))
    ]
    return Summary(
        schema=SCHEMA_VERSION,
        estimates=rows,
        unavailable=unavailable,
        findings=findings(manifest, rows),
    )


def _sort_out(
    samples: pd.DataFrame, reasons: Mapping[str, str]
) -> tuple[list[SampleMeasure], dict[str, str]]:
    """Measures that can be taken, and why the others and other empty columns cannot."""
    missing = {m.name: reason for m in SAMPLED if (reason := m.missing(samples, reasons))}
    measures = [m for m in SAMPLED if m.name not in missing]
    return measures, dict(sorted({**reasons, **missing}.items()))


def _partitions(manifest: Mapping[str, Any], samples: pd.DataFrame) -> list[Grouping]:
    partitions = [Grouping(ALL, [ALL], np.zeros(len(samples), dtype=np.int64))]
    for columns in groups.groupings(manifest):
        of_draw = groups.assign(samples, columns)
        order = groups.ordered(of_draw, columns, manifest)
        numbers = of_draw.map({group: number for number, group in enumerate(order)})
        partitions.append(Grouping(",".join(columns), order, np.asarray(numbers, dtype=np.int64)))
    return partitions


def _cells(manifest: Mapping[str, Any], samples: pd.DataFrame) -> Iterator[Cell]:
    """Cells that have draws, in the order of the manifest."""
    spec = manifest["spec"]
    faces, _ = pd.factorize(samples["face_id"], sort=True)
    for condition in _in_order(samples["condition"], spec.get("conditions", [])):
        for scale in _in_order(samples["scale"], spec.get("scales", [])):
            for arm in _in_order(samples["arm"], manifest["arms"]):
                chosen = (
                    (samples["arm"] == arm)
                    & (samples["condition"] == condition)
                    & (samples["scale"] == scale)
                )
                rows = np.flatnonzero(chosen)
                if len(rows):
                    yield Cell(arm, condition, int(scale), samples.iloc[rows], faces[rows], rows)


def _in_order(column: pd.Series[Any], known: Any) -> list[Any]:
    present = list(pd.unique(column))
    first = [value for value in known if value in present]
    return first + sorted(value for value in present if value not in first)


def _rows(
    cell: Cell, measure: SampleMeasure, partitions: Sequence[Grouping], seed: int
) -> Iterator[EstimateRow]:
    values = measure.values(cell.samples)
    for grouping in partitions:
        of_draw = grouping.of_draw[cell.rows]
        pooled = _pooled(measure, values, cell.faces, of_draw)
        for number, group in enumerate(grouping.order):
            inside = of_draw == number
            if not inside.any():
                continue
            # no arm in the key: arms share their random numbers
            key = (seed, cell.condition, cell.scale, measure.name, grouping.name, group)
            estimate = _estimate(
                measure, values[inside], cell.faces[inside], pooled, fingerprint(*key)
            )
            method = estimate.method + _caveat(measure, cell.samples, inside)
            yield _row(cell, measure, grouping.name, group, estimate, method)


def _pooled(measure: SampleMeasure, values: Floats, faces: Whole, of_draw: Whole) -> float | None:
    measured = ~np.isnan(values)
    if measure.kind != "proportion" or not measured.any():
        return None
    return intraclass_correlation(values[measured], faces[measured], of_draw[measured])


def _estimate(
    measure: SampleMeasure, values: Floats, faces: Whole, pooled: float | None, seed: int
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


def _row(
    cell: Cell, measure: SampleMeasure, group_by: str, group: str, estimate: Estimate, method: str
) -> EstimateRow:
    return EstimateRow(
        arm=cell.arm,
        condition=cell.condition,
        scale=cell.scale,
        metric=measure.name,
        group_by=group_by,
        group=group,
        value=_number(estimate.value),
        low=_number(estimate.low),
        high=_number(estimate.high),
        n_faces=estimate.n_faces,
        n_draws=estimate.n_draws,
        method=method,
    )


def _number(value: float) -> float | None:
    """Ten significant digits, so that rounding noise between machines does not reach the file."""
    return float(f"{value:.10g}") if math.isfinite(value) else None
