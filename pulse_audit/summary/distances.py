"""Rows of KID, FID and GPI: distances between features of outputs and of originals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulse_audit.stats.distances import (
    FrechetDistance,
    KernelDistance,
    frechet_distance,
    kernel_distance,
    widest_gap,
)
from pulse_audit.summary.cells import ALL, Cell, Grouping, make_row
from pulse_audit.summary.schema import EstimateRow
from pulse_audit.summary.shifts import none
from pulse_audit.types import Estimate, Unavailable

Array: TypeAlias = NDArray[np.floating[Any]]
NAMES = ("kid", "fid", "gpi_kid")


@dataclass(frozen=True, eq=False)
class Features:
    """Features by one network.

    Parameters
    ----------
    network : str
    outputs : ndarray, (rows, d)
        Aligned with the samples; NaN where a draw has no output.
    originals : ndarray, (faces, d)
        By face number; NaN where a face has none.
    """

    network: str
    outputs: Array
    originals: Array


def aligned(
    network: str,
    stored: tuple[Array, Mapping[str, Array]],
    samples: pd.DataFrame,
    faces: NDArray[np.int64],
) -> Features | None:
    """Features for sorted samples, whose index says where each row was; None without originals."""
    outputs, originals = stored
    if not originals or not len(samples):
        return None
    by_face = np.full((int(faces.max()) + 1, outputs.shape[1]), np.nan)
    for face, name in dict(zip(faces.tolist(), samples["face_id"], strict=True)).items():
        if name in originals:
            by_face[face] = originals[name]
    return Features(network, outputs[samples.index.to_numpy()], by_face)


def rows(cell: Cell, grouping: Grouping, features: Features) -> Iterator[EstimateRow]:
    """KID per group, the widest gap between groups (GPI), and FID of the whole sample."""
    measured = np.isfinite(features.outputs[cell.rows]).all(axis=1)
    measured &= np.isfinite(features.originals[cell.faces]).all(axis=1)
    of_draw, found = grouping.of_draw[cell.rows], {}
    for number, group in enumerate(grouping.order):
        inside = measured & (of_draw == number)
        if not inside.any():
            continue
        faces = np.unique(cell.faces[inside])
        sets = features.outputs[cell.rows[inside]], features.originals[faces]
        found[group] = kernel_distance(*sets, cell.faces[inside], faces)
        yield _row(cell, "kid", grouping, group, _kernel(found[group]), features)
        if grouping.name == ALL:
            yield _row(cell, "fid", grouping, group, _frechet(frechet_distance(*sets)), features)
    if len(found) > 1:
        yield _gap(cell, grouping, widest_gap(found), features)


def _row(
    cell: Cell, metric: str, grouping: Grouping, group: str, made: Estimate, features: Features
) -> EstimateRow:
    detail = {"network": features.network}
    return make_row(cell, metric, grouping.name, group, made, detail=detail)


def _kernel(found: KernelDistance | Unavailable) -> Estimate:
    return none(found.reason) if isinstance(found, Unavailable) else found.estimate


def _frechet(found: FrechetDistance | Unavailable) -> Estimate:
    if isinstance(found, Unavailable):
        return none(found.reason)
    method = f"biased upwards: equal distributions would score {found.if_equal:.4g}; no interval"
    n_faces, n_draws = found.n_second, found.n_first
    return Estimate(found.value, math.nan, math.nan, n_faces, n_draws, method)


def _gap(
    cell: Cell,
    grouping: Grouping,
    found: tuple[str, str, Estimate] | Unavailable,
    features: Features,
) -> EstimateRow:
    if isinstance(found, Unavailable):
        return _row(cell, "gpi_kid", grouping, ALL, none(found.reason), features)
    largest, smallest, gap = found
    detail = {"network": features.network, "largest": largest, "smallest": smallest}
    return make_row(cell, "gpi_kid", grouping.name, ALL, gap, detail=detail)
