"""Simulated hand labels: a known drift comes back, and intervals contain it."""

import numpy as np
import pytest

from pulse_audit.calibration import hand
from pulse_audit.calibration.hand import Situation


def test_the_planted_drift_is_recovered_in_the_worst_group_and_in_no_other() -> None:
    found = hand.labelled(np.random.default_rng(0), Situation(3000, 2, 50_000, -0.2))
    values = [estimate.value for estimate in found.drift]
    expected = [-0.2 if group == hand.WORST else 0.0 for group in range(hand.GROUPS)]
    np.testing.assert_allclose(values, expected, atol=0.03)
    assert found.largest.low < 0.2 < found.largest.high


# 40 audits: the worst of 7 groups is above 82 % with a coverage of 95 % in each
@pytest.mark.parametrize("of", ["accuracy", "drift", "largest drift"])
def test_intervals_cover(of: str) -> None:
    found = hand.coverage(
        np.random.default_rng(1), 40, situation=Situation(30, 2, 572, -0.2), of=of
    )
    assert found.value >= 0.82 and 0 < found.width < 1


def test_too_few_labels_give_no_coverage() -> None:
    found = hand.coverage(
        np.random.default_rng(2), 5, situation=Situation(2, 1, 572, 0.0), of="drift"
    )
    assert np.isnan(found.value)
