"""FairFace's own classifier, tried with seeded random weights: the published ones are 85 MB."""

import pickle

import pytest
import torch
from torchvision.models import resnet34
from torchvision.transforms import v2

from pulse_audit.faces.attributes import check_card, checked
from pulse_audit.faces.fairface import AGES, GENDERS, LAYOUTS, RACES, load_fairface
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = resnet34(num_classes=18)
    # Statistics that a training would leave behind: without them batch norm is the identity.
    for name, value in made.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.8, 1.2)
    return made.eval()


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    place = tmp_path_factory.mktemp("fairface") / "res34_fair_align_multi_7_20190809.pt"
    # As the published files, from before PyTorch 1.6.
    torch.save(network.state_dict(), place, _use_new_zipfile_serialization=False)
    return place


@pytest.fixture(scope="module")
def model(path):
    return load_fairface(path, "fairface-race7", licence="CC BY 4.0")


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def outputs(network, images):
    """The network run as torchvision's own transforms prepare its input."""
    normalise = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        return network(normalise(images))


def refusal(path, name="fairface-race7"):
    with pytest.raises(InputError) as caught:
        load_fairface(path, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_outputs_are_race_gender_and_age_in_this_order(model, images, outputs):
    answer = checked(model, images)
    expected = {"race": outputs[:, :7], "gender": outputs[:, 7:9], "age": outputs[:, 9:18]}
    assert list(answer.probabilities) == list(expected)
    for attribute, logits in expected.items():
        torch.testing.assert_close(answer.probabilities[attribute], logits.softmax(1))


def test_the_features_are_the_input_of_the_last_layer(model, network, images, outputs):
    features = model(images).features
    assert features.shape == (2, 512) == (2, model.card.feature_dim)
    torch.testing.assert_close(network.fc(features), outputs, atol=1e-5, rtol=1e-4)


def test_the_card_says_what_is_known(model, path):
    card = model.card
    check_card(card)
    assert card.vocabulary == {"race": RACES, "gender": GENDERS, "age": AGES}
    assert (len(RACES), len(GENDERS), len(AGES)) == (7, 2, 9)
    assert (card.resolution, card.crop, card.licence) == (224, "fairface-0.25", "CC BY 4.0")
    assert card.sha256 == sha256(path.read_bytes())
    assert "get_face_chips" in card.notes[0] and "MTCNN" in card.notes[0]


def test_of_the_four_race_file_the_first_four_outputs_are_read(path, images, outputs):
    model = load_fairface(path, "fairface-race4")
    answer = checked(model, images)
    assert list(answer.probabilities) == ["race4"]
    assert model.card.vocabulary["race4"] == ("White", "Black", "Asian", "Indian")
    torch.testing.assert_close(answer.probabilities["race4"], outputs[:, :4].softmax(1))
    assert any("not stated" in note for note in model.card.notes)


def test_other_sizes_are_resized_and_gradients_reach_the_image(model):
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    images.requires_grad_()
    model(images).probabilities["race"][0, 1].log().backward()
    assert float(images.grad.abs().sum()) > 0


def test_an_answer_does_not_depend_on_batch_mates(model, images):
    together = model(images).probabilities["race"]
    torch.testing.assert_close(model(images[1:]).probabilities["race"][0], together[1])


def test_a_newer_container_and_missing_counters_are_read_too(network, images, outputs, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "new.pt")
    answer = load_fairface(tmp_path / "new.pt", "fairface-race7")(images)
    torch.testing.assert_close(answer.probabilities["race"], outputs[:, :7].softmax(1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("layer2.0.conv1.weight"), "'layer2.0.conv1.weight' is missing"),
        (lambda s: s.update({"fc.weight": torch.zeros(7, 512)}), "'fc.weight' has shape (7, 512)"),
        (lambda s: s.update({"extra": torch.zeros(1)}), "it also holds 'extra'"),
        (lambda s: s.update({"fc.bias": torch.full((18,), torch.nan)}), "not finite"),
    ],
)
def test_weights_of_something_else_are_refused(network, tmp_path, change, said):
    # One zero, seen in every shape: the file has a few kilobytes.
    state = {k: torch.zeros(()).expand(v.shape) for k, v in network.state_dict().items()}
    change(state)
    torch.save(state, tmp_path / "other.pt")
    assert said in refusal(tmp_path / "other.pt")


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"fc.weight": Malicious()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Malicious()))
    for name in "ab":
        assert "nothing was run" in refusal(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x80\x02garbage", b"PK\x03\x04broken"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    assert "holds no plain weights" in refusal(tmp_path / "a.pt")


def test_a_missing_file_and_a_list_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    assert "holds a list" in refusal(tmp_path / "list.pt")


def test_every_layout_fits_in_the_outputs():
    for layout in LAYOUTS.values():
        taken = [
            i
            for words, first in layout.attributes.values()
            for i in range(first, first + len(words))
        ]
        assert len(set(taken)) == len(taken) and max(taken) < 18
