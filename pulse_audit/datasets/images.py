"""Photos: where their bytes come from, and how the bytes become an array of pixels.

Photos come from outside. Only the raster formats below are opened (never EPS or PDF, whose readers
run other programs), a photo of more than ``MAX_PIXELS`` pixels is refused before it is unpacked,
and whatever a decoder raises becomes `UnreadableImage` with one short reason.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import threading
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pulse_audit.types import ImageSource

# Raster formats that Pillow decodes by itself, without running other programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Larger than any photo of a face.
MAX_BYTES = 256 * 2**20
MAX_PIXELS = 64_000_000
_TOO_LARGE = f"more than {MAX_PIXELS:,} pixels: a decompression bomb, or too large to use"

# What Pillow logs of a damaged photo is in the reason of `UnreadableImage`; without a handler
# Python would print it as well.
logging.getLogger("PIL").addHandler(logging.NullHandler())

# warnings.catch_warnings swaps global state; two threads in it at once could leave filters behind.
_WARNINGS = threading.Lock()

# The face in scikit-image's astronaut: left, top, right, bottom in its 512 x 512 pixels.
ASTRONAUT_BOX = (142, 30, 312, 200)


class UnreadableImage(ValueError):
    """The bytes are not a usable photo; the message is a short reason."""


def is_below(path: str, root: str) -> bool:
    """Whether ``path`` is ``root`` or below it; both must be real paths, without links."""
    return os.path.commonpath([path, root]) == root


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
        # Follow links before the check, so that none leads out of the data folder.
        path = os.path.realpath(os.path.join(self.root, self.name))
        if not is_below(path, os.path.realpath(self.root)):
            raise OSError("a symbolic link leads out of the data folder")
        # Pipes and devices could block the reader or never end.
        if not os.path.isfile(path):
            raise FileNotFoundError("the file is missing")
        if os.path.getsize(path) > MAX_BYTES:
            raise OSError(f"the file is larger than {MAX_BYTES // 2**20} MiB")
        with open(path, "rb") as file:
            return file.read()


@dataclass(frozen=True)
class ParquetImage:
    """The photo of one row: ``row`` counts within row group ``group`` of the Parquet file."""

    path: str
    group: int
    row: int

    def read(self) -> bytes:
        """Return the bytes in the column ``image.bytes``; OSError if there are none."""
        # Of a row group of n photos, `column` is the n encoded files.
        column = _image_column(self.path, self.group)
        data = column[self.row].as_py() if self.row < len(column) else None
        if not data:
            raise OSError("the row holds no image bytes")
        return bytes(data)


# A row group can only be read whole, and neighbouring rows are read one after the other.
@lru_cache(maxsize=2)
def _image_column(path: str, group: int) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read_row_group(group, columns=["image.bytes"])
    except (pa.ArrowException, IndexError, ValueError) as error:
        raise OSError(f"the Parquet file cannot be read: {error}") from error
    return table.column("image").combine_chunks().field("bytes")


@dataclass(frozen=True)
class BundledImage:
    """A face that scikit-image ships: number 0 to 99 of its LFW subset, or -1 for the astronaut."""

    number: int

    def read(self) -> bytes:
        """Return the face as a PNG: 25 x 25 grey (LFW), 170 x 170 colour (astronaut)."""
        if self.number < 0:
            # The photo shows a person and a shuttle model; only the face is used.
            left, top, right, bottom = ASTRONAUT_BOX
            astronaut = importlib.import_module("skimage.data").astronaut()
            pixels = astronaut[top:bottom, left:right]
        else:
            # scikit-image stores 8-bit levels as floats in [0, 1].
            pixels = (_lfw_faces()[self.number] * 255).round().astype("uint8")
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return buffer.getvalue()


# The subset is unpacked once, not once for each face.
@lru_cache(maxsize=1)
def _lfw_faces() -> Any:
    return importlib.import_module("skimage.data").lfw_subset()[:100]


def load(source: ImageSource) -> NDArray[np.float32]:
    """Read and decode one photo to (H, W, 3) float32 RGB in [0, 1], or raise `UnreadableImage`."""
    try:
        data = source.read()
    except OSError as error:
        raise UnreadableImage(_reason(error)) from error
    return decode(data)


def decode(data: bytes) -> NDArray[np.float32]:
    """Decode one encoded photo.

    Transparent pixels are laid over white. 16-bit greyscale (and 32-bit integers within its
    range) is divided by 65535; 16-bit colour is read at 8 bits. Floating-point images must lie in
    [0, 1]. CMYK JPEGs are read with Adobe's polarity, as Pillow does. EXIF rotation is applied;
    ICC profiles are ignored, as the published face models do. Of several frames, the first counts.

    Parameters
    ----------
    data : bytes
        A JPEG, PNG, WebP, BMP, GIF, TIFF or PPM file.

    Returns
    -------
    ndarray of float32, (H, W, 3)
        RGB in [0, 1].

    Raises
    ------
    UnreadableImage
        If the bytes are empty, truncated, no image, or unpack to more than ``MAX_PIXELS``.
    """
    if not data:
        raise UnreadableImage("the file is empty")
    # Pillow's warnings about odd files are not shown: such files are refused or decoded below.
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                # The header states the size, so nothing is unpacked before this check.
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImage(_TOO_LARGE)
                pixels = _rgb(ImageOps.exif_transpose(image))
                return np.ascontiguousarray(pixels, dtype=np.float32)
        except UnreadableImage:
            raise
        except UnidentifiedImageError as error:
            raise UnreadableImage(
                f"not an image of a known format ({', '.join(FORMATS)})"
            ) from error
        except Image.DecompressionBombError as error:
            raise UnreadableImage(_TOO_LARGE) from error
        # Decoders fed with hostile bytes raise all sorts: struct.error, SyntaxError, KeyError...
        except Exception as error:
            raise UnreadableImage(_reason(error)) from error


def _rgb(image: Image.Image) -> NDArray[Any]:
    """Convert an image of any mode to RGB (H, W, 3) in [0, 1]."""
    # 16-bit grey, also stored as 32-bit integers: (H, W) -> (H, W, 3).
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImage("32-bit integers outside 0 to 65535: their scale is unknown")
        return np.repeat((values.astype(np.float32) / 65535)[..., None], 3, axis=2)
    # Floating-point grey: (H, W) -> (H, W, 3).
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise UnreadableImage("floating-point values outside 0 to 1: their scale is unknown")
        return np.repeat(values[..., None], 3, axis=2)
    # Transparency: alpha * colour + (1 - alpha) * white.
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
        alpha = rgba[..., 3:]
        return rgba[..., :3] * alpha + (1 - alpha)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def _reason(error: BaseException) -> str:
    # OSError holds its reason apart from number and path; other errors are shortened to one line.
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:120] or type(error).__name__
