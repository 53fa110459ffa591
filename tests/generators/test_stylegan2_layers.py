import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F

from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import (
    ModulatedLayer,
    StyleGAN2Config,
    setup_filter,
    upfirdn2d,
    upsample2d,
)


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


@pytest.mark.parametrize("doubled", [False, True])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_layer_with_modulated_weight_is_the_layer_of_its_definition(doubled, noisy):
    """Value, and gradients of x, style, scale and noise, against autograd of plain operations."""
    source = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source, dtype=torch.float64)

    side = 12 if doubled else 6
    weight, bias, upstream = normal(5, 3, 3, 3), normal(5), normal(1, 5, side, side)
    leaves = [normal(1, 3, 6, 6), normal(1, 3), normal(1, 5).exp(), normal(1, 1, side, side)]
    leaves = [leaf.requires_grad_() for leaf in leaves[: 3 + noisy]]
    x, style, scale, *noise = leaves
    taps = setup_filter().double() if doubled else None

    y = x * style[:, :, None, None]
    if taps is None:
        y = F.conv2d(y, weight, padding=1)
    else:
        y = F.conv_transpose2d(y, weight.transpose(0, 1), stride=2)
        y = upfirdn2d(y, taps, padding=(1, 1, 1, 1), gain=4.0)
    y = y * scale[:, :, None, None] + bias[:, None, None]
    wanted = F.leaky_relu(y + noise[0] if noisy else y, 0.2)
    found = ModulatedLayer.apply(x, style, scale, weight, bias, *(noise or [None]), taps)

    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad((found * upstream).sum(), leaves),
        torch.autograd.grad((wanted * upstream).sum(), leaves),
    )


def test_one_image_in_bfloat16_has_the_gradient_of_float32():
    """At 32 px, where features outnumber weights, one image takes the modulated weight."""
    config = StyleGAN2Config((8, 8, 8, 8), z_dim=16, w_dim=16, hidden=(16,))
    network = StyleGAN2.fresh(config, seed=0).requires_grad_(False)
    for layer in network.syn.layers:
        layer.noise_strength.fill_(0.3)
    w = torch.randn(2, network.num_ws, 16, generator=torch.Generator().manual_seed(1))

    def gradients(count: int) -> torch.Tensor:
        leaf = w[:count].clone().requires_grad_()
        return torch.autograd.grad(network.synthesis(leaf).square().sum(), leaf)[0][0].flatten()

    exact = gradients(1)
    network.to(dtype=torch.bfloat16)
    assert network.syn.layers[-1].modulates_weight(
        torch.zeros(1, 8, 32, 32, dtype=torch.bfloat16), network.syn.resample_filter
    )
    # Two images take the way of all others.
    for count in (1, 2):
        assert torch.cosine_similarity(gradients(count), exact, dim=0) > 0.999
