"""Mann-Whitney with ties against its formula, Holm against worked numbers."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import ndtr

from pulse_audit.stats.ranks import holm, mann_whitney


def test_u_and_p_are_those_of_the_formula_with_ties():
    one, two = [5, 4, 4, 3, 5, 2], [1, 2, 3, 3, 1, 2, 4]
    u = sum((a > b) + 0.5 * (a == b) for a, b in itertools.product(one, two))
    n, m = len(one), len(two)
    _, ties = np.unique([*one, *two], return_counts=True)
    tied = (ties**3 - ties).sum() / ((n + m) * (n + m - 1))
    deviation = math.sqrt(n * m / 12 * (n + m + 1 - tied))
    p = 2 * ndtr(-(abs(u - n * m / 2) - 0.5) / deviation)
    found = mann_whitney(one, two)
    assert (found.u, found.superiority) == (u, u / (n * m))
    assert found.p == pytest.approx(p, rel=1e-12)


def test_equal_samples_differ_in_nothing():
    found = mann_whitney([3, 3, 3], [3, 3])
    assert found.p == 1 and found.superiority == 0.5
    with pytest.raises(ValueError, match="both samples"):
        mann_whitney([], [1])


def test_holm_steps_down():
    # Holm (1979): .01 * 4, .02 * 3, .03 * 2, .04; none smaller than the one before
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0
