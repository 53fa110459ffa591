"""StyleGAN 1 as lernapparat, genforce and rosinality publish it, on the network for PULSE's files.

Facts about the layouts are read from the public repositories: lernapparat's notebook, genforce,
style-based-gan-pytorch (rosinality).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import AVERAGE_SAMPLES, truncate
from pulse_audit.generators.network import needed
from pulse_audit.generators.stylegan1 import FIRST_FUSED, NORM_EPS, Layer, StyleGAN1, UpConv
from pulse_audit.types import InputError

State = Mapping[str, Tensor]

GENFORCE_NORM_EPS = 1e-8


class AveragedStyleGAN1(StyleGAN1):
    """StyleGAN 1 with an average of w to truncate to and, if stored, its own noise maps.

    Parameters
    ----------
    synthesis, mapping : mapping of str to Tensor
        Weights in PULSE's layout.
    w_avg : Tensor, optional
        Average of w (w_dim,); default: the mean over a fixed sample of z.
    noise : sequence of Tensor, optional
        The maps that ``noise="const"`` means, (1, 1, h, w) each; default as in `StyleGAN1`.
    """

    def __init__(
        self,
        synthesis: State,
        mapping: State,
        w_avg: Tensor | None = None,
        noise: Sequence[Tensor] = (),
    ):
        super().__init__(synthesis, mapping)
        self.register_buffer("w_avg", self._average() if w_avg is None else w_avg.float())
        self.stored = len(noise)
        for index, stored in enumerate(noise):
            if tuple(stored.shape[-2:]) != self.noise_shapes[index]:
                raise InputError(f"checkpoint: noise map {index} is {tuple(stored.shape)}")
            self.register_buffer(f"noise_const_{index}", stored.float())
        if self.w_avg.shape != (self.w_dim,):
            raise InputError(f"checkpoint: the average of w is {tuple(self.w_avg.shape)}")

    w_avg: Tensor

    @torch.no_grad()
    def _average(self) -> Tensor:
        source = torch.Generator().manual_seed(0)
        z = torch.randn(AVERAGE_SAMPLES, self.z_dim, generator=source)
        return super().mapping(z)[:, 0].mean(dim=0)

    def mapping(
        self,
        z: Tensor,
        labels: Tensor | None = None,
        truncation: float = 1.0,
        cutoff: int | None = None,
    ) -> Tensor:
        """Map z (n, z_dim) to w (n, num_ws, w_dim), the first ``cutoff`` (all) truncated."""
        return truncate(super().mapping(z, labels), self.w_avg, truncation, cutoff)

    def synthesis(self, w: Tensor, noise: str | Sequence[Tensor] = "const") -> Tensor:
        """Render styles w (n, num_ws, w_dim) to raw images (n, 3, R, R), about [-1, 1]."""
        if isinstance(noise, str) and noise == "const" and self.stored:
            noise = [getattr(self, f"noise_const_{index}") for index in range(self.stored)]
        return super().synthesis(w, noise)


class EarlyBias(nn.Module):
    """Upsampling convolution whose bias comes before the blur, so that borders get less of it."""

    def __init__(self, conv: UpConv):
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Take (n, c_in, h, w), return (n, c_out, 2h, 2w)."""
        kernel, bias = self.conv.kernel.to(x.dtype), self.conv.bias.to(x.dtype)
        x = F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)
        return F.conv2d(x, self.conv.blur.to(x.dtype), padding=1, groups=len(bias))


def from_pulse(synthesis: State, mapping: State | None) -> StyleGAN1:
    """Build the network of PULSE's files; truncation needs the mapping file."""
    if mapping is None:
        return StyleGAN1.from_state_dicts(synthesis)
    return AveragedStyleGAN1(synthesis, mapping)


def from_lernapparat(state: State) -> StyleGAN1:
    """Build the network of ``for_g_all.pt``."""
    renamed = {key.replace(".top_epi.noise.", ".noise."): value for key, value in state.items()}
    synthesis, mapping = (_under(renamed, f"{part}.") for part in ("g_synthesis", "g_mapping"))
    return AveragedStyleGAN1(synthesis, mapping, state.get("truncation.avg_latent"))


def from_genforce(state: State) -> StyleGAN1:
    """Build the network of genforce's ``generator_smooth``.

    Its instance norm has another epsilon. Scaling all that enters a norm by k is the same as
    dividing the epsilon by k**2, so the weights carry the difference.
    """
    if float(state.get("synthesis.lod", torch.zeros(()))) != 0:
        raise InputError("checkpoint: the network is half grown (its lod is not 0)")
    count = _count(state, r"synthesis\.layer(\d+)\.style\.weight")
    out: dict[str, Tensor] = {"blocks.4x4.const": needed(state, "synthesis.layer0.const")}
    for index in range(count):
        out |= _genforce_layer(state, index)
    last = f"synthesis.output{count // 2 - 1}"
    out |= {f"torgb.{part}": needed(state, f"{last}.{part}") for part in ("weight", "bias")}
    out["blocks.4x4.const"] = out["blocks.4x4.const"] * math.sqrt(NORM_EPS / GENFORCE_NORM_EPS)
    noise = [needed(state, f"synthesis.layer{i}.apply_noise.noise") for i in range(count)]
    average = state.get("truncation.w_avg")
    return AveragedStyleGAN1(out, _under(state, "mapping."), average, noise)


def _genforce_layer(state: State, index: int) -> dict[str, Tensor]:
    size = 4 * 2 ** (index // 2)
    source, block = f"synthesis.layer{index}", f"blocks.{size}x{size}"
    scale = math.sqrt(NORM_EPS / GENFORCE_NORM_EPS)
    name = ("conv0_up." if index > 1 else "") if index % 2 == 0 else "conv1."
    name = "conv." if index == 1 else name
    epilogue = f"{block}.epi{index % 2 + 1}"
    out = {
        f"{block}.{name}bias": needed(state, f"{source}.bias") * scale,
        f"{epilogue}.noise.weight": needed(state, f"{source}.apply_noise.weight") * scale,
    }
    if index:
        out[f"{block}.{name}weight"] = needed(state, f"{source}.weight") * scale
    for part in ("weight", "bias"):
        out[f"{epilogue}.style_mod.lin.{part}"] = needed(state, f"{source}.style.{part}")
    return out


def from_rosinality(state: State, resolution: int | None = None) -> StyleGAN1:
    """Build the network of style-based-gan-pytorch's ``g_running``.

    The file always holds the layers up to 1024 px. Those the training never reached still have
    noise weights of exactly zero, which tells the resolution unless it is given.
    """
    steps = _count(state, r"generator\.progression\.(\d+)\.noise1\.weight_orig")
    trained = [i for i in range(steps) if needed(state, _noise1(i)).any()]
    step = max(trained, default=0) if resolution is None else int(math.log2(resolution)) - 2
    if not 0 <= step < steps:
        raise InputError(f"checkpoint: no layers for {resolution} px in it")
    blocks = [_rosinality_block(state, index) for index in range(step + 1)]
    out = {key: value for block in blocks for key, value in block.items()}
    colours = f"generator.to_rgb.{step}.conv"
    out["torgb.weight"] = needed(state, f"{colours}.weight_orig") * math.sqrt(2)
    out["torgb.bias"] = needed(state, f"{colours}.bias")
    network = AveragedStyleGAN1(out, _rosinality_mapping(state))
    for layer in network.syn.layers:
        if isinstance(cast(Layer, layer).conv, UpConv):
            layer.conv = EarlyBias(cast(UpConv, layer.conv))
    return network


def _noise1(index: int) -> str:
    return f"generator.progression.{index}.noise1.weight_orig"


def _rosinality_block(state: State, index: int) -> dict[str, Tensor]:
    size, source = 4 * 2**index, f"generator.progression.{index}"
    block = f"blocks.{size}x{size}"
    second = f"{block}.conv{'1' if index else ''}"
    out = {
        f"{second}.weight": needed(state, f"{source}.conv2.conv.weight_orig"),
        f"{second}.bias": needed(state, f"{source}.conv2.conv.bias"),
    }
    if index:
        out |= _rosinality_up(state, source, block, size)
    else:
        out["blocks.4x4.const"] = needed(state, f"{source}.conv1.input")
        out["blocks.4x4.bias"] = torch.zeros(out["blocks.4x4.const"].shape[1])
    for half in (1, 2):
        out |= _rosinality_epilogue(state, source, f"{block}.epi{half}", half)
    return out


def _rosinality_up(state: State, source: str, block: str, size: int) -> dict[str, Tensor]:
    """Translate the upsampling layer: fused (transposed, four times as strong) or separate."""
    fused = f"{source}.conv1.0.weight" in state
    key = f"{source}.conv1.0" if fused else f"{source}.conv1.1.conv"
    weight = needed(state, f"{key}.weight" if fused else f"{key}.weight_orig")
    weight = weight.transpose(0, 1) / 4 if fused else weight
    if fused != (size >= FIRST_FUSED):
        weight = weight.flip(2, 3)
    bias = needed(state, f"{key}.bias")
    return {f"{block}.conv0_up.weight": weight, f"{block}.conv0_up.bias": bias}


def _rosinality_epilogue(state: State, source: str, target: str, half: int) -> dict[str, Tensor]:
    """Translate noise and style: other multipliers, and a scale that starts at one by its bias."""
    noise = needed(state, f"{source}.noise{half}.weight_orig").flatten()
    style = f"{source}.adain{half}.style.linear"
    bias = needed(state, f"{style}.bias").clone()
    bias[: len(noise)] -= 1
    return {
        f"{target}.noise.weight": noise * math.sqrt(2 / max(len(noise), 1)),
        f"{target}.style_mod.lin.weight": needed(state, f"{style}.weight_orig") * math.sqrt(2),
        f"{target}.style_mod.lin.bias": bias,
    }


def _rosinality_mapping(state: State) -> dict[str, Tensor]:
    """Translate the mapping network, which has no learning rate multiplier of 0.01."""
    pattern = re.compile(r"style\.(\d+)\.linear\.weight_orig")
    found = sorted(int(m[1]) for key in state if (m := pattern.fullmatch(key)))
    out = {}
    for place, index in enumerate(found):
        out[f"dense{place}.weight"] = 100 * needed(state, f"style.{index}.linear.weight_orig")
        out[f"dense{place}.bias"] = 100 * needed(state, f"style.{index}.linear.bias")
    return out


def _under(state: State, prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _count(state: State, pattern: str) -> int:
    found = sorted({int(m[1]) for key in state if (m := re.fullmatch(pattern, key))})
    if not found or found != list(range(len(found))):
        raise InputError(f"checkpoint: layers {found}, expected 0, 1, 2, ...")
    return len(found)
