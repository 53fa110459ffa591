import pytest
import torch

from pulse_audit.degrade.corrupt import add_gaussian_noise, add_salt_and_pepper, blur_by_motion
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import downscale
from pulse_audit.seeding import fingerprint
from pulse_audit.types import InputError

CONDITIONS = [
    "clean", "gaussian:50", "saltpepper:0.05", "motion:12", "jpeg:30",
    "motion:12+gaussian:25+saltpepper:0.05+jpeg:40",
]  # fmt: skip


def faces(n=3, size=64):
    return torch.rand((n, 3, size, size), generator=torch.Generator().manual_seed(0))


def hard_edges(n=1):
    """Black and white blocks: every cubic kernel overshoots [0, 1] beside their edges."""
    return faces(n).gt(0.5).float().repeat_interleave(4, -1).repeat_interleave(4, -2)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_input_is_a_small_image_in_range(condition):
    lr = DegradationModel(condition, 8)(hard_edges(), [7])
    assert lr.shape == (1, 3, 32, 32)
    assert float(lr.min()) >= 0
    assert float(lr.max()) <= 1


def test_clean_is_the_clamped_operator():
    x = hard_edges()
    expected = downscale(x, 4, "lanczos").clamp(0, 1)
    assert torch.equal(DegradationModel("clean", 4, "lanczos")(x, [0]), expected)


def test_noise_comes_after_downscaling():
    x = faces()
    small = downscale(x, 8).clamp(0, 1)
    expected = add_gaussian_noise(small, 25, [1, 2, 3]).clamp(0, 1)
    assert torch.equal(DegradationModel("gaussian:25", 8)(x, [1, 2, 3]), expected)


def test_motion_comes_before_downscaling():
    x = faces()
    expected = downscale(blur_by_motion(x, 20, [1, 2, 3]), 8).clamp(0, 1)
    assert torch.equal(DegradationModel("motion:20", 8)(x, [1, 2, 3]), expected)


def test_several_corruptions_are_applied_in_the_order_written():
    x = faces()
    blurred = blur_by_motion(x, 20, own([1, 2, 3], 0))
    noisy = add_gaussian_noise(downscale(blurred, 8).clamp(0, 1), 25, own([1, 2, 3], 1))
    expected = add_salt_and_pepper(noisy.clamp(0, 1), 0.1, own([1, 2, 3], 2))
    found = DegradationModel("motion:20+gaussian:25+saltpepper:0.1", 8)(x, [1, 2, 3])
    assert torch.equal(found, expected)
    other = DegradationModel("motion:20+saltpepper:0.1+gaussian:25", 8)(x, [1, 2, 3])
    assert not torch.equal(found, other)


def own(seeds, place):
    return [fingerprint(seed, place) for seed in seeds]


def test_corruptions_of_one_face_are_independent():
    """With one seed for both, two noises of one kind would be one noise twice as strong."""
    flat = torch.full((1, 3, 512, 512), 0.5)
    noise = DegradationModel("gaussian:10+gaussian:10", 2)(flat, [1]) - 0.5
    assert float(noise.std()) * 255 == pytest.approx(10 * 2**0.5, rel=0.01)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_search_inverts_downscaling_alone(condition):
    x = hard_edges()
    assert torch.equal(DegradationModel(condition, 8).downscale(x), downscale(x, 8))


def test_the_operator_takes_another_scale_for_a_generator_of_another_size():
    found = DegradationModel("clean", 8).downscale(faces(size=128), scale=16)
    assert found.shape[-1] == 8


def test_the_operator_is_differentiable():
    x = faces().double().requires_grad_()
    DegradationModel("clean", 8).downscale(x).square().sum().backward()
    assert float(x.grad.abs().min()) >= 0
    assert float(x.grad.abs().sum()) > 0


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_face_is_degraded_alike_alone_and_in_a_batch(condition):
    degradation = DegradationModel(condition, 8)
    together = degradation(faces(), [5, 6, 7])
    alone = degradation(faces()[1:2], [6])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("condition", "kernel", "sentence"),
    [
        ("clean", "area", "Averaging over blocks of pixels by a factor of 8."),
        (
            "gaussian:25",
            "pulse",
            "Bicubic downscaling with reflected edges (PULSE's operator) by a factor of 8, "
            "then Gaussian noise of standard deviation 25 (0-255 scale).",
        ),
        (
            "motion:100",
            "nearest",
            "Motion blur over 100 pixels in a random direction, "
            "then keeping the pixel nearest to each block's centre by a factor of 8.",
        ),
        (
            "motion:9.8%+gaussian:25+jpeg:40",
            "area",
            "Motion blur over 9.8 % of the side in a random direction, "
            "then averaging over blocks of pixels by a factor of 8, "
            "then Gaussian noise of standard deviation 25 (0-255 scale), "
            "then JPEG compression of quality 40.",
        ),
    ],
)
def test_the_description_names_the_steps_in_order(condition, kernel, sentence):
    assert DegradationModel(condition, 8, kernel).describe() == sentence


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cleen", 8), "did you mean clean"),
        (("clean", 0), "scale 0: must be a positive whole number"),
        (("clean", 8, "puls"), "did you mean pulse"),
    ],
)
def test_bad_settings_are_refused_before_any_image_is_seen(arguments, message):
    with pytest.raises(InputError, match=message):
        DegradationModel(*arguments)


def test_a_seed_is_needed_for_every_image():
    with pytest.raises(ValueError, match="3 images need as many seeds, not 2"):
        DegradationModel("gaussian:25", 8)(faces(), [1, 2])
