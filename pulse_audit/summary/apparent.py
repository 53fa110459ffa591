"""Which attribute each grouping tests, and the groups of faces, originals and outputs in it.

A grouping by a label that an attribute model predicts tests that label; by skin tone or Monk
class, that class as measured on the output; an intersection tests the first of its columns that
is predicted. Any other grouping, and the whole sample, tests what the run's first grouping tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.fairness.compositions import card_counts
from pulse_audit.fairness.confusion import Confusion
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import IntArray
from pulse_audit.store import Manifest
from pulse_audit.summary import groups
from pulse_audit.summary.measures import feasible
from pulse_audit.types import Status

NONE = -1
#: Measured on the picture itself, not by the attribute model: no errors are known of it.
TONES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "skin_tone": ("ita", groups.ita_class),
    "monk": ("monk", groups.monk_class),
}


@dataclass(frozen=True, eq=False)
class AttributeLabels:
    """Groups in one attribute, for every row of the samples; -1 where there is none.

    Parameters
    ----------
    attribute : str
    words : sequence of str
        Its groups, in order.
    truth, original, output : ndarray of int, (rows,)
        Group of the face, as labelled; apparent group of the original, and of the output. Draws
        that failed or show no face have no output group.
    confusion : Confusion or None
        Of the attribute model, on this run's originals or from its card.
    uncorrected : str
        Why there is no confusion; empty where there is one.
    """

    attribute: str
    words: Sequence[str]
    truth: IntArray
    original: IntArray
    output: IntArray
    confusion: Confusion | None
    uncorrected: str

    @property
    def measured_tone(self) -> bool:
        """Whether originals and outputs are measured alike, so that there is no floor."""
        return self.attribute in TONES

    def draws(self, rows: IntArray, faces: IntArray) -> Draws | None:
        """Draws of these rows whose face has a group, or None."""
        known = self.truth[rows] != NONE
        if not known.any():
            return None
        chosen = rows[known]
        return Draws(faces[known], self.truth[chosen], self.output[chosen], len(self.words))


def outcomes(tested: AttributeLabels, samples: pd.DataFrame, rows: IntArray) -> pd.DataFrame:
    """Columns of the metrics in `described.TESTED`: 0, 1, or NaN where a draw does not count."""
    truth, output = tested.truth[rows], tested.output[rows]
    retained = np.where(truth == NONE, np.nan, (truth == output).astype(np.float64))
    converted = np.where(truth == NONE, np.nan, (truth != output) & (output != NONE))
    return pd.DataFrame(
        {
            "retention": retained,
            "retention_feasible": np.where(feasible(samples) > 0, retained, np.nan),
            "retention_classified": np.where(output == NONE, np.nan, retained),
            "conversion": converted.astype(np.float64),
        }
    )


def tested_by(columns: Sequence[str], samples: pd.DataFrame) -> str | None:
    """Attribute that a grouping tests by itself, or None."""
    return next((c for c in columns if _testable(c, samples)), None)


def _testable(attribute: str, samples: pd.DataFrame) -> bool:
    """Whether faces and outputs both have groups of this attribute."""
    if attribute in TONES:
        quantity = TONES[attribute][0]
        needed = [f"hr_{quantity}", f"sr_{quantity}"]
    else:
        needed = [f"label_{attribute}", f"sr_{attribute}"]
    return all(name in samples and samples[name].notna().any() for name in needed)


def tested(
    attribute: str, manifest: Manifest, samples: pd.DataFrame, faces: IntArray
) -> AttributeLabels:
    """Groups of faces, originals and outputs in an attribute that `tested_by` named."""
    failed = samples["status"].isin([str(Status.ERROR), str(Status.NO_FACE)])
    if attribute in TONES:
        quantity, classify = TONES[attribute]
        words = groups.words_of(attribute, manifest)
        truth = places(samples[f"hr_{quantity}"].astype("float64").map(classify), words)
        seen = places(samples[f"sr_{quantity}"].astype("float64").map(classify), words)
        why = "skin tone is measured on originals and outputs alike; its errors are not known"
        return AttributeLabels(
            attribute, words, truth, truth, np.where(failed, NONE, seen), None, why
        )
    words = _words(attribute, manifest, samples)
    truth = places(samples[f"label_{attribute}"], words)
    seen = places(samples[f"sr_{attribute}"], words)
    original = places(samples.get(f"hr_{attribute}", pd.Series(None, samples.index)), words)
    confusion, why = _confusion(attribute, words, manifest, faces, truth, original)
    return AttributeLabels(
        attribute, words, truth, original, np.where(failed, NONE, seen), confusion, why
    )


def _words(attribute: str, manifest: Manifest, samples: pd.DataFrame) -> list[str]:
    model = manifest.attributes
    known = (model.vocabulary.get(attribute) if model else None) or groups.words_of(
        attribute, manifest
    )
    if known:
        return [str(word) for word in known]
    return sorted(samples[f"label_{attribute}"].dropna().astype(str).unique())


def places(column: pd.Series[Any], words: Sequence[str]) -> IntArray:
    """Place of each entry among the words, -1 for null and for anything else."""
    places = column.map({word: place for place, word in enumerate(words)})
    return np.asarray(places.astype("float64").fillna(NONE), dtype=np.int64)


def _confusion(
    attribute: str,
    words: Sequence[str],
    manifest: Manifest,
    faces: IntArray,
    truth: IntArray,
    original: IntArray,
) -> tuple[Confusion | None, str]:
    """Errors of the model: on this run's originals where people labelled them, else its card's."""
    model = manifest.attributes
    source = model.labels_from if model is not None else manifest.dataset.labels_from
    if source == "people":
        _, first = np.unique(faces, return_index=True)
        first = first[(truth[first] != NONE) & (original[first] != NONE)]
        if not len(first):
            return None, "no original has both a label and a prediction"
        found = Confusion.of_faces(faces[first], truth[first], original[first], len(words))
        return found, ""
    counts = card_counts({} if model is None else model.as_dict(), attribute, words)
    if counts is None:
        return None, "labels are not people's, and the attribute model has no held-out confusion"
    return Confusion.from_counts(counts), ""
