"""Stable fingerprints and per-draw seeds.

Python's ``hash()`` changes from process to process; these do not.
"""

from __future__ import annotations

import hashlib
import json
from typing import TypeAlias

Json: TypeAlias = (
    "str | int | float | bool | None | list[Json] | tuple[Json, ...] | dict[str, Json]"
)


def sha256(data: bytes) -> str:
    """SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def hexdigest(*parts: Json) -> str:
    """SHA-256 of the parts, in hex; ``("ab", "c")`` and ``("a", "bc")`` differ."""
    # Canonical JSON: neither the order of a mapping nor the boundaries of strings are lost.
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(*parts: Json) -> int:
    """Map the parts to a seed in [0, 2**63), the same on every machine.

    Torch's generator on a CPU takes the low 32 bits alone. Of a million draws about 116 pairs, of
    different faces as a rule, have these in common and so start alike.
    """
    return int(hexdigest(*parts)[:16], 16) >> 1
