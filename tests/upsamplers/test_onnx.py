"""ONNX networks as arms, against the same networks in PyTorch, and files that are no such ones."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.types import InputError, Request, Status
from pulse_audit.upsamplers.onnx import OnnxUpsampler

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

Make = Callable[..., list[Request]]
Write = Callable[..., Path]
#: The smallest file that says nothing unusual of itself.
SIDE, SCALE = 8, 4
DS = DegradationModel("clean", SCALE, "area")


def weights() -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(0, 0.2, (3 * SCALE**2, 3, 3, 3)).astype(np.float32)


def reference(images: torch.Tensor) -> torch.Tensor:
    """ESPCN's last layer in PyTorch: a convolution and a pixel shuffle."""
    found = torch.conv2d(images, torch.from_numpy(weights()), padding=1)
    return torch.pixel_shuffle(found, SCALE)


def network(
    batch: int | str = "n", side: int | str = "h", random: bool = False, channels: int = 3
) -> Any:
    """Make the same network in ONNX, with sizes that are fixed or left open."""
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    large = side * SCALE if isinstance(side, int) else "H"
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("DepthToSpace", ["features"], ["large"], blocksize=SCALE, mode="CRD"),
    ]
    if random:
        nodes += [
            helper.make_node("RandomNormalLike", ["large"], ["noise"], scale=0.1),
            helper.make_node("Add", ["large", "noise"], ["noisy"]),
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", floats, [batch, channels, side, side])],
        [
            helper.make_tensor_value_info(
                "noisy" if random else "large", floats, [batch, 3, large, large]
            )
        ],
        [onnx.numpy_helper.from_array(weights()[:, :channels], "kernel")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a network, and what is said of it."""

    def make(said: Any = None, **how: Any) -> Path:
        path = tmp_path / "net.onnx"
        onnx.save_model(network(**how), path)
        if said is not None:
            path.with_suffix(".yaml").write_text(yaml.safe_dump(said))
        return path

    return make


def arm(path: Path, scale: int = SCALE, side: int = SIDE) -> OnnxUpsampler:
    upsampler = OnnxUpsampler("onnx:net", path, torch.device("cpu"))
    upsampler.check_scale(scale, side)
    return upsampler


def refusal(path: Path, scale: int = SCALE, side: int = SIDE) -> str:
    with pytest.raises(InputError) as caught:
        arm(path, scale, side)
    assert "\n" not in str(caught.value) and str(path.with_suffix("")) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("batch", "side"), [("n", "h"), (1, "h"), (2, SIDE), ("n", SIDE)])
def test_it_answers_as_the_same_network_in_pytorch(
    write: Write, requests: Make, batch: int | str, side: int | str
) -> None:
    given = requests(3)
    upsampler = arm(write(batch=batch, side=side))
    assert upsampler.resolution == (SIDE * SCALE if side == SIDE else None)
    answers = upsampler(given, DS)
    expected = reference(torch.stack([r.lr for r in given])).clamp(0, 1)
    for request, image, found in zip(given, expected, answers, strict=True):
        torch.testing.assert_close(found.image, image, atol=1e-5, rtol=1e-5)
        means = image.view(3, SIDE, SCALE, SIDE, SCALE).mean(dim=(2, 4))
        error = (means - request.lr).double().square().mean().item()
        assert found.downscale_error == pytest.approx(error, rel=1e-3)
        assert (found.status, found.feasible, found.steps) == (Status.OK, None, 0)


def test_ranges_and_order_of_channels_are_as_said(write: Write, requests: Make) -> None:
    said = {"input_range": [-1, 1], "output_range": [0, 2], "channels": "BGR", "crop": "ffhq",
            "licence": "MIT"}  # fmt: skip
    upsampler = arm(write(said))
    given = requests(2)
    lr = torch.stack([r.lr for r in given])
    expected = (reference((2 * lr - 1).flip(1)).flip(1) / 2).clamp(0, 1)
    found = torch.stack([a.image for a in upsampler(given, DS)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert upsampler.crop == "ffhq"
    assert upsampler.describe()["description"]["licence"] == "MIT"


def test_a_network_that_draws_numbers_says_so(write: Write) -> None:
    assert arm(write()).caveats == ()
    assert "RandomNormalLike" in arm(write(random=True)).caveats[0]


def test_other_scales_and_sizes_are_refused_with_the_right_one(write: Write) -> None:
    assert refusal(write(), scale=8).endswith("enlarges 4 times, and the run's scale is 8: "
                                              "choose --scale 4")  # fmt: skip
    assert "takes inputs of 8 px, and those of the run are 16 px" in refusal(
        write(side=SIDE), side=16
    )


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"input_range": [1, 0]}, "key 'input_range': the first number has to be the smaller"),
        ({"channels": "GRB"}, "key 'channels'"),
        ({"resolution": 8}, "key 'resolution'"),
        (["a"], "holds no keys with values"),
    ],
)
def test_a_wrong_description_is_refused(write: Write, said: Any, reason: str) -> None:
    assert reason in refusal(write(said))


def test_networks_of_something_else_are_refused(write: Write, tmp_path: Path) -> None:
    assert "'image' is ? x 1 x ? x ? of 32-bit floats, where n x 3 x h x h" in refusal(
        write(channels=1)
    )
    path = write()
    model = onnx.load_model(path)
    model.graph.output.append(model.graph.input[0])
    onnx.save_model(model, path)
    assert "takes 1 and gives 2 arrays" in refusal(path)
    assert "above 4,096" in refusal(write(side=2**40))
    path.write_bytes(b"no model")
    assert "is no ONNX model" in refusal(path)
    assert "cannot be read" in refusal(tmp_path / "none.onnx")


def hostile_models() -> dict[str, Callable[[Path], None]]:
    """The hostile models of ``benchmarks/handmade.py``, but for one that is slow to write."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "handmade.py"
    spec = importlib.util.spec_from_file_location("handmade", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: write for name, write in module.ONNX.items() if "100,000" not in name}


@pytest.mark.parametrize("name", hostile_models())
def test_a_hostile_model_costs_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.onnx"
    hostile_models()[name](path)
    assert refusal(path).startswith(f"{path}: ")


def test_a_network_that_fills_memory_ends_in_a_process_of_its_own(
    tmp_path: Path, write: Write
) -> None:
    helper = onnx.helper
    path = write()
    model = onnx.load_model(path)
    # Tiles what it would give to 2^50 pixels.
    repeats = np.array([1, 1, 2**20, 2**20], np.int64)
    model.graph.initializer.append(onnx.numpy_helper.from_array(repeats, "repeats"))
    model.graph.node.append(helper.make_node("Tile", ["large", "repeats"], ["huge"]))
    model.graph.output[0].name = "huge"
    onnx.save_model(model, path)
    assert refusal(path).startswith(f"{path}: ")
