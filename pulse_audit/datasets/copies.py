"""Faces whose photos are the same file: found by their bytes, without reading every photo."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from pulse_audit.datasets.images import FileImage
from pulse_audit.types import Face, ImageSource


class Copies:
    """Finds the faces with the photo of a face.

    Only photos of the same number of bytes are read and hashed, so that a draw of a few faces from
    a large data set costs a few hundred photos. Photos that cannot be read are no copies.

    Parameters
    ----------
    faces : sequence of Face
        With distinct ids.
    """

    def __init__(self, faces: Sequence[Face]) -> None:
        self._faces = faces
        # SHA-256 of the photos read so far, by id; None where one cannot be read.
        self._digests: dict[str, bytes | None] = {}

    @cached_property
    def _of_size(self) -> dict[int, list[Face]]:
        """Faces by the number of bytes of their photo."""
        found: defaultdict[int, list[Face]] = defaultdict(list)
        for face in self._faces:
            if (size := _size(face.source)) is not None:
                found[size].append(face)
        return found

    def of(self, face: Face) -> list[Face]:
        """Return the faces with the photo of ``face``, itself included, by id."""
        alike = self._of_size.get(_size(face.source) or 0, ())
        if len(alike) < 2:
            return [face]
        own = self._digest(face)
        same = [other for other in alike if own is not None and self._digest(other) == own]
        return sorted(same, key=lambda other: other.id) or [face]

    def _digest(self, face: Face) -> bytes | None:
        if face.id not in self._digests:
            try:
                self._digests[face.id] = hashlib.sha256(face.source.read()).digest()
            except OSError:
                self._digests[face.id] = None
        return self._digests[face.id]


def contradict(faces: Sequence[Face], columns: Sequence[str]) -> bool:
    """Whether faces of one photo differ in their label of some column."""
    return any(len({face.labels.get(column) for face in faces}) > 1 for column in columns)


def _size(source: ImageSource) -> int | None:
    """Return the number of bytes of a photo, None where it cannot be read."""
    try:
        if isinstance(source, FileImage):
            return os.path.getsize(os.path.join(source.root, source.name))
        return len(source.read())
    except OSError:
        return None
