"""Is a copy of a data set whole and sound? Counts, vocabulary, photos, duplicates, damage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pulse_audit.datasets import images
from pulse_audit.datasets.damage import Damage
from pulse_audit.datasets.readers import FaceIndex, index, resolve_split, scan
from pulse_audit.datasets.registry import Checksum, DatasetCard, Expected
from pulse_audit.datasets.scan import Scan, data_folder, images_in, listed
from pulse_audit.datasets.tables import repair_csv
from pulse_audit.types import Face

Progress = Callable[[int, int, int], None]

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
    """What was found in one split of one data set.

    Attributes
    ----------
    n_faces : int
        Faces that can be read with labels of the vocabulary.
    counts : dict
        Label column -> word -> faces.
    defects : list of Defect
        Each makes ``pulse-audit validate`` exit with 2.
    warnings, notes : list of str
        Worth knowing, no reason to stop.
    repaired : list of str
        Label files that were repaired; the originals lie beside them as ``.bak``.
    """

    dataset: str
    split: str
    root: str | None = None
    n_faces: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    defects: list[Defect] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is no defect."""
        return not self.defects

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, ``ok`` included."""
        return {"ok": self.ok, **asdict(self)}

    def defect(self, kind: str, where: str, what_to_do: str) -> None:
        """Append a defect."""
        self.defects.append(Defect(kind, where, what_to_do))


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

    Returns
    -------
    ValidationReport

    Raises
    ------
    InputError
        If there is nothing to check: no folder, no label file, wrong columns.
    """
    resolved, notes = resolve_split(card, split)
    root = card.shipped_root or root
    found = scan(card, root, resolved)
    report = ValidationReport(card.name, resolved, notes=list(notes))
    if repair and found.damages:
        report.repaired = [_repair(path, cells) for path, cells in _by_file(found.damages)]
        found = scan(card, root, resolved)
    faces = index(card, root, resolved, found)
    report.root = str(faces.root) if faces.root else None
    report.n_faces, report.counts = len(faces.faces), faces.counts()
    _check_problems(report, found)
    _check_counts(report, faces, subset)
    _check_checksums(report, card, root, subset)
    _check_unlisted(report, root, found.listed, subset)
    _check_photos(report, faces.faces, progress)
    return report


def _by_file(damages: list[Damage]) -> Iterator[tuple[Path, list[Damage]]]:
    for path, cells in groupby(damages, key=lambda damage: damage.path):
        yield path, list(cells)


def _repair(path: Path, damages: list[Damage]) -> str:
    backup = repair_csv(path, damages)
    return f"{path}: {len(damages)} labels restored; the original is {backup.name}"


def _check_problems(report: ValidationReport, found: Scan) -> None:
    for problem in found.problems:
        if problem.fatal:
            report.defect(problem.kind, problem.where, problem.message)
        else:
            report.warnings.append(problem.line())


def _check_counts(report: ValidationReport, faces: FaceIndex, subset: bool) -> None:
    expected = faces.card.expected_for(faces.split)
    if expected is None:
        report.notes.append(f"{faces.card.name}: the size of a complete copy is not known")
        return
    for where, line in _count_lines(len(faces.faces), faces.counts(), expected):
        if subset:
            report.notes.append(f"{where}: {line}")
        elif not expected.confirmed:
            report.warnings.append(f"{where}: {line} (the expected count is unconfirmed)")
        else:
            report.defect("count", where, f"{line}; get a complete copy, or say it is a subset")


def _count_lines(
    n_faces: int, counts: dict[str, dict[str, int]], expected: Expected
) -> Iterator[tuple[str, str]]:
    if n_faces != expected.count:
        cut = ": cut off at 5,000 rows" if n_faces == _CUT < expected.count else ""
        yield "all faces", f"{n_faces:,} where a complete copy has {expected.count:,}{cut}"
        return
    for column, words in expected.groups.items():
        for word, count in words.items():
            here = counts.get(column, {}).get(word, 0)
            if here != count and column in counts:
                yield f"{column} {word}", f"{here:,} where a complete copy has {count:,}"


def _check_checksums(
    report: ValidationReport, card: DatasetCard, root: Path | None, subset: bool
) -> None:
    base = data_folder(card, root) if root else None
    for checksum in card.files if base else ():
        assert base is not None
        for path in (*base.glob(checksum.name), *base.glob(f"*/{checksum.name}")):
            if path.is_file() and not _matches(path, checksum):
                _report_checksum(report, path, checksum, subset)


def _matches(path: Path, checksum: Checksum) -> bool:
    name, digest = ("md5", checksum.md5) if checksum.md5 else ("sha256", checksum.sha256)
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).hexdigest().startswith(digest or "")


def _report_checksum(
    report: ValidationReport, path: Path, checksum: Checksum, subset: bool
) -> None:
    line = f"differs from the file with the published checksum ({checksum.source})"
    if subset:
        report.notes.append(f"{path}: {line}")
    elif checksum.confirmed:
        report.defect("checksum", str(path), f"{line}; get it again")
    else:
        report.warnings.append(f"{path}: {line}, which is unconfirmed")


def _check_unlisted(
    report: ValidationReport, root: Path | None, listed_names: set[str] | None, subset: bool
) -> None:
    if listed_names is None or root is None:
        return
    folders = sorted({name.rpartition("/")[0] for name in listed_names})
    on_disk = {name for folder in folders for name in images_in(root, folder)}
    unlisted = sorted(on_disk - listed_names)
    if not unlisted:
        return
    line = f"{len(unlisted):,} photos that the label file does not list: {listed(unlisted)}"
    if subset:
        report.notes.append(line)
    else:
        report.defect("unlisted", str(root), f"{line}; get the label file that goes with them")


def _check_photos(
    report: ValidationReport, faces: Sequence[Face], progress: Progress | None
) -> None:
    first_with: dict[bytes, Face] = {}
    for done, face in enumerate(faces, start=1):
        _check_photo(report, face, first_with)
        if progress is not None:
            progress(done, len(faces), 0)


def _check_photo(report: ValidationReport, face: Face, first_with: dict[bytes, Face]) -> None:
    try:
        data = face.source.read()
        images.decode(data)
    except FileNotFoundError:
        report.defect("missing_file", face.id, "the photo is missing; restore it from the archive")
        return
    except (OSError, images.UnreadableImage) as error:
        report.defect("unreadable", face.id, f"{error}; restore the photo from the archive")
        return
    twin = first_with.setdefault(hashlib.sha256(data).digest(), face)
    if twin is not face:
        differ = "" if twin.labels == face.labels else ", with other labels"
        line = f"the same photo as {twin.id}{differ}; keep one of them"
        report.defect("duplicate_photo", face.id, line)
