"""Opening a run directory to read it, starting one, and holding it for writing."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from pulse_audit.store.manifest import Manifest, read_manifest
from pulse_audit.store.run import Run
from pulse_audit.types import InputError


def open_run(path: Path | str) -> Run:
    """Open a run directory for reading.

    Raises
    ------
    InputError
        If there is no readable manifest of a known version.
    """
    path = Path(path)
    return Run(path, read_manifest(path))


def create_run(path: Path, manifest: Manifest) -> Run:
    """Start a run directory by writing its manifest.

    Raises
    ------
    InputError
        If the directory holds something else.
    """
    strangers = [p.name for p in path.iterdir() if not p.name.startswith(".")]
    if strangers:
        raise InputError(
            f"{path}: not a run directory and not empty ({strangers[0]}); choose another --out"
        )
    run = Run(path, manifest)
    run.write_manifest()
    return run


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run directory for writing; makes it, and sweeps what a killed writer left.

    A directory that it made and that nothing was written to is taken away again.

    Raises
    ------
    InputError
        If it cannot be written, or another process holds it.
    """
    made = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / ".lock").open("w")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing this run") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be locked ({error.strerror})") from None
        for leftover in path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        try:
            yield
        finally:
            if made:
                _take_away_if_unused(path)


def _take_away_if_unused(path: Path) -> None:
    """Remove a directory that holds a lock and nothing else; one that is in use by now stays."""
    with contextlib.suppress(OSError):
        if [entry.name for entry in path.iterdir()] == [".lock"]:
            (path / ".lock").unlink()
            path.rmdir()
