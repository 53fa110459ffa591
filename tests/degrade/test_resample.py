import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from pulse_audit.degrade.resample import (
    KERNELS,
    RESIZE_KERNELS,
    check_factor,
    cut_to_frame,
    downscale,
    resize,
)
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.types import InputError

DATA = Path(__file__).resolve().parents[1] / "data"
PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def images(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)


def pillow_resize(image, height, width, kernel):
    """Resize one (h, w) channel with Pillow in floating point."""
    channel = Image.fromarray(image.numpy().astype(np.float32))
    return torch.from_numpy(np.asarray(channel.resize((width, height), PILLOW[kernel])).copy())


def mirrored(image, margin):
    return torch.from_numpy(np.pad(image.numpy(), margin, mode="symmetric"))


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_pulse_equals_the_reference_implementation(factor):
    key = zlib.crc32(b"input.image")
    drawn = np.random.RandomState(key).standard_normal((1, 3, 128, 128)).astype("float32")
    expected = np.load(DATA / "pulse_bicubic.npz")[f"y{factor}"]
    found = downscale(torch.from_numpy(drawn), factor, "pulse").numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_pulse_equals_a_strided_convolution_with_reflected_edges(factor):
    x = images(1, 1, 8 * factor, 8 * factor)
    distance = (torch.arange(4 * factor, dtype=torch.float64) - 2 * factor + 0.5).abs() / factor
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = torch.where(distance < 1, near, far)
    taps = taps / taps.sum()
    before, after = 3 * factor // 2, 3 * factor - 3 * factor // 2
    padded = functional.pad(x, (before, after, before, after), mode="reflect")
    expected = functional.conv2d(padded, torch.outer(taps, taps)[None, None], stride=factor)
    torch.testing.assert_close(downscale(x, factor, "pulse"), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_factor_one_is_the_identity(kernel):
    x = images(2, 3, 7, 5)
    assert torch.equal(downscale(x, 1, kernel), x)


@pytest.mark.parametrize("factor", [2, 3, 8])
@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
def test_interior_equals_torch_antialiased_interpolation(kernel, factor):
    x = images(1, 3, 12 * factor, 9 * factor)
    size = (12, 9)
    expected = functional.interpolate(x, size, mode=kernel, antialias=True, align_corners=False)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(downscale(x, factor, kernel)[inner], expected[inner])


@pytest.mark.parametrize("factor", [2, 3, 4, 7])
@pytest.mark.parametrize("kernel", ["bicubic", "lanczos", "bilinear", "area", "nearest"])
def test_downscaling_equals_pillow_on_a_mirrored_image(kernel, factor):
    x = images(10 * factor, 7 * factor)
    margin = 6
    large = mirrored(x, margin * factor)
    expected = pillow_resize(large, 10 + 2 * margin, 7 + 2 * margin, kernel)
    found = downscale(x[None, None], factor, kernel)[0, 0].float()
    torch.testing.assert_close(found, expected[margin:-margin, margin:-margin], rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(31, 50), (8, 11), (21, 9), (64, 64)])
@pytest.mark.parametrize("kernel", RESIZE_KERNELS)
def test_resizing_interior_equals_pillow(kernel, size):
    # Odd sizes: no pixel of the result falls half-way between two, where rounding would decide.
    x = images(21, 25)
    found = resize(x[None, None], size, kernel)[0, 0].float()
    expected = pillow_resize(x, *size, kernel)
    rows, columns = (1 + 3 * max(1, n // 20) for n in size)
    inner = (slice(rows, -rows), slice(columns, -columns))
    torch.testing.assert_close(found[inner], expected[inner], rtol=0, atol=2e-6)


def test_resizing_without_antialias_interpolates_between_the_nearest_pixels():
    x = images(1, 1, 30, 30)
    expected = functional.interpolate(x, 10, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(x, 10, "bilinear", antialias=False), expected)


def test_area_is_average_pooling():
    x = images(2, 3, 24, 36)
    torch.testing.assert_close(downscale(x, 6, "area"), functional.avg_pool2d(x, 6))


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_nearest_keeps_the_pixel_at_the_centre_of_each_block(factor):
    x = images(1, 3, 4 * factor, 5 * factor, dtype=torch.float32)
    middle = factor // 2
    assert torch.equal(downscale(x, factor, "nearest"), x[..., middle::factor, middle::factor])


def test_nearest_enlarges_by_repetition():
    x = images(1, 3, 4, 5, dtype=torch.float32)
    repeated = x.repeat_interleave(3, -1).repeat_interleave(3, -2)
    assert torch.equal(resize(x, (12, 15), "nearest"), repeated)


def test_resizing_to_the_same_size_is_the_identity():
    x = images(1, 3, 9, 9)
    assert resize(x, 9, "lanczos") is x


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_image_stays_constant(kernel):
    x = torch.full((1, 3, 32, 48), 0.7, dtype=torch.float64)
    torch.testing.assert_close(downscale(x, 8, kernel), torch.full((1, 3, 4, 6), 0.7).double())


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradient_is_exact(kernel):
    x = images(1, 1, 6, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: downscale(t, 3, kernel), (x,))


@pytest.mark.parametrize("kernel", KERNELS)
def test_backward_is_the_adjoint(kernel):
    x = images(1, 2, 16, 16).requires_grad_()
    y = images(1, 2, 4, 4, seed=1)
    small = downscale(x, 4, kernel)
    (adjoint,) = torch.autograd.grad(small, x, y)
    torch.testing.assert_close((small * y).sum(), (x * adjoint).sum())


def test_an_image_does_not_depend_on_its_batch_mates():
    x = images(5, 3, 64, 64)
    together, alone = downscale(x, 8), downscale(x[3:4], 8)
    torch.testing.assert_close(together[3:4], alone, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_type_is_kept(dtype):
    found = downscale(images(1, 3, 32, 32, dtype=dtype), 8)
    assert found.dtype == dtype
    assert (found.double() - downscale(images(1, 3, 32, 32), 8)).abs().max() < 0.02


def test_weights_first_built_in_inference_mode_serve_autograd_afterwards():
    # 22 pixels occur in no other test, so that the weights are not in the cache yet.
    x = images(1, 1, 22, 22)
    with torch.inference_mode():
        downscale(x, 11, "lanczos")
    x.requires_grad_()
    downscale(x, 11, "lanczos").sum().backward()
    assert x.grad is not None


def test_memory_layout_does_not_matter():
    x = images(2, 3, 16, 16)
    last = x.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(downscale(last, 4), downscale(x, 4))


@pytest.mark.parametrize(
    ("size", "factor", "kernel", "message"),
    [
        (32, 5, "pulse", r"^cannot downscale 32 pixels by 5: .*divides"),
        (32, 0, "area", r"^cannot downscale 32 pixels by 0: "),
        (8, 8, "pulse", r"^PULSE's downscaling by 8 needs more than 12 pixels, not 8: use"),
        (32, 4, "bicubci", r"^unknown downscaling kernel 'bicubci'; did you mean bicubic"),
        (32, 4, "sinc-of-mine", r"^unknown downscaling kernel .*; known: pulse, bicubic"),
    ],
)
def test_what_cannot_be_downscaled_is_refused_in_one_line(size, factor, kernel, message):
    with pytest.raises(InputError, match=message) as refused:
        check_factor(size, factor, kernel)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=message):
        downscale(images(1, 3, size, size), factor, kernel)


def test_one_pixel_results_are_possible_but_for_pulse():
    x = images(1, 3, 8, 8)
    for kernel in RESIZE_KERNELS:
        assert downscale(x, 8, kernel).shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("size", "kernel", "message"),
    [
        (0, "bicubic", "cannot resize to 0 x 0 pixels"),
        ((4, -1), "bicubic", "cannot resize to 4 x -1 pixels"),
        (4, "pulse", "unknown resizing kernel 'pulse'"),
    ],
)
def test_what_cannot_be_resized_is_refused(size, kernel, message):
    with pytest.raises(InputError, match=message):
        resize(images(1, 3, 8, 8), size, kernel)


FRAME = Frame(0.155, 0.265, 0.69)


@pytest.mark.parametrize("size", [16, 32, 50])
def test_the_frame_of_a_whole_picture_is_the_picture_resized(size: int) -> None:
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(cut_to_frame(images, WHOLE, size), resize(images, size))
    assert cut_to_frame(images, WHOLE, 32) is images


@pytest.mark.parametrize("size", [8, 21, 64, 100])
@pytest.mark.parametrize("pattern", ["ramp", "checkerboard", "noise"])
def test_a_frame_within_a_picture_is_that_of_pillow(pattern: str, size: int) -> None:
    """Pillow resizes a box given in fractions of a pixel; the filter sees what lies beyond it."""
    y, x = np.mgrid[:64, :64]
    pictures = {
        "ramp": (x + 2 * y) / 190,
        "checkerboard": (x + y) % 2,
        "noise": np.random.default_rng(0).random((64, 64)),
    }
    picture = pictures[pattern].astype(np.float32)
    # A margin, so that neither mirrors: the filter reaches two pixels of the result beyond.
    frame = Frame(0.31, 0.333, 0.37)
    box = [64 * v for v in (frame.left, frame.top, frame.left + 0.37, frame.top + 0.37)]
    expected = np.asarray(Image.fromarray(picture).resize((size, size), Image.BICUBIC, tuple(box)))
    found = cut_to_frame(torch.from_numpy(picture)[None, None], frame, size)[0, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-6)
    if pattern == "checkerboard" and size == 8:  # antialiased: the squares are averaged away
        assert float((found - 0.5).abs().max()) < 0.02


@pytest.mark.parametrize(("size", "tolerance"), [(160, 1e-12), (64, 1e-4)])
def test_a_frame_shows_the_right_part_of_a_ramp(size: int, tolerance: float) -> None:
    """Of a linear picture every pixel of the result has the value at its centre.

    Cubic convolution keeps it exactly where the part grows, and nearly where it shrinks.
    """
    x = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    found = cut_to_frame(x.expand(1, 1, 200, 200), FRAME, size)[0, 0]
    centres = FRAME.left + FRAME.side * (torch.arange(size, dtype=torch.float64) + 0.5) / size
    torch.testing.assert_close(found, centres.expand(size, size), atol=tolerance, rtol=0)


def test_the_gradient_of_a_frame_is_its_adjoint() -> None:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 24, 24, dtype=torch.float64, requires_grad=True)
    y = torch.rand(2, 3, 10, 10, dtype=torch.float64)
    image = cut_to_frame(x, FRAME, 10)
    (image * y).sum().backward()
    # <C x, y> = <x, C* y>, and the operator is linear.
    torch.testing.assert_close((x.detach() * x.grad).sum(), (image.detach() * y).sum())
    assert torch.autograd.gradcheck(lambda z: cut_to_frame(z, FRAME, 10), x[:1, :1])
