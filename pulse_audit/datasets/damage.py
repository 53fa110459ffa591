"""Labels that a spreadsheet took for dates: ``3-9`` saved as ``03-Sep``, ``10-19`` as ``Oct-19``.

Spreadsheets read ``3-9`` as the ninth of March or the third of September, by locale, and write it
back in their own way. A word is restored only where one single word of the vocabulary fits.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_RANGE = re.compile(r"^(\d+)-(\d+)$")
_CLOCK = r"(?:[ T]00:00(?::00)?)?$"
_ISO = re.compile(r"^(\d{4})[-/](\d{1,2})[-/](\d{1,2})" + _CLOCK)
_NUMERIC = re.compile(r"^(\d{1,2})[-/.](\d{1,2})[-/.](\d{4}|\d{2})" + _CLOCK)
_DAY_MONTH = re.compile(r"^(\d{1,2})[-/ ]([A-Za-z]{3,9})(?:[-/ ](\d{4}|\d{2}))?$")
_MONTH_NUMBER = re.compile(r"^([A-Za-z]{3,9})[-/ ](\d{4}|\d{1,2})$")

Pair = tuple[int, int]


@dataclass(frozen=True)
class Damage:
    """A cell of a label table that a spreadsheet turned into a date; ``row`` 1 is the header."""

    path: Path
    row: int
    column: str
    found: str
    meant: str


def undamaged(text: str, vocabulary: Collection[str]) -> str | None:
    """Return the one word of the vocabulary that was turned into the date ``text``.

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
    pairs = {pair for found in _readings(text.strip()) for pair in found}
    fitting = [word for word in vocabulary if _as_pair(word) in pairs]
    return fitting[0] if len(fitting) == 1 else None


def _as_pair(word: str) -> Pair | None:
    match = _RANGE.match(word)
    return (int(match[1]), int(match[2])) if match else None


def _readings(text: str) -> Iterator[set[Pair]]:
    if match := _ISO.match(text):
        yield _full_date(int(match[1]), int(match[2]), int(match[3]))
    if match := _NUMERIC.match(text):
        first, second, year = (int(part) for part in match.groups())
        yield _full_date(year, first, second)
        yield _full_date(year, second, first)
    if (match := _DAY_MONTH.match(text)) and (month := _month(match[2])):
        yield _both_ways(month, int(match[1]))
    if (match := _MONTH_NUMBER.match(text)) and (month := _month(match[1])):
        yield _both_ways(month, int(match[2]) % 100)


def _month(name: str) -> int | None:
    short = name[:3].lower()
    return _MONTHS.index(short) + 1 if short in _MONTHS else None


def _both_ways(month: int, number: int) -> set[Pair]:
    return {(month, number), (number, month)}


def _full_date(year: int, month: int, day: int) -> set[Pair]:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return set()
    # "10-19" may be read as October 2019, which is written out as its first day.
    month_of_year = {(month, year % 100)} if day == 1 else set()
    return _both_ways(month, day) | month_of_year
