"""What has been fetched: files, the hashes they came with, and the licences accepted.

Below the cache folder, ``weights/`` holds every file under its own name and beside it
``<file>.seen.json`` with the hash of the first download, which later downloads must match.
``licences.json`` lists the licences accepted on this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulse_audit.files import atomic_write, cache_folder, file_sha256
from pulse_audit.models.registry import Licence, WeightCard, get
from pulse_audit.types import InputError, Unavailable

LICENCES = "licences.json"


@dataclass(frozen=True)
class Seen:
    """The first download of a file: where from, what it hashed to, and its size and time since."""

    url: str
    sha256: str
    size: int
    mtime_ns: int
    date: str


def folder() -> Path:
    """Where fetched weights are kept."""
    return cache_folder() / "weights"


def path_of(card: WeightCard) -> Path:
    """Where the file of a card is kept, once it is fetched."""
    return folder() / card.file_name


def seen_path(card: WeightCard) -> Path:
    """Where the hash of the first download is recorded."""
    return folder() / f"{card.file_name}.seen.json"


def seen(card: WeightCard) -> Seen | None:
    """Return the record of the first download; None if there was none, or it is unreadable."""
    try:
        return Seen(**_read_json(seen_path(card)))
    except TypeError:
        return None


def record(card: WeightCard, digest: str, url: str) -> None:
    """Record what the file of a card hashes to; the date of a first download is kept.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    stat, earlier = path_of(card).stat(), seen(card)
    date = earlier.date if earlier else datetime.now(UTC).date().isoformat()
    entry = Seen(url, digest, stat.st_size, stat.st_mtime_ns, date)
    _write_json(seen_path(card), asdict(entry))


def state(card: WeightCard, *, rehash: bool = False) -> str:
    """Say whether a card's file is ``fetched``, ``missing``, ``changed`` or ``not checked``.

    Parameters
    ----------
    card : WeightCard
        The file in question.
    rehash : bool
        Read the whole file even where its size and time are those of the record.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        return _state(path_of(card), card, rehash)
    except OSError as error:
        raise InputError(f"{path_of(card)}: cannot be read ({error.strerror})") from None


def _state(path: Path, card: WeightCard, rehash: bool) -> str:
    known = seen(card)
    if not path.is_file():
        return "missing"
    if known is None:
        return "not checked"
    if card.sha256_status == "confirmed" and known.sha256 != card.sha256:
        return "changed"
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) == (known.size, known.mtime_ns) and not rehash:
        return "fetched"
    if stat.st_size != known.size or file_sha256(path) != known.sha256:
        return "changed"
    # Copied or touched: the next look is cheap again. A cache that is read only stays as it is.
    with contextlib.suppress(OSError):
        _write_json(seen_path(card), asdict(replace(known, mtime_ns=stat.st_mtime_ns)))
    return "fetched"


def located(name: str, *, rehash: bool = False) -> Path | None:
    """Return the fetched file of ``name``; None where it is missing or not what was fetched.

    Parameters
    ----------
    name : str
        A name of the catalogue.
    rehash : bool
        Hash the file again. Otherwise its size and time are compared with the record, and it is
        hashed only where these differ.

    Raises
    ------
    InputError
        If the name is unknown, or the file cannot be read.
    """
    card = get(name)
    return path_of(card) if state(card, rehash=rehash) == "fetched" else None


def needed(name: str) -> Path | Unavailable:
    """Return the fetched file of a network's weights, or the command that fetches them.

    Raises
    ------
    InputError
        As `located`.
    """
    path = located(name)
    if path is None:
        return Unavailable(f"the weights of its network are not fetched: pulse-audit fetch {name}")
    return path


def hash_state(card: WeightCard) -> str:
    """Say in a word or two what the SHA-256 of a card's file is worth.

    ``confirmed``, ``claimed`` or ``unknown`` before the first download; after it ``confirmed``,
    ``as claimed``, ``NOT as claimed``, or ``recorded on`` its date.
    """
    known = seen(card)
    if card.sha256_status == "confirmed" or known is None:
        return card.sha256_status
    if card.sha256 is None:
        return f"recorded on {known.date}"
    return "as claimed" if known.sha256 == card.sha256 else "NOT as claimed"


def accepted(licence: Licence) -> bool:
    """Whether a licence needs no acceptance, or has been accepted on this machine."""
    return not licence.accept or _licence_key(licence) in _read_json(cache_folder() / LICENCES)


def record_acceptance(licence: Licence) -> None:
    """Remember that a licence was accepted, and on which day.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = cache_folder() / LICENCES
    today = datetime.now(UTC).date().isoformat()
    _write_json(path, {**_read_json(path), _licence_key(licence): today})


@contextlib.contextmanager
def held(card: WeightCard) -> Iterator[None]:
    """Hold a card's file for writing; waits while another process fetches it.

    Raises
    ------
    InputError
        If the cache cannot be written.
    """
    try:
        folder().mkdir(parents=True, exist_ok=True)
        lock = (folder() / f".{card.file_name}.lock").open("w")
    except OSError as error:
        raise unwritable(error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise unwritable(error) from None
        yield


def unwritable(error: OSError) -> InputError:
    """Put into one line that the cache cannot be written."""
    return InputError(
        f"{folder()}: cannot be written ({error.strerror or error}); set PULSE_AUDIT_HOME to a "
        "folder with space that can"
    )


def _licence_key(licence: Licence) -> str:
    return f"{licence.name} {licence.url}"


def _read_json(path: Path) -> dict[str, Any]:
    """Read a record of ours; one that is missing or damaged counts as not there."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    atomic_write(path, (json.dumps(content, indent=1) + "\n").encode())
