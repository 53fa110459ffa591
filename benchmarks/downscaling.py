"""DS forward and backward: two matrix products against the strided convolutions they replace."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from pulse_audit.degrade.resample import downscale

SIZE, FACTOR = 1024, 32


def by_convolution(images: torch.Tensor) -> torch.Tensor:
    """PULSE's operator as two depthwise strided convolutions over a reflected border."""
    taps = (torch.arange(4 * FACTOR) - 2 * FACTOR + 0.5) / FACTOR
    x = taps.abs()
    inner = 1.5 * x**3 - 2.5 * x**2 + 1
    outer = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weight = torch.where(x < 1, inner, outer)
    weight = (weight / weight.sum()).expand(3, 1, -1)
    pad = 3 * FACTOR // 2
    images = F.pad(images, (0, 0, pad, pad), mode="reflect")
    images = F.conv2d(images, weight[..., None], stride=(FACTOR, 1), groups=3)
    images = F.pad(images, (pad, pad, 0, 0), mode="reflect")
    return F.conv2d(images, weight[:, :, None], stride=(1, FACTOR), groups=3)


def both_ways(operator: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], None]:
    images = torch.rand(1, 3, SIZE, SIZE, requires_grad=True)

    def step() -> None:
        operator(images).square().sum().backward()

    return step


def variants() -> dict[str, Callable[[], None]]:
    same = torch.rand(1, 3, SIZE, SIZE)
    torch.testing.assert_close(by_convolution(same), downscale(same, FACTOR), atol=1e-5, rtol=1e-4)
    return {
        f"two matrix products, {SIZE} -> {SIZE // FACTOR} px, forward and backward": both_ways(
            lambda images: downscale(images, FACTOR)
        ),
        "two strided convolutions": both_ways(by_convolution),
    }
