"""Which network a checkpoint holds, and what its pickled modules say that shapes do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pulse_audit.generators.checkpoints.budget import Damaged, spend
from pulse_audit.generators.checkpoints.pickle_data import Inert, StoredTensor
from pulse_audit.generators.checkpoints.unpickle import Array
from pulse_audit.generators.stylegan3 import SignalConfig
from pulse_audit.types import InputError

MAX_MODULES = 10_000

# A key that only this layout has, in the order in which they are tried.
MARKERS = {
    "stylegan2": "synthesis.b4.const",
    "stylegan3": "synthesis.input.freqs",
    "stylegan2-rosinality": "input.input",
    "stylegan2-genforce": "synthesis.early_layer.const",
    "stylegan1-pulse": "blocks.4x4.const",
    "stylegan1-lernapparat": "g_synthesis.blocks.4x4.const",
    "stylegan1-genforce": "synthesis.layer0.const",
    "stylegan1-rosinality": "generator.progression.0.conv1.input",
    "stylegan1-pulse-mapping": "dense0.weight",
}
# Where training checkpoints keep the averaged generator; the first that fits is taken.
PLACES = (
    *("g_ema", "G_ema", "generator_smooth", "generator_ema", "g_running", "params_ema"),
    *("state_dict", "generator", "G", "g"),
)
# Names of NVIDIA's settings of a StyleGAN 3, and of ours.
SIGNAL_SETTINGS = {
    **{"num_critical": "critical", "margin_size": "margin", "first_cutoff": "first_cutoff"},
    **{"first_stopband": "first_stopband", "last_stopband_rel": "last_stopband_rel"},
    **{"output_scale": "output_scale", "filter_size": "filter_size"},
    **{"lrelu_upsampling": "lrelu_upsampling", "conv_clamp": "conv_clamp"},
}

LazyTensor = StoredTensor | Array


@dataclass(frozen=True)
class StoredGenerator:
    """A generator in a checkpoint: its layout, tensors, pickled module (if any) and neighbours."""

    layout: str
    tensors: Mapping[str, LazyTensor]
    module: Inert | None
    beside: Mapping[Any, Any]

    def state(self) -> dict[str, Tensor]:
        """Read the tensors."""
        return {key: value.tensor() for key, value in self.tensors.items()}

    def beside_tensor(self, key: str) -> Tensor | None:
        """Read a tensor stored next to the generator, such as ``latent_avg``."""
        value = self.beside.get(key)
        return value.tensor() if isinstance(value, LazyTensor) else None


def find_generator(root: Any) -> StoredGenerator:
    """Find the (averaged) generator in what a checkpoint holds.

    Raises
    ------
    InputError
        If there is none of a known layout.
    """
    # The checkpoint itself, then the places in it and in its "models".
    beside = root if isinstance(root, dict) else {}
    candidates = [root]
    for holder in (beside, beside.get("models")):
        if isinstance(holder, dict):
            candidates += [holder[place] for place in PLACES if place in holder]
    for candidate in candidates:
        module = candidate if isinstance(candidate, Inert) else None
        tensors = _tensors(candidate) if module is None else _module_tensors(module)
        # DataParallel puts a prefix before every key.
        if tensors and all(key.startswith("module.") for key in tensors):
            tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
        # One key tells the layout; the tensors are read later, when they are needed.
        for layout, marker in MARKERS.items():
            if marker in tensors:
                return StoredGenerator(layout, tensors, module, beside)
    parts = list(root.values()) if isinstance(root, dict) else root
    for part in parts if isinstance(parts, list | tuple) else ():
        if isinstance(part, Inert) and str(part.name) == "dnnlib.tflib.network.Network":
            raise InputError(
                "it is a TensorFlow pickle: convert it with legacy.py of NVIDIA's stylegan3 "
                "repository"
            )
    # Say what is there instead.
    if isinstance(root, dict):
        # Only texts: the text of a nested tuple can fill the memory.
        keys = [key[:40] if isinstance(key, str) else type(key).__name__ for key in root]
        content = f"its keys: {', '.join(keys[:4])}"
    else:
        content = f"a {root.name.name[:40] if isinstance(root, Inert) else type(root).__name__}"[
            :60
        ]
    raise InputError(f"it holds no generator of a known layout ({content})")


def _tensors(value: Any) -> dict[str, LazyTensor]:
    """Return the entries of a dict that are tensors under a text."""
    # Optimisers and settings lie between the tensors of a training checkpoint.
    items = value.items() if isinstance(value, dict) else ()
    spend(objects=len(items))
    return {key: v for key, v in items if isinstance(key, str) and isinstance(v, LazyTensor)}


def _module_tensors(root: Inert) -> dict[str, LazyTensor]:
    """Collect the state dict of a pickled ``nn.Module``."""
    out: dict[str, LazyTensor] = {}
    pending, count = [("", root)], 0
    while pending:
        prefix, module = pending.pop()
        count += 1
        # A module can be its own child.
        if count > MAX_MODULES:
            raise Damaged(f"it has over {MAX_MODULES:,} modules")
        # Buffers that PyTorch would not save are no part of the state dict.
        hidden = module.attribute("_non_persistent_buffers_set")
        hidden = hidden if isinstance(hidden, set) else ()
        for group in ("_parameters", "_buffers"):
            stored = _tensors(module.attribute(group))
            spend(size=len(prefix) * len(stored))
            out |= {f"{prefix}{key}": v for key, v in stored.items() if key not in hidden}
        # One module can be a child of many, and its name can be long.
        children = _children(module)
        for name, child in children.items():
            spend(size=len(prefix) + len(name), depth=prefix.count("."))
            pending.append((f"{prefix}{name}.", child))
    return out


def _children(module: Inert) -> dict[str, Inert]:
    """Return the submodules of a pickled ``nn.Module`` by name."""
    modules = module.attribute("_modules")
    items = modules.items() if isinstance(modules, dict) else ()
    spend(objects=len(items))
    return {
        name: child for name, child in items if isinstance(name, str) and isinstance(child, Inert)
    }


def stylegan2_settings(module: Inert | None) -> dict[str, Any]:
    """Read conv_clamp and lr_multiplier from a pickled network; none without one."""
    if module is None:
        return {}
    layer, first = _part(module, "synthesis", "b4", "conv1"), _part(module, "mapping", "fc0")
    for part in (layer, first):
        if part.attribute("activation", "lrelu") != "lrelu":
            raise InputError("it uses another activation than the leaky ReLU, which is not known")
    # One clamp and one activation for all layers: those of the first are read.
    clamp = layer.attribute("conv_clamp")
    return {
        "conv_clamp": None if clamp is None else _number("conv_clamp", clamp),
        "lr_multiplier": _number("lr_multiplier", first.attribute("bias_gain", 0.01)),
    }


def stylegan3_settings(module: Inert | None) -> SignalConfig:
    """Read the signal settings from a pickled network; the defaults without one."""
    if module is None:
        return SignalConfig()
    # The synthesis network remembers the arguments it was built with.
    stored = _part(module, "synthesis").attribute("_init_kwargs") or {}
    first = _part(module, "mapping", "fc0")
    settings: dict[str, Any] = {
        ours: None if stored[theirs] is None else _number(theirs, stored[theirs])
        for theirs, ours in SIGNAL_SETTINGS.items()
        if theirs in stored
    }
    settings["lr_multiplier"] = _number("lr_multiplier", first.attribute("bias_gain", 0.01))
    return SignalConfig(**settings)


def _part(module: Inert, *names: str) -> Inert:
    """Return a submodule by its path, an empty one where there is none."""
    for name in names:
        module = _children(module).get(name, Inert(module.name))
    return module


def _number(name: str, value: Any) -> Any:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise InputError(f"its setting {name} is no number")
    return value
