"""Our own files of generators: weights as safetensors beside their JSON card.

The card says which network the weights are for, and what is to be known of the generator: crop,
training data, licence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pulse_audit.files import atomic_write, card_path, check_belongs, read_card, write_card
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan3 import SignalConfig, StyleGAN3
from pulse_audit.types import InputError

KIND = "generator"


def save_generator(network: StyleGAN2 | StyleGAN3, path: Path, card: Mapping[str, Any]) -> None:
    """Write the weights to ``path`` (``*.safetensors``) and the card beside it (``.json``).

    ``card`` holds plain JSON values for the reader: name, crop, training_data, licence, ...
    """
    # Both files are written whole or not at all, the weights first.
    weights = {key: value.contiguous().cpu() for key, value in network.weights().items()}
    atomic_write(path, save(weights))
    # The settings are what the shapes of the weights do not tell.
    if isinstance(network, StyleGAN3):
        settings = asdict(network.config.signal)
    else:
        names = ("lr_multiplier", "conv_clamp", "joint_norm")
        settings = {name: getattr(network.config, name) for name in names}
    content = {"family": network.family, "settings": settings, "card": dict(card)}
    write_card(path, KIND, content)


def read_native(path: Path) -> StyleGAN2 | StyleGAN3:
    """Load one of our own files.

    Raises
    ------
    InputError
        If the card and the weights do not belong together, or one of them is damaged.
    """
    # The card holds the digest of the weights, so a damaged file is noticed before it is read.
    content = read_card(path, KIND)
    check_belongs(path, content)
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged safetensors: {error}") from error
    # Settings that a family does not know end in a TypeError below.
    settings, family = content.get("settings"), content.get("family")
    if not isinstance(settings, dict) or family not in (StyleGAN2.family, StyleGAN3.family):
        raise InputError(f"{card_path(path)}: the family {family!r} is not known here")
    try:
        if family == StyleGAN3.family:
            return StyleGAN3.from_state(state, SignalConfig(**settings))
        return StyleGAN2.from_state(state, **settings)
    except TypeError as error:
        raise InputError(f"{card_path(path)}: its settings do not fit {family}") from error
