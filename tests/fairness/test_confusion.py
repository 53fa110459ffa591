import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from pulse_audit.fairness.confusion import Confusion, resample, tabulate, trust


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


def test_faces_carry_originals_and_outputs_together():
    # every original's answer equals its face's output: so must they in every replicate
    rng = np.random.default_rng(1)
    truth, answers = np.repeat([0, 1], 30), rng.integers(0, 2, 60)
    confusion = Confusion.of_faces(np.arange(60), truth, answers, 2)
    outputs = tabulate(np.arange(60), truth, answers, 2)
    samples = resample([outputs], confusion, 2, 200, np.random.default_rng(0))
    assert_allclose(samples.confusion, samples.observed[0, ..., :2])
    apart = resample(
        [outputs], Confusion.from_counts(confusion.counts), 2, 200, np.random.default_rng(0)
    )
    correlation = np.corrcoef(apart.confusion[:, 0, 0], apart.observed[0, :, 0, 0])[0, 1]
    assert abs(correlation) < 0.25  # standard error .07


def test_replicates_have_the_variance_of_resampled_faces():
    # 40 faces x 2 draws: the variance of the mean is that of face means, over faces
    rng = np.random.default_rng(2)
    rates = rng.beta(1, 1, 40)
    answers = (rng.random((40, 2)) < rates[:, None]).astype(int)
    faces = np.repeat(np.arange(40), 2)
    outputs = tabulate(faces, np.zeros(80), answers.ravel(), 2)
    confusion = Confusion.from_counts([[30, 10], [5, 35]])
    samples = resample([outputs], confusion, 1, 20_000, np.random.default_rng(3))
    assert samples.observed[0, :, 0, 1].var() == pytest.approx(answers.mean(1).var() / 40, rel=0.05)
    assert samples.confusion[:, 0, 0].var() == pytest.approx(0.25 * 0.75 / 40, rel=0.05)


def test_group_sizes_of_the_design_are_kept_in_every_replicate():
    # 1 face of group 0 and 3 of group 1, one of them without an original: never an empty row
    outputs = tabulate([0, 1, 2, 3], [0, 1, 1, 1], [0, 1, 0, -1], 2)
    confusion = Confusion.of_faces([0, 1, 2], [0, 1, 1], [0, 1, 0], 2)
    samples = resample([outputs], confusion, 2, 300, np.random.default_rng(0))
    assert not np.isnan(samples.confusion).any() and not np.isnan(samples.observed).any()


def test_trust_grows_with_the_root_of_the_faces():
    table = np.array([[8, 1, 1], [2, 7, 1], [1, 1, 8]])
    few = trust(Confusion.from_counts(10 * table), 4000, np.random.default_rng(0))
    many = trust(Confusion.from_counts(90 * table), 4000, np.random.default_rng(0))
    assert many / few == pytest.approx(3, rel=0.05)


def test_trust_of_two_groups_has_a_closed_form():
    # rows (a, 1-a), (1-a, a): smallest singular value 2a - 1; M* - M = (d, -d; -e, e), whose norm
    # is sqrt(2 (d^2 + e^2)), d and e normal with variance a (1-a) / n: median sqrt(4 ln 2 var)
    confusion = Confusion.from_counts([[8000, 2000], [2000, 8000]])
    expected = 0.6 / np.sqrt(4 * np.log(2) * 0.16 / 10_000)
    assert trust(confusion, 10_000, np.random.default_rng(1)) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("counts", [[[5, 5], [5, 5]], [[9, 1], [0, 0]]])
def test_a_singular_or_incomplete_matrix_has_no_trust(counts):
    assert trust(Confusion.from_counts(counts), 200, np.random.default_rng(0)) == 0.0


def test_one_face_a_group_does_not_pass_for_perfectly_known():
    assert trust(Confusion.from_counts(np.eye(7)), 2000, np.random.default_rng(0)) < 2
