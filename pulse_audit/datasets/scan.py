"""What a reader of a data folder returns, and the checks that all readers share."""

from __future__ import annotations

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pulse_audit.datasets.images import FileImage, is_below
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.tables import Damage, LabelTable, original_word
from pulse_audit.files import file_sha256
from pulse_audit.names import nearest
from pulse_audit.types import Face, ImageSource, InputError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Absolute paths, drive letters, "..", and characters that no path of a label file should hold.
_OUTSIDE = re.compile(r"^[/~]|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\0\n\r]")

# Spellings of the two truth values.
_BOOLEANS = (("True", "TRUE", "true", "1"), ("False", "FALSE", "false", "0"))

# The lowest age of each of FairFace's groups; other data sets' ages are put into the same groups.
_AGE_GROUPS = {70: "more than 70", 60: "60-69", 50: "50-59", 40: "40-49", 30: "30-39",
               20: "20-29", 10: "10-19", 3: "3-9", 0: "0-2"}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set: its kind, where it is, what it is and what to do.

    A face with a fatal problem must not be audited; faces with another are skipped and listed.
    """

    kind: str
    where: str
    message: str
    fatal: bool = True

    def line(self) -> str:
        """Return the problem as one line."""
        return f"{self.where}: {self.message}"


class SourceFile(NamedTuple):
    """A file (or a set of files) that the labels came from, and its SHA-256."""

    name: str
    sha256: str


@dataclass
class Scan:
    """What a reader returns.

    ``listed`` holds the image names that the label files mention for any split; None where the
    folder itself is the list.
    """

    faces: list[Face] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    source_files: list[SourceFile] = field(default_factory=list)
    listed: set[str] | None = None

    def add(self, kind: str, where: str, message: str, *, fatal: bool = True) -> None:
        """Append a problem."""
        self.problems.append(Problem(kind, where, message, fatal))


class RowReader:
    """Turns rows of a file name and labels into faces of a scan, or into problems.

    Parameters
    ----------
    scan : Scan
        Where faces and problems are appended.
    card : DatasetCard
        Whose vocabulary the labels are checked against.
    root : Path
        The data folder.
    prefix : str
        Folder below the root in which the photos are.
    """

    def __init__(self, scan: Scan, card: DatasetCard, root: Path, prefix: str = "") -> None:
        self.scan = scan
        self.card = card
        self._root = str(root)
        self._real_root = os.path.realpath(root)
        self._prefix = f"{prefix}/" if prefix not in ("", ".") else ""
        # Each word and each folder is checked once: there may be millions of rows.
        self._checked: defaultdict[str, dict[str, tuple[str, str, str | None] | None]]
        self._checked = defaultdict(dict)
        # Other spellings of a column's words.
        self._spellings = {column: spellings(card.vocabulary[column]) for column in card.vocabulary}
        # Folder -> whether it is below the root; file -> the row that listed it first.
        self._inside: dict[str, bool] = {}
        self._first_row: dict[str, str] = {}
        self._refused_links = set[str]()

    def add(
        self,
        name: str,
        where: str,
        labels: Mapping[str, str],
        *,
        source: ImageSource | None = None,
        cell: tuple[Path, int] | None = None,
    ) -> None:
        """Add one row.

        Parameters
        ----------
        name : str
            The face's id; below the prefix it is the photo's file.
        where : str
            How messages name the row.
        labels : mapping of str to str
            Its labels by column.
        source : ImageSource, optional
            The photo, where it is not a file of its own.
        cell : (Path, int), optional
            CSV and row in which damaged labels can be repaired.
        """
        # A name that leaves the folder or is listed twice is one problem; its labels are not read.
        if source is None:
            refusal = self._refuse(self._prefix + name, where)
            if refusal is not None:
                # A linked folder is one problem, not one a row.
                if refusal[1] not in self._refused_links:
                    self.scan.add(refusal[0], where, refusal[1])
                if refusal[0] == "linked_folder":
                    self._refused_links.add(refusal[1])
                return
        # Spreadsheets and scripts write True as TRUE, true or 1: one word.
        labels = {c: self._spellings.get(c, {}).get(word, word) for c, word in labels.items()}
        # Every label outside the vocabulary is a problem; damaged labels can be repaired.
        usable = True
        for column, word in labels.items():
            checked = self._checked[column]
            if word not in checked:
                checked[word] = label_problem(self.card, column, word)
            problem = checked[word]
            if problem is not None:
                kind, message, original = problem
                self.scan.add(kind, where, message)
                if original is not None and cell is not None:
                    self.scan.damages.append(Damage(*cell, column, word, original))
                usable = False
        if usable:
            photo = source or FileImage(self._root, self._prefix + name)
            self.scan.faces.append(Face(name, photo, labels))

    def _refuse(self, name: str, where: str) -> tuple[str, str] | None:
        """Return (kind, message) unless ``name`` is below the root and new.

        Links are followed once per folder; links in the last part of a path are checked when the
        file is read.
        """
        if not name.strip():
            return "outside_root", "the file name is empty; name a file below the data folder"
        folder = os.path.dirname(name)
        inside = not _OUTSIDE.search(name)
        if inside and folder not in self._inside:
            real = os.path.realpath(os.path.join(self._real_root, folder))
            self._inside[folder] = is_below(real, self._real_root)
        if inside and not self._inside[folder]:
            # The first link on the way, and where it points.
            parts = folder.split("/")
            ways = ["/".join(parts[: i + 1]) for i in range(len(parts))]
            link = next((w for w in ways if (Path(self._root) / w).is_symlink()), folder)
            target = os.path.realpath(os.path.join(self._real_root, link))
            return "linked_folder", (
                f"{quote(link)} is a link to {quote(target)}, outside the data folder; links are "
                "not followed out of it: give a --data-root that holds both, or replace the link "
                "by the folder (cp -rl makes a copy that takes no space)"
            )
        if not inside:
            return "outside_root", (
                f"the path {quote(name)} leaves the data folder; "
                "name files below it, with forward slashes"
            )
        # "a/./b" and "a//b" are the same file as "a/b".
        plain = posixpath.normpath(name) if "./" in name or "//" in name else name
        if plain in self._first_row:
            first = self._first_row[plain]
            return "duplicate_row", f"{quote(name)} is listed again after {first}; keep one"
        self._first_row[plain] = where
        return None

    def add_table(self, table: LabelTable, columns: Sequence[str]) -> None:
        """Add every row of a CSV with the column ``file`` and the given label columns."""
        require_columns(table.path, table.header, ["file"])
        # Row 1 of the file is the header.
        cells = [table.column(column) for column in columns]
        rows = zip(table.column("file"), *cells, strict=True)
        for number, (name, *words) in enumerate(rows, start=2):
            where = f"{table.path.name}, row {number}"
            labels = dict(zip(columns, words, strict=True))
            self.add(name, where, labels, cell=(table.path, number))


def spellings(vocabulary: Sequence[str]) -> dict[str, str]:
    """Map the spellings of true and false to the vocabulary's words; empty unless it is boolean."""
    found = {
        spelling: word
        for word in vocabulary
        for spelled in _BOOLEANS
        if word in spelled
        for spelling in spelled
    }
    return found if len(vocabulary) == 2 and len(found) == sum(map(len, _BOOLEANS)) else {}


def label_problem(card: DatasetCard, column: str, word: str) -> tuple[str, str, str | None] | None:
    """Check a label against its vocabulary.

    Returns
    -------
    None, or (kind, message, original)
        ``original`` is the word that a spreadsheet turned into a date, where that is certain.
    """
    # An open vocabulary is empty here, and takes any word but the empty one.
    vocabulary = card.vocabulary.get(column, ())
    if not word.strip():
        return "missing_label", f"column {column!r} is empty; fill it in or remove the row", None
    if not vocabulary or word in vocabulary:
        return None
    # A spreadsheet may have turned the word into a date, which can be repaired.
    original = original_word(word, vocabulary)
    if original is None:
        return "unknown_label", f"unknown {column} {quote(word)}{nearest(word, vocabulary)}", None
    repair = f"pulse-audit validate {card.name} --repair"
    message = f"{column} {word!r} is {original!r} turned into a date by a spreadsheet; run {repair}"
    return "damaged_label", message, original


def require_columns(path: Path, header: Sequence[str], needed: Iterable[str]) -> None:
    """Raise InputError unless the header holds every needed column."""
    lacking = [column for column in needed if column not in header]
    if lacking:
        columns = join_words([quote(column, 30) for column in header], 12)
        raise InputError(
            f"{path}: lacks the column {lacking[0]!r} (it has: {columns}); "
            "use the unchanged label file"
        )


def label_columns(card: DatasetCard, path: Path, header: Sequence[str]) -> list[str]:
    """Return the card's columns in the header; InputError where one is lacking that must not."""
    require_columns(path, header, [c for c in card.vocabulary if c not in card.optional])
    return [column for column in card.vocabulary if column in header]


def age_group(years: float) -> str:
    """Return FairFace's age group of an age in years; 70 itself is ``more than 70``."""
    return next(word for lowest, word in _AGE_GROUPS.items() if years >= lowest)


def data_folder(card: DatasetCard, root: Path) -> Path:
    """Return ``root/card.folder`` where it exists, else ``root``."""
    inner = root / card.folder if card.folder else root
    return inner if inner.is_dir() else root


def first_existing(base: Path, names: Sequence[str]) -> Path | None:
    """Return the first of ``names`` that exists below ``base``."""
    return next((base / name for name in names if (base / name).exists()), None)


def not_found(card: DatasetCard, what: str, base: Path) -> InputError:
    """Build the error for data that are not there; it ends with how to get them."""
    return InputError(f"{card.name}: {what} not found in {base}; {card.obtain}")


def hash_file(path: Path, root: Path) -> SourceFile:
    """Hash one label file below the root."""
    return SourceFile(relative(path, root), file_sha256(path))


def relative(path: Path, root: Path) -> str:
    """Return ``path`` below ``root`` with forward slashes."""
    return path.relative_to(root).as_posix()


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def images_below(base: Path, scan: Scan) -> Iterator[str]:
    """Yield the image files below ``base`` as relative names, in sorted order.

    Symbolic links to folders are not followed, as they could leave the data folder or lead back
    into it; each is a problem of the scan.
    """

    def stop(error: OSError) -> None:
        raise error

    # Sorting the subfolders in place makes os.walk visit them in that order.
    for folder, subfolders, files in os.walk(base, onerror=stop):
        subfolders.sort()
        inner = relative(Path(folder), base)
        prefix = "" if inner == "." else f"{inner}/"
        for name in subfolders:
            if os.path.islink(os.path.join(folder, name)) and not name.startswith("."):
                message = (
                    f"{quote(prefix + name)} is a link to "
                    f"{quote(os.path.realpath(os.path.join(folder, name)))}; links to folders are "
                    "not followed: replace the link by the folder (cp -rl makes a copy that takes "
                    "no space), or remove it"
                )
                scan.add("linked_folder", prefix + name, message)
        yield from (prefix + name for name in sorted(files) if is_image_name(name))


def images_in(root: Path, folder: str) -> Iterator[str]:
    """Yield the image files directly in ``root/folder`` as names below ``root``."""
    if not _OUTSIDE.search(folder) and (root / folder).is_dir():
        for entry in os.scandir(root / folder):
            if is_image_name(entry.name):
                yield f"{folder}/{entry.name}" if folder else entry.name


def join_words(words: Sequence[str], at_most: int = 3) -> str:
    """Join words with commas; after ``at_most`` of them, say how many more there are."""
    rest = len(words) - at_most
    return ", ".join(words[:at_most]) + (f", and {rest:,} more" if rest > 0 else "")


def quote(text: str, at_most: int = 80) -> str:
    """Quote a text from outside for a message: on one line, cut where it is long."""
    return repr(text if len(text) <= at_most else f"{text[:at_most]}...")
