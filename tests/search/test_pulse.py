import pytest
import torch

from pulse_audit.search.config import SearchConfig
from pulse_audit.search.pulse import Pulse
from pulse_audit.search.sphere import Start, draw_start
from pulse_audit.types import InputError, Status

SHORT = SearchConfig(steps=5)


@pytest.fixture
def pulse(style_generator):
    return Pulse(style_generator, scale=4, kernel="area", search=SHORT, batch_size=2)


def test_each_input_is_searched_once_for_each_seed(pulse, inputs):
    lr = inputs(2, 4)
    results = pulse.upsample(lr, seeds=[0, 1, 2])
    assert len(results) == 6
    for row, image in enumerate(lr):
        for column, seed in enumerate([0, 1, 2]):
            (alone,) = pulse.upsample(image, seeds=[seed])
            assert torch.allclose(results[3 * row + column].image, alone.image, atol=1e-4)


def test_results_are_images_of_the_generator_s_size(pulse, inputs):
    (result,) = pulse.upsample(inputs(1, 4))
    assert result.image.shape == (3, 16, 16)
    assert result.image.dtype == torch.float32
    assert result.latents.shape == (6, 64)
    assert (result.steps, result.status) == (5, Status.INFEASIBLE)
    assert "no iterate reached eps 0.002" in result.reason


def test_seeds_make_different_images_and_repeat(pulse, inputs):
    first, second, again = pulse.upsample(inputs(1, 4), seeds=[0, 1, 0])
    assert not torch.allclose(first.image, second.image, atol=1e-2)
    assert torch.allclose(first.image, again.image, atol=1e-5)


def test_no_inputs_and_no_seeds_are_no_results(pulse, inputs):
    assert pulse.upsample(inputs(1, 4)[:0]) == []
    assert pulse.upsample(inputs(1, 4), seeds=[]) == []


def test_an_explicit_start_is_where_the_search_begins(pulse, inputs):
    lr, start = inputs(3, 4), draw_start(pulse.generator, [7, 8, 9], SHORT)
    firsts = []
    given = pulse.upsample(lr, start=start, observe=lambda i: firsts.append(i) if not i.step else 0)
    assert torch.equal(torch.cat([i.latents for i in firsts]), start.latents)
    for row, result in enumerate(given):
        (drawn,) = pulse.upsample(lr[row], seeds=[7 + row])
        assert torch.allclose(result.image, drawn.image, atol=1e-4)


def test_a_start_has_to_be_one_an_input(pulse, inputs):
    start = draw_start(pulse.generator, [7], SHORT)
    with pytest.raises(InputError, match="start holds 1 searches for 3 inputs"):
        pulse.upsample(inputs(3, 4), start=start)
    with pytest.raises(InputError, match="latents and noise have shapes"):
        pulse.upsample(inputs(1, 4), start=Start(start.latents[:, :2], start.noise))


def test_observers_see_rows_in_the_order_of_the_results(pulse, inputs):
    seen = set()
    pulse.upsample(inputs(3, 4), observe=lambda iterate: seen.update(iterate.rows.tolist()))
    assert seen == {0, 1, 2}


def test_float64_is_searched_in_float64(style_generator, inputs):
    dtypes = set()
    pulse = Pulse(style_generator, scale=4, kernel="area", search=SHORT, dtype=torch.float64)
    (result,) = pulse.upsample(inputs(1, 4), observe=lambda i: dtypes.add(i.images.dtype))
    assert dtypes == {torch.float64}
    assert result.image.dtype == torch.float32


def test_bfloat16_goes_the_same_way(style_generator, inputs):
    """Latents stay in float32; only the network's arithmetic is coarse."""
    exact = Pulse(style_generator, scale=4, kernel="area", search=SHORT)
    (wanted,) = exact.upsample(inputs(1, 4))
    fast = Pulse(style_generator, scale=4, kernel="area", search=SHORT, dtype=torch.bfloat16)
    (found,) = fast.upsample(inputs(1, 4))
    assert found.latents.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(found.latents, wanted.latents, dim=-1)
    assert cosine.min() > 0.97
    assert found.downscale_error == pytest.approx(wanted.downscale_error, rel=0.1)


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        (torch.zeros(3, 8, 8), "inputs are 8 x 8 px, but the generator's 16 px at scale 4"),
        (torch.zeros(1, 1, 4, 4), "wanted floating-point RGB"),
        (torch.zeros(4, 4), "wanted floating-point RGB"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "wanted floating-point RGB"),
        (torch.full((3, 4, 4), torch.nan), "NaN or infinity"),
        (torch.full((3, 4, 4), 200.0), "divide bytes by 255"),
    ],
)
def test_inputs_that_do_not_fit_cost_one_line(pulse, lr, message):
    with pytest.raises(InputError, match=message):
        pulse.upsample(lr)


@pytest.mark.parametrize("settings", [{"scale": 5}, {"scale": 0}, {"batch_size": 0}])
def test_settings_that_do_not_fit_are_refused(style_generator, settings):
    with pytest.raises(InputError):
        Pulse(style_generator, **{"scale": 4, **settings})


def test_presets_go_by_name(style_generator):
    assert Pulse(style_generator, scale=4, search="paper").config.eps == 1e-3
    with pytest.raises(InputError, match='"quick" is not known; use one of official, paper, fast'):
        Pulse(style_generator, scale=4, search="quick")
