"""Check a copy of a data set: counts, vocabulary, photos, duplicates, damaged labels."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pulse_audit.datasets import images
from pulse_audit.datasets.copies import contradict
from pulse_audit.datasets.readers import FaceIndex, index, resolve_split, scan
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import data_folder, images_in, join_words
from pulse_audit.datasets.tables import repair_csv
from pulse_audit.types import Face, Progress

# A public copy of FairFace was cut at this many rows by a spreadsheet viewer.
_CUT = 5000


@dataclass(frozen=True)
class Defect:
    """One defect: its kind, where it is, and one line on what it is and what to do."""

    kind: str
    where: str
    what_to_do: str


@dataclass
class ValidationReport:
    """The outcome of checking one split of one data set."""

    dataset: str
    split: str
    root: str | None = None
    #: Faces that can be read with labels of the vocabulary.
    n_faces: int = 0
    #: Label column -> word -> faces.
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Faces whose photo is an earlier face's too; and, by label column, photos with several labels.
    duplicates: int = 0
    contradictory: dict[str, int] = field(default_factory=dict)
    #: Each makes ``pulse-audit validate`` exit with 2.
    defects: list[Defect] = field(default_factory=list)
    #: Worth knowing, no reason to stop.
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    #: Label files that were repaired; the originals lie beside them as ``.bak``.
    repaired: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no defect."""
        return not self.defects

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, ``ok`` included."""
        return {"ok": self.ok, **asdict(self)}

    def difference(
        self, kind: str, where: str, line: str, remedy: str, *, subset: bool, confirmed: bool = True
    ) -> None:
        """Report a difference from a complete copy.

        It is a note where the copy is a deliberate subset, a warning where the published value is
        unconfirmed, and a defect otherwise.
        """
        if subset:
            self.notes.append(f"{where}: {line}")
        elif not confirmed:
            self.warnings.append(f"{where}: {line}; the published value is unconfirmed")
        else:
            self.defects.append(Defect(kind, where, f"{line}; {remedy}"))


def validate(
    card: DatasetCard,
    root: Path | None,
    split: str,
    repair: bool = False,
    subset: bool = False,
    progress: Progress | None = None,
) -> ValidationReport:
    """Check a copy of a data set; every photo of the split is decoded.

    Parameters
    ----------
    card : DatasetCard
        Which data set.
    root : Path or None
        Its folder.
    split : str
        As for `readers.read_faces`.
    repair : bool
        Restore labels that a spreadsheet turned into dates: the CSV is rewritten in one step and
        the original kept as ``.bak``. Nothing else is ever changed.
    subset : bool
        The copy is a deliberate selection: counts that differ from a complete copy, and photos
        that the label file does not list, are notes and no defects.
    progress : callable, optional
        Called with (photos checked, photos in all, 0: none restored from an earlier call).

    Raises
    ------
    InputError
        If there is nothing to check: no folder, no label file, wrong columns.
    """
    # Read the labels as an audit does, but keep every problem instead of stopping at the first.
    resolved, notes = resolve_split(card, split)
    root = card.shipped_root or root
    scanned = scan(card, root, resolved)
    report = ValidationReport(card.name, resolved, notes=list(notes))
    # Repair the damaged labels, file by file, and read the labels again.
    if repair and scanned.damages:
        for path, cells in groupby(scanned.damages, key=lambda damage: damage.path):
            damages = list(cells)
            backup = repair_csv(path, damages)
            line = f"{path}: {len(damages)} labels restored; the original is {backup.name}"
            report.repaired.append(line)
        scanned = scan(card, root, resolved)
    faces = index(card, root, resolved, scanned)
    report.root = str(faces.root) if faces.root else None
    report.n_faces, report.counts = len(faces.faces), faces.counts()
    # The problems of the labels, then what can be compared with a complete copy, then the photos.
    for problem in scanned.problems:
        if problem.fatal:
            report.defects.append(Defect(problem.kind, problem.where, problem.message))
        else:
            report.warnings.append(problem.line())
    _check_counts(report, faces, subset)
    if root is not None:
        _check_checksums(report, card, root, subset)
        # Photos in the folders of the listed ones that no label file lists.
        listed = scanned.listed or set()
        folders = sorted({name.rpartition("/")[0] for name in listed})
        on_disk = {name for folder in folders for name in images_in(root, folder)}
        if unlisted := sorted(on_disk - listed):
            line = f"{len(unlisted):,} photos that the label file does not list"
            line += f": {join_words(unlisted)}"
            remedy = "get the label file that goes with them"
            report.difference("unlisted", str(root), line, remedy, subset=subset)
    _check_photos(report, faces.faces, progress)
    return report


def _check_counts(report: ValidationReport, faces: FaceIndex, subset: bool) -> None:
    """Compare the counts with those of a complete copy: of all faces, else of each word."""
    expected = faces.card.expected_for(faces.split)
    if expected is None:
        report.notes.append(f"{faces.card.name}: the size of a complete copy is not known")
        return
    # Counts of words are compared only where the total is right: they say which labels changed.
    differences: dict[str, str] = {}
    if report.n_faces != expected.count:
        cut = ": cut off at 5,000 rows" if report.n_faces == _CUT < expected.count else ""
        line = f"{report.n_faces:,} where a complete copy has {expected.count:,}{cut}"
        differences["all faces"] = line
    else:
        for column, words in expected.groups.items():
            for word, count in words.items():
                here = report.counts.get(column, {}).get(word, 0)
                if here != count and column in report.counts:
                    line = f"{here:,} where a complete copy has {count:,}"
                    differences[f"{column} {word}"] = line
    remedy = "get a complete copy, or say it is a subset"
    for where, line in differences.items():
        report.difference("count", where, line, remedy, subset=subset, confirmed=expected.confirmed)


def _check_checksums(report: ValidationReport, card: DatasetCard, root: Path, subset: bool) -> None:
    """Compare files with their published checksums; files that are not there are passed over."""
    base = data_folder(card, root)
    for checksum in card.files:
        # A published SHA-256 may be the leading digits of the digest.
        name, digest = ("md5", checksum.md5) if checksum.md5 else ("sha256", checksum.sha256)
        # Archives unpack to the data folder or to a folder of their own.
        for path in (*base.glob(checksum.name), *base.glob(f"*/{checksum.name}")):
            if not path.is_file():
                continue
            with path.open("rb") as file:
                same = hashlib.file_digest(file, name).hexdigest().startswith(digest or "")
            if not same:
                report.difference(
                    "checksum",
                    str(path),
                    f"differs from the file with the published checksum ({checksum.source})",
                    "get it again",
                    subset=subset,
                    confirmed=checksum.confirmed,
                )


def _check_photos(
    report: ValidationReport, faces: Sequence[Face], progress: Progress | None
) -> None:
    """Decode every photo, and look for photos that are there twice."""
    # SHA-256 of a photo's bytes -> the faces with them, in order.
    faces_with: defaultdict[bytes, list[Face]] = defaultdict(list)
    for done, face in enumerate(faces, start=1):
        try:
            data = face.source.read()
            images.decode(data)
        except FileNotFoundError:
            line = "the photo is missing; restore it from the archive"
            report.defects.append(Defect("missing_file", face.id, line))
        except (OSError, images.UnreadableImage) as error:
            line = f"{error}; restore the photo from the archive"
            report.defects.append(Defect("unreadable", face.id, line))
        else:
            # The same bytes under two names count one person twice.
            same = faces_with[hashlib.sha256(data).digest()]
            same.append(face)
            if len(same) > 1:
                differ = "" if same[0].labels == face.labels else ", with other labels"
                line = f"the same photo as {same[0].id}{differ}; keep one of them"
                report.defects.append(Defect("duplicate_photo", face.id, line))
        if progress is not None:
            progress(done, len(faces), 0)
    # Counted as an audit takes them: one of a kind stays, none where labels contradict each other.
    copies = [same for same in faces_with.values() if len(same) > 1]
    report.duplicates = sum(len(same) - 1 for same in copies)
    report.contradictory = {
        column: count
        for column in report.counts
        if (count := sum(contradict(same, [column]) for same in copies))
    }
    if copies:
        several = ", ".join(f"{column} {n:,}" for column, n in report.contradictory.items())
        report.notes.append(
            f"{report.duplicates:,} faces have the photo of an earlier one (photos with several "
            f"labels: {several or 'none'}); an audit keeps the first by name, and none of those "
            "whose labels differ in what it groups by"
        )
