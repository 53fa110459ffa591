"""Downscaling operators, resizing and cutting to a frame, each one matrix product per axis.

A separable linear filter is a matrix (out, in) along each axis, its treatment of the edges
included; two products are several times faster than a convolution on every device, and autograd
derives the adjoint. The matrices are built once per size in float64.

Every kernel but ``pulse`` follows MATLAB's ``imresize``: pixel centres at half integers, the
filter widened by the factor when it shrinks (antialiasing), its taps normalised to sum 1, and the
image continued beyond its edge by mirroring with the edge pixel repeated ("symmetric"). Pillow and
``torch.nn.functional.interpolate(antialias=True)`` do the same but cut the filter off at the edge,
so they agree in the interior and differ in the outermost pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_audit.frames import WHOLE, Frame
from pulse_audit.names import nearest
from pulse_audit.types import InputError

Matrix = NDArray[np.float64]


def _cubic(x: Matrix) -> Matrix:
    """Cubic convolution with a = -1/2 (Keys 1981, eqs. 4 and 11)."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1.0
    outer = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


#: Each filter's weight at a distance, and the distance beyond which it is zero, in pixels.
FILTERS: dict[str, tuple[Callable[[Matrix], Matrix], float]] = {
    "bicubic": (_cubic, 2),
    "lanczos": (lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0), 3),
    "bilinear": (lambda x: np.maximum(0.0, 1.0 - np.abs(x)), 1),
    "area": (lambda x: ((x >= -0.5) & (x < 0.5)).astype(np.float64), 0.5),
}

#: The downscaling operators by name, each described for the report.
KERNELS: dict[str, str] = {
    "pulse": "bicubic downscaling with reflected edges (PULSE's operator)",
    "bicubic": "antialiased bicubic downscaling (MATLAB's imresize)",
    "lanczos": "antialiased Lanczos-3 downscaling",
    "bilinear": "antialiased bilinear downscaling",
    "area": "averaging over blocks of pixels",
    "nearest": "keeping the pixel nearest to each block's centre",
}

#: The kernels that resize to any size, up or down.
RESIZE_KERNELS = tuple(name for name in KERNELS if name != "pulse")


@lru_cache(maxsize=64)
def _weights(
    kernel: str,
    size_in: int,
    size_out: int,
    antialias: bool,
    start: float,
    length: float,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Return the matrix (size_out, size_in) of a kernel along one axis.

    The result shows the ``length`` input pixels from ``start`` on; those beyond are seen by the
    taps that reach there.
    """
    # Each output pixel has weights (taps,) on the input pixels of certain columns (taps,).
    if kernel == "pulse":
        # 4 f taps at (i - 2 f + 1/2) / f, the edge reflected without repeating its pixel.
        factor = size_in // size_out
        tap = np.arange(4 * factor)
        weight = _cubic((tap - 2 * factor + 0.5) / factor)
        weights = np.tile(weight / weight.sum(), (size_out, 1))
        folded = (np.arange(0, size_in, factor)[:, None] - (3 * factor) // 2 + tap) % (
            2 * size_in - 2
        )
        columns = np.minimum(folded, 2 * size_in - 2 - folded)
    elif kernel == "nearest":
        # (2 j + 1) in / (2 out) in whole numbers: no rounding decides between two pixels.
        columns = (2 * np.arange(size_out)[:, None] + 1) * size_in // (2 * size_out)
        weights = np.ones((size_out, 1))
    else:
        weight_at, support = FILTERS[kernel]
        ratio = length / size_out
        spread = max(ratio, 1.0) if antialias else 1.0
        reach = int(np.ceil(support * spread)) + 1
        centres = (start + (np.arange(size_out) + 0.5) * ratio - 0.5)[:, None]
        taps = np.floor(centres).astype(np.intp) + np.arange(-reach, reach + 1)
        weights = weight_at((taps - centres) / spread)
        weights /= weights.sum(axis=1, keepdims=True)
        # Mirror at the edge, its pixel repeated.
        folded = taps % (2 * size_in)
        columns = np.minimum(folded, 2 * size_in - 1 - folded)

    # Add up the weights that fall on the same column.
    matrix = np.zeros((size_out, size_in))
    np.add.at(matrix, (np.arange(size_out)[:, None], columns), weights)
    # A tensor born in inference mode could never again take part in autograd, and this one is
    # kept for later callers.
    with torch.inference_mode(False):
        return torch.from_numpy(matrix).to(device=device, dtype=dtype)


def _apply(
    images: Tensor,
    kernel: str,
    size: tuple[int, int],
    antialias: bool,
    start: tuple[float, float] = (0.0, 0.0),
    extent: tuple[float, float] | None = None,
) -> Tensor:
    """Filter and resample (n, c, H, W), or a part of it from ``start`` on, to (n, c, *size)."""
    height, width = images.shape[-2:]
    extent = extent or (height, width)
    key = (images.device, images.dtype)
    rows = _weights(kernel, height, size[0], antialias, start[0], extent[0], *key)
    columns = _weights(kernel, width, size[1], antialias, start[1], extent[1], *key)
    return rows @ (images @ columns.T)


def check_factor(size: int, factor: int, kernel: str) -> None:
    """Check that a side of ``size`` pixels can be downscaled by ``factor``.

    Raises
    ------
    InputError
        If the kernel is unknown, the factor does not divide the size, or the side is too short
        for PULSE's reflection (1.5 ``factor`` must be less than it).
    """
    check_kernel(kernel)
    if factor < 1 or size % factor:
        raise InputError(
            f"cannot downscale {size} pixels by {factor}: "
            "the factor must be a positive whole number that divides the size"
        )
    if kernel == "pulse" and factor > 1 and 1.5 * factor >= size:
        raise InputError(
            f"PULSE's downscaling by {factor} needs more than {1.5 * factor:g} pixels, "
            f"not {size}: use a smaller factor or another kernel"
        )


def check_kernel(kernel: str) -> None:
    """Raise InputError, with the nearest known names, unless ``kernel`` downscales."""
    if kernel not in KERNELS:
        raise InputError(f"unknown downscaling kernel {kernel!r}{nearest(kernel, list(KERNELS))}")


def downscale(images: Tensor, factor: int, kernel: str = "pulse") -> Tensor:
    """Shrink images by a whole factor; linear and differentiable, and not clamped.

    Parameters
    ----------
    images : Tensor, (n, c, H, W)
        Floating point, on any device.
    factor : int
        Whole number that divides H and W; 1 returns ``images`` themselves.
    kernel : str
        One of `KERNELS`. ``pulse`` is the operator of Menon et al. 2020 (cubic convolution with
        a = -1/2, 4 ``factor`` taps, reflected edges); for an odd factor it is, as there, half a
        pixel off centre. ``nearest`` keeps the pixel at index floor(``factor`` / 2) of each block.

    Returns
    -------
    Tensor, (n, c, H / factor, W / factor)
        On the same device and of the same type.

    Raises
    ------
    InputError
        As `check_factor` does, for H and for W.
    """
    height, width = images.shape[-2:]
    check_factor(height, factor, kernel)
    check_factor(width, factor, kernel)
    if factor == 1:
        return images
    return _apply(images, kernel, (height // factor, width // factor), antialias=True)


def resize(
    images: Tensor, size: int | tuple[int, int], kernel: str = "bicubic", antialias: bool = True
) -> Tensor:
    """Resize images to any size, up or down; differentiable, and not clamped.

    Bicubic and Lanczos overshoot [0, 1] beside sharp edges: clamp what is to be an image.

    Parameters
    ----------
    images : Tensor, (n, c, H, W)
        Floating point, on any device.
    size : int or (int, int)
        Height and width of the result, or one number for both.
    kernel : str
        One of `RESIZE_KERNELS`.
    antialias : bool
        Widen the filter when shrinking. Along an axis that grows it changes nothing.

    Returns
    -------
    Tensor, (n, c, height, width)
        On the same device and of the same type; ``images`` themselves where they have the size
        already.

    Raises
    ------
    InputError
        If the kernel is unknown or the size is not positive.
    """
    if kernel not in RESIZE_KERNELS:
        raise InputError(f"unknown resizing kernel {kernel!r}{nearest(kernel, RESIZE_KERNELS)}")
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise InputError(f"cannot resize to {height} x {width} pixels: both must be positive")
    if (height, width) == tuple(images.shape[-2:]):
        return images
    return _apply(images, kernel, (height, width), antialias)


def cut_to_frame(images: Tensor, frame: Frame, size: int, kernel: str = "bicubic") -> Tensor:
    """Cut images to a frame and resample it with antialiasing; differentiable, and not clamped.

    Parameters
    ----------
    images : Tensor, (n, c, H, H)
        Floating point, on any device.
    frame : Frame
        The part to show; beyond the edges of the images they are mirrored.
    size : int
        Side of the result in pixels.
    kernel : str
        One of `RESIZE_KERNELS` but ``nearest``.

    Returns
    -------
    Tensor, (n, c, size, size)
        On the same device and of the same type; ``images`` themselves where the frame is all of
        them and they have the size.
    """
    if frame == WHOLE:
        return resize(images, size, kernel)
    # Only pixels that the filter reaches from within the frame: fewer than half of FFHQ's are.
    pixels = images.shape[-1]
    extent = pixels * frame.side
    reach = FILTERS[kernel][1] * max(extent / size, 1.0) + 1
    place, window = [], []
    for start in (pixels * frame.top, pixels * frame.left):
        first = max(0, int(start - reach))
        last = min(pixels, ceil(start + extent + reach))
        place.append(start - first)
        window.append(slice(first, last))
    part = images[..., window[0], window[1]]
    (top, left), shape = place, (size, size)
    return _apply(part, kernel, shape, True, (top, left), (extent, extent))
