"""From a data set's card and its folder to the faces of one split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.datasets.layouts import LAYOUTS
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Problem, Scan, SourceFile
from pulse_audit.names import nearest
from pulse_audit.types import Face, InputError

if TYPE_CHECKING:
    from pulse_audit.datasets.samples import SampleRecord


@dataclass(frozen=True)
class FaceIndex:
    """The faces of one split, and where they came from."""

    card: DatasetCard
    #: The split that was read: one of the card's, or ``all``.
    split: str
    #: The data folder; None for faces that a dependency ships.
    root: Path | None
    #: In the order of the label file; the photos themselves are not read.
    faces: list[Face]
    #: Every label column of these faces and its words, in the order of reports. An open vocabulary
    #: holds the words that occur, numbers in numerical order.
    vocabulary: dict[str, tuple[str, ...]]
    #: The label files and their SHA-256, for the manifest.
    source_files: tuple[SourceFile, ...]
    #: Files that were skipped, and why.
    problems: tuple[Problem, ...]
    #: Remarks for the user, one line each.
    notes: tuple[str, ...] = ()
    #: The columns that are derived: name -> (the column they are from, word -> group), as
    #: `faces.attributes.columns` takes them.
    derived: Mapping[str, tuple[str, Mapping[str, str]]] = field(default_factory=dict)
    #: How the faces were drawn, where they are samples of a generator: rare groups may be short.
    samples: SampleRecord | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the faces of each word of each label column."""
        # The words of the vocabulary without faces are counted as 0.
        tallies = {c: Counter(face.labels.get(c) for face in self.faces) for c in self.vocabulary}
        return {c: {w: tallies[c][w] for w in words} for c, words in self.vocabulary.items()}

    def within(self, columns: Collection[str]) -> FaceIndex:
        """Return the index without derived columns other than these."""
        gone = set(self.derived) - set(columns)
        if not gone:
            return self
        faces = [
            replace(face, labels={c: word for c, word in face.labels.items() if c not in gone})
            for face in self.faces
        ]
        vocabulary = {c: words for c, words in self.vocabulary.items() if c not in gone}
        derived = {c: mapping for c, mapping in self.derived.items() if c not in gone}
        return replace(self, faces=faces, vocabulary=vocabulary, derived=derived)


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
        read whole for ``val`` and ``all``; a note says so.

    Raises
    ------
    InputError
        One line that names the file, the row and the value: no such folder or label file, wrong
        columns, a label outside the vocabulary (with the nearest word), a path that leaves the
        folder, a row given twice, a label that a spreadsheet damaged.
    """
    # Any fatal problem refuses the whole split: a face must not be lost to an audit unnoticed.
    resolved, notes = resolve_split(card, split)
    scanned = scan(card, root, resolved)
    fatal = [problem for problem in scanned.problems if problem.fatal]
    if fatal:
        validate = f"pulse-audit validate {card.name}"
        more = f" (and {len(fatal) - 1} more: {validate})" if fatal[1:] else ""
        raise InputError(f"{card.name}: {fatal[0].line()}{more}")
    if not scanned.faces:
        raise InputError(f"{card.name}: no faces in split {resolved!r} of {root}; {card.obtain}")
    return index(card, root, resolved, scanned, notes)


def resolve_split(card: DatasetCard, split: str) -> tuple[str, tuple[str, ...]]:
    """Return the split to read and the notes about it; InputError if there is no such split."""
    if split == "all" or split in card.splits:
        return split, ()
    if card.splits:
        known = [*card.splits, "all"]
        raise InputError(f"{card.name} has no split {split!r}{nearest(split, known)}")
    if split != "val":
        raise InputError(f"{card.name} has no splits, so no {split!r}; use --split all")
    return "all", (f"{card.name} has no splits: every face is an evaluation face",)


def scan(card: DatasetCard, root: Path | None, split: str) -> Scan:
    """Run the layout's reader on a resolved split.

    Raises InputError if the folder or its label files are missing or cannot be read at all.
    """
    if card.layout == "bundled":
        return LAYOUTS[card.layout](card, Path(), split)
    # Faces that come with the package are read from its assets.
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
    card: DatasetCard,
    root: Path | None,
    split: str,
    scanned: Scan,
    notes: tuple[str, ...] = (),
    samples: SampleRecord | None = None,
) -> FaceIndex:
    """Make the index of a scan; derived groupings become label columns."""
    # The label columns: the card's first, in its order, then the others as they occur.
    present = dict.fromkeys(column for face in scanned.faces for column in face.labels)
    ordered = [column for column in card.vocabulary if column in present]
    ordered += [column for column in present if column not in card.vocabulary]
    vocabulary: dict[str, tuple[str, ...]] = {}
    for column in ordered:
        if card.vocabulary.get(column):
            vocabulary[column] = card.vocabulary[column]
            continue
        # An open vocabulary is the words that occur, numbers in numerical order.
        words = {face.labels[column] for face in scanned.faces if column in face.labels}
        numeric = all(re.fullmatch(r"[0-9]{1,18}", word) for word in words)
        key = (lambda word: (int(word), word)) if numeric else None
        vocabulary[column] = tuple(sorted(words, key=key))
    # The derived columns, and each face's group in them.
    derived = {
        name: (grouping.source, grouping.group_of(vocabulary[grouping.source]))
        for name, grouping in card.derived.items()
        if grouping.source in vocabulary and name not in vocabulary
    }
    # Faces are copied only where there is a group to add.
    faces = scanned.faces
    if derived:
        faces = []
        for face in scanned.faces:
            groups = {
                name: group_of[face.labels[source]]
                for name, (source, group_of) in derived.items()
                if face.labels.get(source) in group_of
            }
            faces.append(replace(face, labels={**face.labels, **groups}))
    for name, (_, group_of) in derived.items():
        vocabulary[name] = tuple(dict.fromkeys(group_of.values()))
    return FaceIndex(
        card=card,
        split=split,
        root=None if card.layout == "bundled" or card.shipped else root,
        faces=faces,
        vocabulary=vocabulary,
        derived=derived,
        source_files=tuple(scanned.source_files),
        problems=tuple(problem for problem in scanned.problems if not problem.fatal),
        notes=notes,
        samples=samples,
    )
