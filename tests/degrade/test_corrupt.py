import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from skimage.data import astronaut

from pulse_audit.conditions import CONDITIONS, parse_condition
from pulse_audit.degrade.corrupt import (
    CORRUPTIONS,
    add_gaussian_noise,
    add_salt_and_pepper,
    blur_by_motion,
    compress_jpeg,
    motion_kernel,
)
from pulse_audit.types import InputError

GREY = torch.full((2, 3, 200, 200), 0.5)


def random_images(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def photo():
    return torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("sigma", [25, 50])
def test_gaussian_noise_has_the_asked_standard_deviation(sigma):
    noise = (add_gaussian_noise(GREY, sigma, [1, 2]) - GREY).flatten() * 255
    # 240,000 values: the sample deviation's standard error is sigma / sqrt(2 n).
    assert abs(float(noise.std()) - sigma) < 4 * sigma / math.sqrt(2 * noise.numel())
    assert stats.kstest(noise[:20_000].numpy() / sigma, "norm").pvalue > 0.01


def test_gaussian_noise_is_independent_over_channels():
    noise = (add_gaussian_noise(GREY, 25, [1, 2]) - GREY)[0].flatten(1)
    off_diagonal = torch.corrcoef(noise) - torch.eye(3)
    assert off_diagonal.abs().max() < 4 / math.sqrt(noise.shape[1])


def test_salt_and_pepper_hits_the_asked_share_in_equal_parts():
    hit = add_salt_and_pepper(GREY, 0.05, [1, 2])[:, 0]
    n = hit.numel()
    for value in (0.0, 1.0):
        share = float((hit == value).float().mean())
        assert abs(share - 0.025) < 4 * math.sqrt(0.025 * 0.975 / n)


def test_salt_and_pepper_leaves_the_other_pixels_exactly_alone():
    x = random_images(2, 3, 64, 64) * 0.8 + 0.1
    found = add_salt_and_pepper(x, 0.3, [1, 2])
    hit = ((found == 0) | (found == 1)).all(dim=1, keepdim=True).expand_as(x)
    assert torch.equal(found[~hit], x[~hit])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_salt_and_pepper_at_its_ends(share):
    found = add_salt_and_pepper(GREY, share, [1, 2])
    assert float((found != GREY).float().mean()) == share


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, math.pi / 2, 3.0])
@pytest.mark.parametrize("length", [1, 2, 7, 31.5])
def test_motion_kernel_is_a_centred_stroke_with_sum_one(length, angle):
    kernel = motion_kernel(length, angle)
    cells = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    across, down = kernel.sum(0), kernel.sum(1)
    assert float(kernel.sum()) == pytest.approx(1)
    assert float(across @ cells) == pytest.approx(0, abs=1e-9)
    assert float(down @ cells) == pytest.approx(0, abs=1e-9)
    assert float(kernel.min()) >= 0


@pytest.mark.parametrize("angle", [0.2, 1.0, 2.5])
def test_motion_kernel_has_the_moments_of_a_uniform_stroke(angle):
    kernel = motion_kernel(41, angle)
    y, x = torch.meshgrid(*[torch.arange(-20.0, 21.0, dtype=torch.float64)] * 2, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    aside = -x * math.sin(angle) + y * math.cos(angle)
    # A uniform stroke has variance length^2 / 12 along itself; rounding to pixels adds < 1/4.
    assert float((kernel * along**2).sum()) == pytest.approx(41**2 / 12, rel=0.02)
    assert float((kernel * aside**2).sum()) < 0.25


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_a_stroke_along_an_axis_is_a_running_mean(angle):
    kernel = motion_kernel(5, angle)
    assert float(kernel.max()) == pytest.approx(0.2)
    assert torch.count_nonzero(kernel > 1e-12) == 5


def test_motion_blur_equals_direct_convolution():
    x = random_images(2, 3, 24, 30)
    found = blur_by_motion(x, 9, [5, 6])
    for image, blurred, seed in zip(x, found, [5, 6], strict=True):
        drawn = torch.rand((), generator=torch.Generator().manual_seed(seed))
        kernel = motion_kernel(9, math.pi * float(drawn)).numpy()
        for channel, result in zip(image.numpy(), blurred.numpy(), strict=True):
            # scipy calls "mirror" what torch calls "reflect".
            expected = ndimage.convolve(channel, kernel, mode="mirror")
            np.testing.assert_allclose(result, expected, atol=1e-12)


def test_motion_directions_are_uniform():
    dot = torch.zeros(200, 1, 33, 33, dtype=torch.float64)
    dot[..., 16, 16] = 1
    blurred = blur_by_motion(dot, 15, range(200))[:, 0]
    y, x = torch.meshgrid(*[torch.arange(-16.0, 17.0, dtype=torch.float64)] * 2, indexing="ij")
    xx, yy, xy = ((blurred * m).sum((1, 2)) for m in (x * x, y * y, x * y))
    angle = torch.atan2(2 * xy, xx - yy) / 2 % math.pi
    assert stats.kstest((angle / math.pi).numpy(), "uniform").pvalue > 0.01


def test_motion_of_one_pixel_changes_nothing():
    x = random_images(1, 3, 8, 8)
    torch.testing.assert_close(blur_by_motion(x, 1, [0]), x)


def test_motion_longer_than_the_image_is_refused():
    with pytest.raises(InputError, match="motion:100 is longer than the 64 pixels"):
        blur_by_motion(random_images(1, 3, 64, 64), 100, [0])


def test_jpeg_error_falls_with_quality():
    x = photo()
    errors = [float((compress_jpeg(x, q, [0]) - x).square().mean()) for q in (5, 30, 70, 95)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < errors[0]


def test_jpeg_of_a_flat_image_is_itself():
    x = torch.full((1, 3, 16, 16), 128 / 255)
    torch.testing.assert_close(compress_jpeg(x, 50, [0]), x)


@pytest.mark.parametrize("text", ["gaussian:25", "saltpepper:0.05", "motion:9", "jpeg:40"])
def test_an_image_is_corrupted_alike_alone_and_in_a_batch(text):
    (parsed,) = parse_condition(text).steps
    x = random_images(4, 3, 32, 32).float()
    together = CORRUPTIONS[parsed.kind.name](x, parsed.number, [3, 1, 4, 1])
    alone = CORRUPTIONS[parsed.kind.name](x[2:3], parsed.number, [4])
    torch.testing.assert_close(together[2:3], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("text", ["gaussian:25", "saltpepper:0.5", "motion:15"])
def test_the_seed_decides(text):
    (parsed,) = parse_condition(text).steps
    x = random_images(1, 3, 32, 32).expand(3, -1, -1, -1)
    first, second, third = CORRUPTIONS[parsed.kind.name](x, parsed.number, [1, 1, 2])
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_clean_has_no_corruption():
    assert parse_condition("clean").steps == ()


@pytest.mark.parametrize("form", [form for form in CONDITIONS if form != "FORM+FORM"])
def test_every_listed_form_parses(form):
    number = {"SIGMA": "25", "P": "0.05", "LENGTH": "12", "Q": "30"}
    name, _, letter = form.partition(":")
    steps = parse_condition(f"{name}:{number[letter]}" if letter else name).steps
    assert [step.kind.name for step in steps] == ([name] if letter else [])


def test_a_blur_in_per_cent_of_the_side_has_that_length_at_any_size():
    (step,) = parse_condition("motion:9.765625%").steps
    assert [step.amount(side) for side in (1024, 256, 8)] == [100, 25, 1]


def test_several_are_parsed_in_their_order():
    parsed = parse_condition("motion:6+saltpepper:0.05+gaussian:25+jpeg:40")
    assert [step.kind.name for step in parsed.before] == ["motion"]
    assert [step.number for step in parsed.after] == [0.05, 25, 40]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gausian:25", r"unknown condition 'gausian:25'; did you mean gaussian\?"),
        ("fog", r"unknown condition 'fog'.*clean, gaussian:SIGMA, saltpepper:P"),
        ("", "unknown condition ''"),
        ("clean:1", "unknown condition 'clean:1'"),
        ("gaussian", "gaussian:SIGMA takes a number from 0 to 255"),
        ("gaussian:-1", "gaussian:SIGMA takes a number from 0 to 255"),
        ("gaussian:nan", "gaussian:SIGMA takes a number from 0 to 255"),
        ("gaussian:inf", "gaussian:SIGMA takes a number from 0 to 255"),
        ("saltpepper:5", "saltpepper:P takes a number from 0 to 1"),
        ("motion:0", "motion:LENGTH takes a number from 1 to"),
        ("jpeg:12.5", "jpeg:Q takes a whole number from 1 to 100"),
        ("jpeg:0", "jpeg:Q takes a whole number from 1 to 100"),
        ("motion:0%", "motion takes 0 to 100 % of the side"),
        ("motion:101%", "motion takes 0 to 100 % of the side"),
        ("motion:%", "motion takes 0 to 100 % of the side"),
        ("gaussian:25%", "gaussian:SIGMA takes a number from 0 to 255"),
        ("gaussian:25+fog", r"unknown condition 'gaussian:25\+fog'"),
        ("gaussian:25+", r"unknown condition 'gaussian:25\+'"),
        ("clean+gaussian:25", "clean has no corruptions; leave it out"),
        ("gaussian:25+motion:6", "motion comes before downscaling.*write motion first"),
        ("jpeg:9" + "+jpeg:9" * 8, "at most 8 corruptions"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as refused:
        parse_condition(text)
    assert "\n" not in str(refused.value)
