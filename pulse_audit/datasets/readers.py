"""From a data set's card and its folder to the faces of one split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pulse_audit.datasets.layouts import LAYOUTS
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Problem, Scan, SourceFile
from pulse_audit.names import nearest
from pulse_audit.types import Face, InputError


@dataclass(frozen=True)
class FaceIndex:
    """The faces of one split, and where they came from.

    Attributes
    ----------
    split : str
        What was read: a split of the card, or ``all``.
    root : Path or None
        The data folder; None for faces that a dependency ships.
    faces : list of Face
        In the order of the label file; the photos themselves are not looked at.
    vocabulary : dict of str to tuple of str
        Every label column of these faces and its words, in the order of reports. An open
        vocabulary holds the words that occur, numbers in numerical order.
    source_files : tuple of SourceFile
        The label files and their SHA-256, for the manifest.
    problems : tuple of Problem
        Files that were skipped, and why.
    notes : tuple of str
        Remarks for the user, one line each.
    derived : mapping
        Those of the columns that are derived: name -> (the column they are from, word -> group),
        as `faces.attributes.columns` takes them.
    """

    card: DatasetCard
    split: str
    root: Path | None
    faces: list[Face]
    vocabulary: dict[str, tuple[str, ...]]
    source_files: tuple[SourceFile, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    derived: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the faces of each word of each label column."""
        tallies = {c: Counter(face.labels[c] for face in self.faces) for c in self.vocabulary}
        return {c: {w: tallies[c][w] for w in words} for c, words in self.vocabulary.items()}


def read_faces(card: DatasetCard, root: Path | None, split: str = "val") -> FaceIndex:
    """Read the faces of one split; nothing is executed and no photo is opened.

    Parameters
    ----------
    card : DatasetCard
        Which data set; see `registry.Registry.get`.
    root : Path or None
        Its folder. Faces that a dependency ships need none.
    split : str
        ``val``, ``train``, ``all``, or another split of the card. A data set without splits is
        read whole for ``val`` and ``all``, which a note says.

    Returns
    -------
    FaceIndex

    Raises
    ------
    InputError
        One line that names the file, the row and the value: no such folder or label file, wrong
        columns, a label outside the vocabulary (with the nearest word), a path that leaves the
        folder, a row given twice, a label that a spreadsheet damaged.
    """
    resolved, notes = resolve_split(card, split)
    found = scan(card, root, resolved)
    fatal = [problem for problem in found.problems if problem.fatal]
    if fatal:
        raise InputError(_fatal_line(card, fatal))
    if not found.faces:
        raise InputError(f"{card.name}: no faces in split {resolved!r} of {root}; {card.obtain}")
    return index(card, root, resolved, found, notes)


def resolve_split(card: DatasetCard, split: str) -> tuple[str, tuple[str, ...]]:
    """Return the split to read and the notes that go with it.

    Raises
    ------
    InputError
        If the data set has no such split.
    """
    if split == "all" or split in card.splits:
        return split, ()
    if card.splits:
        known = [*card.splits, "all"]
        raise InputError(f"{card.name} has no split {split!r}{nearest(split, known)}")
    if split != "val":
        raise InputError(f"{card.name} has no splits, so no {split!r}; use --split all")
    return "all", (f"{card.name} has no splits: every face is an evaluation face",)


def scan(card: DatasetCard, root: Path | None, split: str) -> Scan:
    """Run the layout's reader on a resolved split; `validate` works on what it returns.

    Raises
    ------
    InputError
        If the folder is missing, or the label files are missing or cannot be read at all.
    """
    if card.layout == "bundled":
        return LAYOUTS[card.layout](card, Path(), split)
    root = card.shipped_root or root
    if root is None:
        how = f"give --data-root DIR or set PULSE_AUDIT_DATA; {card.obtain}"
        raise InputError(f"{card.name}: no data folder given; {how}")
    if not root.is_dir():
        raise InputError(f"{card.name}: {root} is no folder; {card.obtain}")
    try:
        return LAYOUTS[card.layout](card, root, split)
    except OSError as error:
        raise InputError(
            f"{error.filename or root}: cannot be read ({error.strerror or error}); check it"
        ) from error


def index(
    card: DatasetCard, root: Path | None, split: str, found: Scan, notes: tuple[str, ...] = ()
) -> FaceIndex:
    """Make the index of what a reader found; derived groupings become label columns."""
    vocabulary = _vocabulary(card, found.faces)
    derived = {
        name: (grouping.source, grouping.group_of(vocabulary[grouping.source]))
        for name, grouping in card.derived.items()
        if grouping.source in vocabulary and name not in vocabulary
    }
    words = {name: tuple(dict.fromkeys(groups.values())) for name, (_, groups) in derived.items()}
    return FaceIndex(
        card=card,
        split=split,
        root=None if card.layout == "bundled" or card.shipped else root,
        faces=[_with_groups(face, derived) for face in found.faces] if derived else found.faces,
        vocabulary={**vocabulary, **words},
        derived=derived,
        source_files=tuple(found.source_files),
        problems=tuple(problem for problem in found.problems if not problem.fatal),
        notes=notes,
    )


def _with_groups(face: Face, derived: Mapping[str, tuple[str, Mapping[str, str]]]) -> Face:
    groups = {
        name: group_of[face.labels[source]]
        for name, (source, group_of) in derived.items()
        if source in face.labels
    }
    return replace(face, labels={**face.labels, **groups})


def _fatal_line(card: DatasetCard, fatal: list[Problem]) -> str:
    more = f" (and {len(fatal) - 1} more: pulse-audit validate {card.name})" if fatal[1:] else ""
    return f"{card.name}: {fatal[0].line()}{more}"


def _vocabulary(card: DatasetCard, faces: list[Face]) -> dict[str, tuple[str, ...]]:
    present = dict.fromkeys(column for face in faces for column in face.labels)
    known = [column for column in card.vocabulary if column in present]
    columns = [*known, *(column for column in present if column not in card.vocabulary)]
    return {c: card.vocabulary.get(c) or _words(faces, c) for c in columns}


def _words(faces: list[Face], column: str) -> tuple[str, ...]:
    words = {face.labels[column] for face in faces if column in face.labels}
    if all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
        return tuple(sorted(words, key=lambda word: (int(word), word)))
    return tuple(sorted(words))
