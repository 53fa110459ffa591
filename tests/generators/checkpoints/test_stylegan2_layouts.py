import pytest
import torch
import torch.nn.functional as F

from pulse_audit.generators.checkpoints.stylegan2_layouts import from_genforce, from_rosinality
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.types import InputError


def test_rosinality_gives_the_pixels_of_the_reference(conformance):
    file = conformance("stylegan2_rosinality_32")
    network = StyleGAN2.from_state(from_rosinality(file.state, None))
    w = network.mapping(file.inputs("input.z", 2, 512))
    assert file.relative(w[:, 0], "w") < 1e-5
    assert file.error(network.synthesis(w), "pixels") < 1e-5


@pytest.mark.parametrize("name", ["stylegan2_genforce_32", "stylegan2_genforce_cond32"])
def test_genforce_gives_the_pixels_of_the_reference(conformance, name):
    """The first is of the architecture skip, the second origin and conditional."""
    file = conformance(name)
    network = StyleGAN2.from_state(from_genforce(file.state), joint_norm=True)
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
    network = StyleGAN2.from_state(from_rosinality(state, average))
    assert torch.equal(network.map.w_avg, average)


def test_rosinality_files_without_noise_maps_get_fixed_ones(conformance):
    state = conformance("stylegan2_rosinality_32").state
    old = {key: value for key, value in state.items() if not key.startswith("noises.")}
    first, again = from_rosinality(old, None), from_rosinality(old, None)
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
def test_rosinality_weights_that_do_not_fit_are_named(conformance, key, value, message):
    state = dict(conformance("stylegan2_rosinality_32").state)
    if value is None:
        del state[key]
    else:
        state[key] = value
    with pytest.raises(InputError, match=message):
        from_rosinality(state, None)
