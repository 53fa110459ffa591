"""Small generators in real files of every format, rule-drawn weights."""

import importlib.util
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pulse_audit.generators.native_format import save_generator
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.generators.stylegan3 import SignalConfig, StyleGAN3, StyleGAN3Config
from pulse_audit.report import html

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def without_reports() -> Iterator[None]:
    """In this process: a report takes longer than the small runs, and changes no sample."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "publish", lambda *_: None)
        yield


def rule_and_writer() -> ModuleType:
    """The weights by the rule and NVIDIA's pickles, as the tests of the readers make them."""
    path = TESTS / "generators" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tests_of_readers", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def narrowed(rule: ModuleType, name: str, least: int = 256) -> dict[str, torch.Tensor]:
    """A conformance network whose sides of at least ``least`` are a sixteenth: quick to search."""
    arrays = rule.np.load(TESTS / "data" / f"{name}.npz")
    state = {}
    for key, (scale, shape) in json.loads(str(arrays["meta"]))["rule"].items():
        shape = [side // 16 if side >= least else side for side in shape]
        kept = scale == "keep"
        state[key] = rule._kept(key, shape, {}) if kept else rule.draw(key, tuple(shape), scale)
    return state


def small_stylegan3(rule: ModuleType) -> dict[str, torch.Tensor]:
    signal = SignalConfig(critical=1, margin=4, filter_size=4)
    widths = {"z_dim": 64, "w_dim": 64, "hidden": (64,), "embed_dim": 64}
    config = StyleGAN3Config(resolution=32, channels=(16, 16, 16, 8, 3), signal=signal, **widths)
    constant = ("_filter", "_ema", "transform", "w_avg")
    return {
        key: value if key.endswith(constant) else rule.draw(key, tuple(value.shape))
        for key, value in StyleGAN3(config).weights().items()
    }


class Decoder(torch.nn.Module):
    """A hundred latents to 32 px, linearly."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.nn.Linear(100, 3 * 32 * 32)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.out(z)).view(-1, 3, 32, 32)


def write_program(path: Path) -> None:
    torch.manual_seed(0)
    dynamic = ({0: torch.export.Dim("n", min=1, max=64)},)
    program = torch.export.export(Decoder(), (torch.zeros(2, 100),), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getvalue())


def write_families(folder: Path) -> dict[str, Path]:
    """Write one small file of each format."""
    rule = rule_and_writer()
    for name in ("skip64", "cond32"):
        file = rule.read_conformance(f"stylegan2_ada_{name}")
        synthesis = file.init["synthesis_kwargs"]
        rule.write_snapshot(folder / f"{name}.pkl", file.state, file.init, synthesis)
    settings = {"num_critical": 1, "margin_size": 4, "filter_size": 4}
    rule.write_snapshot(folder / "three.pkl", small_stylegan3(rule), {}, settings)
    state = narrowed(rule, "stylegan2_rosinality_32")
    torch.save({"g_ema": state, "latent_avg": torch.zeros(32)}, folder / "rosinality.pt")
    grown = narrowed(rule, "stylegan1_rosinality_128", 16)
    torch.save({"g_running": grown}, folder / "grown.model")
    (folder / "pulse").mkdir()
    torch.save(narrowed(rule, "stylegan1_pulse_64"), folder / "pulse" / "synthesis.pt")
    torch.save(narrowed(rule, "stylegan1_pulse_mapping"), folder / "pulse" / "mapping.pt")
    network = StyleGAN2.fresh(StyleGAN2Config((8,) * 4, z_dim=64, w_dim=64, hidden=(64,)), 0)
    card = {"name": "ours", "crop": "celeba", "licence": "CC0-1.0", "training_data": "nobody"}
    save_generator(network, folder / "own.safetensors", card)
    write_program(folder / "program.pt2")
    named = {path.stem: path for path in folder.iterdir() if path.is_file()}
    named.pop("own")
    return {
        **named, "synthesis": folder / "pulse" / "synthesis.pt", "own": folder / "own.safetensors"
    }  # fmt: skip


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The files by stem; Gaussian fits are cached beside them."""
    folder = tmp_path_factory.mktemp("families")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PULSE_AUDIT_HOME", str(tmp_path_factory.mktemp("home")))
        yield write_families(folder)


@pytest.fixture
def add_member() -> Callable[[Path, str, bytes], None]:
    """Add a member to an exported program, or replace it."""

    def add(path: Path, name: str, content: bytes) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
            root = old.namelist()[0].split("/")[0]
            for member in old.namelist():
                if member != f"{root}/{name}":
                    new.writestr(member, old.read(member))
            new.writestr(f"{root}/{name}", content)
        path.write_bytes(out.getvalue())

    return add


#: Races in another order than FairFace's; a hat nobody labels; age in words of its own.
ATTRIBUTES = """
import torch
from pulse_audit.types import AttributeCard, Attributes

RACES = ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian",
         "White")
WORDS = {"race": RACES, "hat": ("no", "yes"), "age": ("young", "old")}


class Model:
    card = AttributeCard("colours", WORDS, 16, "as-is", feature_dim=5, licence="CC0-1.0",
                         training_data="nobody", sha256="ab" * 32)

    def __init__(self):
        draw = torch.Generator().manual_seed(5)
        self.weights = torch.randn(3 * 16 * 16, 5, generator=draw)
        self.heads = {a: torch.randn(5, len(w), generator=draw) for a, w in WORDS.items()}

    def __call__(self, images):
        small = torch.nn.functional.interpolate(images, (16, 16), mode="area").flatten(1)
        features = (small - 0.5) @ self.weights
        return Attributes(
            {a: (features @ head).softmax(1) for a, head in self.heads.items()}, features
        )

    def to(self, device):
        return self
"""


@pytest.fixture(scope="session")
def attribute_code() -> str:
    """A small attribute model with features, as the code of a plug-in; its class is ``Model``."""
    return ATTRIBUTES
