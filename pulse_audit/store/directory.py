"""The directory of a run: opened, started, and locked for writing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from pulse_audit.files import refuse_links, remove_leftovers
from pulse_audit.store.manifest import Manifest, read_manifest
from pulse_audit.store.run import Run
from pulse_audit.types import InputError

#: Files and folders of a run that are written; none of them may be a link.
WRITTEN = (
    ".lock",
    "manifest.json",
    "references.json",
    "hand_labels.json",
    "rating",
    "ratings.json",
    "summary.json",
    "samples",
    "features",
    "sources",
    "report",
    "gate",
)


def open_run(path: Path | str) -> Run:
    """Open a run directory for reading.

    Raises
    ------
    InputError
        If there is no readable manifest of a known version, or a folder of the run is a link.
    """
    path = Path(path)
    refuse_links(path, WRITTEN)
    return Run(path, read_manifest(path))


def create_run(path: Path, manifest: Manifest) -> Run:
    """Start a run directory by writing its manifest.

    Raises
    ------
    InputError
        If the directory holds something else.
    """
    _refuse_others(path)
    run = Run(path, manifest)
    run.write_manifest()
    return run


@contextlib.contextmanager
def locked(path: Path, make: bool = True) -> Iterator[Run | None]:
    """Lock a run directory for writing, and remove what a killed writer left.

    Parameters
    ----------
    path : Path
    make : bool
        Make the directory where there is none; one that stayed empty is removed again. Otherwise
        there has to be a run.

    Yields
    ------
    Run or None
        The run that is there.

    Raises
    ------
    InputError
        If it is something else than a run or an empty directory, cannot be written, or another
        process holds it.
    """
    # Nothing is written to a directory before it is known to be ours.
    refuse_links(path, WRITTEN)
    run, manifest = None, path / "manifest.json"
    before = manifest.stat() if manifest.exists() else None
    if before is not None or not make:
        run = open_run(path)
    elif path.exists():
        _refuse_others(path)

    created = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Never through a link, and never truncated: the name could be any file of the user's.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(path / ".lock", flags, 0o666)
    except OSError as error:
        reason = "is a link" if error.errno == errno.ELOOP else error.strerror
        raise InputError(f"{path}: cannot be written (.lock: {reason})") from None
    try:
        # One writer at a time; the kernel drops the lock when the process ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # Whoever holds it may have written nothing yet: its directory is not ours to remove.
            created = False
            raise InputError(f"{path}: another process is writing this run") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be locked ({error.strerror})") from None
        remove_leftovers(path)
        # What another process wrote meanwhile is another file.
        if manifest.exists() and (before is None or not os.path.samestat(before, manifest.stat())):
            run = open_run(path)
        yield run
    finally:
        # A directory that holds the lock and nothing else is not in use.
        with contextlib.suppress(OSError):
            if created and [entry.name for entry in path.iterdir()] == [".lock"]:
                (path / ".lock").unlink()
                path.rmdir()
        os.close(lock)


def _refuse_others(path: Path) -> None:
    """Refuse a directory that holds files of others; hidden ones do not count."""
    try:
        others = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path}: not a directory that can be read ({error.strerror})") from None
    if others:
        raise InputError(
            f"{path}: not a run directory and not empty ({others[0]}); choose another --out"
        )
