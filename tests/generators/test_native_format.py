import json

import pytest
import torch

from pulse_audit.files import file_sha256, read_card
from pulse_audit.generators.checkpoints import read_checkpoint
from pulse_audit.generators.native_format import KIND, save_generator
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.generators.stylegan3 import StyleGAN3
from pulse_audit.types import InputError


@pytest.fixture
def saved(tmp_path):
    config = StyleGAN2Config(
        (8, 4), 6, 5, 3, (7,), 2, "resnet", lr_multiplier=0.02, conv_clamp=9.0, joint_norm=True
    )
    network = StyleGAN2.fresh(config, seed=0)
    path = tmp_path / "small.safetensors"
    save_generator(network, path, {"crop": "ffhq", "licence": "CC0"})
    return network, path


def test_a_saved_stylegan2_loads_the_same(saved):
    network, path = saved
    again = read_checkpoint(path)
    assert again.config == network.config
    z, labels = torch.randn(2, 6), torch.eye(3)[:2]
    with torch.no_grad():
        expected = network.synthesis(network.mapping(z, labels))
    assert torch.equal(again.synthesis(again.mapping(z, labels)), expected)
    assert not any(p.requires_grad for p in again.parameters())


def test_a_saved_stylegan3_loads_the_same(tmp_path, conformance):
    file = conformance("stylegan3_t64")
    path = tmp_path / "three.safetensors"
    save_generator(StyleGAN3.from_state(file.state), path, {})
    network = read_checkpoint(path)
    w = network.mapping(file.inputs("input.z", 2, 64))
    assert file.error(network.synthesis(w), "pixels") < 1e-5


def test_the_card_is_plain_json(saved):
    card = read_card(saved[1], KIND)
    assert card["family"] == "stylegan2"
    assert card["card"] == {"crop": "ffhq", "licence": "CC0"}


def edited(path, **changes):
    place = path.with_suffix(".json")
    place.write_text(json.dumps({**json.loads(place.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha256": "0" * 64}, "not those of their card"),
        ({"version": 2}, "version 2 is not known"),
        ({"format": "x"}, "no generator card"),
        ({"family": "stylegan9"}, "family 'stylegan9' is not known"),
        ({"settings": {"depth": 3}}, "settings do not fit stylegan2"),
        ({"settings": None}, "is not known"),
    ],
)
def test_cards_that_do_not_fit_are_refused(saved, changes, message):
    edited(saved[1], **changes)
    with pytest.raises(InputError, match=message):
        read_checkpoint(saved[1])


def test_a_missing_or_broken_card_is_named(saved):
    place = saved[1].with_suffix(".json")
    place.write_text("{" * 100_000)
    with pytest.raises(InputError, match="unreadable"):
        read_checkpoint(saved[1])
    place.unlink()
    with pytest.raises(InputError, match="its card small.json is missing"):
        read_checkpoint(saved[1])


def test_damaged_weights_are_refused(saved):
    path = saved[1]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="another SHA-256"):
        read_checkpoint(path)
    edited(path, sha256=file_sha256(path))
    with pytest.raises(InputError, match="damaged safetensors"):
        read_checkpoint(path)
