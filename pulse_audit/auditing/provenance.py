"""Which photos of a run a shipped model saw when it was trained."""

from __future__ import annotations

import gzip
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pulse_audit import catalogue
from pulse_audit.types import InputError

#: The list beside a shipped model: SHA-256 of its training images, a hex digest a line.
SUFFIX = "-images.txt.gz"


def read_digests(path: Path) -> frozenset[str]:
    """Read a list of training images.

    Raises
    ------
    InputError
        If a line is no SHA-256.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode("ascii").split()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: unreadable list of training images ({error})") from None
    for line in lines:
        if not re.fullmatch(r"[0-9a-f]{64}", line):
            raise InputError(f"{path}: {line[:20]!r} is no SHA-256; the list is damaged")
    return frozenset(lines)


def note_of_seen(
    model: str, digests: Collection[str], faces: Collection[Mapping[str, Any]]
) -> str | None:
    """Say how many of a run's photos a model was trained on; None where it saw none.

    Parameters
    ----------
    model : str
        Its name.
    digests : collection of str
        SHA-256 of its training images.
    faces : collection of mapping
        The manifest's, each with the ``sha256`` of its photo.
    """
    seen = sum(face["sha256"] in digests for face in faces)
    if not seen:
        return None
    return (
        f"{model} was trained on {seen} of the {len(faces)} photos of this run: what it makes of "
        "those says little of new faces"
    )


def notes_of_seen(models: Collection[str], faces: Collection[Mapping[str, Any]]) -> list[str]:
    """Return notes for the models that come with a list of what they saw."""
    lists = {model: catalogue.ASSETS / f"{model}{SUFFIX}" for model in models}
    notes = (
        note_of_seen(model, read_digests(path), faces)
        for model, path in lists.items()
        if path.is_file()
    )
    return [note for note in notes if note]
