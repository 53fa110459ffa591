import math

import pytest
import torch

from pulse_audit.search.losses import (
    geocross,
    loss_terms,
    negative_log_prior,
    parse_loss,
    pixel_loss,
)
from pulse_audit.types import InputError


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("100*L2+0.05*GEOCROSS", [("L2", 100.0), ("GEOCROSS", 0.05)]),
        (" 1e+2 * L2 + 5E-2*GEOCROSS ", [("L2", 100.0), ("GEOCROSS", 0.05)]),
        ("L1", [("L1", 1.0)]),
        (".5*L1.5+L3", [("L1.5", 0.5), ("L3", 1.0)]),
    ],
)
def test_losses_are_read(text, wanted):
    assert [(t.name, t.weight) for t in parse_loss(text)] == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "100*",
        "L2+",
        "L2++L1",
        "+L2",
        "-1*L2",
        "100 L2",
        "LPIPS",
        "L0.5",
        "L2+2*L2",
        "100*L2 L1",
    ],
)
def test_what_is_no_loss_is_refused(text):
    with pytest.raises(InputError, match="^loss "):
        parse_loss(text)


def test_l2_is_the_mean_square_of_each_image():
    difference = normal(3, 3, 4, 4)
    wanted = (difference.numpy() ** 2).mean(axis=(1, 2, 3))
    assert pixel_loss(difference, 2, 1e-9).numpy() == pytest.approx(wanted)


def test_l1_is_ten_times_the_mean_distance():
    difference = normal(3, 3, 4, 4)
    wanted = 10 * abs(difference.numpy()).mean(axis=(1, 2, 3))
    assert pixel_loss(difference, 1, 1e-9).numpy() == pytest.approx(wanted)


def test_lp_is_the_mean_of_the_power():
    difference = normal(3, 3, 4, 4)
    wanted = (abs(difference.numpy()) ** 3.5).mean(axis=(1, 2, 3))
    assert pixel_loss(difference, 3.5, 1e-9).numpy() == pytest.approx(wanted)


def test_the_floor_is_each_image_s_own():
    """Summed over the batch before the floor, none of these could be told feasible."""
    difference = torch.stack([torch.full((3, 2, 2), v) for v in (0.01, 0.1)])
    values = pixel_loss(difference, 2, 2e-3)
    assert values.tolist() == pytest.approx([2e-3, 1e-2])


def test_below_the_floor_there_is_no_gradient():
    difference = torch.stack([torch.full((3, 2, 2), v) for v in (0.01, 0.1)]).requires_grad_()
    pixel_loss(difference, 2, 2e-3).sum().backward()
    assert difference.grad is not None
    assert difference.grad[0].abs().max() == 0
    assert difference.grad[1].abs().min() > 0


def test_geocross_of_equal_vectors_is_about_zero():
    assert geocross(normal(2, 1, 64).expand(2, 18, 64)).max() < 1e-6


@pytest.mark.parametrize("n_vectors", [2, 18])
def test_geocross_of_orthogonal_vectors_is_the_closed_form(n_vectors):
    """Of the L * L pairs, L are a vector with itself; the others stand at a right angle."""
    styles = 3 * torch.eye(n_vectors, 64, dtype=torch.double)[None]
    wanted = 64 * (math.pi / 2) ** 2 * (1 - 1 / n_vectors)
    assert float(geocross(styles)[0]) == pytest.approx(wanted, rel=1e-6)


def test_geocross_is_the_angle_for_vectors_of_one_norm():
    styles = torch.nn.functional.normalize(normal(1, 5, 16), dim=-1)
    angles = torch.arccos((styles[0] @ styles[0].T).clamp(-1, 1))
    wanted = 64 * angles.fill_diagonal_(0).square().mean()
    assert float(geocross(styles)[0]) == pytest.approx(float(wanted), rel=1e-6)


def test_geocross_has_a_gradient_where_vectors_are_equal():
    styles = torch.ones(1, 3, 8, requires_grad=True)
    geocross(styles).sum().backward()
    assert styles.grad is not None
    assert torch.isfinite(styles.grad).all()


def test_negative_log_prior_is_that_of_the_normal_distribution():
    latents, noise = normal(2, 3, 4), normal(2, 1, 2, 2, seed=1)
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob
    constant = (12 + 4) / 2 * math.log(2 * math.pi)
    wanted = -log_p(latents).sum((1, 2)) - log_p(noise).sum((1, 2, 3)) - constant
    assert torch.allclose(negative_log_prior([latents, noise]), wanted)


def test_terms_are_unweighted_and_one_an_image():
    found = loss_terms(
        parse_loss("100*L2+0.05*GEOCROSS"),
        normal(2, 3, 4, 4),
        torch.zeros(2, 3, 4, 4, dtype=torch.double),
        normal(2, 5, 8),
        1e-9,
    )
    assert list(found) == ["L2", "GEOCROSS"]
    assert torch.equal(found["L2"], normal(2, 3, 4, 4).square().mean((1, 2, 3)))
    assert found["GEOCROSS"].shape == (2,)
