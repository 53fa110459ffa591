import numpy as np
import pytest
import torch
from torch import Tensor

from pulse_audit.generators.stylegan3 import SignalConfig, StyleGAN3, StyleGAN3Config, lowpass
from pulse_audit.types import InputError


def tiny(kernel=3, **kwargs) -> StyleGAN3:
    """A float64 network of four layers and a few weights."""
    signal = SignalConfig(critical=1, margin=2, filter_size=4)
    widths = {"z_dim": 3, "w_dim": 3, "hidden": (), "embed_dim": 2}
    shape = {"resolution": 16, "channels": (3, 2, 2, 3), "kernel": kernel, "radial": kernel == 1}
    network = StyleGAN3(StyleGAN3Config(**shape, **widths, signal=signal, **kwargs))
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.weights().items():
        if not name.endswith(("_filter", "_ema", "transform")):
            tensor.data.normal_(generator=generator)
        if name.endswith("affine.bias"):
            tensor.data.add_(1)
    return network.requires_grad_(False).to(dtype=torch.float64)


def styles(network, n: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, network.num_ws, network.w_dim, generator=generator).double()


@pytest.mark.parametrize("name", ["stylegan3_t64", "stylegan3_r64"])
@pytest.mark.parametrize("filters", ["stored", "designed"])
def test_pixels_are_those_of_the_reference(conformance, name, filters):
    file = conformance(name)
    state = {
        key: value
        for key, value in file.state.items()
        # The first layer's filter tells T from R, whose kernels can be alike in shape.
        if filters == "stored" or not key.endswith("_filter") or ".L0_" in key
    }
    network = StyleGAN3.from_state(state)
    w = network.mapping(file.inputs("input.z", len(file.arrays["w"]), network.z_dim))
    assert file.relative(w[:, 0], "w") < 1e-5
    assert file.error(network.synthesis(w), "pixels") < 1e-5
    assert (network.resolution, network.num_ws, network.noise_shapes) == (64, 16, ())


@pytest.mark.parametrize("name", ["stylegan3_t64", "stylegan3_r64"])
def test_designed_filters_are_those_of_the_reference(conformance, name):
    stored = {k: v for k, v in conformance(name).state.items() if k.endswith("_filter")}
    network = StyleGAN3.from_state(conformance(name).state)
    designed = StyleGAN3(network.config).weights()
    assert stored.keys() == {k for k in designed if k.endswith("_filter")}
    for key, value in stored.items():
        torch.testing.assert_close(designed[key], value, atol=1e-7, rtol=1e-6)


def test_lowpass_passes_low_and_stops_high_frequencies():
    taps = lowpass(24, cutoff=4.0, width=4.0, rate=32.0, radial=False).numpy()
    t = np.arange(24) / 32

    def response(frequency):
        return abs((taps * np.exp(-2j * np.pi * frequency * t)).sum())

    assert response(0.0) == pytest.approx(1, abs=1e-3)
    assert response(4.0) == pytest.approx(0.5, abs=0.02)
    assert response(10.0) < 0.01


def test_radial_lowpass_responds_alike_in_all_directions():
    taps = lowpass(24, cutoff=4.0, width=4.0, rate=32.0, radial=True).numpy()
    t = (np.arange(24) - 11.5) / 32

    def response(frequency, angle):
        x, y = frequency * np.cos(angle), frequency * np.sin(angle)
        return (taps * np.exp(-2j * np.pi * (x * t[None] + y * t[:, None]))).sum().real

    across = [response(4.0, angle) for angle in (0.0, np.pi / 8, np.pi / 4)]
    assert np.ptp(across) < 0.01
    assert response(0.0, 0.0) == pytest.approx(1)


@pytest.mark.parametrize("kernel", [3, 1])
def test_gradients_of_styles_are_exact(kernel):
    network = tiny(kernel)
    assert torch.autograd.gradcheck(
        network.synthesis, (styles(network, 2).requires_grad_(),), fast_mode=True
    )


def test_gradients_of_latents_are_exact_through_the_mapping():
    network = tiny(c_dim=2)
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double().requires_grad_()

    def render(z):
        return network.synthesis(network.mapping(z, torch.eye(2).double(), truncation=0.7))

    assert torch.autograd.gradcheck(render, (z,), fast_mode=True)


def test_an_image_does_not_depend_on_its_batch_mates():
    network = tiny()
    w = styles(network, 3)
    alone = torch.cat([network.synthesis(w[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network.synthesis(w), alone, rtol=1e-12, atol=1e-12)


def test_noise_is_accepted_and_ignored():
    network = tiny()
    w = styles(network, 1)
    for noise in ("none", "random", []):
        assert torch.equal(network.synthesis(w, noise), network.synthesis(w))


def test_moving_the_input_moves_the_image(conformance):
    """Equivariance is what the filters are for: a wrong one breaks it."""
    network = StyleGAN3.from_state(conformance("stylegan3_t64").state)
    w = network.mapping(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)))
    still = network.synthesis(w)
    network.syn["input"].transform[0, 2] = 5 / 64
    moved = network.synthesis(w)
    difference = (moved[..., 8:48] - still[..., 13:53])[:, :, 8:-8]
    assert difference.square().mean() < 1e-3 * still.var()


def test_bfloat16_stays_close_and_leaves_the_weights_exact(conformance):
    network = StyleGAN3.from_state(conformance("stylegan3_t64").state)
    w = network.mapping(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)))
    exact = network.synthesis(w)
    fast = network.to(dtype=torch.bfloat16).synthesis(w)
    assert fast.dtype == torch.float32
    assert (fast - exact).square().mean().sqrt() < 0.04 * exact.std()
    assert torch.equal(network.to(dtype=torch.float32).synthesis(w), exact)


def test_loaded_weights_are_frozen(conformance):
    network = StyleGAN3.from_state(conformance("stylegan3_t64").state)
    assert not any(p.requires_grad for p in network.parameters())


def test_styles_of_the_wrong_shape_are_refused():
    with pytest.raises(InputError, match=r"styles are \(2, 4, 3\), need to be \(n, 5, 3\)"):
        tiny().synthesis(torch.zeros(2, 4, 3))


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("synthesis.L3_36_64.weight", {}, "layers .* expected 0, 1, 2"),
        ("synthesis.L3_36_64.bias", {}, "synthesis.L3_36_64.bias is missing"),
        ("synthesis.input.freqs", {}, "synthesis.input.freqs is missing"),
        ("mapping.fc1.weight", {}, "mapping.fc1.bias has no place"),
        (None, {"synthesis.input.phases": torch.zeros(3)}, r"phases is \(3,\), expected \(64,\)"),
        (None, {"synthesis.L0_36_64.up_filter": torch.zeros(9)}, r"is \(9,\), expected \(12,\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(conformance, drop, add, message):
    state = {k: v for k, v in conformance("stylegan3_t64").state.items() if k != drop}
    with pytest.raises(InputError, match=message) as caught:
        StyleGAN3.from_state({**state, **add})
    assert "\n" not in str(caught.value)


def test_layers_of_another_geometry_are_refused(conformance):
    with pytest.raises(InputError, match="checkpoint: the tensor"):
        StyleGAN3.from_state(conformance("stylegan3_t64").state, SignalConfig(margin=4))
