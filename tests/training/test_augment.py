import pytest
import torch

from pulse_audit.training.augment import (
    AdaptiveStrength,
    augment,
    colour_matrices,
    placement_matrices,
)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 8) -> torch.Tensor:
    return torch.rand(n, 3, 8, 8, generator=source(7)) * 2 - 1


def test_nothing_changes_at_probability_zero() -> None:
    assert augment(pictures(), 0.0, source()) is not None
    assert torch.equal(augment(pictures(), 0.0, source()), pictures())


def test_images_not_chosen_come_back_as_they_were() -> None:
    torch.testing.assert_close(augment(pictures(), 1e-9, source()), pictures())


def test_the_gradient_is_that_of_the_affine_map_it_is() -> None:
    images, change = pictures(), torch.randn(8, 3, 8, 8, generator=source(3))
    weights = torch.randn(8, 3, 8, 8, generator=source(4))
    images.requires_grad_(True)
    (augment(images, 0.7, source()) * weights).sum().backward()
    assert images.grad is not None
    with torch.no_grad():
        moved = augment(images + change, 0.7, source()) - augment(images, 0.7, source())
    expected = float((moved * weights).sum())
    assert float((images.grad * change).sum()) == pytest.approx(expected, rel=1e-4)


def test_each_image_is_augmented_on_its_own() -> None:
    same = pictures(1).expand(8, -1, -1, -1)
    out = augment(same, 0.8, source())
    assert len({image.numpy().tobytes() for image in out}) > 4


def test_half_of_the_chosen_are_mirrored() -> None:
    placement = placement_matrices(20_000, 0.6, source())
    mirrored = torch.linalg.det(placement[:, :, :2]) < 0
    assert float(mirrored.float().mean()) == pytest.approx(0.3, abs=0.015)


def test_scaling_keeps_the_aspect() -> None:
    linear = placement_matrices(100, 1.0, source())[:, :, :2]
    squares = linear.transpose(1, 2) @ linear
    expected = squares[:, 0, 0, None, None] * torch.eye(2)
    torch.testing.assert_close(squares, expected, atol=1e-5, rtol=1e-4)


def test_a_mirrored_image_is_the_flipped_one() -> None:
    flip = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    grid = torch.nn.functional.affine_grid(flip, [1, 3, 8, 8], align_corners=False)
    out = torch.nn.functional.grid_sample(pictures(1), grid, align_corners=False)
    torch.testing.assert_close(out, pictures(1).flip(3))


def test_colour_changes_map_grey_to_grey() -> None:
    matrices = colour_matrices(50, 1.0, source())
    out = matrices[:, :, :3] @ torch.full((3, 1), 0.4) + matrices[:, :, 3:]
    torch.testing.assert_close(out, out.mean(dim=1, keepdim=True).expand_as(out))


@pytest.mark.parametrize(("r_t", "direction"), [(0.9, 1), (0.1, -1), (0.6, 0)])
def test_p_moves_towards_the_target(r_t: float, direction: int) -> None:
    strength = AdaptiveStrength(target=0.6, images=1000, ceiling=0.8, p=0.5)
    strength.update(r_t, 100)
    assert strength.p == pytest.approx(0.5 + direction * 0.1)


def test_p_stays_between_zero_and_its_ceiling() -> None:
    strength = AdaptiveStrength(target=0.6, images=1000, ceiling=0.8)
    strength.update(0.0, 100)
    assert strength.p == 0.0
    strength.update(1.0, 5000)
    assert strength.p == 0.8
