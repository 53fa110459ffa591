"""Adaptive discriminator augmentation: the discriminator never sees an image as it is.

Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data"
(arXiv:2006.06676). Of the paper's list these are used: x-flip, isotropic scaling, rotation by
small angles, translation, brightness, contrast and saturation. Left out are quarter turns (faces
are upright), changes of hue and inverted brightness (skin tone is what this project measures).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SCALE_DEVIATION = 0.2
ROTATION_DEVIATION = math.radians(10)
SHIFT_DEVIATION = 0.125
BRIGHTNESS_DEVIATION = 0.2
CONTRAST_DEVIATION = 0.5
SATURATION_DEVIATION = 1.0


@dataclass
class AdaptiveStrength:
    """The probability p of every augmentation, driven by how the discriminator overfits.

    The heuristic r_t of the paper's section 3: the mean sign of the logits on real training
    images, 0 without overfitting and 1 with complete overfitting.

    Attributes
    ----------
    p : float
        Current probability, in [0, ``ceiling``].
    target : float
        r_t above this raises p, below lowers it.
    images : int
        Training images in which p can go from 0 to 1.
    ceiling : float
        Augmentations leak into the samples when p is near 1; the paper finds 0.8 safe.
    """

    target: float
    images: int
    ceiling: float
    p: float = 0.0

    def update(self, r_t: float, seen: int) -> None:
        """Move p after ``seen`` further images whose mean sign was ``r_t``."""
        step = math.copysign(seen / self.images, r_t - self.target) if r_t != self.target else 0.0
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
    colours = colour_matrices(len(images), p, generator)
    planes = (colours[:, :, :3] @ images.flatten(2) + colours[:, :, 3:]).view_as(images)
    placement = placement_matrices(len(images), p, generator)
    grid = F.affine_grid(placement, list(images.shape), align_corners=False)
    return F.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)


def placement_matrices(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Draw (n, 2, 3) matrices from output to input coordinates, both in [-1, 1]."""
    flip = 1 - 2 * _chosen(n, p / 2, generator)
    scale = torch.exp2(SCALE_DEVIATION * _normal(n, p, generator))
    angle = ROTATION_DEVIATION * _normal(n, p, generator)
    shift = 2 * SHIFT_DEVIATION * _normal(n, p, generator, 2)
    cosine, sine = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cosine * flip, -sine, sine * flip, cosine], dim=1).view(n, 2, 2)
    return torch.cat([rows, shift[:, :, None]], dim=2)


def colour_matrices(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Draw (n, 3, 4) affine maps of RGB in [-1, 1]: brightness, then contrast, then saturation."""
    brightness = BRIGHTNESS_DEVIATION * _normal(n, p, generator)
    contrast = torch.exp2(CONTRAST_DEVIATION * _normal(n, p, generator))
    saturation = torch.exp2(SATURATION_DEVIATION * _normal(n, p, generator))
    grey = torch.full((3, 3), 1 / 3, device=generator.device)
    chroma = torch.eye(3, device=generator.device) - grey
    linear = (grey + saturation[:, None, None] * chroma) * contrast[:, None, None]
    # Grey keeps its value under saturation, so brightness passes through unchanged by it.
    offset = (brightness * contrast)[:, None, None].expand(n, 3, 1)
    return torch.cat([linear, offset], dim=2)


def _chosen(n: int, p: float, generator: torch.Generator) -> Tensor:
    """Ones with probability p, else zeros: (n,)."""
    return (torch.rand(n, generator=generator, device=generator.device) < p).float()


def _normal(n: int, p: float, generator: torch.Generator, *shape: int) -> Tensor:
    """Draw standard normal values (n, *shape), all zero for the images not chosen."""
    chosen = _chosen(n, p, generator).view(n, *(1 for _ in shape))
    return torch.randn(n, *shape, generator=generator, device=generator.device) * chosen
