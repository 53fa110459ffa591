"""Pixel fidelity of an output to the original: MSE, PSNR, SSIM and MS-SSIM.

One value per image, accumulated in float64: the sum of a million small squares loses digits in
float32, and an image's score must not depend on its batch mates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.types import Unavailable

#: SSIM's window: Gaussian weights of this standard deviation over 11 x 11 pixels (Wang et al. 2004,
#: section III-B).
SIGMA = 1.5
WINDOW = 11
_BELL = [math.exp(-((k - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for k in range(WINDOW)]
WEIGHTS = [value / sum(_BELL) for value in _BELL]

#: SSIM's constants (0.01 L)^2 and (0.03 L)^2 for the range L = 1.
C1 = 0.01**2
C2 = 0.03**2

#: MS-SSIM's exponents, finest scale first (Wang, Simoncelli & Bovik 2003, section 3.2).
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


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


def spread(images: Tensor, faces: Sequence[str]) -> Tensor:
    """Root mean square difference of a pixel between an image and the others of its face.

    Parameters
    ----------
    images : Tensor, (n, c, h, w)
        In [0, 1].
    faces : sequence of str
        Whose they are.

    Returns
    -------
    Tensor, (n,)
        In 8-bit levels, float64; NaN for the only image of a face.
    """
    # (n, n): mean squared differences of all pairs, of which those of one face count.
    flat = images.double().flatten(1)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    squared = distances.square() / flat.shape[1]
    same = torch.tensor([[a == b for b in faces] for a in faces], device=images.device)
    same.fill_diagonal_(False)
    return 255 * (squared.where(same, 0).sum(1) / same.sum(1)).sqrt()


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
    if too_small := BY_NAME["ssim"].available(min(sr.shape[-2:])):
        return too_small
    # One image at a time: its windows stay in the processor's cache.
    compared = (_comparisons(x, y) for x, y in zip(sr.double(), hr.double(), strict=True))
    return torch.stack([(luminance * structure).mean() for luminance, structure in compared])


def ms_ssim(sr: Tensor, hr: Tensor) -> Tensor | Unavailable:
    """Multi-scale structural similarity (Wang, Simoncelli & Bovik 2003, eq. 7), mean over channels.

    Five scales, each half the one before by averaging 2 x 2 pixels (an odd last row or column is
    averaged with itself), luminance compared at the coarsest alone, the paper's exponents. A
    scale on which two images are negatively correlated counts as 0, for a negative number has no
    real power; one such scale makes the channel's score 0.

    Parameters
    ----------
    sr, hr : Tensor, (n, c, h, w)
        Outputs and originals in [0, 1].

    Returns
    -------
    Tensor, (n,)
        float64, in [0, 1]; `Unavailable` where a side is under 161 px, for the fifth scale is then
        shorter than the 11 pixel window.
    """
    _check_shapes(sr, hr)
    if too_small := BY_NAME["ms_ssim"].available(min(sr.shape[-2:])):
        return too_small
    # One image at a time: its windows stay in the processor's cache.
    pairs = zip(sr.double(), hr.double(), strict=True)
    return torch.stack([_scale_product(x, y).mean() for x, y in pairs])


def _scale_product(x: Tensor, y: Tensor) -> Tensor:
    """Multiply what five scales of two images (c, h, w) score, by channel: (c,)."""
    score = x.new_ones(len(x))
    for scale, weight in enumerate(SCALE_WEIGHTS, start=1):
        luminance, structure = _comparisons(x, y)
        # Luminance counts at the coarsest scale alone.
        compared = structure if scale < len(SCALE_WEIGHTS) else luminance * structure
        score = score * compared.mean((1, 2)).clamp_min(0) ** weight
        x, y = _halved(x), _halved(y)
    return score


def _comparisons(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Compare luminance, and contrast times structure, in every window (eqs. 6 and 13 of SSIM)."""
    # Weighted moments of every window that lies within the images.
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    variance_x = _window_mean(x * x) - mean_x * mean_x
    variance_y = _window_mean(y * y) - mean_y * mean_y
    covariance = _window_mean(x * y) - mean_x * mean_y
    # Every map is (c, h - 10, w - 10).
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return luminance, (2 * covariance + C2) / (variance_x + variance_y + C2)


def _halved(images: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    even = F.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(even, 2)


def _window_mean(images: Tensor) -> Tensor:
    """Gaussian-weighted mean of every window that lies whole within the image."""
    return _filter_rows(_filter_rows(images).mT).mT


def _filter_rows(images: Tensor) -> Tensor:
    # Eleven shifted copies: in float64 on a CPU up to thirty times faster than conv2d.
    # (c, h, w) -> (c, h, w - 10)
    width = images.shape[-1] - WINDOW + 1
    total = images[..., :width] * WEIGHTS[0]
    for k, weight in enumerate(WEIGHTS[1:], start=1):
        total.add_(images[..., k : k + width], alpha=weight)
    return total


def _check_shapes(sr: Tensor, hr: Tensor) -> None:
    if sr.shape != hr.shape or sr.ndim != 4:
        raise ValueError(
            f"outputs {tuple(sr.shape)} and originals {tuple(hr.shape)} must be "
            "batches of one shape, (n, c, h, w)"
        )
