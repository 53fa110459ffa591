"""Reading pickles without running anything in them.

A pickle is a program for a small stack machine whose instructions import and call Python objects.
This machine has no import and no call: it knows a closed list of names that build tensors, arrays
and containers, and turns whatever else would be constructed into inert data.
"""

from __future__ import annotations

import math
import pickletools
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from pulse_audit.generators.checkpoints.budget import Damaged, spend
from pulse_audit.generators.checkpoints.pickle_data import (
    MAX_DIMENSIONS,
    MAX_SIZE,
    Inert,
    Name,
    Storage,
    StoredTensor,
)

# Published snapshots have some tens of thousands of instructions.
MAX_INSTRUCTIONS = 1_000_000

Builder = Callable[..., Any]
T = TypeVar("T")
# The longest dotted name and the largest integer; above MAX_HASH integers collide in dicts.
MAX_NAME = 500
MAX_BITS = 2**13
MAX_HASH = sys.hash_info.modulus
# What the instruction MARK pushes, and what may be a key.
_MARK = object()
_PLAIN = (str, int, float, bool, bytes, type(None), Name, Inert)
# What may hold others, and what is one run of bytes.
_SIZED, _RUNS = (list, tuple, dict, set), (str, bytes)


class PickleMachine:
    """Runs one pickle and leaves the stream behind its last instruction.

    Parameters
    ----------
    builders : mapping
        Dotted name to the function that stands in for a call of it.
    persistent_load : callable, optional
        Turns a persistent id (of a storage) into an object.
    """

    def __init__(self, builders: Mapping[str, Builder], persistent_load: Builder | None = None):
        self.builders, self.persistent_load = builders, persistent_load
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """Return what the pickle in ``stream`` (bytes, or with read, readline, tell) describes.

        Raises
        ------
        Damaged
            If the stream ends early, is no pickle or builds something impossible.
        """
        # pickletools only splits the stream into instructions; what they do is decided here.
        position = 0
        try:
            for count, (opcode, argument, at) in enumerate(pickletools.genops(stream)):
                position = at or 0
                if count >= MAX_INSTRUCTIONS:
                    raise Damaged(f"it has over {MAX_INSTRUCTIONS:,} instructions")
                # Counted by 64, for speed; what a text takes is more than its bytes in the file.
                if count % 64 == 0:
                    spend(objects=64)
                if argument.__class__ in _RUNS and len(argument) > 64:
                    spend(size=sys.getsizeof(argument))
                name = opcode.name
                if name == "STOP":
                    break
                if name in _LITERALS:
                    if type(argument) is int and argument.bit_length() > MAX_BITS:
                        raise ValueError(f"an integer of over {MAX_BITS} bits")
                    self.stack.append(argument)
                elif name in _FRESH:
                    self.stack.append(_FRESH[name]())
                elif name in _HANDLERS:
                    _HANDLERS[name](self, argument)
                elif name not in ("PROTO", "FRAME"):
                    raise ValueError(f"the instruction {name} is not on the closed list")
            return self.stack.pop()
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise Damaged(f"at byte {position:,}: {reason[:120]}") from error

    def _to_mark(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _push_tuple(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(items[::-1]))

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.elements if isinstance(target, Inert) else _a(list, target)).extend(items)

    def _put(self, items: list[Any]) -> None:
        # Items come in pairs: key, value, key, value, ...
        target = self.stack[-1]
        mapping = target.items if isinstance(target, Inert) else _a(dict, target)
        for key, value in zip(items[::2], items[1::2], strict=True):
            mapping[hashable(key)] = value

    def _add_items(self) -> None:
        items = self._to_mark()
        _a(set, self.stack[-1]).update(hashable(item) for item in items)

    def _call(self, keywords: bool = False) -> None:
        """Stand in for a call: the builder of a listed name, inert data for every other."""
        # From the top: keywords, arguments, and the name of what would be called.
        kwargs = _a(dict, self.stack.pop()) if keywords else {}
        args = _a(tuple, self.stack.pop())
        name = _a(Name, self.stack.pop())
        builder = self.builders.get(str(name))
        # A builder may copy what it is given, and the same arguments may be given again and again.
        values = (args, kwargs, *args[:8], *list(kwargs.values())[:8])
        objects = sum(len(value) for value in values if isinstance(value, _SIZED))
        spend(objects=objects, size=sum(map(_size, values)))
        self.stack.append(builder(*args, **kwargs) if builder else Inert(name, args, kwargs))

    def _build(self) -> None:
        """Hand the state to what lies below it; attributes of plain containers are dropped."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, dict | list | set):
            target.build(state)

    def _name(self, module: str, name: str) -> None:
        if len(_a(str, module)) + len(_a(str, name)) > MAX_NAME:
            raise ValueError(f"a name of over {MAX_NAME} characters")
        self.stack.append(Name(module, name))

    def _persistent(self) -> None:
        if self.persistent_load is None:
            raise ValueError("it refers to data outside itself")
        self.stack.append(self.persistent_load(self.stack.pop()))


def _a(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def hashable(key: Any) -> Any:
    """Return a key of a dict or set if its hash is fast to take and hard to make collide.

    Hashing nested tuples can take for ever, and tuples of numbers and integers that differ by a
    multiple of the modulus of hashes can be chosen to have one hash.
    """
    spend(objects=1)
    if isinstance(key, tuple):
        spend(objects=len(key))
    if not isinstance(key, _PLAIN) and not (
        isinstance(key, tuple) and all(isinstance(part, str | bytes | Name) for part in key)
    ):
        raise TypeError(f"a {type(key).__name__} as a key")
    if isinstance(key, int) and abs(key) >= MAX_HASH:
        raise ValueError("an integer of over 60 bits as a key")
    return key


def _size(value: Any) -> int:
    """Bytes that a long text or a run of bytes takes; nothing for all else."""
    return sys.getsizeof(value) if isinstance(value, _RUNS) and len(value) > 64 else 0


def _sides(value: Any) -> tuple[int, ...]:
    """Return a shape or strides; Damaged if they are no short list of plain integers."""
    flat = isinstance(value, (list, tuple)) and len(value) <= MAX_DIMENSIONS
    if not flat or not all(type(n) is int and 0 <= n < MAX_SIZE for n in value):
        raise Damaged("a tensor with an impossible shape")
    return tuple(value)


# Instructions that push their own argument.
_LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    )
)
# Instructions that push a new, empty or constant object.
_FRESH: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}
# Everything else the machine does; an instruction that is in none of the three is refused.
_HANDLERS: Mapping[str, Callable[[PickleMachine, Any], Any]] = {
    "POP": lambda m, _: m.stack.pop(),
    "POP_MARK": lambda m, _: m._to_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, _: m.stack.append(tuple(m._to_mark())),
    "TUPLE1": lambda m, _: m._push_tuple(1),
    "TUPLE2": lambda m, _: m._push_tuple(2),
    "TUPLE3": lambda m, _: m._push_tuple(3),
    "APPEND": lambda m, _: m._append([m.stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._to_mark()),
    "SETITEM": lambda m, _: m._put([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m._put(m._to_mark()),
    "ADDITEMS": lambda m, _: m._add_items(),
    "FROZENSET": lambda m, _: m.stack.append({hashable(item) for item in m._to_mark()}),
    "GLOBAL": lambda m, argument: m._name(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m._name(*[m.stack.pop(), m.stack.pop()][::-1]),
    "REDUCE": lambda m, _: m._call(),
    "NEWOBJ": lambda m, _: m._call(),
    "NEWOBJ_EX": lambda m, _: m._call(keywords=True),
    "BUILD": lambda m, _: m._build(),
    "BINPERSID": lambda m, _: m._persistent(),
    "BINGET": lambda m, argument: m.stack.append(m.memo[argument]),
    "LONG_BINGET": lambda m, argument: m.stack.append(m.memo[argument]),
    "BINPUT": lambda m, argument: m.memo.__setitem__(argument, m.stack[-1]),
    "LONG_BINPUT": lambda m, argument: m.memo.__setitem__(argument, m.stack[-1]),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
}

# Codes of numpy's types.
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
        self.code = _a(str, code)

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
        shape, dtype = _sides(shape), _a(ArrayType, kind).dtype()
        _a(bytes, data)
        # Strides in numbers, of the last axis or of the first (Fortran) varying fastest.
        steps = [math.prod(shape[:i] if fortran else shape[i + 1 :]) for i in range(len(shape))]
        storage = Storage(dtype, len(data) // dtype.itemsize, lambda: data)
        self.stored = StoredTensor(storage, 0, shape, tuple(steps))

    def tensor(self) -> torch.Tensor:
        """Read the values."""
        if self.stored is None:
            raise Damaged("an array without values")
        return self.stored.tensor()


def _tensor(
    storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> StoredTensor:
    if not isinstance(storage, Storage):
        raise TypeError("a tensor without a storage")
    return StoredTensor(storage, offset, _sides(shape), _sides(stride))


def _set(items: Any = ()) -> set[Any]:
    return {hashable(item) for item in items}


def _first(value: Any, *_: object) -> Any:
    return value


def _dict(pairs: Any = (), **items: Any) -> dict[Any, Any]:
    """Return a dict (OrderedDict, EasyDict); protocol 2 gives the pairs as a list of lists."""
    return {**{hashable(key): value for key, value in pairs}, **items}


# The closed list: what stands in for the names that build tensors, arrays and containers.
BUILDERS: Mapping[str, Builder] = {
    **{f"{module}.set": _set for module in ("builtins", "__builtin__")},
    **{f"{module}.frozenset": _set for module in ("builtins", "__builtin__")},
    # Protocol 2 writes b"" as a call without arguments.
    **{f"{module}.bytes": lambda: b"" for module in ("builtins", "__builtin__")},
    "collections.OrderedDict": _dict,
    "dnnlib.EasyDict": _dict,
    "dnnlib.util.EasyDict": _dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.Size": tuple,
    # Objects of NVIDIA's torch_utils.persistence keep their state; their source code is dropped.
    "torch_utils.persistence._reconstruct_persistent_obj": lambda meta: Inert(
        Name("torch_utils.persistence", _a(str, meta["class_name"])[:MAX_NAME]), state=meta["state"]
    ),
    # Bytes as Python 2 and 3 exchange them: text in Latin-1.
    "_codecs.encode": lambda text, _: text.encode("latin1"),
    "numpy.dtype": ArrayType,
    **{f"numpy.{core}.multiarray._reconstruct": Array for core in ("core", "_core")},
    **{
        f"numpy.{core}.multiarray.scalar": lambda kind, data: float(
            Storage(kind.dtype(), 1, lambda: data).numbers()[0]
        )
        for core in ("core", "_core")
    },
}
