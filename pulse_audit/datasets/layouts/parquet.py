"""FairFace as the Hugging Face hub stores it: Parquet files with class ids in place of words.

The ids of the races run in another order than FairFace's own classifier (``card.class_ids``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from pulse_audit.datasets.images import ParquetImage
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    RowReader,
    Scan,
    data_folder,
    hash_file,
    label_columns,
    not_found,
    require_columns,
)
from pulse_audit.types import InputError

_PLAIN_NAME = re.compile(r"[\w.-]*\w[\w.-]*")


class ParquetRow(NamedTuple):
    """One row: the stored file name ("" for none), its place in messages, photo and labels."""

    file: str
    where: str
    source: ParquetImage
    labels: dict[str, str]


def scan_parquet(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read the label columns of ``<split>-*.parquet``; photos are read when they are needed.

    A face's id is ``<split>/<the file name stored with it>``, or its row number within the split
    where names are lacking or not distinct.
    """
    base = data_folder(card, root)
    scan = Scan()
    reader = RowReader(scan, card, root)
    for own in card.own_splits(split):
        paths = sorted(base.glob(f"{own}-*.parquet"))
        if not paths:
            raise not_found(card, f"{own}-*.parquet", base)
        # Names are stored with the photos; row numbers serve where these are not distinct.
        rows = [row for path in paths for row in _read(card, path)]
        names = [row.file for row in rows]
        if len(set(names)) < len(names) or not all(map(_PLAIN_NAME.fullmatch, names)):
            names = [f"{number:06d}" for number in range(len(rows))]
        for row, name in zip(rows, names, strict=True):
            reader.add(f"{own}/{name}", row.where, row.labels, source=row.source)
        scan.source_files += [hash_file(path, root) for path in paths]
    return scan


def _read(card: DatasetCard, path: Path) -> list[ParquetRow]:
    """Read every row of a file without its photo."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A broken file fails at any of these steps; all of them give one line.
    try:
        with pq.ParquetFile(path) as file:
            # Check the columns: the labels that the card names, and photos as bytes with a name.
            schema = file.schema_arrow
            require_columns(path, schema.names, ["image"])
            columns = label_columns(card, path, schema.names)
            image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            if not schema.field("image").type.equals(image):
                line = f"{path}: its column 'image' does not hold bytes and path; get it again"
                raise InputError(line)
            # Read all but the bytes, and the size of every row group.
            table = file.read(columns=[*columns, "image.path"])
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        if sum(sizes) != table.num_rows:
            raise ValueError("its row groups do not add up")
        images = table.column("image").to_pylist()
        cells = {column: table.column(column).to_pylist() for column in columns}
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: is no readable Parquet file ({reason}); get it again") from error

    def word(column: str, value: object) -> str:
        """Return the word of a class id; other values as they are, so that messages show them."""
        ids = card.class_ids.get(column, ())
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(ids):
            return ids[value]
        return "" if value is None else str(value)

    # A photo is read later by its row group and its row within the group.
    places = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    return [
        ParquetRow(
            file=(images[i] or {}).get("path") or "",
            where=f"{path.name}, row {i}",
            source=ParquetImage(str(path), group, row),
            labels={column: word(column, cells[column][i]) for column in columns},
        )
        for i, (group, row) in enumerate(places)
    ]
