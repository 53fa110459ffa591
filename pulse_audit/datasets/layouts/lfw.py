"""LFW: ``<person>/<person>_0001.jpg``; it carries no demographic labels."""

from __future__ import annotations

from pathlib import Path

from pulse_audit.datasets.layouts.rows import RowReader
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Scan, first_existing, images_below, missing, relative

_FOLDERS = ("lfw", "lfw-py/lfw_funneled", "lfw_funneled", "lfw-deepfunneled", ".")


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """List the photos of every person; there are no splits."""
    base = first_existing(root, _FOLDERS) or root
    found = Scan()
    reader = RowReader(found, card, root, relative(base, root))
    for name in images_below(base):
        reader.add(name, name, {}, base, 0)
    if not found.faces:
        raise missing(card, "photos in <person>/", base)
    return found
