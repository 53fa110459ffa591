import pytest
import torch

from pulse_audit.generators.checkpoints.stylegan1_layouts import (
    from_genforce,
    from_lernapparat,
    from_pulse,
    from_rosinality,
)
from pulse_audit.types import InputError


@pytest.fixture
def lernapparat(conformance):
    """PULSE's weights under the names of for_g_all.pt."""
    synthesis = conformance("stylegan1_pulse_64").state
    mapping = conformance("stylegan1_pulse_mapping").state
    renamed = {k.replace(".noise.", ".top_epi.noise."): v for k, v in synthesis.items()}
    return {
        **{f"g_synthesis.{key}": value for key, value in renamed.items()},
        **{f"g_mapping.{key}": value for key, value in mapping.items()},
    }


def rendered(network, file):
    w = file.inputs("input.w", 1, network.num_ws, network.w_dim)
    noise = [file.inputs(f"input.noise{i}", 1, 1, *s) for i, s in enumerate(network.noise_shapes)]
    return network.synthesis(w, noise)


def test_lernapparat_gives_the_pixels_of_the_reference(conformance, lernapparat):
    network = from_lernapparat(lernapparat)
    file = conformance("stylegan1_pulse_64")
    assert file.error(rendered(network, file), "pixels") < 1e-5
    mapping = conformance("stylegan1_pulse_mapping")
    w = network.mapping(mapping.inputs("input.z", 4, 512))
    assert mapping.relative(w[:, 0], "w") < 1e-5


def test_pulse_with_its_mapping_can_truncate(conformance):
    synthesis = conformance("stylegan1_pulse_64").state
    # A hundred times the drawn weights: as drawn, w hardly depends on z.
    mapping = {k: 100 * v for k, v in conformance("stylegan1_pulse_mapping").state.items()}
    network = from_pulse(synthesis, mapping)
    z = torch.randn(2000, 512, generator=torch.Generator().manual_seed(1))
    w = network.mapping(z)
    spread = w[:, 0].std(dim=0)
    assert ((network.w_avg - w[:, 0].mean(dim=0)).abs() < 5 * spread / 2000**0.5).all()
    cut = network.mapping(z[:1], truncation=0.5, cutoff=3)
    torch.testing.assert_close(cut[:, :3], (w[:1, :3] + network.w_avg) / 2)
    torch.testing.assert_close(cut[:, 3:], w[:1, 3:])


def test_pulse_alone_has_no_mapping(conformance):
    network = from_pulse(conformance("stylegan1_pulse_64").state, None)
    with pytest.raises(InputError, match="mapping"):
        network.mapping(torch.zeros(1, 512))


def test_genforce_gives_the_pixels_of_the_reference(conformance):
    """Its own noise, its epsilon, and both kinds of upsampling (the fused one from 128 px)."""
    file = conformance("stylegan1_genforce_128")
    network = from_genforce(file.state)
    z = file.inputs("input.z", 2, 32)
    w = network.mapping(z)
    assert file.relative(w[:, 0], "w") < 1e-5
    assert file.error(network.synthesis(w, "const"), "pixels") < 2e-5
    truncated = network.mapping(z, truncation=0.7)
    assert file.error(network.synthesis(truncated), "pixels_psi07") < 2e-5


def test_half_grown_genforce_networks_are_refused(conformance):
    state = conformance("stylegan1_genforce_128").state
    with pytest.raises(InputError, match="half grown"):
        from_genforce({**state, "synthesis.lod": torch.tensor(0.5)})


@pytest.fixture(scope="session")
def rosinality(conformance):
    return conformance("stylegan1_rosinality_128")


def test_rosinality_gives_the_pixels_of_the_reference(rosinality):
    """The layers above 128 px were never trained, and the file holds some of them."""
    network = from_rosinality(rosinality.state)
    assert network.resolution == 128
    w = network.mapping(rosinality.inputs("input.z", 1, 512))
    assert rosinality.relative(w[:, 0], "w") < 1e-5
    noise = [
        # One map a resolution there, one a layer here.
        rosinality.inputs(f"input.noise{i // 2}", 1, 1, *shape)
        for i, shape in enumerate(network.noise_shapes)
    ]
    assert rosinality.error(network.synthesis(w, noise), "pixels") < 5e-5
    assert rosinality.error(network.synthesis(w, "none"), "pixels_noise_none") < 5e-5


def test_rosinality_takes_the_resolution_it_is_given(rosinality):
    assert from_rosinality(rosinality.state, 8).resolution == 8
    with pytest.raises(InputError, match="no layers for 1024 px"):
        from_rosinality(rosinality.state, 1024)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("generator.progression.2.conv1.1.conv.bias", "conv1.1.conv.bias is missing"),
        ("generator.progression.0.noise1.weight_orig", "expected 0, 1, 2"),
        ("generator.to_rgb.5.conv.bias", "to_rgb.5.conv.bias is missing"),
    ],
)
def test_rosinality_weights_that_do_not_fit_are_named(rosinality, key, message):
    state = {k: v for k, v in rosinality.state.items() if k != key}
    with pytest.raises(InputError, match=message):
        from_rosinality(state)
