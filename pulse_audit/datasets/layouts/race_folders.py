"""RFW and BUPT-Balancedface: ``<race>/<identity>/<photo>.jpg``; the race is that of the person."""

from __future__ import annotations

from pathlib import Path

from pulse_audit.datasets.layouts.rows import RowReader
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import (
    Scan,
    data_folder,
    images_below,
    missing,
    relative,
    sha256_file,
)


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """Walk the race folders; there are no splits. RFW's lists below ``txts`` are hashed."""
    base = data_folder(card, root)
    found = Scan()
    reader = RowReader(found, card, root, relative(base, root))
    for name in images_below(base):
        race, *rest = name.split("/")
        if len(rest) != 2:
            message = "is not <race>/<identity>/<photo>; the file is skipped"
            found.add("malformed_name", name, message, fatal=False)
        else:
            reader.learn("race", [race])
            reader.add(name, name, {"race": race}, base, 0)
    if not found.faces and not found.problems:
        raise missing(card, "photos in <race>/<identity>/", base)
    for path in sorted((root / "txts").rglob("*.txt")):
        found.source_files.append(sha256_file(path, relative(path, root)))
    return found
