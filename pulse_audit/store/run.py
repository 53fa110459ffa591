"""A run directory: opened, started and locked; its samples, features and references."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pulse_audit.documents import read_json
from pulse_audit.files import atomic_write, remove_leftovers
from pulse_audit.seeding import sha256
from pulse_audit.store.columns import sample_schema
from pulse_audit.store.images import is_whole, lr_path, original_path, output_path
from pulse_audit.store.manifest import AttributesEntry, Manifest, WorkUnit, read_manifest
from pulse_audit.store.shards import read_shard
from pulse_audit.types import InputError

Features = NDArray[np.float32]

#: Files and folders of a run that are written; none of them may be a link.
FOLDERS = (
    ".lock",
    "manifest.json",
    "references.json",
    "summary.json",
    "samples",
    "features",
    "sources",
    "report",
)

#: Most bytes that a file of features unpacks to.
MAX_FEATURES = 2**30
_NO_MODEL = AttributesEntry(vocabulary={})

#: Tables of ``sources/``.
SOURCE_TABLES = ("originals", "prior", "guided", "uninformative")


@dataclass
class Run:
    """One run directory, open for reading; see `open_run` and `create_run`."""

    path: Path
    manifest: Manifest = field(repr=False)

    @property
    def attributes(self) -> list[str]:
        """Label columns of the data set."""
        return list(self.manifest.dataset.vocabulary)

    @property
    def schema(self) -> pa.Schema:
        """Columns of this run's samples."""
        # Label columns, predictions of the attribute model, metrics of plug-ins.
        model = self.manifest.attributes
        predicted = None if model is None else list(model.vocabulary)
        measured = [name for metric in self.manifest.metrics.values() for name in metric.columns]
        return sample_schema(self.attributes, predicted, measured)

    @property
    def features_dim(self) -> int | None:
        """Length of the stored feature vectors, None where the run keeps none."""
        return self.manifest.features.dim

    @property
    def complete(self) -> bool:
        """Whether the run finished and all of its shards are there."""
        return self.manifest.complete and not self.missing_units

    @property
    def missing_units(self) -> list[str]:
        """Work units without a shard."""
        return [u.id for u in self.manifest.units if not self._shard(u.id).exists()]

    def samples(self) -> pd.DataFrame:
        """All rows of the finished units, in the order of the plan.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        # Words that text columns may hold, by column.
        words: dict[str, Sequence[str]] = {
            f"label_{name}": known for name, known in self.manifest.dataset.vocabulary.items()
        }
        for name, known in (self.manifest.attributes or _NO_MODEL).vocabulary.items():
            words |= {f"{side}_{name}{end}": known for side in ("hr", "sr") for end in ("", "_p")}
        tables = [
            read_shard(self._shard(unit.id), unit, self.schema, words) for unit in self._finished()
        ]
        table = pa.concat_tables(tables) if tables else self.schema.empty_table()
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def features(self) -> tuple[Features, dict[str, Features]] | None:
        """Feature vectors of outputs and originals, by the network that the manifest names.

        Returns
        -------
        outputs : array, (rows, d)
            float32, aligned with `samples`; rows of NaN where a draw has no output.
        originals : dict
            Face id -> (d,), one per face; empty until the run is complete.

        None where the run keeps no features.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        dim = self.features_dim
        if dim is None:
            return None
        # (rows, d), one block per finished unit.
        outputs = [np.empty((0, dim), np.float32)]
        for unit in self._finished():
            outputs.append(self._vectors(unit.id, "sr_features", dim)[0])
            if len(outputs[-1]) != len(unit.draws):
                path = self._features(unit.id)
                raise InputError(
                    f"{path}: {len(outputs[-1]):,} vectors for {len(unit.draws):,} draws"
                )
        stacked = np.concatenate(outputs)
        return stacked, self.originals() if self._features("originals").exists() else {}

    def originals(self) -> dict[str, Features]:
        """Feature vectors of the originals by face id; errors as `features`."""
        vectors, arrays = self._vectors("originals", "features", self.features_dim or 0)
        ids = [str(face_id) for face_id in arrays.get("face_ids", np.empty(0, "U1")).ravel()]
        planned = {face.id for face in self.manifest.faces}
        if len(ids) != len(vectors) or len(set(ids)) != len(ids) or not planned.issuperset(ids):
            raise InputError(
                f"{self._features('originals')}: the vectors are not one for each face; "
                "the same `pulse-audit run` command makes it again"
            )
        return dict(zip(ids, vectors, strict=True))

    def _vectors(
        self, shard: str, name: str, dim: int
    ) -> tuple[Features, Mapping[str, NDArray[Any]]]:
        """Feature vectors (n, dim) of a shard, and all of its arrays; nothing is unpickled."""
        path = self._features(shard)
        again = "the same `pulse-audit run` command makes it again"
        try:
            # What the archive unpacks to is checked before it is unpacked.
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > MAX_FEATURES:
                    raise ValueError(f"it unpacks to more than {MAX_FEATURES:,} bytes")
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except Exception as error:  # numpy raises whatever a broken header provokes
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: unreadable features ({reason}); {again}") from None
        vectors = arrays.get(name)
        # A member that is no array comes back as bytes.
        if (
            not isinstance(vectors, np.ndarray)
            or vectors.shape[1:] != (dim,)
            or vectors.dtype.kind != "f"
        ):
            raise InputError(f"{path}: {name} are not vectors of {dim} numbers; {again}")
        if np.isinf(vectors).any():
            raise InputError(f"{path}: {name} hold an infinite number; {again}")
        return vectors.astype(np.float32), arrays

    def source_tables(self) -> dict[str, pd.DataFrame] | None:
        """All tables of ``sources/`` by name; None where ``--sources`` was not finished.

        Raises
        ------
        InputError
            If a table cannot be read.
        """
        paths = {name: self.path / "sources" / f"{name}.parquet" for name in SOURCE_TABLES}
        if not all(path.is_file() for path in paths.values()):
            return None
        tables = {}
        for name, path in paths.items():
            try:
                tables[name] = pd.read_parquet(path)
            except (OSError, ValueError, pa.ArrowException) as error:
                raise InputError(f"{path}: cannot be read ({error})") from None
        return tables

    def _finished(self) -> list[WorkUnit]:
        """Units whose shard exists, in the order of the plan.

        Raises
        ------
        InputError
            If a shard does not match its checksum.
        """
        units = [unit for unit in self.manifest.units if self._shard(unit.id).exists()]
        for unit in units:
            if not self.is_finished(unit.id):
                raise InputError(
                    f"{self._shard(unit.id)}: does not match its checksum; "
                    "the same `pulse-audit run` command makes it again"
                )
        return units

    def is_finished(self, unit: str) -> bool:
        """Whether a unit's shards exist and match their checksums."""
        checksum = self._checksum(unit)
        # Files of a unit, relative to the folder of its checksums.
        names = [f"{unit}.parquet"]
        if self.features_dim is not None:
            names.append(f"../features/{unit}.npz")
        try:
            lines = [line.split() for line in checksum.read_text().splitlines()]
            recorded = {name: digest for digest, name in lines}
            return all(
                recorded.get(name) == sha256((checksum.parent / name).read_bytes())
                for name in names
            )
        except (OSError, ValueError, UnicodeDecodeError):
            return False

    def write_unit(
        self, unit: str, rows: Sequence[Mapping[str, Any]], features: Features | None = None
    ) -> None:
        """Write a unit's rows as one shard, whole or not at all.

        ``features`` are those of its outputs, (rows, d), where the run keeps them.
        """
        # The shard is renamed last: where it exists, features and checksums do.
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        files = {f"{unit}.parquet": sink.getvalue().to_pybytes()}
        if features is not None:
            files[f"../features/{unit}.npz"] = _as_npz(sr_features=features)
            atomic_write(self._features(unit), files[f"../features/{unit}.npz"])
        # One line per file, as sha256sum reads them.
        sums = "".join(f"{sha256(data)}  {name}\n" for name, data in files.items())
        atomic_write(self._checksum(unit), sums.encode())
        atomic_write(self._shard(unit), files[f"{unit}.parquet"])

    def write_originals(self, features: Mapping[str, Features]) -> None:
        """Write the feature vectors of the originals, one a face."""
        ids, vectors = list(features), np.stack(list(features.values()))
        atomic_write(self._features("originals"), _as_npz(face_ids=np.array(ids), features=vectors))

    def write_references(self, content: Mapping[str, Any]) -> None:
        """Write what was fitted on all originals: NIQE's model, the verification threshold."""
        self.write_json("references.json", dict(content))

    def read_references(self) -> dict[str, Any] | None:
        """Read what `write_references` wrote; None where nothing is."""
        path = self.path / "references.json"
        try:
            content = read_json(path)
        except FileNotFoundError:
            return None
        return content if isinstance(content, dict) else {}

    @property
    def has_originals(self) -> bool:
        """Whether the feature vectors of all originals are there and whole."""
        try:
            return len(self.originals()) > 0
        except InputError:
            return False

    def has_images(self, unit: WorkUnit, checked: dict[str, bool]) -> bool:
        """Whether the images that a finished unit kept are there; damaged ones are removed.

        ``checked`` remembers the images of other units, which share originals and inputs.
        """
        if self.manifest.spec.keep_images == "none":
            return True
        try:
            kept = pq.read_table(self._shard(unit.id), columns=["image"])["image"].is_valid()
        except (OSError, pa.ArrowException):
            return False
        names = [
            name
            for (face_id, draw), is_kept in zip(unit.draws, kept.to_pylist(), strict=False)
            for key in [(face_id, unit.condition, unit.scale, draw)]
            for name in (output_path(unit.arm, *key), original_path(face_id), lr_path(*key))
            if is_kept
        ]
        for name in names:
            if name not in checked:
                path = self._image(name)
                checked[name] = is_whole(path)
                # Those that are shared are only written where they are missing.
                if not checked[name]:
                    path.unlink(missing_ok=True)
        return all(checked[name] for name in names)

    def write_manifest(self, **changes: Any) -> None:
        """Change entries of the manifest and write it whole."""
        # Every entry is validated as it is set.
        for name, value in changes.items():
            setattr(self.manifest, name, value)
        self.write_json("manifest.json", self.manifest.as_dict())

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run whole; not-a-number is refused, not written."""
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(self.path / name, (text + "\n").encode())
        return self.path / name

    def write_image(self, relative: str, png: bytes) -> None:
        """Write an image of the run whole, never through a linked folder.

        Raises
        ------
        InputError
            If a folder on the way is a link.
        """
        atomic_write(self._image(relative), png)

    def _image(self, relative: str) -> Path:
        """Place of an image of the run; refused where a folder on the way is a link."""
        refuse_links(self.path, [str(parent) for parent in Path(relative).parents if parent.name])
        return self.path / relative

    def _shard(self, unit: str) -> Path:
        return self.path / "samples" / f"{unit}.parquet"

    def _features(self, unit: str) -> Path:
        return self.path / "features" / f"{unit}.npz"

    def _checksum(self, unit: str) -> Path:
        return self.path / "samples" / f"{unit}.sha256"


def _as_npz(**arrays: NDArray[Any]) -> bytes:
    sink = io.BytesIO()
    np.savez(sink, **arrays)  # type: ignore[arg-type]
    return sink.getvalue()


def open_run(path: Path | str) -> Run:
    """Open a run directory for reading.

    Raises
    ------
    InputError
        If there is no readable manifest of a known version, or a folder of the run is a link.
    """
    path = Path(path)
    refuse_links(path)
    return Run(path, read_manifest(path))


def create_run(path: Path, manifest: Manifest) -> Run:
    """Start a run directory by writing its manifest.

    Raises
    ------
    InputError
        If the directory holds something else.
    """
    _refuse_others(path)
    run = Run(path, manifest)
    run.write_manifest()
    return run


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a run directory for writing; make it, and remove what a killed writer left.

    A directory that was made here and stayed empty is removed again.

    Raises
    ------
    InputError
        If it is something else than a run or an empty directory, cannot be written, or another
        process holds it.
    """
    # Nothing is written to a directory before it is known to be ours.
    refuse_links(path)
    if (path / "manifest.json").exists():
        read_manifest(path)
    elif path.exists():
        _refuse_others(path)

    created = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Never through a link, and never truncated: the name could be any file of the user's.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(path / ".lock", flags, 0o666)
    except OSError as error:
        reason = "is a link" if error.errno == errno.ELOOP else error.strerror
        raise InputError(f"{path}: cannot be written (.lock: {reason})") from None
    try:
        # One writer at a time; the kernel drops the lock when the process ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing this run") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be locked ({error.strerror})") from None
        remove_leftovers(path)
        yield
    finally:
        # A directory that holds the lock and nothing else is not in use.
        with contextlib.suppress(OSError):
            if created and [entry.name for entry in path.iterdir()] == [".lock"]:
                (path / ".lock").unlink()
                path.rmdir()
        os.close(lock)


def refuse_links(path: Path, names: Sequence[str] = FOLDERS) -> None:
    """Refuse a run in which a folder that is read or written is a link to another place.

    Raises
    ------
    InputError
        Naming the link.
    """
    for name in names:
        if (path / name).is_symlink():
            raise InputError(f"{path / name}: is a link; a run directory holds its own files")


def _refuse_others(path: Path) -> None:
    """Refuse a directory that holds files of others; hidden ones do not count."""
    try:
        others = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path}: not a directory that can be read ({error.strerror})") from None
    if others:
        raise InputError(
            f"{path}: not a run directory and not empty ({others[0]}); choose another --out"
        )
