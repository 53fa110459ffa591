import pytest
import torch

from pulse_audit.search.config import SearchConfig
from pulse_audit.search.start import Start, draw_start
from pulse_audit.types import InputError

CONFIG = SearchConfig()


def test_shapes_are_the_generator_s(style_generator):
    start = draw_start(style_generator, [0, 1], CONFIG)
    card = style_generator.card
    assert start.latents.shape == (2, card.n_latents, card.latent_dim)
    assert [tuple(m.shape[2:]) for m in start.noise] == list(style_generator.noise_shapes)


def test_each_image_has_its_own_seed_and_zero_is_one(style_generator):
    both = draw_start(style_generator, [0, 7], CONFIG)
    alone = draw_start(style_generator, [7], CONFIG)
    again = draw_start(style_generator, [0], CONFIG)
    assert torch.equal(both.latents[1:], alone.latents)
    assert torch.equal(both.latents[:1], again.latents)
    assert not torch.equal(both.latents[0], both.latents[1])
    assert torch.equal(both.noise[2][1:], alone.noise[2])


def test_the_start_leaves_the_global_generator_alone(style_generator):
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    draw_start(style_generator, [3], CONFIG)
    assert torch.equal(torch.rand(1), wanted)


def test_latents_do_not_depend_on_the_noise(style_generator):
    silent = draw_start(style_generator, [3], SearchConfig(noise="zero"))
    assert torch.equal(silent.latents, draw_start(style_generator, [3], CONFIG).latents)
    assert all(not m.any() for m in silent.noise)


def test_a_tied_latent_is_one_vector(style_generator):
    start = draw_start(style_generator, [3], SearchConfig(tied_latent=True))
    assert start.latents.shape == (1, 1, 64)


def test_values_are_standard_normal(style_generator):
    start = draw_start(style_generator, range(200), CONFIG)
    for tensor in (start.latents, start.noise[-1]):
        assert tensor.mean().abs() < 5 / tensor.numel() ** 0.5
        assert tensor.std() == pytest.approx(1, abs=0.02)


def test_seeds_up_to_63_bits_are_taken(style_generator):
    assert len(draw_start(style_generator, [2**63 - 1], CONFIG)) == 1


def test_a_start_of_another_shape_is_refused(style_generator):
    start = Start(torch.zeros(1, 18, 512), ())
    with pytest.raises(InputError, match="^start: latents and noise have shapes"):
        start.check(style_generator, 1, CONFIG)
