"""Faces that scikit-image ships, for trying things out: no download, no labels."""

from __future__ import annotations

from pathlib import Path

from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.datasets.scan import Scan
from pulse_audit.datasets.sources import BundledImage
from pulse_audit.types import Face

_LFW_FACES = 100


def scan(card: DatasetCard, root: Path, split: str) -> Scan:
    """List the 100 faces of ``lfw_subset`` and the astronaut's; ``root`` is not used."""
    faces = [Face(f"lfw_subset/{i:03d}.png", BundledImage(i), {}) for i in range(_LFW_FACES)]
    return Scan(faces=[*faces, Face("astronaut.png", BundledImage(-1), {})])
