"""State dicts of published files, translated to the key names used here.

NVIDIA's own files (StyleGAN 2, ADA and 3) have those names already. Facts about the other layouts
are read from the public repositories: genforce, stylegan2-pytorch and style-based-gan-pytorch
(rosinality), and lernapparat's notebook. In every layout a tensor that is not known is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pulse_audit.generators.network import StateReader, needed, numbered
from pulse_audit.generators.stylegan1 import FIRST_FUSED, NORM_EPS, StyleGAN1, UpConv
from pulse_audit.generators.stylegan2_layers import setup_filter
from pulse_audit.types import InputError

State = Mapping[str, Tensor]

GENFORCE_NORM_EPS = 1e-8


def stylegan2_from_rosinality(state: State, latent_avg: Tensor | None) -> dict[str, Tensor]:
    """Translate rosinality's ``g_ema`` (and its ``latent_avg``) of StyleGAN 2.

    The convolutions carry their weight scale when used, which moves the epsilon of the
    demodulation; so it is multiplied into the weights here. Files from before noise maps were
    stored get fixed ones.
    """
    state = StateReader(state)
    count = numbered(state, r"convs\.(\d+)\.conv\.weight")
    layers = [("conv1", "synthesis.b4.conv1"), ("to_rgb1", "synthesis.b4.torgb")]
    for i in range(count):
        layers.append((f"convs.{i}", f"synthesis.b{8 * 2 ** (i // 2)}.conv{i % 2}"))
    for i in range(count // 2):
        layers.append((f"to_rgbs.{i}", f"synthesis.b{8 * 2**i}.torgb"))
    # Pairs of a layer's name there and here; weights have a leading axis of one there.
    out = {"synthesis.b4.const": needed(state, "input.input", 1, None, 4, 4)[0]}
    for source, target in layers:
        out[f"{target}.affine.weight"] = needed(state, f"{source}.conv.modulation.weight")
        out[f"{target}.affine.bias"] = needed(state, f"{source}.conv.modulation.bias")
        weight = needed(state, f"{source}.conv.weight", *[None] * 5)[0]
        if target.endswith("torgb"):
            out[f"{target}.weight"] = weight
            out[f"{target}.bias"] = needed(state, f"{source}.bias").flatten()
        else:
            out[f"{target}.weight"] = weight / math.sqrt(weight[0].numel())
            out[f"{target}.bias"] = needed(state, f"{source}.activate.bias").flatten()
            out[f"{target}.noise_strength"] = _scalar(state, f"{source}.noise.weight")
    out |= _noise_maps(state, out, "noises.noise_{}")
    # Number 0 of their mapping network is the normalisation.
    for i in range(numbered(state, r"style\.(\d+)\.weight", "mapping layers", first=1)):
        for part in ("weight", "bias"):
            out[f"mapping.fc{i}.{part}"] = needed(state, f"style.{i + 1}.{part}")
    # The average lies beside the state dict; without it the network estimates one.
    out["synthesis.resample_filter"] = _resampling_filter(state)
    state.refuse_unread()
    return out if latent_avg is None else out | {"mapping.w_avg": latent_avg.flatten()}


def stylegan2_from_genforce(state: State) -> dict[str, Tensor]:
    """Translate genforce's StyleGAN 2 and ADA (architectures skip and origin).

    Its upsampling convolutions are stored turned by half a turn, and its styles get their one
    added when used. A conditional StyleGAN 2 multiplies the class by the matrix ``label_weight``
    and normalises it together with z; a conditional ADA has an equalised layer ``LabelEmbed`` and
    normalises the two apart, as the original does. So ``joint_norm`` of the network has to be
    whether ``mapping.LabelEmbed.weight`` is missing.
    """
    state = StateReader(state)
    out = {"synthesis.b4.const": needed(state, "synthesis.early_layer.const", 1, None, 4, 4)[0]}
    # Pairs of a layer's name there and here; the colours may be at the last size only.
    layers = []
    count = numbered(state, r"synthesis\.layer(\d+)\.style\.weight")
    for i in range(count):
        target = f"synthesis.b{4 * 2 ** ((i + 1) // 2)}.conv{(i + 1) % 2}"
        layers.append((f"synthesis.layer{i}", target))
    for i in range(count // 2 + 1):
        if f"synthesis.output{i}.weight" in state:
            layers.append((f"synthesis.output{i}", f"synthesis.b{4 * 2**i}.torgb"))
    for source, target in layers:
        # Affine layers, bias and weight; only convolutions are scaled and take noise.
        weight = needed(state, f"{source}.weight", *[None] * 4)
        out[f"{target}.affine.weight"] = needed(state, f"{source}.style.weight")
        out[f"{target}.affine.bias"] = needed(state, f"{source}.style.bias") + 1.0
        out[f"{target}.bias"] = needed(state, f"{source}.bias")
        if not target.endswith("torgb"):
            weight = weight / math.sqrt(weight[0].numel())
            weight = weight.flip(2, 3) if target.endswith("conv0") else weight
            out[f"{target}.noise_strength"] = _scalar(state, f"{source}.noise_strength")
        out[f"{target}.weight"] = weight
    out |= _noise_maps(state, out, "synthesis.layer{}.noise")
    for i in range(numbered(state, r"mapping\.dense(\d+)\.weight", "mapping layers")):
        for part in ("weight", "bias"):
            out[f"mapping.fc{i}.{part}"] = needed(state, f"mapping.dense{i}.{part}")
    if "mapping.label_weight" in state:
        # Stored (c_dim, embed_dim) and used as it is; ours is transposed and scaled when used.
        label = needed(state, "mapping.label_weight", None, None)
        out["mapping.embed.weight"] = label.T * math.sqrt(len(label))
    elif "mapping.LabelEmbed.weight" in state:
        for part in ("weight", "bias"):
            out[f"mapping.embed.{part}"] = needed(state, f"mapping.LabelEmbed.{part}")
    out["synthesis.resample_filter"] = _resampling_filter(state)
    if "truncation.w_avg" in state:
        out["mapping.w_avg"] = state["truncation.w_avg"]
    state.refuse_unread()
    return out


def stylegan1_from_lernapparat(state: State) -> StyleGAN1:
    """Build the network of ``for_g_all.pt``: PULSE's names below two prefixes."""
    parts: dict[str, dict[str, Tensor]] = {"g_synthesis": {}, "g_mapping": {}, "truncation": {}}
    for key, value in state.items():
        part, _, name = key.partition(".")
        if part not in parts or (part == "truncation" and name != "avg_latent"):
            raise InputError(f"checkpoint: unknown tensors: {key}")
        parts[part][name.replace(".top_epi.noise.", ".noise.")] = value
    average = parts["truncation"].get("avg_latent")
    return StyleGAN1(parts["g_synthesis"], parts["g_mapping"], average)


def stylegan1_from_genforce(state: State, upsampling: str | None) -> StyleGAN1:
    """Build the network of genforce's ``generator_smooth``.

    Its instance norm has another epsilon. Scaling all that enters a norm by k is the same as
    dividing the epsilon by k**2, so the weights carry the difference.

    Parameters
    ----------
    state : mapping of str to Tensor
    upsampling : {"auto", "fused", "separate"} or None
        The setting ``fused_scale`` it was trained with (auto, True, False), which no tensor tells:
        whether the upsampling layers are one fused convolution, ``auto`` from 128 px on.

    Raises
    ------
    InputError
        If ``upsampling`` is not given, a tensor is missing or unknown, or the network is half
        grown.
    """
    if upsampling not in ("auto", "fused", "separate"):
        raise InputError(
            "a StyleGAN 1 of genforce does not say how it upsamples: add @auto to the file's name "
            "for its default fused_scale='auto', @fused for True or @separate for False"
        )
    state = StateReader(state)
    if "synthesis.lod" in state and float(state["synthesis.lod"]) != 0:
        raise InputError("checkpoint: the network is half grown (its lod is not 0)")
    count = numbered(state, r"synthesis\.layer(\d+)\.style\.weight")
    scale = math.sqrt(NORM_EPS / GENFORCE_NORM_EPS)
    out = {"blocks.4x4.const": needed(state, "synthesis.layer0.const") * scale}
    for index in range(count):
        size = 4 * 2 ** (index // 2)
        source, block = f"synthesis.layer{index}", f"blocks.{size}x{size}"
        # Two layers a size: at 4 px the constant and conv, then conv0_up and conv1.
        conv = ("conv0_up." if size > 4 else "") if index % 2 == 0 else "conv1."
        conv = "conv." if index == 1 else conv
        out[f"{block}.{conv}bias"] = needed(state, f"{source}.bias") * scale
        if index:
            weight = needed(state, f"{source}.weight", *[None] * 4) * scale
            out[f"{block}.{conv}weight"] = weight
        if conv == "conv0_up.":
            blur = needed(state, f"{source}.blur.kernel", None, 1, 3, 3)
            if not torch.equal(blur, blur[:1].expand_as(blur)):
                raise InputError(f"checkpoint: the channels of {source} have different blurs")
            out[f"{block}.conv0_up.intermediate.kernel"] = blur[:1]
            if upsampling != "auto" and (upsampling == "fused") != (size >= FIRST_FUSED):
                # The two kinds of upsampling are each other's, turned by half a turn.
                out[f"{block}.conv0_up.weight"] = weight.flip(2, 3)
        epilogue = f"{block}.epi{index % 2 + 1}"
        noise_weight = needed(state, f"{source}.apply_noise.weight")
        out[f"{epilogue}.noise.weight"] = noise_weight * scale
        for part in ("weight", "bias"):
            out[f"{epilogue}.style_mod.lin.{part}"] = needed(state, f"{source}.style.{part}")
    # The colours of the last size are those of the image.
    last = f"synthesis.output{count // 2 - 1}"
    out |= {f"torgb.{part}": needed(state, f"{last}.{part}") for part in ("weight", "bias")}
    noise = [needed(state, f"synthesis.layer{i}.apply_noise.noise") for i in range(count)]
    # A conditional network has mapping.label_weight, under the name used here.
    mapping = {k.removeprefix("mapping."): state[k] for k in state if k.startswith("mapping.")}
    average = None
    if "truncation.w_avg" in state:
        average = state["truncation.w_avg"]
    # The colours of the sizes that training grew through are left over.
    state.refuse_unread(r"synthesis\.output\d+\.(weight|bias)")
    return StyleGAN1(out, mapping, average, noise)


def stylegan1_from_rosinality(state: State, resolution: int | None = None) -> StyleGAN1:
    """Build the network of style-based-gan-pytorch's ``g_running``.

    The file always holds the layers up to 1024 px. Those the training never reached still have
    noise weights of exactly zero, which tells the resolution unless it is given.
    """
    state = StateReader(state)
    layers = "generator.progression"
    steps = numbered(state, r"generator\.progression\.(\d+)\.noise1\.weight_orig")
    sizes = [4 * 2**i for i in range(steps)]
    if resolution is None:
        # Noise weights start at zero and leave it with the first step of training.
        trained = [i for i in range(steps) if state[f"{layers}.{i}.noise1.weight_orig"].any()]
        resolution = sizes[max(trained, default=0)] if sizes else 4
    if resolution not in sizes:
        raise InputError(f"checkpoint: no layers for {resolution} px in it")
    step = sizes.index(resolution)
    out: dict[str, Tensor] = {}
    for index, size in enumerate(sizes[: step + 1]):
        source, block = f"{layers}.{index}", f"blocks.{size}x{size}"
        # Each size has an upsampling layer (at 4 px the constant) and a second convolution.
        second = f"{block}.conv{'1' if index else ''}"
        out[f"{second}.weight"] = needed(state, f"{source}.conv2.conv.weight_orig")
        out[f"{second}.bias"] = needed(state, f"{source}.conv2.conv.bias")
        if index == 0:
            out["blocks.4x4.const"] = needed(state, f"{source}.conv1.input", 1, None, 4, 4)
            out["blocks.4x4.bias"] = torch.zeros(out["blocks.4x4.const"].shape[1])
        else:
            # Upsampling is fused (transposed, four times as strong) or separate.
            fused = f"{source}.conv1.0.weight" in state
            key = f"{source}.conv1.0" if fused else f"{source}.conv1.1.conv"
            weight = needed(state, f"{key}.{'weight' if fused else 'weight_orig'}", *[None] * 4)
            weight = weight.transpose(0, 1) / 4 if fused else weight
            turned = fused != (size >= FIRST_FUSED)
            out[f"{block}.conv0_up.weight"] = weight.flip(2, 3) if turned else weight
            out[f"{block}.conv0_up.bias"] = needed(state, f"{key}.bias")
        for half in (1, 2):
            # Other multipliers for noise and style, and a scale that starts at one by its bias.
            noise = needed(state, f"{source}.noise{half}.weight_orig").flatten()
            style = f"{source}.adain{half}.style.linear"
            bias = needed(state, f"{style}.bias").clone()
            bias[: len(noise)] -= 1
            target = f"{block}.epi{half}"
            weight = needed(state, f"{style}.weight_orig")
            out[f"{target}.noise.weight"] = noise * math.sqrt(2 / max(len(noise), 1))
            out[f"{target}.style_mod.lin.weight"] = weight * math.sqrt(2)
            out[f"{target}.style_mod.lin.bias"] = bias
    colours = f"generator.to_rgb.{step}.conv"
    out["torgb.weight"] = needed(state, f"{colours}.weight_orig") * math.sqrt(2)
    out["torgb.bias"] = needed(state, f"{colours}.bias")
    # Its mapping network has no learning rate multiplier of 0.01; ours is divided out.
    mapping = {}
    numbers = sorted(int(k.split(".")[1]) for k in state if k.startswith("style."))
    for place, number in enumerate(dict.fromkeys(numbers)):
        weight = needed(state, f"style.{number}.linear.weight_orig")
        mapping[f"dense{place}.weight"] = 100 * weight
        mapping[f"dense{place}.bias"] = 100 * needed(state, f"style.{number}.linear.bias")
    # Left over: larger sizes, colours of the other sizes, and the blurs, which are constants.
    beyond = "|".join(str(i) for i in range(step + 1, steps)) or "none"
    state.refuse_unread(
        rf"generator\.progression\.({beyond})\..*|generator\.to_rgb\.\d+\.conv\.\w+"
        r"|generator\.progression\.\d+\.conv1\.\d\.weight(_flip)?"
    )
    network = StyleGAN1(out, mapping)
    for layer in network.syn.modules():
        if isinstance(layer, UpConv):
            layer.early_bias = True
    return network


def mobilestylegan_from_openvino(mapping: State, synthesis: State) -> dict[str, Tensor]:
    """Translate the constants of MobileStyleGAN's exported mapping and synthesis networks.

    Names that the export kept begin with ``m.``. The others are numbered in the order of their
    use: the mapping's layers, the noise maps (1, 1, r, r), and the weights ``Mul_<n>_copy`` with
    demodulation folded in, the first of which is the 3 x 3 one at 4 px. Modulated inputs are
    divided by the root of a kernel's inputs there, and the weights here.
    """
    # Eight layers (512, 512) and (512,) in turn; ours are scaled when used, so that is divided out.
    matrices = _by_number(mapping, r"(\d+)", lambda v: v.ndim == 2 and v.numel() > 1)
    biases = _by_number(mapping, r"(\d+)", lambda v: v.ndim == 1 and v.numel() > 1)
    if len(matrices) != len(biases):
        raise InputError(f"checkpoint: {len(matrices)} mapping weights, {len(biases)} biases")
    out = {}
    for i, (weight, bias) in enumerate(zip(matrices, biases, strict=True)):
        out[f"mapping.fc{i}.weight"] = weight * math.sqrt(weight.shape[-1])
        out[f"mapping.fc{i}.bias"] = bias

    # The layers in their order, with their convolutions and noise maps.
    state = StateReader(synthesis)
    count = numbered(state, r"m\.layers\.(\d+)\.conv2\.bias")
    if count == 0:
        raise InputError("checkpoint: it holds no blocks m.layers.0, m.layers.1, ...")
    blocks = [f"layers.{i}." for i in range(count)]
    layers = ["conv1", *(f"{block}conv{half}" for block in blocks for half in (1, 2))]
    weights = _by_number(state, r"Mul_(\d+)_copy", lambda v: v.ndim == 4)
    noise = _by_number(state, r"(\d+)", lambda v: v.ndim == 4 and v.shape[:2] == (1, 1))
    if not len(layers) == len(weights) == len(noise):
        raise InputError(
            f"checkpoint: {len(layers)} layers, {len(weights)} convolutions and "
            f"{len(noise)} noise maps"
        )
    out["synthesis.const"] = needed(state, "m.input.input", 1, None, 4, 4)[0]
    for layer, weight, layer_map in zip(layers, weights, noise, strict=True):
        out[f"synthesis.{layer}.weight"] = weight
        out[f"synthesis.{layer}.noise_const"] = layer_map[0, 0]
        out[f"synthesis.{layer}.bias"] = needed(state, f"m.{layer}.bias").flatten()
        # The first kernel of a layer takes nine pixels of every channel.
        key = f"synthesis.{layer}.weight"
        if layer != "conv1":
            key = f"synthesis.{layer}.depthwise"
            out[key] = needed(state, f"m.{layer}.conv.weight_dw", None, 1, 1, 3, 3)[:, 0]
        out[key] = out[key] / math.sqrt(9 * weight.shape[1])
    image = needed(state, f"m.{blocks[-1]}to_img.conv.weight", 12, None, 1, 1)
    out["synthesis.to_img.weight"] = image / math.sqrt(image.shape[1])
    out["synthesis.to_img.bias"] = needed(state, f"m.{blocks[-1]}to_img.bias").flatten()

    # The affine layers of all modulations: (name there, name here).
    modulations = [(f"{layer}.conv", layer) for layer in layers]
    modulations += [(f"{block}up", f"{block}up") for block in blocks]
    modulations += [(f"{blocks[-1]}to_img.conv", "to_img")]
    for source, target in modulations:
        affine = f"synthesis.{target}.{'' if target.endswith('up') else 'modulation.'}affine"
        weight = needed(state, f"m.{source}.modulation.weight", None, None)
        out[f"{affine}.weight"] = weight * math.sqrt(weight.shape[1])
        out[f"{affine}.bias"] = needed(state, f"m.{source}.modulation.bias").flatten()
    # Left over: scales of the modulations, slopes, and the Haar filters (c, 1, 1, 2, 1).
    state.refuse_unread(r"Constant_\d+|LeakyRelu_\d+/.*|\d+")
    return out


def _by_number(state: State, pattern: str, wanted: Callable[[Tensor], bool]) -> list[Tensor]:
    """Return the tensors whose names match a pattern, in the order of the number in them."""
    numbers = {int(m[1]): key for key in state if (m := re.fullmatch(pattern, key))}
    return [state[numbers[n]] for n in sorted(numbers) if wanted(state[numbers[n]])]


def _scalar(state: State, key: str) -> Tensor:
    value = needed(state, key)
    if value.numel() != 1:
        raise InputError(f"checkpoint: the tensor {key} has the shape {tuple(value.shape)}")
    return value.reshape(())


def _noise_maps(state: State, layers: State, pattern: str) -> dict[str, Tensor]:
    """Return the stored noise maps, or fixed standard-normal ones where the file has none."""
    # Noise maps are numbered in the order of the layers: by size, conv0 before conv1.
    names = [key.removesuffix("_strength") for key in layers if key.endswith("noise_strength")]
    names.sort(key=lambda name: (int(name.split(".")[1][1:]), name))
    source = torch.Generator().manual_seed(0)
    out = {}
    for index, name in enumerate(names):
        size = int(name.split(".")[1][1:])
        key = pattern.format(index)
        value = state[key] if key in state else torch.randn(size, size, generator=source)
        if value.numel() != size**2:
            raise InputError(f"checkpoint: a noise map has the shape {tuple(value.shape)}")
        out[f"{name}_const"] = value.reshape(size, size)
    return out


def _resampling_filter(state: State) -> Tensor:
    """Return the one filter of all layers: both repositories store it times four."""
    kernels = [state[key] for key in state if key.endswith(".kernel")]
    stored = [kernel.reshape(kernel.shape[-2:]) / 4 for kernel in kernels]
    if any(s.shape != stored[0].shape or not torch.allclose(s, stored[0]) for s in stored):
        raise InputError("checkpoint: the layers use different resampling filters")
    return stored[0] if stored else setup_filter()
