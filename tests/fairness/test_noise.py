"""Joint sampling errors: those of resampled faces, in a closed form."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from pulse_audit.fairness.confusion import Confusion, tabulate
from pulse_audit.fairness.noise import ADDED, sampling_noise

CARD = Confusion.from_counts([[30, 10], [5, 35]])


def rng(seed=0):
    return np.random.default_rng(seed)


def test_originals_and_outputs_of_a_face_err_together():
    # every original's answer equals its face's output: all but the added faces' errors are equal
    truth, answers = np.repeat([0, 1], 300), rng(1).integers(0, 2, 600)
    confusion = Confusion.of_faces(np.arange(600), truth, answers, 2)
    outputs = tabulate(np.arange(600), truth, answers, 2)
    noise = sampling_noise([outputs], confusion, 2, 4000, rng())
    assert noise.likeness == pytest.approx(1.0)
    together = np.corrcoef(noise.originals[:, 0, 0], noise.outputs[0, :, 0, 0])[0, 1]
    assert together > 0.98
    apart = sampling_noise([outputs], CARD, 2, 4000, rng())
    assert apart.likeness == 0
    assert (apart.originals == 0).all()
    assert abs(np.corrcoef(apart.card[:, 0, 0], apart.outputs[0, :, 0, 0])[0, 1]) < 0.06


def test_the_variance_is_that_of_face_means_and_of_two_added_faces():
    # 40 faces x 2 draws of one group
    rates = rng(2).beta(1, 1, 40)
    answers = (rng(3).random((40, 2)) < rates[:, None]).astype(int)
    faces = np.repeat(np.arange(40), 2)
    outputs = tabulate(faces, np.zeros(80), answers.ravel(), 2)
    noise = sampling_noise([outputs], CARD, 1, 40_000, rng())
    share, even = answers.mean(), answers.mean() / 2 + 0.25
    spread = ADDED * (even * (1 - even) + (even - share) ** 2) / 40 / 39
    expected = answers.mean(1).var(ddof=1) / 40 + spread
    assert noise.outputs[0, :, 0, 1].var() == pytest.approx(expected, rel=0.03)
    assert noise.card[:, 0, 0].var() == pytest.approx(30.5 * 10.5 / 41**2 / 40, rel=0.03)


def test_groups_whose_faces_all_agree_still_have_spread():
    # also where no output shows a group at all
    outputs = tabulate(np.arange(20), np.repeat([0, 1], 10), np.full(20, -1), 2)
    noise = sampling_noise([outputs], CARD, 2, 2000, rng())
    assert (noise.outputs[0].std(axis=0) > 0.05).all()


def test_draws_without_a_prediction_are_part_of_the_shares():
    # 2 draws a face, of which one in two is never classified: shares are half, and so are errors
    answers = rng(4).integers(0, 2, 400)
    faces, truth = np.repeat(np.arange(400), 2), np.zeros(800)
    half = np.column_stack([answers, np.full(400, -1)]).ravel()
    noise = [
        sampling_noise([tabulate(faces, truth, given, 2)], CARD, 1, 8000, rng())
        for given in (np.repeat(answers, 2), half)
    ]
    whole, part = (n.outputs[0, :, 0, 0].std() for n in noise)
    assert part == pytest.approx(whole / 2, rel=0.05)


def test_a_face_with_two_labels_is_refused():
    confusion = Confusion.of_faces([0, 1], [0, 1], [0, 1], 2)
    with pytest.raises(ValueError, match="another among the outputs"):
        sampling_noise([tabulate([0], [1], [0], 2)], confusion, 2, 100, rng())


def test_faces_of_several_arms_share_their_errors():
    outputs = tabulate(np.arange(60), np.repeat([0, 1], 30), rng(5).integers(0, 2, 60), 2)
    noise = sampling_noise([outputs, outputs], CARD, 2, 2000, rng())
    assert_allclose(noise.outputs[0].std(axis=0), noise.outputs[1].std(axis=0), rtol=0.1)
    assert np.corrcoef(noise.outputs[0, :, 1, 1], noise.outputs[1, :, 1, 1])[0, 1] > 0.9
