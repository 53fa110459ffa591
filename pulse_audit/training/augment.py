"""Augmentations of training images, for the discriminator and for the attribute net.

The discriminator's are adaptive: Karras et al. 2020, "Training Generative Adversarial Networks with
Limited Data" (arXiv:2006.06676). Of the paper's list these are used: x-flip, isotropic scaling,
rotation by small angles, translation, brightness, contrast and saturation. Left out are quarter
turns (faces are upright), changes of hue and inverted brightness (skin tone is what this project
measures).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_audit.faces.attributes import resized

# Standard deviations of the adaptive augmentations: of log2 (scale, contrast, saturation), in
# radians, in image sides, in levels of [-1, 1].
SCALE_DEVIATION = 0.2
ROTATION_DEVIATION = math.radians(10)
SHIFT_DEVIATION = 0.125
BRIGHTNESS_DEVIATION = 0.2
CONTRAST_DEVIATION = 0.5
SATURATION_DEVIATION = 1.0


@dataclass
class AdaptiveStrength:
    """The probability p of every augmentation, controlled by the discriminator's overfitting.

    It is measured by the heuristic r_t of the paper's section 3: the mean sign of the logits on
    real training images, 0 without overfitting and 1 with complete overfitting.
    """

    #: r_t above this raises p, below lowers it.
    target: float
    #: Training images in which p can go from 0 to 1.
    images: int
    #: Augmentations leak into the samples when p is near 1; the paper finds 0.8 safe.
    ceiling: float
    #: Current probability, in [0, ``ceiling``].
    p: float = 0.0

    def update(self, r_t: float, count: int) -> None:
        """Move p after ``count`` more images whose mean sign was ``r_t``."""
        # At most from 0 to 1 in so many `images`: the step is their share, towards the target.
        step = math.copysign(count / self.images, r_t - self.target) if r_t != self.target else 0.0
        self.p = min(max(self.p + step, 0.0), self.ceiling)


def augment(images: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Augment each image independently, each transformation with probability p.

    Parameters
    ----------
    images : Tensor
        (n, 3, R, R), about [-1, 1]. Computed in float32 and differentiable once.
    p : float
        Probability in [0, 1]; 0 returns the images themselves.
    generator : torch.Generator
        Source of the draws, on the images' device.

    Returns
    -------
    Tensor
        Images of the same shape. Where a transformation reaches outside, the image is mirrored.
    """
    if p == 0:
        return images
    images = images.float()
    # Colour: an affine map of each pixel's RGB, (n, 3, 3) @ (n, 3, R * R) + (n, 3, 1).
    colours = colour_matrices(len(images), p, generator)
    planes = (colours[:, :, :3] @ images.flatten(2) + colours[:, :, 3:]).view_as(images)
    # Geometry: flip, scaling, rotation and translation in one resampling.
    placement = placement_matrices(len(images), p, generator)
    grid = F.affine_grid(placement, list(images.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)


def placement_matrices(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Draw (n, 2, 3) matrices from output to input coordinates, both in [-1, 1]."""
    flip = 1 - 2 * _chosen(n, p / 2, generator)
    scale = torch.exp2(SCALE_DEVIATION * _normal(n, p, generator))
    angle = ROTATION_DEVIATION * _normal(n, p, generator)
    shift = 2 * SHIFT_DEVIATION * _normal(n, p, generator, 2)
    return similarity_matrices(flip, scale, angle, shift)


def similarity_matrices(flip: Tensor, scale: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Combine mirroring, scaling, rotation (n,) and translation (n, 2) to matrices (n, 2, 3)."""
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cosine * flip, -sine, sine * flip, cosine], dim=1).view(-1, 2, 2)
    return torch.cat([rows, shift[:, :, None]], dim=2)


def colour_matrices(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Draw (n, 3, 4) affine maps of RGB in [-1, 1]: brightness, then contrast, then saturation."""
    brightness = BRIGHTNESS_DEVIATION * _normal(n, p, generator)
    contrast = torch.exp2(CONTRAST_DEVIATION * _normal(n, p, generator))
    saturation = torch.exp2(SATURATION_DEVIATION * _normal(n, p, generator))
    # Saturation scales what differs from the mean of R, G and B; contrast scales everything.
    grey = torch.full((3, 3), 1 / 3, device=generator.device)
    chroma = torch.eye(3, device=generator.device) - grey
    linear = (grey + saturation[:, None, None] * chroma) * contrast[:, None, None]
    # Saturation leaves grey as it is, and brightness adds grey, so it needs contrast only.
    offset = (brightness * contrast)[:, None, None].expand(n, 3, 1)
    return torch.cat([linear, offset], dim=2)


def _chosen(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Ones with probability p, else zeros: (n,)."""
    return (torch.rand(n, generator=generator, device=generator.device) < p).float()


def _normal(n: int, p: float, generator: torch.Generator, *shape: int) -> Tensor:
    """Draw standard normal values (n, *shape), all zero for the images not chosen."""
    chosen = _chosen(n, p, generator).view(n, *(1 for _ in shape))
    return torch.randn(n, *shape, generator=generator, device=generator.device) * chosen


def augment_photos(images: Tensor, size: int, blurred: float, source: torch.Generator) -> Tensor:
    """Augment photos for the attribute net and resize them.

    Hue is left alone, because skin tone informs the apparent groups as people see them.

    Parameters
    ----------
    images : Tensor
        (n, 3, R, R) in [0, 1].
    size : int
        Side of the result in pixels.
    blurred : float
        Probability that the whole batch is reduced to 16 to 40 px and enlarged again.
    source : torch.Generator
        Source of the draws, on the CPU.

    Returns
    -------
    Tensor
        (n, 3, size, size) in [0, 1].
    """
    n = len(images)

    def normal(deviation: float, *shape: int) -> Tensor:
        return deviation * torch.randn(n, *shape, generator=source)

    # Geometry: mirror, scale, rotate by about 7 degrees, shift.
    flip = 1 - 2 * (torch.rand(n, generator=source) < 0.5).float()
    scale, angle = torch.exp(normal(0.08)), normal(math.radians(7))
    placement = similarity_matrices(flip, scale, angle, normal(0.07, 2))
    grid = F.affine_grid(placement, [n, 3, size, size], align_corners=False)
    turned = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    # Light: contrast around the mean, brightness, saturation.
    contrast, light = torch.exp(normal(0.15, 1, 1, 1)), normal(0.08, 1, 1, 1)
    grey = turned.mean(1, keepdim=True)
    saturation = torch.exp(normal(0.15, 1, 1, 1))
    coloured = grey + (turned - grey) * saturation
    centre = coloured.mean((1, 2, 3), keepdim=True)
    lit = ((coloured - centre) * contrast + centre + light).clamp(0, 1)
    # Resolution: outputs of upsamplers are often blurred.
    chance, side = torch.rand((), generator=source), torch.randint(16, 41, (), generator=source)
    if float(chance) < blurred and int(side) < size:
        lit = resized(resized(lit, int(side)), size)
    return lit


def mixup(
    images: Tensor, targets: Mapping[str, Tensor], alpha: float, source: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Blend each image and its targets with another of the batch, one weight for the batch.

    The weight is drawn from Beta(alpha, alpha) (Zhang et al. 2018, arXiv:1710.09412).
    """
    # torch has no seeded Beta distribution; numpy's is seeded from torch's source.
    seed = int(torch.randint(2**31, (), generator=source))
    weight = float(np.random.default_rng(seed).beta(alpha, alpha))
    order = torch.randperm(len(images), generator=source)
    return weight * images + (1 - weight) * images[order], {
        name: weight * target + (1 - weight) * target[order] for name, target in targets.items()
    }
