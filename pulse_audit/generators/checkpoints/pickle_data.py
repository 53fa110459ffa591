"""Tensors and objects of a pickle as inert data, whose declared sizes are checked when read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pulse_audit.generators.checkpoints.budget import Damaged, spend

MAX_DIMENSIONS = 8
MAX_SIZE = 2**40


@dataclass
class Storage:
    """A run of ``count`` numbers somewhere in a file; ``read`` returns their bytes."""

    dtype: torch.dtype
    count: int
    read: Callable[[], bytes] | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * self.dtype.itemsize

    def numbers(self) -> Tensor:
        """Read the values (count,).

        Raises
        ------
        Damaged
            If the file holds another number of bytes than it declares.
        """
        data = self.read() if self.read else b""
        if len(data) != self.nbytes:
            raise Damaged(f"a storage declares {self.nbytes:,} bytes and has {len(data):,}")
        # A view keeps its whole storage, which is read anew for each tensor, widened to float32.
        spend(size=self.count * max(4, self.dtype.itemsize))
        if not data:
            return torch.empty(0, dtype=self.dtype)
        # A copy: tensors must not be views of a file that may change.
        return torch.frombuffer(bytearray(data), dtype=self.dtype)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def tensor(self) -> Tensor:
        """Read the values; floating-point types come as float32.

        Raises
        ------
        Damaged
            If the view repeats or leaves its storage: a few bytes could declare terabytes.
        """
        # Everything here comes from the file: check it before anything is allocated.
        numbers = (self.offset, *self.shape, *self.stride)
        flat = len(self.shape) == len(self.stride) <= MAX_DIMENSIONS
        if not flat or not all(type(n) is int and 0 <= n < MAX_SIZE for n in numbers):
            raise Damaged("a tensor with an impossible shape")
        steps = zip(self.shape, self.stride, strict=True)
        last = self.offset + sum((size - 1) * step for size, step in steps)
        count = math.prod(self.shape)
        if count and max(count, last + 1) > self.storage.count:
            raise Damaged(
                f"a tensor of shape {self.shape} in a storage of {self.storage.count:,} numbers"
            )
        # Half precision is widened; integers stay as they are.
        out = self.storage.numbers().as_strided(self.shape, self.stride, self.offset)
        return (out.float() if out.is_floating_point() else out).contiguous()


@dataclass(frozen=True)
class Name:
    """A global name in a pickle: never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        """Dotted path."""
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """An object of a class that is not on the closed list, as data.

    ``args`` and ``kwargs`` are what its constructor would have been given, ``state`` what would
    have been set on it, ``items`` and ``elements`` what would have been put into it.
    """

    name: Name
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def build(self, state: Any) -> None:
        """Keep the state as data."""
        self.state = state

    def attribute(self, key: str, default: Any = None) -> Any:
        """Return an attribute from the state, or the default."""
        return self.state.get(key, default) if isinstance(self.state, dict) else default
