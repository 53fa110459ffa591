"""What comes with the package."""

from __future__ import annotations

from pathlib import Path

#: Folder of what is shipped, and the generators in it: twins that differ in whom they saw.
ASSETS = Path(__file__).parents[1] / "assets"
GENERATORS = ("faces-balanced", "faces-skewed")
ATTRIBUTES = "faces-attributes"
#: Of a shorter training on another seed: it checks what guidance by the first one finds.
CHECK = "faces-attributes-check"


def shipped_generators() -> list[str]:
    """Return the names of the generators that come with the package."""
    return [name for name in GENERATORS if shipped_file(name).is_file()]


def shipped_file(name: str) -> Path:
    """Return where the weights of a shipped model lie, or would lie."""
    return ASSETS / f"{name}.safetensors"
