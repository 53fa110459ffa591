"""Attributes that outputs have too: labels beside predictions, the model's errors, and groupings.

A grouping by a label that an attribute model predicts compares that label with the output's; by
skin tone or Monk class, the class measured on the output; an intersection, all of its columns that
outputs have, so that a draw is retained where every one of them is kept. Any other grouping, and
the whole sample, compares what the run's first grouping with such a column does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.fairness.confusion import Confusion, told_apart
from pulse_audit.fairness.correction import LabelsFrom
from pulse_audit.fairness.shift import Draws
from pulse_audit.metrics.registry import feasible
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import IntArray
from pulse_audit.store import Manifest
from pulse_audit.store.manifest import AttributesEntry
from pulse_audit.summary.groups import (
    JOIN,
    NONE,
    TONES,
    Subset,
    assign,
    face_numbers,
    ordered,
    vocabulary,
)
from pulse_audit.summary.schema import ALL, Detail
from pulse_audit.types import Status, Unavailable

#: Most groups that are compared from group to group, and corrected.
MOST_GROUPS = 30
#: Share of originals whose prediction is their label, from which a model's labels are its own.
SAME_MODEL = 0.95
#: What uncorrected retention estimates where the labels are a model's.
AGREEMENT = "agreement with the model's label of the original"


@dataclass(frozen=True, eq=False)
class AttributeLabels:
    """Groups of an attribute, or of an intersection, for every row of the samples; -1: none.

    Parameters
    ----------
    attribute : str
        Those of an intersection are joined by commas.
    groups : sequence of str
        Names of the groups, in order.
    truth, original, output : ndarray of int, (rows,)
        Group of the face, as labelled; apparent group of the original, and of the output. Draws
        that failed or show no face have no output group.
    confusion : Confusion or Unavailable
        Errors of the attribute model: of this run's originals, of its card, or of both.
    labels_from : str
        ``people``, or ``model`` where the labels are the attribute model's own predictions.
    """

    attribute: str
    groups: Sequence[str]
    truth: IntArray
    original: IntArray
    output: IntArray
    confusion: Confusion | Unavailable
    labels_from: LabelsFrom = "people"

    @property
    def detail(self) -> Detail:
        """The attribute, and the estimand where it is not retention of what people see."""
        detail: Detail = {"attribute": self.attribute}
        if self.labels_from == "model":
            detail["estimand"] = AGREEMENT
        return detail

    def has_baseline(self, rows: IntArray) -> bool:
        """Whether the originals of these rows have predictions that may differ from the labels.

        Skin tone is measured alike on both sides, so that its labels are the measurements.
        """
        measured = set(self.attribute.split(",")) <= set(TONES)
        return not measured and bool((self.original[rows] != NONE).any())

    def draws(self, rows: IntArray, faces: IntArray) -> Draws | None:
        """Draws of these rows whose face has a group; None where there are none."""
        labelled = self.truth[rows] != NONE
        if not labelled.any():
            return None
        rows = rows[labelled]
        return Draws(faces[labelled], self.truth[rows], self.output[rows], len(self.groups))


@dataclass(frozen=True, eq=False)
class Grouping:
    """A partition of the draws, and the attribute that it compares with the outputs'.

    Parameters
    ----------
    name : str
        Its columns joined by commas, or ``all``.
    groups : sequence of str
        Names of the groups, in order.
    of_draw : ndarray of int, (rows,)
        Number of the group of each draw.
    labels : AttributeLabels or None
        None where nothing is predicted.
    """

    name: str
    groups: Sequence[str]
    of_draw: IntArray
    labels: AttributeLabels | None = None

    @property
    def by_attribute(self) -> bool:
        """Whether outputs have its groups too, and few enough to compare each with each."""
        return (
            self.labels is not None
            and self.labels.attribute == self.name
            and len(self.labels.groups) <= MOST_GROUPS
        )


def make_groupings(manifest: Manifest, samples: pd.DataFrame) -> list[Grouping]:
    """Make the whole sample, then every grouping of the run, each with its attribute."""
    faces, by_column = face_numbers(samples), manifest.spec.groupings
    # The attributes of a grouping are the columns that faces and outputs both have groups of.
    compared: list[tuple[str, ...]] = []
    for columns in by_column:
        needed = {
            column: (f"hr_{TONES[column][0]}", f"sr_{TONES[column][0]}")
            if column in TONES
            else (f"label_{column}", f"sr_{column}")
            for column in columns
        }
        compared.append(
            tuple(
                column
                for column, names in needed.items()
                if all(name in samples and samples[name].notna().any() for name in names)
            )
        )
    single = {
        column: attribute_labels(column, manifest, samples, faces)
        for column in dict.fromkeys(column for columns in compared for column in columns)
    }
    labels = {
        columns: intersection([single[column] for column in columns], faces)
        for columns in dict.fromkeys(compared)
        if columns
    }
    # Groupings without such a column compare what the first grouping with one does.
    fallback = next(iter(labels.values()), None)
    # The whole sample is a grouping of one group.
    groupings = [Grouping(ALL, [ALL], np.zeros(len(samples), dtype=np.int64), fallback)]
    for columns, attributes in zip(by_column, compared, strict=True):
        of_draw = assign(samples, columns)
        groups = ordered(of_draw, columns, manifest)
        of_rows = group_numbers(of_draw, groups)
        grouping = Grouping(",".join(columns), groups, of_rows, labels.get(attributes, fallback))
        groupings.append(grouping)
    return groupings


def intersection(parts: Sequence[AttributeLabels], faces: IntArray) -> AttributeLabels:
    """Combine attributes: a group for every combination, and none where one of them has none.

    The model's errors in the attributes of a face need not be independent, so the confusion of the
    combinations is counted on the run's own originals; from confusions of the single attributes,
    as on a card, it does not follow.
    """
    if len(parts) == 1:
        return parts[0]

    def combined(sides: Sequence[IntArray]) -> IntArray:
        # number of the combination, the last attribute running fastest; (rows,)
        number = np.zeros_like(sides[0])
        for part, side in zip(parts, sides, strict=True):
            number = number * len(part.groups) + side
        known = np.all([side != NONE for side in sides], axis=0)
        return np.where(known, number, NONE)

    groups = [JOIN.join(words) for words in product(*(part.groups for part in parts))]
    truth, original, output = (
        combined([getattr(part, side) for part in parts])
        for side in ("truth", "original", "output")
    )
    confusion: Confusion | Unavailable
    reasons = [p.confusion.reason for p in parts if isinstance(p.confusion, Unavailable)]
    if reasons:
        confusion = Unavailable(reasons[0])
    elif any(p.confusion.faces is None for p in parts if isinstance(p.confusion, Confusion)):
        confusion = Unavailable(
            "the attribute model's card has the errors of single attributes, from which those of "
            "their intersections do not follow"
        )
    elif len(groups) > MOST_GROUPS:
        confusion = Unavailable(f"at most {MOST_GROUPS} groups are corrected, not {len(groups)}")
    else:
        confusion = own_confusion(faces, truth, original, len(groups))
    attribute = ",".join(part.attribute for part in parts)
    labels_from = parts[0].labels_from
    return AttributeLabels(attribute, groups, truth, original, output, confusion, labels_from)


def own_confusion(
    faces: IntArray, truth: IntArray, original: IntArray, k: int
) -> Confusion | Unavailable:
    """Errors of the attribute model on this run's originals, by the labels of these."""
    # one row per face, with both a label and a prediction
    _, first = np.unique(faces, return_index=True)
    first = first[(truth[first] != NONE) & (original[first] != NONE)]
    if not len(first):
        return Unavailable("no original has both a label and a prediction")
    return Confusion.of_faces(faces[first], truth[first], original[first], k)


def attribute_labels(
    attribute: str, manifest: Manifest, samples: pd.DataFrame, faces: IntArray
) -> AttributeLabels:
    """Look up the groups of faces, originals and outputs in an attribute that outputs have."""
    # What a model says of an output that failed or shows no face is not a group.
    failed = samples["status"].isin([str(Status.ERROR), str(Status.NO_FACE)])
    if attribute in TONES:
        quantity, classify = TONES[attribute]
        groups = vocabulary(attribute, manifest)
        truth = group_numbers(samples[f"hr_{quantity}"].astype("float64").map(classify), groups)
        output = group_numbers(samples[f"sr_{quantity}"].astype("float64").map(classify), groups)
        reason = "skin tone is measured on originals and outputs alike; its errors are not known"
        output = np.where(failed, NONE, output)
        return AttributeLabels(attribute, groups, truth, truth, output, Unavailable(reason))
    # Groups as the model names them, else as the data set does, else the labels that occur.
    model = manifest.attributes
    predicted = model.vocabulary.get(attribute) if model else None
    groups = predicted or vocabulary(attribute, manifest)
    groups = groups or sorted(samples[f"label_{attribute}"].dropna().astype(str).unique())
    truth = group_numbers(samples[f"label_{attribute}"], groups)
    output = np.where(failed, NONE, group_numbers(samples[f"sr_{attribute}"], groups))
    original = group_numbers(samples.get(f"hr_{attribute}", pd.Series(None, samples.index)), groups)
    # Errors of the model: those on this run's originals and those on its card's faces together, the
    # former alone where a test tells them apart, as far as there are originals.
    by_people = (manifest.dataset if model is None else model).labels_from == "people"
    counts = None if model is None else card_counts(model, attribute, groups)
    own = own_confusion(faces, truth, original, len(groups))
    confusion: Confusion | Unavailable
    if by_people:
        confusion = own
        if counts is not None and isinstance(own, Unavailable):
            confusion = Confusion.from_counts(counts)
        elif counts is not None and isinstance(own, Confusion):
            seed = fingerprint(manifest.spec.seed, "card", attribute)
            unseen = own.counts.sum(axis=1) == 0
            if not told_apart(own.counts, counts, seed=seed):
                confusion = own.pooled(counts)
            # Groups that the model predicts and no original is labelled with are the card's.
            elif unseen.any():
                confusion = own.pooled(np.where(unseen[:, None], counts, 0))
    # Labels that a model gave cannot measure its errors. They err as predictions of the originals
    # do where they are these predictions; the errors of another model are not known.
    elif counts is None:
        reason = "labels are not people's, and the attribute model has no held-out confusion"
        confusion = Unavailable(reason)
    elif isinstance(own, Confusion) and np.trace(own.counts) >= SAME_MODEL * own.counts.sum():
        confusion = Confusion.from_counts(counts)
    else:
        confusion = Unavailable("labels are another model's than the outputs', of unknown errors")
    labels_from: LabelsFrom = "people" if by_people else "model"
    return AttributeLabels(attribute, groups, truth, original, output, confusion, labels_from)


def group_numbers(column: pd.Series[Any], groups: Sequence[str]) -> IntArray:
    """Look up the number of each entry's group; -1 for null and for any other text."""
    # words are looked up once, not once a row; the number of a null is the last
    codes, words = pd.factorize(column)
    number_of = {group: number for number, group in enumerate(groups)}
    numbers = np.array([*(number_of.get(word, NONE) for word in words), NONE], dtype=np.int64)
    return np.asarray(numbers[codes], dtype=np.int64)


def card_counts(
    model: AttributesEntry, attribute: str, words: Sequence[str]
) -> list[list[int]] | None:
    """Held-out confusion of an attribute model's card, in the order of the run's words.

    Parameters
    ----------
    model : AttributesEntry
    attribute : str
        A predicted column; a derived grouping has to be on the card under its own name, in the
        order of its words.
    words : sequence of str

    Returns
    -------
    list of list of int or None
        Counts, row the true class, column the predicted one; None where the card has none in
        these words.
    """
    if attribute in model.confusion:
        counts = model.confusion[attribute]
        return counts if [len(row) for row in counts] == [len(words)] * len(words) else None
    confusion, vocabularies = model.card.confusion, model.card.vocabulary
    # A derived grouping, such as coarse classes, has counts and no words of its own.
    if attribute in confusion and attribute not in vocabularies:
        counts = confusion[attribute]
        fits = [len(row) for row in counts] == [len(words)] * len(words)
        return counts if fits else None
    predicted_as = model.predicted_as.get(attribute, attribute)
    counts = confusion.get(predicted_as, [])
    # The card's words may differ from the run's in case and order, and in nothing else.
    of_card = [word.casefold() for word in vocabularies.get(predicted_as, ())]
    wanted = [word.casefold() for word in words]
    if not counts or sorted(of_card) != sorted(wanted):
        return None
    if [len(row) for row in counts] != [len(wanted)] * len(wanted):
        return None
    # rows and columns of the card's matrix in the run's order
    order = [of_card.index(word) for word in wanted]
    return [[counts[i][j] for j in order] for i in order]


def retention_columns(subset: Subset, labels: AttributeLabels) -> pd.DataFrame:
    """Columns of the metrics of apparent groups: 0, 1, or NaN where a draw does not count."""
    # (n,) each; an output without a group is not retained, and neither is it converted
    truth, output = labels.truth[subset.rows], labels.output[subset.rows]
    retained = np.where(truth == NONE, np.nan, (truth == output).astype(np.float64))
    converted = np.where(truth == NONE, np.nan, (truth != output) & (output != NONE))
    return pd.DataFrame(
        {
            "retention": retained,
            "retention_feasible": np.where(feasible(subset.samples) > 0, retained, np.nan),
            "retention_classified": np.where(output == NONE, np.nan, retained),
            "conversion": converted.astype(np.float64),
        }
    )
