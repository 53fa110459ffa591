"""Parquet files that claim more than they hold, or hold more than they seem to."""

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_audit.store.parquet import open_parquet, plain_text

N = 300
RLE, PLAIN, DELTA_LENGTH = 3, 0, 6


def encoded(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def integer(value: int) -> bytes:
    """A zigzag integer in ten bytes, so that headers of any content have one length."""
    raw = 2 * value if value >= 0 else -2 * value - 1
    return bytes([raw >> shift & 127 | 128 for shift in range(0, 63, 7)]) + bytes([raw >> 63])


def with_page(values=N, unpacked=None, stored=None, encoding=PLAIN, extra=b"") -> bytes:
    """A file of one column whose only page has a header of our making."""
    table = pa.table({"x": np.random.default_rng(0).random(N)})
    data = encoded(table, use_dictionary=False, write_statistics=False, compression="zstd")
    chunk = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(0)
    start, size = chunk.data_page_offset, chunk.total_compressed_size

    def header(stored: int) -> bytes:
        fields = b"\x15" + b"\x15".join(map(integer, (values, encoding, RLE, RLE))) + b"\x00"
        sizes = (0, 8 * N if unpacked is None else unpacked, stored)
        return b"\x15" + b"\x15".join(map(integer, sizes)) + extra + b"\x2c" + fields + b"\x00"

    rest = size - len(header(0))
    page = header(rest if stored is None else stored) + data[start + size - rest : start + size]
    return data[:start] + page + data[start + size :]


def test_an_honest_file_comes_back_as_it_was_written():
    table = pa.table(
        {
            "x": [0.5, None, float("nan")],
            "t": ["a", None, "a"],
            "l": pa.array([[0.25, 0.75], None, []]),
            "n": pa.nulls(3),
        }
    )
    for options in ({}, {"use_dictionary": False}, {"data_page_version": "2.0"}):
        file = open_parquet(encoded(table, compression="zstd", **options), longest=2)
        assert plain_text(file.read()).to_pylist()[:2] == table.to_pylist()[:2]
    empty = open_parquet(encoded(table[:0]))
    assert plain_text(empty.read()).schema == table.schema


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ({"unpacked": 2**31 - 1}, "unpacks to more"),
        ({"unpacked": -1}, "no size"),
        ({"values": 2**31 - 1}, "2,147,483,647 values"),
        ({"values": 2**40}, "no size"),
        ({"stored": 10**6}, "do not fill"),
        ({"stored": -5}, "no size"),
        ({"encoding": DELTA_LENGTH}, "encoding"),
        # An endless list, a map, structs in structs, an endless text, a long integer.
        ({"extra": b"\x19\xf5" + b"\xff" * 4 + b"\x7f"}, "beyond its end"),
        ({"extra": b"\x1b\x05"}, "unknown kind"),
        ({"extra": b"\x1c" * 40}, "too deep"),
        ({"extra": b"\x18" + b"\xff" * 4 + b"\x7f"}, "beyond its end"),
        ({"extra": b"\x15" + b"\xff" * 12}, "over 64 bits"),
    ],
)
def test_pages_are_checked_before_they_are_unpacked(page, problem):
    with pytest.raises(ValueError, match=problem):
        open_parquet(with_page(**page))


def test_the_pages_of_these_tests_are_read_where_they_are_honest():
    assert open_parquet(with_page()).metadata.num_rows == N


def test_long_texts_that_repeat_are_counted_before_they_are_spelled_out():
    """100 GB of text in a file of a few kilobytes."""
    table = pa.table({"t": pa.array(["x" * 10**6]).dictionary_encode()}).take([0] * 100_000)
    data = encoded(table.cast(pa.schema({"t": pa.dictionary(pa.int32(), pa.string())})))
    assert len(data) < 10**6
    text = pa.table({"t": ["x" * 10**6] * 100})
    data = encoded(text, compression="zstd")
    assert len(data) < 10**6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pulse_audit.store.parquet.MAX_UNPACKED", 10**7)
        with pytest.raises(ValueError, match="texts unpack to more"):
            plain_text(open_parquet(data).read())


def test_a_list_that_is_longer_than_any_vocabulary_is_refused():
    data = encoded(pa.table({"p": pa.array([[0.5] * 10**6])}))
    assert len(data) < 10**4
    with pytest.raises(ValueError, match=r"p\.list\.element.*1,000,000 values"):
        open_parquet(data, longest=7)


def test_files_of_other_writers_and_endless_columns_are_refused():
    data = encoded(pa.table({"x": [1.0]}))
    with pytest.raises(ValueError, match="not written by Arrow"):
        open_parquet(data.replace(b"parquet-cpp-arrow", b"parquet-mr-arrow!"))
    many = encoded(pa.table({"x": np.zeros(6000), "y": np.zeros(6000)}), row_group_size=1)
    with pytest.raises(ValueError, match="10,000 columns"):
        open_parquet(many)


SOUND = encoded(pa.table({"x": np.arange(50.0), "t": ["a", "b"] * 25, "l": [[0.5, 0.5]] * 50}))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=6))
def test_any_bytes_are_read_or_refused(at, replacement):
    data = SOUND[:at] + replacement + SOUND[at + len(replacement) :]
    with contextlib.suppress(ValueError, KeyError, OSError, pa.ArrowException):
        assert len(plain_text(open_parquet(data, longest=2).read(use_threads=False))) <= 50
