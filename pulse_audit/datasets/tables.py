"""Reading label tables from outside: CSV as plain text, never interpreted; and repairing them."""

from __future__ import annotations

import csv
import io
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pulse_audit.datasets.damage import Damage
from pulse_audit.types import InputError

MAX_BYTES = 512 * 2**20
_BOM = "\ufeff"


@dataclass(frozen=True)
class Table:
    """A label table: every cell is a string. ``rows[0]`` is row 2 of the file."""

    path: Path
    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """Return the cells of one column."""
        index = self.header.index(name)
        return [row[index] for row in self.rows]


def read_text(path: Path) -> str:
    """Read a label file as UTF-8, a byte-order mark kept.

    Raises
    ------
    InputError
        If the file cannot be read, is larger than 512 MiB or is not UTF-8.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: is not a file; check the data folder")
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: is larger than 512 MiB; this is no label file")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(
            f"{path}, row {row}: byte 0x{byte:02x} is not UTF-8; save the file as CSV UTF-8"
        ) from error


def read_csv(path: Path) -> Table:
    """Read a CSV with a header; a byte-order mark and blank lines are passed over.

    Raises
    ------
    InputError
        One line naming the file and the row: not UTF-8, not CSV, empty, a header that names a
        column twice, a row of another length.
    """
    cells = _cells(path, read_text(path).removeprefix(_BOM))
    if not cells or not any(cells[0]):
        raise InputError(f"{path}: is empty; get the label file again")
    header = [name.strip() for name in cells[0]]
    _check_header(path, header)
    rows = cells[1:]
    while rows and not rows[-1]:
        rows.pop()
    if not rows:
        raise InputError(f"{path}: holds a header and no rows; get the label file again")
    _check_lengths(path, header, rows)
    return Table(path, header, rows)


def _cells(path: Path, text: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        rows.extend(reader)
    except csv.Error as error:
        raise InputError(f"{path}, row {len(rows) + 1}: is not CSV ({error})") from error
    return rows


def _check_header(path: Path, header: list[str]) -> None:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise InputError(f"{path}, row 1: columns are not separated by commas; save it as CSV")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}, row 1: names the column {twice!r} twice; rename one")


def _check_lengths(path: Path, header: list[str], rows: list[list[str]]) -> None:
    width = len(header)
    for number, row in enumerate(rows, start=2):
        if len(row) != width:
            raise InputError(
                f"{path}, row {number}: has {len(row)} cells where the header has {width}; "
                "correct the row"
            )


def repair_csv(path: Path, damages: Iterable[Damage]) -> Path:
    """Write the meant words back into a damaged CSV; the original is kept beside it as ``.bak``.

    Only the damaged cells change. The new file replaces the old in one step.

    Parameters
    ----------
    path : Path
        The CSV.
    damages : iterable of Damage
        The cells to restore; each must still hold what was found.

    Returns
    -------
    Path
        The untouched original.

    Raises
    ------
    InputError
        If the ``.bak`` file exists already, the CSV changed meanwhile, or cannot be written.
    """
    backup = path.with_name(path.name + ".bak")
    if backup.exists() or backup.is_symlink():
        raise InputError(f"{backup}: exists already; move it away, then repair again")
    text = read_text(path)
    repaired = _restored(path, text, damages)
    try:
        _replace(path, repaired, backup)
    except OSError as error:
        raise InputError(f"{path}: cannot be repaired ({error.strerror})") from error
    return backup


def _restored(path: Path, text: str, damages: Iterable[Damage]) -> str:
    cells = _cells(path, text.removeprefix(_BOM))
    index = {name.strip(): i for i, name in enumerate(cells[0])}
    for damage in damages:
        row = cells[damage.row - 1]
        if row[index[damage.column]] != damage.found:
            raise InputError(f"{path}, row {damage.row}: changed while it was read; try again")
        row[index[damage.column]] = damage.meant
    buffer = io.StringIO(newline="")
    ending = "\r\n" if "\r\n" in text else "\n"
    csv.writer(buffer, lineterminator=ending).writerows(cells)
    bom = _BOM if text.startswith(_BOM) else ""
    return bom + buffer.getvalue()


def _replace(path: Path, text: str, backup: Path) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        shutil.copymode(path, temporary)
        shutil.copy2(path, backup)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
