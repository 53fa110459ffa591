"""Files of this program's own: where they are kept, and writing them whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_dir


def cache_folder() -> Path:
    """Where fetched and computed files are kept: PULSE_AUDIT_HOME, or the platform's cache."""
    return Path(os.environ.get("PULSE_AUDIT_HOME") or user_cache_dir("pulse-audit"))


def write_whole(path: Path, data: bytes) -> None:
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
