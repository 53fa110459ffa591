"""ESRGAN of npm as a program: runs where Node.js and the packages that it names are installed."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.models.arms import build_arm
from pulse_audit.names import parse_arm
from pulse_audit.search.config import preset
from pulse_audit.types import Request, Status

PROGRAM = Path(__file__).resolve().parents[2] / "examples" / "esrgan.cjs"
PACKAGES = ("@upscalerjs/esrgan-thick", "@tensorflow/tfjs", "pngjs")
Network = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder with the packages, or a skip."""
    places = [PROGRAM.parent / "node_modules", *os.environ.get("NODE_PATH", "").split(os.pathsep)]
    for place in map(Path, places):
        if shutil.which("node") and all((place / name).is_dir() for name in PACKAGES):
            return place
    pytest.skip(f"needs node and {', '.join(PACKAGES)}: see {PROGRAM.name}")


def read_network(folder: Path) -> Network:
    """Read a Keras network of TensorFlow.js anew, in torch."""
    model, weights = json.loads((folder / "model.json").read_text()), {}
    for group in model["weightsManifest"]:
        numbers = np.frombuffer(b"".join((folder / p).read_bytes() for p in group["paths"]), "<f4")
        for entry in group["weights"]:
            size = int(np.prod(entry["shape"]))
            weights[entry["name"]] = torch.tensor(numbers[:size].reshape(entry["shape"]))
            numbers = numbers[size:]
        assert not len(numbers)

    def layer(kind: str, name: str, inputs: list[torch.Tensor]) -> torch.Tensor:
        if kind == "Conv2D":
            kernel = weights[f"{name}/kernel"].permute(3, 2, 0, 1)
            return F.conv2d(inputs[0], kernel, weights[f"{name}/bias"], padding="same")
        if kind.startswith("PixelShuffle"):
            # TensorFlow's channels are (row, column, colour), torch's (colour, row, column).
            n, channels, h, w = inputs[0].shape
            side = int(kind.removeprefix("PixelShuffle").removesuffix("x"))
            ordered = inputs[0].view(n, side**2, channels // side**2, h, w).transpose(1, 2)
            return F.pixel_shuffle(ordered.reshape(n, channels, h, w), side)
        return {
            "Activation": lambda: F.relu(inputs[0]),
            "Concatenate": lambda: torch.cat(inputs, 1),
            "Add": lambda: torch.stack(inputs).sum(0),
            "MultiplyBeta": lambda: 0.2 * inputs[0],
        }[kind]()

    def network(images: torch.Tensor) -> torch.Tensor:
        values, output = {}, images
        for entry in model["modelTopology"]["model_config"]["config"]["layers"]:
            if nodes := entry["inbound_nodes"]:
                inputs = [values[node[0]] for node in nodes[0]]
                output = layer(entry["class_name"], entry["name"], inputs)
            values[entry["name"]] = output
        return output

    return network


def test_the_program_gives_what_its_network_gives(modules: Path, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(2, 3, 3, 3, generator=random), 8, mode="bicubic").clamp(0, 1)
    small = (smooth * 255).round() / 255
    arm = parse_arm(f"command:node {PROGRAM} {{input}} {{output}} {{scale}}")
    assert arm.name == "command:esrgan"
    program = build_arm(arm, preset("official"), 0, torch.device("cpu"), torch.float32)
    requests = [Request(lr, f"{i}", {}, i) for i, lr in enumerate(small)]
    answers = program(requests, DegradationModel("clean", 4))
    assert [answer.status for answer in answers] == [Status.OK, Status.OK]
    outputs = torch.stack([answer.image for answer in answers if answer.image is not None])

    with torch.no_grad():
        expected = read_network(modules / PACKAGES[0] / "models" / "x4")(small).clamp(0, 1)
    assert (outputs - expected).abs().max() < 1.01 / 255

    # A folder of files gives the same pictures.
    (tmp_path / "in").mkdir()
    for i, lr in enumerate(small):
        pixels = (lr * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    subprocess.run(["node", PROGRAM, tmp_path / "in", tmp_path / "out"], check=True)
    for i, output in enumerate(outputs):
        with Image.open(tmp_path / "out" / f"{i}.png") as picture:
            assert np.array_equal(np.asarray(picture), (output * 255).round().permute(1, 2, 0))
