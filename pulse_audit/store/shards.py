"""Reading shards of samples and the tables of ``sources/``; foreign ones are not trusted.

A checksum says that a file was not damaged, and nothing of who made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pulse_audit.documents import read_file
from pulse_audit.store.columns import SEARCHES, SOURCE_COLUMNS, conform, source_schema
from pulse_audit.store.manifest import Manifest, WorkUnit
from pulse_audit.store.parquet import MAX_FILE, check_texts, open_parquet, plain_text
from pulse_audit.types import InputError, Status

#: Metrics that are infinite where two images are identical.
MAY_BE_INFINITE = ("psnr",)
#: Largest number of a column: sums of squares of larger ones overflow.
LARGEST = 1e30
#: Texts that a column holds, in every run.
FIXED_WORDS = {
    "status": [status.value for status in Status],
    "kind": ["group_mean", "noisy_mean", "grey"],
    "search": SEARCHES,
}
#: Columns of ``sources/`` without which a row is of no use, and those that identify a row.
FLAGS = ("feasible", "shown")
KEYS = {
    "originals": ["face_id"],
    "prior": ["arm", "index"],
    "guided": ["arm", "condition", "scale", "face_id", "draw", "search"],
    "uninformative": ["arm", "scale", "kind", "about", "draw"],
}


def as_parquet(table: pa.Table, statistics: bool = True) -> bytes:
    """Encode a table as a Parquet file, with the range of each column or without."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_statistics=statistics)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_shard(
    data: bytes,
    path: Path,
    unit: WorkUnit,
    schema: pa.Schema,
    words: Mapping[str, Sequence[str]],
    faces: Set[str] = frozenset(),
) -> pa.Table:
    """Read the rows of a work unit, and check that they are those that were planned.

    Parameters
    ----------
    data : bytes
        Of the shard at ``path``.
    path : Path
    unit : WorkUnit
        Whose draws the rows are, in this order.
    schema : pa.Schema
        Columns of the run, or some of them; those that the shard lacks are null. Only these are
        read, and checked.
    words : mapping of str to sequence of str
        Vocabulary of each text column that has one; ``_p`` columns hold a number for each word.
    faces : set of str
        The run's own faces, which a planted arm never returns.

    Raises
    ------
    InputError
        Naming the file and the first column at fault.
    """
    # Shards of an older version lack columns; they are null.
    longest = max(map(len, words.values()), default=1)
    table = conform(_read(data, path, schema, words, longest, len(unit.draws)), schema)

    # The keys: the unit's draws, in order.
    planned = {
        "face_id": [face_id for face_id, _ in unit.draws],
        "draw": [draw for _, draw in unit.draws],
        "arm": [unit.arm] * len(unit.draws),
        "condition": [unit.condition] * len(unit.draws),
        "scale": [unit.scale] * len(unit.draws),
    }
    for name, values in planned.items():
        if name not in schema.names:
            continue
        if not table[name].equals(pa.chunked_array([pa.array(values, schema.field(name).type)])):
            raise _damaged(path, f"column {name!r} is not that of the manifest")
    if "status" in schema.names and table["status"].null_count:
        raise _damaged(path, "column 'status' holds no status")
    if "planted_from" not in schema.names:
        return table
    # The donor of a planted output is another face than the run's own, and of a known group.
    donors, groups = table["planted_from"], table["planted_group"]
    if not pc.all(pc.equal(pc.is_null(donors), pc.is_null(groups))).as_py():
        raise _damaged(path, "column 'planted_group' is not that of 'planted_from'")
    if donors.null_count < len(donors) and not faces.isdisjoint(donors.to_pylist()):
        raise _damaged(path, "column 'planted_from' holds a face of the run itself")
    return table


def read_sources(folder: Path, manifest: Manifest) -> dict[str, pd.DataFrame] | None:
    """Read all tables of ``sources/`` by name; None where one is missing.

    Raises
    ------
    InputError
        Naming the file and the first column at fault.
    """
    paths = {name: folder / f"{name}.parquet" for name in SOURCE_COLUMNS}
    if not all(path.is_file() for path in paths.values()):
        return None
    if manifest.attributes is None or manifest.sources is None:
        raise InputError(f"{folder}: the manifest describes no attribute model or no sources")
    vocabulary = manifest.attributes.vocabulary
    # What a column may hold: the words of its attribute, the faces and arms of the plan.
    words: dict[str, Sequence[str]] = {
        f"{side}_{name}{end}": known
        for name, known in vocabulary.items()
        for side in ("hr", "sr", "check")
        for end in ("", "_p")
    }
    words["arm"], words["condition"] = list(manifest.arms), manifest.spec.conditions
    words["face_id"] = [face.id for face in manifest.faces]

    tables = {}
    for name, path in paths.items():
        # The second model checks what it can; all other columns are there.
        schema = source_schema(name, list(vocabulary), list(vocabulary))
        n_rows = len(manifest.faces) if name == "originals" else None
        data, longest = read_file(path, MAX_FILE), max(map(len, vocabulary.values()), default=1)
        table = plain_text(_read(data, path, schema, words, longest, n_rows))
        for column in schema.names:
            if column not in table.column_names and not column.startswith("check_"):
                raise _damaged(path, f"column {column!r} is missing")
        # Rows that can be told apart, with what every search and sample has.
        for column in (*KEYS[name], *FLAGS):
            if column in table.column_names and table[column].null_count:
                raise _damaged(path, f"column {column!r} holds a null")
        frame: pd.DataFrame = table.to_pandas()
        if frame.duplicated(KEYS[name]).any():
            raise _damaged(path, "holds a row twice")
        if "scale" in frame and not frame["scale"].isin(manifest.spec.scales).all():
            raise _damaged(path, "column 'scale' is not that of the manifest")
        tables[name] = frame
    return tables


def _read(
    data: bytes,
    path: Path,
    schema: pa.Schema,
    words: Mapping[str, Sequence[str]],
    longest: int,
    n_rows: int | None,
) -> pa.Table:
    """Read the columns of a schema that a file has, and check their types and values.

    ``longest`` is the most values of a list: probabilities, one for each word.
    """
    try:
        with open_parquet(data, longest) as file:
            # The number of rows and the types are checked before any of it is decoded.
            if n_rows not in (None, file.metadata.num_rows):
                raise _damaged(path, f"holds {file.metadata.num_rows:,} rows, not {n_rows:,}")
            columns = [field for field in file.schema_arrow if field.name in schema.names]
            names = [field.name for field in columns]
            for name, found in zip(names, (field.type for field in columns), strict=True):
                kind = schema.field(name).type
                found = found.value_type if pa.types.is_dictionary(found) else found
                if names.count(name) > 1 or found not in (kind, pa.null()):
                    raise _damaged(path, f"column {name!r} is not one column of type {kind}")
            table = file.read(columns=names, use_threads=False)
            check_texts(table)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise _damaged(path, f"cannot be read ({reason})") from None
    known = {**FIXED_WORDS, **words}
    for name in names:
        # A column that holds nothing holds nothing wrong.
        if table[name].null_count < len(table):
            _check_values(table[name], name, known.get(name), path)
    return table


def _check_values(
    column: pa.ChunkedArray, name: str, words: Sequence[str] | None, path: Path
) -> None:
    """Refuse a column with an infinite number, an unknown word, or a list of another length."""
    numbers = pc.list_flatten(column) if pa.types.is_list(column.type) else column
    if pa.types.is_floating(numbers.type):
        if name.startswith(MAY_BE_INFINITE):
            numbers = numbers.filter(pc.is_finite(numbers))
        # Nulls and NaN are passed over.
        if any(abs(end) > LARGEST for end in _ends(numbers)):
            raise _damaged(path, f"column {name!r} holds an infinite or a huge number")
    if words is not None and pa.types.is_dictionary(column.type):
        # The words that occur are those of the dictionaries.
        occurring = {word for chunk in column.chunks for word in chunk.dictionary.to_pylist()}
        if not occurring <= {*words, None}:
            raise _damaged(path, f"column {name!r} holds a word that is not known")
    elif words is not None and pa.types.is_list(column.type):
        lengths = _ends(pc.list_value_length(column))
        if any(length != len(words) for length in lengths):
            raise _damaged(path, f"column {name!r} has not one number for each label")


def _ends(numbers: pa.ChunkedArray) -> list[float]:
    """Return the least and the greatest number; none where there are none."""
    return [end for end in pc.min_max(numbers).as_py().values() if end is not None]


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert a table; its lists stay in Arrow's memory, and are not an object a row."""
    frame: pd.DataFrame = table.to_pandas(
        types_mapper=lambda kind: pd.ArrowDtype(kind) if pa.types.is_list(kind) else None
    )
    return frame


def _damaged(path: Path, problem: str) -> InputError:
    """Return the error about a table that cannot be used."""
    return InputError(
        f"{path}: {problem}; delete it, and the same `pulse-audit run` command makes it again"
    )
