"""UTKFace: the labels are the file name, ``[age]_[gender]_[race]_[date].jpg``.

Published copies hold a few names that lack a part (three in the aligned archive lack the race);
those files are skipped and listed.
"""

from __future__ import annotations

import re
from pathlib import Path

from pulse_audit.datasets.layouts.rows import RowReader
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Scan, data_folder, images_below, missing, relative

_NAME = re.compile(r"^(\d{1,3})_([01])_([0-4])_[^_]+$")
_OLDEST = 116

# The lowest age of each group: FairFace's groups, so that both data sets read alike.
_GROUPS = (
    (70, "more than 70"),
    (60, "60-69"),
    (50, "50-59"),
    (40, "40-49"),
    (30, "30-39"),
    (20, "20-29"),
    (10, "10-19"),
    (3, "3-9"),
    (0, "0-2"),
)


def age_group(years: float) -> str:
    """Return FairFace's age group of an age in years; 70 itself is ``more than 70``."""
    return next(word for lowest, word in _GROUPS if years >= lowest)


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read the labels off the file names; there are no splits."""
    base = data_folder(card, root)
    found = Scan()
    reader = RowReader(found, card, root, relative(base, root))
    for name in images_below(base):
        labels = _labels(card, name.rsplit("/", 1)[-1])
        if labels is None:
            message = "the name is not [age]_[gender]_[race]_[date].jpg; the file is skipped"
            found.add("malformed_name", name, message, fatal=False)
        else:
            reader.add(name, name, labels, base, 0)
    if not found.faces:
        raise missing(card, "photos named [age]_[gender]_[race]_[date].jpg", base)
    return found


def _labels(card: DatasetCard, file_name: str) -> dict[str, str] | None:
    match = _NAME.match(file_name)
    if match is None or int(match[1]) > _OLDEST:
        return None
    years = int(match[1])
    return {
        "race": card.class_ids["race"][int(match[3])],
        "gender": card.class_ids["gender"][int(match[2])],
        "age_group": age_group(years),
        "age": str(years),
    }
