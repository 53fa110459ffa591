"""Opening a run directory to read it, starting one, and holding it for writing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pulse_audit.store.run import Run
from pulse_audit.types import InputError

SCHEMA_VERSION = 1

#: Names that become columns or files of a run; a foreign manifest may say anything.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ .-]{0,79}")


def open_run(path: Path | str) -> Run:
    """Open a run directory for reading.

    Raises
    ------
    InputError
        If there is no readable manifest of a known version.
    """
    path = Path(path)
    try:
        manifest = json.loads((path / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: not a run directory (no manifest.json)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path / 'manifest.json'}: unreadable ({error})") from None
    _check_manifest(path, manifest)
    return Run(path, manifest)


def _check_manifest(path: Path, manifest: Any) -> None:
    """Refuse what no version of this program wrote; a foreign manifest is not trusted."""
    where = path / "manifest.json"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
        raise InputError(f"{where}: not a manifest of pulse-audit")
    if manifest["schema"] != SCHEMA_VERSION:
        raise InputError(
            f"{where}: schema {manifest['schema']}, this version reads {SCHEMA_VERSION}"
        )
    expected = {"spec": dict, "dataset": dict, "arms": dict, "units": list, "faces": list}
    for key, kind in expected.items():
        if not isinstance(manifest.get(key), kind):
            raise InputError(f"{where}: entry {key!r} is missing or damaged")
    if not isinstance(manifest["dataset"].get("vocabulary"), dict):
        raise InputError(f"{where}: entry 'dataset.vocabulary' is missing or damaged")
    for unit in manifest["units"]:
        if not re.fullmatch(r"[a-z0-9-]{1,40}", str(unit.get("id", ""))):
            raise InputError(f"{where}: unit id {unit.get('id')!r} is not one of ours")
    _check_measured(where, manifest)


def _check_measured(where: Path, manifest: Mapping[str, Any]) -> None:
    """Check the entries that columns of the samples are made from."""
    model = manifest.get("attributes")
    words = {} if model is None else model.get("vocabulary") if isinstance(model, dict) else None
    metrics = manifest.get("metrics", {})
    filled = (
        [m.get("columns") if isinstance(m, dict) else None for m in metrics.values()]
        if isinstance(metrics, dict)
        else [None]
    )
    kept = manifest.get("features") or {}
    dim = kept.get("dim") if isinstance(kept, dict) else 0
    for key, sound in (
        (
            "attributes",
            isinstance(words, dict) and all(isinstance(w, list) for w in words.values()),
        ),
        ("metrics", all(isinstance(names, list) for names in filled)),
        ("features", dim is None or (isinstance(dim, int) and dim > 0)),
    ):
        if not sound:
            raise InputError(f"{where}: entry {key!r} is damaged")
    for name in (*(words or ()), *(name for names in filled for name in names or ())):
        if not _NAME.fullmatch(str(name)):
            raise InputError(f"{where}: {name!r} is no name of an attribute or metric of ours")


def create_run(path: Path, manifest: dict[str, Any]) -> Run:
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
