import argparse
import io
import pickle
import random
import resource
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pulse_audit.generators.checkpoints import read_checkpoint
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.types import InputError


def check_stylegan2(file, network, tolerance):
    n, classes = len(file.arrays["w"]), file.init["c_dim"]
    labels = F.one_hot(torch.arange(n) % classes, classes).float() if classes else None
    z = file.inputs("input.z", n, network.z_dim)
    w = network.mapping(z, labels)
    assert file.error(network.synthesis(w, "none"), "pixels_noise_none") < tolerance
    assert file.error(network.synthesis(w, "const"), "pixels_noise_const") < tolerance
    w = network.mapping(z, labels, truncation=0.7)
    assert file.error(network.synthesis(w), "pixels_psi07_noise_const") < tolerance


def write_stylegan2(write_nvidia, path, file, **kwargs):
    return write_nvidia(path, file.state, file.init, file.init["synthesis_kwargs"], **kwargs)


@pytest.mark.parametrize("name", ["stylegan2_ada_skip64", "stylegan2_ada_cond32"])
def test_nvidia_stylegan2_pickles(conformance, write_nvidia, tmp_path, name):
    marker = tmp_path / "marker"
    source = f"open({str(marker)!r}, 'w')"
    file = conformance(name)
    path = write_stylegan2(write_nvidia, tmp_path / "net.pkl", file, source=source)
    assert source.encode() in path.read_bytes()
    check_stylegan2(file, read_checkpoint(path), 1e-5)
    assert not marker.exists()


@pytest.mark.slow
def test_nvidia_stylegan2_pickle_of_1024(conformance, write_nvidia, tmp_path):
    file = conformance("stylegan2_ada_configf1024")
    path = write_stylegan2(write_nvidia, tmp_path / "net.pkl", file)
    check_stylegan2(file, read_checkpoint(path, resolution=1024), 1e-4)


@pytest.mark.parametrize("name", ["stylegan3_t64", "stylegan3_r64"])
def test_nvidia_stylegan3_pickles(conformance, write_nvidia, tmp_path, name):
    file = conformance(name)
    rest = ("z_dim", "c_dim", "mapping_kwargs")
    synthesis = {key: value for key, value in file.init.items() if key not in rest}
    # The filters are in the file: what is read besides them are the settings.
    given = {**synthesis, "margin_size": np.int64(10), "output_scale": np.float32(0.25)}
    network = read_checkpoint(write_nvidia(tmp_path / "net.pkl", file.state, file.init, given))
    w = network.mapping(file.inputs("input.z", len(file.arrays["w"]), 64))
    assert file.error(network.synthesis(w), "pixels") < 1e-5


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
def test_nvidia_architectures_and_clamps_are_read(write_nvidia, tmp_path, architecture):
    config = StyleGAN2Config((4, 4, 3), 5, 5, 0, (5,), 0, architecture, conv_clamp=0.5)
    expected = StyleGAN2.fresh(config, seed=0).requires_grad_(False)
    synthesis = {"conv_clamp": 0.5, "architecture": architecture}
    path = write_nvidia(tmp_path / "net.pkl", expected.weights(), {}, synthesis)
    network = read_checkpoint(path)
    assert network.config == config
    w = torch.randn(1, network.num_ws, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.synthesis(w), expected.synthesis(w))


def test_other_activations_are_refused(conformance, write_nvidia, tmp_path, monkeypatch):
    file = conformance("stylegan2_ada_cond32")
    path = write_stylegan2(write_nvidia, tmp_path / "net.pkl", file)
    path.write_bytes(path.read_bytes().replace(b"lrelu", b"swish"))
    with pytest.raises(InputError, match="another activation"):
        read_checkpoint(path)


def test_a_bare_state_dict_in_nvidia_names(conformance, tmp_path):
    file = conformance("stylegan2_ada_skip64")
    torch.save(file.state, tmp_path / "state.pt")
    check_stylegan2(file, read_checkpoint(tmp_path / "state.pt"), 1e-5)


def test_tensorflow_pickles_say_how_to_convert(tmp_path):
    data = b"\x80\x03" + b"cdnnlib.tflib.network\nNetwork\n)\x81" * 3 + b"\x87."
    (tmp_path / "net.pkl").write_bytes(data)
    with pytest.raises(InputError, match="TensorFlow pickle: convert it with legacy.py"):
        read_checkpoint(tmp_path / "net.pkl")


def test_rosinality_training_checkpoint(conformance, tmp_path):
    file = conformance("stylegan2_rosinality_32")
    average = torch.linspace(-1, 1, 512)
    moments = {"state": {0: {"step": 3, "exp_avg": torch.zeros(9)}}, "param_groups": []}
    checkpoint = {"g": {}, "d": {}, "g_ema": file.state, "latent_avg": average}
    checkpoint |= {"g_optim": moments, "args": argparse.Namespace(size=32)}
    torch.save(checkpoint, tmp_path / "550000.pt")
    network = read_checkpoint(tmp_path / "550000.pt")
    w = network.mapping(file.inputs("input.z", 2, 512))
    assert file.error(network.synthesis(w), "pixels") < 1e-5
    assert torch.equal(network.map.w_avg, average)


def genforce(file) -> dict:
    state = file.state
    return {"generator": {}, "discriminator": {}, "generator_smooth": state}


@pytest.mark.parametrize("runner", [False, True])
def test_genforce_stylegan2(conformance, tmp_path, runner):
    file = conformance("stylegan2_genforce_cond32")
    checkpoint = {"models": genforce(file), "optimizers": {}} if runner else genforce(file)
    torch.save(checkpoint, tmp_path / "net.pth")
    network = read_checkpoint(tmp_path / "net.pth")
    w = network.mapping(file.inputs("input.z", 2, 32), torch.eye(5)[:2])
    assert file.error(network.synthesis(w), "pixels") < 1e-5


def test_genforce_stylegan1(conformance, tmp_path):
    file = conformance("stylegan1_genforce_128")
    torch.save(genforce(file), tmp_path / "net.pth")
    network = read_checkpoint(tmp_path / "net.pth", upsampling="auto")
    w = network.mapping(file.inputs("input.z", 2, 32))
    assert file.error(network.synthesis(w), "pixels") < 2e-5


def test_a_stylegan1_of_genforce_asks_how_it_upsamples(conformance, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(genforce(conformance("stylegan1_genforce_128")), path)
    for options in ({}, {"upsampling": "nearest"}):
        with pytest.raises(InputError, match="add @auto to the file's name .* @fused .* @separate"):
            read_checkpoint(path, **options)


def test_a_conditional_ada_of_genforce_is_read(conformance, tmp_path):
    state = dict(conformance("stylegan2_genforce_32").state)
    state["mapping.LabelEmbed.weight"] = torch.eye(32)[:, :5]
    state["mapping.LabelEmbed.bias"] = -torch.ones(32)
    state["mapping.dense0.weight"] = torch.ones(24, 64)
    torch.save({"generator_smooth": state}, tmp_path / "net.pth")
    network = read_checkpoint(tmp_path / "net.pth")
    assert (network.z_dim, network.c_dim, network.config.joint_norm) == (32, 5, False)


def test_a_filter_that_is_not_used_may_differ(conformance):
    """NVIDIA's conv1 stores the default filter whatever the network's own is."""
    state = dict(conformance("stylegan2_ada_cond32").state)
    line = torch.tensor([1.0, 2, 2, 1]) / 6
    own = {k: torch.outer(line, line) for k in state if k.endswith(".resample_filter")}
    rest = {k: v for k, v in own.items() if ".conv1." not in k}
    assert 0 < len(rest) < len(own)
    expected, network = StyleGAN2.from_state(state | own), StyleGAN2.from_state(state | rest)
    w = torch.randn(1, network.num_ws, network.w_dim, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network.synthesis(w), expected.synthesis(w))
    assert not torch.allclose(StyleGAN2.from_state(state).synthesis(w), expected.synthesis(w))


def test_rosinality_stylegan1(conformance, tmp_path):
    file = conformance("stylegan1_rosinality_128")
    torch.save({"g_running": file.state, "generator": {}}, tmp_path / "net.model")
    network = read_checkpoint(tmp_path / "net.model")
    assert network.resolution == 128
    w = network.mapping(file.inputs("input.z", 1, 512))
    assert file.error(network.synthesis(w, "none"), "pixels_noise_none") < 5e-5


def pulse_pixels(file, network):
    w = file.inputs("input.w", 1, network.num_ws, network.w_dim)
    noise = [file.inputs(f"input.noise{i}", 1, 1, *s) for i, s in enumerate(network.noise_shapes)]
    return network.synthesis(w, noise)


@pytest.fixture
def pulse(conformance, tmp_path):
    """PULSE's synthesis.pt, in the format of its time, in a folder of its own."""
    file = conformance("stylegan1_pulse_64")
    path = tmp_path / "pulse" / "synthesis.pt"
    path.parent.mkdir()
    torch.save(file.state, path, _use_new_zipfile_serialization=False)
    return file, path


def test_pulse_synthesis_alone(pulse):
    file, path = pulse
    network = read_checkpoint(path)
    assert network.map is None
    assert file.error(pulse_pixels(file, network), "pixels") < 1e-5


@pytest.mark.parametrize("beside", [True, False])
def test_pulse_with_its_mapping(conformance, pulse, tmp_path, beside):
    file, path = pulse
    mapping = conformance("stylegan1_pulse_mapping")
    place = (path.parent if beside else tmp_path) / "mapping.pt"
    torch.save(mapping.state, place)
    network = read_checkpoint(path) if beside else read_checkpoint(path, mapping=place)
    assert mapping.relative(network.mapping(mapping.inputs("input.z", 4, 512))[:, 0], "w") < 1e-5
    assert file.error(pulse_pixels(file, network), "pixels") < 1e-5


def test_lernapparat_file(conformance, tmp_path):
    file, mapping = conformance("stylegan1_pulse_64"), conformance("stylegan1_pulse_mapping")
    names = {k: k.replace(".noise.", ".top_epi.noise.") for k in file.state}
    state = {f"g_synthesis.{names[k]}": v for k, v in file.state.items()}
    state |= {f"g_mapping.{k}": v for k, v in mapping.state.items()}
    torch.save(state, tmp_path / "karras2019stylegan-ffhq-1024x1024.for_g_all.pt")
    network = read_checkpoint(next(tmp_path.iterdir()))
    assert file.error(pulse_pixels(file, network), "pixels") < 1e-5


def test_data_parallel_prefixes_are_dropped(pulse, tmp_path):
    file, _ = pulse
    torch.save({f"module.{k}": v for k, v in file.state.items()}, tmp_path / "net.pt")
    assert read_checkpoint(tmp_path / "net.pt").resolution == 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(1)}, r"no generator of a known layout \(its keys: weight\)"),
        ([1, 2], r"no generator of a known layout \(a list\)"),
        ({"dense0.weight": torch.zeros(2, 2)}, "a mapping network alone; give the synthesis file"),
        ({"blocks.4x4.const": torch.zeros(1)}, "missing"),
        ({"synthesis.b4.const": torch.zeros(1)}, "missing"),
        ({"synthesis.input.freqs": torch.zeros(1)}, "layers"),
        ({"synthesis.b4.const": torch.zeros(1), "synthesis.b4.conv1.weight": torch.ones(())}, "."),
        ({"evil\n\x1b[31mname": 1}, r"its keys: evil  \[31mname"),
    ],
)
def test_other_contents_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=message) as caught:
        read_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": "mapping.pt"}, "a mapping file belongs to PULSE's synthesis.pt"),
        ({"resolution": 64}, "a network of 32 px, not 64"),
        ({"upsampling": "auto"}, "@auto is for a StyleGAN 1 of genforce, not stylegan2"),
        ({"trust_file": "00"}, "not the one given"),
    ],
)
def test_options_that_do_not_fit_are_refused(conformance, tmp_path, options, message):
    path = tmp_path / "net.pt"
    torch.save(conformance("stylegan2_ada_cond32").state, path)
    with pytest.raises(InputError, match=message):
        read_checkpoint(path, **options)


def test_missing_files_and_mappings_are_named(pulse, tmp_path):
    with pytest.raises(InputError, match="nowhere.pkl: there is no such file"):
        read_checkpoint(tmp_path / "nowhere.pkl")
    with pytest.raises(InputError, match="nowhere.pt: cannot be read: No such file"):
        read_checkpoint(pulse[1], mapping=tmp_path / "nowhere.pt")
    with pytest.raises(InputError, match="no mapping network in PULSE's layout"):
        read_checkpoint(pulse[1], mapping=pulse[1])


class Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return exec, (f"import pathlib; pathlib.Path({str(self.marker)!r}).touch()",)


@pytest.mark.parametrize("suffix", [".pkl", ".pt", ".pth"])
def test_payloads_are_not_executed(tmp_path, conformance, suffix):
    """With weights beside it the file loads as if the payload were not there, alone it does not."""
    marker, path = tmp_path / "marker", tmp_path / f"evil{suffix}"
    state = conformance("stylegan2_ada_cond32").state
    for content in (
        Attack(marker),
        {"g_ema": Attack(marker)},
        {"g_ema": state, "a": Attack(marker)},
    ):
        if suffix == ".pkl":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path)
        if isinstance(content, dict) and "a" in content:
            assert read_checkpoint(path).resolution == 32
        else:
            with pytest.raises(InputError, match="no generator of a known layout"):
                read_checkpoint(path)
    assert not marker.exists()


@pytest.fixture
def limited_memory():
    """Let the process grow by at most 256 MB."""
    if not sys.platform.startswith("linux"):
        pytest.skip("the limit on memory is Linux's")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def bombs() -> dict[str, bytes]:
    """Files of a few bytes that declare very many."""
    huge = struct.pack("<Q", 2**36)
    stored = io.BytesIO()
    torch.save({"synthesis.b4.const": torch.zeros(4)}, stored, _use_new_zipfile_serialization=False)
    stream = stored.getvalue().replace(b"K\x04", b"J" + struct.pack("<i", 2**31 - 1))
    stream = stream.replace(struct.pack("<q", 4), struct.pack("<q", 2**31 - 1))
    return {
        "bytes": b"\x80\x04\x8e" + huge + b"x.",
        "text": b"\x80\x04\x8d" + huge + b"x.",
        "bytearray": b"\x80\x05\x96" + huge + b"x.",
        "frame": b"\x80\x04\x95" + huge + b"x.",
        "integer": b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
        "memo": b"\x80\x04Nr" + struct.pack("<I", 2**31 - 1) + b".",
        "stream": stream,
    }


@pytest.mark.parametrize("name", bombs())
def test_declared_sizes_take_no_memory(tmp_path, limited_memory, name):
    path = tmp_path / "bomb.pkl"
    path.write_bytes(bombs()[name])
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    assert str(caught.value).isprintable()


def test_shapes_that_multiply_take_no_memory(tmp_path, limited_memory):
    """Two vectors of a few kilobytes could ask for a convolution of their product."""
    wide = torch.zeros(200_000, 1, 1, 1)
    state = {f"synthesis.b{size}.conv1.weight": wide for size in (4, 8)}
    state |= {
        "synthesis.b8.torgb.weight": torch.zeros(3, 1, 1, 1),
        "mapping.fc0.weight": wide[:9, 0, 0],
    }
    torch.save({**state, "synthesis.b4.const": torch.zeros(1)}, tmp_path / "net.pt")
    with pytest.raises(InputError, match="the tensor"):
        read_checkpoint(tmp_path / "net.pt")


def test_any_damage_ends_in_a_network_or_one_line(conformance, write_nvidia, tmp_path):
    """Flipped bits and lost ends of a real snapshot, wherever they fall."""
    config = StyleGAN2Config((2, 2), 2, 2, 0, (), 0)
    state = StyleGAN2.fresh(config, seed=0).weights()
    path = write_nvidia(tmp_path / "net.pkl", state, {}, {})
    data, source = path.read_bytes(), random.Random(0)
    for _ in range(60):
        broken = bytearray(data)
        broken[source.randrange(len(data))] ^= 1 << source.randrange(8)
        path.write_bytes(broken if source.random() < 0.7 else data[: source.randrange(len(data))])
        try:
            read_checkpoint(path)
        except InputError as error:
            assert str(error).isprintable() and len(str(error)) < 400
