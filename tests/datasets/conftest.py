"""Tiny data sets of noise, in the layouts that the readers know."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_audit.datasets.registry import Registry, load_registry

FAIRFACE = "file,age,gender,race,service_test"

Write = Callable[..., Path]


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_registry()


@pytest.fixture
def photo() -> Write:
    """Write one photo of noise; another seed, another photo."""

    def write(path: Path, seed: int = 0, size: int = 8) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def fairface(tmp_path: Path, photo: Write) -> Callable[..., Path]:
    """Write a FairFace root: rows as text, without the header; photos for rows that have none."""

    def write(*rows: str, header: str = FAIRFACE, split: str = "val", inner: str = ".") -> Path:
        root = tmp_path / "root"
        base = root / inner
        (base / split).mkdir(parents=True, exist_ok=True)
        text = "\n".join([header, *rows]) + "\n"
        (base / f"fairface_label_{split}.csv").write_text(text, encoding="utf-8")
        for number, row in enumerate(rows):
            name = row.split(",")[0]
            if ".." not in name and name.startswith(split):
                photo(base / name, number)
        return root

    return write
