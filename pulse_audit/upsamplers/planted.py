"""The planted arm: a known bias, to test the audit itself.

It answers with another real face of the data set, of group j with probability M[i, j] for an input
of group i. Its outputs are real photos, so feasibility and fidelity mean little here, and the
attribute model has the same error rates on outputs as on originals: a planted arm cannot reveal
that they differ.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pulse_audit.names import nearest
from pulse_audit.seeding import fingerprint, hexdigest, sha256
from pulse_audit.types import Degradation, InputError, Request, Status, Upsampled

if TYPE_CHECKING:
    from torch import Tensor

#: Refused above: the largest sensible matrix is a few kilobytes.
LARGEST_FILE = 1_000_000
#: From this many faces a group on, repeats among the outputs matter little.
SMALL_POOL = 500
#: How far a row may be from 1: six decimals, rounded.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class PlantedMatrix:
    """Probabilities (k, k) in the order of ``groups``: row the input's group, column the output's.

    Rows sum to 1 exactly (to rounding); ``sha256`` is that of the file.
    """

    groups: tuple[str, ...]
    probabilities: NDArray[np.float64]
    sha256: str


def read_matrix(path: Path, groups: Sequence[str]) -> PlantedMatrix:
    """Read a square CSV whose header and first column name the groups.

    Parameters
    ----------
    path : Path
        UTF-8; the first cell of the header is not looked at. Rows and columns may come in any
        order.
    groups : sequence of str
        The groups of the data set, all of which the file must name.

    Raises
    ------
    InputError
        If the file cannot be read or is not such a matrix; the line says where.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > LARGEST_FILE:
        raise InputError(f"{path}: more than {LARGEST_FILE:,} bytes is no matrix of groups")

    # Bytes to rows of cells, blank rows left out.
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        table = [row for row in lines if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error})") from None
    if len(table) < 2:
        raise InputError(f"{path}: holds no matrix; wanted a header and a row for every group")

    # Every group exactly once, in the header and in the first column.
    columns = [name.strip() for name in table[0][1:]]
    rows = [row[0].strip() for row in table[1:]]
    for where, names in (("header", columns), ("first column", rows)):
        for name in names:
            if name not in groups:
                raise InputError(f"{path}: {where}: unknown group {name!r}{nearest(name, groups)}")
            if names.count(name) > 1:
                raise InputError(f"{path}: {where}: names {name!r} twice")
        missing = [group for group in groups if group not in names]
        if missing:
            raise InputError(f"{path}: {where}: has no {', '.join(map(repr, missing))}")

    # Cells to probabilities in the order of ``groups``.
    matrix = np.zeros((len(groups), len(groups)))
    for name, cells in zip(rows, (row[1:] for row in table[1:]), strict=True):
        if len(cells) != len(columns):
            raise InputError(
                f"{path}: row {name!r}: {len(cells)} numbers where the header has {len(columns)}"
            )
        values = matrix[groups.index(name)]
        for column, cell in zip(columns, cells, strict=True):
            where = f"{path}: row {name!r}, column {column!r}"
            try:
                value = float(cell)
            except ValueError:
                raise InputError(f"{where}: {cell.strip()[:40]!r} is no number") from None
            if not 0 <= value <= 1:  # also not a number, and infinite
                raise InputError(f"{where}: {value:g} is no probability")
            values[groups.index(column)] = value
        if abs(math.fsum(values) - 1) > TOLERANCE:
            raise InputError(f"{path}: row {name!r} sums to {math.fsum(values):.6g}, not 1")
    return PlantedMatrix(tuple(groups), matrix / matrix.sum(axis=1, keepdims=True), sha256(data))


class Planted:
    """Answers with another face of the data set, its group drawn from a planted matrix.

    Parameters
    ----------
    name : str
        Of the arm.
    matrix : PlantedMatrix
    group_of : callable
        Labels of a face -> its group.
    pool : mapping of str to sequence of str
        Face ids that may be returned, by group. None of them may be among the run's own faces:
        those estimate the attribute model's confusion, and a face that served for both would
        make the correction look better than it is.
    prepare : callable
        Face id -> (3, R, R) in [0, 1], prepared like the run's originals; None where its photo
        cannot be read (the next one of its group takes its place).

    Raises
    ------
    InputError
        If a group that is to be returned has no face in the pool.
    """

    promises_feasibility = False
    resolution: int | None = None

    def __init__(
        self,
        name: str,
        matrix: PlantedMatrix,
        group_of: Callable[[Mapping[str, str]], str],
        pool: Mapping[str, Sequence[str]],
        prepare: Callable[[str], Tensor | None],
    ) -> None:
        self.name = name
        self._matrix, self._group_of, self._prepare = matrix, group_of, prepare
        self._rows = {group: i for i, group in enumerate(matrix.groups)}
        self._pool = {group: sorted(pool.get(group, ())) for group in matrix.groups}
        self._group = {face: group for group, faces in self._pool.items() for face in faces}
        for group, share in zip(matrix.groups, matrix.probabilities.sum(axis=0), strict=True):
            if share > 0 and not self._pool[group]:
                raise InputError(
                    f"{name}: no face of {group!r} is left to return; lower --per-group "
                    "(the run's own faces are never returned)"
                )

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Return one face a request; equal seeds give equal faces."""
        answers = []
        for request in requests:
            started = time.perf_counter()
            # The first candidate whose photo can be read.
            prepared = ((face_id, self._prepare(face_id)) for face_id in self.candidates(request))
            donor, image = next((pair for pair in prepared if pair[1] is not None), ("", None))
            if image is None:
                reason = "no photo of the group drawn can be read"
                answers.append(Upsampled(None, None, None, 0, 0.0, Status.ERROR, reason))
                continue
            image = image.to(request.lr)
            small = degradation.downscale(image[None])[0]
            error = float((small - request.lr).double().square().mean())
            seconds = time.perf_counter() - started
            answers.append(
                Upsampled(
                    image,
                    error,
                    None,
                    0,
                    seconds,
                    Status.OK,
                    planted_from=donor,
                    planted_group=self._group[donor],
                )
            )
        return answers

    def candidates(self, request: Request) -> list[str]:
        """Faces of the group drawn, the chosen one first; never the request's own face.

        The group is a function of the seed and the matrix alone: arms with other matrices share
        their random numbers.
        """
        random = np.random.default_rng(fingerprint(request.seed, "planted"))
        row = self._matrix.probabilities[self._rows[self._group_of(request.labels)]]
        number = int(np.searchsorted(np.cumsum(row), random.random(), side="right"))
        # Rounding may leave the last sum a little below 1: then it is the row's last group.
        group = self._matrix.groups[min(number, int(np.flatnonzero(row).max()))]
        faces = self._pool[group]
        # All faces of the group from a random one on, in case some cannot be read.
        start = int(random.integers(len(faces)))
        return [face for face in faces[start:] + faces[:start] if face != request.face_id]

    @property
    def caveats(self) -> tuple[str, ...]:
        """Say where a pool is so small that outputs repeat; intervals take them as independent."""
        fewest = min(len(faces) for faces in self._pool.values())
        caveat = f"outputs come from as few as {fewest} faces a group, and intervals cannot see it"
        return (caveat,) if fewest < SMALL_POOL else ()

    def describe(self) -> dict[str, Any]:
        """Return groups, matrix and the faces that outputs come from, with their digests."""
        return {
            "kind": "planted",
            "groups": list(self._matrix.groups),
            "matrix": self._matrix.probabilities.tolist(),
            "matrix_sha256": self._matrix.sha256,
            "folds": {
                "confusion": "the run's own faces",
                "outputs": {group: len(faces) for group, faces in self._pool.items()},
                "outputs_sha256": hexdigest(
                    *((group, *faces) for group, faces in self._pool.items())
                ),
            },
        }
