"""Weights and expected pixels of the public reference implementations (tests/data/*.npz).

The stylegan*_genforce and stylegan1_rosinality files were made as the others: by running the public
implementation (CPU, float32) with weights drawn by the rule, and keeping numbers only.
"""

import functools
import json
import pickle
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

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


PERSISTENT_CLASSES = {
    "synthesis": "SynthesisNetwork",
    "mapping": "MappingNetwork",
    "input": "SynthesisInput",
    "torgb": "ToRGBLayer",
    "skip": "Conv2dLayer",
    "affine": "FullyConnectedLayer",
    "embed": "FullyConnectedLayer",
}
BUFFERS = ("_filter", "noise_const", "w_avg", "_ema", "transform", "freqs", "phases")


class Persistent(nn.Module):
    """A module as NVIDIA's ``torch_utils.persistence`` pickles it: its state and source code."""

    source = ""
    reconstruct = None

    def __init__(self, name: str, init_kwargs: dict):
        super().__init__()
        self._class_name, self._init_args, self._init_kwargs = name, (), init_kwargs

    def __reduce__(self):
        state = {k: v for k, v in self.__dict__.items() if k != "_class_name"}
        meta = {"type": "class", "version": 6, "module_src": type(self).source}
        meta |= {"class_name": self._class_name, "state": state}
        return type(self).reconstruct, (meta,), None


def _class_of(name: str) -> str:
    if name in PERSISTENT_CLASSES:
        return PERSISTENT_CLASSES[name]
    if name.startswith("fc"):
        return "FullyConnectedLayer"
    return "SynthesisBlock" if name.startswith("b") else "SynthesisLayer"


def persistent_module(state: dict[str, Tensor], init: dict, synthesis: dict) -> Persistent:
    """The ``G_ema`` of a snapshot: modules, parameters, buffers and attributes as there."""
    root = Persistent("Generator", init)
    for key, value in state.items():
        *path, leaf = key.split(".")
        module = root
        for name in path:
            if name not in module._modules:
                child = Persistent(_class_of(name), synthesis if name == "synthesis" else {})
                child.conv_clamp, child.activation = synthesis.get("conv_clamp"), "lrelu"
                child.bias_gain = 0.01 if name.startswith("fc") else 1
                module.add_module(name, child)
            module = module._modules[name]
        if leaf.endswith(BUFFERS):
            module.register_buffer(leaf, value)
        else:
            module.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    return root


def write_snapshot(path, state, init, synthesis, source="raise RuntimeError"):
    """Write a snapshot pickle with NVIDIA's names, its source text being ``source``."""
    persistence, util = ModuleType("torch_utils.persistence"), ModuleType("dnnlib.util")
    exec("def _reconstruct_persistent_obj(meta): ...", persistence.__dict__)
    exec("class EasyDict(dict): ...", util.__dict__)
    packages = {"torch_utils": ModuleType("torch_utils"), "dnnlib": ModuleType("dnnlib")}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in {**packages, persistence.__name__: persistence}.items():
            patch.setitem(sys.modules, name, module)
        patch.setitem(sys.modules, util.__name__, util)
        patch.setattr(Persistent, "source", source)
        patch.setattr(
            Persistent, "reconstruct", staticmethod(persistence._reconstruct_persistent_obj)
        )
        module = persistent_module(state, util.EasyDict(init), synthesis)
        snapshot = {"G": module, "D": Persistent("Discriminator", {}), "G_ema": module}
        settings = util.EasyDict(class_name="training.dataset.ImageFolderDataset", xflip=True)
        snapshot |= {"augment_pipe": None, "training_set_kwargs": settings}
        path.write_bytes(pickle.dumps(snapshot))
    return path


@pytest.fixture
def write_nvidia():
    return write_snapshot


@pytest.fixture(scope="session")
def conformance():
    """Read a file of tests/data by name, once."""
    return functools.cache(read_conformance)
