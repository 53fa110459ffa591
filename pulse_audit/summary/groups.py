"""Groups of faces: label columns, measured skin tone, and intersections."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pandas as pd

from pulse_audit.store import Manifest
from pulse_audit.types import InputError

JOIN = " × "
UNLABELLED = "no label"
UNMEASURED = "not measured"

#: Individual typology angle in degrees: lower ends (exclusive) of the classes, lightest first.
#: Chardon et al. (1991); Del Bino and Bernerd (2013).
ITA_CLASSES = (
    (55.0, "very light"),
    (41.0, "light"),
    (28.0, "intermediate"),
    (10.0, "tan"),
    (-30.0, "brown"),
    (-np.inf, "dark"),
)
MONK_CLASSES = ((1, 3), (4, 6), (7, 10))


def groupings(manifest: Manifest) -> list[list[str]]:
    """Columns of each grouping of the run."""
    return manifest.spec.groupings


def assign(samples: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Group of every draw: the columns' groups joined by " × ".

    Raises
    ------
    InputError
        If the samples have no such label.
    """
    parts = [_single(samples, column) for column in columns]
    return reduce(lambda left, right: left + JOIN + right, parts)


def ordered(groups: pd.Series[str], columns: Sequence[str], manifest: Manifest) -> list[str]:
    """Return the groups that occur, in the order of the data set's vocabulary (else by name)."""
    ranks = [_rank(column, manifest) for column in columns]

    def key(group: str) -> list[tuple[int, str]]:
        words = group.split(JOIN) if len(ranks) > 1 else [group]
        return [(rank.get(w, len(rank)), w) for rank, w in zip(ranks, words, strict=False)]

    return sorted(groups.unique(), key=key)


def ita_class(angle: float) -> str:
    """Class of an individual typology angle in degrees; NaN is "not measured"."""
    if np.isnan(angle):
        return UNMEASURED
    return next(name for low, name in ITA_CLASSES if angle > low or low == -np.inf)


def monk_class(step: float) -> str:
    """Third of the Monk scale (1-3, 4-6, 7-10) of a step; NaN is "not measured"."""
    return next((f"{a}-{b}" for a, b in MONK_CLASSES if a <= step <= b), UNMEASURED)


def _single(samples: pd.DataFrame, column: str) -> pd.Series[str]:
    if column == "skin_tone":
        return samples["hr_ita"].astype("float64").map(ita_class)
    if column == "monk":
        return samples["hr_monk"].astype("float64").map(monk_class)
    label = f"label_{column}"
    if label not in samples:
        known = ", ".join(c[6:] for c in map(str, samples) if c.startswith("label_"))
        raise InputError(f"group_by {column}: not in the samples; known: {known}, skin_tone, monk")
    return samples[label].astype("object").where(samples[label].notna(), UNLABELLED).astype(str)


def words_of(column: str, manifest: Manifest) -> list[str]:
    """Return the groups of a column in their order; none where the vocabulary is open."""
    if column == "skin_tone":
        return [name for _, name in ITA_CLASSES]
    if column == "monk":
        return [f"{a}-{b}" for a, b in MONK_CLASSES]
    return manifest.dataset.vocabulary.get(column, [])


def _rank(column: str, manifest: Manifest) -> dict[str, int]:
    return {word: rank for rank, word in enumerate(words_of(column, manifest))}
