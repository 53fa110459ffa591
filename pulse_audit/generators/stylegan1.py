"""StyleGAN 1 (Karras et al. 2019, arXiv:1812.04948), read from state dicts in PULSE's layout.

``synthesis.pt`` holds ``torgb``, ``blocks.4x4`` and ``blocks.RxR`` with unscaled weights; the
equalised-learning-rate multipliers are folded in once, at load. ``mapping.pt`` holds ``dense0`` to
``dense7``. Resolution, channel widths and the number of layers are read from the shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import StyleMapping, normalize_second_moment
from pulse_audit.generators.network import (
    MappedNetwork,
    Noise,
    StateReader,
    needed,
    noise_maps,
    numbered,
    to_colours,
)
from pulse_audit.types import InputError

State = Mapping[str, Tensor]

SLOPE = 0.2
NORM_EPS = 1e-5
LR_MULTIPLIER = 0.01  # of the mapping network
FIRST_FUSED = 128  # from this resolution on, upscaling and convolution were trained as one


class StyleGAN1(MappedNetwork):
    """Mapping and synthesis network of StyleGAN 1, frozen: `StyleNetwork`, two styles a resolution.

    Parameters
    ----------
    synthesis : mapping of str to Tensor
        PULSE's ``synthesis.pt``: ``torgb.*`` and ``blocks.RxR.*``, weights unscaled.
    mapping : mapping of str to Tensor, optional
        ``mapping.pt``: ``dense0.weight`` to ``dense7.bias``, unscaled, and ``label_weight`` (c_dim,
        embed_dim) of a conditional network; without it the network has synthesis only.
    w_avg : Tensor, optional
        Average of w (w_dim,) to truncate to; default: the mean over a fixed sample of z.
    noise : sequence of Tensor, optional
        The maps that ``noise="const"`` means, (1, 1, h, w) each; default: standard-normal maps from
        seed 0, the same in every process, because PULSE's files store none.

    Raises
    ------
    InputError
        If a tensor is missing, unknown or does not fit the others.
    """

    family = "stylegan1"
    syn: StyleGAN1Synthesis

    def __init__(
        self,
        synthesis: State,
        mapping: State | None = None,
        w_avg: Tensor | None = None,
        noise: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        # Every tensor has to be read: one left over belongs to another kind of network.
        reader = StateReader({k: v.detach().float() for k, v in synthesis.items()})
        self.syn = StyleGAN1Synthesis(reader)
        reader.refuse_unread()
        self.resolution, self.noise_shapes = self.syn.resolution, self.syn.noise_shapes
        self.num_ws = len(self.noise_shapes)
        self.w_dim = self.z_dim = self.syn.w_dim
        self.c_dim, self.map = 0, None
        if mapping is not None:
            reader = StateReader({k: v.detach().float() for k, v in mapping.items()})
            network = self.map = StyleGAN1Mapping(reader, self.num_ws)
            reader.refuse_unread()
            self.z_dim, self.c_dim = network.z_dim, network.c_dim
            if len(network.w_avg) != self.w_dim:
                raise InputError(
                    f"the mapping network gives {len(network.w_avg)} values but the synthesis "
                    f"network takes {self.w_dim}: the two files do not belong together"
                )
            if w_avg is None:
                network.estimate_average()
            else:
                network.w_avg.copy_(needed({"average of w": w_avg}, "average of w", self.w_dim))
        # The maps that noise="const" stands for.
        source = torch.Generator().manual_seed(0)
        for index, shape in enumerate(self.noise_shapes):
            fixed = noise[index] if noise else torch.randn(1, 1, *shape, generator=source)
            needed({f"noise map {index}": fixed}, f"noise map {index}", 1, 1, *shape)
            self.register_buffer(f"noise_const_{index}", fixed.float())
        tensors = [*synthesis.items(), *(mapping or {}).items()]
        # Blur kernels are constants, not parameters.
        self.parameter_count = sum(t.numel() for k, t in tensors if not k.endswith(".kernel"))
        self.requires_grad_(False).eval()

    def synthesis(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Render w (n, num_ws, w_dim) to raw images (n, 3, R, R), about [-1, 1].

        ``noise`` is as for `noise_maps`, "const" being the maps given at construction. InputError
        if styles or noise do not fit.
        """
        w = self.checked_styles(w)
        stored = [getattr(self, f"noise_const_{index}") for index in range(self.num_ws)]
        out: Tensor = self.syn(w, noise_maps(noise, self.noise_shapes, w, stored), self.dtype)
        return out


class StyleGAN1Mapping(StyleMapping):
    """z -> w: normalisation, then equalised dense layers with leaky ReLU (eight as published).

    A conditional network multiplies the one-hot class by ``label_weight`` (c_dim, embed_dim) and
    appends that to z before the normalisation, as in the TensorFlow original.
    """

    def __init__(self, weights: State, num_ws: int) -> None:
        super().__init__()
        self.num_ws, self.layers = num_ws, nn.ModuleList()
        for index in range(max(numbered(weights, r"dense(\d+)\.weight"), 1)):
            bias = needed(weights, f"dense{index}.bias", None)
            weight = needed(weights, f"dense{index}.weight", len(bias), None)
            # Equalised learning rate: the gain that training applied when the weight was used.
            gain = math.sqrt(2 / weight.shape[1]) * LR_MULTIPLIER
            self.layers.append(_linear(weight * gain, bias * LR_MULTIPLIER))
        self.z_dim, self.c_dim = cast(nn.Linear, self.layers[0]).in_features, 0
        if "label_weight" in weights:
            label_weight = needed(weights, "label_weight", None, None)
            self.label_weight = nn.Parameter(label_weight)
            self.c_dim, embed_dim = label_weight.shape
            self.z_dim -= embed_dim
        # Not persistent: the tensors of this module are the key of its Gaussian fit.
        average = torch.zeros(cast(nn.Linear, self.layers[-1]).out_features)
        self.register_buffer("w_avg", average, persistent=False)

    def single(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Map z (n, z_dim) and one-hot labels (n, c_dim) to one style an image (n, w_dim)."""
        # (n, z_dim) -> (n, z_dim + embed_dim) with a class
        x = z.to(self.w_avg.dtype)
        if labels is not None:
            x = torch.cat([x, labels.to(x.dtype) @ self.label_weight], dim=1)
        x = normalize_second_moment(x)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return x


class StyleGAN1Synthesis(nn.Module):
    """Styles (n, num_ws, w_dim) and noise maps -> raw images (n, 3, R, R)."""

    def __init__(self, weights: State) -> None:
        super().__init__()
        # Blocks are named by their size: 4x4, 8x8, ...
        sizes = sorted({int(m[1]) for k in weights if (m := re.match(r"blocks\.(\d+)x\1\.", k))})
        if sizes != [4 << i for i in range(len(sizes))] or not sizes:
            raise InputError(
                f"not a StyleGAN 1 synthesis file: blocks of {sizes or 'no'} pixels, "
                "wanted 4, 8, 16, ... each twice the one before"
            )
        self.resolution = sizes[-1]
        self.noise_shapes = tuple((r, r) for r in sizes for _ in range(2))
        bias = needed(weights, "blocks.4x4.bias", None)
        const = needed(weights, "blocks.4x4.const", 1, len(bias), 4, 4)
        # The constant has a bias but no convolution before it.
        self.start = nn.Parameter(const + bias[:, None, None])
        self.layers, channels = nn.ModuleList(), len(bias)
        # Two layers a size, each with its own noise strength and style.
        for size in sizes:
            block = f"blocks.{size}x{size}"
            convs: list[nn.Module]
            if size == 4:
                second = _conv(weights, f"{block}.conv", channels)
                convs, widths = [nn.Identity(), second], [channels, len(second.bias)]
            else:
                first = UpConv.read(weights, f"{block}.conv0_up", channels, size >= FIRST_FUSED)
                second = _conv(weights, f"{block}.conv1", len(first.bias))
                convs, widths = [first, second], [len(first.bias), len(second.bias)]
            for index, (conv, width) in enumerate(zip(convs, widths, strict=True)):
                epilogue = f"{block}.epi{index + 1}"
                strength = needed(weights, f"{epilogue}.noise.weight", width)
                weight = needed(weights, f"{epilogue}.style_mod.lin.weight", 2 * width, None)
                shift = needed(weights, f"{epilogue}.style_mod.lin.bias", 2 * width)
                style = _linear(weight / math.sqrt(weight.shape[1]), shift)
                self.layers.append(StyleGAN1Layer(conv, strength, style))
            channels = widths[1]
        self.torgb = _conv(weights, "torgb", channels, size=1, gain=1.0)
        self.w_dim = cast(StyleGAN1Layer, self.layers[0]).style.in_features

    def forward(self, w: Tensor, noise: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
        """Run all layers, feature maps in ``dtype``; each takes its own style and noise map."""
        # The same constant for every image: (1, c, 4, 4) -> (n, c, 4, 4)
        x = self.start.to(dtype).expand(len(w), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.layers):
            x = layer(x, w[:, i], noise[i])
        colours = to_colours(x, self.torgb.weight.to(dtype), self.torgb.bias.to(dtype))
        return colours.to(w.dtype).contiguous()


class StyleGAN1Layer(nn.Module):
    """Optional convolution, then noise, leaky ReLU, instance norm and style."""

    def __init__(self, conv: nn.Module, noise_strength: Tensor, style: nn.Linear) -> None:
        super().__init__()
        self.conv = conv
        self.noise_strength = nn.Parameter(noise_strength[:, None, None].clone())
        self.style = style

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Take features (n, c_in, h, w) and styles (n, w_dim)."""
        x = self.conv(x)
        if noise is not None:
            x = torch.addcmul(x, self.noise_strength.to(x.dtype), noise.to(x.dtype))
        # (n, 2 c) -> scale and shift of every channel
        scale, shift = self.style(w).chunk(2, dim=1)
        return cast(Tensor, StyledNorm.apply(x, scale + 1, shift))


class Conv(nn.Module):
    """Convolution that keeps the size, in the type of its input."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Take (n, c_in, h, w), return (n, c_out, h, w)."""
        padding = self.weight.shape[-1] // 2
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=padding)


class UpConv(nn.Module):
    """Nearest upscaling by two and 3x3 convolution as one transposed convolution, then the blur.

    StyleGAN 1 trained the layers of 128 px and more with the transposed convolution (its kernel
    the sum of four shifts) and the smaller ones with two separate steps. Those are the transposed
    convolution with the kernel turned by half a turn, at 16 products a pixel in place of 36.
    ``early_bias`` adds the bias before the blur, so that borders get less of it.
    """

    def __init__(self, weight: Tensor, bias: Tensor, blur: Tensor, fused: bool) -> None:
        super().__init__()
        # (c_out, c_in, 3, 3) -> (c_in, c_out, 4, 4)
        kernel = (weight if fused else weight.flip(2, 3)).transpose(0, 1)
        padded = F.pad(kernel, (1, 1, 1, 1))
        shifts = [padded[:, :, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1)]
        kernel = sum(shifts[1:], shifts[0])
        self.kernel = nn.Parameter(kernel.contiguous(memory_format=torch.channels_last))
        self.bias, self.early_bias = nn.Parameter(bias), False
        blur = blur.expand(len(bias), 1, 3, 3)
        self.blur = nn.Parameter(blur.contiguous(memory_format=torch.channels_last))

    @classmethod
    def read(cls, weights: State, key: str, c_in: int, fused: bool) -> UpConv:
        """Read the layer; the blur is [1, 2, 1] in both directions where none is stored."""
        bias = needed(weights, f"{key}.bias", None)
        weight = needed(weights, f"{key}.weight", len(bias), c_in, 3, 3)
        if f"{key}.intermediate.kernel" in weights:
            blur = needed(weights, f"{key}.intermediate.kernel", 1, 1, 3, 3)
        else:
            line = torch.tensor([1.0, 2.0, 1.0]) / 4
            blur = torch.outer(line, line)[None, None]
        return cls(weight * math.sqrt(2 / (9 * c_in)), bias.clone(), blur, fused)

    def forward(self, x: Tensor) -> Tensor:
        """Take (n, c_in, h, w), return (n, c_out, 2h, 2w)."""
        # The blur is one filter a channel; the bias belongs before or after it.
        blur, bias = self.blur.to(x.dtype), self.bias.to(x.dtype)
        early, late = (bias, None) if self.early_bias else (None, bias)
        x = F.conv_transpose2d(x, self.kernel.to(x.dtype), early, stride=2, padding=1)
        return F.conv2d(x, blur, late, padding=1, groups=len(bias))


class StyledNorm(torch.autograd.Function):
    """Leaky ReLU, instance norm (no affine), then ``x * scale + shift`` per image and channel.

    One function, because at 1024 px these steps are bound by memory: the gradient needs the
    activations once and four sums per channel, where autograd would keep five maps and pass over
    them a dozen times.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Take x (n, c, h, w), scale and shift (n, c)."""
        y = F.leaky_relu(x, SLOPE)
        # Means in float32 at least: bfloat16 would lose them over a million pixels.
        wide = torch.promote_types(y.dtype, torch.float32)
        mean = y.mean((2, 3), keepdim=True, dtype=wide)
        variance = (y - mean.to(y.dtype)).square_().mean((2, 3), keepdim=True, dtype=wide)
        rstd = (variance + NORM_EPS).rsqrt()
        # Norm and style together are y * gain + offset.
        gain = rstd * scale[:, :, None, None]
        offset = shift[:, :, None, None] - mean * gain
        ctx.save_for_backward(y, mean, rstd, gain)
        ctx.style_dtype = scale.dtype
        return torch.addcmul(offset.to(y.dtype), y, gain.to(y.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients for x (n, c, h, w), scale (n, c) and shift (n, c)."""
        y, mean, rstd, gain = ctx.saved_tensors
        pixels = y.shape[2] * y.shape[3]
        # Sums over the pixels, (n, c, 1, 1), in float32 at least.
        d_shift = grad.sum((2, 3), keepdim=True, dtype=mean.dtype)
        d_scale = (grad * y).sum((2, 3), keepdim=True, dtype=mean.dtype)
        d_scale = (d_scale - mean * d_shift) * rstd
        # d_y = gain * grad + slope * y + constant: the norm couples all pixels by two sums.
        slope = -gain * rstd * d_scale / pixels
        constant = -gain * d_shift / pixels - slope * mean
        d_y = torch.addcmul(constant.to(y.dtype), grad, gain.to(y.dtype))
        d_y.addcmul_(y, slope.to(y.dtype))
        d_x = torch.ops.aten.leaky_relu_backward(d_y, y, SLOPE, True)
        styles = (d[:, :, 0, 0].to(ctx.style_dtype) for d in (d_scale, d_shift))
        return d_x, *styles


def _conv(weights: State, key: str, c_in: int, size: int = 3, gain: float = math.sqrt(2)) -> Conv:
    """Read a convolution, its equalised-learning-rate gain folded in."""
    bias = needed(weights, f"{key}.bias", None)
    weight = needed(weights, f"{key}.weight", len(bias), c_in, size, size)
    return Conv(weight * gain / math.sqrt(c_in * size**2), bias.clone())


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias.clone())
    return layer
