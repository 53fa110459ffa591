"""The shipped attribute network: what it computes, what its files promise, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pulse_audit.faces.attribute_net import (
    AttributeNet,
    ShippedAttributes,
    load_attribute_net,
    save_attribute_net,
)
from pulse_audit.types import InputError

WORDS = {"race": ("A", "B", "C"), "gender": ("F", "M")}
COUNTS = {"race": [[5, 1, 0], [2, 4, 0], [0, 1, 5]], "gender": [[8, 1], [2, 7]]}
CARD = {
    "name": "tiny",
    "crop": "fairface-0.25",
    "temperatures": {"race": 1.5, "gender": 0.8},
    "held_out": {"32": {k: np.array(v).T.tolist() for k, v in COUNTS.items()}, "64": COUNTS},
    "licence": "Apache-2.0",
    "notes": ["apparent"],
}


def tiny() -> AttributeNet:
    torch.manual_seed(3)
    network = AttributeNet(WORDS, (4, 8, 8), (1, 2, 1))
    # Running statistics as of real activations, so that normalisation is not the identity.
    network.train()(torch.rand(32, 3, 64, 64))
    return network.eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_attribute_net(tiny(), tmp_path / "tiny.safetensors", CARD)
    return tmp_path / "tiny.safetensors"


def test_it_says_what_its_layers_say_over_both_mirror_images(path: Path) -> None:
    model, network = load_attribute_net(path), tiny()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = (network.trunk(images) + network.trunk(images.flip(3))) / 2
    expected = F.softmax(network.heads["race"](features) / 1.5, dim=1)
    found = model(images)
    torch.testing.assert_close(found.probabilities["race"], expected, atol=2e-3, rtol=0)
    assert found.features is not None
    torch.testing.assert_close(found.features, features, atol=2e-3, rtol=1e-2)


def test_mirrored_images_get_the_same_answer(path: Path) -> None:
    model = load_attribute_net(path)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, other = model(images).probabilities, model(images.flip(3)).probabilities
    torch.testing.assert_close(one["race"], other["race"])


def test_an_answer_does_not_depend_on_batch_mates(path: Path) -> None:
    model = load_attribute_net(path)
    images = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    alone = torch.cat([model(image[None]).probabilities["race"] for image in images])
    torch.testing.assert_close(model(images).probabilities["race"], alone, atol=1e-6, rtol=0)


def test_guidance_can_differentiate_it(path: Path) -> None:
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    probabilities = load_attribute_net(path)(images).probabilities["gender"]
    torch.autograd.backward(probabilities[:, 0].log().sum())
    assert images.grad is not None and float(images.grad.abs().max()) > 0


def test_the_confusion_is_that_of_the_images_size(path: Path) -> None:
    model = load_attribute_net(path)
    assert (model.card.resolution, model.card.confusion["race"][1]) == (64, (2, 4, 0))
    at = {size: model.at_resolution(size).card for size in (16, 32, 50, 64, 1024)}
    assert [at[size].resolution for size in at] == [32, 32, 32, 64, 64]
    assert at[32].confusion["race"][1] == (1, 4, 1)


def test_the_card_states_words_and_origin(path: Path) -> None:
    card = load_attribute_net(path).card
    assert (card.name, card.vocabulary, card.licence) == ("tiny", WORDS, "Apache-2.0")
    assert (card.feature_dim, card.notes) == (8, ("apparent",))


def edited(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.with_suffix(".json").read_text())
    change(content)
    path.with_suffix(".json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda p: p.write_bytes(b"x" + p.read_bytes()[1:]), "not those of their card"),
        (lambda p: p.with_suffix(".json").unlink(), "its card .*json is missing"),
        (lambda p: p.with_suffix(".json").write_text("{"), "unreadable"),
        (lambda p: edited(p, lambda c: c.update(format="other")), "no attribute net card"),
        (lambda p: edited(p, lambda c: c.update(version=9)), "version 9"),
        (lambda p: edited(p, lambda c: c.update(widths=[4, 4, 8])), "do not fit their card"),
        (lambda p: edited(p, lambda c: c.pop("vocabulary")), "damaged card"),
    ],
)
def test_damaged_files_cost_one_line(
    path: Path, damage: Callable[[Path], object], line: str
) -> None:
    damage(path)
    with pytest.raises(InputError, match=line) as caught:
        load_attribute_net(path)
    assert "\n" not in str(caught.value)


def test_a_model_without_measured_errors_is_left_as_it_is() -> None:
    network = tiny()
    from pulse_audit.types import AttributeCard

    card = AttributeCard("bare", WORDS, 64, "as-is")
    model = ShippedAttributes(network, card, {"race": 1.0, "gender": 1.0}, {})
    assert model.at_resolution(32) is model
