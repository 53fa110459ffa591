import math

import pytest

from pulse_audit.search.config import PRESETS, SearchConfig, learning_rate_factor
from pulse_audit.types import InputError


def test_presets_are_those_of_the_official_code_and_of_the_paper():
    official = PRESETS["official"]
    assert (official.eps, official.steps, official.learning_rate) == (2e-3, 100, 0.4)
    assert official.loss == "100*L2+0.05*GEOCROSS"
    assert (official.optimizer, official.schedule) == ("adam", "linear1cycledrop")
    assert (official.noise, official.trainable_noise_layers) == ("trainable", 5)
    assert official.silenced_layers() == {17}
    assert PRESETS["paper"].eps == 1e-3
    assert PRESETS["fast"].stop_at_feasibility
    assert PRESETS["fast"].eps == 2e-3


def test_layers_are_separated_by_dots():
    assert SearchConfig(bad_noise_layers="15.16.17").silenced_layers() == {15, 16, 17}
    assert SearchConfig(bad_noise_layers="").silenced_layers() == set()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("loss", "L2+BEAUTY"),
        ("eps", 0.0),
        ("eps", float("nan")),
        ("steps", 0),
        ("optimizer", "lbfgs"),
        ("learning_rate", -0.4),
        ("schedule", "cosine"),
        ("noise", "loud"),
        ("trainable_noise_layers", -1),
        ("bad_noise_layers", "17,16"),
        ("prior", "cauchy"),
        ("nll_weight", -1.0),
    ],
)
def test_values_out_of_range_cost_one_line(field, value):
    with pytest.raises(InputError) as caught:
        SearchConfig(**{field: value})
    assert "\n" not in str(caught.value)


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
