"""Names as users write them, parsed into objects; no torch, and nothing is loaded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_audit.types import InputError

#: Arms that are interpolation kernels.
INTERPOLATION = ("nearest", "bicubic", "lanczos")
PLANTED = "planted:"
ARM_FORMS = ("pulse", *INTERPOLATION, f"{PLANTED}MATRIX.csv", "FILE.py:FACTORY")

_GENERATOR = re.compile(
    r"(?P<source>.+?)(?:@(?P<resolution>\d{1,5}))?(?:#(?P<label>\d{1,6}|each))?"
)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, or all."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def is_factory(reference: str) -> bool:
    """Whether a reference has the form ``FILE.py:FACTORY``."""
    path, _, name = reference.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


@dataclass(frozen=True)
class GeneratorReference:
    """A generator as requested: ``SOURCE[@RESOLUTION][#CLASS]``.

    ``source`` is a name, a checkpoint file or ``FILE.py:FACTORY``; ``label`` is the class of a
    conditional network, ``each`` for all of them, or None for classes drawn uniformly.
    """

    source: str
    resolution: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        """Return the reference as users write it."""
        resolution = f"@{self.resolution}" if self.resolution is not None else ""
        return f"{self.source}{resolution}" + (f"#{self.label}" if self.label else "")

    @property
    def is_factory(self) -> bool:
        """Whether the source is ``FILE.py:FACTORY``."""
        return is_factory(self.source)

    @property
    def path(self) -> Path:
        """The file behind it, unless it is a name."""
        return Path(self.source.rsplit(":", 1)[0] if self.is_factory else self.source)

    @property
    def stem(self) -> str:
        """The part of an arm's name that comes from the generator."""
        return self.path.stem + (f"#{self.label}" if self.label else "")


def parse_generator(reference: str | GeneratorReference) -> GeneratorReference:
    """Parse a reference; where a file of just that name exists, the whole is its name."""
    if isinstance(reference, GeneratorReference):
        return reference
    match = _GENERATOR.fullmatch(reference)
    if match is None or Path(reference).is_file():
        return GeneratorReference(reference)
    resolution = match["resolution"]
    return GeneratorReference(
        match["source"], int(resolution) if resolution else None, match["label"]
    )


@dataclass(frozen=True)
class ArmReference:
    """An arm as requested.

    ``kind`` is ``pulse``, ``interpolation``, ``planted`` or ``factory``. ``reference`` is what
    defines the arm: the generator, the interpolation kernel, the matrix file or
    ``FILE.py:FACTORY``.
    """

    name: str
    kind: str
    reference: str


def parse_arm(arm: str) -> ArmReference:
    """Parse an arm; ``pulse`` has yet to be given its generators.

    Raises
    ------
    InputError
        If it has none of the known forms.
    """
    if arm == "pulse":
        return ArmReference(arm, "pulse", arm)
    if arm in INTERPOLATION:
        return ArmReference(arm, "interpolation", arm)
    if arm.startswith(PLANTED):
        matrix = arm.removeprefix(PLANTED)
        return ArmReference(f"{PLANTED}{Path(matrix).stem}", "planted", matrix)
    if is_factory(arm):
        return ArmReference(Path(arm.rpartition(":")[0]).stem, "factory", arm)
    raise InputError(f"unknown arm {arm!r}{nearest(arm, ARM_FORMS)}")
