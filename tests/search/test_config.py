import pytest

from pulse_audit.search.config import PRESETS, SearchConfig
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
