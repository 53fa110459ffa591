"""The images of a run: where they are kept, relative to it, and whether one is whole."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from pulse_audit.seeding import hexdigest

#: Where originals and inputs are kept, which work units share.
SHARED = ("images/original/", "images/lr/")


def _slug(text: str) -> str:
    """File-name form of an id: readable, harmless, and distinct for distinct ids."""
    # A hash follows the words, so that "a/b" and "a_b" differ.
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '_', text).strip('._')[:60]}-{hexdigest(text)[:8]}"


def original_path(face_id: str) -> str:
    """Where the prepared original of a face is kept, relative to the run."""
    return f"images/original/{_slug(face_id)}.png"


def lr_path(face_id: str, condition: str, scale: int, draw: int) -> str:
    """Where a low-resolution input is kept, relative to the run."""
    return f"images/lr/{_slug(condition)}/x{scale}/{_slug(face_id)}_{draw}.png"


def output_path(arm: str, face_id: str, condition: str, scale: int, draw: int) -> str:
    """Where an output is kept, relative to the run."""
    return f"images/{_slug(arm)}/{_slug(condition)}/x{scale}/{_slug(face_id)}_{draw}.png"


def is_whole(path: Path) -> bool:
    """Whether a file is a PNG of which nothing is missing or changed, by its own checksums."""
    # A pipe would wait for a writer for ever.
    if not path.is_file() or path.is_symlink():
        return False
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.verify()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
    return True
