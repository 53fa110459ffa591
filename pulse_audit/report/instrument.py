"""The attribute model of a run: what it takes faces for, measured here and on its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.store import Manifest


@dataclass(frozen=True)
class Matrix:
    """Counts of faces: row the labelled group, column the apparent one; ``right`` in per cent."""

    title: str
    words: Sequence[str]
    counts: Sequence[Sequence[int]]

    @property
    def right(self) -> Sequence[str]:
        """Share of each row on the diagonal, as text."""
        return [
            f"{100 * row[i] / sum(row):.0f} %" if sum(row) else "–"
            for i, row in enumerate(self.counts)
        ]


def matrices(manifest: Manifest, samples: pd.DataFrame) -> list[Matrix]:
    """Confusion of each attribute that the data set labels: on this run's originals, and held out.

    Where the labels are a model's own, only the card's is shown: the run's would be the identity.
    """
    if manifest.attributes is None:
        return []
    model = manifest.attributes.as_dict()
    return [*_measured(model, samples), *_on_card(model)]


def _measured(model: Mapping[str, Any], samples: pd.DataFrame) -> Iterator[Matrix]:
    if model.get("labels_from") != "people":
        return
    faces = samples.drop_duplicates("face_id")
    for attribute, words in (model.get("vocabulary") or {}).items():
        label, seen = f"label_{attribute}", f"hr_{attribute}"
        if label in faces and seen in faces and faces[seen].notna().any():
            counts = pd.crosstab(faces[label], faces[seen]).reindex(
                index=words, columns=words, fill_value=0
            )
            yield Matrix(
                f"{attribute}, on this run's originals", list(words), counts.to_numpy().tolist()
            )


def _on_card(model: Mapping[str, Any]) -> Iterator[Matrix]:
    card = model.get("card") or {}
    for attribute, counts in (card.get("confusion") or {}).items():
        words = (card.get("vocabulary") or {}).get(attribute)
        if words and np.shape(counts) == (len(words), len(words)):
            yield Matrix(
                f"{attribute}, on the card's held-out faces at {card.get('resolution')} px",
                list(words),
                counts,
            )
