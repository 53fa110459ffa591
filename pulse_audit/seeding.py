"""Stable fingerprints and per-draw seeds.

Python's ``hash()`` changes from process to process; these do not.
"""

from __future__ import annotations

import hashlib
import json
from typing import TypeAlias

Part: TypeAlias = (
    "str | int | float | bool | None | list[Part] | tuple[Part, ...] | dict[str, Part]"
)


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def hexdigest(*parts: Part) -> str:
    """SHA-256 of the parts, in hex.

    Parts are written as canonical JSON (sorted keys, no white space), so neither the order of a
    mapping nor the boundaries between strings can be confused: ``("ab", "c")`` and ``("a", "bc")``
    differ.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(*parts: Part) -> int:
    """Map the parts to a seed in [0, 2**63), the same on every machine."""
    return int(hexdigest(*parts)[:16], 16) >> 1
