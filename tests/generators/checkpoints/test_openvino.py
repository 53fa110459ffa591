"""OpenVINO's files: constants by name; hostile ones cost one line."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_audit.cli import outcome
from pulse_audit.generators.checkpoints import read_checkpoint
from pulse_audit.generators.checkpoints.budget import Damaged, file_budget
from pulse_audit.generators.checkpoints.openvino import read_constants
from pulse_audit.types import InputError

LAYER = (
    '<layer id="0" name="{}" type="Const">'
    '<data element_type="{}" shape="{}" offset="{}" size="{}"/></layer>'
)


def described(layers: str, version: str = "10", head: str = "") -> bytes:
    network = f'<net version="{version}"><layers>{layers}</layers></net>'
    return f'<?xml version="1.0"?>{head}{network}'.encode()


def exported(constants: dict[str, torch.Tensor]) -> tuple[bytes, bytes]:
    """XML and numbers of a network with these constants."""
    layers, numbers = "", b""
    for name, value in constants.items():
        data = value.numpy().tobytes()
        shape = ", ".join(map(str, value.shape))
        layers += LAYER.format(name, "f32", shape, len(numbers), len(data))
        numbers += data
    return described(layers), numbers


def mobile_constants() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Constants under the published names: two blocks of 8 and 4 channels, w of 6."""
    source = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source)

    mapping = {"10": draw(6, 6), "11": draw(6), "9": draw(6, 6), "8": draw(6)}
    synthesis = {"m.input.input": draw(1, 8, 4, 4), "Mul_39_copy": draw(8, 8, 3, 3)}
    synthesis |= {"100": draw(1, 1, 4, 4), "m.conv1.bias": draw(1, 8, 1, 1)}
    affine = {"m.conv1.conv": 8}
    for i, (n_in, n_out) in enumerate([(8, 8), (8, 4)]):
        block = f"m.layers.{i}"
        affine[f"{block}.up"] = n_in
        for half, width in ((1, n_in // 4), (2, n_out)):
            number = 200 + 100 * i + half
            affine[f"{block}.conv{half}.conv"] = width
            synthesis[f"{block}.conv{half}.conv.weight_dw"] = draw(width, 1, 1, 3, 3)
            synthesis[f"{block}.conv{half}.bias"] = draw(1, n_out, 1, 1)
            synthesis[f"Mul_{number}_copy"] = draw(n_out, width, 1, 1)
            synthesis[str(number)] = draw(1, 1, 8 * 2**i, 8 * 2**i)
    affine["m.layers.1.to_img.conv"] = 4
    synthesis |= {"m.layers.1.to_img.conv.weight": draw(12, 4, 1, 1)}
    synthesis |= {"m.layers.1.to_img.bias": draw(1, 12, 1, 1), "Constant_5": draw(1, 1, 1, 1)}
    for name, width in affine.items():
        synthesis[f"{name}.modulation.weight"] = draw(width, 6)
        synthesis[f"{name}.modulation.bias"] = draw(1, width)
    return mapping, synthesis


def archived(path: Path, mapping: tuple[bytes, bytes], synthesis: tuple[bytes, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as members:
        for name, (xml, numbers) in (("Mapping", mapping), ("Synthesis", synthesis)):
            members.writestr(f"{name}Network.xml", xml)
            members.writestr(f"{name}Network.bin", numbers)
    return path


def refused(xml: bytes, numbers: bytes = bytes(64)) -> str:
    with file_budget(), pytest.raises(Damaged) as caught:
        read_constants(xml, numbers)
    return str(caught.value)


def test_constants_have_their_names_and_values():
    values = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(2.5)}
    half = np.float16([1, 2]).tobytes()
    xml, numbers = exported(values)
    layers = LAYER.format("h", "f16", "2", len(numbers), 4)
    layers += LAYER.format("i", "i64", "1", 0, 8)
    xml = xml.replace(b"</layers>", layers.encode() + b"</layers>")
    read = read_constants(xml, numbers + half)
    assert read.keys() == {"a", "b", "h"}
    assert all(value.dtype == torch.float32 for value in read.values())
    torch.testing.assert_close({k: read[k] for k in values}, values)
    assert read["h"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("constant", "reason"),
    [
        (("a", "f32", "4", 56, 16), "ends at byte 72 of 64"),
        (("a", "f32", "4", -4, 16), "impossible"),
        (("a", "f32", "4", 10**11, 16), "ends at byte"),
        (("a", "f32", "999999, 999999", 0, 16), "declares 16 bytes"),
        (("a", "f32", "4", 0, 4 * 10**11), "declares"),
        (("a", "f32", "4,", 0, 16), "impossible"),
        (("a", "f32", ",".join("1" * 12), 0, 4), "impossible"),
        (("a", "string", "4", 0, 4), "element type 'string'"),
    ],
)
def test_constants_that_do_not_fit_are_refused(constant, reason):
    assert reason in refused(described(LAYER.format(*constant)))


def test_hostile_xml_is_refused():
    entity = '<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
    outside = '<!DOCTYPE net SYSTEM "file:///etc/passwd">'
    assert "document type" in refused(described("&b;", head=entity))
    assert "document type" in refused(described("", head=outside))
    assert "broken" in refused(b"<net version='10'><layers>")
    assert "broken" in refused(b"\xff\xfe\x00")
    assert "version 10 or 11" in refused(described("", version="3"))
    assert "version 10 or 11" in refused(b"<html/>")
    assert "nested" in refused(described("<a>" * 100 + "</a>" * 100))
    two = LAYER.format("a", "f32", "1", 0, 4) * 2
    assert "two of its constants" in refused(described(two))
    assert "over" in refused(described(" " * 2**24))


def test_a_million_layers_cost_no_more_than_the_budget():
    assert "objects" in refused(described('<a b="" c=""/>' * 1_000_000))


def test_one_stretch_of_bytes_under_many_names_is_counted_each_time():
    layers = "".join(LAYER.format(i, "f32", "4194304", 0, 2**24) for i in range(70))
    assert "bytes" in refused(described(layers), bytes(2**24))


def test_an_archive_becomes_the_network(tmp_path):
    mapping, synthesis = mobile_constants()
    path = archived(tmp_path / "a.zip", exported(mapping), exported(synthesis))
    network = read_checkpoint(path)
    assert (network.family, network.resolution, network.num_ws) == ("mobilestylegan", 32, 8)
    # The mapping's layers are in the order of their numbers: 9 and 8, then 10 and 11.
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    x = z / z.square().mean(1, keepdim=True).sqrt()
    for weight, bias in (("9", "8"), ("10", "11")):
        x = torch.nn.functional.leaky_relu(x @ mapping[weight].T + mapping[bias], 0.2) * 2**0.5
    torch.testing.assert_close(network.mapping(z)[:, 0], x, atol=1e-5, rtol=1e-4)
    assert network.synthesis(network.mapping(z)).shape == (2, 3, 32, 32)


def test_missing_and_unknown_constants_are_refused_by_name(tmp_path):
    mapping, synthesis = mobile_constants()
    for change, reason in (
        ({k: v for k, v in synthesis.items() if k != "m.conv1.bias"}, "m.conv1.bias is missing"),
        (synthesis | {"m.more": torch.zeros(1)}, "unknown tensors: m.more"),
        ({"a": torch.zeros(1)}, "no blocks"),
    ):
        path = archived(tmp_path / "a.zip", exported(mapping), exported(change))
        with pytest.raises(InputError, match=reason):
            read_checkpoint(path)


def test_a_hostile_archive_costs_one_line_and_exit_2(tmp_path, capsys):
    bad = described("", head='<!DOCTYPE net SYSTEM "x">'), b""
    path = archived(tmp_path / "a.zip", bad, bad)
    assert outcome(["list", "generators", str(path)]) == 2
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 1 and "document type" in lines[0]
