"""What needs no original: NIQE, the distance to natural statistics, and sharpness.

NIQE follows Mittal, Soundararajan & Bovik, "Making a completely blind image quality analyzer"
(2013), with the numbers of their released program where the paper leaves them open. Its pristine
model is fitted on the run's own originals: scores compare with one another within a run, not with
the published ones, whose model was fitted on 125 photographs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.types import Metric, Unavailable

#: Side of the paper's patches, in pixels; half of it at the second scale.
PATCH = 96
#: Side of the patches of ``niqe_small``.
SMALL_PATCH = 32
#: A pristine patch is at least so sharp, as a share of the sharpest patch of its image.
SHARP = 0.75
#: Pixels measured at once, which bounds the memory.
PIXELS_AT_ONCE = 2**20
#: Features of one patch: 18 at each of two scales.
FEATURES = 36

_LUMA = (0.298936, 0.587043, 0.114021)
_WINDOW = [math.exp(-((k - 3) ** 2) / (2 * (7 / 6) ** 2)) for k in range(7)]
_WINDOW = [weight / sum(_WINDOW) for weight in _WINDOW]
#: Bicubic filter at half size: Keys' kernel (a = -1/2), widened by two, at its eight taps.
_HALVE = [-0.01171875, -0.03515625, 0.11328125, 0.43359375]
_HALVE = [*_HALVE, *reversed(_HALVE)]
#: Neighbours whose products with a pixel are measured: right, below, and both diagonals.
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
#: Normalised contrasts below this are the rounding of a flat patch, and as flat as it.
_FLAT = 1e-9


@dataclass(frozen=True, eq=False)
class NiqeModel:
    """Features of natural patches as one Gaussian.

    Attributes
    ----------
    mean : Tensor, (36,)
        float64.
    covariance : Tensor, (36, 36)
        float64, with n - 1 in the denominator.
    patch : int
        Side of the patches in pixels.
    n_images, n_patches : int
        How many originals were given, and how many of their patches were sharp enough.
    """

    mean: Tensor
    covariance: Tensor
    patch: int
    n_images: int
    n_patches: int

    @classmethod
    def fit(cls, images: Iterable[Tensor], patch: int = PATCH) -> NiqeModel | Unavailable:
        """Fit the pristine model.

        Parameters
        ----------
        images : Tensor, (n, 3, h, w), or iterable of (3, h, w)
            Originals in [0, 1]; they may differ in size and come one at a time.
        patch : int
            Side of the patches: even, 96 in the paper.

        Returns
        -------
        NiqeModel or Unavailable
            On the images' device; `Unavailable` where fewer patches than 37 are sharp, for their
            covariance of 36 features would be singular.
        """
        sharp = []
        for image in images:
            if min(image.shape[-2:]) < patch:
                sharp.append(torch.zeros(0, FEATURES, dtype=torch.float64, device=image.device))
                continue
            # The patches of one image that are sharp beside its sharpest, and not flat: (k, 36).
            (features,), (deviation,) = patch_features(image[None], patch)
            chosen = (deviation > SHARP * deviation.max()) & features.isfinite().all(1)
            sharp.append(features[chosen])
        features = torch.cat(sharp) if sharp else torch.zeros(0, FEATURES)
        if len(features) <= FEATURES:
            return Unavailable(
                f"the pristine model needs {FEATURES + 1} sharp patches of {patch} px, and "
                f"{len(sharp)} originals hold {len(features)}"
            )
        return cls(features.mean(0), features.T.cov(), patch, len(sharp), len(features))

    def score(self, images: Tensor) -> Tensor:
        """Distance of each image's patches from the natural ones (the paper's eq. 10).

        Parameters
        ----------
        images : Tensor, (n, 3, h, w)
            In [0, 1]; what is left over beyond whole patches at the right and below is not used.

        Returns
        -------
        Tensor, (n,)
            float64, lower is more natural; NaN for an image with fewer than two patches that are
            not flat.
        """
        at_once = max(1, PIXELS_AT_ONCE // (images.shape[-1] * images.shape[-2]))
        scores = []
        for part in torch.split(images, at_once):
            # (part, patches, 36): the patches of an image that are not flat
            for features in patch_features(part, self.patch)[0]:
                features = features[features.isfinite().all(1)]
                if len(features) < 2:
                    scores.append(features.new_full((), math.nan))
                    continue
                # Equation 10, with the mean of both covariances.
                pooled = (self.covariance.to(features) + features.T.cov()) / 2
                difference = self.mean.to(features) - features.mean(0)
                inverse: Tensor = torch.linalg.pinv(pooled, hermitian=True)
                scores.append((difference @ inverse @ difference).sqrt())
        return torch.stack(scores)

    def compute(self, sr: Tensor, hr: Tensor) -> Tensor | Unavailable:
        """`score` of outputs that are large enough; the originals are not looked at."""
        return self.metric.available(min(sr.shape[-2:])) or self.score(sr)

    @property
    def metric(self) -> Metric:
        """NIQE as a metric, defined from two patches a side on.

        ``niqe`` where the patches are the paper's 96 px; else ``niqe_small``, which must not be
        compared with the paper's.
        """
        name = "niqe" if self.patch == PATCH else "niqe_small"
        return BY_NAME[name].computed_with(self.compute)


def patch_features(images: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Measure the natural scene statistics of every whole patch at two scales.

    Parameters
    ----------
    images : Tensor, (n, 3, h, w)
        In [0, 1].
    patch : int
        Side of the patches, even.

    Returns
    -------
    features : Tensor, (n, patches, 36)
        float64: shape and spread of the normalised luminance, then shape, mean, left and right
        spread of its products with four neighbours; 18 at each scale. NaN in a flat patch.
    sharpness : Tensor, (n, patches)
        Mean local standard deviation of the luminance at the first scale, in 8-bit levels.
    """
    height, width = (side // patch * patch for side in images.shape[-2:])
    grey = luminance(images[..., :height, :width])
    # (n, h, w) -> (n, patches, p, p) at the first scale and at half of it
    normalised, deviation = _normalised(grey)
    sharpness = _patches(deviation, patch).mean((-2, -1))
    coarse, _ = _normalised(_halved(grey))
    scales = [_patches(normalised, patch), _patches(coarse, patch // 2)]
    return torch.cat([_statistics(scale) for scale in scales], dim=-1), sharpness


def luminance(images: Tensor) -> Tensor:
    """Grey of (n, 3, h, w) in [0, 1] by ITU-R BT.601: (n, h, w), float64, 0 to 255, not rounded."""
    red, green, blue = (weight * images[:, i].double() for i, weight in enumerate(_LUMA))
    return 255 * (red + green + blue)


def asymmetric_gaussian(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit an asymmetric generalised Gaussian to each row by its moments.

    Lasmar, Stitou & Berthoumieu (2009), as in NIQE's program: the shape is the nearest of 0.2 to
    10 in steps of 0.001. A shape of 2 with equal spreads is the normal distribution.

    Parameters
    ----------
    values : Tensor, (..., m)
        float64.

    Returns
    -------
    shape, left, right : Tensor, (...)
        Shape, and the two spreads ``beta``; NaN where a side has no value.
    """
    # Root mean square of the values on each side of zero.
    left, right = (
        ((values * side).square().sum(-1) / side.sum(-1)).sqrt()
        for side in (values * sign > 0 for sign in (-1, 1))
    )
    asymmetry = left / right
    # The ratio of moments that determines the shape, and the one expected of every shape.
    ratio = values.abs().mean(-1).square() / values.square().mean(-1)
    ratio = ratio * (asymmetry**3 + 1) * (asymmetry + 1) / (asymmetry.square() + 1).square()
    shapes = torch.arange(200, 10_001, dtype=torch.float64, device=values.device) / 1000
    expected = (2 * (2 / shapes).lgamma() - (1 / shapes).lgamma() - (3 / shapes).lgamma()).exp()
    nearest = torch.bucketize(ratio, (expected[1:] + expected[:-1]) / 2)
    shape = torch.where(ratio.isnan(), ratio, shapes[nearest])
    scale = ((1 / shape).lgamma() - (3 / shape).lgamma()).exp().sqrt()
    return shape, left * scale, right * scale


def sharpness(sr: Tensor, hr: Tensor) -> Tensor | Unavailable:
    """Variance of the Laplacian of the luminance; the original is not looked at.

    The Laplacian of four neighbours (0 1 0, 1 -4 1, 0 1 0) at every pixel that has them, on the
    luminance of ITU-R BT.601 in 8-bit levels; population variance. Noise counts as sharp. On
    luminance in [0, 1] and times 100, as others print it, the number is 650.25 times smaller.

    Parameters
    ----------
    sr, hr : Tensor, (n, 3, h, w)
        Outputs and originals in [0, 1].

    Returns
    -------
    Tensor, (n,)
        float64, in squared 8-bit levels; `Unavailable` where a side is under 3 px.
    """
    if too_small := BY_NAME["sharpness"].available(min(sr.shape[-2:])):
        return too_small
    grey = luminance(sr)
    sides = grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] + grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1]
    laplacian: Tensor = sides - 4 * grey[:, 1:-1, 1:-1]
    return laplacian.flatten(1).var(1, correction=0)


def _statistics(patches: Tensor) -> Tensor:
    """(..., p, p) normalised patches to their 18 features."""
    shape, left, right = asymmetric_gaussian(patches.flatten(-2))
    features = [shape, (left + right) / 2]
    for step in _NEIGHBOURS:
        # Products of neighbours, asymmetric where the pixels are correlated.
        product = patches * patches.roll(step, dims=(-2, -1))
        shape, left, right = asymmetric_gaussian(product.flatten(-2))
        mean = (right - left) * ((2 / shape).lgamma() - (1 / shape).lgamma()).exp()
        features += [shape, mean, left, right]
    return torch.stack(features, dim=-1)


def _normalised(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Mean-subtracted, contrast-normalised luminance, and the local standard deviation."""
    mean = _smooth(grey)
    deviation = (_smooth(grey.square()) - mean.square()).abs().sqrt()
    normalised = (grey - mean) / (deviation + 1)
    return torch.where(normalised.abs() < _FLAT, 0.0, normalised), deviation


def _smooth(grey: Tensor) -> Tensor:
    padded = F.pad(grey, (3, 3, 3, 3), mode="replicate")
    return _filter(_filter(padded, _WINDOW, 1).mT, _WINDOW, 1).mT


def _halved(grey: Tensor) -> Tensor:
    """Half the size, antialiased bicubic with mirrored edges: MATLAB's ``imresize(x, 0.5)``."""
    for _ in range(2):
        mirrored = torch.cat([grey[..., :3].flip(-1), grey, grey[..., -3:].flip(-1)], dim=-1)
        grey = _filter(mirrored, _HALVE, 2).mT
    return grey


def _filter(grey: Tensor, weights: list[float], stride: int) -> Tensor:
    """Weighted sums along the rows, at every ``stride``-th place."""
    end = grey.shape[-1] - len(weights) + 1
    total = grey[..., 0:end:stride] * weights[0]
    for k, weight in enumerate(weights[1:], start=1):
        total = total + weight * grey[..., k : k + end : stride]
    return total


def _patches(grey: Tensor, patch: int) -> Tensor:
    """(n, h, w) to (n, patches, patch, patch)."""
    n, height, width = grey.shape
    blocks = grey.reshape(n, height // patch, patch, width // patch, patch)
    return blocks.transpose(2, 3).reshape(n, -1, patch, patch)
