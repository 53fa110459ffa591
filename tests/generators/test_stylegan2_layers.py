import numpy as np
import pytest
import scipy.signal
import torch

from pulse_audit.generators.stylegan2_layers import setup_filter, upfirdn2d, upsample2d


def reference(image, taps, up, down, padding):
    """Zero-insert, pad or crop, scipy's convolution, decimate: one (h, w) image at a time."""
    left, right, top, bottom = padding
    height, width = image.shape
    inserted = np.zeros((height * up, width * up))
    inserted[::up, ::up] = image
    padded = np.pad(inserted, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))))
    padded = padded[max(-top, 0) :, max(-left, 0) :]
    padded = padded[: len(padded) - max(-bottom, 0), : padded.shape[1] - max(-right, 0)]
    return scipy.signal.convolve2d(padded, taps, mode="valid")[::down, ::down]


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (4, 2)])
@pytest.mark.parametrize("padding", [(0, 0, 0, 0), (3, 1, 2, 5), (-1, 2, 4, -2), (2, 2, 1, 1)])
@pytest.mark.parametrize("separable", [True, False])
def test_upfirdn2d_is_zero_insertion_convolution_and_decimation(up, down, padding, separable):
    rng = np.random.RandomState(0)
    x = rng.standard_normal((2, 3, 7, 9))
    taps = rng.standard_normal(5 if separable else (4, 5))
    square = np.outer(taps, taps) if separable else taps
    out = upfirdn2d(torch.from_numpy(x), torch.from_numpy(taps), up, down, padding, gain=4.0)
    expected = [[4 * reference(i, square, up, down, padding) for i in image] for image in x]
    np.testing.assert_allclose(out.numpy(), np.array(expected), atol=1e-12)


def test_no_filter_pads_only():
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    out = upfirdn2d(x, None, padding=(1, 0, 0, 0))
    assert out.tolist() == [[[[0, 0, 1], [0, 2, 3]]]]


def test_filter_is_the_normalised_outer_product():
    line = np.array([1, 3, 3, 1]) / 8
    np.testing.assert_allclose(setup_filter().numpy(), np.outer(line, line))


def test_upsampling_doubles_the_size_and_keeps_a_flat_image_flat():
    out = upsample2d(torch.full((1, 2, 6, 6), 0.7), setup_filter())
    assert out.shape == (1, 2, 12, 12)
    # The border mixes in the zeros outside the image.
    torch.testing.assert_close(out[:, :, 2:-2, 2:-2], torch.full((1, 2, 8, 8), 0.7))
