"""A run directory that is open: its samples, features and references, read and written."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pulse_audit.files import atomic_write
from pulse_audit.seeding import sha256
from pulse_audit.store.columns import conform, sample_schema
from pulse_audit.store.manifest import Manifest
from pulse_audit.types import InputError

Features = NDArray[np.float32]


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
        model = self.manifest.attributes
        predicted = None if model is None else list(model.vocabulary)
        measured = [name for metric in self.manifest.metrics.values() for name in metric.columns]
        return sample_schema(self.attributes, predicted, measured)

    @property
    def features_dim(self) -> int | None:
        """Length of the stored feature vectors, None where the run keeps none."""
        return self.manifest.features.dim

    def samples(self) -> pd.DataFrame:
        """All rows of the finished units, in the order of the plan.

        Raises
        ------
        InputError
            If a shard does not match its checksum or cannot be read.
        """
        finished = self._finished()
        tables = [conform(pq.read_table(self._shard(unit)), self.schema) for unit in finished]
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
        there = [u.id for u in self.manifest.units if self._shard(u.id).exists()]
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
        return self.manifest.complete

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
            atomic_write(self._features(unit), files[f"../features/{unit}.npz"])
        sums = "".join(f"{sha256(data)}  {name}\n" for name, data in files.items())
        atomic_write(self._checksum(unit), sums.encode())
        atomic_write(self._shard(unit), files[f"{unit}.parquet"])

    def write_originals(self, features: Mapping[str, Features]) -> None:
        """Write the feature vectors of the originals, one a face."""
        ids, vectors = list(features), np.stack(list(features.values()))
        atomic_write(self._features("originals"), _as_npz(face_ids=np.array(ids), features=vectors))

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
        for name, value in changes.items():
            setattr(self.manifest, name, value)
        self.write_json("manifest.json", self.manifest.as_dict())

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run whole; not-a-number is refused, not written."""
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
        atomic_write(self.path / name, (text + "\n").encode())
        return self.path / name

    def write_image(self, relative: str, png: bytes) -> None:
        """Write an image of the run whole."""
        atomic_write(self.path / relative, png)

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
