"""What planted arms need of a run: its groups, and the faces they may return.

The run's own faces estimate the attribute model's confusion, all others of the split may be
returned: two folds that share no face, so the correction is never tried on the faces it learnt
from.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from pulse_audit.datasets.balance import cell_of
from pulse_audit.datasets.images import UnreadableImage, load
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.faces.align import FaceAligner
from pulse_audit.harness.prepare import prepared
from pulse_audit.names import ArmReference
from pulse_audit.summary.groups import JOIN
from pulse_audit.types import Face, InputError, Upsampler
from pulse_audit.upsamplers.planted import Planted, read_matrix

#: Memory for prepared faces, in bytes.
HELD = 2**27


def planted_arms(
    references: Sequence[ArmReference],
    index: FaceIndex,
    columns: Sequence[str],
    used: Collection[str],
    prepare: Callable[[str], Tensor | None],
) -> dict[str, Upsampler]:
    """Build planted arms over the groups of the columns.

    Parameters
    ----------
    references : sequence of ArmReference
        Their ``reference`` is the matrix file.
    index : FaceIndex
        The faces of the run's split.
    columns : sequence of str
        Label columns of the run's first grouping.
    used : collection of str
        Ids of the run's own faces, which are never returned.
    prepare : callable
        See `Planted`.

    Raises
    ------
    InputError
        If the grouping is measured or missing, the matrix is not one over its groups, or a group
        has no face left.
    """
    if not references:
        return {}
    if not columns or set(columns) - set(index.vocabulary):
        raise InputError(
            f"{references[0].name}: a planted matrix is over labelled groups: --group-by starts "
            f"with {','.join(columns) or 'nothing'}, not with one of {', '.join(index.vocabulary)}"
        )
    groups = [
        JOIN.join(cell) for cell in itertools.product(*(index.vocabulary[c] for c in columns))
    ]
    pool: dict[str, list[str]] = {group: [] for group in groups}
    for face in index.faces:
        if face.id not in used:
            pool[JOIN.join(cell_of(face, columns))].append(face.id)

    def group_of(labels: Mapping[str, str]) -> str:
        return JOIN.join(labels[column] for column in columns)

    return {
        r.name: Planted(r.name, read_matrix(Path(r.reference), groups), group_of, pool, prepare)
        for r in references
    }


def preparer(
    faces: Sequence[Face], device: torch.device, aligned: bool, crop: str, resolution: int
) -> Callable[[str], Tensor | None]:
    """Prepare faces by id like the run's originals; None for a photo that cannot be read."""
    by_id = {face.id: face for face in faces}
    aligner = FaceAligner(device) if aligned else None

    @lru_cache(maxsize=max(16, HELD // (12 * resolution**2)))
    def prepare(face_id: str) -> Tensor | None:
        try:
            photo = load(by_id[face_id].source)
        except (OSError, UnreadableImage):
            return None
        return prepared(photo, aligner, crop, resolution)[0]

    return prepare
