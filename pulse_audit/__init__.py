"""Puts face upsamplers on trial.

``import pulse_audit`` costs nothing: the public names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_PUBLIC = (
    "AuditRun",
    "AuditSpec",
    "Degradation",
    "Generator",
    "InputError",
    "Pulse",
    "Request",
    "Status",
    "Upsampled",
    "Upsampler",
    "as_generator",
    "audit",
    "load_generator",
)
__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pulse_audit' has no attribute {name!r}")
    from pulse_audit import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
