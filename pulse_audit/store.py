"""The run directory: manifest, shards, checksums, resume.

A run directory holds ``manifest.json`` (what was planned, with what, and how it ended),
``samples/<unit>.parquet`` (one shard a work unit, each beside its ``.sha256``),
``features/<unit>.npz`` and ``features/originals.npz`` where an attribute model gives features,
``images/`` and what is rendered from them. Every file is written whole or not at all: to a
temporary name first, flushed to disk, then renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import re
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

from pulse_audit.files import write_whole
from pulse_audit.seeding import hexdigest, sha256
from pulse_audit.types import InputError

SCHEMA_VERSION = 1

_FLOAT, _TEXT, _FLAG, _WHOLE = pa.float64(), pa.string(), pa.bool_(), pa.int64()
COLUMNS: Mapping[str, pa.DataType] = {
    "face_id": _TEXT,
    "dataset": _TEXT,
    "arm": _TEXT,
    "condition": _TEXT,
    "scale": _WHOLE,
    "draw": _WHOLE,
    "seed": _WHOLE,
    "status": _TEXT,
    "feasible": _FLAG,
    "downscale_error": _FLOAT,
    "steps": _WHOLE,
    "seconds": _FLOAT,
    "image": _TEXT,
    "psnr": _FLOAT,
    "ssim": _FLOAT,
    "ms_ssim": _FLOAT,
    "lpips": _FLOAT,
    "niqe": _FLOAT,
    "sharpness": _FLOAT,
    "attribute_cosine": _FLOAT,
    "identity_cosine": _FLOAT,
    "verified": _FLAG,
    "hr_aligned": _FLAG,
    "hr_face_found": _FLAG,
    "sr_face_found": _FLAG,
    "hr_ita": _FLOAT,
    "sr_ita": _FLOAT,
    "hr_hue": _FLOAT,
    "sr_hue": _FLOAT,
    "hr_lightness": _FLOAT,
    "sr_lightness": _FLOAT,
    "hr_monk": _WHOLE,
    "sr_monk": _WHOLE,
    "reason": _TEXT,
}


#: Labels that attribute models predict from a face: their columns are there even where no model is.
PREDICTABLE = ("race", "gender", "age")

#: Names that become columns or files of a run; a foreign manifest may say anything.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ .-]{0,79}")

Features = NDArray[np.float32]


def sample_schema(
    labelled: Sequence[str], predicted: Sequence[str] | None = None, metrics: Sequence[str] = ()
) -> pa.Schema:
    """Columns of a shard (docs: one row a draw).

    Parameters
    ----------
    labelled : sequence of str
        Label columns of the data set.
    predicted : sequence of str, optional
        What the run's attribute model predicts; None: no model, so empty columns for those of
        the labels that a model could predict.
    metrics : sequence of str
        Metrics beside those of the contract.
    """
    if predicted is None:
        predicted = [a for a in PREDICTABLE if a in labelled]
    labels = [(f"label_{a}", _TEXT) for a in labelled]
    predictions = [
        (f"{side}_{a}{suffix}", kind)
        for a in predicted
        for side in ("hr", "sr")
        for suffix, kind in (("", _TEXT), ("_p", pa.list_(pa.float64())))
    ]
    further = [(name, _FLOAT) for name in metrics if name not in COLUMNS]
    return pa.schema([*COLUMNS.items(), *further, *labels, *predictions])


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a shard the columns of this version: what an older one did not write is null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _slug(text: str) -> str:
    """File-name form of an id: readable, harmless, and distinct for distinct ids."""
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', text).strip('._')[:60]}-{hexdigest(text)[:8]}"


def original_path(face_id: str) -> str:
    """Where the prepared original of a face is kept, relative to the run."""
    return f"images/original/{_slug(face_id)}.png"


def lr_path(face_id: str, condition: str, scale: int, draw: int) -> str:
    """Where a low-resolution input is kept, relative to the run."""
    return f"images/lr/{_slug(condition)}/x{scale}/{_slug(face_id)}_{draw}.png"


def output_path(arm: str, face_id: str, condition: str, scale: int, draw: int) -> str:
    """Where an output is kept, relative to the run."""
    return f"images/{_slug(arm)}/{_slug(condition)}/x{scale}/{_slug(face_id)}_{draw}.png"


@dataclass
class Run:
    """One run directory, open for reading; see :func:`open_run` and :func:`create_run`."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def attributes(self) -> list[str]:
        """Label columns of the data set."""
        return list(self.manifest["dataset"]["vocabulary"])

    @property
    def schema(self) -> pa.Schema:
        """Columns of this run's samples."""
        model = self.manifest.get("attributes")
        predicted = list(model["vocabulary"]) if model else None
        metrics = self.manifest.get("metrics") or {}
        measured = [column for settings in metrics.values() for column in settings["columns"]]
        return sample_schema(self.attributes, predicted, measured)

    @property
    def features_dim(self) -> int | None:
        """Length of the stored feature vectors, None where the run keeps none."""
        kept = self.manifest.get("features")
        return int(kept["dim"]) if kept and kept.get("dim") else None

    def samples(self) -> pd.DataFrame:
        """All rows of the finished units, in the order of the plan.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        finished = self._finished()
        tables = [_conform(pq.read_table(self._shard(unit)), self.schema) for unit in finished]
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
            Face id -> (d,), one a face; empty until the run is complete.

        None where the run keeps no features.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        dim = self.features_dim
        if dim is None:
            return None
        shards = [self._read_arrays(self._features(unit)) for unit in self._finished()]
        outputs = [self._checked(shard, "sr_features", dim) for shard in shards]
        stacked = np.concatenate([np.empty((0, dim), np.float32), *outputs])
        if not self._features("originals").exists():
            return stacked, {}
        kept = self._read_arrays(self._features("originals"))
        vectors = self._checked(kept, "features", dim)
        ids = [str(face_id) for face_id in kept.get("face_ids", np.empty(0, "U1"))]
        return stacked, dict(zip(ids, vectors, strict=False))

    def _finished(self) -> list[str]:
        """Units whose shard is there, in the order of the plan; raises where one is damaged."""
        there = [u["id"] for u in self.manifest["units"] if self._shard(u["id"]).exists()]
        for unit in there:
            if not self.is_finished(unit):
                raise InputError(
                    f"{self._shard(unit)}: does not match its checksum; "
                    "the same `pulse-audit run` command makes it anew"
                )
        return there

    def _read_arrays(self, path: Path) -> dict[str, NDArray[Any]]:
        """Read an .npz of the run; nothing in it is unpickled."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: unreadable features ({error})") from None

    def _checked(self, shard: Mapping[str, NDArray[Any]], name: str, dim: int) -> Features:
        """Take an array of feature vectors out of a shard, or refuse the shard."""
        found = shard.get(name)
        if found is None or found.ndim != 2 or found.shape[1] != dim or found.dtype.kind != "f":
            raise InputError(f"{self.path / 'features'}: {name} are not vectors of {dim} numbers")
        return found.astype(np.float32)

    def is_finished(self, unit: str) -> bool:
        """Whether a unit's shards are there and match their checksums."""
        checksum = self._checksum(unit)
        try:
            lines = [line.split() for line in checksum.read_text().splitlines()]
            recorded = {name: digest for digest, name in lines}
            return all(
                recorded.get(name) == sha256((checksum.parent / name).read_bytes())
                for name in self._shards(unit)
            )
        except (OSError, ValueError, UnicodeDecodeError):
            return False

    @property
    def complete(self) -> bool:
        """Whether the run finished."""
        return bool(self.manifest["status"] == "complete")

    def write_unit(
        self, unit: str, rows: Sequence[Mapping[str, Any]], features: Features | None = None
    ) -> None:
        """Write a unit's rows as one shard, whole or not at all; the shard's name comes last.

        ``features`` are those of its outputs, (rows, d), where the run keeps them.
        """
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        files = {f"{unit}.parquet": sink.getvalue().to_pybytes()}
        if features is not None:
            files[f"../features/{unit}.npz"] = _as_npz(sr_features=features)
            write_whole(self._features(unit), files[f"../features/{unit}.npz"])
        sums = "".join(f"{sha256(data)}  {name}\n" for name, data in files.items())
        write_whole(self._checksum(unit), sums.encode())
        write_whole(self._shard(unit), files[f"{unit}.parquet"])

    def write_originals(self, features: Mapping[str, Features]) -> None:
        """Write the feature vectors of the originals, one a face."""
        ids, vectors = list(features), np.stack(list(features.values()))
        write_whole(self._features("originals"), _as_npz(face_ids=np.array(ids), features=vectors))

    def write_references(self, content: Mapping[str, Any]) -> None:
        """Write what outputs are judged by, taken from all originals."""
        self.write_json("references.json", dict(content))

    def read_references(self) -> dict[str, Any] | None:
        """Read what `write_references` wrote; None where nothing is."""
        path = self.path / "references.json"
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: unreadable ({error}); choose another --out") from None
        return content if isinstance(content, dict) else {}

    @property
    def has_originals(self) -> bool:
        """Whether the feature vectors of the originals are written."""
        return self._features("originals").exists()

    def write_manifest(self, **changes: Any) -> None:
        """Change entries of the manifest and write it whole."""
        self.manifest.update(changes)
        self.write_json("manifest.json", self.manifest)

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run whole; not-a-number is refused, not written."""
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(self.path / name, (text + "\n").encode())
        return self.path / name

    def write_image(self, relative: str, png: bytes) -> None:
        """Write an image of the run whole."""
        write_whole(self.path / relative, png)

    def _shard(self, unit: str) -> Path:
        return self.path / "samples" / f"{unit}.parquet"

    def _features(self, unit: str) -> Path:
        return self.path / "features" / f"{unit}.npz"

    def _shards(self, unit: str) -> list[str]:
        """Files of a unit, relative to the folder of its checksums."""
        kept = [] if self.features_dim is None else [f"../features/{unit}.npz"]
        return [f"{unit}.parquet", *kept]

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
        If there is no readable manifest of a known version.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: not a run directory (no manifest.json)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path / 'manifest.json'}: unreadable ({error})") from None
    _check_manifest(path, manifest)
    return Run(path, manifest)


def _check_manifest(path: Path, manifest: Any) -> None:
    """Refuse what no version of this program wrote; a foreign manifest is not trusted."""
    where = path / "manifest.json"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
        raise InputError(f"{where}: not a manifest of pulse-audit")
    if manifest["schema"] != SCHEMA_VERSION:
        raise InputError(
            f"{where}: schema {manifest['schema']}, this version reads {SCHEMA_VERSION}"
        )
    expected = {"spec": dict, "dataset": dict, "arms": dict, "units": list, "faces": list}
    for key, kind in expected.items():
        if not isinstance(manifest.get(key), kind):
            raise InputError(f"{where}: entry {key!r} is missing or damaged")
    if not isinstance(manifest["dataset"].get("vocabulary"), dict):
        raise InputError(f"{where}: entry 'dataset.vocabulary' is missing or damaged")
    for unit in manifest["units"]:
        if not re.fullmatch(r"[a-z0-9-]{1,40}", str(unit.get("id", ""))):
            raise InputError(f"{where}: unit id {unit.get('id')!r} is not one of ours")
    _check_measured(where, manifest)


def _check_measured(where: Path, manifest: Mapping[str, Any]) -> None:
    """Check the entries that columns of the samples are made from."""
    model = manifest.get("attributes")
    words = {} if model is None else model.get("vocabulary") if isinstance(model, dict) else None
    metrics = manifest.get("metrics", {})
    filled = (
        [m.get("columns") if isinstance(m, dict) else None for m in metrics.values()]
        if isinstance(metrics, dict)
        else [None]
    )
    kept = manifest.get("features") or {}
    dim = kept.get("dim") if isinstance(kept, dict) else 0
    for key, sound in (
        (
            "attributes",
            isinstance(words, dict) and all(isinstance(w, list) for w in words.values()),
        ),
        ("metrics", all(isinstance(names, list) for names in filled)),
        ("features", dim is None or (isinstance(dim, int) and dim > 0)),
    ):
        if not sound:
            raise InputError(f"{where}: entry {key!r} is damaged")
    for name in (*(words or ()), *(name for names in filled for name in names or ())):
        if not _NAME.fullmatch(str(name)):
            raise InputError(f"{where}: {name!r} is no name of an attribute or metric of ours")


def create_run(path: Path, manifest: dict[str, Any]) -> Run:
    """Start a run directory by writing its manifest.

    Raises
    ------
    InputError
        If the directory holds something else.
    """
    strangers = [p.name for p in path.iterdir() if not p.name.startswith(".")]
    if strangers:
        raise InputError(
            f"{path}: not a run directory and not empty ({strangers[0]}); choose another --out"
        )
    run = Run(path, manifest)
    run.write_manifest()
    return run


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run directory for writing; makes it, and sweeps what a killed writer left.

    Raises
    ------
    InputError
        If it cannot be written, or another process holds it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing this run") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be locked ({error.strerror})") from None
        for leftover in path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        yield
