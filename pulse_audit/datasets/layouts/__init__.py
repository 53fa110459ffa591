"""One file per layout: from a data folder to a `Scan`. ``LAYOUTS`` names them all.

A new layout is one function ``(card, root, split) -> Scan`` here, its name in
``registry.LayoutName``, one entry in ``datasets.yaml`` and one test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pulse_audit.datasets.layouts import (
    bundled,
    celeba,
    fairface,
    ffhq,
    folder,
    lfw,
    parquet,
    race_folders,
    utkface,
)
from pulse_audit.datasets.registry import DatasetCard, LayoutName
from pulse_audit.datasets.scan import Scan

Layout = Callable[[DatasetCard, Path, str], Scan]

LAYOUTS: dict[LayoutName, Layout] = {
    "bundled": bundled.scan,
    "celeba": celeba.scan,
    "fairface": fairface.scan,
    "ffhq-aging": ffhq.scan_aging,
    "ffhq-features": ffhq.scan_features,
    "folder": folder.scan,
    "lfw": lfw.scan,
    "parquet": parquet.scan,
    "race-folders": race_folders.scan,
    "utkface": utkface.scan,
}
