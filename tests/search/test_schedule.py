import math

import pytest

from pulse_audit.search.schedule import learning_rate_factor
from pulse_audit.types import InputError


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("fixed", 0, 1.0),
        ("fixed", 45, 1.0),
        ("fixed", 100, 1.0),
        ("linear1cycle", 0, 0.1),
        ("linear1cycle", 25, 0.55),
        ("linear1cycle", 50, 1.0),
        ("linear1cycle", 90, 0.28),
        ("linear1cycle", 100, 0.1),
        ("linear1cycledrop", 0, 0.1),
        ("linear1cycledrop", 45, 1.0),
        ("linear1cycledrop", 90, 0.1),
        ("linear1cycledrop", 95, 0.0505),
        ("linear1cycledrop", 100, 0.001),
    ],
)
def test_values_of_the_paper_s_schedules(schedule, step, factor):
    assert learning_rate_factor(schedule, step, 100) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_rise_and_fall_are_the_closed_form(steps):
    for step in range(steps):
        progress = step / (0.9 * steps)
        wanted = 0.1 + 0.9 * (1 - abs(2 * progress - 1))
        if progress < 1:
            found = learning_rate_factor("linear1cycledrop", step, steps)
            assert math.isclose(found, wanted, rel_tol=1e-12)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match='"cosine" is not known; use one of fixed, linear1cycle'):
        learning_rate_factor("cosine", 0, 100)
