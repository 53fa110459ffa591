"""The containers PyTorch and NVIDIA write: zip archives, older streams, plain pickles.

Own reader of all three on the machine of unpickle.py, in place of ``torch.load``: training
checkpoints hold settings of classes that ``weights_only=True`` refuses, snapshots hold source code,
and tensors that nobody asks for are never read.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

import torch

from pulse_audit.generators.checkpoints.budget import MAX_PIECE, Damaged, file_budget, spend
from pulse_audit.generators.checkpoints.pickle_data import MAX_SIZE, Name, Storage
from pulse_audit.generators.checkpoints.unpickle import BUILDERS, MAX_NAME, PickleMachine

# How a stream in PyTorch's format before 1.6 begins, after the two bytes of the protocol: its
# magic number 0x1950a86a20f9469cfc6c.
STREAM_START = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
ZIP_START = b"PK\x03\x04"
# The longest line of a pickle (a dotted name), and the directory of an archive: 80,000 members.
MAX_LINE = 2**16
MAX_DIRECTORY = 2**23
# The header of a safetensors file: some thousand tensors.
MAX_HEADER = 2**20
# Damaged archives make zipfile raise these.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
)

# Names of PyTorch's storages in a pickle.
_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


class Window:
    """A file that never returns, nor takes memory for, more than it has or the budget allows.

    A pickle may declare a string of any length; reading that many bytes from an ordinary file
    object would allocate them first.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.longest = file, MAX_PIECE
        position = file.tell()
        self.size = file.seek(0, os.SEEK_END)
        file.seek(position)

    def read(self, count: int = -1) -> bytes:
        """Read up to ``count`` bytes."""
        # Small pieces, nearly all, take no memory to speak of: the count of objects bounds them.
        if not 0 <= count <= 64:
            left = max(0, self.size - self.file.tell())
            count = left if count < 0 else min(count, left)
            if count > self.longest:
                raise Damaged(f"a piece of it has {count:,} bytes, over {self.longest:,}")
            spend(size=count)
        return self.file.read(count)

    def readline(self) -> bytes:
        """Read up to the next line feed."""
        return self.file.readline(MAX_LINE)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        return self.file.seek(offset, whence)

    def seekable(self) -> bool:
        """Tell zipfile that it may seek."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self.file.tell()


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a checkpoint; tensors of the object given can be read until it is closed.

    Raises
    ------
    Damaged
        If the file is in none of the three formats, or does not make sense.
    """
    with file_budget(), path.open("rb") as file:
        # The three formats are told apart by how they begin.
        start = file.read(16)
        file.seek(0)
        if start.startswith(ZIP_START):
            with archive(file) as members:
                yield read_archive(members)
        elif start[2:].startswith(STREAM_START):
            yield read_stream(file)
        elif start.startswith(b"\x80"):
            # A storage inside a plain pickle is itself a stream, which may hold no further one.
            inner = {"torch.storage._load_from_bytes": _read_bytes}
            yield PickleMachine({**BUILDERS, **inner}).run(Window(file))
        else:
            page = start.lstrip().startswith(b"<")
            raise Damaged(
                "it is a web page: the download failed" if page else "it is no checkpoint"
            )


@contextmanager
def archive(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive after looking at what it declares.

    Raises
    ------
    Damaged
        If its directory is endless, a member is compressed, encrypted, named twice or outside the
        archive, or the members together declare more than the file holds.
    """
    # What the directory declares is compared with the size of the file before anything is read.
    window = Window(file)
    size, window.longest = window.size, MAX_DIRECTORY
    try:
        members = zipfile.ZipFile(cast(IO[bytes], window))
    except ZIP_ERRORS as error:
        raise Damaged(f"its zip archive is broken: {error}") from error
    window.longest = MAX_PIECE
    with members:
        spend(objects=len(members.infolist()))
        declared, names = 0, set[str]()
        for member in members.infolist():
            name, path = member.filename, PurePosixPath(member.filename)
            if path.is_absolute() or ".." in path.parts or set(name) & set("\\:\0"):
                raise Damaged(f"its member {name!r} points outside the archive")
            # PyTorch stores only; a few compressed kilobytes can unpack to gigabytes.
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise Damaged(f"its member {name!r} is compressed or encrypted")
            if name in names:
                raise Damaged("two of its members have one name")
            names.add(name)
            declared += max(member.file_size, member.compress_size)
        if declared > size:
            raise Damaged(f"its members declare {declared:,} bytes, the file has {size:,}")
        yield members


def read_member(members: zipfile.ZipFile, name: str) -> bytes:
    """Return the bytes of a member; Damaged if it is missing or fails its checksum."""
    try:
        return members.read(name)
    except KeyError as error:
        raise Damaged(f"its member {name!r} is missing") from error
    except ZIP_ERRORS as error:
        raise Damaged(f"its member {name!r} is broken: {error}") from error


def check_safetensors(path: Path) -> None:
    """Refuse a safetensors file that is too large, or whose header is, before it is read.

    The header's offsets and shapes are checked by safetensors itself.
    """
    with path.open("rb") as file:
        size, start = file.seek(0, os.SEEK_END), file.seek(0)
        header = int.from_bytes(file.read(8), "little")
        spend(size=size - start)
        if header > MAX_HEADER:
            raise Damaged(f"its header declares {header:,} bytes, over {MAX_HEADER:,}")


def read_archive(members: zipfile.ZipFile) -> Any:
    """PyTorch's format since 1.6: data.pkl describes, data/KEY hold the numbers."""
    # Exactly one description, in the folder that all members share.
    names = [name for name in members.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise Damaged("it is a zip archive, but none that torch.save wrote")
    folder = names[0].removesuffix("data.pkl")
    order = f"{folder}byteorder"
    if order in members.namelist() and read_member(members, order) != b"little":
        raise Damaged("it holds big-endian numbers")
    storages: dict[str, Storage] = {}

    def load(identity: Any) -> Any:
        storage = _storage(identity, storages)
        if isinstance(storage, Storage):
            storage.read = partial(read_member, members, f"{folder}data/{identity[2]}")
        return storage

    return PickleMachine(BUILDERS, load).run(io.BytesIO(read_member(members, names[0])))


def read_stream(file: BinaryIO) -> Any:
    """PyTorch's format before 1.6: five pickles, then the numbers of each storage.

    Raises
    ------
    Damaged
        If a storage declares more than the file holds, or another size than its tensor says.
    """
    window, storages = Window(file), dict[str, Storage]()
    # Five pickles: magic number, version, system, the object, the keys of the storages.
    for _ in ("magic number", "protocol version"):
        PickleMachine({}).run(window)
    system = PickleMachine({}).run(window)
    if not (isinstance(system, dict) and system.get("little_endian") is True):
        raise Damaged("it holds big-endian numbers")
    root = PickleMachine(BUILDERS, lambda identity: _storage(identity, storages)).run(window)
    keys = PickleMachine({}).run(window)
    # Note where each storage's numbers are, and step over them.
    for key in keys if isinstance(keys, list) else ():
        storage = storages.get(str(key)) if type(key) in (str, int) else None
        header = file.read(8)
        if storage is None or len(header) < 8 or struct.unpack("<q", header)[0] != storage.count:
            raise Damaged("its storages do not fit its tensors")
        start = file.tell()
        left = window.size - start
        if storage.nbytes > left:
            raise Damaged(f"a storage declares {storage.nbytes:,} bytes, {left:,} are left")
        storage.read = partial(_read_range, window, start, storage.nbytes)
        file.seek(start + storage.nbytes)
    return root


def _read_range(file: Window, start: int, count: int) -> bytes:
    file.seek(start)
    return file.read(count)


def _storage(identity: Any, storages: dict[str, Storage]) -> Storage | Name:
    """Return what a persistent id stands for: a storage, or the class of a saved module."""
    # A persistent id is (kind, class, key, device, count, view of another storage).
    kind, name, key, *rest = identity
    if not isinstance(name, Name) or type(key) not in (str, int) or len(str(key)) > MAX_NAME:
        raise TypeError("an unknown kind of storage")
    if kind == "module":
        return Name(name.module, name.name)
    # Two tensors may share a storage, which then has to be declared alike.
    dtype = _STORAGES[name.name]
    count, view = rest[1], rest[2:]
    if kind != "storage" or type(count) is not int or not 0 <= count < MAX_SIZE or any(view):
        raise TypeError("an unknown kind of storage")
    storage = storages.setdefault(str(key), Storage(dtype, count))
    if (storage.dtype, storage.count) != (dtype, count):
        raise TypeError("one storage of two sizes")
    return storage


def _read_bytes(data: Any) -> Any:
    if not isinstance(data, bytes):
        raise TypeError("a storage without bytes")
    return read_stream(io.BytesIO(data))
