"""Balanced draws: the same number of faces from every cell of a grouping.

The order of the faces within a cell depends on the seed and their ids alone, so a draw does not
change with the order of the rows, with faces added to other cells, or with the number drawn: a
draw of 5 a cell is the beginning of a draw of 10.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pulse_audit.datasets import images
from pulse_audit.datasets.scan import listed
from pulse_audit.names import nearest
from pulse_audit.seeding import fingerprint
from pulse_audit.types import Face, InputError

Cell = tuple[str, ...]


@dataclass(frozen=True)
class BalancedDraw:
    """Faces drawn with the same number from every cell.

    Attributes
    ----------
    chosen : list of Face
        Round by round one face of every cell, in random order within a round: any beginning of
        the list is balanced to within one face a cell.
    reserve : dict of Cell to list of Face
        The other faces of every cell, in the order in which they would be drawn. A cell is a
        tuple of words, one for each column of ``group_by``; ``()`` is the only cell of no
        grouping.
    """

    chosen: list[Face]
    reserve: dict[Cell, list[Face]]
    group_by: tuple[str, ...]
    per_group: int
    seed: int


@dataclass(frozen=True)
class Skipped:
    """A face that was drawn and could not be read; the next of its cell took its place."""

    face: Face
    cell: Cell
    reason: str


def balanced_draw(
    faces: Sequence[Face],
    group_by: Sequence[str],
    per_group: int,
    seed: int,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
) -> BalancedDraw:
    """Draw ``per_group`` faces from every cell.

    The cells are all combinations of the words of the ``group_by`` columns: of the vocabulary
    where one is given, else of the words that occur. A cell with too few faces is an error, and a
    combination without any face is one too: a group left out of an audit must be left out on
    purpose.

    Parameters
    ----------
    faces : sequence of Face
        Candidates with distinct ids.
    group_by : sequence of str
        Label columns; several mean their intersection, none means one cell ``()``.
    per_group : int
        Faces for each cell, at least 1.
    seed : int
        The run's seed.
    vocabulary : mapping of str to sequence of str, optional
        ``FaceIndex.vocabulary``: the words that each column should have.

    Raises
    ------
    InputError
        If a column is unknown, or a cell holds fewer faces than asked for; the message names the
        cell, its count and what would do.
    """
    if per_group < 1:
        raise InputError(f"--per-group {per_group}: draw at least 1 face per group")
    columns = tuple(group_by)
    _check_columns(faces, columns)
    cells = _cells(faces, columns, vocabulary or {})
    _check_enough(cells, columns, per_group)
    ordered = {cell: _in_order(members, seed) for cell, members in cells.items()}
    drawn = {cell: members[:per_group] for cell, members in ordered.items()}
    return BalancedDraw(
        chosen=_interleaved(drawn, per_group, seed),
        reserve={cell: members[per_group:] for cell, members in ordered.items()},
        group_by=columns,
        per_group=per_group,
        seed=seed,
    )


def readable(
    draw: BalancedDraw, verify: Callable[[Face], object] | None = None
) -> tuple[list[Face], list[Skipped]]:
    """Replace faces whose photo cannot be read by the next of the same cell.

    Parameters
    ----------
    draw : BalancedDraw
        What was drawn.
    verify : callable, optional
        Raises OSError or `images.UnreadableImage` for a face that cannot be used. Default: the
        photo is read and decoded.

    Returns
    -------
    chosen : list of Face
        The first ``per_group`` readable faces of every cell, interleaved as in a draw.
    skipped : list of Skipped
        Each face passed over, and why.

    Raises
    ------
    InputError
        If a cell runs out of faces.
    """
    check = verify or (lambda face: images.load(face.source))
    skipped: list[Skipped] = []
    kept = {
        cell: _first_readable(draw, cell, members, check, skipped)
        for cell, members in _members(draw).items()
    }
    return _interleaved(kept, draw.per_group, draw.seed), skipped


def cell_of(face: Face, group_by: Sequence[str]) -> Cell:
    """Return the cell of a face."""
    return tuple(face.labels[column] for column in group_by)


def cell_name(cell: Cell, group_by: Sequence[str]) -> str:
    """Return a cell in words: ``race=White, gender=Male``; ``all faces`` without a grouping."""
    pairs = zip(group_by, cell, strict=True)
    return ", ".join(f"{column}={word}" for column, word in pairs) or "all faces"


def _check_columns(faces: Sequence[Face], columns: Cell) -> None:
    known = dict.fromkeys(column for face in faces for column in face.labels)
    for column in columns:
        if not known:
            raise InputError(f"--group-by {column}: these faces carry no labels to balance over")
        if column not in known:
            raise InputError(f"--group-by {column}: no such label{nearest(column, list(known))}")
        bare = next((face for face in faces if column not in face.labels), None)
        if bare is not None:
            raise InputError(f"--group-by {column}: the face {bare.id!r} has no such label")
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"--group-by {','.join(columns)}: names {twice!r} twice; name it once")


def _cells(
    faces: Sequence[Face], columns: Cell, vocabulary: Mapping[str, Sequence[str]]
) -> dict[Cell, list[Face]]:
    words = [
        vocabulary.get(column) or sorted({face.labels[column] for face in faces})
        for column in columns
    ]
    cells: dict[Cell, list[Face]] = {cell: [] for cell in itertools.product(*words)}
    for face in faces:
        cells[cell_of(face, columns)].append(face)
    return cells


def _check_enough(cells: Mapping[Cell, Sequence[Face]], columns: Cell, per_group: int) -> None:
    short = sorted((len(faces), cell) for cell, faces in cells.items() if len(faces) < per_group)
    if not short:
        return
    fewest, cell = short[0]
    more = f" ({len(short) - 1} more cells are short)" if short[1:] else ""
    remedy = f"lower --per-group to {fewest}" if fewest else "choose another --group-by"
    raise InputError(
        f"{cell_name(cell, columns)}: {fewest} faces where {per_group} are needed{more}; "
        f"{remedy} or take a larger split"
    )


def _in_order(faces: Sequence[Face], seed: int) -> list[Face]:
    return sorted(faces, key=lambda face: (fingerprint(seed, "draw", face.id), face.id))


def _interleaved(cells: Mapping[Cell, Sequence[Face]], per_group: int, seed: int) -> list[Face]:
    return [cells[cell][i] for i in range(per_group) for cell in _round(cells, i, seed)]


def _round(cells: Mapping[Cell, Sequence[Face]], number: int, seed: int) -> list[Cell]:
    return sorted(cells, key=lambda cell: fingerprint(seed, "round", number, list(cell)))


def _members(draw: BalancedDraw) -> dict[Cell, list[Face]]:
    members: dict[Cell, list[Face]] = {cell: [] for cell in draw.reserve}
    for face in draw.chosen:
        members[cell_of(face, draw.group_by)].append(face)
    return {cell: chosen + draw.reserve[cell] for cell, chosen in members.items()}


def _first_readable(
    draw: BalancedDraw,
    cell: Cell,
    members: Sequence[Face],
    check: Callable[[Face], object],
    skipped: list[Skipped],
) -> list[Face]:
    kept = list(itertools.islice(_passing(cell, members, check, skipped), draw.per_group))
    if len(kept) < draw.per_group:
        mine = [skip for skip in skipped if skip.cell == cell]
        examples = listed([f"{skip.face.id}: {skip.reason}" for skip in mine], at_most=1)
        raise InputError(
            f"{cell_name(cell, draw.group_by)}: {len(kept)} readable faces where "
            f"{draw.per_group} are needed, {len(mine)} are unreadable ({examples}); "
            "restore the photos or lower --per-group"
        )
    return kept


def _passing(
    cell: Cell,
    members: Sequence[Face],
    check: Callable[[Face], object],
    skipped: list[Skipped],
) -> Iterator[Face]:
    for face in members:
        try:
            check(face)
        except (OSError, images.UnreadableImage) as error:
            skipped.append(Skipped(face, cell, str(error)))
        else:
            yield face
