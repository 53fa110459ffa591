"""The closed list: what stands in for the names that build tensors, arrays and containers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from pulse_audit.generators.checkpoints.pickle_data import (
    MAX_DIMENSIONS,
    Bytes,
    Damaged,
    Inert,
    Name,
    Storage,
    StoredTensor,
)
from pulse_audit.generators.checkpoints.unpickle import Builder, hashable

_ARRAYS = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}


class ArrayType:
    """A numpy dtype: its code, little-endian or Damaged when built."""

    def __init__(self, code: str, *_: object):
        self.code = code

    def build(self, state: Any) -> None:
        """Check the byte order of ``(version, order, ...)``."""
        if state[1] == ">":
            raise Damaged("it holds big-endian numbers")

    def dtype(self) -> torch.dtype:
        """Return the PyTorch type."""
        return _ARRAYS[self.code]


class Array:
    """A numpy array under construction; becomes a tensor like the others."""

    def __init__(self, *_: object):
        self.stored: StoredTensor | None = None

    def build(self, state: Any) -> None:
        """Take ``(version, shape, dtype, Fortran order, bytes)``."""
        _, shape, kind, fortran, data = state
        if len(shape) > MAX_DIMENSIONS:
            raise Damaged("an array of impossible shape")
        dtype = kind.dtype()
        steps = [math.prod(shape[:i] if fortran else shape[i + 1 :]) for i in range(len(shape))]
        storage = Storage(dtype, len(data) // dtype.itemsize, Bytes(data))
        self.stored = StoredTensor(storage, 0, tuple(shape), tuple(steps))

    def tensor(self) -> torch.Tensor:
        """Read the values."""
        if self.stored is None:
            raise Damaged("an array without values")
        return self.stored.tensor()


def _scalar(kind: ArrayType, data: bytes) -> float:
    """One numpy number."""
    storage = Storage(kind.dtype(), 1, Bytes(data))
    return float(storage.numbers()[0])


def _encoded(text: str, _: str) -> bytes:
    """Bytes as Python 2 and 3 exchange them: text in Latin-1."""
    return text.encode("latin1")


def _tensor(
    storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return StoredTensor(storage, offset, tuple(shape), tuple(stride))


def _persistent_object(meta: dict[str, Any]) -> Inert:
    """Keep the state of an object of NVIDIA's ``torch_utils.persistence``, drop its source."""
    name = Name("torch_utils.persistence", str(meta["class_name"]))
    return Inert(name, state=meta["state"])


def _set(items: Any = ()) -> set[Any]:
    return {hashable(item) for item in items}


def _no_bytes() -> bytes:
    """Return b"", which protocol 2 writes as a call without arguments."""
    return b""


def _first(value: Any, *_: object) -> Any:
    return value


def _dict(pairs: Any = (), **items: Any) -> dict[Any, Any]:
    """Return a dict (OrderedDict, EasyDict); protocol 2 gives the pairs as a list of lists."""
    return {**{hashable(key): value for key, value in pairs}, **items}


BUILDERS: Mapping[str, Builder] = {
    **{f"{module}.set": _set for module in ("builtins", "__builtin__")},
    **{f"{module}.frozenset": _set for module in ("builtins", "__builtin__")},
    **{f"{module}.bytes": _no_bytes for module in ("builtins", "__builtin__")},
    "collections.OrderedDict": _dict,
    "dnnlib.EasyDict": _dict,
    "dnnlib.util.EasyDict": _dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": tuple,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent_object,
    "_codecs.encode": _encoded,
    "numpy.dtype": ArrayType,
    **{
        f"numpy.{core}.multiarray.{name}": builder
        for core in ("core", "_core")
        for name, builder in (("_reconstruct", Array), ("scalar", _scalar))
    },
}
