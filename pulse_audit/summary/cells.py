"""Cells of an audit (arm, condition, scale), groupings of their draws, and rows about them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import IntArray
from pulse_audit.store import Manifest
from pulse_audit.summary import groups
from pulse_audit.summary.apparent import AttributeLabels, tested, tested_by
from pulse_audit.summary.schema import EstimateRow
from pulse_audit.types import Estimate

ALL = "all"
Correction: TypeAlias = Literal["raw", "corrected", "original_baseline"]
Statistic: TypeAlias = Literal[
    "value", "max_gap", "min_ratio", "worst_group", "max_abs", "difference"
]


@dataclass(frozen=True, eq=False)
class Grouping:
    """A partition of the draws: its name, its groups in order, and the group number of each.

    ``tests`` are the groups that outputs are compared with, None where nothing was predicted.
    """

    name: str
    order: Sequence[str]
    of_draw: IntArray
    tests: AttributeLabels | None = None

    @property
    def own(self) -> bool:
        """Whether the groups are those of the attribute tested, so that outputs have them too."""
        return self.tests is not None and self.tests.attribute == self.name


@dataclass(frozen=True, eq=False)
class Cell:
    """The draws of one arm under one condition and scale; ``rows`` are their places in all."""

    arm: str
    condition: str
    scale: int
    samples: pd.DataFrame
    faces: IntArray
    rows: IntArray

    def seed(self, run_seed: int, *key: str) -> int:
        """Seed of a resampling; no arm in the key: arms share their random numbers."""
        return fingerprint(run_seed, self.condition, self.scale, *key)


def face_numbers(samples: pd.DataFrame) -> IntArray:
    """Give each row the number of its face, equal over arms."""
    return np.asarray(pd.factorize(samples["face_id"], sort=True)[0], dtype=np.int64)


def partitions(manifest: Manifest, samples: pd.DataFrame) -> list[Grouping]:
    """Make the whole sample, then every grouping of the run, each with what it tests."""
    asked, faces = groups.groupings(manifest), face_numbers(samples)
    own = [tested_by(columns, samples) for columns in asked]
    first = next((attribute for attribute in own if attribute), None)
    made: dict[str, AttributeLabels] = {}
    whole = np.zeros(len(samples), dtype=np.int64)
    found = [Grouping(ALL, [ALL], whole, _tested(first, manifest, samples, faces, made))]
    for columns, attribute in zip(asked, own, strict=True):
        of_draw = groups.assign(samples, columns)
        order = groups.ordered(of_draw, columns, manifest)
        numbers = of_draw.map({group: number for number, group in enumerate(order)})
        tests = _tested(attribute or first, manifest, samples, faces, made)
        of_rows = np.asarray(numbers, dtype=np.int64)
        found.append(Grouping(",".join(columns), order, of_rows, tests))
    return found


def _tested(
    attribute: str | None,
    manifest: Manifest,
    samples: pd.DataFrame,
    faces: IntArray,
    made: dict[str, AttributeLabels],
) -> AttributeLabels | None:
    """Look up the groups in an attribute, once."""
    if attribute is None:
        return None
    if attribute not in made:
        made[attribute] = tested(attribute, manifest, samples, faces)
    return made[attribute]


def cells(manifest: Manifest, samples: pd.DataFrame) -> Iterator[Cell]:
    """Cells that have draws, in the order of the manifest."""
    spec, faces = manifest.spec, face_numbers(samples)
    for condition in _in_order(samples["condition"], spec.conditions):
        for scale in _in_order(samples["scale"], spec.scales):
            for arm in _in_order(samples["arm"], manifest.arms):
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


def make_row(
    cell: Cell,
    metric: str,
    group_by: str,
    group: str,
    estimate: Estimate,
    *,
    to_group: str | None = None,
    correction: Correction = "raw",
    statistic: Statistic = "value",
    detail: Mapping[str, str | float | None] | None = None,
) -> EstimateRow:
    """Make the row of an estimate; what is not finite is null."""
    return EstimateRow(
        arm=cell.arm,
        condition=cell.condition,
        scale=cell.scale,
        metric=metric,
        group_by=group_by,
        group=group,
        to_group=to_group,
        correction=correction,
        value=number(estimate.value),
        low=number(estimate.low),
        high=number(estimate.high),
        n_faces=estimate.n_faces,
        n_draws=estimate.n_draws,
        method=estimate.method,
        statistic=statistic,
        detail={key: _plain(value) for key, value in detail.items()} if detail else None,
    )


def number(value: float) -> float | None:
    """Ten significant digits, so that rounding noise between machines does not reach the file."""
    return float(f"{value:.10g}") if math.isfinite(value) else None


def _plain(value: str | float | None) -> str | int | float | None:
    return number(float(value)) if isinstance(value, float) else value
