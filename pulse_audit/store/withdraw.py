"""A run without the faces whose consent was withdrawn.

The run is made again beside itself, and takes its own place when it is whole: whoever interrupts
it finds the old run or the new one. What a killed withdrawal left is finished by the next.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pulse_audit.documents import read_file
from pulse_audit.files import atomic_write
from pulse_audit.store.columns import SOURCE_COLUMNS
from pulse_audit.store.directory import create_run, locked
from pulse_audit.store.hand_labels import HandLabels
from pulse_audit.store.images import lr_path, original_path
from pulse_audit.store.manifest import Manifest, SkippedEntry, WorkUnit, check_manifest
from pulse_audit.store.run import Run
from pulse_audit.store.shards import as_parquet
from pulse_audit.types import InputError

#: Largest list of ids that is read, in bytes.
MAX_IDS = 2**26
# Why a face was left out whose photo is another's too: `pulse_audit.datasets.balance`.
_COPY = re.compile("the same photo as (.+?)(?:, with other labels)?", re.DOTALL)


def read_ids(path: Path) -> set[str]:
    """Read face ids, one a line; empty lines do not count.

    Raises
    ------
    InputError
        If the file cannot be read, is no UTF-8 text, or names no face.
    """
    try:
        # A spreadsheet puts a byte order mark first.
        lines = read_file(path, MAX_IDS).decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise InputError(f"--ids {path}: there is no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"--ids {path}: is not UTF-8 text, one face id a line") from None
    ids = {line.strip() for line in lines if line.strip()}
    if not ids:
        raise InputError(f"--ids {path}: names no face; write one face id a line")
    return ids


@contextlib.contextmanager
def withdrawn(path: Path, ids: Collection[str]) -> Iterator[Run]:
    """Make a run again without some faces, and put it into its place.

    Parameters
    ----------
    path : Path
        Of the run; locked meanwhile.
    ids : collection of str
        Faces to drop, of the sample or donors of a planted arm, or folders of them: their rows,
        features, images and labels, draws that returned their photo, and faces with the same photo.

    Yields
    ------
    Run
        The new run in a folder beside the old one, without summary and report. It takes the place
        of the old one when the context ends without an error; else nothing has changed.

    Raises
    ------
    InputError
        If a face is not of the run (after a killed withdrawal it may be gone already), none would
        be left, the run cannot be read, or the old one cannot be removed.
    """
    target = path.resolve()
    resumed = _put_in_place(target)
    with locked(path, make=False) as run:
        assert run is not None
        resumed |= _remove_leftovers(target)
        known = {face.id for face in run.manifest.faces}
        every = known | {face.id for face in run.manifest.skipped} | _donors(run)
        ids = _with_copies(_faces_named(ids, every, strict=not resumed), run.manifest.skipped)
        if known <= ids:
            raise InputError(f"{path}: no face would be left; delete the folder instead")
        staging = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
        try:
            yield _copy_without(run, ids, staging / "run")
            # The old run leaves, the new one comes; both are renamed within one folder.
            os.rename(target, staging / "old")
            os.rename(staging / "run", target)
        finally:
            # Interrupted between the two, the old run comes back.
            if not os.path.lexists(target):
                os.rename(staging / "old", target)
            _remove(staging)


def _prefix(target: Path) -> str:
    """First letters of the folders, beside a run, in which it is made again."""
    return f".{target.name}-withdraw-"


def _leftovers(target: Path) -> list[Path]:
    """Folders beside a run that killed withdrawals left."""
    # After the prefix come the eight letters of `tempfile.mkdtemp`.
    ours = re.compile(re.escape(_prefix(target)) + "[a-z0-9_]{8}")
    beside = sorted(target.parent.iterdir()) if target.parent.is_dir() else []
    return [
        each
        for each in beside
        if ours.fullmatch(each.name) and each.is_dir() and not each.is_symlink()
    ]


def _put_in_place(target: Path) -> bool:
    """Finish a withdrawal that was killed when the old run had left and the new one not come."""
    for staging in _leftovers(target):
        old, new = staging / "old", staging / "run"
        if os.path.lexists(target) or not old.is_dir() or not new.is_dir():
            continue
        # The lock has left with the old run: whoever holds it is still at work.
        with locked(old, make=False):
            os.rename(new, target)
        return True
    return False


def _remove_leftovers(target: Path) -> bool:
    """Remove what killed withdrawals left; whether one had put the new run into its place."""
    folders = _leftovers(target)
    resumed = any((staging / "old").exists() for staging in folders)
    for staging in folders:
        _remove(staging)
    return resumed


def _remove(staging: Path) -> None:
    """Remove a folder that holds a run; InputError if some of it stays."""
    shutil.rmtree(staging, ignore_errors=True)
    if staging.exists():
        raise InputError(f"{staging}: holds withdrawn faces and cannot be removed; delete it")


def _faces_named(ids: Collection[str], known: set[str], strict: bool = True) -> set[str]:
    """Return faces by their ids, or by a folder of them: all photos of a person.

    Names that are unknown raise InputError where ``strict``, and else are passed over.
    """
    named, unknown = set[str](), list[str]()
    for name in sorted(ids):
        below = {face for face in known if face == name or face.startswith(f"{name.rstrip('/')}/")}
        named |= below
        if not below:
            unknown.append(name)
    if unknown and strict:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise InputError(f"the run has no face {unknown[0]!r}{more}; see its manifest.json")
    return named


def _with_copies(ids: set[str], skipped: Sequence[SkippedEntry]) -> set[str]:
    """Add the faces with the photo of one of them, which was left out for being there twice."""
    pairs = [{face.id, match[1]} for face in skipped if (match := _COPY.fullmatch(face.reason))]
    # Three faces of a photo are two pairs.
    while more := {name for pair in pairs if pair & ids for name in pair} - ids:
        ids = ids | more
    return ids


def _donors(run: Run) -> set[str]:
    """Faces whose photos a planted arm returned; they are not among those of the sample."""
    missing = {*run.missing_units}
    return {
        donor
        for unit in run.manifest.units
        if run.manifest.arms[unit.arm].kind == "planted" and unit.id not in missing
        for donor in run.rows_of(unit)["planted_from"].to_pylist()
        if donor is not None
    }


def _copy_without(run: Run, ids: set[str], target: Path) -> Run:
    """Write the run without these faces into a new folder."""
    # Rows that stay: of other faces, and not the photo of a withdrawn one.
    tables, units, missing = {}, list[WorkUnit](), {*run.missing_units}
    for unit in run.manifest.units:
        kept = np.array([face_id not in ids for face_id, _ in unit.draws], dtype=bool)
        if unit.id not in missing:
            rows = run.rows_of(unit)
            donors = rows["planted_from"].to_pylist()
            kept &= np.array([donor not in ids for donor in donors], dtype=bool)
            tables[unit.id] = (rows, kept)
        draws = [draw for draw, stays in zip(unit.draws, kept, strict=True) if stays]
        if draws:
            units.append(unit.model_copy(update={"draws": draws}))
    features = run.features()

    # The manifest: no id, label or checksum of a withdrawn face is left in it.
    content = run.manifest.as_dict()
    content["faces"] = [face for face in content["faces"] if face["id"] not in ids]
    content["skipped"] = [face for face in content.get("skipped", []) if face["id"] not in ids]
    content["units"] = [unit.as_dict() for unit in units]
    if ids:
        content["notes"] = [
            *content.get("notes", []),
            f"{len(ids)} faces were withdrawn and dropped; what was fitted on all originals before "
            "(references.json) is kept",
        ]
    manifest = check_manifest(content)
    target.mkdir()
    new = create_run(target, manifest)

    # Samples, features, originals.
    offset = 0
    for unit in run.manifest.units:
        if unit.id not in tables:
            continue
        rows, kept = tables[unit.id]
        block = None if features is None else features[0][offset : offset + len(kept)][kept]
        offset += len(kept)
        if kept.any():
            new.write_unit(unit.id, rows.filter(pa.array(kept)).to_pylist(), block)
    if features is not None and features[1]:
        new.write_originals({i: v for i, v in features[1].items() if i not in ids})
    _copy_others(run, new, ids, manifest)
    return new


def _copy_others(run: Run, new: Run, ids: set[str], manifest: Manifest) -> None:
    """Copy references, people's labels, what ``sources/`` holds and the images of what stays."""
    if (references := run.read_references()) is not None:
        new.write_references(references)
    if (priors := run.read_priors()) is not None:
        new.write_priors(priors)
    outputs = manifest.planned_outputs
    if (stored := run.read_hand_labels()) is not None:
        labels = {image: words for image, words in stored.labels.items() if image in outputs}
        new.write_hand_labels(HandLabels.make(stored.file, stored.file_sha256, labels))
    # Rating kits show faces: none is kept.
    if (ratings := run.read_ratings()) is not None:
        new.write_ratings(ratings.within(manifest))
    names = {*outputs, *(original_path(face.id) for face in manifest.faces)}
    for name, frame in (run.source_tables() or {}).items():
        table = pq.read_table(run.path / "sources" / f"{name}.parquet")
        assert name in SOURCE_COLUMNS and len(table) == len(frame)
        if "face_id" in table.column_names:
            gone = pa.array(sorted(ids), pa.string())
            table = table.filter(pc.invert(pc.is_in(table["face_id"].cast(pa.string()), gone)))
        if "image" in table.column_names:
            names |= {image for image in table["image"].to_pylist() if image is not None}
        atomic_write(new.path / "sources" / f"{name}.parquet", as_parquet(table))
    for unit in manifest.units:
        names |= {lr_path(i, unit.condition, unit.scale, draw) for i, draw in unit.draws}
    for name in sorted(names):
        source = run.path / name
        if source.is_file() and not source.is_symlink():
            new.write_image(name, source.read_bytes())
