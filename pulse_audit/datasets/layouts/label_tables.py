"""Data sets with a table of labels: FairFace, CelebA and CelebAMask-HQ, a user's own folder."""

from __future__ import annotations

import re
from pathlib import Path

from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    RowReader,
    Scan,
    data_folder,
    first_existing,
    hash_file,
    label_columns,
    not_found,
    relative,
    require_columns,
)
from pulse_audit.datasets.tables import read_csv, read_text
from pulse_audit.types import InputError

# FairFace's archives of the two margins; one must never stand in for the other.
_MARGINS = "fairface-img-margin"

# Where CelebA and CelebAMask-HQ, and public copies of them, keep their lists and photos.
_ATTRIBUTES = ("list_attr_celeba.txt", "Anno/list_attr_celeba.txt")
_ATTRIBUTES_HQ = ("CelebAMask-HQ-attribute-anno.txt",)
_PARTITION = ("list_eval_partition.txt", "Eval/list_eval_partition.txt")
_IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
_IMAGES_HQ = ("CelebA-HQ-img",)


def scan_fairface(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read FairFace: ``fairface_label_{train,val}.csv`` and the folders ``train`` and ``val``.

    The images of either margin unpack to a folder of their own (``card.folder``); the label files
    are there or in the root.
    """
    listed: set[str] = set()
    scan = Scan(listed=listed)
    # Where to look: the margin's own folder, the root, any folder but those of the margins.
    bases = [root / card.folder] if card.folder else []
    others = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(_MARGINS))
    bases += [root, *others]
    for own in card.own_splits(split):
        # Label file and photos of a split may be in different folders.
        label_file = f"fairface_label_{own}.csv"
        path = next((base / label_file for base in bases if (base / label_file).is_file()), None)
        if path is None:
            raise not_found(card, label_file, root)
        images = next((base for base in bases if (base / own).is_dir()), None)
        if images is None:
            raise not_found(card, f"the image folder {own}/", root)
        table = read_csv(path)
        columns = label_columns(card, path, table.header)
        # The file names in the table start with the split's folder.
        prefix = relative(images, root)
        RowReader(scan, card, root, prefix).add_table(table, columns)
        scan.source_files.append(hash_file(path, root))
        names = table.column("file")
        listed.update(names if prefix == "." else (f"{prefix}/{name}" for name in names))
    return scan


def scan_folder(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read a plain folder with a CSV: the column ``file`` and any label columns.

    The CSV is ``labels.csv``, or the only CSV of the folder; where the card has splits, the CSV
    that the split is mapped to. A column that the card does not name has an open vocabulary.
    """
    base = data_folder(card, root)
    # The label files: those of the card's splits, or labels.csv, or the only CSV.
    if card.splits:
        paths = [base / name for name in card.own_splits(split)]
    else:
        csvs = sorted(base.glob("*.csv"))
        paths = [path for path in csvs if path.name == "labels.csv"] or csvs
        if not paths:
            raise not_found(card, "a CSV (labels.csv)", base)
        if len(paths) > 1:
            several = ", ".join(path.name for path in paths)
            line = f"{base}: holds several CSVs ({several}); name the right one labels.csv"
            raise InputError(line)
    # Their rows, with every column but the file as a label.
    listed: set[str] = set()
    scan = Scan(listed=listed)
    reader = RowReader(scan, card, root, relative(base, root))
    for path in paths:
        table = read_csv(path)
        if "" in table.header:
            raise InputError(f"{path}, row 1: a column has no name; name it or remove it")
        label_columns(card, path, table.header)
        reader.add_table(table, [column for column in table.header if column != "file"])
        scan.source_files.append(hash_file(path, root))
        files = [name for name in table.column("file") if name and not name.startswith("/")]
        listed.update(relative(base / name, root) for name in files)
    return scan


def scan_celeba(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read CelebA or CelebAMask-HQ: a list of 40 attributes, each 1 or -1, and one image folder."""
    base = data_folder(card, root)
    attributes = first_existing(base, _ATTRIBUTES + _ATTRIBUTES_HQ)
    if attributes is None:
        raise not_found(card, " or ".join((_ATTRIBUTES + _ATTRIBUTES_HQ)[::2]), base)
    images = first_existing(base, _IMAGES + _IMAGES_HQ)
    if images is None:
        raise not_found(card, "the image folder img_align_celeba/ or CelebA-HQ-img/", base)
    scan = Scan(source_files=[hash_file(attributes, root)])
    # The photos of the split: lines of "file partition"; None stands for all.
    members: set[str] | None = None
    if card.splits:
        partition = first_existing(base, _PARTITION)
        if partition is None:
            raise not_found(card, _PARTITION[0], base)
        scan.source_files.append(hash_file(partition, root))
        if split != "all":
            members = set()
            for number, line in enumerate(read_text(partition).splitlines(), start=1):
                cells = line.split()
                if cells and len(cells) != 2:
                    raise InputError(
                        f"{partition}, row {number}: is not 'file partition'; get it again"
                    )
                if cells and cells[1] == card.splits[split]:
                    members.add(cells[0])
    prefix = relative(images, root)
    names = _add_attributes(RowReader(scan, card, root, prefix), attributes, members)
    scan.listed = {f"{prefix}/{name}" for name in names}
    return scan


def _add_attributes(reader: RowReader, path: Path, members: set[str] | None) -> set[str]:
    """Add the rows of an attribute list; return the file names of all its rows."""
    # The list starts with the number of its rows and the names of the attributes.
    lines = read_text(path).splitlines()
    if len(lines) < 3 or not re.fullmatch(r"[0-9]{1,9}", lines[0].strip()):
        raise InputError(f"{path}: does not start with a count and a header; get it again")
    header = lines[1].split()
    require_columns(path, header, reader.card.vocabulary)
    names = {line.split(maxsplit=1)[0] for line in lines[2:] if line.strip()}
    if int(lines[0]) != len(names):
        message = f"promises {int(lines[0]):,} images and lists {len(names):,}; get the file again"
        reader.scan.add("count", path.name, message)
    # One string object for each word, not one for each of the 8 million cells.
    shared = {word: word for words in reader.card.vocabulary.values() for word in words}
    for number, line in enumerate(lines[2:], start=3):
        name, *words = line.split() or [""]
        if not name or (members is not None and name not in members):
            continue
        # A row of another length cannot be read at all.
        if len(words) != len(header):
            raise InputError(f"{path}, row {number}: has {len(words)} labels, not {len(header)}")
        labels = {c: shared.get(word, word) for c, word in zip(header, words, strict=True)}
        reader.add(name, f"{path.name}, row {number}", labels)
    return names
