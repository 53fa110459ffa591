"""The run directory: manifest, shards, checksums, resume.

A run directory holds ``manifest.json`` (what was planned, with what, and how it ended),
``samples/<unit>.parquet`` (one shard a work unit, each beside its ``.sha256``), ``images/`` and
what is rendered from them. Every file is written whole or not at all: to a temporary name first,
flushed to disk, then renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

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


#: Labels that attribute models predict from a face.
PREDICTABLE = ("race", "gender", "age")


def sample_schema(attributes: Sequence[str]) -> pa.Schema:
    """Columns of a shard whose data set labels ``attributes`` (docs: one row a draw)."""
    labelled = [(f"label_{a}", _TEXT) for a in attributes]
    predicted = [
        (f"{side}_{a}{suffix}", kind)
        for a in PREDICTABLE
        if a in attributes
        for side in ("hr", "sr")
        for suffix, kind in (("", _TEXT), ("_p", pa.list_(pa.float64())))
    ]
    return pa.schema([*COLUMNS.items(), *labelled, *predicted])


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

    def samples(self) -> pd.DataFrame:
        """All rows of the finished units, in the order of the plan.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        finished = [u["id"] for u in self.manifest["units"] if self._shard(u["id"]).exists()]
        broken = [unit for unit in finished if not self.is_finished(unit)]
        if broken:
            raise InputError(
                f"{self._shard(broken[0])}: does not match its checksum; "
                "the same `pulse-audit run` command makes it anew"
            )
        schema = sample_schema(self.attributes)
        tables = [pq.read_table(self._shard(unit)).cast(schema) for unit in finished]
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def is_finished(self, unit: str) -> bool:
        """Whether a unit's shard is there and matches its checksum."""
        shard, checksum = self._shard(unit), self._checksum(unit)
        try:
            return checksum.read_text().split()[0] == sha256(shard.read_bytes())
        except (OSError, IndexError, UnicodeDecodeError):
            return False

    @property
    def complete(self) -> bool:
        """Whether the run finished."""
        return bool(self.manifest["status"] == "complete")

    def write_unit(self, unit: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a unit's rows as one shard, whole or not at all; the shard's name comes last."""
        table = pa.Table.from_pylist(list(rows), schema=sample_schema(self.attributes))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        shard = self._shard(unit)
        write_whole(self._checksum(unit), f"{sha256(data)}  {shard.name}\n".encode())
        write_whole(shard, data)

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

    def _checksum(self, unit: str) -> Path:
        return self.path / "samples" / f"{unit}.sha256"


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
