"""Attribute models in ONNX files, against the same network in PyTorch."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pulse_audit import onnx_model
from pulse_audit.faces.attributes import checked, is_differentiable
from pulse_audit.faces.onnx_attributes import OutputColumns, load_onnx
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

SIDE = 8
SAID = {
    "resolution": SIDE,
    "crop": "ffhq",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "attributes": {
        "gender": {"output": "logits", "words": ["Male", "Female"]},
        "age": {"output": "logits", "first": 2, "words": ["young", "middle", "old"]},
    },
    "features": "features",
}


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "kernel": random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "head": random.normal(0, 1, (4, 5)).astype(np.float32),
        "bias": random.normal(0, 0.1, 5).astype(np.float32),
    }


def reference(weights, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and features of the same network in PyTorch."""
    mean, std = (torch.tensor(SAID[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    kernel, head, bias = (torch.from_numpy(weights[k]) for k in ("kernel", "head", "bias"))
    found = torch.conv2d((images - mean) / std, kernel, padding=1).relu().mean((2, 3))
    return found @ head + bias, found


def build(weights, batch: int | str = "n", layout: str = "NCHW", metadata=None):
    """The model: convolution, ReLU, average pool (the features), linear (the logits)."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    shape = [batch, 3, SIDE, SIDE] if layout == "NCHW" else [batch, SIDE, SIDE, 3]
    swap = [helper.make_node("Transpose", ["image"], ["x"], perm=[0, 3, 1, 2])]
    nodes = [
        *(swap if layout == "NHWC" else [helper.make_node("Identity", ["image"], ["x"])]),
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["features"]),
        helper.make_node("Gemm", ["features", "head", "bias"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", floats, shape)],
        [
            helper.make_tensor_value_info("logits", floats, [batch, 5]),
            helper.make_tensor_value_info("features", floats, [batch, 4]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if metadata is not None:
        helper.set_model_props(model, {"pulse_audit": json.dumps(metadata)})
    return model


@pytest.fixture
def write(tmp_path: Path, weights):
    """Write a model and the file beside it."""

    def make(said=SAID, suffix=".yaml", **how) -> Path:
        path = tmp_path / "net.onnx"
        onnx.save_model(build(weights, **how), path)
        if said is not None:
            dump = json.dumps if suffix == ".json" else yaml.safe_dump
            path.with_suffix(suffix).write_text(dump(said))
        return path

    return make


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_onnx(path)
    assert "\n" not in str(caught.value) and str(path.with_suffix("")) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("batch", "layout"), [("n", "NCHW"), (1, "NHWC"), (2, "NCHW")])
def test_it_answers_as_the_same_network_in_pytorch(write, weights, images, batch, layout):
    model = load_onnx(write({**SAID, "layout": layout}, batch=batch, layout=layout))
    logits, features = reference(weights, images)
    answer = checked(model, images)
    torch.testing.assert_close(answer.probabilities["gender"], logits[:, :2].softmax(1))
    torch.testing.assert_close(answer.probabilities["age"], logits[:, 2:].softmax(1))
    torch.testing.assert_close(answer.features, features)


def test_bgr_means_the_channels_in_that_order(write, weights, images):
    model = load_onnx(write({**SAID, "channels": "BGR", "mean": [0, 0, 0], "std": [1, 1, 1]}))
    mean, std = (torch.tensor(SAID[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    logits, _ = reference(weights, images.flip(1) * std + mean)
    torch.testing.assert_close(model(images).probabilities["gender"], logits[:, :2].softmax(1))


def test_the_card_holds_what_was_said_and_the_file_s_digest(write):
    path = write({**SAID, "name": "mine", "licence": "MIT"}, suffix=".json")
    card = load_onnx(path).card
    assert (card.name, card.licence, card.resolution, card.crop) == ("mine", "MIT", SIDE, "ffhq")
    assert dict(card.vocabulary) == {
        "gender": ("Male", "Female"),
        "age": ("young", "middle", "old"),
    }
    assert (card.sha256, card.feature_dim) == (sha256(path.read_bytes()), 4)


def test_what_the_model_itself_states_is_enough(write, images):
    assert checked(load_onnx(write(None, metadata=SAID)), images).features.shape == (5, 4)


def test_two_descriptions_have_to_agree(write):
    turned = {**SAID["attributes"], "gender": {"output": "logits", "words": ["Female", "Male"]}}
    path = write({**SAID, "attributes": turned}, metadata=SAID)
    assert "not those that net.onnx itself states" in refusal(path)


def test_it_gives_no_gradients_and_says_so(write, images):
    model = load_onnx(write())
    assert not is_differentiable(model)
    with pytest.raises(InputError, match="gives no gradients, so guidance cannot use it"):
        model(images.clone().requires_grad_())
    with torch.no_grad():
        model(images.clone().requires_grad_())


def test_to_a_device_keeps_the_answers(write, images):
    model = load_onnx(write())
    before = model(images).probabilities["age"]
    assert model.to("cpu") is model
    torch.testing.assert_close(model(images).probabilities["age"], before, atol=0, rtol=0)


#: A logit of Female, an age in tens of years, and the three age words.
ONE_COLUMN = {
    "gender": {"output": "logits", "words": ["Male", "Female"], "activation": "sigmoid"},
    "years": {
        "output": "logits", "first": 1, "words": ["0-2", "3-9", "10 or more"],
        "edges": [3, 10], "unit": 10,
    },
    "age": {"output": "logits", "first": 2, "words": ["young", "middle", "old"]},
}  # fmt: skip


def test_a_single_column_is_the_second_of_two_words_or_a_number_in_groups(write, weights, images):
    model = load_onnx(write({**SAID, "attributes": ONE_COLUMN}))
    logits, _ = reference(weights, images)
    answer = checked(model, images)
    torch.testing.assert_close(answer.probabilities["gender"][:, 1], logits[:, 0].sigmoid())
    years = 10 * logits[:, 1]
    groups = [0 if y < 3 else 1 if y < 10 else 2 for y in years]
    assert answer.probabilities["years"].argmax(1).tolist() == groups
    assert set(answer.probabilities["years"].unique().tolist()) <= {0.0, 1.0}
    assert dict(model.card.vocabulary)["years"] == ("0-2", "3-9", "10 or more")


def test_a_number_on_an_edge_belongs_to_the_group_above_it():
    part = OutputColumns(output="years", words=("a", "b", "c"), edges=(3, 10))
    numbers = torch.tensor([[-1.0], [2.9], [3.0], [9.9], [10.0], [200.0]])
    assert part.probabilities(numbers).argmax(1).tolist() == [0, 0, 1, 1, 2, 2]
    assert part.probabilities(torch.tensor([[torch.nan], [torch.inf]])).isnan().all()


def test_one_number_an_image_needs_no_axis_of_columns(tmp_path):
    """The brightness of an image, (n,), is a probability as it stands."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("ReduceMean", ["image"], ["light"], axes=[1, 2, 3], keepdims=0)
    takes = helper.make_tensor_value_info("image", floats, ["n", 3, SIDE, SIDE])
    gives = helper.make_tensor_value_info("light", floats, ["n"])
    graph = helper.make_graph([node], "light", [takes], [gives])
    path = tmp_path / "net.onnx"
    version = helper.make_opsetid("", 17)
    onnx.save_model(helper.make_model(graph, opset_imports=[version], ir_version=9), path)
    part = {"output": "light", "words": ["dark", "bright"], "activation": "probability"}
    said = {"resolution": SIDE, "crop": "ffhq", "attributes": {"light": part}}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(said))
    images = torch.stack([torch.full((3, SIDE, SIDE), value) for value in (0.25, 0.75)])
    expected = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    torch.testing.assert_close(checked(load_onnx(path), images).probabilities["light"], expected)
    # Ten times as bright is no probability, and the message says what it may be instead.
    path.with_suffix(".yaml").write_text(yaml.safe_dump({**said, "std": [0.1, 0.1, 0.1]}))
    assert "is it a logit (activation: sigmoid)?" in refusal(path)


def attributes(**changes):
    return {"attributes": {**SAID["attributes"], **changes}}


AGE = {"output": "logits", "first": 2, "words": ["young", "middle", "old"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (attributes(age={**AGE, "words": ["young", "old"]}), "has 5 columns"),
        (
            attributes(age={**AGE, "words": ["a", "b", "c", "d"]}),
            "columns 0, 1, 2, 3, 4, 5: name",
        ),
        (attributes(age={**AGE, "first": 1}), "name a word for each, once"),
        (
            attributes(age={**AGE, "words": ["young", "young", "old"]}),
            "names the word 'young' twice",
        ),
        (
            attributes(age={**AGE, "output": "logit"}),
            "no output 'logit' (it has: logits, features)",
        ),
        (attributes(age={**AGE, "activation": "none"}), "are they logits (activation: softmax)?"),
        (attributes(age={**AGE, "activation": "sigmoid"}), "one column and two words"),
        (attributes(age={**AGE, "edges": [3]}), "1 edges make 2 groups"),
        (attributes(age={**AGE, "edges": [9, 3]}), "edges have to rise"),
        (attributes(age={**AGE, "edges": [3, 9], "activation": "none"}), "has no activation"),
        (attributes(age={**AGE, "unit": 9}), "give edges"),
        (attributes(age={**AGE, "edges": [3, 9]}), "columns 0, 1, 2: name a word"),
        ({"resolution": 9}, "n x 3 x 9 x 9 floats are due"),
        ({"layout": "NHWC"}, "n x 8 x 8 x 3 floats are due"),
        ({"input": "picture"}, "takes image; it may take one image alone"),
        ({"features": "logits"}, "cannot be features and predictions"),
        ({"crop": "fhq"}, "key 'crop'"),
        ({"std": [1, 0, 1]}, "key 'std.1'"),
        ({"colour": 1}, "key 'colour'"),
        ({"sha256": "0" * 64}, "not the one that its card gives"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(write, changes, said):
    assert said in refusal(write({**SAID, **changes}))


def test_without_a_description_it_says_what_to_write(write):
    assert "write net.yaml beside it" in refusal(write(None))


@pytest.mark.parametrize("text", ["a: [", "- 1", "1", "{1: 2}", "!!python/object:os.system x"])
def test_a_description_that_is_no_yaml_mapping_is_refused(write, text):
    path = write(None)
    path.with_suffix(".yaml").write_text(text)
    assert any(part in refusal(path) for part in ("cannot be understood", "not valid YAML"))


def test_two_files_that_describe_it_are_one_too_many(write):
    write(suffix=".json")
    assert "net.yaml and net.json both describe it" in refusal(write())


@pytest.mark.parametrize("bad", [b"\x80mage", b"imagf"])
def test_a_model_of_damaged_names_is_refused_without_further_text(write, capfd, bad):
    path = write()
    # One of its several mentions: no UTF-8, or a name that no node has.
    data = path.read_bytes()
    at = data.rindex(b"image")
    path.write_bytes(data[:at] + bad + data[at + 5 :])
    refusal(path)
    assert "".join(capfd.readouterr()) == ""


def test_a_damaged_model_is_refused(write):
    path = write()
    path.write_bytes(path.read_bytes()[:200])
    assert "is no ONNX model" in refusal(path)
    path.write_bytes(b"")
    refusal(path)


def test_weights_in_other_files_are_refused(weights, write):
    path = write()
    model = build({**weights, "head": np.zeros((4, 5), np.float32)})
    onnx.save_model(model, path, save_as_external_data=True, location="other.bin", size_threshold=0)
    assert "keeps weights in other files" in refusal(path)


def models_made_by_hand():
    """The hostile models of ``benchmarks/handmade.py``, but for one that is slow to write."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "handmade.py"
    spec = importlib.util.spec_from_file_location("handmade", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: write for name, write in module.ONNX.items() if "100,000" not in name}


@pytest.mark.parametrize("name", models_made_by_hand())
def test_a_model_made_by_hand_costs_one_line(tmp_path, name):
    """Weights that state terabytes, weights elsewhere, loops, functions, unknown operators."""
    path = tmp_path / "model.onnx"
    models_made_by_hand()[name](path)
    path.with_suffix(".yaml").write_text(
        "resolution: 8\ncrop: ffhq\nattributes:\n"
        "  age: {output: logits, words: [young, middle, old]}\n"
    )
    assert refusal(path).startswith(f"{path}: ")


def test_a_first_run_ends_at_its_limit_of_time(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "TIMEOUT", 3)
    path = tmp_path / "model.onnx"
    models_made_by_hand()["a loop of 2**62 trips"](path)
    with pytest.raises(InputError, match="its first run takes over 3 seconds"):
        onnx_model.try_model(path, path.read_bytes(), (1, 3, 8, 8))


def test_a_missing_extra_is_named(write, monkeypatch):
    monkeypatch.setattr("pulse_audit.onnx_model.find_spec", lambda name: None)
    assert "install pulse-audit[onnx]" in refusal(write())
