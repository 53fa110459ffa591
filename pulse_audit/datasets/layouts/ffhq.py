"""FFHQ with the labels of others: ffhq-features (JSON per photo) or FFHQ-Aging (one CSV).

Photos are ``images1024x1024``, ``thumbnails128x128`` or FFHQ-Aging's ``ffhq_aging256x256``, either
flat (``00000.png``) or in folders of a thousand (``00000/00000.png``). FFHQ has no race label.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pulse_audit.datasets.layouts.rows import RowReader, present_columns
from pulse_audit.datasets.layouts.utkface import age_group
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    Scan,
    SourceFile,
    data_folder,
    first_existing,
    missing,
    need_columns,
    relative,
    sha256_file,
    shown,
)
from pulse_audit.datasets.tables import read_csv
from pulse_audit.types import InputError

_IMAGES = ("images1024x1024", "thumbnails128x128", "ffhq_aging256x256", "ffhq_aging128x128")
_JSON = ("json", "ffhq-features-dataset/json", "features")
_CSV = ("ffhq_aging_labels.csv", "FFHQ-Aging-Dataset/ffhq_aging_labels.csv")


class Photos:
    """Names the photo of a number, by the shape of the folder at hand."""

    def __init__(self, card: DatasetCard, root: Path) -> None:
        folder = first_existing(data_folder(card, root), _IMAGES)
        if folder is None:
            raise missing(card, "the image folder images1024x1024/ or thumbnails128x128/", root)
        self.folder = folder
        self._nested = any(child.is_dir() for child in folder.iterdir())

    def name(self, number: int) -> str:
        """Return the photo's name below the image folder."""
        inner = f"{number // 1000 * 1000:05d}/" if self._nested else ""
        return f"{inner}{number:05d}.png"


def _in_split(card: DatasetCard, split: str, number: int) -> bool:
    if split == "all" or not card.splits:
        return True
    first, last = card.splits[split].split("-")
    return int(first) <= number <= int(last)


def scan_features(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read ``json/00000.json`` of ffhq-features: what a face service said of each photo.

    Where it saw several faces, the largest counts; where it saw none, the photo is skipped and
    listed.
    """
    folder = first_existing(data_folder(card, root), _JSON)
    if folder is None:
        raise missing(card, "the label folder json/ of ffhq-features", root)
    photos = Photos(card, root)
    found = Scan(listed=set())
    reader = RowReader(found, card, root, relative(photos.folder, root))
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        number = _number(path.stem, path)
        assert found.listed is not None
        found.listed.add(relative(photos.folder / photos.name(number), root))
        if _in_split(card, split, number):
            _add_features(reader, photos.name(number), path, digest)
    found.source_files.append(SourceFile(f"{relative(folder, root)}/*.json", digest.hexdigest()))
    return found


def _number(text: str, where: Path) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise InputError(f"{where}: {shown(text)} is not the number of an FFHQ photo; get it again")
    return int(text)


def _add_features(reader: RowReader, name: str, path: Path, digest: Any) -> None:
    data = path.read_bytes()
    digest.update(f"{path.name} {len(data)}\n".encode() + data)
    try:
        labels = _features(json.loads(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reader.scan.add("unknown_label", path.name, f"does not hold age and gender ({error!r:.60})")
        return
    if labels is None:
        message = "its labels name no face; the photo is skipped"
        reader.scan.add("missing_label", name, message, fatal=False)
        return
    for column, word in labels.items():
        reader.learn(column, [word])
    reader.add(name, path.name, labels, path, 0)


def _features(faces: Any) -> dict[str, str] | None:
    if not faces:
        return None
    largest = max(faces, key=_area)["faceAttributes"]
    years = float(largest["age"])
    if not 0 <= years <= 130:
        raise ValueError(f"age {years}")
    return {
        "gender": str(largest["gender"]),
        "age_group": age_group(years),
        "age": str(int(years)),
    }


def _area(face: Any) -> float:
    box = face.get("faceRectangle") or {"width": 0, "height": 0}
    return float(box["width"]) * float(box["height"])


def scan_aging(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read ``ffhq_aging_labels.csv``: age group and gender, given by people."""
    path = first_existing(data_folder(card, root), _CSV)
    if path is None:
        raise missing(card, _CSV[0], root)
    table = read_csv(path)
    need_columns(path, table.header, ["image_number"])
    columns = present_columns(card, table)
    photos = Photos(card, root)
    found = Scan(source_files=[sha256_file(path, relative(path, root))], listed=set())
    reader = RowReader(found, card, root, relative(photos.folder, root))
    cells = [table.column(column) for column in columns]
    for column, words in zip(columns, cells, strict=True):
        reader.learn(column, words)
    rows = zip(table.column("image_number"), *cells, strict=True)
    for row, (text, *words) in enumerate(rows, start=2):
        number = _number(text, path)
        name = photos.name(number)
        assert found.listed is not None
        found.listed.add(relative(photos.folder / name, root))
        if _in_split(card, split, number):
            labels = dict(zip(columns, words, strict=True))
            reader.add(name, f"{path.name}, row {row}", labels, path, row)
    return found
