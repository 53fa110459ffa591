"""StyleGAN 1 (Karras et al. 2019), read from the two files PULSE ships.

``synthesis.pt`` holds ``torgb``, ``blocks.4x4`` and ``blocks.RxR`` with unscaled weights; the
equalised-learning-rate multipliers are folded in once, at load. ``mapping.pt`` holds ``dense0`` to
``dense7``. Resolution, channel widths and the number of layers are read from the shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.types import InputError

StateDict = MappingType[str, Tensor]

SLOPE = 0.2
NORM_EPS = 1e-5
LR_MULTIPLIER = 0.01  # of the mapping network
FIRST_FUSED = 128  # from this resolution on, upscaling and convolution were trained as one


class StyleGAN1(nn.Module):
    """Mapping and synthesis network of StyleGAN 1, frozen.

    Attributes
    ----------
    resolution : int
        Side of the images.
    num_ws : int
        Style vectors an image takes, two for each resolution (18 at 1024).
    z_dim, w_dim, c_dim : int
        Sizes of z, of w and of the class label (always 0: StyleGAN 1 has no classes).
    noise_shapes : tuple of (int, int)
        Height and width of each noise map, one for each layer.
    dtype : torch.dtype
        Type of the feature maps: float32 or float64 for exact results, bfloat16 for speed.
        Weights, styles and images stay in float32 in the bfloat16 mode.
    """

    family = "stylegan1"

    def __init__(self, synthesis: StateDict, mapping: StateDict | None = None) -> None:
        super().__init__()
        self.syn = Synthesis(synthesis)
        self.resolution = self.syn.resolution
        self.noise_shapes = self.syn.noise_shapes
        self.num_ws = len(self.noise_shapes)
        self.w_dim = self.z_dim = self.syn.w_dim
        self.c_dim = 0
        self.dtype = torch.float32
        self.map: MappingNetwork | None = None
        if mapping is not None:
            self.map = MappingNetwork(mapping, self.num_ws)
            self.z_dim = self.map.z_dim
            if self.map.w_dim != self.w_dim:
                raise InputError(
                    f"the mapping network gives {self.map.w_dim} values but the synthesis "
                    f"network takes {self.w_dim}: the two files do not belong together"
                )
        given = [*synthesis.items(), *(mapping or {}).items()]
        self.parameter_count = sum(t.numel() for key, t in given if not key.endswith(".kernel"))
        self.requires_grad_(False).eval()

    @classmethod
    def from_state_dicts(cls, synthesis: StateDict, mapping: StateDict | None = None) -> StyleGAN1:
        """Build the network from PULSE's ``synthesis.pt`` and, if at hand, ``mapping.pt``.

        Parameters
        ----------
        synthesis : mapping of str to Tensor
            Keys ``torgb.*`` and ``blocks.RxR.*``, weights unscaled.
        mapping : mapping of str to Tensor, optional
            Keys ``dense0.weight`` to ``dense7.bias``, weights unscaled.

        Raises
        ------
        InputError
            If a tensor is missing or does not fit the others.
        """
        return cls(synthesis, mapping)

    def to(  # type: ignore[override]
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move to a device and choose the type of the feature maps."""
        if dtype == torch.float16:
            raise InputError("precision: float16 overflows in StyleGAN; choose bfloat16")
        if dtype is not None:
            self.dtype = dtype
            super().to(dtype=torch.float32 if dtype == torch.bfloat16 else dtype)
        if device is not None:
            super().to(device=device)
        return self

    def mapping(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z (n, z_dim) to w (n, num_ws, w_dim).

        Parameters
        ----------
        z : Tensor
            Gaussian latents (n, z_dim).
        labels : None
            StyleGAN 1 has no classes.
        truncation : float
            Only 1 (none): truncation pulls towards the mean of w, which PULSE's files lack.

        Raises
        ------
        InputError
            If the network was loaded without its mapping file, or for labels or a truncation.
        """
        if self.map is None:
            raise InputError(
                "this StyleGAN 1 was loaded without its mapping network: give mapping.pt too, "
                "or search with a gaussian fit (gaussian_fit.pt), which does not need it"
            )
        if labels is not None:
            raise InputError("this StyleGAN 1 has no classes: call mapping without labels")
        if truncation != 1.0:
            raise InputError("PULSE's mapping file stores no mean of w: truncation must be 1")
        out: Tensor = self.map(z)
        return out

    def synthesis(self, w: Tensor, noise: str | Sequence[Tensor] = "const") -> Tensor:
        """Render styles w (n, num_ws, w_dim) to raw images (n, 3, R, R), about [-1, 1].

        Parameters
        ----------
        w : Tensor
            One style vector a layer.
        noise : {"const", "none", "random"} or sequence of Tensor
            Maps (n or 1, 1, h, w) as in ``noise_shapes``. StyleGAN 1 stores no noise, so
            ``"const"`` means one fixed set of standard-normal maps, drawn from seed 0, the same in
            every process; ``"random"`` draws from torch's global generator.

        Raises
        ------
        InputError
            If ``w`` or ``noise`` has the wrong shape, or ``noise`` an unknown name.
        """
        if w.shape[1:] != (self.num_ws, self.w_dim):
            raise InputError(
                f"styles have shape {tuple(w.shape)}, this network takes "
                f"(n, {self.num_ws}, {self.w_dim})"
            )
        out: Tensor = self.syn(w, self._noise_maps(noise, w), self.dtype)
        return out

    def _noise_maps(self, noise: str | Sequence[Tensor], w: Tensor) -> Sequence[Tensor | None]:
        if not isinstance(noise, str):
            return _checked_maps(noise, self.noise_shapes)
        if noise == "none":
            return [None] * self.num_ws
        if noise == "const":
            source = torch.Generator().manual_seed(0)
            maps = [torch.randn(1, 1, *shape, generator=source) for shape in self.noise_shapes]
            return [m.to(w) for m in maps]
        if noise == "random":
            return [w.new_empty(len(w), 1, *shape).normal_() for shape in self.noise_shapes]
        raise InputError(f'noise "{noise}" is not known: use const, none, random or a list of maps')


class MappingNetwork(nn.Module):
    """z -> w: pixel norm, then eight equalised dense layers with leaky ReLU."""

    def __init__(self, weights: StateDict, num_ws: int) -> None:
        super().__init__()
        depth = sum(re.fullmatch(r"dense\d+\.weight", key) is not None for key in weights)
        layers = [_dense(weights, f"dense{i}") for i in range(max(depth, 1))]
        self.layers = nn.ModuleList(layers)
        self.z_dim, self.w_dim = layers[0].in_features, layers[-1].out_features
        self.num_ws = num_ws

    def forward(self, z: Tensor) -> Tensor:
        """Map z (n, z_dim) to w (n, num_ws, w_dim)."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
        return x[:, None].expand(-1, self.num_ws, -1)


class Synthesis(nn.Module):
    """Styles (n, num_ws, w_dim) and noise maps -> raw images (n, 3, R, R)."""

    def __init__(self, weights: StateDict) -> None:
        super().__init__()
        sizes = sorted({int(m[1]) for k in weights if (m := re.match(r"blocks\.(\d+)x\1\.", k))})
        if sizes != [4 << i for i in range(len(sizes))] or not sizes:
            raise InputError(
                f"not a StyleGAN 1 synthesis file: blocks of {sizes or 'no'} pixels, "
                "wanted 4, 8, 16, ... each twice the one before"
            )
        self.resolution = sizes[-1]
        self.noise_shapes = tuple((r, r) for r in sizes for _ in range(2))
        bias = _get(weights, "blocks.4x4.bias", None)
        const = _get(weights, "blocks.4x4.const", 1, len(bias), 4, 4)
        self.start = nn.Parameter(const + bias[:, None, None])
        self.layers, channels = nn.ModuleList(), len(bias)
        for size in sizes:
            self.layers.extend(_block(weights, size, channels))
            channels = len(cast(Layer, self.layers[-1]).noise_strength)
        self.torgb = _conv(weights, "torgb", channels, size=1, gain=1.0)
        self.w_dim = cast(Layer, self.layers[0]).style.in_features

    def forward(self, w: Tensor, noise: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
        """Run all layers, feature maps in ``dtype``; each takes its own style and noise map."""
        x = self.start.to(dtype).expand(len(w), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.layers):
            x = layer(x, w[:, i], noise[i])
        return cast(Tensor, self.torgb(x)).to(w.dtype).contiguous()


class Layer(nn.Module):
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
        scale, shift = self.style(w).chunk(2, dim=1)
        return cast(Tensor, StyledNorm.apply(x, scale + 1, shift))


class Conv(nn.Module):
    """Convolution that keeps the size, in the type of its input."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(_channels_last(weight)), nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Take (n, c_in, h, w), return (n, c_out, h, w)."""
        padding = self.weight.shape[-1] // 2
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=padding)


class UpConv(nn.Module):
    """Nearest upscaling by two and 3x3 convolution as one transposed convolution, then the blur.

    StyleGAN 1 trained the layers of 128 px and more with the transposed convolution (its kernel
    the sum of four shifts) and the smaller ones with two separate steps. Those are the transposed
    convolution with the kernel turned by half a turn, at 16 products a pixel in place of 36.
    """

    def __init__(self, weight: Tensor, bias: Tensor, blur: Tensor, fused: bool) -> None:
        super().__init__()
        kernel = (weight if fused else weight.flip(2, 3)).transpose(0, 1)
        padded = F.pad(kernel, (1, 1, 1, 1))
        shifts = [padded[:, :, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1)]
        self.kernel = nn.Parameter(_channels_last(sum(shifts[1:], shifts[0])))
        self.bias = nn.Parameter(bias)
        self.blur = nn.Parameter(_channels_last(blur.expand(len(bias), 1, 3, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """Take (n, c_in, h, w), return (n, c_out, 2h, 2w)."""
        x = F.conv_transpose2d(x, self.kernel.to(x.dtype), stride=2, padding=1)
        blur, bias = self.blur.to(x.dtype), self.bias.to(x.dtype)
        return F.conv2d(x, blur, bias, padding=1, groups=len(bias))


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
        wide = torch.promote_types(y.dtype, torch.float32)
        mean = y.mean((2, 3), keepdim=True, dtype=wide)
        variance = (y - mean.to(y.dtype)).square_().mean((2, 3), keepdim=True, dtype=wide)
        rstd = (variance + NORM_EPS).rsqrt()
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
        d_shift = grad.sum((2, 3), keepdim=True, dtype=mean.dtype)
        d_scale = (grad * y).sum((2, 3), keepdim=True, dtype=mean.dtype)
        d_scale = (d_scale - mean * d_shift) * rstd
        slope = -gain * rstd * d_scale / pixels
        constant = -gain * d_shift / pixels - slope * mean
        d_y = torch.addcmul(constant.to(y.dtype), grad, gain.to(y.dtype))
        d_y.addcmul_(y, slope.to(y.dtype))
        d_x = torch.ops.aten.leaky_relu_backward(d_y, y, SLOPE, True)
        styles = (d[:, :, 0, 0].to(ctx.style_dtype) for d in (d_scale, d_shift))
        return d_x, *styles


def _block(weights: StateDict, size: int, channels: int) -> list[Layer]:
    block = f"blocks.{size}x{size}"
    if size == 4:
        convs: list[nn.Module] = [nn.Identity(), _conv(weights, f"{block}.conv", channels)]
        widths = [channels, _width(weights, f"{block}.conv")]
    else:
        widths = [_width(weights, f"{block}.conv0_up"), _width(weights, f"{block}.conv1")]
        convs = [
            _up_conv(weights, f"{block}.conv0_up", channels, fused=size >= FIRST_FUSED),
            _conv(weights, f"{block}.conv1", widths[0]),
        ]
    return [_layer(weights, f"{block}.epi{i + 1}", convs[i], widths[i]) for i in range(2)]


def _layer(weights: StateDict, key: str, conv: nn.Module, channels: int) -> Layer:
    lin = f"{key}.style_mod.lin"
    weight = _get(weights, f"{lin}.weight", 2 * channels, None)
    bias = _get(weights, f"{lin}.bias", 2 * channels)
    style = _linear(weight / math.sqrt(weight.shape[1]), bias)
    return Layer(conv, _get(weights, f"{key}.noise.weight", channels), style)


def _conv(
    weights: StateDict, key: str, c_in: int, size: int = 3, gain: float = math.sqrt(2)
) -> Conv:
    bias = _get(weights, f"{key}.bias", None)
    weight = _get(weights, f"{key}.weight", len(bias), c_in, size, size)
    return Conv(weight * gain / math.sqrt(c_in * size**2), bias.clone())


def _up_conv(weights: StateDict, key: str, c_in: int, fused: bool) -> UpConv:
    bias = _get(weights, f"{key}.bias", None)
    weight = _get(weights, f"{key}.weight", len(bias), c_in, 3, 3)
    if f"{key}.intermediate.kernel" in weights:
        blur = _get(weights, f"{key}.intermediate.kernel", 1, 1, 3, 3)
    else:
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        blur = torch.outer(line, line)[None, None]
    return UpConv(weight * math.sqrt(2 / (9 * c_in)), bias.clone(), blur, fused)


def _dense(weights: StateDict, key: str) -> nn.Linear:
    bias = _get(weights, f"{key}.bias", None)
    weight = _get(weights, f"{key}.weight", len(bias), None)
    gain = math.sqrt(2 / weight.shape[1]) * LR_MULTIPLIER
    return _linear(weight * gain, bias * LR_MULTIPLIER)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias.clone())
    return layer


def _width(weights: StateDict, key: str) -> int:
    return len(_get(weights, f"{key}.bias", None))


def _get(weights: StateDict, key: str, *shape: int | None) -> Tensor:
    if key not in weights:
        raise InputError(f"not StyleGAN 1 weights in PULSE's layout: the tensor {key} is missing")
    found = tuple(weights[key].shape)
    if len(found) != len(shape) or any(
        w not in (None, f) for w, f in zip(shape, found, strict=True)
    ):
        wanted = ", ".join("any" if side is None else str(side) for side in shape)
        raise InputError(f"damaged StyleGAN 1 weights: {key} has shape {found}, wanted ({wanted})")
    return weights[key].detach().float()


def _channels_last(weight: Tensor) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _checked_maps(noise: Sequence[Tensor], shapes: Sequence[tuple[int, int]]) -> Sequence[Tensor]:
    given = [tuple(m.shape[-2:]) for m in noise]
    if given != list(shapes) or any(m.dim() != 4 for m in noise):
        raise InputError(
            f"noise maps have sizes {given}, this network takes (n, 1, h, w) of {list(shapes)}"
        )
    return noise
