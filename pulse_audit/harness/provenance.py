"""Which photos of a run a shipped model saw when it was trained."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pulse_audit.models import shipped
from pulse_audit.store import Manifest
from pulse_audit.types import InputError

#: The list beside a shipped model: a line a training photo, the SHA-256 of its encoded bytes and,
#: after spaces, the data set's file name of it.
SUFFIX = "-images.txt.gz"


@dataclass(frozen=True)
class Photos:
    """Photos a model was trained on: SHA-256 of their bytes, and their names in FairFace.

    Both count: training may have used smaller copies of photos that a run has in full.
    """

    digests: frozenset[str]
    names: frozenset[str] = frozenset()


def read_photos(path: Path) -> Photos:
    """Read a list of training photos.

    Raises
    ------
    InputError
        If a line does not begin with a SHA-256.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: unreadable list of training photos ({error})") from None
    parted = [line.partition(" ") for line in lines]
    for digest, _, _ in parted:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise InputError(f"{path}: {digest[:20]!r} is no SHA-256; the list is damaged")
    names = (name.strip() for _, _, name in parted)
    return Photos(frozenset(d for d, _, _ in parted), frozenset(name for name in names if name))


def note_of_seen(model: str, photos: Photos, manifest: Manifest) -> str | None:
    """Say how many of a run's photos a model was trained on; None where it saw none.

    Parameters
    ----------
    model : str
        Its name.
    photos : Photos
        What it was trained on.
    manifest : Manifest
        Of the run; names are compared where its data set is FairFace.
    """
    faces = manifest.faces
    names = photos.names if manifest.dataset.name.startswith("fairface") else frozenset()
    seen = sum(face.sha256 in photos.digests or face.id in names for face in faces)
    if not seen:
        return None
    return (
        f"{model} was trained on {seen} of the {len(faces)} photos of this run: what it makes of "
        "those says little of new faces"
    )


def notes_of_seen(models: Collection[str], manifest: Manifest) -> list[str]:
    """Return notes for the models that come with a list of what they saw."""
    lists = {model: shipped.ASSETS / f"{model}{SUFFIX}" for model in models}
    notes = (
        note_of_seen(model, read_photos(path), manifest)
        for model, path in lists.items()
        if path.is_file()
    )
    return [note for note in notes if note]
