import numpy as np
import pytest
import torch

from pulse_audit.search.rules import RULES
from pulse_audit.search.sphere import SphericalOptimizer, slice_norms


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_one_norm_a_vector_and_one_a_noise_map():
    latents, noise = normal(2, 5, 8), normal(2, 1, 4, 4)
    assert slice_norms(latents).shape == (2, 5, 1)
    assert slice_norms(noise).shape == (2, 1, 1, 1)
    wanted = np.sqrt((noise.numpy() ** 2).sum(axis=(1, 2, 3)) + 1e-9)
    np.testing.assert_allclose(slice_norms(noise).flatten(), wanted)


@pytest.mark.parametrize("name", RULES)
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


@pytest.mark.parametrize("name", RULES)
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
