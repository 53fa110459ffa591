"""StyleGAN 3, configurations T (translation) and R (translation and rotation).

Karras et al. 2021, "Alias-Free Generative Adversarial Networks" (arXiv:2106.12423).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import FullyConnected, MappingNetwork
from pulse_audit.generators.network import MappedNetwork, Noise, mapping_widths, needed
from pulse_audit.generators.stylegan2_layers import upfirdn2d
from pulse_audit.types import InputError


@dataclass(frozen=True)
class LayerSpec:
    """Signal specification of one layer (section 3.2 and appendix C of the paper).

    ``size`` in pixels with margins, ``rate`` in samples, ``cutoff`` and ``half_width`` in cycles
    per image.
    """

    channels: int
    size: int
    rate: int
    cutoff: float
    half_width: float


@dataclass(frozen=True)
class LayerKind:
    """What the layers of one network share.

    ``kernel`` is 3 (T) or 1 (R); ``filter_size`` taps per sample of the lower rate; ``clamp``
    bounds the activations (None: unbounded).
    """

    w_dim: int
    kernel: int
    filter_size: int
    lrelu_upsampling: int
    radial: bool
    clamp: float | None


def lowpass(taps: int, cutoff: float, width: float, rate: float, radial: bool) -> Tensor | None:
    """Design a low-pass filter with a Kaiser window.

    A sinc of (taps,), to be used along both axes, or with ``radial`` the radially symmetric jinc
    of (taps, taps) (equation 6 of the paper's appendix C.1); None for one tap. ``cutoff`` and
    ``width`` of the transition band are in the units of the sampling ``rate``.
    """
    # One tap filters nothing.
    if taps == 1:
        return None
    # Imported here: it takes a second, which no other network needs.
    from scipy import signal, special

    if not radial:
        line = signal.firwin(taps, cutoff, width=width, fs=rate)
        return torch.as_tensor(line, dtype=torch.float32)
    # jinc(r) = J1(2 pi f r) / (pi r), sampled at the taps' distances from the centre.
    x = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(x[:, None], x[None, :])
    jinc = special.j1(2 * np.pi * cutoff * radius) / (np.pi * radius)
    # The window is the outer product of the one that firwin would take.
    beta = signal.kaiser_beta(signal.kaiser_atten(taps, width / (rate / 2)))
    window = np.kaiser(taps, beta)
    square = jinc * np.outer(window, window)
    return torch.as_tensor(square / square.sum(), dtype=torch.float32)


class FourierInput(nn.Module):
    """Fixed sinusoids, rotated and shifted as the first style says, then mixed."""

    def __init__(self, w_dim: int, spec: LayerSpec):
        super().__init__()
        self.spec, channels = spec, spec.channels
        self.affine = FullyConnected(w_dim, 4)
        self.weight = nn.Parameter(torch.empty(channels, channels))
        # Not torch.eye, whose shape-only version imports PyTorch's compiler.
        self.register_buffer("transform", torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]))
        self.register_buffer("freqs", torch.empty(channels, 2))
        self.register_buffer("phases", torch.empty(channels))

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def forward(self, w: Tensor) -> Tensor:
        """Map the first style (n, w_dim) to features (n, channels, size, size)."""
        # The affine layer gives the cosine and sine of a rotation and a shift, not yet normalised.
        raw = self.affine(w)
        raw = raw / torch.linalg.vector_norm(raw[:, :2], dim=1, keepdim=True)
        cos, sin, shift_x, shift_y = raw.unbind(dim=1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1)
        shift = torch.stack([one, zero, -shift_x, zero, one, -shift_y, zero, zero, one], dim=1)
        # Rotation after translation, in homogeneous coordinates of the image plane: (n, 3, 3).
        transform = rotation.view(-1, 3, 3) @ shift.view(-1, 3, 3) @ self.transform
        # Rotating and moving the plane turns the frequencies and shifts the phases.
        freqs = self.freqs @ transform[:, :2, :2]  # (n, channels, 2)
        phases = self.phases + (self.freqs @ transform[:, :2, 2:]).squeeze(2)
        # Pixel centres (size, size, 2) as (x, y); the image without margins spans [-0.5, 0.5].
        size = self.spec.size
        line = torch.arange(size, dtype=w.dtype, device=w.device) + 0.5 - size / 2
        y, x = torch.meshgrid(line / self.spec.rate, line / self.spec.rate, indexing="ij")
        grid = torch.stack([x, y], dim=2)
        # Frequencies that the transform moved out of the band fade out: (n, channels).
        band = self.spec.rate / 2 - self.spec.cutoff
        radius: Tensor = torch.linalg.vector_norm(freqs, dim=2)
        amplitudes = (1 - (radius - self.spec.cutoff) / band).clamp(0, 1)
        waves = torch.einsum("hwk,nck->nhwc", grid, freqs) + phases[:, None, None]
        waves = (waves * (2 * math.pi)).sin() * amplitudes[:, None, None]
        mixed = waves @ self.weight.T / math.sqrt(self.spec.channels)
        return mixed.permute(0, 3, 1, 2)


class StyleGAN3Layer(nn.Module):
    """Modulated convolution, then a leaky ReLU between an upsampling and a downsampling filter.

    The last layer (``colours``) neither demodulates nor filters.
    """

    def __init__(
        self, before: LayerSpec, after: LayerSpec, kind: LayerKind, critical: bool, colours: bool
    ):
        super().__init__()
        self.colours, self.clamp = colours, kind.clamp
        kernel = 1 if colours else kind.kernel
        self.affine = FullyConnected(kind.w_dim, before.channels)
        shape = (after.channels, before.channels, kernel, kernel)
        self.weight = nn.Parameter(torch.empty(shape, memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.empty(after.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        # The leaky ReLU runs at a rate above both signals; filters lead up to it and down again.
        rate = max(before.rate, after.rate) * (1 if colours else kind.lrelu_upsampling)
        self.up, self.down = rate // before.rate, rate // after.rate
        size = 0 if colours else kind.filter_size
        up_taps = max(size * self.up if self.up > 1 else 1, 1)
        down_taps = max(size * self.down if self.down > 1 else 1, 1)
        radial = kind.radial and not critical
        up = lowpass(up_taps, before.cutoff, 2 * before.half_width, rate, False)
        down = lowpass(down_taps, after.cutoff, 2 * after.half_width, rate, radial)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)
        # The padding of the upsampled signal that gives the wanted size (appendix C.3).
        taps = sum(1 if f is None else f.shape[0] for f in (up, down))
        grown = (before.size + kernel - 1) * self.up
        total = (after.size - 1) * self.down + 1 - grown + taps - 2
        low = (total + self.up) // 2
        self.padding = (low, total - low, low, total - low)

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map features (n, c, h, h) with styles (n, w_dim) to the next layer's."""
        style = self.affine(w)
        # Demodulation and the input's running magnitude: (n or 1, channels).
        scale = self.magnitude_ema.rsqrt()
        if self.colours:
            scale = scale.expand(1, len(self.bias))
            style = style / math.sqrt(self.weight.shape[1])
        else:
            energy = self.weight.square().sum(dim=(2, 3))
            # The reference normalises weights and styles first; its epsilon is carried over.
            weight_power = energy.mean(dim=1) / self.weight.shape[2] ** 2
            style_power = style.square().mean(dim=1, keepdim=True)
            epsilon = 1e-8 * weight_power * style_power
            scale = (style.square() @ energy.T + epsilon).rsqrt() * scale
        # Modulate, convolve with the shared weight, demodulate and add the bias.
        x = x * style.to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, self.weight.to(x.dtype), padding=self.weight.shape[2] - 1)
        bias = self.bias.to(x.dtype)[:, None, None]
        x = torch.addcmul(bias, x, scale.to(x.dtype)[:, :, None, None])
        if not self.colours:
            # The gain of sqrt(2) commutes with the leaky ReLU and rides on the filter.
            gain = self.up**2 * math.sqrt(2)
            x = upfirdn2d(x, self.up_filter, self.up, padding=self.padding, gain=gain)
            x = F.leaky_relu(x, 0.2)
        x = x if self.clamp is None else x.clamp(-self.clamp, self.clamp)
        return x if self.colours else upfirdn2d(x, self.down_filter, down=self.down)


@dataclass(frozen=True)
class SignalConfig:
    """What the shapes of the weights do not tell; the defaults are those of the repository.

    Names are those of the paper's appendix: ``critical`` layers at the end are critically sampled,
    cutoffs and stopbands grow geometrically from ``first_cutoff`` and ``first_stopband``.
    """

    critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband_rel: float = 2**0.3
    margin: int = 10
    output_scale: float = 0.25
    filter_size: int = 6
    lrelu_upsampling: int = 2
    conv_clamp: float | None = 256.0
    lr_multiplier: float = 0.01

    def __post_init__(self) -> None:
        """Refuse settings no network was ever built with, whose filters would fill the memory."""
        whole = (self.critical, self.margin, self.filter_size, self.lrelu_upsampling)
        rising = 0 < self.first_cutoff < self.first_stopband < 2**10 and self.last_stopband_rel > 1
        if not all(0 <= n <= 64 for n in whole) or not rising:
            raise InputError(f"StyleGAN 3: the signal settings {self} make no sense")


@dataclass(frozen=True)
class StyleGAN3Config:
    """The shape of a StyleGAN 3.

    ``channels`` are the feature maps of every layer, the colours last; ``kernel`` is 3 (T) or 1
    (R); ``radial`` says whether the downsampling filters are radially symmetric (R).
    """

    resolution: int
    channels: tuple[int, ...]
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    hidden: tuple[int, ...] = (512,)
    embed_dim: int = 512
    kernel: int = 3
    radial: bool = False
    signal: SignalConfig = SignalConfig()

    def __post_init__(self) -> None:
        """Refuse a size or a number of layers no network was ever built with."""
        sizes = [4 * 2**i for i in range(11)]
        if self.resolution not in sizes or len(self.channels) <= self.signal.critical + 1:
            count = len(self.channels)
            raise InputError(f"StyleGAN 3: {count} layers for {self.resolution} px make no sense")

    def layers(self) -> list[LayerSpec]:
        """Signal specification of every layer (section 3.2 of the paper)."""
        signal, count = self.signal, len(self.channels) - 1
        # The last layers reach the Nyquist frequency of the image.
        last_cutoff = self.resolution / 2
        last_stopband = last_cutoff * signal.last_stopband_rel
        # Cutoffs and stopbands grow geometrically until the critically sampled layers.
        exponents = np.minimum(np.arange(count + 1) / (count - signal.critical), 1)
        cutoffs = signal.first_cutoff * (last_cutoff / signal.first_cutoff) ** exponents
        stopbands = signal.first_stopband * (last_stopband / signal.first_stopband) ** exponents
        # The sampling rate is the next power of two above twice the stopband.
        rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, self.resolution))))
        half_widths = np.maximum(stopbands, rates / 2) - cutoffs
        # Every layer carries a margin of pixels around the image, but for the last two.
        sizes = rates + 2 * signal.margin
        sizes[-2:] = self.resolution
        rows = zip(self.channels, sizes, rates, cutoffs, half_widths, strict=True)
        return [LayerSpec(c, int(s), int(r), float(f), float(h)) for c, s, r, f, h in rows]


class StyleGAN3(MappedNetwork):
    """StyleGAN 3: ``mapping`` takes z to w, ``synthesis`` takes w to images.

    A new instance holds uninitialised weights: use :meth:`from_state`.
    """

    family = "stylegan3"
    derived = ("_filter", "_ema")
    map: MappingNetwork
    syn: nn.ModuleDict

    def __init__(self, config: StyleGAN3Config):
        super().__init__()
        self.config, self.resolution = config, config.resolution
        self.z_dim, self.w_dim, self.c_dim = config.z_dim, config.w_dim, config.c_dim
        self.num_ws = len(config.channels) + 1
        specs, signal = config.layers(), config.signal
        filters = (signal.filter_size, signal.lrelu_upsampling, config.radial, signal.conv_clamp)
        kind = LayerKind(config.w_dim, config.kernel, *filters)
        self.syn = nn.ModuleDict({"input": FourierInput(config.w_dim, specs[0])})
        # The last layers are critically sampled, the very last gives the colours.
        for index, spec in enumerate(specs):
            critical, last = index >= len(specs) - 1 - signal.critical, index == len(specs) - 1
            layer = StyleGAN3Layer(specs[max(index - 1, 0)], spec, kind, critical, last)
            self.syn[f"L{index}_{spec.size}_{spec.channels}"] = layer
        sizes = (config.z_dim, config.c_dim, config.w_dim, self.num_ws)
        self.map = MappingNetwork(*sizes, config.hidden, config.embed_dim, signal.lr_multiplier)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], signal: SignalConfig | None = None) -> Self:
        """Build the frozen network of a ``G_ema`` state dict in the stylegan3 repository's layout.

        Shapes are read from the tensors; ``signal`` is what they do not tell (default: the
        repository's). Filters that the file does not hold are designed anew. InputError if tensors
        are missing, unknown or do not fit together.
        """
        config = infer_config(state, signal or SignalConfig())
        return cls.filled(partial(cls, config), state)

    def synthesis(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Render w (n, num_ws, w_dim) to images (n, 3, R, R), about [-1, 1].

        ``noise`` is accepted and ignored: StyleGAN 3 has none. Images are float32 (float64 in that
        precision). InputError if styles do not fit.
        """
        # The first style moves the Fourier features, each layer takes one of the others.
        first, *rest = self.checked_styles(w).unbind(dim=1)
        stem, *layers = self.syn.values()
        x = stem(first).to(self.dtype)
        for layer, style in zip(layers, rest, strict=True):
            x = layer(x, style)
        # The colours are computed larger than the image: output_scale is a quarter by default.
        image: Tensor = x.to(first.dtype) * self.config.signal.output_scale
        return image.contiguous()


def infer_config(state: Mapping[str, Tensor], signal: SignalConfig) -> StyleGAN3Config:
    """Read the shape of the network from a state dict in the stylegan3 repository's layout."""
    # Layers are named L<number>_<size>_<channels>.
    pattern = re.compile(r"synthesis\.(L(\d+)_\d+_\d+)\.weight")
    layers = {int(m[2]): m[1] for key in state if (m := pattern.fullmatch(key))}
    if len(layers) < 4 or len(layers) > 64 or sorted(layers) != list(range(len(layers))):
        raise InputError(f"checkpoint: StyleGAN 3 layers {sorted(layers)}, expected 0, 1, 2, ...")
    names = [layers[index] for index in range(len(layers))]
    weights = [needed(state, f"synthesis.{name}.weight") for name in names]
    embed = state.get("mapping.embed.weight", torch.empty(0, 0))
    widths = mapping_widths(state)
    # Only R has two-dimensional, radially symmetric filters.
    down = state.get(f"synthesis.{names[0]}.down_filter", torch.empty(0))
    return StyleGAN3Config(
        resolution=int(names[-1].split("_")[1]),
        channels=tuple(weight.shape[0] for weight in weights),
        z_dim=widths[0] - embed.shape[0],
        w_dim=widths[-1],
        c_dim=embed.shape[1],
        hidden=widths[1:-1],
        embed_dim=embed.shape[0],
        kernel=weights[0].shape[-1],
        radial=down.ndim == 2,
        signal=signal,
    )
