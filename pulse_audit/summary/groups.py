"""Words of groups, the group of every draw, and subsets of draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import IntArray
from pulse_audit.store import Manifest
from pulse_audit.summary.schema import SubsetKey
from pulse_audit.types import InputError

JOIN = " × "
UNLABELLED = "no label"
UNMEASURED = "not measured"
#: Columns that identify a draw.
DRAW_KEYS = ["arm", "condition", "scale", "face_id", "draw"]
#: Number of a group that is not known or does not exist.
NONE = -1

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
#: Thirds of the Monk scale, first and last step.
MONK_CLASSES = ((1, 3), (4, 6), (7, 10))


def ita_class(angle: float) -> str:
    """Class of an individual typology angle in degrees; NaN is "not measured"."""
    if np.isnan(angle):
        return UNMEASURED
    return next(name for low, name in ITA_CLASSES if angle > low or low == -np.inf)


def monk_class(step: float) -> str:
    """Third of the Monk scale (1-3, 4-6, 7-10) of a step; NaN is "not measured"."""
    return next((f"{a}-{b}" for a, b in MONK_CLASSES if a <= step <= b), UNMEASURED)


#: Groupings that are measured on the image and not labelled: column of the samples without its
#: side, and the class of a measurement. Their errors are not known.
TONES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "skin_tone": ("ita", ita_class),
    "monk": ("monk", monk_class),
}


def vocabulary(column: str, manifest: Manifest) -> list[str]:
    """Return the groups of a column in their order; empty where any text may occur."""
    if column == "skin_tone":
        return [name for _, name in ITA_CLASSES]
    if column == "monk":
        return [f"{a}-{b}" for a, b in MONK_CLASSES]
    return manifest.dataset.vocabulary.get(column, [])


def assign(samples: pd.DataFrame, columns: Sequence[str]) -> pd.Series[str]:
    """Group of every draw: the groups in each column, joined by " × ".

    Raises
    ------
    InputError
        If the samples have no such label.
    """
    parts: list[pd.Series[str]] = []
    for column in columns:
        label = f"label_{column}"
        # skin tone is that of the original, whatever the output shows
        if column in TONES:
            quantity, classify = TONES[column]
            parts.append(samples[f"hr_{quantity}"].astype("float64").map(classify))
        elif label in samples:
            # words are spelled out once, not once a row; that of a null is the last
            codes, words = pd.factorize(samples[label])
            texts = pd.Series([*map(str, words), UNLABELLED], dtype=str)
            parts.append(texts.iloc[codes].set_axis(samples.index))
        else:
            labelled = [c[6:] for c in map(str, samples) if c.startswith("label_")]
            names = ", ".join([*labelled, *TONES])
            raise InputError(f"group_by {column}: not in the samples; known: {names}")
    return reduce(lambda left, right: left + JOIN + right, parts)


def ordered(groups: pd.Series[str], columns: Sequence[str], manifest: Manifest) -> list[str]:
    """Return the groups that occur, in the order of the data set's vocabulary (else by name)."""
    # rank of each word in its column; words outside the vocabulary come last, by name
    ranks = [
        {word: rank for rank, word in enumerate(vocabulary(column, manifest))} for column in columns
    ]

    def key(group: str) -> list[tuple[int, str]]:
        words = group.split(JOIN) if len(ranks) > 1 else [group]
        return [(rank.get(w, len(rank)), w) for rank, w in zip(ranks, words, strict=False)]

    return sorted(groups.unique(), key=key)


@dataclass(frozen=True, eq=False)
class Subset:
    """The draws of one arm under one condition and scale.

    Parameters
    ----------
    key : SubsetKey
    samples : DataFrame, (n,)
    faces : ndarray of int, (n,)
        Face number of each draw, the same for all arms.
    rows : ndarray of int, (n,)
        Positions of the draws in the samples of the run.
    """

    key: SubsetKey
    samples: pd.DataFrame
    faces: IntArray
    rows: IntArray

    def seed(self, run_seed: int, *purpose: str) -> int:
        """Seed of a resampling; the same for all arms, which so share their random numbers."""
        return fingerprint(run_seed, self.key.condition, self.key.scale, *purpose)


def make_subsets(manifest: Manifest, samples: pd.DataFrame) -> Iterator[Subset]:
    """Split the samples by condition, scale and arm, in the order of the manifest."""

    def in_order(column: str, planned: Any) -> list[Any]:
        present = list(pd.unique(samples[column]))
        first = [value for value in planned if value in present]
        return first + sorted(value for value in present if value not in first)

    faces = face_numbers(samples)
    for condition in in_order("condition", manifest.spec.conditions):
        for scale in in_order("scale", manifest.spec.scales):
            for arm in in_order("arm", manifest.arms):
                chosen = (
                    (samples["arm"] == arm)
                    & (samples["condition"] == condition)
                    & (samples["scale"] == scale)
                )
                rows = np.flatnonzero(chosen)
                if len(rows):
                    key = SubsetKey(arm, condition, int(scale))
                    # Sorted draws are a slice of the samples, which is no copy of them.
                    first, end = int(rows[0]), int(rows[-1]) + 1
                    part = slice(first, end) if end - first == len(rows) else rows
                    yield Subset(key, samples.iloc[part], faces[part], rows)


def face_numbers(samples: pd.DataFrame) -> IntArray:
    """Give each row the number of its face, the same for all arms."""
    return np.asarray(pd.factorize(samples["face_id"], sort=True)[0], dtype=np.int64)
