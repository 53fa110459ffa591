"""From the bytes of a photo to an array, or to one short reason why not.

Photos come from outside: only the raster formats below are opened (never EPS or PDF, whose readers
run other programs), a photo of more pixels than ``MAX_PIXELS`` is refused before it is unpacked,
and whatever a decoder raises becomes `UnreadableImage`.
"""

from __future__ import annotations

import io
import threading
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pulse_audit.types import ImageSource

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000
_TOO_LARGE = f"more than {MAX_PIXELS:,} pixels: a decompression bomb, or too large to use"

# warnings.catch_warnings swaps global state; two threads in it at once could leave filters behind.
_WARNINGS = threading.Lock()


class UnreadableImage(ValueError):
    """The bytes are no photo that can be used; the message is a short reason."""


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
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data)
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
            raise UnreadableImage(_short(error)) from error


def load(source: ImageSource) -> NDArray[np.float32]:
    """Read and decode one photo to (H, W, 3) float32 RGB in [0, 1].

    Raises
    ------
    UnreadableImage
        If the bytes cannot be read or decoded.
    """
    try:
        data = source.read()
    except OSError as error:
        raise UnreadableImage(_short(error)) from error
    return decode(data)


def _short(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:120] or type(error).__name__


def _decode(data: bytes) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImage(_TOO_LARGE)
        upright = ImageOps.exif_transpose(image)
        return np.ascontiguousarray(_rgb(upright), dtype=np.float32)


def _rgb(image: Image.Image) -> NDArray[Any]:
    if image.mode.startswith("I;16") or image.mode == "I":
        return _grey(_sixteen_bit(image))
    if image.mode == "F":
        return _grey(_unit_float(image))
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        return _over_white(image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255


def _grey(values: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(values[..., None], 3, axis=2)


def _sixteen_bit(image: Image.Image) -> NDArray[Any]:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise UnreadableImage("32-bit integers outside 0 to 65535: their scale is unknown")
    return values.astype(np.float32) / 65535


def _unit_float(image: Image.Image) -> NDArray[Any]:
    values = np.asarray(image)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise UnreadableImage("floating-point values outside 0 to 1: their scale is unknown")
    return values


def _over_white(image: Image.Image) -> NDArray[Any]:
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    alpha = rgba[..., 3:]
    return rgba[..., :3] * alpha + (1 - alpha)
