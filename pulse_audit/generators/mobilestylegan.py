"""MobileStyleGAN: a small style network whose image is a wavelet transform.

Belousov 2021, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image
Synthesis" (arXiv:2104.04767): depthwise separable convolutions, and inverse Haar transforms in
place of upsampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import FullyConnected, MappingNetwork
from pulse_audit.generators.network import MappedNetwork, Noise, mapping_widths, needed, numbered


@dataclass(frozen=True)
class MobileStyleGANConfig:
    """What the shapes of the weights tell.

    ``channels`` are those at 4 px and at the end of each block, which doubles the size.
    """

    channels: tuple[int, ...]
    z_dim: int
    w_dim: int
    hidden: tuple[int, ...]


def inverse_haar(x: Tensor) -> Tensor:
    """Turn wavelet bands (n, 4c, h, w) into (n, c, 2h, 2w), in channels-last order of memory.

    The c channels of the low band LL come first, then LH, HL and HH of each channel in turn. The
    transform is orthonormal: each output pixel is half a sum of the four bands with signs.
    """
    # Channels last all the way, (n, h, w, 4c): convolutions take a third of the time so.
    x = x.permute(0, 2, 3, 1)
    count = x.shape[-1] // 4
    low, details = x[..., :count] * 0.5, x[..., count:] * 0.5
    lh, hl, hh = (details[..., band::3] for band in range(3))
    upper, lower, right, left = low + lh, low - lh, hl + hh, hl - hh
    # The two rows (n, h, 2w, c) of each square of two by two, then both: (n, 2h, 2w, c).
    rows = [
        torch.stack([upper + right, upper - right], dim=3).flatten(2, 3),
        torch.stack([lower + left, lower - left], dim=3).flatten(2, 3),
    ]
    return torch.stack(rows, dim=2).flatten(1, 2).permute(0, 3, 1, 2)


class Modulation(nn.Module):
    """Scales the channels of a feature map by an affine function of w."""

    def __init__(self, w_dim: int, channels: int):
        super().__init__()
        self.affine = FullyConnected(w_dim, channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Scale x (n or 1, channels, h, w) by the style of w (n, w_dim)."""
        scaled: Tensor = x * self.affine(w).to(x.dtype)[:, :, None, None]
        return scaled


class MobileLayer(nn.Module):
    """Modulation, 3 x 3 convolution, noise, bias, leaky ReLU.

    The convolution is full (at 4 px), or depthwise with a 1 x 1 convolution after it. Its weights
    are normalised by the export: nothing is demodulated here. The noise map is a part of the
    network, since its strength is not stored apart.
    """

    def __init__(self, n_in: int, n_out: int, size: int, w_dim: int, depthwise: bool):
        super().__init__()
        self.modulation = Modulation(w_dim, n_in)
        self.depthwise = nn.Parameter(torch.empty(n_in, 1, 3, 3)) if depthwise else None
        side = 1 if depthwise else 3
        self.weight = nn.Parameter(torch.empty(n_out, n_in, side, side))
        self.bias = nn.Parameter(torch.empty(n_out))
        self.register_buffer("noise_const", torch.empty(size, size))

    noise_const: Tensor

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (n or 1, n_in, size, size) with w (n, w_dim) to (n, n_out, size, size)."""
        x = self.modulation(x, w)
        if self.depthwise is not None:
            x = F.conv2d(x, self.depthwise.to(x.dtype), padding=1, groups=x.shape[1])
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return F.leaky_relu(x.add_(self.noise_const.to(x.dtype)), 0.2, inplace=True)


class MobileBlock(nn.Module):
    """Doubles the size by an inverse Haar transform of the modulated bands, then two layers."""

    def __init__(self, n_in: int, n_out: int, size: int, w_dim: int):
        super().__init__()
        self.up = Modulation(w_dim, n_in)
        self.conv1 = MobileLayer(n_in // 4, n_out, size, w_dim, depthwise=True)
        self.conv2 = MobileLayer(n_out, n_out, size, w_dim, depthwise=True)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (n, n_in, size / 2, size / 2) with w (n, 3, w_dim) to (n, n_out, size, size)."""
        x = inverse_haar(self.up(x, w[:, 0]))
        out: Tensor = self.conv2(self.conv1(x, w[:, 1]), w[:, 2])
        return out


class WaveletImage(nn.Module):
    """Modulated 1 x 1 convolution to the wavelet bands of the image, without activation."""

    def __init__(self, n_in: int, w_dim: int):
        super().__init__()
        self.modulation = Modulation(w_dim, n_in)
        self.weight = nn.Parameter(torch.empty(12, n_in, 1, 1))
        self.bias = nn.Parameter(torch.empty(12))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (n, n_in, h, h) with w (n, w_dim) to images (n, 3, 2h, 2h) of the weights' type."""
        x = self.modulation(x, w)
        bands = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype))
        return inverse_haar(bands.to(w.dtype)).contiguous()


class MobileSynthesis(nn.Module):
    """The layers from w to the image, in the order of their styles."""

    def __init__(self, config: MobileStyleGANConfig):
        super().__init__()
        channels, w_dim = config.channels, config.w_dim
        self.const = nn.Parameter(torch.empty(channels[0], 4, 4))
        self.conv1 = MobileLayer(channels[0], channels[0], 4, w_dim, depthwise=False)
        self.layers = nn.ModuleList(
            MobileBlock(n_in, n_out, 8 * 2**i, w_dim)
            for i, (n_in, n_out) in enumerate(zip(channels[:-1], channels[1:], strict=True))
        )
        self.to_img = WaveletImage(channels[-1], w_dim)


class MobileStyleGAN(MappedNetwork):
    """MobileStyleGAN: ``mapping`` takes z to w, ``synthesis`` takes w to images.

    ``num_ws`` counts one style a modulation: the first layer, three a block, the image. A new
    instance holds uninitialised weights: use :meth:`from_state`.
    """

    family = "mobilestylegan"
    syn: MobileSynthesis
    map: MappingNetwork

    def __init__(self, config: MobileStyleGANConfig):
        super().__init__()
        self.config = config
        self.z_dim, self.w_dim, self.c_dim = config.z_dim, config.w_dim, 0
        self.syn = MobileSynthesis(config)
        # 4 px, doubled by each block and once more by the transform of the image.
        self.resolution = 4 * 2 ** len(config.channels)
        self.num_ws = 3 * len(self.syn.layers) + 2
        self.map = MappingNetwork(
            config.z_dim, 0, config.w_dim, self.num_ws, config.hidden, 0, lr_multiplier=1.0
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Self:
        """Build the frozen network of a state dict under this module's own key names.

        InputError if tensors are missing, unknown or do not fit together.
        """
        count = numbered(state, r"synthesis\.layers\.(\d+)\.conv2\.weight")
        first = needed(state, "synthesis.const", None, 4, 4)
        outputs = [needed(state, f"synthesis.layers.{i}.conv2.bias", None) for i in range(count)]
        widths = mapping_widths(state)
        config = MobileStyleGANConfig(
            channels=(len(first), *(len(bias) for bias in outputs)),
            z_dim=widths[0],
            w_dim=widths[-1],
            hidden=widths[1:-1],
        )
        return cls.filled(partial(cls, config), state)

    def synthesis(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Render w (n, num_ws, w_dim) to images (n, 3, R, R), about [-1, 1].

        ``noise`` is not used: the noise maps are a part of the network. Images are float32
        (float64 in that precision). InputError if the styles do not fit.
        """
        w = self.checked_styles(w)
        # The learned constant (1, c, 4, 4) is the same for every image.
        const = self.syn.const.to(self.dtype)[None]
        x = self.syn.conv1(const.contiguous(memory_format=torch.channels_last), w[:, 0])
        for index, block in enumerate(self.syn.layers):
            x = block(x, w[:, 3 * index + 1 : 3 * index + 4])
        image: Tensor = self.syn.to_img(x, w[:, -1])
        return image
