"""Pixel fidelity of an output to the original: MSE, PSNR and SSIM.

One value per image, accumulated in float64: the sum of a million small squares loses digits in
float32, and an image's score must not depend on its batch mates.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pulse_audit.types import Metric, Unavailable

#: SSIM's window: Gaussian weights of this standard deviation over 11 x 11 pixels (Wang et al. 2004,
#: section III-B).
SIGMA = 1.5
WINDOW = 11
_BELL = [math.exp(-((k - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for k in range(WINDOW)]
WEIGHTS = [value / sum(_BELL) for value in _BELL]

#: SSIM's constants (0.01 L)^2 and (0.03 L)^2 for the range L = 1.
C1 = 0.01**2
C2 = 0.03**2


def mse(sr: Tensor, hr: Tensor) -> Tensor:
    """Mean squared error over channels and pixels.

    Parameters
    ----------
    sr, hr : Tensor, (n, c, h, w)
        Outputs and originals in [0, 1].

    Returns
    -------
    Tensor, (n,)
        float64.
    """
    _check_shapes(sr, hr)
    return (sr.double() - hr.double()).square().flatten(1).mean(1)


def psnr(sr: Tensor, hr: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels, of the error over all channels, for a peak of 1.

    Parameters
    ----------
    sr, hr : Tensor, (n, c, h, w)
        Outputs and originals in [0, 1].

    Returns
    -------
    Tensor, (n,)
        float64; identical images have no noise and get infinity, the logarithm's own value.
    """
    return -10 * torch.log10(mse(sr, hr))


def ssim(sr: Tensor, hr: Tensor) -> Tensor | Unavailable:
    """Structural similarity (Wang et al. 2004), the mean over channels.

    Gaussian window, population covariances, and only windows that lie whole within the image:
    scikit-image's ``structural_similarity`` with ``gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1``, to rounding.

    Parameters
    ----------
    sr, hr : Tensor, (n, c, h, w)
        Outputs and originals in [0, 1].

    Returns
    -------
    Tensor, (n,)
        float64, at most 1; `Unavailable` where a side is shorter than the 11 pixel window.
    """
    _check_shapes(sr, hr)
    if too_small := SSIM.available(min(sr.shape[-2:])):
        return too_small
    x, y = sr.double(), hr.double()
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x * mean_x
    variance_y = _window_mean(y * y) - mean_y * mean_y
    covariance = _window_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    structure = (2 * covariance + C2) / (variance_x + variance_y + C2)
    return (luminance * structure).flatten(1).mean(1)


def _window_mean(images: Tensor) -> Tensor:
    """Gaussian-weighted mean of every window that lies whole within the image."""
    return _filter_rows(_filter_rows(images).mT).mT


def _filter_rows(images: Tensor) -> Tensor:
    # Eleven shifted copies: in float64 on a CPU up to thirty times faster than conv2d.
    width = images.shape[-1] - WINDOW + 1
    total = images[..., :width] * WEIGHTS[0]
    for k, weight in enumerate(WEIGHTS[1:], start=1):
        total = total + weight * images[..., k : k + width]
    return total


def _check_shapes(sr: Tensor, hr: Tensor) -> None:
    if sr.shape != hr.shape or sr.ndim != 4:
        raise ValueError(
            f"outputs {tuple(sr.shape)} and originals {tuple(hr.shape)} must be "
            "batches of one shape, (n, c, h, w)"
        )


PSNR = Metric("psnr", higher_is_better=True, compute=psnr, unit="dB")
SSIM = Metric("ssim", higher_is_better=True, compute=ssim, smallest=WINDOW)

METRICS = (PSNR, SSIM)
