"""FairFace: ``fairface_label_{train,val}.csv`` and the folders ``train`` and ``val``.

The images of either margin unpack to a folder of their own (``card.folder``); the label files lie
there or in the root.
"""

from __future__ import annotations

from pathlib import Path

from pulse_audit.datasets.layouts.rows import RowReader, add_table, present_columns
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Scan, missing, relative, sha256_file
from pulse_audit.datasets.tables import read_csv

# The archives of the two margins; one must never stand in for the other.
_MARGINS = "fairface-img-margin"


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read the rows of one split, or of all."""
    found = Scan(listed=set())
    for own in card.own_splits(split):
        _scan_split(found, card, root, own)
    return found


def _scan_split(found: Scan, card: DatasetCard, root: Path, own: str) -> None:
    bases = _bases(card, root)
    label_file = f"fairface_label_{own}.csv"
    path = next((base / label_file for base in bases if (base / label_file).is_file()), None)
    if path is None:
        raise missing(card, label_file, root)
    images = next((base for base in bases if (base / own).is_dir()), None)
    if images is None:
        raise missing(card, f"the image folder {own}/", root)
    table = read_csv(path)
    columns = present_columns(card, table)
    prefix = relative(images, root)
    add_table(RowReader(found, card, root, prefix), table, columns)
    found.source_files.append(sha256_file(path, relative(path, root)))
    assert found.listed is not None
    found.listed.update(_below(prefix, name) for name in table.column("file"))


def _below(prefix: str, name: str) -> str:
    return name if prefix == "." else f"{prefix}/{name}"


def _bases(card: DatasetCard, root: Path) -> list[Path]:
    own = [root / card.folder] if card.folder else []
    others = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(_MARGINS))
    return [*own, root, *others]
