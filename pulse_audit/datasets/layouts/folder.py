"""A plain folder with a CSV: the column ``file`` and any label columns.

The CSV is ``labels.csv``, or the only CSV of the folder; where the card has splits, the CSV that
the split is mapped to. A column that the card does not name is an open label.
"""

from __future__ import annotations

from pathlib import Path

from pulse_audit.datasets.layouts.rows import RowReader, add_table, present_columns
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Scan, data_folder, missing, relative, sha256_file
from pulse_audit.datasets.tables import Table, read_csv
from pulse_audit.types import InputError


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read the rows of the folder's CSV, or of the CSVs of the card's splits."""
    base = data_folder(card, root)
    found = Scan(listed=set())
    reader = RowReader(found, card, root, relative(base, root))
    for path in _label_files(card, base, split):
        table = read_csv(path)
        add_table(reader, table, _columns(card, table))
        found.source_files.append(sha256_file(path, relative(path, root)))
        assert found.listed is not None
        found.listed.update((base / name).relative_to(root).as_posix() for name in _plain(table))
    return found


def _plain(table: Table) -> list[str]:
    return [name for name in table.column("file") if name and not name.startswith("/")]


def _label_files(card: DatasetCard, base: Path, split: str) -> list[Path]:
    if card.splits:
        return [base / name for name in card.own_splits(split)]
    csvs = sorted(base.glob("*.csv"))
    named = [path for path in csvs if path.name == "labels.csv"]
    if not csvs:
        raise missing(card, "a CSV (labels.csv)", base)
    if len(csvs) > 1 and not named:
        names = ", ".join(path.name for path in csvs)
        raise InputError(f"{base}: holds several CSVs ({names}); name the right one labels.csv")
    return named or csvs


def _columns(card: DatasetCard, table: Table) -> list[str]:
    if "" in table.header:
        raise InputError(f"{table.path}, row 1: a column has no name; name it or remove it")
    present_columns(card, table)
    return [column for column in table.header if column != "file"]
