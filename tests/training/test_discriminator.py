import numpy as np
import torch

from pulse_audit.generators.stylegan2_layers import setup_filter, upfirdn2d
from pulse_audit.training.config import GanConfig
from pulse_audit.training.discriminator import (
    Discriminator,
    DiscriminatorBlock,
    averaged,
    halved,
    with_group_deviation,
)
from pulse_audit.training.trainer import gradient_penalty


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_added_map_is_the_mean_deviation_within_the_group() -> None:
    x = noise(8, 3, 4, 4)
    added = with_group_deviation(x)[:, 3]
    first = np.sqrt(x[:4].numpy().var(axis=0) + 1e-8).mean()
    np.testing.assert_allclose(added[:4].numpy(), first, rtol=1e-5)


def test_a_logit_depends_on_its_own_group_only() -> None:
    network = Discriminator((8, 8), seed=1)
    alone = network(noise(8, 3, 8, 8)[:4])
    torch.testing.assert_close(network(noise(8, 3, 8, 8))[:4], alone)


def test_a_seed_gives_the_same_weights() -> None:
    images = noise(4, 3, 8, 8)
    first, second, other = (Discriminator((8, 8), seed)(images) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_a_fresh_block_keeps_the_scale_of_its_input() -> None:
    block = Discriminator((64, 64, 64), seed=1).blocks[0]
    assert isinstance(block, DiscriminatorBlock)
    # smooth input: the low-pass filter takes energy out of noise
    smooth = noise(64, 64, 1, 1).expand(-1, -1, 16, 16).contiguous()
    out = block(smooth, setup_filter())[:, :, 2:-2, 2:-2]
    assert out.shape == (64, 64, 4, 4)
    assert 0.7 < float(out.detach().square().mean()) < 1.4


def test_the_shortcut_is_filtering_with_stride_two() -> None:
    x, taps = noise(2, 3, 8, 8), setup_filter()
    direct = upfirdn2d(x, taps, down=2, padding=(1, 1, 1, 1))
    assert torch.equal(halved(x, taps), direct)


def test_growth_begins_with_the_averaged_image_and_ends_with_the_whole_network() -> None:
    grows, plain = Discriminator((8, 8, 8), 1, grows=True), Discriminator((8, 8, 8), 1)
    images, features, logits = noise(4, 3, 16, 16), [], []
    grows.blocks[1].register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    small = images.view(4, 3, 8, 2, 8, 2).mean(dim=(3, 5))
    for grows.fade, seen in ((0.0, small), (1e-6, images), (0.25, images), (1.0, images)):
        logits.append(grows(seen))
    half, begun, quarter, whole = features
    torch.testing.assert_close(quarter, 0.75 * half + 0.25 * whole)
    torch.testing.assert_close(begun, half, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=0)
    assert torch.equal(logits[3], plain(images))


def test_weight_times_penalty_is_continuous_where_the_network_grows(config: GanConfig) -> None:
    network, images = Discriminator((8, 8, 8), 1, grows=True), noise(8, 3, 16, 16)
    terms = []
    for network.fade, seen in ((0.0, averaged(images)), (1e-6, images)):
        penalty = gradient_penalty(network, seen).detach()
        terms.append(config.penalty_weight(network.fade) * float(penalty))
    assert terms[0] > 0
    np.testing.assert_allclose(terms[1], terms[0], rtol=1e-4)


def test_bfloat16_says_nearly_the_same() -> None:
    network, images = Discriminator((16, 16, 16), seed=1), noise(8, 3, 16, 16)
    exact = network(images)
    network.dtype = torch.bfloat16
    torch.testing.assert_close(network(images), exact, atol=0.05, rtol=0.05)
