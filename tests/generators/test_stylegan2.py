import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_audit.generators import stylegan2_layers
from pulse_audit.generators.mapping import mix_styles
from pulse_audit.generators.network import MappedNetwork
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.types import InputError

TINY = {"z_dim": 3, "w_dim": 4, "hidden": (4,), "embed_dim": 2}


def tiny(architecture="skip", channels=(3, 2), seed=0, **kwargs) -> StyleGAN2:
    """A float64 network of a few weights, none of them zero."""
    config = StyleGAN2Config(channels, architecture=architecture, **TINY, **kwargs)
    network = StyleGAN2.fresh(config, seed).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed + 1)
    for name, tensor in network.weights().items():
        if name.endswith(("bias", "noise_strength")):
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return network.to(dtype=torch.float64)


def styles(network: MappedNetwork, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, network.num_ws, network.w_dim, generator=generator).double()


def labels_of(conformance, n):
    classes = conformance.init["c_dim"]
    return F.one_hot(torch.arange(n) % classes, classes).float() if classes else None


def check_conformance(file, tolerance):
    network, n = StyleGAN2.from_state(file.state), len(file.arrays["w"])
    z, labels = file.inputs("input.z", n, network.z_dim), labels_of(file, n)
    w, w_psi07 = network.mapping(z, labels), network.mapping(z, labels, truncation=0.7)
    assert file.relative(w[:, 0], "w") < tolerance
    assert file.relative(w_psi07[:, -1], "w_psi07") < tolerance
    assert file.error(network.synthesis(w, "none"), "pixels_noise_none") < tolerance
    assert file.error(network.synthesis(w, "const"), "pixels_noise_const") < tolerance
    assert file.error(network.synthesis(w_psi07), "pixels_psi07_noise_const") < tolerance
    return network


@pytest.mark.parametrize("name", ["stylegan2_ada_skip64", "stylegan2_ada_cond32"])
def test_pixels_are_those_of_the_reference(conformance, name):
    file = conformance(name)
    network = check_conformance(file, 1e-5)
    assert network.resolution == file.init["img_resolution"]
    assert network.c_dim == file.init["c_dim"]
    assert network.num_ws == len(network.noise_shapes) + 1


@pytest.mark.slow
def test_pixels_at_1024_are_those_of_the_reference(conformance):
    network = check_conformance(conformance("stylegan2_ada_configf1024"), 1e-4)
    assert (network.resolution, network.num_ws) == (1024, 18)


def convolved(image, kernel):
    return scipy.signal.convolve2d(image, kernel, mode="full")


TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def upsampled(x):
    """(c, h, h) to (c, 2h, 2h) by zero insertion and the filter."""
    grid = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2]))
    grid[:, ::2, ::2] = x
    return np.stack([convolved(g, 4 * TAPS)[1:-2, 1:-2] for g in grid])


def modulated(x, weight, style, up):
    """Per-image weights, modulated and demodulated, one scipy convolution per pair of channels."""
    weight = weight * style[None, :, None, None]
    weight = weight / np.sqrt(np.square(weight).sum((1, 2, 3), keepdims=True) + 1e-8)
    if not up:
        return np.stack(
            [
                sum(scipy.signal.correlate2d(i, k, "same") for i, k in zip(x, w, strict=True))
                for w in weight
            ]
        )
    grid = np.zeros((len(x), 2 * x.shape[1] - 1, 2 * x.shape[2] - 1))
    grid[:, ::2, ::2] = x
    full = [sum(convolved(i, k) for i, k in zip(grid, w, strict=True)) for w in weight]
    return np.stack([convolved(f, 4 * TAPS)[2:-2, 2:-2] for f in full])


class Reference:
    """One image at a time, straight from the papers' equations."""

    def __init__(self, network):
        self.state = {key: value.numpy() for key, value in network.weights().items()}
        self.config = network.config

    def affine(self, key, w):
        weight = self.state[f"{key}.affine.weight"]
        return weight @ w / np.sqrt(len(w)) + self.state[f"{key}.affine.bias"]

    def layer(self, key, x, w, noise, gain=1.0):
        x = modulated(x, self.state[f"{key}.weight"], self.affine(key, w), key.endswith("conv0"))
        x = x + noise * self.state[f"{key}.noise_strength"]
        x = x + self.state[f"{key}.bias"][:, None, None]
        clamp = (self.config.conv_clamp or np.inf) * gain
        return np.clip(np.where(x > 0, x, 0.2 * x) * np.sqrt(2) * gain, -clamp, clamp)

    def colours(self, key, x, w):
        weight = self.state[f"{key}.weight"][:, :, 0, 0] * self.affine(key, w) / np.sqrt(len(x))
        clamp = self.config.conv_clamp or np.inf
        rgb = np.einsum("oc,chw->ohw", weight, x) + self.state[f"{key}.bias"][:, None, None]
        return np.clip(rgb, -clamp, clamp)

    def __call__(self, w, noise):
        x, image, index = self.state["synthesis.b4.const"], None, 0
        for block in range(len(self.config.channels)):
            key = f"synthesis.b{4 * 2**block}"
            resnet = block > 0 and self.config.architecture == "resnet"
            shortcut = upsampled(self.shortcut(key, x)) if resnet else 0
            for name in ("conv0", "conv1") if block else ("conv1",):
                gain = np.sqrt(0.5) if resnet and name == "conv1" else 1.0
                x = self.layer(f"{key}.{name}", x, w[index], noise[index], gain)
                index += 1
            x = x + shortcut
            image = None if image is None else upsampled(image)
            if f"{key}.torgb.weight" in self.state:
                rgb = self.colours(f"{key}.torgb", x, w[index])
                image = rgb if image is None else image + rgb
        return image

    def shortcut(self, key, x):
        weight = self.state[f"{key}.skip.weight"][:, :, 0, 0] / np.sqrt(2 * len(x))
        return np.einsum("oc,chw->ohw", weight, x)


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_every_architecture_follows_the_equations(architecture, clamp):
    network = tiny(architecture, channels=(3, 4, 2), conv_clamp=clamp)
    w = styles(network, 2)
    generator = torch.Generator().manual_seed(3)
    noise = [torch.randn(2, 1, *s, generator=generator).double() for s in network.noise_shapes]
    images = network.synthesis(w, noise).numpy()
    reference = Reference(network)
    for i in range(2):
        expected = reference(w[i].numpy(), [m[i, 0].numpy() for m in noise])
        np.testing.assert_allclose(images[i], expected, atol=1e-12)


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
def test_gradients_of_styles_and_noise_are_exact(architecture):
    network = tiny(architecture)
    w = styles(network, 1).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, 1, *s, generator=generator) for s in network.noise_shapes]
    noise = [m.double().requires_grad_() for m in drawn]
    assert torch.autograd.gradcheck(lambda w, *maps: network.synthesis(w, maps), (w, *noise))


def test_gradients_of_latents_are_exact_through_the_mapping():
    network = tiny(c_dim=2)
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    labels = torch.eye(2).double()

    def render(z):
        return network.synthesis(network.mapping(z, labels, truncation=0.7), "none")

    assert torch.autograd.gradcheck(render, (z,), fast_mode=True)


def test_an_image_does_not_depend_on_its_batch_mates():
    network = tiny()
    w = styles(network, 3)
    together = network.synthesis(w)
    alone = torch.cat([network.synthesis(w[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_given_maps_equal_to_the_stored_ones_give_the_same_image():
    network = tiny()
    w = styles(network, 2)
    stored = [layer.noise_const[None, None] for layer in network.syn.layers]
    assert [m.shape[2:] for m in stored] == list(network.noise_shapes)
    torch.testing.assert_close(network.synthesis(w, stored), network.synthesis(w, "const"))
    zeros = [torch.zeros_like(m) for m in stored]
    torch.testing.assert_close(network.synthesis(w, zeros), network.synthesis(w, "none"))


def test_random_noise_differs_from_image_to_image_and_follows_the_seed():
    network = tiny()
    w = styles(network, 1).expand(2, -1, -1)
    torch.manual_seed(0)
    first = network.synthesis(w, "random")
    assert not torch.allclose(first[0], first[1])
    torch.manual_seed(0)
    assert torch.equal(network.synthesis(w, "random"), first)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ("loud", "'loud' is unknown"),
        ([torch.zeros(1, 1, 4, 4)], "1 maps for 3 layers"),
        ([torch.zeros(1, 1, 4, 4)] * 3, r"a map is \(1, 1, 4, 4\), needs to be \(2, 1, 8, 8\)"),
    ],
)
def test_noise_that_does_not_fit_is_refused(noise, message):
    network = tiny()
    with pytest.raises(InputError, match=message):
        network.synthesis(styles(network, 2), noise)


def test_a_network_without_noise_layers_ignores_noise():
    network = tiny(noise=False)
    w = styles(network, 1)
    assert network.noise_shapes == ()
    assert torch.equal(network.synthesis(w, "random"), network.synthesis(w, "none"))


def test_styles_of_the_wrong_shape_are_refused():
    with pytest.raises(InputError, match=r"styles are \(2, 5, 4\), need to be \(n, 4, 4\)"):
        tiny().synthesis(torch.zeros(2, 5, 4))


def test_at_resolution_is_the_network_made_of_the_first_blocks(conformance):
    state = conformance("stylegan2_ada_skip64").state
    low = {k: v for k, v in state.items() if not k.startswith(("synthesis.b32", "synthesis.b64"))}
    network, expected = StyleGAN2.from_state(state), StyleGAN2.from_state(low)
    cut = network.at_resolution(16)
    w = network.mapping(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))
    assert (cut.resolution, cut.num_ws, len(cut.noise_shapes)) == (16, 6, 5)
    assert torch.equal(cut.synthesis(w[:, :6]), expected.synthesis(w[:, :6]))
    assert network.resolution == 64
    assert torch.equal(network.at_resolution(64).synthesis(w), network.synthesis(w))


@pytest.mark.parametrize(("architecture", "size"), [("orig", 4), ("resnet", 4), ("skip", 16)])
def test_at_resolution_refuses_sizes_without_colours(architecture, size):
    with pytest.raises(InputError, match=f"has no image of {size} px"):
        tiny(architecture).at_resolution(size)


def test_mixed_styles_change_only_what_the_later_layers_do(conformance):
    network = StyleGAN2.from_state(conformance("stylegan2_ada_skip64").state)
    w = network.mapping(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))
    mixed = mix_styles(w[:1], w[1:], 6)
    coarse = network.at_resolution(16)
    assert torch.equal(coarse.synthesis(mixed[:, :6]), coarse.synthesis(w[:1, :6]))
    assert not torch.allclose(network.synthesis(mixed), network.synthesis(w[:1]))


def test_bfloat16_stays_close_and_leaves_the_weights_exact(conformance):
    network = StyleGAN2.from_state(conformance("stylegan2_ada_skip64").state)
    w = network.mapping(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))
    exact = network.synthesis(w)
    fast = network.to(dtype=torch.bfloat16).synthesis(w)
    assert fast.dtype == torch.float32
    assert (fast - exact).square().mean().sqrt() < 0.02 * exact.std()
    assert torch.equal(network.to(dtype=torch.float32).synthesis(w), exact)


def test_one_large_image_takes_its_styles_in_the_weights_and_gives_the_same(monkeypatch):
    # Five blocks, to 64 px.
    network = StyleGAN2.fresh(StyleGAN2Config((8,) * 5), seed=0).requires_grad_(False)
    z = torch.randn(1, network.z_dim, generator=torch.Generator().manual_seed(0))
    answers = []
    # The small network counts as large from 8 px on, or not at all.
    for least in (8, 10_000):
        monkeypatch.setattr(stylegan2_layers, "LARGE", least)
        w = network.mapping(z).requires_grad_()
        picture = network.synthesis(w)
        (gradient,) = torch.autograd.grad(picture.square().sum(), w)
        answers.append((picture.detach(), gradient))
    for modulated, plain in zip(*answers, strict=True):
        assert not torch.equal(modulated, plain)
        torch.testing.assert_close(modulated, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_bfloat16_gradients_point_the_same_way(conformance):
    network = StyleGAN2.from_state(conformance("stylegan2_ada_skip64").state)
    w = network.mapping(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        leaf = w.clone().requires_grad_()
        small = F.avg_pool2d(network.to(dtype=dtype).synthesis(leaf), 8)
        gradients += torch.autograd.grad(small.square().sum(), leaf)
    assert F.cosine_similarity(gradients[0].flatten(), gradients[1].flatten(), dim=0) > 0.999


def test_float16_is_refused():
    with pytest.raises(InputError, match="choose bfloat16"):
        tiny().to(dtype=torch.float16)


def test_loaded_weights_are_frozen(conformance):
    network = StyleGAN2.from_state(conformance("stylegan2_ada_skip64").state)
    assert not any(p.requires_grad for p in network.parameters())


def test_public_weights_build_the_same_network():
    network = tiny("resnet", c_dim=3).to(dtype=torch.float32)
    again = StyleGAN2.from_state(network.weights())
    w = styles(network, 1)
    assert again.config == network.config
    assert torch.equal(again.synthesis(w), network.synthesis(w))


def test_a_missing_average_is_estimated():
    network = tiny().to(dtype=torch.float32)
    state = {k: v for k, v in network.weights().items() if k != "mapping.w_avg"}
    z = torch.randn(5000, 3, generator=torch.Generator().manual_seed(1))
    mean = network.mapping(z)[:, 0].mean(0)
    torch.testing.assert_close(StyleGAN2.from_state(state).map.w_avg, mean, atol=0.05, rtol=0)


def without(key):
    return lambda state: {k: v for k, v in state.items() if k != key}


def changed(key, value):
    return lambda state: {**state, key: value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("synthesis.b8.conv1.weight"), "synthesis.b8.conv1.weight is missing"),
        (without("synthesis.b8.conv0.bias"), "synthesis.b8.conv0.bias is missing"),
        (without("mapping.fc0.weight"), "mapping.fc0.weight is missing"),
        (without("synthesis.b4.const"), "synthesis.b4.const is missing"),
        (
            changed("synthesis.b8.conv0.bias", torch.zeros(7)),
            r"synthesis.b8.conv0.bias is \(7,\), expected \(2,\)",
        ),
        (changed("synthesis.b8.extra", torch.zeros(1)), "synthesis.b8.extra has no place"),
        (changed("synthesis.b32.conv1.weight", torch.zeros(1)), r"blocks of sizes \[4, 8, 32\]"),
        (changed("synthesis.b8.resample_filter", torch.zeros(4, 4)), "different resampling"),
    ],
)
def test_weights_that_do_not_fit_are_named(change, message):
    state = tiny().to(dtype=torch.float32).weights()
    with pytest.raises(InputError, match=message) as caught:
        StyleGAN2.from_state(change(state))
    assert "\n" not in str(caught.value)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(InputError, match="'origin' is unknown; use skip"):
        tiny("origin")
