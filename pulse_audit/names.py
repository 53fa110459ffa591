"""Names as users write them: references to generators, and answers to unknown ones."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def nearest(name: str, known: Sequence[str]) -> str:
    """End a line about an unknown name: with the nearest known ones, or with all of them."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


CHOICE = re.compile(r"(?P<source>.+?)(?:@(?P<resolution>\d{1,5}))?(?:#(?P<label>\d{1,6}|each))?")


def is_factory(reference: str) -> bool:
    """Whether a reference has the form ``FILE.py:FACTORY``."""
    path, _, name = reference.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


@dataclass(frozen=True)
class GeneratorReference:
    """A generator as asked for: ``SOURCE[@RESOLUTION][#CLASS]``.

    ``source`` is a name, a checkpoint file or ``FILE.py:FACTORY``; ``label`` is the class of a
    conditional network, ``each`` for all of them, or None for classes drawn uniformly.
    """

    source: str
    resolution: int | None = None
    label: str | None = None

    @property
    def path(self) -> Path:
        """The file behind it, unless it is a name."""
        return Path(self.source.rsplit(":", 1)[0] if is_factory(self.source) else self.source)

    @property
    def stem(self) -> str:
        """What an arm is called after."""
        return self.path.stem + (f"#{self.label}" if self.label else "")


def parse_generator(reference: str) -> GeneratorReference:
    """Take a reference apart; a file that has such a name is taken as it is."""
    found = CHOICE.fullmatch(reference)
    if found is None or Path(reference).is_file():
        return GeneratorReference(reference)
    resolution, label = found["resolution"], found["label"]
    return GeneratorReference(found["source"], int(resolution) if resolution else None, label)
