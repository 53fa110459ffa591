"""Downscaling operators and resizing, each one matrix product per axis.

A separable linear filter is a matrix (out, in) along each axis, its treatment of the edges
included; two products apply it several times faster than a convolution does, on every device, and
autograd gives the adjoint for nothing. The matrices are built once per size in float64.

Every kernel but ``pulse`` follows MATLAB's ``imresize``: pixel centres at half integers, the
filter widened by the factor when it shrinks (antialiasing), its taps normalised to sum 1, and the
image continued beyond its edge by mirroring with the edge pixel repeated ("symmetric"). Pillow and
``torch.nn.functional.interpolate(antialias=True)`` do the same but cut the filter off at the edge,
so they agree in the interior and differ in the outermost pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_audit.names import nearest
from pulse_audit.types import InputError

Matrix = NDArray[np.float64]


def _box(x: Matrix) -> Matrix:
    return ((x >= -0.5) & (x < 0.5)).astype(np.float64)


def _triangle(x: Matrix) -> Matrix:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _cubic(x: Matrix) -> Matrix:
    """Cubic convolution with a = -1/2 (Keys 1981, eqs. 4 and 11)."""
    x = np.abs(x)
    inner = 1.5 * x**3 - 2.5 * x**2 + 1.0
    outer = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


def _lanczos3(x: Matrix) -> Matrix:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


@dataclass(frozen=True)
class _Filter:
    """A filter's weight at a distance, and the distance beyond which it is zero, in pixels."""

    weight: Callable[[Matrix], Matrix]
    support: float


_FILTERS = {
    "bicubic": _Filter(_cubic, 2),
    "lanczos": _Filter(_lanczos3, 3),
    "bilinear": _Filter(_triangle, 1),
    "area": _Filter(_box, 0.5),
}

KERNELS: dict[str, str] = {
    "pulse": "bicubic downscaling with reflected edges (PULSE's operator)",
    "bicubic": "antialiased bicubic downscaling (MATLAB's imresize)",
    "lanczos": "antialiased Lanczos-3 downscaling",
    "bilinear": "antialiased bilinear downscaling",
    "area": "averaging over blocks of pixels",
    "nearest": "keeping the pixel nearest to each block's centre",
}
"""The downscaling operators by name, each with its words for the report."""

RESIZE_KERNELS = tuple(name for name in KERNELS if name != "pulse")
"""The kernels that resize to any size, up or down."""


def _scatter(weights: Matrix, columns: NDArray[np.intp], width: int) -> Matrix:
    """Add up the weights that fall on the same column of a (rows, width) matrix."""
    matrix = np.zeros((len(weights), width))
    np.add.at(matrix, (np.arange(len(weights))[:, None], columns), weights)
    return matrix


def _filter_matrix(kernel: str, size_in: int, size_out: int, antialias: bool) -> Matrix:
    ratio = size_in / size_out
    spread = max(ratio, 1.0) if antialias else 1.0
    reach = int(np.ceil(_FILTERS[kernel].support * spread)) + 1
    centres = ((np.arange(size_out) + 0.5) * ratio - 0.5)[:, None]
    taps = np.floor(centres).astype(np.intp) + np.arange(-reach, reach + 1)
    weights = _FILTERS[kernel].weight((taps - centres) / spread)
    weights /= weights.sum(axis=1, keepdims=True)
    folded = taps % (2 * size_in)
    return _scatter(weights, np.minimum(folded, 2 * size_in - 1 - folded), size_in)


def _pulse_matrix(size_in: int, factor: int) -> Matrix:
    """PULSE's taps: 4 f of them at (i - 2 f + 1/2) / f, the edge reflected without repeating it."""
    tap = np.arange(4 * factor)
    weight = _cubic((tap - 2 * factor + 0.5) / factor)
    first = np.arange(0, size_in, factor)[:, None] - (3 * factor) // 2
    folded = (first + tap) % (2 * size_in - 2)
    columns = np.minimum(folded, 2 * size_in - 2 - folded)
    weights = np.tile(weight / weight.sum(), (len(columns), 1))
    return _scatter(weights, columns, size_in)


def _nearest_matrix(size_in: int, size_out: int) -> Matrix:
    # (2 j + 1) in / (2 out) in whole numbers: no rounding decides between two pixels.
    columns = (2 * np.arange(size_out)[:, None] + 1) * size_in // (2 * size_out)
    return _scatter(np.ones((size_out, 1)), columns, size_in)


def _matrix(kernel: str, size_in: int, size_out: int, antialias: bool) -> Matrix:
    if kernel == "pulse":
        return _pulse_matrix(size_in, size_in // size_out)
    if kernel == "nearest":
        return _nearest_matrix(size_in, size_out)
    return _filter_matrix(kernel, size_in, size_out, antialias)


@lru_cache(maxsize=64)
def _weights(
    kernel: str,
    size_in: int,
    size_out: int,
    antialias: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    # A tensor born in inference mode could never again take part in autograd, and this one is
    # kept for later callers.
    with torch.inference_mode(False):
        matrix = _matrix(kernel, size_in, size_out, antialias)
        return torch.from_numpy(matrix).to(device=device, dtype=dtype)


def _apply(images: Tensor, kernel: str, size: tuple[int, int], antialias: bool) -> Tensor:
    height, width = images.shape[-2:]
    key = (antialias, images.device, images.dtype)
    rows = _weights(kernel, height, size[0], *key)
    columns = _weights(kernel, width, size[1], *key)
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
