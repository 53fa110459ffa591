"""The published tests, from the counts by hand, and the right ones beside them."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency, chisquare

from pulse_audit.fairness.published_tests import published_p_values
from pulse_audit.fairness.shift import Draws
from pulse_audit.types import Unavailable

TRUTH = np.repeat([0, 1, 2], [30, 30, 40])
#: Retained: 20, 15, 36 of the groups' faces; one output without a group.
PREDICTED = np.concatenate(
    [
        np.repeat([0, 1, 2], [20, 6, 4]),
        np.repeat([0, 1, -1], [14, 15, 1]),
        np.repeat([0, 2], [4, 36]),
    ]
)


def p_values(faces=None, truth=TRUTH, predicted=PREDICTED, k=3):
    faces = np.arange(len(truth)) if faces is None else faces
    return published_p_values(Draws(faces, truth, predicted, k))


def test_p_values_are_those_of_the_counts() -> None:
    found = {name: p.value for name, p in p_values().items()}
    outputs, kept, sizes = np.array([38, 21, 40]), np.array([20, 15, 36]), np.array([30, 30, 40])
    uniform = [100 / 3] * 3
    recall = kept / sizes
    expected = {
        "pr_p_published": chi2_contingency([outputs, uniform])[1],
        "pr_p": chisquare(outputs, sizes / 100 * outputs.sum()).pvalue,
        "rdp_p_published": chi2_contingency([100 * recall / recall.sum(), uniform])[1],
        "rdp_p": chi2_contingency([kept, sizes - kept])[1],
    }
    assert found == pytest.approx(expected)


def test_only_the_first_draw_of_a_face_counts_and_empty_groups_are_left_out() -> None:
    doubled = p_values(
        np.repeat(np.arange(100), 2),
        np.repeat(TRUTH, 2),
        np.stack([PREDICTED, np.roll(PREDICTED, 9)], axis=1).ravel(),
        4,
    )
    assert {n: p.value for n, p in doubled.items()} == pytest.approx(
        {n: p.value for n, p in p_values().items()}
    )


def test_where_nothing_varies_nothing_is_rejected_or_tested() -> None:
    perfect = p_values(predicted=TRUTH)
    assert perfect["pr_p"].value == pytest.approx(1) and perfect["rdp_p"].value == 1
    lost = p_values(predicted=(TRUTH + 1) % 3)
    assert isinstance(lost["rdp_p_published"], Unavailable) and lost["rdp_p"].value == 1
    assert isinstance(p_values(predicted=np.full(100, -1))["pr_p"], Unavailable)
