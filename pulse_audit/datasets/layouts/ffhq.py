"""FFHQ with the labels of others: ffhq-features (JSON per photo) or FFHQ-Aging (one CSV).

Photos are ``images1024x1024``, ``thumbnails128x128`` or FFHQ-Aging's ``ffhq_aging256x256``, either
flat (``00000.png``) or in folders of a thousand (``00000/00000.png``). FFHQ has no race label.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    RowReader,
    Scan,
    SourceFile,
    age_group,
    data_folder,
    first_existing,
    hash_file,
    label_columns,
    not_found,
    quote,
    relative,
    require_columns,
)
from pulse_audit.datasets.tables import read_csv
from pulse_audit.documents import parse_json
from pulse_audit.types import InputError

# Where archives and public copies keep the photos and the labels.
_IMAGES = ("images1024x1024", "thumbnails128x128", "ffhq_aging256x256", "ffhq_aging128x128")
_JSON = ("json", "ffhq-features-dataset/json", "features")
_CSV = ("ffhq_aging_labels.csv", "FFHQ-Aging-Dataset/ffhq_aging_labels.csv")


class PhotoNumbers:
    """The photos of a folder by their numbers: names, and which of them belong to a split."""

    def __init__(self, card: DatasetCard, root: Path, split: str) -> None:
        folder = first_existing(data_folder(card, root), _IMAGES)
        if folder is None:
            raise not_found(card, "the image folder images1024x1024/ or thumbnails128x128/", root)
        self.folder = relative(folder, root)
        # Copies are flat, or in folders of a thousand photos.
        self._nested = any(child.is_dir() for child in folder.iterdir())
        # A split is a range of numbers, and numbers have five digits.
        whole = split == "all" or not card.splits
        bounds = "0-99999" if whole else card.splits[split]
        self._first, self._last = (int(bound) for bound in bounds.split("-"))

    def parse(self, text: str, where: Path) -> int:
        """Read the number of a photo; InputError where the text is none."""
        if not (text.isascii() and text.isdigit() and len(text) <= 5):
            raise InputError(
                f"{where}: {quote(text)} is not the number of an FFHQ photo; get it again"
            )
        return int(text)

    def name(self, number: int) -> str:
        """Return the photo's name below the image folder."""
        inner = f"{number // 1000 * 1000:05d}/" if self._nested else ""
        return f"{inner}{number:05d}.png"

    def in_split(self, number: int) -> bool:
        """Whether the photo belongs to the split."""
        return self._first <= number <= self._last


def scan_features(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read ``json/00000.json`` of ffhq-features: what a face service found in each photo.

    Where it found several faces, the largest counts; where it found none, the photo is skipped and
    listed.
    """
    folder = first_existing(data_folder(card, root), _JSON)
    if folder is None:
        raise not_found(card, "the label folder json/ of ffhq-features", root)
    photos = PhotoNumbers(card, root, split)
    listed: set[str] = set()
    scan = Scan(listed=listed)
    reader = RowReader(scan, card, root, photos.folder)
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.json")):
        number = photos.parse(path.stem, path)
        name = photos.name(number)
        listed.add(f"{photos.folder}/{name}")
        if not photos.in_split(number):
            continue
        data = path.read_bytes()
        # One digest over the names, sizes and bytes of all label files of the split.
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
        # The labels of the largest face; a file of another shape is a problem of its own.
        try:
            labels = _largest_face(parse_json(data, path.name))
        except (ValueError, TypeError, KeyError, AttributeError, InputError) as error:
            message = f"does not hold age and gender ({error!r:.90})"
            scan.add("unknown_label", path.name, message)
            continue
        if labels is None:
            message = "its labels name no face; the photo is skipped"
            scan.add("missing_label", name, message, fatal=False)
        else:
            reader.add(name, path.name, labels)
    scan.source_files.append(SourceFile(f"{relative(folder, root)}/*.json", digest.hexdigest()))
    return scan


def _largest_face(faces: Any) -> dict[str, str] | None:
    """Return the labels of the largest of the faces in a photo, None where there is none."""

    def area(face: Any) -> float:
        box = face.get("faceRectangle") or {"width": 0, "height": 0}
        return float(box["width"]) * float(box["height"])

    if not faces:
        return None
    largest = max(faces, key=area)["faceAttributes"]
    # Python also reads digits of other scripts, such as full-width ones.
    text = str(largest["age"])
    years = float(text) if text.isascii() else math.nan
    if not 0 <= years <= 130:
        raise ValueError(f"age {text[:20]!r} is not a number from 0 to 130")
    return {
        "gender": str(largest["gender"]),
        "age_group": age_group(years),
        "age": str(int(years)),
    }


def scan_aging(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read ``ffhq_aging_labels.csv``: age group and gender, given by people."""
    path = first_existing(data_folder(card, root), _CSV)
    if path is None:
        raise not_found(card, _CSV[0], root)
    table = read_csv(path)
    require_columns(path, table.header, ["image_number"])
    columns = label_columns(card, path, table.header)
    photos = PhotoNumbers(card, root, split)
    listed: set[str] = set()
    scan = Scan(source_files=[hash_file(path, root)], listed=listed)
    reader = RowReader(scan, card, root, photos.folder)
    cells = [table.column(column) for column in columns]
    # All numbers are listed; only those of the split become faces.
    rows = zip(table.column("image_number"), *cells, strict=True)
    for row, (text, *words) in enumerate(rows, start=2):
        number = photos.parse(text, path)
        name = photos.name(number)
        listed.add(f"{photos.folder}/{name}")
        if photos.in_split(number):
            labels = dict(zip(columns, words, strict=True))
            reader.add(name, f"{path.name}, row {row}", labels, cell=(path, row))
    return scan
