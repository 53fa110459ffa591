"""Corruptions of an image: noise, blur and compression.

Each takes images (n, c, h, w) in [0, 1], an amount and one integer seed per image, and returns
images of the same shape. Random numbers are drawn on the CPU, so that an image's corruption depends
neither on its batch mates nor on the device.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pulse_audit.types import InputError

#: How finely the stroke of a motion blur is drawn.
POINTS_PER_PIXEL = 64


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def add_gaussian_noise(images: Tensor, sigma: float, seeds: Sequence[int]) -> Tensor:
    """Add independent Gaussian noise to every value.

    ``sigma`` is the standard deviation on the 0-255 scale. The result is not clamped.
    """
    noise = [torch.randn(images.shape[1:], generator=_generator(seed)) for seed in seeds]
    return images + torch.stack(noise).to(images) * (sigma / 255)


def add_salt_and_pepper(images: Tensor, share: float, seeds: Sequence[int]) -> Tensor:
    """Turn a share of the pixels white or black, with equal chances, all channels together.

    ``share`` is the probability, in [0, 1], that a pixel is hit; the others keep their values
    exactly.
    """
    # One number a pixel, (n, 1, h, w): the lowest become salt, the highest pepper.
    drawn = [torch.rand((1, *images.shape[2:]), generator=_generator(seed)) for seed in seeds]
    uniform = torch.stack(drawn).to(images.device)
    salted = torch.where(uniform < share / 2, torch.ones_like(images), images)
    return torch.where(uniform >= 1 - share / 2, torch.zeros_like(images), salted)


def motion_kernel(length: float, angle: float) -> Tensor:
    """Draw a straight, centred stroke: each pixel weighs the share of the stroke inside it.

    Parameters
    ----------
    length : float
        Of the stroke, in pixels, at least 1; an odd length at angle 0 gives equal weights.
    angle : float
        In radians.

    Returns
    -------
    Tensor, (k, k)
        float64 with sum 1; k is the smallest odd size that holds the stroke in any direction.
    """
    radius = math.ceil((length - 1) / 2)
    # Points spread evenly along the stroke, each counted in the pixel it falls on.
    points = POINTS_PER_PIXEL * math.ceil(length)
    along = length * ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5)
    columns = (along * math.cos(angle)).round().long() + radius
    rows = (along * math.sin(angle)).round().long() + radius
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    share = torch.full((points,), 1 / points, dtype=torch.float64)
    kernel.index_put_((rows, columns), share, accumulate=True)
    return kernel


def blur_by_motion(images: Tensor, length: float, seeds: Sequence[int]) -> Tensor:
    """Blur along a straight stroke in a random direction; the image is mirrored at its edge.

    ``length`` is that of the stroke in pixels of the images (float32 or float64); 1 leaves them
    unblurred. The direction is uniform over the half circle.

    Raises
    ------
    InputError
        If the stroke is longer than the shorter side.
    """
    height, width = images.shape[-2:]
    if length > min(height, width):
        raise InputError(
            f"motion:{length:g} is longer than the {min(height, width)} pixels of the images: "
            "use a shorter length or a higher resolution"
        )
    angles = [math.pi * float(torch.rand((), generator=_generator(seed))) for seed in seeds]
    kernels = torch.stack([motion_kernel(length, angle) for angle in angles]).to(images)

    # Convolve every image with its own (k, k) kernel, by way of the Fourier transform.
    radius = kernels.shape[-1] // 2
    padded = functional.pad(images, [radius] * 4, mode="reflect")
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernels, s=size)[:, None]
    blurred: Tensor = torch.fft.irfft2(spectrum, s=size)
    # The kernel's centre sits at index radius, which shifts the result by another radius.
    return blurred[..., 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def compress_jpeg(images: Tensor, quality: float, seeds: Sequence[int]) -> Tensor:
    """Store as 8-bit JPEG (Pillow's encoder, 4:2:0 chroma) and read back.

    ``quality`` is a whole number from 1 to 100, on libjpeg's scale. Nothing is random, so the seeds
    are not used, and no gradient passes.
    """
    levels = (images.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    decoded = []
    for image in levels.permute(0, 2, 3, 1).numpy():
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=int(quality), subsampling="4:2:0")
        decoded.append(np.asarray(Image.open(buffer)))
    # n arrays (h, w, 3) -> (n, 3, h, w)
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(images) / 255


#: How each kind of condition is applied, by its name in `pulse_audit.conditions.CONDITION_KINDS`.
CORRUPTIONS: Mapping[str, Callable[[Tensor, float, Sequence[int]], Tensor]] = {
    "gaussian": add_gaussian_noise,
    "saltpepper": add_salt_and_pepper,
    "motion": blur_by_motion,
    "jpeg": compress_jpeg,
}
