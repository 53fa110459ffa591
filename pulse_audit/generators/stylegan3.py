"""StyleGAN 3, configurations T (translation) and R (translation and rotation).

Karras et al. 2021, "Alias-Free Generative Adversarial Networks" (arXiv:2106.12423).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from pulse_audit.generators.mapping import MappingNetwork
from pulse_audit.generators.network import MappedNetwork, Noise, mapping_widths, needed
from pulse_audit.generators.stylegan3_layers import (
    FourierInput,
    LayerKind,
    LayerSpec,
    SynthesisLayer,
)
from pulse_audit.types import InputError


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
        last_cutoff = self.resolution / 2
        last_stopband = last_cutoff * signal.last_stopband_rel
        exponents = np.minimum(np.arange(count + 1) / (count - signal.critical), 1)
        cutoffs = signal.first_cutoff * (last_cutoff / signal.first_cutoff) ** exponents
        stopbands = signal.first_stopband * (last_stopband / signal.first_stopband) ** exponents
        rates = np.exp2(np.ceil(np.log2(np.minimum(stopbands * 2, self.resolution))))
        half_widths = np.maximum(stopbands, rates / 2) - cutoffs
        sizes = rates + 2 * signal.margin
        sizes[-2:] = self.resolution
        rows = zip(self.channels, sizes, rates, cutoffs, half_widths, strict=True)
        return [LayerSpec(c, int(s), int(r), float(f), float(h)) for c, s, r, f, h in rows]


class StyleGAN3(MappedNetwork):
    """StyleGAN 3: ``mapping`` takes z to w, ``synthesis`` takes w to images.

    A new instance holds uninitialised weights: use :meth:`from_state`.

    Parameters
    ----------
    config : StyleGAN3Config
        The shape.
    """

    family = "stylegan3"
    derived = ("_filter", "_ema")

    def __init__(self, config: StyleGAN3Config):
        super().__init__()
        self.config, self.resolution = config, config.resolution
        self.z_dim, self.w_dim, self.c_dim = config.z_dim, config.w_dim, config.c_dim
        self.num_ws = len(config.channels) + 1
        specs, signal = config.layers(), config.signal
        filters = (signal.filter_size, signal.lrelu_upsampling, config.radial, signal.conv_clamp)
        kind = LayerKind(config.w_dim, config.kernel, *filters)
        self.syn = nn.ModuleDict({"input": FourierInput(config.w_dim, specs[0])})
        for index, spec in enumerate(specs):
            critical, last = index >= len(specs) - 1 - signal.critical, index == len(specs) - 1
            layer = SynthesisLayer(specs[max(index - 1, 0)], spec, kind, critical, last)
            self.syn[f"L{index}_{spec.size}_{spec.channels}"] = layer
        sizes = (config.z_dim, config.c_dim, config.w_dim, self.num_ws)
        self.map = MappingNetwork(*sizes, config.hidden, config.embed_dim, signal.lr_multiplier)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], signal: SignalConfig | None = None) -> Self:
        """Build the frozen network of a ``G_ema`` state dict in the stylegan3 repository's layout.

        Filters that the file does not hold are designed anew.

        Parameters
        ----------
        state : mapping
            Key to tensor; every shape is read from it.
        signal : SignalConfig, optional
            What shapes do not tell; default: the repository's defaults.

        Raises
        ------
        InputError
            If tensors are missing or do not fit together.
        """
        config = infer_config(state, signal or SignalConfig())
        return cls._checked(partial(cls, config), state)

    def synthesis(self, w: Tensor, noise: Noise = "const") -> Tensor:
        """Render styles.

        Parameters
        ----------
        w : Tensor
            Styles (n, num_ws, w_dim).
        noise
            Accepted and ignored: StyleGAN 3 has none.

        Returns
        -------
        Tensor
            Images (n, 3, R, R), about [-1, 1], in float32 (float64 in that precision).

        Raises
        ------
        InputError
            If styles do not fit.
        """
        first, *rest = self.checked_styles(w).unbind(dim=1)
        stem, *layers = self.syn.values()
        x = stem(first).to(self.dtype)
        for layer, style in zip(layers, rest, strict=True):
            x = layer(x, style)
        image: Tensor = x.to(first.dtype) * self.config.signal.output_scale
        return image.contiguous()


def infer_config(state: Mapping[str, Tensor], signal: SignalConfig) -> StyleGAN3Config:
    """Read the shape of the network from a state dict in the stylegan3 repository's layout."""
    names = _layer_names(state)
    weights = [needed(state, f"synthesis.{name}.weight") for name in names]
    embed = state.get("mapping.embed.weight", torch.empty(0, 0))
    widths = mapping_widths(state)
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


def _layer_names(state: Mapping[str, Tensor]) -> list[str]:
    """Names L0_..., L1_..., in order; InputError unless they are numbered without a gap."""
    pattern = re.compile(r"synthesis\.(L(\d+)_\d+_\d+)\.weight")
    found = {int(m[2]): m[1] for key in state if (m := pattern.fullmatch(key))}
    if len(found) < 4 or len(found) > 64 or sorted(found) != list(range(len(found))):
        raise InputError(f"checkpoint: StyleGAN 3 layers {sorted(found)}, expected 0, 1, 2, ...")
    return [found[index] for index in range(len(found))]
