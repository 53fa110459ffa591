"""People's labels of outputs, as a run keeps them: one file, with the SHA-256 of its labels."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pulse_audit.seeding import sha256
from pulse_audit.types import InputError

#: Name of the file in a run.
NAME = "hand_labels.json"
#: Largest such file that is read, in bytes: several times the largest CSV.
MAX_BYTES = 2**27


class HandLabels(BaseModel):
    """People's labels of outputs of a run.

    ``labels`` maps an image, as in the samples, to the word given to it by attribute; ``sha256`` is
    that of these labels. ``file`` and ``file_sha256`` are the name and SHA-256 of the CSV.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    file_sha256: str
    sha256: str
    labels: dict[str, dict[str, str]]

    @classmethod
    def make(
        cls, file: str, file_sha256: str, labels: Mapping[str, Mapping[str, str]]
    ) -> HandLabels:
        """Add the SHA-256 of the labels."""
        plain = {image: dict(words) for image, words in labels.items()}
        return cls(file=file, file_sha256=file_sha256, sha256=_digest(plain), labels=plain)


def check_hand_labels(
    content: Any, where: Path, images: Collection[str], vocabulary: Mapping[str, Sequence[str]]
) -> HandLabels:
    """Check what a run keeps: whole, of its planned outputs, in the words of its data set.

    Raises
    ------
    InputError
        If it is damaged, or does not belong to the run.
    """
    again = "give --hand-labels again, or delete the file"
    try:
        stored = HandLabels.model_validate(content)
    except ValidationError:
        raise InputError(f"{where}: is damaged; {again}") from None
    if _digest(stored.labels) != stored.sha256:
        raise InputError(f"{where}: does not match its checksum; {again}")
    for image, words in stored.labels.items():
        unknown = any(word not in vocabulary.get(name, ()) for name, word in words.items())
        if image not in images or unknown:
            raise InputError(f"{where}: {image!r:.200} or its label is not of this run; {again}")
    return stored


def _digest(labels: Mapping[str, Mapping[str, str]]) -> str:
    """SHA-256 of labels, in whatever order they stand."""
    return sha256(json.dumps(labels, sort_keys=True).encode())
