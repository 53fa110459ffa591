"""The made-up panels of raters: their grades have the variances and expectations they should."""

import numpy as np
import pytest
from scipy.special import ndtr

from pulse_audit.calibration.ratings import GRADE, agreed, chosen, graded, panel, ranked


def test_a_panel_has_the_variances_of_its_mixture() -> None:
    random, mixture = np.random.default_rng(0), (0.6, 1.0, 0.3)
    values, rater, face = panel(random, 300, 300, mixture)
    means = [np.bincount(k, values) / np.bincount(k) for k in (rater, face)]
    assert [m.std() for m in means] == pytest.approx(mixture[:2], rel=0.1)
    rest = values - means[0][rater] - means[1][face] + values.mean()
    assert rest.std() == pytest.approx(0.3, rel=0.02)
    # a twentieth of the answers is missing
    assert len(values) == pytest.approx(0.95 * 300 * 300, rel=0.01)


def test_the_expected_grade_is_that_of_many_ratings() -> None:
    random = np.random.default_rng(1)
    grades = np.clip(np.round(GRADE + 1.2 * random.standard_normal(400_000)), 1, 5)
    expected = 1 + ndtr((GRADE - (np.arange(1, 5) + 0.5)) / 1.2).sum()
    assert grades.mean() == pytest.approx(expected, abs=0.006)


def test_what_takes_ratings_as_independent_is_told_apart() -> None:
    setting = {"raters": 5, "faces": 20, "mixture": (0.6, 0.6, 0.6)}
    right, wrong = (
        graded(np.random.default_rng(2), 200, **setting, independent=each) for each in (False, True)
    )
    assert right.value > 0.9 > 0.65 > wrong.value and right.width > wrong.width


def test_the_other_scenarios_are_simulated() -> None:
    setting = {"raters": 10, "faces": 20, "mixture": (0.6, 0.6, 0.6)}
    assert chosen(np.random.default_rng(3), 100, **setting, mean=0.8).value > 0.88
    assert agreed(np.random.default_rng(4), 100, raters=5, faces=30).value > 0.88
    shared, own = (
        ranked(np.random.default_rng(5), 100, raters=10, faces=20, shared=each)
        for each in (0.6, 0.0)
    )
    assert shared.value < 0.05 < 0.2 < own.value
