"""Weights and expected pixels of the public reference implementations (tests/data/*.npz).

The stylegan*_genforce and stylegan1_rosinality files were made as the others: by running the public
implementation (CPU, float32) with weights drawn by the rule, and keeping numbers only.
"""

import functools
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

DATA = Path(__file__).resolve().parents[1] / "data"


def draw(key: str, shape: tuple[int, ...], scale: float | str = 1.0) -> Tensor:
    """The stated rule: a normal draw seeded by the name of the tensor."""
    values = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    values = torch.from_numpy(np.asarray(values, dtype="float32"))
    return 0.1 * values + 1 if scale == "1+0.1" else values * scale


@dataclass
class Conformance:
    """One file: ``state`` by the rule, the arrays of the reference and its settings."""

    init: dict
    arrays: dict[str, np.ndarray]
    state: dict[str, Tensor]

    def inputs(self, name: str, *shape: int) -> Tensor:
        return draw(name, shape)

    def error(self, images: Tensor, expected: str) -> float:
        """Largest difference at the stored pixels, over the largest expected value."""
        pixels = images.reshape(len(images), -1)[:, self.arrays["pixel_index"]]
        return self.relative(pixels, expected)

    def relative(self, values: Tensor, expected: str) -> float:
        wanted = self.arrays[expected]
        return float(np.abs(values.numpy() - wanted).max() / np.abs(wanted).max())


def _kept(key: str, shape: list[int], arrays: dict[str, np.ndarray]) -> Tensor:
    """A constant of the implementation: stored, or a low-pass filter known from its size."""
    if f"keep/{key}" in arrays:
        return torch.from_numpy(np.asarray(arrays[f"keep/{key}"]))
    line = torch.tensor([1.0, 2, 1] if shape[-1] == 3 else [1.0, 3, 3, 1])
    taps = torch.outer(line, line) / line.sum() ** 2
    # Both rosinality and genforce store the upsampling filter times four.
    taps = taps * 4 if shape[-1] == 4 and key.endswith(".kernel") else taps
    return taps.expand(shape).clone()


def read_conformance(name: str) -> Conformance:
    arrays = dict(np.load(DATA / f"{name}.npz"))
    meta = json.loads(str(arrays.pop("meta")))
    state = {
        key: _kept(key, shape, arrays) if scale == "keep" else draw(key, tuple(shape), scale)
        for key, (scale, shape) in meta["rule"].items()
    }
    return Conformance(meta.get("init", {}), arrays, state)


@pytest.fixture(scope="session")
def conformance():
    """Read a file of tests/data by name, once."""
    return functools.cache(read_conformance)
