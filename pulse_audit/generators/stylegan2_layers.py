"""The layers of StyleGAN 2, and the resampling that StyleGAN 2 and 3 share.

Written for search, without grouped convolutions. Weight modulation is done on the activations:
scale the input, convolve with the shared weight, scale the output. That is the same function as
equation 3 of Karras et al. 2020 (arXiv:1912.04958), and its gradient with respect to the styles
never passes through a weight gradient, as it does with one modulated weight per image. In bfloat16
on a CPU, where convolutions are so quick that passes over the feature maps take more time than
they, the large layers of a single image are one function with a modulated weight
(`ModulatedLayer`). Resampling (upfirdn in the papers) is our own implementation in plain PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import FullyConnected
from pulse_audit.generators.network import to_colours
from pulse_audit.types import InputError

ARCHITECTURES = ("skip", "orig", "resnet")
#: Side of the feature maps, in pixels, from which passes over them dominate on a CPU.
LARGE = 128

Padding = tuple[int, int, int, int]


@dataclass(frozen=True)
class StyleGAN2Config:
    """The shape of a StyleGAN 2.

    ``channels`` are the feature maps at 4, 8, 16, ... px; ``hidden`` the widths inside the mapping
    network; ``joint_norm`` as in the mapping network; ``conv_clamp`` bounds the activations (None:
    unbounded); ``noise`` says whether the layers take noise; ``filter_size`` is the number of
    resampling taps.
    """

    channels: tuple[int, ...]
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    hidden: tuple[int, ...] = (512,) * 7
    embed_dim: int = 512
    architecture: str = "skip"
    img_channels: int = 3
    lr_multiplier: float = 0.01
    joint_norm: bool = False
    conv_clamp: float | None = None
    noise: bool = True
    filter_size: int = 4

    def __post_init__(self) -> None:
        """Refuse an unknown architecture."""
        if self.architecture not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise InputError(
                f"StyleGAN 2 architecture {self.architecture!r} is unknown; use {known}"
            )

    @property
    def resolution(self) -> int:
        """Height and width of the images."""
        return int(4 * 2 ** (len(self.channels) - 1))


def setup_filter(taps: Sequence[float] = (1, 3, 3, 1)) -> Tensor:
    """Return the (k, k) low-pass filter of these taps: their outer product, summing to one."""
    line = torch.tensor(taps, dtype=torch.float32)
    square = torch.outer(line, line)
    return square / square.sum()


def upfirdn2d(
    x: Tensor,
    taps: Tensor | None,
    up: int = 1,
    down: int = 1,
    padding: Padding = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Tensor:
    """Upsample by zero insertion, pad, convolve every channel with a filter, downsample.

    Parameters
    ----------
    x : Tensor
        Images (n, c, h, w).
    taps : Tensor or None
        A (k, k) filter, a (k,) filter applied along both axes, or None for no filtering.
    up, down : int
        Integer factors.
    padding : tuple
        Zeros at left, right, top and bottom of the zero-inserted image; negative values crop.
    gain : float
        Factor on the result; ``up**2`` keeps the mean of an upsampled image.

    Returns
    -------
    Tensor
        (n, c, h', w') with h' = ceil((h * up + top + bottom - k + 1) / down), w' likewise.
    """
    left, right, top, bottom = padding
    if taps is None:
        taps = x.new_ones(1)
    # One pass with a square filter.
    if taps.ndim == 2:
        return _filter(x, taps * gain, (up, up), (down, down), padding)
    # A separable filter is applied along the rows, then along the columns, half the gain each.
    line = taps * gain**0.5
    x = _filter(x, line[None, :], (1, up), (1, down), (left, right, 0, 0))
    return _filter(x, line[:, None], (up, 1), (down, 1), (0, 0, top, bottom))


def upsample2d(x: Tensor, taps: Tensor) -> Tensor:
    """Double the size of (n, c, h, w) images with a (k, k) filter, keeping their mean."""
    # This padding keeps the image in place; the gain of 4 makes up for the inserted zeros.
    before, after = (taps.shape[-1] + 1) // 2, (taps.shape[-1] - 2) // 2
    return upfirdn2d(x, taps, up=2, padding=(before, after, before, after), gain=4.0)


def _filter(
    x: Tensor, taps: Tensor, up: tuple[int, int], down: tuple[int, int], padding: Padding
) -> Tensor:
    """One pass with a (kh, kw) filter; ``up`` and ``down`` are (vertical, horizontal)."""
    channels = x.shape[1]
    kernel = taps.to(x.dtype).expand(channels, 1, *taps.shape)
    left, right, top, bottom = padding
    if up == (1, 1):
        # conv2d itself pads only evenly and never crops.
        if min(padding) < 0 or left != right or top != bottom:
            x, left, top = F.pad(x, padding), 0, 0
        # conv2d correlates; the flip makes it a convolution.
        kernel = kernel.flip(2, 3)
        return F.conv2d(x, kernel, stride=down, padding=(top, left), groups=channels)
    # A transposed convolution never multiplies by the inserted zeros; then crop to the padding.
    (height, width), (vertical, horizontal) = taps.shape, up
    left, right = left - width + 1, right + horizontal - width
    top, bottom = top - height + 1, bottom + vertical - height
    if left == right <= 0 and top == bottom <= 0:
        full = F.conv_transpose2d(x, kernel, stride=up, padding=(-top, -left), groups=channels)
    else:
        full = F.conv_transpose2d(x, kernel, stride=up, groups=channels)
        full = F.pad(full, (left, right, top, bottom))
    # Keep every nth pixel.
    return full[:, :, :: down[0], :: down[1]]


def bound_by_passes(x: Tensor) -> bool:
    """Whether passes over the features (n, c, h, w) cost more than convolutions of one image."""
    large = x.shape[2] * x.shape[3] >= LARGE**2
    return len(x) == 1 and x.device.type == "cpu" and (large or x.dtype == torch.bfloat16)


def _conv_weight(n_out: int, n_in: int, size: int) -> nn.Parameter:
    shape = (n_out, n_in, size, size)
    return nn.Parameter(torch.empty(shape, memory_format=torch.channels_last))


class StyleGAN2Layer(nn.Module):
    """Modulated 3 x 3 convolution, optionally after doubling the size, noise, bias, leaky ReLU."""

    def __init__(self, n_in: int, n_out: int, size: int, up: bool, config: StyleGAN2Config):
        super().__init__()
        self.up, self.clamp = up, config.conv_clamp
        self.affine = FullyConnected(config.w_dim, n_in)
        self.weight = _conv_weight(n_out, n_in, 3)
        self.bias = nn.Parameter(torch.empty(n_out))
        if config.noise:
            self.noise_strength = nn.Parameter(torch.empty(()))
            self.register_buffer("noise_const", torch.empty(size, size))

    noise_const: Tensor

    def forward(
        self, x: Tensor, w: Tensor, taps: Tensor, noise: Tensor | None, gain: float = 1.0
    ) -> Tensor:
        """Map (n, n_in, h, h) with styles (n, w_dim) and noise (n or 1, 1, size, size)."""
        style = self.affine(w)
        # Demodulation: 1 / norm of the modulated weights, (n, n_out).
        energy = self.weight.square().sum(dim=(2, 3))
        # A positive gain commutes with the leaky ReLU, so the small factors carry it.
        total = gain * math.sqrt(2)
        scale = (style.square() @ energy.T + 1e-8).rsqrt() * total
        if self.modulates_weight(x, taps):
            # A stored map is (h', h'), one that is given (1, 1, h', h').
            carried = None
            if noise is not None:
                carried = (noise * (self.noise_strength * total)).view(1, 1, *noise.shape[-2:])
            bias = self.bias * total
            blur = taps if self.up else None
            x = cast(
                Tensor, ModulatedLayer.apply(x, style, scale, self.weight, bias, carried, blur)
            )
            return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)
        # Modulation on the activations: (n, n_in) over (n, n_in, h, h).
        x = x * style.to(x.dtype)[:, :, None, None]
        weight = self.weight.to(x.dtype)
        if self.up:
            # Transposed convolution, then the low-pass filter on the doubled grid.
            x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
            before, after = (taps.shape[-1] + 1) // 2 - 1, (taps.shape[-1] - 2) // 2
            x = upfirdn2d(x, taps, padding=(before, after, before, after), gain=4.0)
        else:
            x = F.conv2d(x, weight, padding=1)
        # x * scale + bias, then noise: every term carries the gain.
        bias = (self.bias * total).to(x.dtype)[:, None, None]
        x = torch.addcmul(bias, x, scale.to(x.dtype)[:, :, None, None])
        if noise is not None:
            x = x.add_((noise * (self.noise_strength * total)).to(x.dtype))
        x = F.leaky_relu(x, 0.2, inplace=True)
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)

    def modulates_weight(self, x: Tensor, taps: Tensor) -> bool:
        """Whether `ModulatedLayer` is the quicker way for x (n, n_in, h, h).

        It needs one modulated weight an image, and pays where feature maps outnumber weights.
        """
        large = x.shape[2] * x.shape[3] > self.weight[:, 0].numel()
        frozen, even = not self.weight.requires_grad, taps.shape[-1] % 2 == 0
        return bound_by_passes(x) and large and frozen and even


class ModulatedLayer(torch.autograd.Function):
    """A layer of one image with its styles in the weight: (1, n_in, h, h) -> (1, n_out, h', h').

    Convolution with ``scale * weight * style``, blur where the size is doubled, bias, noise, leaky
    ReLU. Passes over the feature maps are what a bfloat16 step spends its time on, so there are
    three forward, and the gradients of style and scale come from sums that hold because the layer
    is linear in each (sum of x times its gradient, over style) and the leaky ReLU is homogeneous:
    the sum of a gradient times its output is that before the activation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        style: Tensor,
        scale: Tensor,
        weight: Tensor,
        bias: Tensor,
        noise: Tensor | None,
        taps: Tensor | None,
    ) -> Tensor:
        """Take style (1, n_in), scale (1, n_out), noise (1, 1, h', h'); ``taps`` to double."""
        kernel = (weight * style[:, :, None, None] * scale[0, :, None, None, None]).to(x.dtype)
        rounded = bias.to(x.dtype)
        if taps is None:
            y = F.conv2d(x, kernel, rounded, padding=1)
        else:
            wide = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=2)
            blur = (taps * 4).flip(0, 1).to(x.dtype).expand(len(bias), 1, *taps.shape)
            y = F.conv2d(wide, blur, rounded, padding=taps.shape[-1] // 2 - 1, groups=len(bias))
        if noise is not None:
            y.add_(noise.to(y.dtype))
        y = F.leaky_relu_(y, 0.2)
        ctx.save_for_backward(x, y, style, scale, kernel, bias, noise, taps)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients for x, style, scale and noise; weights are frozen."""
        x, y, style, scale, kernel, bias, noise, taps = ctx.saved_tensors
        before_relu = torch.ops.aten.leaky_relu_backward(grad, y, 0.2, True)
        # Sums over the pixels of the gradient, and of it times the noise: (1 or 2, h' * w') times
        # (h' * w', n_out).
        ones = torch.ones_like(before_relu[:, :1])
        maps = ones if noise is None else torch.cat([ones, noise.to(y.dtype)], dim=1)
        sums = (maps.flatten(2)[0] @ before_relu.permute(0, 2, 3, 1).flatten(0, 2)).to(scale.dtype)
        # The part of the output that is linear in the scale is without bias and noise.
        d_scale = (grad * y).sum((2, 3)).to(scale.dtype) - bias * sums[:1] - sums[1:].sum(0)
        d_noise = None
        if ctx.needs_input_grad[5]:
            d_noise = before_relu.sum(1, keepdim=True).to(noise.dtype)
        # Back through the blur, a symmetric convolution whose gradient is one, and the convolution.
        if taps is None:
            d_x = F.conv_transpose2d(before_relu, kernel, padding=1)
        else:
            blur = (taps * 4).to(x.dtype).expand(len(bias), 1, *taps.shape)
            wide = F.conv2d(before_relu, blur, padding=taps.shape[-1] // 2, groups=len(bias))
            d_x = F.conv2d(wide, kernel.transpose(0, 1), stride=2)
        d_style = (d_x * x).sum((2, 3)).to(style.dtype) / torch.where(style == 0, 1, style)
        return d_x, d_style, d_scale / scale, None, None, d_noise, None


class ToRGB(nn.Module):
    """Modulated 1 x 1 convolution to the colour channels, without demodulation.

    ``share`` is a factor on the colours, below 1 only while a growing network fades them in.
    """

    share: float = 1.0

    def __init__(self, n_in: int, config: StyleGAN2Config):
        super().__init__()
        self.clamp, self.gain = config.conv_clamp, 1 / math.sqrt(n_in)
        self.affine = FullyConnected(config.w_dim, n_in)
        self.weight = _conv_weight(config.img_channels, n_in, 1)
        self.bias = nn.Parameter(torch.empty(config.img_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (n, n_in, h, h) with styles (n, w_dim) to colours, in the type of ``w``."""
        # Colours are added up over the sizes, so they are in the type of the styles.
        style = self.affine(w) * self.gain
        if bound_by_passes(x):
            # One image: its style goes into the weight (3, n_in, 1, 1).
            x = to_colours(x, (self.weight * style[:, :, None, None]).to(x.dtype))
        else:
            x = F.conv2d(x * style.to(x.dtype)[:, :, None, None], self.weight.to(x.dtype))
        image = x.to(w.dtype) + self.bias[:, None, None]
        if self.share != 1:
            image = image * self.share
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)


class ResnetSkip(nn.Module):
    """The shortcut of the resnet architecture: 1 x 1 convolution, then doubling."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__()
        self.gain = 1 / math.sqrt(2 * n_in)
        self.weight = _conv_weight(n_out, n_in, 1)

    def forward(self, x: Tensor, taps: Tensor) -> Tensor:
        """Map (n, n_in, h, h) to (n, n_out, 2h, 2h), scaled by sqrt(1/2)."""
        return upsample2d(F.conv2d(x, (self.weight * self.gain).to(x.dtype)), taps)


class SynthesisBlock(nn.Module):
    """The layers of one resolution; the first block starts from its learned constant."""

    def __init__(self, index: int, config: StyleGAN2Config):
        super().__init__()
        size, n_out = 4 * 2**index, config.channels[index]
        n_in = config.channels[max(index - 1, 0)]
        self.residual = index > 0 and config.architecture == "resnet"
        self.colours = config.architecture == "skip" or size == config.resolution
        if index == 0:
            self.const = nn.Parameter(torch.empty(n_out, size, size))
        else:
            self.conv0 = StyleGAN2Layer(n_in, n_out, size, True, config)
        self.conv1 = StyleGAN2Layer(n_out, n_out, size, False, config)
        if self.colours:
            self.torgb = ToRGB(n_out, config)
        if self.residual:
            self.skip = ResnetSkip(n_in, n_out)

    @property
    def layers(self) -> list[StyleGAN2Layer]:
        """The convolutions in order."""
        return [self.conv0, self.conv1] if hasattr(self, "conv0") else [self.conv1]

    def forward(self, x: Tensor, w: Tensor, taps: Tensor, noise: Iterator[Tensor | None]) -> Tensor:
        """Map features (n, c, h, h) to (n, c', 2h, 2h), or the constant at its own size.

        ``w`` holds this block's styles first: (n, at least len(layers), w_dim).
        """
        # The resnet architecture adds a shortcut, both scaled by sqrt(1/2).
        if self.residual:
            shortcut = self.skip(x, taps)
            x = self.conv0(x, w[:, 0], taps, next(noise))
            out: Tensor = self.conv1(x, w[:, 1], taps, next(noise), math.sqrt(0.5)) + shortcut
            return out
        for index, layer in enumerate(self.layers):
            x = layer(x, w[:, index], taps, next(noise))
        return x


class SynthesisBlocks(nn.ModuleDict):
    """The blocks by name (b4, b8, ...) and the low-pass filter they share."""

    def __init__(self, blocks: dict[str, SynthesisBlock], resample_filter: Tensor):
        super().__init__(blocks)
        self.register_buffer("resample_filter", resample_filter)

    resample_filter: Tensor

    @property
    def blocks(self) -> dict[str, SynthesisBlock]:
        """The blocks in order of resolution."""
        return {name: b for name, b in self.items() if isinstance(b, SynthesisBlock)}

    @property
    def layers(self) -> list[StyleGAN2Layer]:
        """All convolutions in order."""
        return [layer for block in self.blocks.values() for layer in block.layers]
