"""Attribute models: shipped and published names, files and factories to objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.models import shipped
from pulse_audit.models.published import fetched
from pulse_audit.models.shipped import shipped_file
from pulse_audit.names import is_factory, nearest
from pulse_audit.plugins import ATTRIBUTES, entry_point_names, load_attribute_plugin
from pulse_audit.types import InputError

if TYPE_CHECKING:
    import torch

    from pulse_audit.faces.fairface import FairFace
    from pulse_audit.types import AttributeModel

SHIPPED = (shipped.ATTRIBUTES, shipped.CHECK)


def attribute_names() -> list[str]:
    """Return the names of attribute models: shipped, to be fetched, and of installed packages."""
    from pulse_audit.models.registry import cards

    own = [name for name in SHIPPED if shipped_file(name).is_file()]
    fetched_ones = [card.name for card in cards().values() if card.kind == "attribute model"]
    return list(dict.fromkeys([*own, *fetched_ones, *entry_point_names(ATTRIBUTES)]))


def attribute_words(name: str) -> Mapping[str, tuple[str, ...]]:
    """Return what a known attribute model predicts, also where its weights are not fetched."""
    from pulse_audit.faces.fairface import LAYOUTS

    known = LAYOUTS.get(name)
    return {a: words for a, (words, _) in known.attributes.items()} if known else {}


def load_attributes(reference: str | None, device: torch.device | str) -> AttributeModel:
    """Load an attribute model and move it to a device.

    Parameters
    ----------
    reference : str or None
        A name of `attribute_names`; ``fairface-race7:FILE`` or ``fairface-race4:FILE`` for a file
        of FairFace's authors that was not fetched by name; ``FILE.onnx``; ``FILE.safetensors`` as
        our training writes it; ``FILE.py:FACTORY``. None: the shipped one.
    device : torch.device or str

    Raises
    ------
    InputError
        With one line if there is no such thing, it is not fetched, or it cannot be used.
    """
    asked = reference or shipped.ATTRIBUTES
    path = Path(asked)
    if is_factory(asked) or asked in entry_point_names(ATTRIBUTES):
        return load_attribute_plugin(asked).to(device)
    if asked in SHIPPED or path.suffix == ".safetensors":
        from pulse_audit.faces.attribute_net import load_attribute_net

        file = _shipped(asked) if asked in SHIPPED else path
        return load_attribute_net(file).to(device)
    if path.suffix == ".onnx":
        from pulse_audit.faces.onnx_attributes import load_onnx

        return load_onnx(path).to(device)
    return _fairface(asked).to(device)


def _shipped(name: str) -> Path:
    path = shipped_file(name)
    if not path.is_file():
        raise InputError(
            f"{name}: this installation comes without it; name another with --attributes"
        )
    return path


def _fairface(asked: str) -> FairFace:
    """Load a file of FairFace's authors: ``NAME``, or ``NAME:FILE``."""
    from pulse_audit.faces.fairface import LAYOUTS, load_fairface
    from pulse_audit.models.registry import get

    name, _, file = asked.partition(":")
    if name not in LAYOUTS:
        if Path(asked).suffix in (".pt", ".pth"):
            which = " or ".join(f"{known}:{asked}" for known in LAYOUTS)
            raise InputError(f"{asked}: say which of FairFace's two files it is: {which}")
        hint = nearest(asked, attribute_names())
        raise InputError(
            f"unknown attribute model {asked!r}{hint}; also known: FILE.onnx, FILE.safetensors and "
            "FILE.py:FACTORY"
        )
    card = get(name)
    path = Path(file) if file else fetched(card)[0]
    return load_fairface(path, name, training_data=card.trained_on, licence=card.licence.name)
