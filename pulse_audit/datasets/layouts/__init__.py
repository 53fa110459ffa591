"""The layouts of data folders: one function each, from a folder to a `Scan`.

A new layout is one function ``(card, root, split) -> Scan`` in the file of what it reads (folders,
label tables, Parquet files), its name in ``registry.LayoutName`` and below, one entry in
``datasets.yaml`` and one test.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pulse_audit.datasets.layouts import ffhq, fhibe, folders, label_tables, parquet
from pulse_audit.datasets.registry import DatasetCard, LayoutName
from pulse_audit.datasets.scan import Scan

Layout = Callable[[DatasetCard, Path, str], Scan]

LAYOUTS: dict[LayoutName, Layout] = {
    "bundled": folders.scan_bundled,
    "celeba": label_tables.scan_celeba,
    "fairface": label_tables.scan_fairface,
    "ffhq-aging": ffhq.scan_aging,
    "ffhq-features": ffhq.scan_features,
    "fhibe": fhibe.scan_fhibe,
    "folder": label_tables.scan_folder,
    "lfw": folders.scan_lfw,
    "parquet": parquet.scan_parquet,
    "race-folders": folders.scan_race_folders,
    "utkface": folders.scan_utkface,
}
