"""Counts of an attribute model's card, in the words of a run."""

from pulse_audit.store.manifest import AttributesEntry
from pulse_audit.summary.groups import card_counts

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
