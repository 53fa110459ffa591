"""Label tables from outside: reading CSV as plain text, and repairing labels turned into dates.

Spreadsheets take ``3-9`` for the ninth of March or the third of September, by locale, and save it
as ``03-Sep``; ``10-19`` becomes ``Oct-19``. A word is restored only where exactly one word of the
vocabulary fits.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pulse_audit.files import atomic_write
from pulse_audit.types import InputError

# Larger than any label file: CelebA's list of 40 attributes has 25 MiB.
MAX_BYTES = 512 * 2**20
# The outlines of all parts of a face in one cell of FHIBE have 170,000 characters.
MAX_CELL = 2**24
# Spreadsheets mark a UTF-8 file by this first character.
_BOM = "\ufeff"

# The forms in which spreadsheets write dates, by locale: 2019-10-01, 3/9/2024, 03-Sep, Oct-19.
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_RANGE = re.compile(r"^([0-9]+)-([0-9]+)$")
_CLOCK = r"(?:[ T]00:00(?::00)?)?$"
_ISO = re.compile(r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})" + _CLOCK, re.ASCII)
_NUMERIC = re.compile(r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{4}|\d{2})" + _CLOCK, re.ASCII)
_DAY_MONTH = re.compile(r"^(\d{1,2})[-/ ]([A-Za-z]{3,9})(?:[-/ ](\d{4}|\d{2}))?$", re.ASCII)
_MONTH_NUMBER = re.compile(r"^([A-Za-z]{3,9})[-/ ](\d{4}|\d{1,2})$", re.ASCII)


@dataclass(frozen=True)
class LabelTable:
    """A label table: every cell is a string. ``rows[0]`` is row 2 of the file."""

    path: Path
    header: list[str]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """Return the cells of one column."""
        index = self.header.index(name)
        return [row[index] for row in self.rows]


@dataclass(frozen=True)
class Damage:
    """A cell of a label table that a spreadsheet turned into a date; ``row`` 1 is the header."""

    path: Path
    row: int
    column: str
    text: str
    original: str


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """Read a label file as UTF-8, keeping a byte-order mark.

    Raises InputError if the file cannot be read, is larger than ``limit`` bytes or is not UTF-8.
    """
    try:
        if not path.is_file():
            raise InputError(f"{path}: is not a file; check the data folder")
        if path.stat().st_size > limit:
            size = f"{limit // 2**20} MiB"
            raise InputError(f"{path}: is larger than {size}; this is no label file")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    # Where the text is not UTF-8, name the row: the number of line feeds before the byte.
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(
            f"{path}, row {row}: byte 0x{byte:02x} is not UTF-8; save the file as CSV UTF-8"
        ) from error


def _cells(path: Path, text: str) -> list[list[str]]:
    # Rows are added one by one, so that an error can name the row at which it occurred.
    reader = csv.reader(io.StringIO(text.removeprefix(_BOM), newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        rows.extend(reader)
    except csv.Error as error:
        raise InputError(f"{path}, row {len(rows) + 1}: is not CSV ({error})") from error
    return rows


def read_csv(path: Path) -> LabelTable:
    """Read a CSV with a header; a byte-order mark and blank lines at the end are ignored.

    Raises
    ------
    InputError
        One line naming the file and the row: not UTF-8, not CSV, empty, a header that names a
        column twice, a row of another length.
    """
    return parse_csv(path, read_text(path))


def parse_csv(path: Path, text: str) -> LabelTable:
    """Parse the text of a CSV; ``path`` is named in errors, which are those of `read_csv`."""
    cells = _cells(path, text)
    if not cells or not any(cells[0]):
        raise InputError(f"{path}: is empty; get the label file again")
    # The header: separated by commas, and every column named once.
    header = [name.strip() for name in cells[0]]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise InputError(f"{path}, row 1: columns are not separated by commas; save it as CSV")
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}, row 1: names the column {twice!r} twice; rename one")
    # The rows: at least one, all as long as the header.
    rows = cells[1:]
    while rows and not rows[-1]:
        rows.pop()
    if not rows:
        raise InputError(f"{path}: holds a header and no rows; get the label file again")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise InputError(
                f"{path}, row {number}: has {len(row)} cells where the header has {len(header)}; "
                "correct the row"
            )
    return LabelTable(path, header, rows)


def read_columns(path: Path, columns: Collection[str]) -> LabelTable:
    """Read some columns of a CSV whose other cells are large, without holding those.

    ``rows`` has these columns alone; errors are those of `read_csv`, and a lacking column is one.
    """
    try:
        file = path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    largest, rows = csv.field_size_limit(MAX_CELL), list[list[str]]()
    number = 1
    try:
        with file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            lacking = next((name for name in columns if header.count(name) != 1), None)
            if lacking is not None:
                raise InputError(
                    f"{path}, row 1: does not name the column {lacking!r} once; "
                    "use the unchanged label file"
                )
            places = [header.index(name) for name in columns]
            for number, row in enumerate(reader, start=2):
                if len(row) != len(header):
                    raise InputError(
                        f"{path}, row {number}: has {len(row)} cells where the header has "
                        f"{len(header)}; get the label file again"
                    )
                rows.append([row[place] for place in places])
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}, after row {number}: is not CSV in UTF-8 ({error})") from error
    finally:
        csv.field_size_limit(largest)
    if not rows:
        raise InputError(f"{path}: holds a header and no rows; get the label file again")
    return LabelTable(path, list(columns), rows)


def original_word(text: str, vocabulary: Collection[str]) -> str | None:
    """Return the one word of the vocabulary that a spreadsheet turned into the date ``text``.

    Parameters
    ----------
    text : str
        A cell such as ``03-Sep``, ``9-Mar``, ``Oct-19``, ``2019-10-01`` or ``3/9/2024``.
    vocabulary : collection of str
        Words; those of the form ``a-b`` can be taken for dates.

    Returns
    -------
    str or None
        None where ``text`` is no date, or where no word or several words fit.
    """
    # The words a-b whose two numbers the date may have been made of.
    pairs = _number_pairs(text.strip())
    fitting = [
        word
        for word in vocabulary
        if (match := _RANGE.match(word)) and (int(match[1]), int(match[2])) in pairs
    ]
    return fitting[0] if len(fitting) == 1 else None


def _number_pairs(text: str) -> set[tuple[int, int]]:
    """Return every pair (a, b) for which a spreadsheet may have written ``a-b`` as this date."""
    pairs: set[tuple[int, int]] = set()
    # Complete dates, as (year, month, day); 3/9/2024 is read in both orders.
    dates: list[tuple[int, int, int]] = []
    if match := _ISO.match(text):
        dates.append((int(match[1]), int(match[2]), int(match[3])))
    if match := _NUMERIC.match(text):
        first, second, year = (int(part) for part in match.groups())
        dates += [(year, first, second), (year, second, first)]
    for year, month, day in dates:
        if 1 <= month <= 12 and 1 <= day <= 31:
            pairs |= {(month, day), (day, month)}
            # "10-19" may be read as October 2019, which is written as its first day.
            if day == 1:
                pairs.add((month, year % 100))
    # Dates with the month as a word: day and month, or month and day or year.
    name, number = "", 0
    if match := _DAY_MONTH.match(text):
        name, number = match[2], int(match[1])
    elif match := _MONTH_NUMBER.match(text):
        name, number = match[1], int(match[2]) % 100
    if name[:3].lower() in _MONTHS:
        month = _MONTHS.index(name[:3].lower()) + 1
        pairs |= {(month, number), (number, month)}
    return pairs


def repair_csv(path: Path, damages: Iterable[Damage]) -> Path:
    """Restore the original words in a damaged CSV; the damaged file is kept beside it as ``.bak``.

    Only the damaged cells change. The new file replaces the old in one step.

    Parameters
    ----------
    path : Path
        The CSV.
    damages : iterable of Damage
        The cells to restore; each must still hold the damaged text.

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
    # Replace the damaged cells.
    text = read_text(path)
    cells = _cells(path, text)
    index = {name.strip(): i for i, name in enumerate(cells[0])}
    for damage in damages:
        row = cells[damage.row - 1]
        if row[index[damage.column]] != damage.text:
            raise InputError(f"{path}, row {damage.row}: changed while it was read; try again")
        row[index[damage.column]] = damage.original
    # Write the table as it was written before: byte-order mark, line endings, permissions.
    buffer = io.StringIO(newline="")
    buffer.write(_BOM if text.startswith(_BOM) else "")
    csv.writer(buffer, lineterminator="\r\n" if "\r\n" in text else "\n").writerows(cells)
    # Keep the damaged file first; where the new one cannot be written, nothing has changed.
    try:
        shutil.copy2(path, backup)
        atomic_write(path, buffer.getvalue().encode())
    except OSError as error:
        backup.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be repaired ({error.strerror})") from error
    shutil.copymode(backup, path)
    return backup
