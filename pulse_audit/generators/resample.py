"""Resampling with finite impulse response filters: zero-insert, pad, filter, keep every nth.

Own implementation in plain PyTorch of the operation the StyleGAN 2 and 3 papers call upfirdn
(Karras et al. 2020, arXiv:1912.04958; 2021, arXiv:2106.12423).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, int, int, int]


def setup_filter(taps: Sequence[float] = (1, 3, 3, 1)) -> Tensor:
    """Return the (k, k) low-pass filter of these taps: their outer product, summing to one."""
    line = torch.tensor(taps, dtype=torch.float32)
    square = torch.outer(line, line)
    return square / square.sum()


def upfirdn2d(
    x: Tensor,
    taps: Tensor | None,
    up: int = 1,
    down: int = 1,
    padding: Padding = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Upsample by zero insertion, pad, convolve every channel with a filter, downsample.

    Parameters
    ----------
    x : Tensor
        Images (n, c, h, w).
    taps : Tensor or None
        A (k, k) filter, a (k,) filter applied along both axes, or None for no filtering.
    up, down : int
        Integer factors.
    padding : tuple
        Zeros at left, right, top and bottom of the zero-inserted image; negative values crop.
    gain : float
        Factor on the result; ``up**2`` keeps the mean of an upsampled image.

    Returns
    -------
    Tensor
        (n, c, h', w') with h' = ceil((h * up + top + bottom - k + 1) / down), w' likewise.
    """
    left, right, top, bottom = padding
    if taps is None:
        taps = x.new_ones(1)
    if taps.ndim == 2:
        return _filter(x, taps * gain, (up, up), (down, down), padding)
    line = taps * gain**0.5
    x = _filter(x, line[None, :], (1, up), (1, down), (left, right, 0, 0))
    return _filter(x, line[:, None], (up, 1), (down, 1), (0, 0, top, bottom))


def upsample2d(x: Tensor, taps: Tensor) -> Tensor:
    """Double the size of (n, c, h, w) images with a (k, k) filter, keeping their mean."""
    before, after = (taps.shape[-1] + 1) // 2, (taps.shape[-1] - 2) // 2
    return upfirdn2d(x, taps, up=2, padding=(before, after, before, after), gain=4.0)


def _filter(
    x: Tensor, taps: Tensor, up: tuple[int, int], down: tuple[int, int], padding: Padding
) -> Tensor:
    """One pass with a (kh, kw) filter; ``up`` and ``down`` are (vertical, horizontal)."""
    kernel = taps.to(x.dtype).expand(x.shape[1], 1, *taps.shape)
    if up != (1, 1):
        return _filter_upsampled(x, kernel, up, padding)[:, :, :: down[0], :: down[1]]
    left, right, top, bottom = padding
    if min(padding) < 0 or left != right or top != bottom:
        x, left, top = F.pad(x, padding), 0, 0
    # conv2d correlates; the flip makes it a convolution.
    kernel = kernel.flip(2, 3)
    return F.conv2d(x, kernel, stride=down, padding=(top, left), groups=x.shape[1])


def _filter_upsampled(x: Tensor, kernel: Tensor, up: tuple[int, int], padding: Padding) -> Tensor:
    """Transposed convolution: never multiplies by the inserted zeros, then crops to the padding."""
    (height, width), (vertical, horizontal) = kernel.shape[2:], up
    left, right = padding[0] - width + 1, padding[1] + horizontal - width
    top, bottom = padding[2] - height + 1, padding[3] + vertical - height
    if left == right <= 0 and top == bottom <= 0:
        return F.conv_transpose2d(x, kernel, stride=up, padding=(-top, -left), groups=x.shape[1])
    full = F.conv_transpose2d(x, kernel, stride=up, groups=x.shape[1])
    return F.pad(full, (left, right, top, bottom))
