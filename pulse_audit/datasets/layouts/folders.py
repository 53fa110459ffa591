"""Data sets without label tables: the labels are the names of folders or files, or there are none.

UTKFace, RFW and BUPT-Balancedface, LFW, and the faces that scikit-image ships.
"""

from __future__ import annotations

import re
from pathlib import Path

from pulse_audit.datasets.images import BundledImage
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    RowReader,
    Scan,
    age_group,
    data_folder,
    first_existing,
    hash_file,
    images_below,
    not_found,
    relative,
)
from pulse_audit.types import Face

# ASCII digits only: others, such as full-width ones, are no ages.
_UTKFACE_NAME = re.compile(r"^([0-9]{1,3})_([0-9])_([0-9])_[^_]+$")
# Largest value of each field; higher ages are mistakes in the file name.
_UTKFACE_LARGEST = {"age": 116, "gender": 1, "race": 4}
# Where the archive and public copies keep the folders of the persons.
_LFW_FOLDERS = ("lfw", "lfw-py/lfw_funneled", "lfw_funneled", "lfw-deepfunneled", ".")
_BUNDLED_FACES = 100


def scan_utkface(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read UTKFace: ``[age]_[gender]_[race]_[date].jpg``; there are no splits.

    Published copies hold a few names that lack a part (three in the aligned archive lack the
    race); those files are skipped and listed.
    """
    base = data_folder(card, root)
    scan = Scan()
    reader = RowReader(scan, card, root, relative(base, root))
    for name in images_below(base, scan):
        match = _UTKFACE_NAME.match(name.rsplit("/", 1)[-1])
        if match is None:
            message = "the name is not [age]_[gender]_[race]_[date].jpg; the file is skipped"
            scan.add("malformed_name", name, message, fatal=False)
            continue
        fields = dict(zip(_UTKFACE_LARGEST, map(int, match.groups()), strict=True))
        beyond = [
            f"{field} {fields[field]} is not 0 to {largest}"
            for field, largest in _UTKFACE_LARGEST.items()
            if fields[field] > largest
        ]
        if beyond:
            message = f"{' and '.join(beyond)}; the file is skipped"
            scan.add("malformed_name", name, message, fatal=False)
            continue
        # Gender and race are class ids; the card says which words they stand for.
        years = fields["age"]
        labels = {
            "race": card.class_ids["race"][fields["race"]],
            "gender": card.class_ids["gender"][fields["gender"]],
            "age_group": age_group(years),
            "age": str(years),
        }
        reader.add(name, name, labels)
    if not scan.faces and not any(problem.fatal for problem in scan.problems):
        raise not_found(card, "photos named [age]_[gender]_[race]_[date].jpg", base)
    return scan


def scan_race_folders(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read RFW or BUPT-Balancedface: ``<race>/<identity>/<photo>.jpg``; there are no splits.

    The race is that of the person. RFW's lists below ``txts`` are hashed.
    """
    base = data_folder(card, root)
    scan = Scan()
    reader = RowReader(scan, card, root, relative(base, root))
    for name in images_below(base, scan):
        # Photos are two folders deep; other files are skipped and listed.
        race, *rest = name.split("/")
        if len(rest) == 2:
            reader.add(name, name, {"race": race})
        else:
            message = "is not <race>/<identity>/<photo>; the file is skipped"
            scan.add("malformed_name", name, message, fatal=False)
    if not scan.faces and not scan.problems:
        raise not_found(card, "photos in <race>/<identity>/", base)
    # The label files that RFW has: which photos are compared with which.
    lists = sorted((root / "txts").rglob("*.txt"))
    scan.source_files += [hash_file(path, root) for path in lists]
    return scan


def scan_lfw(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read LFW: ``<person>/<person>_0001.jpg``, without labels and without splits."""
    base = first_existing(root, _LFW_FOLDERS) or root
    scan = Scan()
    reader = RowReader(scan, card, root, relative(base, root))
    for name in images_below(base, scan):
        reader.add(name, name, {})
    if not scan.faces and not any(problem.fatal for problem in scan.problems):
        raise not_found(card, "photos in <person>/", base)
    return scan


def scan_bundled(card: DatasetCard, root: Path, split: str) -> Scan:
    """List the faces of scikit-image, without labels: 100 of ``lfw_subset``, and the astronaut."""
    # Grey faces of 25 px first, then one in colour of 170 px.
    faces = [Face(f"lfw_subset/{i:03d}.png", BundledImage(i), {}) for i in range(_BUNDLED_FACES)]
    return Scan(faces=[*faces, Face("astronaut.png", BundledImage(-1), {})])
