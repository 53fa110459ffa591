"""Reading a shard of samples; a foreign one is not trusted, whatever its checksum says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pulse_audit.store.columns import conform
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.types import InputError, Status

#: Metrics that are infinite where two images are identical.
MAY_BE_INFINITE = ("psnr",)
_STATUSES = pa.array([status.value for status in Status])


def read_shard(
    path: Path, unit: WorkUnit, schema: pa.Schema, words: Mapping[str, Sequence[str]]
) -> pa.Table:
    """Read the rows of a work unit, and check that they are those that were planned.

    Parameters
    ----------
    path : Path
    unit : WorkUnit
        Whose draws the rows are, in this order.
    schema : pa.Schema
        Columns of the run; those that the shard lacks are null.
    words : mapping of str to sequence of str
        Vocabulary of each text column that has one; ``_p`` columns hold a number for each word.

    Raises
    ------
    InputError
        Naming the file and the first column at fault.
    """
    try:
        with pq.ParquetFile(path) as file:
            # The number of rows and the types are checked before any of it is decoded.
            if file.metadata.num_rows != len(unit.draws):
                rows = f"{file.metadata.num_rows:,} rows for {len(unit.draws):,} draws"
                raise _damaged(path, f"holds {rows}")
            columns = file.schema_arrow
            names = [name for name in columns.names if name in schema.names]
            for name in names:
                kind = schema.field(name).type
                if names.count(name) > 1 or columns.field(name).type not in (kind, pa.null()):
                    raise _damaged(path, f"column {name!r} is not one column of type {kind}")
            # Shards of an older version lack columns; they are null.
            table = conform(file.read(columns=names), schema)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise _damaged(path, f"cannot be read ({str(error)[:200]})") from None

    # The keys: the unit's draws, in order.
    planned = {
        "face_id": [face_id for face_id, _ in unit.draws],
        "draw": [draw for _, draw in unit.draws],
        "arm": [unit.arm] * len(unit.draws),
        "condition": [unit.condition] * len(unit.draws),
        "scale": [unit.scale] * len(unit.draws),
    }
    for name, values in planned.items():
        if table[name].to_pylist() != values:
            raise _damaged(path, f"column {name!r} is not that of the manifest")
    if not pc.all(pc.is_in(table["status"], value_set=_STATUSES)).as_py():
        raise _damaged(path, "column 'status' holds an unknown status")

    # The values: finite or null, and words of the vocabulary.
    for field in schema:
        column = table[field.name]
        numbers = pc.list_flatten(column) if pa.types.is_list(field.type) else column
        if (
            pa.types.is_floating(numbers.type)
            and not field.name.startswith(MAY_BE_INFINITE)
            and pc.any(pc.is_inf(numbers)).as_py()
        ):
            raise _damaged(path, f"column {field.name!r} holds an infinite number")
        if field.name in words and pa.types.is_string(field.type):
            known = pa.array([*words[field.name], None], pa.string())
            if not pc.all(pc.is_in(column, value_set=known)).as_py():
                raise _damaged(path, f"column {field.name!r} holds a word that is no label")
        elif field.name in words:
            lengths = pc.unique(pc.list_value_length(column)).to_pylist()
            if not set(lengths) <= {None, len(words[field.name])}:
                raise _damaged(path, f"column {field.name!r} has not one number for each label")
    return table


def _damaged(path: Path, problem: str) -> InputError:
    """Return the error about a shard that cannot be used."""
    return InputError(
        f"{path}: {problem}; delete it, and the same `pulse-audit run` command makes it again"
    )
