"""Small files that ask for hours or for all memory: one line each, within seconds and megabytes."""

import json
import os
import pickle
import resource
import struct
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch

from pulse_audit.files import write_card
from pulse_audit.generators.checkpoints import budget, read_checkpoint
from pulse_audit.types import InputError

PROTOCOL = b"\x80\x04"
# What one refusal may take at most: seconds of this thread, and growth of the process.
SECONDS, BYTES = 20, 2**30


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    return b"\x8b" + struct.pack("<i", size) + value.to_bytes(size, "little", signed=True)


def named(module: str, name: str) -> bytes:
    """Push a name, which goes to the memo and stays on the stack."""
    return text(module) + text(name) + b"\x93"


def doubled(count: int) -> bytes:
    """Push a tuple of two of a tuple of two of ...: 2**count leaves."""
    return b"N\x85" + b"2\x86" * count


def module(name: str = "a.B") -> bytes:
    """Push an object of an unknown class; its state follows."""
    return named("a", "B") + b")\x81"


def nested_modules(depth: int, fan: int) -> bytes:
    """A module that holds the next one ``fan`` times, and so on."""
    out = module() + b"}" + text("_parameters") + b"}" + text("w") + b"Nssb\x94"
    for level in range(depth):
        children = b"".join(text(f"c{i}") + b"h" + bytes([level]) + b"s" for i in range(fan))
        out += module() + b"}" + text("_modules") + b"}" + children + b"sb\x94"
    return out


INTEGERS = b"".join(integer(i * (2**61 - 1)) for i in range(1, 60_000))
COLLIDING = b"".join(integer(i * (2**61 - 1)) + b"N" for i in range(1, 60_000))
PAIRS = b"".join(integer(i) + integer(-i) + b"\x86N" for i in range(1, 1000))
LONG_LIST = b"](" + b"N" * 100_000 + b"e\x94"
PICKLES = {
    "nested data as a key of the whole": b"}" + doubled(40) + b"Ns",
    "nested data as a class": named("torch_utils.persistence", "_reconstruct_persistent_obj")
    + b"}"
    + text("class_name")
    + doubled(40)
    + b"s\x85R",
    "nested data as the code of an array": named("numpy", "dtype") + doubled(40) + b"\x85R",
    "keys that collide": b"}(" + COLLIDING + b"u",
    "pairs of numbers as keys": b"}(" + PAIRS + b"u",
    "keys of a set that collide": b"\x8f("
    + b"".join(integer(i * (2**61 - 1)) for i in range(1, 60_000))
    + b"\x90",
    "a list copied again and again": LONG_LIST
    + named("torch", "Size")
    + b"\x94"
    + b"h\x01h\x00\x85R" * 5000,
    "text encoded again and again": text("x" * 2**20)
    + b"\x94"
    + named("_codecs", "encode")
    + b"\x94"
    + b"h\x01h\x00N\x86R" * 5000,
    "an array of huge integers": named("numpy.core.multiarray", "_reconstruct_persistent_obj")
    + b")R"
    + b"(K\x01("
    + integer(2**60_000) * 8
    + b"tNNC\x00tb",
    "a huge integer": integer(2**8_000_000),
    "a long name of a call": named("a" * 2**20, "b") + b"\x94" + b"h\x00)R" * 20_000,
    "modules that expand": nested_modules(14, 8),
    "a module that holds itself": module()
    + b"\x94}"
    + text("_modules")
    + b"}"
    + text("n" * 60_000)
    + b"h\x00ssb",
    "deep modules": nested_modules(200, 1),
    "deep lists": b"]" * 200_000 + b"a" * 199_999,
    "deep persistent keys": b"](" * 50_000 + b"Q",
    "endless instructions": b"N0" * 600_000,
}


def archive_of(path: Path, pickled: bytes, storage: bytes = b"") -> None:
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("a/data.pkl", pickled)
        out.writestr("a/data/0", storage)


def views(path: Path) -> None:
    """400 tensors on one storage of 16 MB."""
    base = torch.zeros(2**22)
    names = [f"w{i}" for i in range(400)]
    torch.save({"synthesis.b4.const": base[:1], **{n: base[i:] for i, n in enumerate(names)}}, path)


def long_shape(path: Path) -> None:
    """Tensors that all have one shape of 100,000 sides."""
    identity = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu")
    call = named("torch._utils", "_rebuild_tensor_v2") + b"\x94" + identity + b"K\x01tQ\x94"
    pickled = PROTOCOL + LONG_LIST + call + b"h\x01(h\x02K\x00h\x00h\x00tR" * 5000 + b"."
    archive_of(path, pickled, bytes(4))


def deep_persistent_key(path: Path) -> None:
    """A storage whose key is nested data: 2**40 characters as text."""
    name = named("torch", "FloatStorage")
    key = doubled(40)
    archive_of(path, PROTOCOL + b"(" + text("storage") + name + key + text("cpu") + b"K\x01tQ.")


def long_persistent_key(path: Path) -> None:
    name, key = named("torch", "FloatStorage"), text("k" * 2**22)
    identity = b"(" + text("storage") + name + key + text("cpu") + b"K\x01t\x94"
    archive_of(path, PROTOCOL + identity + b"h\x00Q" * 50_000 + b".")


def sparse(path: Path, size: int, start: bytes, end: bytes = b"") -> None:
    """A file of ``size`` bytes that takes no room on the disk."""
    with path.open("wb") as out:
        out.write(start)
        out.truncate(size)
        out.seek(0, os.SEEK_END)
        out.write(end)


def huge_program(path: Path) -> None:
    """Six gigabytes in front of an archive, whose directory still fits."""
    with path.open("wb") as out:
        out.write(b"PK\x03\x04")
        out.truncate(6 * 2**30)
        out.seek(0, os.SEEK_END)
        with zipfile.ZipFile(out, "a") as members:
            members.writestr("a/models/model.json", b"{}")


def huge_pickle(path: Path) -> None:
    length = struct.pack("<Q", 3 * 2**30)
    sparse(path, 3 * 2**30 + 100, PROTOCOL + b"\x8e" + length)


def endless_directory(path: Path) -> None:
    entry = struct.pack(
        "<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, *[0] * 6
    )
    entries = (entry + b"a") * 400_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, len(entries), 4, 0)
    path.write_bytes(b"PK\x03\x04" + entries + end)


def safetensors(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    write_card(path, "generator", {"family": "stylegan2", "settings": {}, "card": {}})


def header(content: object, numbers: bytes = b"") -> bytes:
    line = json.dumps(content).encode()
    return struct.pack("<Q", len(line)) + line + numbers


F32 = {"dtype": "F32"}
HEADERS = {
    "offsets that overlap": header(
        {n: {**F32, "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)
    ),
    "a shape that overflows": header(
        {"a": {**F32, "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "a header beyond the end": struct.pack("<Q", 2**62) + b"{}",
    "a header of many tensors": header(
        {f"t{i}": {**F32, "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    ),
    "a deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a huge empty shape": header(
        {"a": {**F32, "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}}
    ),
    "no header": b"",
}
FILES = {
    **{
        f"pickle: {name}": lambda path, data=data: path.write_bytes(PROTOCOL + data + b".")
        for name, data in PICKLES.items()
    },
    **{
        f"archive: {name}": lambda path, data=data: archive_of(path, PROTOCOL + data + b".")
        for name, data in PICKLES.items()
    },
    **{
        f"safetensors: {name}": lambda path, data=data: safetensors(path, data)
        for name, data in HEADERS.items()
    },
    "archive: 400 views of one storage": views,
    "archive: a long shape of many tensors": long_shape,
    "archive: a nested key of a storage": deep_persistent_key,
    "archive: a long key of a storage": long_persistent_key,
    "archive: an endless directory": endless_directory,
    "pickle: bytes of 3 GB": huge_pickle,
    "program: 6 GB": huge_program,
}


def suffix(name: str) -> str:
    return {"safetensors": ".safetensors", "program": ".pt2"}.get(name.split(":")[0], ".pt")


@pytest.mark.parametrize("name", FILES)
def test_a_bomb_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"bomb{suffix(name)}"
    FILES[name](path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.thread_time()
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert time.thread_time() - start < SECONDS
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < BYTES
    message = str(caught.value)
    assert message.startswith(str(path.with_suffix(""))) and message.isprintable()
    assert len(message) < 500


def test_the_clock_ends_what_nothing_else_counts(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(budget, "MAX_SECONDS", 0.0)
    path = tmp_path / "slow.pt"
    path.write_bytes(pickle.dumps(list(range(5000))))
    with pytest.raises(InputError, match="reading it takes over 0 seconds$"):
        read_checkpoint(path)


def test_each_file_has_a_budget_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(budget, "MAX_OBJECTS", 200)
    path = tmp_path / "list.pt"
    path.write_bytes(pickle.dumps(list(range(100))))
    for _ in range(4):
        with pytest.raises(InputError, match="no generator of a known layout"):
            read_checkpoint(path)
    path.write_bytes(pickle.dumps(list(range(300))))
    with pytest.raises(InputError, match="over 200 objects"):
        read_checkpoint(path)
