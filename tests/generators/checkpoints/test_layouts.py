import pytest
import torch
import torch.nn.functional as F

from pulse_audit.generators.checkpoints.layouts import (
    stylegan1_from_genforce,
    stylegan1_from_lernapparat,
    stylegan1_from_rosinality,
    stylegan2_from_genforce,
    stylegan2_from_rosinality,
)
from pulse_audit.generators.stylegan1 import StyleGAN1
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.types import InputError


def test_rosinality_stylegan2_gives_the_pixels_of_the_reference(conformance):
    file = conformance("stylegan2_rosinality_32")
    network = StyleGAN2.from_state(stylegan2_from_rosinality(file.state, None))
    w = network.mapping(file.inputs("input.z", 2, 512))
    assert file.relative(w[:, 0], "w") < 1e-5
    assert file.error(network.synthesis(w), "pixels") < 1e-5


@pytest.mark.parametrize("name", ["stylegan2_genforce_32", "stylegan2_genforce_cond32"])
def test_genforce_stylegan2_gives_the_pixels_of_the_reference(conformance, name):
    """The first is of the architecture skip, the second origin and conditional."""
    file = conformance(name)
    network = StyleGAN2.from_state(stylegan2_from_genforce(file.state), joint_norm=True)
    z, classes = file.inputs("input.z", 2, 32), file.init["label_size"]
    labels = F.one_hot(torch.arange(2), classes).float() if classes else None
    w = network.mapping(z, labels)
    assert file.relative(w[:, 0], "w") < 1e-5
    assert file.error(network.synthesis(w), "pixels") < 1e-5
    truncated = network.mapping(z, labels, truncation=0.7)
    assert file.error(network.synthesis(truncated), "pixels_psi07") < 1e-5


def test_rosinality_average_becomes_the_average_of_w(conformance):
    state = conformance("stylegan2_rosinality_32").state
    average = torch.linspace(-1, 1, 512)
    network = StyleGAN2.from_state(stylegan2_from_rosinality(state, average))
    assert torch.equal(network.map.w_avg, average)


def test_rosinality_files_without_noise_maps_get_fixed_ones(conformance):
    state = conformance("stylegan2_rosinality_32").state
    old = {key: value for key, value in state.items() if not key.startswith("noises.")}
    first, again = stylegan2_from_rosinality(old, None), stylegan2_from_rosinality(old, None)
    maps = [key for key in first if key.endswith("noise_const")]
    assert len(maps) == 7
    assert all(torch.equal(first[key], again[key]) for key in maps)
    assert first["synthesis.b32.conv1.noise_const"].std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("convs.0.conv.weight", None, r"layers \[1, 2, 3, 4, 5\]"),
        ("convs.0.activate.bias", None, "convs.0.activate.bias is missing"),
        ("input.input", torch.zeros(512), r"input.input has the shape \(512,\)"),
        ("noises.noise_2", torch.zeros(1, 1, 9, 9), r"noise map has the shape \(1, 1, 9, 9\)"),
        ("convs.0.noise.weight", torch.zeros(3), r"noise.weight has the shape \(3,\)"),
        ("style.3.weight", None, "mapping layers"),
        ("to_rgbs.0.upsample.kernel", torch.ones(4, 4), "different resampling filters"),
    ],
)
def test_rosinality_stylegan2_weights_that_do_not_fit_are_named(conformance, key, value, message):
    state = dict(conformance("stylegan2_rosinality_32").state)
    if value is None:
        del state[key]
    else:
        state[key] = value
    with pytest.raises(InputError, match=message):
        stylegan2_from_rosinality(state, None)


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
    network = stylegan1_from_lernapparat(lernapparat)
    file = conformance("stylegan1_pulse_64")
    assert file.error(rendered(network, file), "pixels") < 1e-5
    mapping = conformance("stylegan1_pulse_mapping")
    w = network.mapping(mapping.inputs("input.z", 4, 512))
    assert mapping.relative(w[:, 0], "w") < 1e-5


def test_pulse_with_its_mapping_can_truncate(conformance):
    synthesis = conformance("stylegan1_pulse_64").state
    # A hundred times the drawn weights: as drawn, w hardly depends on z.
    mapping = {k: 100 * v for k, v in conformance("stylegan1_pulse_mapping").state.items()}
    network = StyleGAN1(synthesis, mapping)
    z = torch.randn(2000, 512, generator=torch.Generator().manual_seed(1))
    w = network.mapping(z)
    spread = w[:, 0].std(dim=0)
    assert ((network.map.w_avg - w[:, 0].mean(dim=0)).abs() < 5 * spread / 2000**0.5).all()
    cut = network.mapping(z[:1], truncation=0.5, cutoff=3)
    torch.testing.assert_close(cut[:, :3], (w[:1, :3] + network.map.w_avg) / 2)
    torch.testing.assert_close(cut[:, 3:], w[:1, 3:])


def test_pulse_alone_has_no_mapping(conformance):
    network = StyleGAN1(conformance("stylegan1_pulse_64").state)
    with pytest.raises(InputError, match="mapping"):
        network.mapping(torch.zeros(1, 512))


def test_genforce_gives_the_pixels_of_the_reference(conformance):
    """Its own noise, its epsilon, and both kinds of upsampling (the fused one from 128 px)."""
    file = conformance("stylegan1_genforce_128")
    network = stylegan1_from_genforce(file.state, "auto")
    z = file.inputs("input.z", 2, 32)
    w = network.mapping(z)
    assert file.relative(w[:, 0], "w") < 1e-5
    assert file.error(network.synthesis(w, "const"), "pixels") < 2e-5
    truncated = network.mapping(z, truncation=0.7)
    assert file.error(network.synthesis(truncated), "pixels_psi07") < 2e-5


def test_half_grown_genforce_networks_are_refused(conformance):
    state = conformance("stylegan1_genforce_128").state
    with pytest.raises(InputError, match="half grown"):
        stylegan1_from_genforce({**state, "synthesis.lod": torch.tensor(0.5)}, "auto")


@pytest.fixture(scope="session")
def rosinality(conformance):
    return conformance("stylegan1_rosinality_128")


def test_rosinality_gives_the_pixels_of_the_reference(rosinality):
    """The layers above 128 px were never trained, and the file holds some of them."""
    network = stylegan1_from_rosinality(rosinality.state)
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
    assert stylegan1_from_rosinality(rosinality.state, 8).resolution == 8
    with pytest.raises(InputError, match="no layers for 1024 px"):
        stylegan1_from_rosinality(rosinality.state, 1024)


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
        stylegan1_from_rosinality(state)


LAYOUTS = {
    "stylegan1_rosinality_128": stylegan1_from_rosinality,
    "stylegan2_rosinality_32": lambda state: stylegan2_from_rosinality(state, None),
    "stylegan2_genforce_32": stylegan2_from_genforce,
    "stylegan2_genforce_cond32": stylegan2_from_genforce,
    "stylegan1_genforce_128": lambda state: stylegan1_from_genforce(state, "auto"),
    "stylegan1_pulse_64": StyleGAN1,
    "stylegan2_ada_skip64": StyleGAN2.from_state,
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_unknown_tensors_are_named(conformance, name):
    """A network without one of its tensors renders images, only other ones."""
    state = {**conformance(name).state, "synthesis.attention.weight": torch.zeros(1)}
    with pytest.raises(InputError, match="synthesis.attention.weight"):
        LAYOUTS[name](state)


def test_unknown_tensors_of_lernapparat_are_named(lernapparat):
    for key in ("g_mapping.attention", "attention", "truncation.other"):
        with pytest.raises(InputError, match="unknown tensors: .*(attention|other)"):
            stylegan1_from_lernapparat({**lernapparat, key: torch.zeros(1)})


def test_genforce_resnets_are_refused(conformance):
    state = dict(conformance("stylegan2_genforce_32").state)
    state |= {f"synthesis.skip_layer{i}.weight": torch.zeros(48, 48, 1, 1) for i in range(3)}
    with pytest.raises(InputError, match="unknown tensors: synthesis.skip_layer0.weight"):
        stylegan2_from_genforce(state)


def dense(x, state, key, gain, lr):
    weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
    x = x @ (weight * lr / weight.shape[1] ** 0.5).T * 2**0.5 + bias * lr * gain
    return torch.where(x > 0, x, 0.2 * x)


def normalised(x):
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def test_a_conditional_stylegan1_of_genforce_appends_the_class_before_the_norm(conformance):
    state = dict(conformance("stylegan1_genforce_128").state)
    source = torch.Generator().manual_seed(0)
    state["mapping.label_weight"] = torch.randn(5, 12, generator=source)
    state["mapping.dense0.weight"] = torch.randn(24, 44, generator=source)
    # A hundred times the drawn weights: as drawn, w hardly depends on z.
    state |= {k: 100 * v for k, v in state.items() if k.startswith("mapping.dense")}
    del state["truncation.w_avg"]
    network = stylegan1_from_genforce(state, "auto")
    assert (network.z_dim, network.c_dim) == (32, 5)
    z, labels = torch.randn(3, 32, generator=source), torch.eye(5)[[0, 4, 2]]
    x = normalised(torch.cat([z, labels @ state["mapping.label_weight"]], dim=1))
    for index in range(3):
        x = dense(x, state, f"mapping.dense{index}", 1.0, 0.01)
    w = network.mapping(z, labels)
    torch.testing.assert_close(w[:, 0], x)
    assert network.synthesis(w).shape == (3, 3, 128, 128)
    with pytest.raises(InputError, match="conditional on 5 classes"):
        network.mapping(z)
    # The average is over all classes alike.
    z = torch.randn(5000, 32, generator=source)
    of_all = network.mapping(z, torch.eye(5)[torch.arange(5000) % 5])[:, 0]
    of_one = network.mapping(z, torch.eye(5)[torch.zeros(5000, dtype=torch.int64)])[:, 0]
    tolerance = 6 * of_all.std(0) / 5000**0.5
    assert ((network.map.w_avg - of_all.mean(0)).abs() < tolerance).all()
    assert ((network.map.w_avg - of_one.mean(0)).abs() > tolerance).any()


def test_a_conditional_ada_of_genforce_normalises_z_and_class_apart(conformance):
    state = dict(conformance("stylegan2_genforce_32").state)
    source = torch.Generator().manual_seed(0)
    state["mapping.LabelEmbed.weight"] = torch.randn(32, 5, generator=source)
    state["mapping.LabelEmbed.bias"] = torch.randn(32, generator=source)
    state["mapping.dense0.weight"] = torch.randn(24, 64, generator=source)
    network = StyleGAN2.from_state(stylegan2_from_genforce(state))
    assert (network.z_dim, network.c_dim) == (32, 5)
    z, labels = torch.randn(3, 32, generator=source), torch.eye(5)[[0, 4, 2]]
    embedded = labels @ state["mapping.LabelEmbed.weight"].T / 5**0.5
    embedded = embedded + state["mapping.LabelEmbed.bias"]
    x = torch.cat([normalised(z), normalised(embedded)], dim=1)
    for index in range(3):
        x = dense(x, state, f"mapping.dense{index}", 2**0.5, 0.01)
    torch.testing.assert_close(network.mapping(z, labels)[:, 0], x)


@pytest.mark.parametrize("upsampling", ["fused", "separate"])
def test_the_upsampling_of_a_stylegan1_of_genforce_is_chosen(conformance, upsampling):
    """A layer of one kind is a layer of the other kind with its kernel turned.

    The reference is ``auto``: separate in layers 2 to 8 (up to 64 px), fused in layer 10.
    """
    file = conformance("stylegan1_genforce_128")
    state = dict(file.state)
    for index in range(2, 12, 2):
        if (index < 10) == (upsampling == "fused"):
            key = f"synthesis.layer{index}.weight"
            state[key] = state[key].flip(2, 3)
    network = stylegan1_from_genforce(state, upsampling)
    w = network.mapping(file.inputs("input.z", 2, 32))
    assert file.error(network.synthesis(w), "pixels") < 2e-5
    other = stylegan1_from_genforce(state, "auto")
    assert file.error(other.synthesis(w), "pixels") > 0.1


@pytest.mark.parametrize("resolution", [0, 12, 100])
def test_rosinality_has_no_layers_for_odd_sizes(rosinality, resolution):
    with pytest.raises(InputError, match=f"no layers for {resolution} px"):
        stylegan1_from_rosinality(rosinality.state, resolution)
