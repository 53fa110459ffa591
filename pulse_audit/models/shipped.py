"""Names and files of the models that come with the package."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"
#: Twins: trained identically except for the training data.
GENERATORS = ("faces-balanced", "faces-skewed")
ATTRIBUTES = "faces-attributes"
#: From a shorter training with another seed; checks the guidance by the first one.
CHECK = "faces-attributes-check"


def shipped_file(name: str) -> Path:
    """Return the path of a shipped model's weights, whether they are there or not."""
    return ASSETS / f"{name}.safetensors"


def shipped_generators() -> list[str]:
    """Return the names of the generators that come with the package."""
    return [name for name in GENERATORS if shipped_file(name).is_file()]
