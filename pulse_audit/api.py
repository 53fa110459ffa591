"""The public facade: what ``import pulse_audit as pa`` offers."""

from __future__ import annotations
