"""Samples -> estimates with intervals, per group, arm, condition and scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.seeding import fingerprint
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import Floats, intraclass_correlation, proportion_interval
from pulse_audit.summary import groups
from pulse_audit.summary.findings import findings
from pulse_audit.summary.measures import METRICS, PSNR_CEILING, Measure, numbers
from pulse_audit.summary.schema import EstimateRow, Summary
from pulse_audit.types import Estimate

ALL = "all"


@dataclass(frozen=True)
class Grouping:
    """A partition of the draws: its name, its groups in order, and the group of each draw."""

    name: str
    order: Sequence[str]
    of_draw: pd.Series[str]


@dataclass(frozen=True)
class Cell:
    """The draws of one arm under one condition and scale."""

    arm: str
    condition: str
    scale: int
    samples: pd.DataFrame


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
        schema=1,
        estimates=rows,
        unavailable=unavailable,
        findings=findings(manifest, rows),
    )


def _sort_out(
    samples: pd.DataFrame, reasons: Mapping[str, str]
) -> tuple[list[Measure], dict[str, str]]:
    """Measures that can be taken, and why the others and other empty columns cannot."""
    missing = {m.name: reason for m in METRICS if (reason := m.missing(samples, reasons))}
    measures = [m for m in METRICS if m.name not in missing]
    return measures, dict(sorted({**reasons, **missing}.items()))


def _partitions(manifest: Mapping[str, Any], samples: pd.DataFrame) -> list[Grouping]:
    everyone = Grouping(ALL, [ALL], pd.Series(ALL, index=samples.index, dtype=object))
    partitions = [everyone]
    for columns in groups.groupings(manifest):
        of_draw = groups.assign(samples, columns)
        order = groups.ordered(of_draw, columns, manifest)
        partitions.append(Grouping(",".join(columns), order, of_draw))
    return partitions


def _cells(manifest: Mapping[str, Any], samples: pd.DataFrame) -> Iterator[Cell]:
    """Cells that have draws, in the order of the manifest."""
    spec = manifest["spec"]
    for condition in _in_order(samples["condition"], spec.get("conditions", [])):
        for scale in _in_order(samples["scale"], spec.get("scales", [])):
            for arm in _in_order(samples["arm"], manifest["arms"]):
                chosen = (
                    (samples["arm"] == arm)
                    & (samples["condition"] == condition)
                    & (samples["scale"] == scale)
                )
                if chosen.any():
                    yield Cell(arm, condition, int(scale), samples[chosen])


def _in_order(column: pd.Series[Any], known: Any) -> list[Any]:
    present = list(pd.unique(column))
    first = [value for value in known if value in present]
    return first + sorted(value for value in present if value not in first)


def _rows(
    cell: Cell, measure: Measure, partitions: Sequence[Grouping], seed: int
) -> Iterator[EstimateRow]:
    values = pd.Series(measure.values(cell.samples), index=cell.samples.index)
    faces = cell.samples["face_id"]
    for grouping in partitions:
        of_draw = grouping.of_draw[cell.samples.index]
        pooled = _pooled(measure, values, faces, of_draw)
        for group in grouping.order:
            inside = of_draw == group
            if not inside.any():
                continue
            key = (seed, cell.arm, cell.condition, cell.scale, measure.name, grouping.name, group)
            estimate = _estimate(measure, values[inside], faces[inside], pooled, fingerprint(*key))
            method = estimate.method + _caveat(measure, cell.samples, inside)
            yield _row(cell, measure, grouping.name, group, estimate, method)


def _pooled(
    measure: Measure, values: pd.Series[float], faces: pd.Series[str], of_draw: pd.Series[str]
) -> float | None:
    if measure.kind != "proportion":
        return None
    measured = values.notna()
    if not measured.any():
        return None
    parts = (column[measured].to_numpy() for column in (values, faces, of_draw))
    return intraclass_correlation(*parts)


def _estimate(
    measure: Measure,
    values: pd.Series[float],
    faces: pd.Series[str],
    pooled: float | None,
    seed: int,
) -> Estimate:
    measured = values.notna().to_numpy()
    kept: Floats = np.asarray(values, dtype=np.float64)[measured]
    clusters = faces.to_numpy()[measured]
    if not len(kept):
        reason = f"not measured: none of {len(values)} draws has a value"
        return Estimate(math.nan, math.nan, math.nan, 0, 0, reason)
    if measure.kind == "proportion":
        return proportion_interval(kept, clusters, pooled)
    return cluster_bca(kept, clusters, seed=seed, statistic=measure.statistic)


def _caveat(measure: Measure, samples: pd.DataFrame, inside: pd.Series[bool]) -> str:
    """Say how many draws were identical to their original, where that bounds a mean."""
    if measure.name != "psnr":
        return ""
    identical = int(np.isposinf(numbers(samples, "psnr")[inside]).sum())
    return f"; {identical} identical images counted as {PSNR_CEILING:.0f} dB" if identical else ""


def _row(
    cell: Cell, measure: Measure, group_by: str, group: str, estimate: Estimate, method: str
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
