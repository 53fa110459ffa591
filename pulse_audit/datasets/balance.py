"""Balanced draws: the same number of faces from every cell of a grouping.

The order of the faces within a cell depends on the seed and their ids alone, so a draw does not
change with the order of the rows, with faces added to other cells, or with the number drawn: a
draw of 5 a cell is the beginning of a draw of 10.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pulse_audit.datasets import images
from pulse_audit.datasets.copies import Copies, contradict
from pulse_audit.datasets.scan import join_words
from pulse_audit.names import nearest
from pulse_audit.seeding import fingerprint
from pulse_audit.types import Face, InputError

#: One word for each column of the grouping; ``()`` is the only cell of no grouping.
CellKey = tuple[str, ...]
#: The word of a face without a label.
NO_LABEL = "no label"
SkipKind: TypeAlias = Literal["unreadable", "duplicate", "contradictory"]


@dataclass(frozen=True)
class BalancedDraw:
    """Faces drawn with the same number from every cell."""

    #: One face of every cell in each round, in random order within a round: any beginning of the
    #: list is balanced to within one face a cell.
    chosen: list[Face]
    #: The other faces of every cell, in the order in which they would be drawn.
    reserve: dict[CellKey, list[Face]]
    group_by: tuple[str, ...]
    per_group: int
    seed: int
    #: Whether a cell may have fewer faces than ``per_group``.
    fewer: bool = False


@dataclass(frozen=True)
class Skipped:
    """A face that is left out of a draw; the next of its cell took its place.

    ``kind`` is ``unreadable``, ``duplicate`` (another face has the same photo and the same labels,
    and stays) or ``contradictory`` (another has the same photo and other labels; neither stays).
    """

    face: Face
    cell: CellKey
    reason: str
    kind: SkipKind = "unreadable"


def balanced_draw(
    faces: Sequence[Face],
    group_by: Sequence[str],
    per_group: int,
    seed: int,
    vocabulary: Mapping[str, Sequence[str]] | None = None,
    fewer: bool = False,
) -> BalancedDraw:
    """Draw ``per_group`` faces from every cell.

    The cells are all combinations of the words of the ``group_by`` columns: of the vocabulary
    where one is given, else of the words that occur. A cell with too few faces is an error, and so
    is a combination without any face: a group must be left out of an audit on purpose.

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
    fewer : bool
        Whether a cell with too few faces, or none, gives those it has instead.

    Raises
    ------
    InputError
        If a column is unknown, or a cell holds fewer faces than needed; the message names the
        cell, its count and a remedy.
    """
    if per_group < 1:
        raise InputError(f"--per-group {per_group}: draw at least 1 face per group")
    # Every face needs a label in every column, and no column may be named twice.
    columns = tuple(group_by)
    labelled = dict.fromkeys(column for face in faces for column in face.labels)
    for column in columns:
        if not labelled:
            raise InputError(f"--group-by {column}: these faces carry no labels to balance over")
        if column not in labelled:
            raise InputError(f"--group-by {column}: no such label{nearest(column, list(labelled))}")
        unlabelled = next((face for face in faces if column not in face.labels), None)
        if unlabelled is not None:
            raise InputError(f"--group-by {column}: the face {unlabelled.id!r} has no such label")
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise InputError(f"--group-by {','.join(columns)}: names {twice!r} twice; name it once")
    # Sort the faces into the cells.
    words = [
        (vocabulary or {}).get(column) or sorted({face.labels[column] for face in faces})
        for column in columns
    ]
    cells: dict[CellKey, list[Face]] = {cell: [] for cell in itertools.product(*words)}
    for face in faces:
        cells[cell_of(face, columns)].append(face)
    # Every cell needs enough faces; the message is about the smallest.
    short = sorted((len(members), cell) for cell, members in cells.items())
    short = [(count, cell) for count, cell in short if count < per_group]
    if short and not fewer:
        fewest, cell = short[0]
        more = f" ({len(short) - 1} more cells are short)" if short[1:] else ""
        remedy = f"lower --per-group to {fewest}" if fewest else "choose another --group-by"
        raise InputError(
            f"{cell_name(cell, columns)}: {fewest} faces where {per_group} are needed{more}; "
            f"{remedy} or take a larger split"
        )
    # Draw: the order within a cell follows from the seed and the ids.
    for members in cells.values():
        members.sort(key=lambda face: (fingerprint(seed, "draw", face.id), face.id))
    return BalancedDraw(
        chosen=_interleave(cells, per_group, seed),
        reserve={cell: members[per_group:] for cell, members in cells.items()},
        group_by=columns,
        per_group=per_group,
        seed=seed,
        fewer=fewer,
    )


def _interleave(cells: Mapping[CellKey, Sequence[Face]], per_group: int, seed: int) -> list[Face]:
    """Take one face of every cell in each round, the cells in random order."""
    chosen = []
    for number in range(per_group):
        # The order of the cells is drawn anew for every round.
        order = {cell: fingerprint(seed, "round", number, list(cell)) for cell in cells}
        left = [cell for cell in sorted(cells, key=order.__getitem__) if number < len(cells[cell])]
        chosen += [cells[cell][number] for cell in left]
    return chosen


def replace_unusable(
    draw: BalancedDraw,
    verify: Callable[[Face], object] | None = None,
    copies: Copies | None = None,
    columns: Sequence[str] = (),
) -> tuple[list[Face], list[Skipped]]:
    """Replace faces whose photo cannot be read, or is another face's too, by others of the cell.

    Parameters
    ----------
    draw : BalancedDraw
        The draw.
    verify : callable, optional
        Raises OSError or `images.UnreadableImage` for a face that cannot be used. Default: the
        photo is read and decoded.
    copies : Copies, optional
        Of the faces that were drawn from: of faces with the same photo the first by name stays,
        or none where their labels differ. Default: photos are not compared.
    columns : sequence of str
        Label columns, beside those of the draw, in which copies must agree.

    Returns
    -------
    chosen : list of Face
        The first ``per_group`` usable faces of every cell, interleaved as in a draw.
    skipped : list of Skipped
        Each face passed over, and all copies of the others met, and why.

    Raises
    ------
    InputError
        If a cell runs out of faces.
    """
    verify = verify or (lambda face: images.load(face.source))
    agreed = tuple(dict.fromkeys((*draw.group_by, *columns)))
    # The faces of each cell in the order of the draw: first the chosen, then the reserve.
    candidates: dict[CellKey, list[Face]] = {cell: [] for cell in draw.reserve}
    for face in draw.chosen:
        candidates[cell_of(face, draw.group_by)].append(face)
    usable: dict[CellKey, list[Face]] = {}
    skipped: dict[str, Skipped] = {}
    for cell, chosen in candidates.items():
        usable[cell] = []
        passed_over: list[Skipped] = []
        # Read the cell's faces in their order, no more of them than are needed.
        for face in (*chosen, *draw.reserve[cell]):
            if len(usable[cell]) == draw.per_group:
                break
            if face.id not in skipped:
                try:
                    verify(face)
                    same = [face] if copies is None else copies.of(face)
                    skipped |= {skip.face.id: skip for skip in _left_out(same, agreed, draw)}
                except (OSError, images.UnreadableImage) as error:
                    skipped[face.id] = Skipped(face, cell, str(error))
            if face.id in skipped:
                passed_over.append(skipped[face.id])
            else:
                usable[cell].append(face)
        if len(usable[cell]) < draw.per_group and not draw.fewer:
            examples = [f"{skip.face.id}: {skip.reason}" for skip in passed_over]
            unreadable = sum(skip.kind == "unreadable" for skip in passed_over)
            counts = f"{unreadable} are unreadable"
            if copied := len(passed_over) - unreadable:
                counts += f" and {copied} have another's photo"
            # One example is enough to see what kind of damage it is.
            raise InputError(
                f"{cell_name(cell, draw.group_by)}: {len(usable[cell])} usable faces where "
                f"{draw.per_group} are needed, {counts} ({join_words(examples, at_most=1)}); "
                "restore the photos or lower --per-group"
            )
    return _interleave(usable, draw.per_group, draw.seed), list(skipped.values())


def _left_out(same: Sequence[Face], columns: Sequence[str], draw: BalancedDraw) -> list[Skipped]:
    """Of faces with one photo, in order, all but the first, or all where their labels differ."""
    if contradict(same, columns):
        names = [face.id for face in same]
        return [
            Skipped(
                face,
                cell_of(face, draw.group_by),
                f"the same photo as {next(name for name in names if name != face.id)}, "
                "with other labels",
                "contradictory",
            )
            for face in same
        ]
    reason = f"the same photo as {same[0].id}"
    return [Skipped(face, cell_of(face, draw.group_by), reason, "duplicate") for face in same[1:]]


def cell_of(face: Face, group_by: Sequence[str]) -> CellKey:
    """Return the cell of a face; a derived grouping may have no group for it."""
    return tuple(face.labels.get(column, NO_LABEL) for column in group_by)


def cell_name(cell: CellKey, group_by: Sequence[str]) -> str:
    """Return a cell in words: ``race=White, gender=Male``; ``all faces`` without a grouping."""
    pairs = zip(group_by, cell, strict=True)
    return ", ".join(f"{column}={word}" for column, word in pairs) or "all faces"
