"""Where the bytes of a photo come from: a file, a row of a Parquet file, a bundled array."""

from __future__ import annotations

import importlib
import io
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class FileImage:
    """A photo in a file: ``name`` is its path below the folder ``root``, with forward slashes."""

    root: str
    name: str

    def read(self) -> bytes:
        """Return the file's bytes.

        Raises
        ------
        OSError
            If there is no such file, if it is a pipe or a device, if it holds more than 256 MiB,
            or if a symbolic link leads out of ``root``.
        """
        path = os.path.realpath(os.path.join(self.root, self.name))
        if not is_below(path, os.path.realpath(self.root)):
            raise OSError("a symbolic link leads out of the data folder")
        if not os.path.isfile(path):
            raise FileNotFoundError("the file is missing")
        if os.path.getsize(path) > MAX_BYTES:
            raise OSError(f"the file is larger than {MAX_BYTES // 2**20} MiB")
        with open(path, "rb") as file:
            return file.read()


def is_below(path: str, root: str) -> bool:
    """Whether ``path`` is ``root`` or below it; both must be real paths, without links."""
    return os.path.commonpath([path, root]) == root


@dataclass(frozen=True)
class ParquetImage:
    """The photo of one row: ``row`` counts within row group ``group`` of the Parquet file."""

    path: str
    group: int
    row: int

    def read(self) -> bytes:
        """Return the bytes of the column ``image.bytes``.

        Raises
        ------
        OSError
            If the file cannot be read, or the row holds no bytes.
        """
        column = _image_column(self.path, self.group)
        data = column[self.row].as_py() if self.row < len(column) else None
        if not data:
            raise OSError("the row holds no image bytes")
        return bytes(data)


# Neighbouring rows are read in turn, and a row group can only be read whole.
@lru_cache(maxsize=2)
def _image_column(path: str, group: int) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(group, columns=["image.bytes"])
    except (pa.ArrowException, IndexError, ValueError) as error:
        raise OSError(f"the Parquet file cannot be read: {error}") from error
    image = table.column("image").combine_chunks()
    return image.field("bytes")


# The face in scikit-image's astronaut: left, top, right, bottom in its 512 x 512 pixels.
ASTRONAUT_BOX = (142, 30, 312, 200)


@dataclass(frozen=True)
class BundledImage:
    """A face that scikit-image ships: number 0 to 99 of its LFW subset, or -1 for the astronaut."""

    number: int

    def read(self) -> bytes:
        """Return the face as a PNG: 25 x 25 grey (LFW), 170 x 170 colour (astronaut)."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self._pixels()).save(buffer, format="PNG")
        return buffer.getvalue()

    def _pixels(self) -> Any:
        if self.number < 0:
            left, top, right, bottom = ASTRONAUT_BOX
            return _skimage_data().astronaut()[top:bottom, left:right]
        return (_lfw_faces()[self.number] * 255).round().astype("uint8")


@lru_cache(maxsize=1)
def _lfw_faces() -> Any:
    return _skimage_data().lfw_subset()[:100]


def _skimage_data() -> Any:
    return importlib.import_module("skimage.data")
