"""Attribute models: shipped and published names, files and factories to objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.models import published, shipped
from pulse_audit.models.shipped import shipped_file
from pulse_audit.names import is_factory, nearest
from pulse_audit.plugins import (
    ATTRIBUTES,
    entry_point_names,
    factory_file,
    load_attribute_plugin,
)
from pulse_audit.types import InputError

if TYPE_CHECKING:
    import torch

    from pulse_audit.types import AttributeModel

SHIPPED = (shipped.ATTRIBUTES, shipped.CHECK)


def attribute_names() -> list[str]:
    """Return the names of attribute models: shipped, published, and of installed packages."""
    # A wheel built without assets has no shipped models.
    here = [name for name in SHIPPED if shipped_file(name).is_file()]
    published_names = published.names_of("attribute model")
    return list(dict.fromkeys([*here, *published_names, *entry_point_names(ATTRIBUTES)]))


@dataclass(frozen=True)
class AttributeSource:
    """Where an attribute model comes from."""

    #: ``plugin``, ``net`` (our own training), ``onnx`` or ``fairface``.
    kind: str
    name: str
    #: Its file, None for an entry point.
    path: Path | None


def find_attributes(reference: str | None) -> AttributeSource:
    """Find an attribute model as `load_attributes` takes it; neither torch nor file is loaded.

    Raises
    ------
    InputError
        If there is no such name or file, or a published one is not fetched.
    """
    name = reference or shipped.ATTRIBUTES
    # Code from outside, and models by name.
    if is_factory(name):
        return AttributeSource("plugin", name, factory_file(name))
    if name in entry_point_names(ATTRIBUTES):
        return AttributeSource("plugin", name, None)
    if name in SHIPPED:
        path = shipped_file(name)
        if not path.is_file():
            raise InputError(
                f"{name}: this installation comes without it; name another with --attributes"
            )
        return AttributeSource("net", name, path)

    # Files: their suffix says which kind they are, and FairFace's need their name before them.
    kinds = {".safetensors": "net", ".onnx": "onnx"}
    fairface, _, file = name.partition(":")
    if Path(name).suffix in kinds:
        source = AttributeSource(kinds[Path(name).suffix], name, Path(name))
    elif fairface not in published.names_of("attribute model"):
        if Path(name).suffix in (".pt", ".pth"):
            forms = " or ".join(f"{one}:{name}" for one in published.names_of("attribute model"))
            raise InputError(f"{name}: say which of FairFace's two files it is: {forms}")
        raise InputError(
            f"unknown attribute model {name!r}{nearest(name, attribute_names())}; also possible: "
            "FILE.onnx, FILE.safetensors and FILE.py:FACTORY"
        )
    else:
        path = Path(file) if file else published.fetched(published.get(fairface))[0]
        source = AttributeSource("fairface", fairface, path)
    if source.path is not None and not source.path.is_file():
        raise InputError(f"{source.path}: cannot be read (No such file or directory)")
    return source


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
    source = find_attributes(reference)
    # Each kind of model is imported only where it is used.
    if source.path is None or source.kind == "plugin":
        return load_attribute_plugin(source.name).to(device)
    if source.kind == "net":
        from pulse_audit.faces.attribute_net import load_attribute_net

        return load_attribute_net(source.path).to(device)
    if source.kind == "onnx":
        from pulse_audit.faces.onnx_attributes import load_onnx

        return load_onnx(source.path).to(device)
    from pulse_audit.faces.fairface import load_fairface

    card = published.get(source.name)
    return load_fairface(
        source.path, source.name, training_data=card.trained_on, licence=card.licence.name
    ).to(device)
