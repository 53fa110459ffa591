"""Files of this package: the cache folder, atomic writing, weights with a card.

Our own weights are safetensors beside a JSON card of the same name, which describes them and holds
their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_dir

from pulse_audit.documents import read_json
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from torch.nn import Module

#: End of the names of what counts batches in training.
COUNTER = "num_batches_tracked"
CARD_VERSION = 1
#: Largest card that is read, in bytes.
MAX_CARD = 2**22

#: Names of temporary files: this prefix and the random part of `tempfile.mkstemp`.
TEMPORARY = ".pulse-audit-"
LEFTOVER = re.compile(r"\.pulse-audit-[a-z0-9_]{8}\.tmp")

# The mask can only be read by setting it.
UMASK = os.umask(0o077)
os.umask(UMASK)


def cache_folder() -> Path:
    """Where fetched and computed files are kept: PULSE_AUDIT_HOME, or the platform's cache."""
    return Path(os.environ.get("PULSE_AUDIT_HOME") or user_cache_dir("pulse-audit"))


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    OSError
        With the file's name, if it cannot be written, such as on a full disk.
    """
    temporary: Path | None = None
    try:
        # A temporary file in the same folder is renamed once its content is on disk. Its name is
        # one that `remove_leftovers` recognises.
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~UMASK)
        os.replace(temporary, path)
    except OSError as error:
        # The file that was asked for, not the temporary one.
        if error.errno is not None:
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def as_json(content: Any) -> bytes:
    """Encode content as a JSON file for people and machines; not-a-number is refused."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed `atomic_write` left below a folder.

    Only files with a name that `atomic_write` made; links are neither removed nor followed.
    """
    for root, _, names in os.walk(folder, followlinks=False):
        for name in names:
            path = Path(root, name)
            if LEFTOVER.fullmatch(name) and not path.is_symlink():
                path.unlink(missing_ok=True)


def refuse_links(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder in which a file or folder that is read or written is a link.

    Raises
    ------
    InputError
        Naming the link.
    """
    for name in names:
        if (folder / name).is_symlink():
            raise InputError(f"{folder / name}: is a link; a run directory holds its own files")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex, in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path, *, mapped: bool = False) -> Mapping[str, Any]:
    """Read tensors by name from a file of PyTorch; nothing in it is run.

    Parameters
    ----------
    path : Path
    mapped : bool
        Map archives into memory instead of reading them, for callers that copy a part.

    Raises
    ------
    InputError
        In one line, if the file cannot be read, is damaged, or holds anything but plain tensors.
    """
    import torch

    try:
        with warnings.catch_warnings():
            # Of other pickle protocols than 2, which are refused or read just the same.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            # Files from before PyTorch 1.6 are no archives, and cannot be mapped.
            state = torch.load(
                path,
                map_location="cpu",
                weights_only=True,
                mmap=mapped and zipfile.is_zipfile(path),
            )
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # damaged bytes end in any of a dozen errors
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: holds no plain weights ({reason}); nothing was run") from None
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: holds a {type(state).__name__}, not tensors by name")
    return state


def card_path(weights: Path) -> Path:
    """Return the path of the card of a file of weights."""
    return weights.with_suffix(".json")


def write_card(weights: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write the card of a file of weights.

    Parameters
    ----------
    weights : Path
        The file, already written.
    kind : str
        What they are weights of: ``generator``, ``attribute net``.
    content : mapping
        Plain JSON values; format, version and SHA-256 are added.
    """
    digest = file_sha256(weights)
    stamp = {"format": f"pulse-audit {kind}", "version": CARD_VERSION, "sha256": digest}
    # The stamp comes first in the file, and overrules content of the same keys.
    card = {**stamp, **content, **stamp}
    atomic_write(card_path(weights), (json.dumps(card, indent=1) + "\n").encode())


def read_card(weights: Path, kind: str) -> dict[str, Any]:
    """Read the card of a file of weights, but not the weights; see `check_belongs`.

    Raises
    ------
    InputError
        If it is missing, or no card of this kind and version.
    """
    path = card_path(weights)
    try:
        card = read_json(path, MAX_CARD)
    except FileNotFoundError:
        problem = "cannot be read (No such file or directory)"
        if weights.exists():
            problem = f"its card {path.name} is missing; keep the two together"
        raise InputError(f"{weights}: {problem}") from None
    if not isinstance(card, dict) or card.get("format") != f"pulse-audit {kind}":
        raise InputError(f"{path}: it is no {kind} card of pulse-audit")
    if card.get("version") != CARD_VERSION:
        raise InputError(f"{path}: version {card.get('version')!r} is not known here")
    return card


def write_network(network: Module, weights: Path, kind: str, content: Mapping[str, Any]) -> None:
    """Write the weights of a network (``*.safetensors``, float16) and their card, `write_card`."""
    from safetensors.torch import save

    # Batch counters are left out: evaluation does not read them.
    state = {
        key: value.detach().cpu().half().contiguous()
        for key, value in network.state_dict().items()
        if not key.endswith(COUNTER)
    }
    atomic_write(weights, save(state))
    write_card(weights, kind, content)


def fill_network(network: Module, weights: Path) -> None:
    """Give a network the weights that `write_network` wrote.

    Raises
    ------
    SafetensorError, RuntimeError
        If the file is damaged, or holds weights of another shape.
    """
    from safetensors.torch import load_file

    state = {key: value.float() for key, value in load_file(weights).items()}
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(COUNTER)}
    network.load_state_dict({**state, **counters})


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
