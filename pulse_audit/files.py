"""Files of this program's own: where they are kept, writing them whole, weights with a card.

Weights of ours are safetensors beside a JSON card of the same name, which says what they are for
and carries their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from pulse_audit.types import InputError

CARD_VERSION = 1
MAX_CARD = 2**22


def cache_folder() -> Path:
    """Where fetched and computed files are kept: PULSE_AUDIT_HOME, or the platform's cache."""
    return Path(os.environ.get("PULSE_AUDIT_HOME") or user_cache_dir("pulse-audit"))


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all (temporary name, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_path(weights: Path) -> Path:
    """Return where the card of a file of weights is."""
    return weights.with_suffix(".json")


def write_card(weights: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write the card of weights that are there already.

    Parameters
    ----------
    weights : Path
        Their file.
    kind : str
        What they are weights of: ``generator``, ``attribute net``.
    content : mapping
        Plain JSON values; format, version and SHA-256 are added.
    """
    stamp = {
        "format": f"pulse-audit {kind}",
        "version": CARD_VERSION,
        "sha256": file_sha256(weights),
    }
    said = {**stamp, **content, **stamp}
    atomic_write(card_path(weights), (json.dumps(said, indent=1) + "\n").encode())


def read_card(weights: Path, kind: str) -> dict[str, Any]:
    """Read the card of weights, which are not read themselves; see `check_belongs`.

    Raises
    ------
    InputError
        If it is missing, or no card of this kind and version.
    """
    place = card_path(weights)
    try:
        with place.open("rb") as file:
            content = json.loads(file.read(MAX_CARD))
    except FileNotFoundError:
        lost = f"its card {place.name} is missing; keep the two together"
        reason = lost if weights.exists() else "cannot be read (No such file or directory)"
        raise InputError(f"{weights}: {reason}") from None
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: it is no JSON card") from error
    if not isinstance(content, dict) or content.get("format") != f"pulse-audit {kind}":
        raise InputError(f"{place}: it is no {kind} card of pulse-audit")
    if content.get("version") != CARD_VERSION:
        raise InputError(f"{place}: version {content.get('version')!r} is not known here")
    return content


def check_belongs(weights: Path, card: Mapping[str, Any]) -> None:
    """Refuse weights that are not those of their card.

    Raises
    ------
    InputError
        If they cannot be read, or have another SHA-256.
    """
    try:
        digest = file_sha256(weights)
    except OSError as error:
        raise InputError(f"{weights}: cannot be read ({error.strerror})") from None
    if card.get("sha256") != digest:
        raise InputError(f"{weights}: the weights are not those of their card (another SHA-256)")
