"""Our own files: weights as safetensors, and beside them a JSON card of the same name.

The card says which network the weights are for, carries their SHA-256, and what is to be known of
the generator: crop, training data, licence.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pulse_audit.files import write_whole
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan3 import SignalConfig, StyleGAN3
from pulse_audit.types import InputError

FORMAT = "pulse-audit generator"
VERSION = 1
MAX_CARD = 2**20


def save_generator(network: StyleGAN2 | StyleGAN3, path: Path, card: Mapping[str, Any]) -> None:
    """Write ``path`` (``*.safetensors``) and its card.

    Parameters
    ----------
    network : StyleGAN2 or StyleGAN3
        The network.
    path : Path
        Where to write the weights; the card has the suffix ``.json``.
    card : mapping
        Plain JSON values for the reader: name, crop, training_data, licence, ...
    """
    weights = {key: value.contiguous().cpu() for key, value in network.weights().items()}
    write_whole(path, save(weights))
    content = {
        "format": FORMAT,
        "version": VERSION,
        "family": network.family,
        "settings": _settings(network),
        "sha256": file_sha256(path),
        "card": dict(card),
    }
    write_whole(card_path(path), (json.dumps(content, indent=2) + "\n").encode())


def _settings(network: StyleGAN2 | StyleGAN3) -> dict[str, Any]:
    """Return what the shapes of the weights do not tell."""
    if isinstance(network, StyleGAN3):
        return asdict(network.config.signal)
    config = network.config
    return {key: getattr(config, key) for key in ("lr_multiplier", "conv_clamp", "joint_norm")}


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_path(path: Path) -> Path:
    """Return where the card of a safetensors file is."""
    return path.with_suffix(".json")


def read_card(path: Path) -> dict[str, Any]:
    """Read the card of one of our own files: ``family``, ``settings``, ``sha256`` and ``card``.

    Raises
    ------
    InputError
        If it is missing or no card of this version.
    """
    place = card_path(path)
    try:
        with place.open("rb") as file:
            content = json.loads(file.read(MAX_CARD))
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: its card {place.name} is missing; keep the two together"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: it is no JSON card") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{place}: it is no card of a generator")
    if content.get("version") != VERSION:
        raise InputError(f"{place}: version {content.get('version')!r} is not known here")
    return content


def load_own(path: Path) -> StyleGAN2 | StyleGAN3:
    """Load one of our own files.

    Raises
    ------
    InputError
        If the card and the weights do not belong together, or one of them is damaged.
    """
    content = read_card(path)
    if content.get("sha256") != file_sha256(path):
        raise InputError(f"{path}: the weights are not those of their card (another SHA-256)")
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged safetensors: {error}") from error
    settings, family = content.get("settings"), content.get("family")
    if not isinstance(settings, dict) or family not in (StyleGAN2.family, StyleGAN3.family):
        raise InputError(f"{card_path(path)}: the family {family!r} is not known here")
    try:
        if family == StyleGAN3.family:
            return StyleGAN3.from_state(state, SignalConfig(**settings))
        return StyleGAN2.from_state(state, **settings)
    except TypeError as error:
        raise InputError(f"{card_path(path)}: its settings do not fit {family}") from error
