"""Images out of a generator in training, and sheets of them to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pulse_audit.generators.stylegan2 import StyleGAN2

CHUNK = 64


@torch.no_grad()
def sample(network: StyleGAN2, count: int, seed: int) -> NDArray[np.uint8]:
    """Draw images (count, R, R, 3) from z and noise that follow from the seed, untruncated."""
    source = torch.Generator().manual_seed(seed)
    device = network.map.w_avg.device
    images = []
    for start in range(0, count, CHUNK):
        n = min(CHUNK, count - start)
        z = torch.randn(n, network.z_dim, generator=source)
        noise = [torch.randn(n, 1, *shape, generator=source) for shape in network.noise_shapes]
        drawn = network.synthesis(network.mapping(z.to(device)), [m.to(device) for m in noise])
        images.append(to_pixels(drawn))
    return np.concatenate(images)


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Map (n, 3, R, R) in [-1, 1] to (n, R, R, 3) uint8, rounded and clamped."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    out: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).cpu().numpy()
    return out


def save_sheet(images: NDArray[np.uint8], columns: int, path: Path, zoom: int = 2) -> None:
    """Write images (n, R, R, 3) as one PNG, row by row; n is a multiple of ``columns``."""
    n, side = images.shape[:2]
    rows = images.reshape(n // columns, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
    sheet = Image.fromarray(rows.reshape(n // columns * side, columns * side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((sheet.width * zoom, sheet.height * zoom), Image.Resampling.NEAREST).save(path)
