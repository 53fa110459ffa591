import numpy as np
import pytest
import torch

from pulse_audit.search.config import SearchConfig
from pulse_audit.search.sphere import (
    UPDATE_RULES,
    SphericalOptimizer,
    Start,
    draw_start,
    slice_norms,
)
from pulse_audit.types import InputError

CONFIG = SearchConfig()
PEERS = {
    "adam": (torch.optim.Adam, {}),
    "adamax": (torch.optim.Adamax, {}),
    "sgd": (torch.optim.SGD, {}),
    "sgdm": (torch.optim.SGD, {"momentum": 0.9}),
}


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


def gradient(at: torch.Tensor) -> torch.Tensor:
    return (at - 1) ** 3 + torch.sin(5 * at)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_every_rule_is_that_of_torch(name):
    start = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    ours, theirs = start.clone(), start.clone().requires_grad_()
    kind, settings = PEERS[name]
    peer = kind([theirs], lr=1.0, **settings)
    moments = [torch.zeros_like(start) for _ in range(UPDATE_RULES[name].moments)]
    for t in range(1, 40):
        rate = 0.01 * (1 + t % 7)
        ours -= rate * UPDATE_RULES[name].direction(gradient(ours), moments, t)
        theirs.grad, peer.param_groups[0]["lr"] = gradient(theirs.detach()), rate
        peer.step()
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_one_norm_a_vector_and_one_a_noise_map():
    latents, noise = normal(2, 5, 8), normal(2, 1, 4, 4)
    assert slice_norms(latents).shape == (2, 5, 1)
    assert slice_norms(noise).shape == (2, 1, 1, 1)
    wanted = np.sqrt((noise.numpy() ** 2).sum(axis=(1, 2, 3)) + 1e-9)
    np.testing.assert_allclose(slice_norms(noise).flatten(), wanted)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_norms_stay_at_the_initial_radius(name):
    leaves = [normal(3, 5, 8).requires_grad_(), normal(3, 1, 4, 4, seed=1).requires_grad_()]
    radii = [slice_norms(leaf.detach()) for leaf in leaves]
    optimizer, moved = SphericalOptimizer(leaves, name, on_sphere=True), leaves[0].detach().clone()
    for _ in range(50):
        optimizer.step(sum((leaf - 1).pow(4).sum() for leaf in leaves), 0.01)
    for leaf, radius in zip(leaves, radii, strict=True):
        assert torch.allclose(slice_norms(leaf.detach()), radius, rtol=1e-9)
    assert not torch.allclose(leaves[0].detach(), moved, atol=1e-2)


def test_one_step_of_adam_is_a_plain_step_and_a_rescaling():
    """The first step of Adam is the learning rate times the sign of the gradient."""
    start, weight = normal(1, 1, 6), normal(1, 1, 6, seed=1)
    leaf = start.clone().requires_grad_()
    SphericalOptimizer([leaf], "adam", on_sphere=True).step((leaf * weight).sum(), 0.4)
    plain = start - 0.4 * weight.sign()
    assert torch.allclose(leaf.detach(), plain * start.norm() / plain.norm(), atol=1e-6)


def test_off_the_sphere_norms_are_free():
    leaf = normal(1, 1, 6).requires_grad_()
    SphericalOptimizer([leaf], "sgd", on_sphere=False).step(leaf.square().sum() / 2, 0.5)
    assert torch.allclose(leaf.detach(), normal(1, 1, 6) / 2)


@pytest.mark.parametrize("name", UPDATE_RULES)
def test_those_that_stay_go_on_as_if_the_others_had_never_been(name):
    together, alone = normal(3, 2, 6).requires_grad_(), normal(3, 2, 6)[[0, 2]].requires_grad_()
    many = SphericalOptimizer([together], name, on_sphere=True)
    few = SphericalOptimizer([alone], name, on_sphere=True)
    for step in range(10):
        if step == 5:
            many.keep(torch.tensor([0, 2]))
        many.step((together - 1).pow(4).sum(), 0.01)
        few.step((alone - 1).pow(4).sum(), 0.01)
    assert torch.equal(together.detach(), alone.detach())


def test_truncation_is_the_radius_of_the_spheres(style_generator):
    whole = draw_start(style_generator, [3], CONFIG)
    half = draw_start(style_generator, [3], SearchConfig(truncation=0.5))
    assert torch.equal(half.latents, whole.latents / 2)
    assert all(torch.equal(a, b) for a, b in zip(half.noise, whole.noise, strict=True))


def test_latents_may_have_a_seed_of_their_own(style_generator):
    first, second = (draw_start(style_generator, [seed], CONFIG) for seed in (3, 4))
    mixed = draw_start(style_generator, [4], CONFIG, [3])
    assert torch.equal(mixed.latents, first.latents)
    assert all(torch.equal(a, b) for a, b in zip(mixed.noise, second.noise, strict=True))
