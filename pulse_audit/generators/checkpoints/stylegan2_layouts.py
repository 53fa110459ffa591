"""Key names of published StyleGAN 2 and 3 files, translated to the ones used here.

Facts about the layouts are read from the public repositories: stylegan2-ada-pytorch and stylegan3
(NVIDIA), stylegan2-pytorch (rosinality), genforce.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from pulse_audit.generators.network import needed
from pulse_audit.generators.resample import setup_filter
from pulse_audit.types import InputError

State = Mapping[str, Tensor]

MAX_LAYERS = 2 * 9 + 1  # at 2048 px


def from_rosinality(state: State, latent_avg: Tensor | None) -> dict[str, Tensor]:
    """Translate rosinality's ``g_ema`` (and its ``latent_avg``) of StyleGAN 2.

    The convolutions carry their weight scale when used, which moves the epsilon of the
    demodulation; so it is multiplied into the weights here. Files from before noise maps were
    stored get fixed ones.
    """
    out = {"synthesis.b4.const": _get(state, "input.input", 4)[0]}
    for source, target in _rosinality_layers(state):
        modulated = f"{source}.conv"
        out |= _affine(state, f"{modulated}.modulation", f"{target}.affine", 0.0)
        weight = _get(state, f"{modulated}.weight", 5)[0]
        if target.endswith("torgb"):
            out[f"{target}.weight"] = weight
            out[f"{target}.bias"] = needed(state, f"{source}.bias").flatten()
        else:
            out[f"{target}.weight"] = weight / math.sqrt(weight[0].numel())
            out[f"{target}.bias"] = needed(state, f"{source}.activate.bias").flatten()
            out[f"{target}.noise_strength"] = _one(state, f"{source}.noise.weight")
    out |= _noise(state, out, "noises.noise_{}")
    out |= _mapping(state, "style.{}", first=1)
    out["synthesis.resample_filter"] = _filter(state)
    return out if latent_avg is None else out | {"mapping.w_avg": latent_avg.flatten()}


def from_genforce(state: State) -> dict[str, Tensor]:
    """Translate genforce's StyleGAN 2 (architectures skip and origin).

    Its upsampling convolutions are stored turned by half a turn, its styles get their one added
    when used, and it multiplies the class by a matrix of its own before the common normalisation.
    """
    out = {"synthesis.b4.const": _get(state, "synthesis.early_layer.const", 4)[0]}
    for source, target in _genforce_layers(state):
        weight, up = _get(state, f"{source}.weight", 4), target.endswith("conv0")
        out |= _affine(state, f"{source}.style", f"{target}.affine", 1.0)
        out[f"{target}.bias"] = needed(state, f"{source}.bias")
        if target.endswith("torgb"):
            out[f"{target}.weight"] = weight
        else:
            scaled = weight / math.sqrt(weight[0].numel())
            out[f"{target}.weight"] = scaled.flip(2, 3) if up else scaled
            out[f"{target}.noise_strength"] = _one(state, f"{source}.noise_strength")
    out |= _noise(state, out, "synthesis.layer{}.noise")
    out |= _mapping(state, "mapping.dense{}", first=0)
    if "mapping.label_weight" in state:
        label = _get(state, "mapping.label_weight", 2)
        out["mapping.embed.weight"] = label.T * math.sqrt(len(label))
    out["synthesis.resample_filter"] = _filter(state)
    average = state.get("truncation.w_avg")
    return out if average is None else out | {"mapping.w_avg": average}


def _rosinality_layers(state: State) -> list[tuple[str, str]]:
    """Pairs of a layer's name there and here."""
    count = _count(state, r"convs\.(\d+)\.conv\.weight")
    convs = [(f"convs.{i}", f"synthesis.b{8 * 2 ** (i // 2)}.conv{i % 2}") for i in range(count)]
    colours = [(f"to_rgbs.{i}", f"synthesis.b{8 * 2**i}.torgb") for i in range(count // 2)]
    first = [("conv1", "synthesis.b4.conv1"), ("to_rgb1", "synthesis.b4.torgb")]
    return [*first, *convs, *colours]


def _genforce_layers(state: State) -> list[tuple[str, str]]:
    count = _count(state, r"synthesis\.layer(\d+)\.style\.weight")
    layers = [
        (f"synthesis.layer{i}", f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.conv{(i + 1) % 2}")
        for i in range(count)
    ]
    blocks = range(count // 2 + 1)
    colours = [(f"synthesis.output{i}", f"synthesis.b{4 * 2**i}.torgb") for i in blocks]
    return [*layers, *((there, here) for there, here in colours if f"{there}.weight" in state)]


def _count(state: State, pattern: str) -> int:
    """Count layers, whose numbers have to be 0, 1, 2, ..."""
    found = sorted({int(m[1]) for key in state if (m := re.fullmatch(pattern, key))})
    if found != list(range(len(found))) or len(found) > MAX_LAYERS:
        raise InputError(f"checkpoint: layers {found}, expected 0, 1, 2, ...")
    return len(found)


def _get(state: State, key: str, dimensions: int) -> Tensor:
    value = needed(state, key)
    if value.ndim != dimensions or not value.numel():
        raise InputError(f"checkpoint: the tensor {key} has the shape {tuple(value.shape)}")
    return value


def _one(state: State, key: str) -> Tensor:
    value = needed(state, key)
    if value.numel() != 1:
        raise InputError(f"checkpoint: the tensor {key} has the shape {tuple(value.shape)}")
    return value.reshape(())


def _affine(state: State, source: str, target: str, shift: float) -> dict[str, Tensor]:
    bias = needed(state, f"{source}.bias") + shift
    return {f"{target}.weight": needed(state, f"{source}.weight"), f"{target}.bias": bias}


def _mapping(state: State, pattern: str, first: int) -> dict[str, Tensor]:
    escaped = re.escape(pattern).replace(r"\{\}", r"(\d+)") + r"\.weight"
    found = sorted(int(m[1]) for key in state if (m := re.fullmatch(escaped, key)))
    if found != list(range(first, first + len(found))):
        raise InputError(f"checkpoint: mapping layers {found}, expected {first}, {first + 1}, ...")
    return {
        f"mapping.fc{index - first}.{part}": needed(state, f"{pattern.format(index)}.{part}")
        for index in found
        for part in ("weight", "bias")
    }


def _noise(state: State, layers: State, pattern: str) -> dict[str, Tensor]:
    """Return the stored noise maps, or fixed standard-normal ones where the file has none."""
    strengths = sorted(
        (key.removesuffix("_strength") for key in layers if key.endswith("noise_strength")),
        key=lambda name: (int(name.split(".")[1][1:]), name),
    )
    source = torch.Generator().manual_seed(0)
    out = {}
    for index, name in enumerate(strengths):
        size = int(name.split(".")[1][1:])
        value = state.get(pattern.format(index))
        if value is None:
            value = torch.randn(size, size, generator=source)
        if value.numel() != size**2:
            raise InputError(f"checkpoint: a noise map has the shape {tuple(value.shape)}")
        out[f"{name}_const"] = value.reshape(size, size)
    return out


def _filter(state: State) -> Tensor:
    """Return the one filter of all layers: both repositories store it times four."""
    stored = [v.reshape(v.shape[-2:]) / 4 for k, v in state.items() if k.endswith(".kernel")]
    if any(s.shape != stored[0].shape or not torch.allclose(s, stored[0]) for s in stored):
        raise InputError("checkpoint: the layers use different resampling filters")
    return stored[0] if stored else setup_filter()
