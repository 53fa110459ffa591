"""Freezing a network, counting its weights and rendering it once before it is trusted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pulse_audit.types import InputError


@torch.no_grad()
def probed_side(render: Callable[[], Tensor], n: int, name: str) -> int:
    """Render once and return the side of the images.

    Raises
    ------
    InputError
        If ``render`` fails or its result is not ``n`` finite square RGB images (n, 3, R, R).
    """
    try:
        images = render()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: the network cannot render a batch of latents: {line}") from error
    shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
    if not isinstance(images, Tensor) or images.shape != (n, 3, *images.shape[-1:] * 2):
        raise InputError(f"{name}: wanted square RGB images ({n}, 3, R, R) from it, got {shape}")
    if not bool(torch.isfinite(images).all()):
        raise InputError(f"{name}: its images are not finite (NaN or infinity): damaged weights")
    return images.shape[-1]


def normal_latents(*shape: int) -> Tensor:
    """Draw standard normal values, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def freeze(network: object) -> None:
    """Freeze a module; a plain function holds no weights that could be seen."""
    if isinstance(network, nn.Module):
        network.requires_grad_(False).eval()


def device_of(network: object) -> torch.device:
    """Return where a module's weights are; the CPU for a plain function."""
    tensors = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def parameter_count(network: object) -> int:
    """Count the weights; a network that stores them in another form keeps its own count."""
    if not isinstance(network, nn.Module):
        return 0
    stored = sum(tensor.numel() for tensor in network.parameters())
    return int(getattr(network, "parameter_count", stored))
