"""What a layout reader finds, and the checks that every reader shares."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pulse_audit.datasets.damage import Damage, undamaged
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.sources import is_below
from pulse_audit.names import nearest
from pulse_audit.types import Face, InputError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a data set: its kind, where it is, what it is and what to do.

    A face with a fatal problem must not be audited; the others are skipped and listed.
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
    """All that a layout reader found.

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


def data_folder(card: DatasetCard, root: Path) -> Path:
    """Return ``root/card.folder`` where it exists, else ``root``."""
    inner = root / card.folder if card.folder else root
    return inner if inner.is_dir() else root


def first_existing(base: Path, names: Sequence[str]) -> Path | None:
    """Return the first of ``names`` that exists below ``base``."""
    return next((base / name for name in names if (base / name).exists()), None)


def missing(card: DatasetCard, what: str, base: Path) -> InputError:
    """Build the error for data that are not there; it ends with how to get them."""
    return InputError(f"{card.name}: {what} not found in {base}; {card.obtain}")


def sha256_file(path: Path, name: str) -> SourceFile:
    """Hash one label file."""
    with path.open("rb") as file:
        return SourceFile(name, hashlib.file_digest(file, "sha256").hexdigest())


def listed(words: Sequence[str], at_most: int = 3) -> str:
    """Join words with commas, cut after ``at_most`` with the number left out."""
    rest = len(words) - at_most
    return ", ".join(words[:at_most]) + (f", and {rest:,} more" if rest > 0 else "")


def shown(text: str, at_most: int = 80) -> str:
    """Quote a text from outside for a message: on one line, cut where it is long."""
    return repr(text if len(text) <= at_most else f"{text[:at_most]}...")


def relative(path: Path, root: Path) -> str:
    """Return ``path`` below ``root`` with forward slashes."""
    return path.relative_to(root).as_posix()


def images_below(base: Path) -> Iterator[str]:
    """Yield the image files below ``base`` as relative names, in sorted order.

    Symbolic links to folders are not followed: they could leave the data folder.
    """
    for folder, subfolders, files in os.walk(base, onerror=_raise):
        subfolders.sort()
        inner = os.path.relpath(folder, base).replace(os.sep, "/")
        prefix = "" if inner == "." else f"{inner}/"
        for name in sorted(files):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield prefix + name


def _raise(error: OSError) -> None:
    raise error


def images_in(root: Path, folder: str) -> Iterator[str]:
    """Yield the image files directly in ``root/folder`` as names below ``root``."""
    if _OUTSIDE.search(folder) or not (root / folder).is_dir():
        return
    for entry in os.scandir(root / folder):
        if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.name.startswith("."):
            yield f"{folder}/{entry.name}" if folder else entry.name


_OUTSIDE = re.compile(r"^[/~]|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\0\n\r]")


class Names:
    """Checks the file names of one data set: relative, below the root, each once.

    Links are followed once per folder; links in the last part of a path are checked when the
    file is read.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._folders: dict[str, bool] = {}
        self.seen: dict[str, str] = {}

    def refuse(self, name: str, where: str) -> tuple[str, str] | None:
        """Return (kind, message) where ``name`` cannot be used; else remember it."""
        if not name.strip():
            return "outside_root", "the file name is empty; name a file below the data folder"
        if _OUTSIDE.search(name) or not self._folder_inside(os.path.dirname(name)):
            return (
                "outside_root",
                f"the path {shown(name)} leaves the data folder; "
                "name files below it, with forward slashes",
            )
        plain = posixpath.normpath(name) if "./" in name or "//" in name else name
        if plain in self.seen:
            return (
                "duplicate_row",
                f"{shown(name)} is listed again after {self.seen[plain]}; keep one",
            )
        self.seen[plain] = where
        return None

    def _folder_inside(self, folder: str) -> bool:
        if folder not in self._folders:
            real = os.path.realpath(os.path.join(self._root, folder))
            self._folders[folder] = is_below(real, self._root)
        return self._folders[folder]


def check_word(card: DatasetCard, column: str, word: str) -> tuple[str, str, str | None] | None:
    """Check a label against its vocabulary.

    Returns
    -------
    None, or (kind, message, meant)
        ``meant`` is the word that a spreadsheet damaged, where that is certain.
    """
    vocabulary = card.vocabulary.get(column, ())
    if not word.strip():
        return "missing_label", f"column {column!r} is empty; fill it in or remove the row", None
    if not vocabulary or word in vocabulary:
        return None
    meant = undamaged(word, vocabulary)
    if meant is None:
        return "unknown_label", f"unknown {column} {shown(word)}{nearest(word, vocabulary)}", None
    repair = f"pulse-audit validate {card.name} --repair"
    message = f"{column} {word!r} is {meant!r} turned into a date by a spreadsheet; run {repair}"
    return "damaged_label", message, meant


def need_columns(path: Path, header: Sequence[str], needed: Iterable[str]) -> None:
    """Raise InputError unless the header holds every needed column."""
    lacking = [column for column in needed if column not in header]
    if lacking:
        columns = listed([shown(column, 30) for column in header], 12)
        raise InputError(
            f"{path}: lacks the column {lacking[0]!r} (it has: {columns}); "
            "use the unchanged label file"
        )
