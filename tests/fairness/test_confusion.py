import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pulse_audit.fairness.confusion import Confusion, tabulate, told_apart


def test_one_prediction_a_face_is_counted_by_label_and_answer():
    confusion = Confusion.of_faces([5, 6, 7, 8], [0, 0, 1, 1], [0, 1, 1, -1], 2)
    assert_array_equal(confusion.counts, [[1, 1], [0, 1]])
    assert_allclose(confusion.shares, [[0.5, 0.5], [0, 1]])
    assert_array_equal(confusion.faces, [5, 6, 7])


def test_a_group_without_a_face_has_no_shares():
    shares = Confusion.from_counts([[3, 1], [0, 0]]).shares
    assert_allclose(shares, [[0.75, 0.25], [np.nan, np.nan]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 0], [0, 0], [0, 0]), "occurs twice"),
        (([0, 1], [0, 2], [0, 0]), "truth must lie in 0 to 1"),
        (([0, 1], [0, 1], [0, -2]), "predicted must lie in -1 to 1"),
        (([0, 1], [0, 1], [0]), "one number a draw"),
        (([0.5, 1], [0, 1], [0, 1]), "faces must be whole numbers"),
    ],
)
def test_unusable_originals_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Confusion.of_faces(*arguments, 2)


@pytest.mark.parametrize("counts", [[[1, 2]], [[1, -1], [0, 1]]])
def test_unusable_counts_are_refused(counts):
    with pytest.raises(ValueError, match="square table"):
        Confusion.from_counts(counts)


def test_draws_are_tabulated_by_face_with_those_without_prediction_last():
    outputs = tabulate([9, 4, 9, 4], [1, 0, 1, 0], [1, -1, 1, 0], 2)
    assert_array_equal(outputs.faces, [4, 9])
    assert_array_equal(outputs.counts, [[1, 0, 1], [0, 2, 0]])
    assert_array_equal(outputs.row, [0, 1])


def test_a_face_with_two_labels_is_refused():
    with pytest.raises(ValueError, match="draws of one face carry different labels"):
        tabulate([0, 0], [0, 1], [0, 0], 2)


def test_counts_of_run_and_card_are_pooled_and_the_source_is_named():
    run = Confusion.of_faces([5, 6, 7], [0, 0, 1], [0, 1, 1], 2)
    card = Confusion.from_counts([[90, 10], [20, 80]])
    both = run.pooled(card.counts)
    assert_array_equal(both.counts, [[91, 11], [20, 81]])
    assert [c.source for c in (run, card, both)] == ["run", "card", "run and card"]
    assert_array_equal(both.faces, [5, 6, 7])


MATRIX = np.full((7, 7), 0.37 / 6) + np.eye(7) * (0.63 - 0.37 / 6)


def tables(rng, matrix, faces):
    return np.stack([rng.multinomial(faces, row) for row in matrix])


def test_a_run_of_the_card_s_model_is_told_apart_in_5_percent():
    rng = np.random.default_rng(1)
    found = [
        told_apart(tables(rng, MATRIX, 20), tables(rng, MATRIX, 572), seed=seed)
        for seed in range(400)
    ]
    assert np.mean(found) <= 0.075  # 5 % at most; standard error 1.1 points


def test_a_loss_of_accuracy_and_a_single_other_row_are_noticed():
    rng = np.random.default_rng(2)
    worse = MATRIX - 0.15 * np.eye(7) + 0.15 / 6 * (1 - np.eye(7))
    row = MATRIX.copy()
    row[3] = [0.05, 0.05, 0.05, 0.2, 0.55, 0.05, 0.05]
    for other, faces in ((worse, 20), (row, 40)):
        found = [
            told_apart(tables(rng, other, faces), tables(rng, MATRIX, 572), seed=seed)
            for seed in range(40)
        ]
        assert np.mean(found) > 0.8


def test_groups_without_a_face_in_the_run_are_not_compared():
    assert not told_apart([[9, 1], [0, 0]], [[90, 10], [30, 70]], seed=0)
    assert told_apart([[1, 9], [0, 0]], [[90, 10], [30, 70]], seed=0)
