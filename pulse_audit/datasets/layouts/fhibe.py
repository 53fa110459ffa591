"""FHIBE's face crops: one wide CSV for all, whose cells are lists of numbered words.

The layout is that of the release and of its evaluation code (SonyResearch/fhibe_evaluation_api).
"""

from __future__ import annotations

import re
from pathlib import Path

from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    RowReader,
    Scan,
    age_group,
    data_folder,
    hash_file,
    not_found,
    relative,
)
from pulse_audit.datasets.tables import read_columns

LABELS = "data/processed/fhibe_face_crop_align/fhibe_face_crop_align.csv"
#: Who selected several words of a list is in a group of its own.
SEVERAL = "more than one"
#: The regions of ancestry; each is followed by the numbers of its subregions.
REGIONS = {"Africa": range(6), "Americas": range(6, 11), "Asia": range(11, 17),
           "Europe": range(17, 22), "Oceania": range(22, 27)}  # fmt: skip
#: The six colours from which skin colours are selected, by their numbers.
SKIN = ("Dark (VI)", "Brown (V)", "Tan (IV)", "Intermediate (III)", "Light (II)", "Very light (I)")

_COLUMNS = (
    "filepath", "subject_id", "consent", "pronoun", "ancestry", "age", "natural_skin_color",
    "apparent_skin_color",
)  # fmt: skip
# A numbered word within a list or alone: "0. She/her/hers", "2. [164, 131, 103]".
_NUMBERED = re.compile(r"(?:^|['\"])\s*(\d{1,3})\. ([^'\"]*)")


def scan_fhibe(card: DatasetCard, root: Path, split: str) -> Scan:
    """Read FHIBE's aligned face crops: one photo of each person, the first in the file.

    Several photos of a person are no independent faces. Rows without consent are skipped and
    listed. The folder is the unpacked archive or the one that holds it.
    """
    bases = [data_folder(card, root), *sorted(root.glob("fhibe*public*"))]
    base = next((base for base in bases if (base / LABELS).is_file()), None)
    if base is None:
        raise not_found(card, LABELS, root)
    path = base / LABELS
    table = read_columns(path, _COLUMNS)
    scan = Scan(source_files=[hash_file(path, root)])
    prefix = relative(base, root)
    reader, people = RowReader(scan, card, root, prefix), set[str]()
    for number, (file, person, consent, *cells) in enumerate(table.rows, start=2):
        where = f"{path.name}, row {number}"
        if consent != "True":
            scan.add("no_consent", where, "is without consent and left out", fatal=False)
        elif person not in people:
            people.add(person)
            reader.add(file, where, _labels(*cells))
    return scan


def _labels(pronoun: str, ancestry: str, age: str, natural: str, apparent: str) -> dict[str, str]:
    """Words of the vocabulary from the cells of a row; a cell that is none stays as it is."""
    pronouns = list(dict.fromkeys(word for _, word in _NUMBERED.findall(pronoun)))
    numbers = [int(number) for number, _ in _NUMBERED.findall(ancestry)]
    regions = [name for name, own in REGIONS.items() if {*own} & {*numbers}]
    return {
        "pronoun": _one(pronouns, pronoun),
        "ancestry": _one(regions, ancestry),
        "age": age,
        "age_group": age_group(int(age)) if re.fullmatch(r"[0-9]{1,3}", age) else age,
        "natural_skin_color": _skin(natural),
        "apparent_skin_color": _skin(apparent),
    }


def _one(words: list[str], cell: str) -> str:
    return SEVERAL if len(words) > 1 else words[0] if words else cell


def _skin(cell: str) -> str:
    """Name a colour, such as ``2. [164, 131, 103]``, after its Fitzpatrick type."""
    match = re.match(r"\s*([0-5])\. \[", cell)
    return SKIN[int(match[1])] if match else cell
