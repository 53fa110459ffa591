"""Counts of an attribute model's card, in the words of a run."""

import numpy as np

from pulse_audit.store.manifest import AttributesEntry
from pulse_audit.summary.attributes import attribute_labels, card_counts
from pulse_audit.summary.groups import face_numbers

MODEL = AttributesEntry(
    vocabulary={},
    predicted_as={"race": "race", "race6": "race"},
    card={
        "vocabulary": {"race": ["b", "A", "C"]},
        "confusion": {"race": [[5, 1, 0], [2, 7, 0], [0, 0, 9]], "coarse": [[8, 2], [1, 9]]},
    },
)


def test_the_cards_counts_come_in_the_order_of_the_words():
    assert card_counts(MODEL, "race", ["A", "B", "C"]) == [[7, 2, 0], [1, 5, 0], [0, 0, 9]]
    assert card_counts(MODEL, "race", ["A", "B"]) is None


def test_a_derived_grouping_has_counts_of_its_own_or_none():
    assert card_counts(MODEL, "coarse", ["AB", "C"]) == [[8, 2], [1, 9]]
    assert card_counts(MODEL, "coarse", ["A", "B", "C"]) is None
    assert card_counts(MODEL, "race6", ["AB", "C"]) is None


def test_counts_of_another_shape_than_the_words_count_as_none():
    card = {"vocabulary": {"race": ["A", "B"]}, "confusion": {"race": [[5, 1], [2]]}}
    model = AttributesEntry(card=card, vocabulary={"race": ["A", "B"]})
    assert card_counts(model, "race", ["A", "B"]) is None


def test_counts_that_planning_put_into_the_runs_words_come_first():
    counts = [[6, 1], [0, 3]]
    model = AttributesEntry(vocabulary={}, confusion={"race": counts}, card=MODEL.card)
    assert card_counts(model, "race", ["AC", "b"]) == counts
    assert card_counts(model, "race", ["A", "b", "C"]) is None


def test_a_group_without_a_labelled_original_has_the_cards_errors(
    apparent_manifest, apparent_samples
):
    # The card is of a model that does not tell groups apart: no test takes it for the run's.
    words, samples = ["White", "Black", "Indian", "Latino"], apparent_samples(40)
    model = {
        "vocabulary": {"race": words},
        "labels_from": "people",
        "confusion": {"race": [[50, 50, 50, 50]] * 3 + [[1, 2, 3, 94]]},
    }
    faces = face_numbers(samples)
    labels = attribute_labels("race", apparent_manifest(attributes=model), samples, faces)
    first = samples.drop_duplicates("face_id")
    own = first.groupby(["label_race", "hr_race"]).size().unstack(fill_value=0)
    own = own.loc[words[:3], words[:3]].to_numpy()
    assert labels.confusion.source == "run and card"
    np.testing.assert_array_equal(labels.confusion.counts[:3, :3], own)
    np.testing.assert_array_equal(labels.confusion.counts[3], [1, 2, 3, 94])
    assert labels.confusion.counts[:3, 3].tolist() == [0, 0, 0]
