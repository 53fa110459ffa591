"""FairFace as the Hugging Face hub stores it: Parquet files with class ids in place of words.

The ids of the races run in another order than FairFace's own classifier (``card.class_ids``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    Scan,
    check_word,
    data_folder,
    missing,
    need_columns,
    relative,
    sha256_file,
)
from pulse_audit.datasets.sources import ParquetImage
from pulse_audit.types import Face, InputError

_PLAIN_NAME = re.compile(r"[\w.-]*\w[\w.-]*")


@dataclass(frozen=True)
class _Row:
    file: str
    source: ParquetImage
    where: str
    labels: dict[str, str]


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read the label columns of ``<split>-*.parquet``; photos are read when they are needed.

    A face's id is ``<split>/<the file name stored with it>``, or its row number within the split
    where names are lacking or not distinct.
    """
    base = data_folder(card, root)
    found = Scan()
    for own in card.own_splits(split):
        paths = sorted(base.glob(f"{own}-*.parquet"))
        if not paths:
            raise missing(card, f"{own}-*.parquet", base)
        rows = [row for path in paths for row in _rows(card, path)]
        for row, name in zip(rows, _names(rows), strict=True):
            _add(found, card, row, f"{own}/{name}")
        found.source_files += [sha256_file(path, relative(path, root)) for path in paths]
    return found


def _rows(card: DatasetCard, path: Path) -> list[_Row]:
    sizes, names, words = _read(card, path)
    places = ((group, row) for group, size in enumerate(sizes) for row in range(size))
    return [
        _Row(
            file=names[i] or "",
            source=ParquetImage(str(path), group, row),
            where=f"{path.name}, row {i}",
            labels={column: cells[i] for column, cells in words.items()},
        )
        for i, (group, row) in enumerate(places)
    ]


def _read(
    card: DatasetCard, path: Path
) -> tuple[list[int], list[str | None], dict[str, list[str]]]:
    """Sizes of the row groups, names of the photos, and the words of every label column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = _columns(card, path, file.schema_arrow)
            table = file.read(columns=[*columns, "image.path"])
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        if sum(sizes) != table.num_rows:
            raise ValueError("its row groups do not add up")
        images = table.column("image").to_pylist()
        words = {c: _words(card, c, table.column(c).to_pylist()) for c in columns}
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: is no readable Parquet file ({reason}); get it again") from error
    return sizes, [image.get("path") if image else None for image in images], words


def _columns(card: DatasetCard, path: Path, schema: Any) -> list[str]:
    import pyarrow as pa

    need_columns(
        path, schema.names, ["image", *(c for c in card.vocabulary if c not in card.optional)]
    )
    image = schema.field("image").type
    if not image.equals(pa.struct({"bytes": pa.binary(), "path": pa.string()})):
        raise InputError(f"{path}: its column 'image' does not hold bytes and path; get it again")
    return [column for column in card.vocabulary if column in schema.names]


def _words(card: DatasetCard, column: str, values: Sequence[object]) -> list[str]:
    ids = card.class_ids.get(column, ())

    def word(value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(ids):
            return ids[value]
        return "" if value is None else str(value)

    return [word(value) for value in values]


def _names(rows: list[_Row]) -> list[str]:
    names = [row.file for row in rows]
    if len(set(names)) == len(names) and all(_PLAIN_NAME.fullmatch(name) for name in names):
        return names
    return [f"{number:06d}" for number in range(len(rows))]


def _add(found: Scan, card: DatasetCard, row: _Row, name: str) -> None:
    bad = [verdict for c, w in row.labels.items() if (verdict := check_word(card, c, w))]
    for kind, message, _ in bad:
        found.add(kind, row.where, message)
    if not bad:
        found.faces.append(Face(name, row.source, row.labels))
