import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pulse_audit.training.config import GanConfig, read_gan_config
from pulse_audit.training.data import TrainingSet


@pytest.fixture
def config() -> GanConfig:
    """A run of the shipped kind, but of 8 px and a few features."""
    tiny = {
        "name": "tiny-8",
        "resolution": 8,
        "composition": {"A": 16, "B": 4},
        "held_out_per_cell": 2,
        "channels": (8, 8),
        "latent_dim": 16,
        "mapping_layers": 2,
        "batch": 8,
        "budget_kimg": 1.0,
        "r1_interval": 4,
        "ada_kimg": 1.0,
        "precision": "float32",
    }
    return GanConfig(**{**read_gan_config("faces-balanced-32").model_dump(), **tiny})


@pytest.fixture
def training() -> TrainingSet:
    """Twenty photos of noise."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    names = tuple(f"{index}.png" for index in range(20))
    return TrainingSet(images, names, ("A",) * 16 + ("B",) * 4, ("",) * 20)


def encoded(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (12, 12), (value, value, value)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def faces() -> pd.DataFrame:
    """Two races, two genders, three ages, unevenly; every eleventh photo is nearly black."""
    source = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "file": [f"train/{index}.jpg" for index in range(120)],
            "image": [encoded(5 if index % 11 == 0 else 100 + index) for index in range(120)],
            "age": source.choice(["0-2", "20-29", "60-69"], 120, p=[0.1, 0.6, 0.3]),
            "gender": source.choice(["Female", "Male"], 120),
            "race": source.choice(["A", "B"], 120, p=[0.7, 0.3]),
        }
    )
