"""The tables of ``sources/`` in the making: pieces of work, and what of them is on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pulse_audit.faces.attributes import Column
from pulse_audit.files import atomic_write
from pulse_audit.harness.sources_models import SourceModels
from pulse_audit.seeding import hexdigest
from pulse_audit.store import SOURCE_TABLES

Row = dict[str, Any]

_FLOAT, _TEXT, _FLAG, _WHOLE = pa.float64(), pa.string(), pa.bool_(), pa.int64()
_TONE = {"lightness": _FLOAT, "ita": _FLOAT}
_SEARCHED = {
    "arm": _TEXT,
    "condition": _TEXT,
    "scale": _WHOLE,
    "draw": _WHOLE,
    "seed": _WHOLE,
    "feasible": _FLAG,
    "downscale_error": _FLOAT,
}
_OWN: Mapping[str, Mapping[str, pa.DataType]] = {
    "originals": {"face_id": _TEXT},
    "prior": {"arm": _TEXT, "index": _WHOLE, "seed": _WHOLE, "drawn": _TEXT, **_TONE},
    "guided": {
        "face_id": _TEXT,
        **_SEARCHED,
        "shown": _FLAG,
        "steps": _WHOLE,
        "weight": _FLOAT,
        "seconds": _FLOAT,
        "image": _TEXT,
    },
    "uninformative": {
        **_SEARCHED,
        "kind": _TEXT,
        "about": _TEXT,
        "input": _TEXT,
        "status": _TEXT,
        **_TONE,
    },
}


@dataclass(frozen=True)
class Piece:
    """A piece of work: its table, its name within it, what it counts for, and how it is done."""

    table: str
    name: str
    size: int
    make: Callable[[], list[Row]] = field(repr=False)


def schemas(models: SourceModels) -> dict[str, pa.Schema]:
    """Columns of the four tables."""

    def seen(side: str, columns: Sequence[Column]) -> dict[str, pa.DataType]:
        words = {f"{side}_{column.name}": _TEXT for column in columns}
        return words | {f"{name}_p": pa.list_(_FLOAT) for name in words}

    hr, sr = seen("hr", models.columns), seen("sr", models.columns)
    check = seen("check", models.check_columns)
    also = {"originals": hr | check, "prior": sr, "guided": sr | check, "uninformative": sr}
    return {name: pa.schema([*{**_OWN[name], **also[name]}.items()]) for name in SOURCE_TABLES}


@dataclass(frozen=True)
class Parts:
    """Finished pieces on disk, each written whole."""

    folder: Path
    key: str
    schemas: Mapping[str, pa.Schema]

    def path(self, piece: Piece) -> Path:
        """Return where a piece is, once it is finished."""
        return self.folder / f"{self.key}-{piece.table}-{hexdigest(piece.name)[:16]}.parquet"

    def write(self, piece: Piece, rows: Sequence[Row]) -> None:
        """Write a finished piece."""
        table = pa.Table.from_pylist(list(rows), schema=self.schemas[piece.table])
        atomic_write(self.path(piece), _encoded(table))

    def joined(self, pieces: Iterator[Piece]) -> bytes:
        """Return the pieces as one table."""
        return _encoded(pa.concat_tables(pq.read_table(self.path(piece)) for piece in pieces))


def _encoded(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data
