"""CelebA and CelebAMask-HQ: a list of 40 attributes, each 1 or -1, and one image folder."""

from __future__ import annotations

import re
from pathlib import Path

from pulse_audit.datasets.layouts.rows import RowReader
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    Scan,
    data_folder,
    first_existing,
    missing,
    need_columns,
    relative,
    sha256_file,
)
from pulse_audit.datasets.tables import read_text
from pulse_audit.types import InputError

_ATTRIBUTES = ("list_attr_celeba.txt", "Anno/list_attr_celeba.txt")
_ATTRIBUTES_HQ = ("CelebAMask-HQ-attribute-anno.txt",)
_PARTITION = ("list_eval_partition.txt", "Eval/list_eval_partition.txt")
_IMAGES = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
_IMAGES_HQ = ("CelebA-HQ-img",)


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read the attributes of one partition, or of all."""
    base = data_folder(card, root)
    attributes = first_existing(base, _ATTRIBUTES + _ATTRIBUTES_HQ)
    if attributes is None:
        raise missing(card, " or ".join((_ATTRIBUTES + _ATTRIBUTES_HQ)[::2]), base)
    images = first_existing(base, _IMAGES + _IMAGES_HQ)
    if images is None:
        raise missing(card, "the image folder img_align_celeba/ or CelebA-HQ-img/", base)
    found = Scan(source_files=[sha256_file(attributes, relative(attributes, root))])
    wanted = None
    if card.splits:
        partition = first_existing(base, _PARTITION)
        if partition is None:
            raise missing(card, _PARTITION[0], base)
        found.source_files.append(sha256_file(partition, relative(partition, root)))
        wanted = None if split == "all" else _members(partition, card.splits[split])
    reader = RowReader(found, card, root, relative(images, root))
    found.listed = _read_attributes(reader, attributes, wanted, relative(images, root))
    return found


def _members(partition: Path, own: str) -> set[str]:
    members = set()
    for number, line in enumerate(read_text(partition).splitlines(), start=1):
        cells = line.split()
        if cells and len(cells) != 2:
            raise InputError(f"{partition}, row {number}: is not 'file partition'; get it again")
        if cells and cells[1] == own:
            members.add(cells[0])
    return members


def _read_attributes(
    reader: RowReader, path: Path, wanted: set[str] | None, prefix: str
) -> set[str]:
    lines = read_text(path).splitlines()
    if len(lines) < 3 or not re.fullmatch(r"[0-9]{1,9}", lines[0].strip()):
        raise InputError(f"{path}: does not start with a count and a header; get it again")
    header = lines[1].split()
    need_columns(path, header, reader.card.vocabulary)
    names = {line.split(maxsplit=1)[0] for line in lines[2:] if line.strip()}
    _check_count(reader, path, int(lines[0]), len(names))
    # One string object for each word, not one for each of the 8 million cells.
    shared = {word: word for words in reader.card.vocabulary.values() for word in words}
    for number, line in enumerate(lines[2:], start=3):
        name, *words = line.split() or [""]
        if name and (wanted is None or name in wanted):
            _add_row(reader, path, number, name, header, [shared.get(w, w) for w in words])
    return {f"{prefix}/{name}" for name in names}


def _check_count(reader: RowReader, path: Path, promised: int, found: int) -> None:
    if promised != found:
        message = f"promises {promised:,} images and lists {found:,}; get the file again"
        reader.scan.add("count", path.name, message)


def _add_row(
    reader: RowReader, path: Path, number: int, name: str, header: list[str], words: list[str]
) -> None:
    where = f"{path.name}, row {number}"
    if len(words) != len(header):
        raise InputError(f"{path}, row {number}: has {len(words)} labels, not {len(header)}")
    labels = dict(zip(header, words, strict=True))
    for column, word in labels.items():
        if word not in reader.card.vocabulary.get(column, (word,)):
            reader.learn(column, [word])
    reader.add(name, where, labels, path, number)
