"""The layers of StyleGAN 3: Fourier input, modulated convolution, filtered leaky ReLU.

Karras et al. 2021, "Alias-Free Generative Adversarial Networks" (arXiv:2106.12423), in plain
PyTorch. As in StyleGAN 2 here, modulation is done on the activations and no convolution is grouped
by image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.signal
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import FullyConnected
from pulse_audit.generators.resample import upfirdn2d


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
    """Design a low-pass filter.

    A Kaiser-windowed sinc of (taps,), to be used along both axes, or the radially symmetric jinc
    of (taps, taps) (equation 6 of the paper's appendix C.1); None for one tap.

    Parameters
    ----------
    taps : int
        Length.
    cutoff, width : float
        Cutoff frequency and width of the transition band, in the units of ``rate``.
    rate : float
        Sampling rate.
    radial : bool
        Whether the frequency response is to be radially symmetric.
    """
    if taps == 1:
        return None
    if not radial:
        line = scipy.signal.firwin(taps, cutoff, width=width, fs=rate)
        return torch.as_tensor(line, dtype=torch.float32)
    x = (np.arange(taps) - (taps - 1) / 2) / rate
    radius = np.hypot(x[:, None], x[None, :])
    jinc = scipy.special.j1(2 * np.pi * cutoff * radius) / (np.pi * radius)
    beta = scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2)))
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
        transform = self._motion(w) @ self.transform
        freqs = self.freqs @ transform[:, :2, :2]  # (n, channels, 2)
        phases = self.phases + (self.freqs @ transform[:, :2, 2:]).squeeze(2)
        waves = torch.einsum("hwk,nck->nhwc", self._grid(w), freqs) + phases[:, None, None]
        waves = (waves * (2 * math.pi)).sin() * self._amplitudes(freqs)[:, None, None]
        mixed = waves @ self.weight.T / math.sqrt(self.spec.channels)
        return mixed.permute(0, 3, 1, 2)

    def _amplitudes(self, freqs: Tensor) -> Tensor:
        """Fade out frequencies that the transform moved out of the band: (n, channels)."""
        band = self.spec.rate / 2 - self.spec.cutoff
        radius: Tensor = torch.linalg.vector_norm(freqs, dim=2)
        return (1 - (radius - self.spec.cutoff) / band).clamp(0, 1)

    def _grid(self, like: Tensor) -> Tensor:
        """Pixel centres (size, size, 2) as (x, y); the image without margins spans [-0.5, 0.5]."""
        size = self.spec.size
        line = torch.arange(size, dtype=like.dtype, device=like.device) + 0.5 - size / 2
        y, x = torch.meshgrid(line / self.spec.rate, line / self.spec.rate, indexing="ij")
        return torch.stack([x, y], dim=2)

    def _motion(self, w: Tensor) -> Tensor:
        """Rotation after translation, (n, 3, 3), in homogeneous coordinates of the image plane."""
        raw = self.affine(w)
        cos, sin, x, y = (raw / torch.linalg.vector_norm(raw[:, :2], dim=1, keepdim=True)).unbind(
            dim=1
        )
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        rotation = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1)
        shift = torch.stack([one, zero, -x, zero, one, -y, zero, zero, one], dim=1)
        return rotation.view(-1, 3, 3) @ shift.view(-1, 3, 3)


class SynthesisLayer(nn.Module):
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
        self._design(before, after, kind, radial=kind.radial and not critical)
        self.padding = self._pad(before.size, after.size, kernel)

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def _design(self, before: LayerSpec, after: LayerSpec, kind: LayerKind, radial: bool) -> None:
        rate = max(before.rate, after.rate) * (1 if self.colours else kind.lrelu_upsampling)
        self.up, self.down = rate // before.rate, rate // after.rate
        size = 0 if self.colours else kind.filter_size
        up_taps = size * self.up if self.up > 1 else 1
        down_taps = size * self.down if self.down > 1 else 1
        up = lowpass(max(up_taps, 1), before.cutoff, 2 * before.half_width, rate, False)
        down = lowpass(max(down_taps, 1), after.cutoff, 2 * after.half_width, rate, radial)
        self.register_buffer("up_filter", up)
        self.register_buffer("down_filter", down)

    def _pad(self, size_in: int, size_out: int, kernel: int) -> tuple[int, int, int, int]:
        """Find the padding of the upsampled signal that gives the wanted size (appendix C.3)."""
        taps = sum(1 if f is None else f.shape[0] for f in (self.up_filter, self.down_filter))
        total = (size_out - 1) * self.down + 1 - (size_in + kernel - 1) * self.up + taps - 2
        low = (total + self.up) // 2
        return low, total - low, low, total - low

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map features (n, c, h, h) with styles (n, w_dim) to the next layer's."""
        style = self.affine(w)
        scale = self._output_scale(style)
        if self.colours:
            style = style / math.sqrt(self.weight.shape[1])
        x = x * style.to(x.dtype)[:, :, None, None]
        x = F.conv2d(x, self.weight.to(x.dtype), padding=self.weight.shape[2] - 1)
        bias = self.bias.to(x.dtype)[:, None, None]
        x = torch.addcmul(bias, x, scale.to(x.dtype)[:, :, None, None])
        return self._activate(x)

    def _output_scale(self, style: Tensor) -> Tensor:
        """Demodulation and the input's running magnitude: (n or 1, channels)."""
        gain = self.magnitude_ema.rsqrt()
        if self.colours:
            return gain.expand(1, len(self.bias))
        energy = self.weight.square().sum(dim=(2, 3))
        # The reference normalises weights and styles first; its epsilon is carried over.
        weight_power = energy.mean(dim=1) / self.weight.shape[2] ** 2
        style_power = style.square().mean(dim=1, keepdim=True)
        return (style.square() @ energy.T + 1e-8 * weight_power * style_power).rsqrt() * gain

    def _activate(self, x: Tensor) -> Tensor:
        if not self.colours:
            # The gain of sqrt(2) commutes with the leaky ReLU and rides on the filter.
            gain = self.up**2 * math.sqrt(2)
            x = upfirdn2d(x, self.up_filter, self.up, padding=self.padding, gain=gain)
            x = F.leaky_relu(x, 0.2)
        x = x if self.clamp is None else x.clamp(-self.clamp, self.clamp)
        return x if self.colours else upfirdn2d(x, self.down_filter, down=self.down)
