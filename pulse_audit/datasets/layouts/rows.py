"""From rows of names and words to faces and problems; shared by the layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pulse_audit.datasets.damage import Damage
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Names, Scan, check_word, need_columns
from pulse_audit.datasets.sources import FileImage
from pulse_audit.datasets.tables import Table
from pulse_audit.types import Face

Verdicts = dict[str, tuple[str, str, str | None]]


class RowReader:
    """Turns rows into faces of one scan; rows with a fatal problem become problems instead."""

    def __init__(self, scan: Scan, card: DatasetCard, root: Path, prefix: str = "") -> None:
        self.scan = scan
        self.card = card
        self._root = str(root)
        self._prefix = f"{prefix}/" if prefix not in ("", ".") else ""
        self._names = Names(root)
        self._verdicts: dict[str, Verdicts] = {}

    def learn(self, column: str, words: Sequence[str]) -> None:
        """Check each distinct word of a column once, before its rows are read."""
        known = self._verdicts.setdefault(column, {})
        for word in set(words):
            verdict = check_word(self.card, column, word)
            if verdict is not None:
                known[word] = verdict

    def add(self, name: str, where: str, labels: Mapping[str, str], path: Path, row: int) -> None:
        """Add one row, its words learnt before; ``path`` and ``row`` say where a repair goes."""
        refused = self._names.refuse(self._prefix + name, where)
        if refused is not None:
            self.scan.add(refused[0], where, refused[1])
            return
        bad = [c for c, known in self._verdicts.items() if known and labels.get(c) in known]
        for column in bad:
            self._report(column, labels[column], where, path, row)
        if not bad:
            source = FileImage(self._root, self._prefix + name)
            self.scan.faces.append(Face(name, source, labels))

    def _report(self, column: str, word: str, where: str, path: Path, row: int) -> None:
        kind, message, meant = self._verdicts[column][word]
        self.scan.add(kind, where, message)
        if meant is not None:
            self.scan.damages.append(Damage(path, row, column, word, meant))


def add_table(reader: RowReader, table: Table, columns: Sequence[str]) -> None:
    """Add every row of a CSV with the column ``file`` and the given label columns."""
    need_columns(table.path, table.header, ["file"])
    files = table.column("file")
    cells = [table.column(column) for column in columns]
    for column, words in zip(columns, cells, strict=True):
        reader.learn(column, words)
    for number, (name, *words) in enumerate(zip(files, *cells, strict=True), start=2):
        where = f"{table.path.name}, row {number}"
        labels = dict(zip(columns, words, strict=True))
        reader.add(name, where, labels, table.path, number)


def present_columns(card: DatasetCard, table: Table) -> list[str]:
    """Return the card's label columns in the table; raise InputError where a needed one lacks."""
    needed = [column for column in card.vocabulary if column not in card.optional]
    need_columns(table.path, table.header, needed)
    return [column for column in card.vocabulary if column in table.header]
