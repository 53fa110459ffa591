"""MobileStyleGAN: the inverse Haar transform, styles, and the published network's pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_audit.generators.checkpoints import read_checkpoint
from pulse_audit.generators.mobilestylegan import (
    MobileStyleGAN,
    MobileStyleGANConfig,
    inverse_haar,
)
from pulse_audit.models import published

EXPECTED = Path(__file__).resolve().parents[3] / "shared/conformance/mobilestylegan_ffhq.npz"
# The cache at import: tests of other rooms set a temporary one.
FETCHED = published.path_of(published.get("mobilestylegan-ffhq"))


def tiny() -> MobileStyleGAN:
    network = MobileStyleGAN(MobileStyleGANConfig((8, 8, 4), z_dim=5, w_dim=6, hidden=(7,)))
    source = torch.Generator().manual_seed(0)
    state = {k: torch.randn(v.shape, generator=source) for k, v in network.weights().items()}
    return MobileStyleGAN.from_state(state)


def test_the_inverse_haar_transform_is_the_wavelets():
    # By definition: each coefficient times its two by two pattern of signs, halved.
    x = torch.randn(2, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    signs = {
        **{0: [[1, 1], [1, 1]], 1: [[1, 1], [-1, -1]]},
        **{2: [[1, -1], [1, -1]], 3: [[1, -1], [-1, 1]]},
    }
    wanted = torch.zeros(2, 2, 6, 10)
    for channel in range(2):
        bands = [channel, *(2 + 3 * channel + band for band in range(3))]
        for band, pattern in signs.items():
            for row in range(2):
                for column in range(2):
                    part = x[:, bands[band]] * pattern[row][column] / 2
                    wanted[:, channel, row::2, column::2] += part
    torch.testing.assert_close(inverse_haar(x), wanted)


def test_every_style_changes_the_image_and_noise_does_not():
    network = tiny()
    w = network.mapping(torch.randn(2, 5, generator=torch.Generator().manual_seed(1)))
    image = network.synthesis(w)
    assert image.shape == (2, 3, 32, 32)
    assert network.noise_shapes == ()
    torch.testing.assert_close(network.synthesis(w, "none"), image, atol=0, rtol=0)
    for layer in range(network.num_ws):
        changed = w.clone()
        changed[:, layer] += 1
        assert not torch.allclose(network.synthesis(changed), image), layer


def test_bfloat16_is_close_and_goes_back_without_loss():
    network = tiny()
    w = network.mapping(torch.randn(2, 5, generator=torch.Generator().manual_seed(1)))
    image = network.synthesis(w)
    rough = network.to(dtype=torch.bfloat16).synthesis(w)
    assert rough.dtype == torch.float32
    assert 0 < (rough - image).norm() / image.norm() < 0.05
    torch.testing.assert_close(network.to(dtype=torch.float32).synthesis(w), image, atol=0, rtol=0)


@pytest.mark.skipif(not EXPECTED.is_file(), reason="no ../shared/conformance")
@pytest.mark.skipif(not FETCHED.is_file(), reason="pulse-audit fetch mobilestylegan-ffhq")
def test_pixels_are_those_that_openvino_renders():
    network, expected = read_checkpoint(FETCHED), np.load(EXPECTED)
    w = network.mapping(torch.from_numpy(expected["z"]))
    np.testing.assert_allclose(w[:, 0].numpy(), expected["w"], atol=1e-4)
    images = torch.cat([network.synthesis(one[None]) for one in w])
    for values, name in (
        (images[:, :, ::31, ::31], "img_every_31"),
        (torch.nn.functional.avg_pool2d(images, 32), "box32"),
    ):
        difference = np.linalg.norm(values.numpy() - expected[name])
        assert difference / np.linalg.norm(expected[name]) < 1e-4, name
