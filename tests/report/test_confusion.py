import pandas as pd

from pulse_audit import store
from pulse_audit.report.content import confusion_tables

MODEL = {
    "labels_from": "people",
    "vocabulary": {"race": ["A", "B"], "age": ["old", "young"]},
    "card": {
        "vocabulary": {"race": ["B", "A"]},
        "resolution": 64,
        "confusion": {"race": [[9, 1], [2, 8]], "race6": [[1, 0], [0, 1]]},
    },
}
#: One row a draw; face 1 has two draws and counts once.
SAMPLES = pd.DataFrame(
    {
        "face_id": ["1", "1", "2", "3", "4"],
        "label_race": ["A", "A", "A", "B", None],
        "hr_race": ["A", "A", "B", "B", "B"],
        "hr_age": ["old"] * 5,
    }
)


def manifest(attributes=None):
    return store.check_manifest(
        {
            "schema": 1,
            "spec": {},
            "dataset": {"vocabulary": {}},
            "arms": {},
            "faces": [],
            "units": [],
            "attributes": attributes,
        }
    )


def test_the_runs_own_matrix_counts_faces_and_stands_beside_the_cards():
    own, card = confusion_tables(manifest(MODEL), SAMPLES)
    assert (own.words, own.counts, own.right) == (["A", "B"], [[1, 1], [0, 1]], ["50 %", "100 %"])
    assert (card.words, card.counts, card.right) == (["B", "A"], [[9, 1], [2, 8]], ["90 %", "80 %"])
    assert "originals" in own.title and "held-out faces at 64 px" in card.title


def test_where_a_model_gave_the_labels_only_the_cards_is_shown():
    (card,) = confusion_tables(manifest({**MODEL, "labels_from": "model"}), SAMPLES)
    assert "held-out" in card.title


def test_without_an_attribute_model_there_is_none():
    assert confusion_tables(manifest(None), SAMPLES) == []
    assert confusion_tables(manifest(), SAMPLES) == []


def test_a_group_without_faces_has_no_share():
    (own, _) = confusion_tables(manifest(MODEL), SAMPLES[:2])
    assert own.right == ["100 %", "–"]
