"""Parquet files within limits: what a file says of itself is checked before Arrow reads it.

Arrow believes the header of a page, a few bytes of which may ask for gigabytes, and ends the
program where the statistics of a column do not fit its type. Fields are numbered as in Apache
Parquet's ``parquet.thrift`` (format 2.11).
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pulse_audit.store.thrift import ThriftReader

#: Most bytes of a file, and of what it unpacks to; most columns, counted in every group of rows.
MAX_FILE, MAX_UNPACKED, MAX_COLUMNS = 2**28, 2**29, 10_000
#: What Arrow writes: plain values, repeated ones, and indices into a dictionary. Others could
#: repeat a long text in every value.
ENCODINGS = (0, 2, 3, 8)
#: Kinds of pages, by the field of the header that describes one.
DATA, DICTIONARY, DATA_V2 = 5, 7, 8
#: Number of the type of texts.
BYTE_ARRAY = 6


def open_parquet(data: bytes, longest: int = 1) -> pq.ParquetFile:
    """Open the bytes of a file that Arrow wrote; text columns are read as dictionaries.

    Parameters
    ----------
    data : bytes
    longest : int
        Most values of a list in a row.

    Raises
    ------
    ValueError, pyarrow.ArrowException
        If it is no such file, or what it unpacks to is too large or not what it states.
    """
    try:
        texts = _check_sizes(data, longest)
    except (LookupError, TypeError, AttributeError):
        raise ValueError("its description is damaged") from None
    return pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)


def check_texts(table: pa.Table) -> None:
    """Refuse dictionaries of text whose texts are too long once spelled out: ValueError."""
    chunks = [
        chunk
        for column in table.columns
        if pa.types.is_dictionary(column.type)
        for chunk in column.chunks
    ]
    # No text is longer than all of its dictionary; only where that is not enough they are counted.
    total = sum(len(chunk) * chunk.dictionary.nbytes for chunk in chunks)
    if total > MAX_UNPACKED:
        lengths = [pc.take(pc.binary_length(chunk.dictionary), chunk.indices) for chunk in chunks]
        total = sum(pc.sum(each).as_py() or 0 for each in lengths)
    if total > MAX_UNPACKED:
        raise ValueError(f"its texts unpack to more than {MAX_UNPACKED:,} bytes")


def plain_text(table: pa.Table) -> pa.Table:
    """Replace the dictionaries of text columns by their texts; ValueError if these are too long."""
    check_texts(table)
    for at, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            text = table.column(at).cast(field.type.value_type)
            table = table.set_column(at, field.name, text)
    return table


def _check_sizes(data: bytes, longest: int) -> list[str]:
    """Check the description at the end of a file and the headers of all pages.

    Returns the names of text columns.
    """
    size = int.from_bytes(data[-8:-4], "little")
    if data[:4] != b"PAR1" or data[-4:] != b"PAR1" or size > len(data) - 12:
        raise ValueError("it is no Parquet file")
    # FileMetaData: 2 schema, 4 groups of rows, 6 writer, 8 encryption.
    file = ThriftReader(data[:-8], len(data) - 8 - size).struct()
    # Other writers place pages elsewhere, and Arrow makes allowances for their mistakes.
    if not file[6].startswith(b"parquet-cpp-arrow ") or 8 in file:
        raise ValueError("it was not written by Arrow")
    leaves, groups = _leaves(file[2]), file[4]
    if len(leaves) * len(groups) > MAX_COLUMNS:
        raise ValueError(f"it has more than {MAX_COLUMNS:,} columns")

    unpacked, texts = 0, set[str]()
    for group in groups:
        # RowGroup: 1 columns, 3 rows. ColumnChunk: 3 description, 8 and 9 encryption.
        rows = group[3]
        for chunk, leaf in zip(group[1], leaves, strict=True):
            if chunk.keys() & {1, 8, 9}:
                raise ValueError("a column is encrypted or in another file")
            column = chunk[3]
            _check_column(column, leaf)
            name = b".".join(column[3]).decode()
            if leaf[0] == BYTE_ARRAY:
                texts.add(name)
            values, size = _page_sizes(data, column)
            if values > rows * max(longest, 1):
                raise ValueError(f"column {name!r} has {values:,} values")
            # Texts are counted once they are read; a number has 8 bytes at most.
            unpacked += size + 8 * max(values, rows)
            if unpacked > MAX_UNPACKED:
                raise ValueError(f"it unpacks to more than {MAX_UNPACKED:,} bytes")
    return sorted(texts)


def _leaves(schema: list[dict[int, Any]]) -> list[tuple[int, int, int]]:
    """Columns of a schema: type, and most repetition and definition levels."""
    leaves = []
    # Elements come depth first: for each open one its children to come, and its levels.
    open_elements = [(schema[0][5], 0, 0)]
    for element in schema[1:]:
        # SchemaElement: 1 type, 3 required, optional or repeated, 5 children.
        while open_elements[-1][0] == 0:
            open_elements.pop()
        children, repetition, definition = open_elements.pop()
        open_elements.append((children - 1, repetition, definition))
        repetition, definition = repetition + (element[3] == 2), definition + (element[3] != 0)
        if element.get(5):
            open_elements.append((element[5], repetition, definition))
        else:
            leaves.append((element[1], repetition, definition))
    return leaves


def _check_column(column: dict[int, Any], leaf: tuple[int, int, int]) -> None:
    """Refuse a column whose type or statistics are not those of the schema."""
    # ColumnMetaData: 1 type, 16 statistics of sizes: 1 bytes of texts, 2 and 3 counts by level.
    kind, repetition, definition = leaf
    sizes = column.get(16, {})
    fits = column[1] == kind and (kind == BYTE_ARRAY or 1 not in sizes)
    for counts, most in ((sizes.get(2, []), repetition), (sizes.get(3, []), definition)):
        fits = fits and len(counts) in (0, most + 1)
    if not fits:
        raise ValueError("a column is not what the schema says")


def _page_sizes(data: bytes, column: dict[int, Any]) -> tuple[int, int]:
    """Return the values in the pages of a column, and the bytes that they unpack to."""
    # ColumnMetaData: 5 values, 7 bytes, 9 first page of data, 11 page of the dictionary.
    if column[5] == 0:  # Arrow reads no page
        return 0, 0
    start = column[9]
    if 0 < column.get(11, 0) < start:
        start = column[11]
    end = start + column[7]
    if not 4 <= start < end <= len(data):
        raise ValueError("its pages go beyond its end")
    values = size = 0
    reader = ThriftReader(data, start)
    while reader.at < end:
        # PageHeader: 2 bytes unpacked, 3 in the file. In each kind: 1 values, 2 or 4 encoding.
        header = reader.struct()
        page = header.get(DATA) or header.get(DATA_V2)
        described = page or header[DICTIONARY]
        if described[4 if DATA_V2 in header else 2] not in ENCODINGS:
            raise ValueError("a page in an encoding that Arrow does not write")
        if not all(0 <= n < 2**31 for n in (described[1], header[2], header[3])):
            raise ValueError("a page of no size")
        values += described[1] if page else 0
        size += header[2]
        reader.at += header[3]
    if reader.at != end:
        raise ValueError("pages that do not fill their column")
    return values, size
