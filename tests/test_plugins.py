"""Metrics, attribute models and arms from outside: files, entry points, the examples, bad ones."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_audit.faces.attribute_net import AttributeNet, save_attribute_net
from pulse_audit.faces.attributes import checked, is_attribute_model, is_differentiable
from pulse_audit.harness.inputs import find_inputs
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.models import shipped
from pulse_audit.models.attributes import attribute_names, load_attributes
from pulse_audit.plugins import load_metrics, metric_names
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError, Unavailable

ROOT = Path(__file__).resolve().parents[1]
METRIC = ROOT / "examples" / "mean_colour_metric.py"
EXPOSURE = ROOT / "examples" / "exposure_attributes.py"

ARM = """
import torch
from pulse_audit.types import Status, Upsampled


class Grey:
    name, promises_feasibility, resolution = "grey", False, None

    def __call__(self, requests, degradation):
        side = requests[0].lr.shape[-1] * degradation.scale
        image = torch.full((3, side, side), 0.5)
        return [Upsampled(image, 0.25, None, 0, 0.0, Status.OK) for _ in requests]

    def describe(self):
        return {"kind": "grey"}


def build():
    return Grey()
"""
HEAD = """
import torch
from pulse_audit.types import AttributeCard, Attributes, Metric, Unavailable
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], str]:
    """Write a plug-in with a function ``build``; returns the reference to it."""

    def write(text: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + text)
        return f"{path}:build"

    return write


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package that offers both examples under a name each."""

    def install(name: str) -> None:
        folder = tmp_path / name
        info = folder / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(
            f"[pulse_audit.metrics]\ncolour = {name}.colour:build\nbroken = {name}.none:build\n"
            f"[pulse_audit.attributes]\nexposure = {name}.exposure:build\n"
            f"[pulse_audit.arms]\ngrey = {name}.arm:build\nno-arm = {name}.colour:build\n"
        )
        (folder / name).mkdir()
        (folder / name / "__init__.py").touch()
        (folder / name / "colour.py").write_text(METRIC.read_text())
        (folder / name / "exposure.py").write_text(EXPOSURE.read_text())
        (folder / name / "arm.py").write_text(ARM)
        monkeypatch.syspath_prepend(folder)

    return install


def images(n: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_installed_package_offers_an_arm(
    package: Callable[[str], None], fairface_root: Path, tmp_path: Path
) -> None:
    package("upsampling")
    values = {
        "dataset": "fairface", "data_root": fairface_root, "arms": ["grey"], "scales": [4],
        "resolution": 32, "per_group": 1, "draws": 1, "metrics": ["psnr"], "attributes": "none",
    }  # fmt: skip
    run = run_audit(make_spec(values), tmp_path / "out")
    assert run.manifest.arms["grey"].as_dict()["package"] == "upsampling 1.2"
    rows = run.samples()
    # Feasibility is judged by the search's limit, as that of any arm.
    assert len(rows) == 7 and set(rows.status) == {"ok"} and not rows.feasible.any()
    with pytest.raises(InputError, match="no-arm: returned no upsampler"):
        run_audit(make_spec({**values, "arms": ["no-arm"]}), tmp_path / "none")
    with pytest.raises(InputError, match="did you mean grey"):
        find_inputs(make_spec({**values, "arms": ["gray"]}))


def test_the_example_metric_measures_the_mean_colours_distance() -> None:
    (metric,) = load_metrics(["psnr", f"{METRIC}:build"])
    sr, hr = images(seed=1), images(seed=2)
    found = metric.compute(sr, hr)
    means = [255 * x.numpy().astype(np.float64).mean(axis=(2, 3)) for x in (sr, hr)]
    np.testing.assert_allclose(found, np.sqrt(((means[0] - means[1]) ** 2).sum(1)), rtol=1e-6)
    assert (metric.name, found.dtype, metric.higher_is_better) == (
        "mean_colour_error", torch.float64, False,
    )  # fmt: skip


def test_the_example_attribute_model_tells_dark_from_bright() -> None:
    model = load_attributes(f"{EXPOSURE}:build", "cpu")
    answer = model(torch.tensor([0.05, 0.95]).view(2, 1, 1, 1).expand(2, 3, 8, 8))
    words = model.card.vocabulary["exposure"]
    picked = [words[i] for i in answer.probabilities["exposure"].argmax(1)]
    assert picked == ["dark", "bright"]
    torch.testing.assert_close(answer.features, torch.tensor([[0.05], [0.95]]))
    assert is_attribute_model(model) and is_differentiable(model)


def test_a_card_without_weights_gets_the_digest_of_the_code() -> None:
    card = load_attributes(f"{EXPOSURE}:build", "cpu").card
    assert card.sha256 == sha256(EXPOSURE.read_bytes())
    assert card.notes == ("code of exposure_attributes.py",)


def test_gradients_go_through_a_plug_in() -> None:
    given = images().requires_grad_()
    load_attributes(f"{EXPOSURE}:build", "cpu")(given).probabilities["exposure"].sum().backward()
    assert given.grad is not None


def test_an_installed_package_offers_both(package: Callable[[str], None]) -> None:
    package("offering")
    assert "exposure" in attribute_names()
    assert metric_names() == ["broken", "colour"]
    assert "offering.colour" not in sys.modules, "listing runs nothing"
    (metric,) = load_metrics(["colour"])
    assert metric.name == "mean_colour_error"
    model = load_attributes("exposure", "cpu")
    assert model.card.notes == ("code of offering 1.2",)


def test_a_broken_package_costs_one_line(package: Callable[[str], None]) -> None:
    package("breaking")
    said = refusal(lambda: load_metrics(["broken"]))
    assert said.startswith("broken: raised ModuleNotFoundError")


def test_two_packages_with_one_name_are_told_apart(package: Callable[[str], None]) -> None:
    package("first_one")
    package("second_one")
    said = refusal(lambda: load_attributes("exposure", "cpu"))
    assert said == "exposure: offered by first_one and second_one; uninstall one of them"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sim", "unknown metric 'sim'; did you mean ssim"),
        ("none.py:build", "no such file none.py"),
        (f"{METRIC}:bild", "has no function 'bild'"),
    ],
)
def test_unknown_metrics_answer_with_the_nearest(name: str, said: str) -> None:
    assert said in refusal(lambda: load_metrics([name]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fairface-race-7", "did you mean fairface-race7"),
        ("fairface-race7", "pulse-audit fetch fairface-race7"),
        ("res34.pt", "fairface-race7:res34.pt or fairface-race4:res34.pt"),
        ("fairface-race4:none.pt", "none.pt: cannot be read"),
        ("none.onnx", "none.onnx: cannot be read"),
        ("none.safetensors", "none.safetensors: cannot be read"),
        ("none.py:build", "no such file none.py"),
    ],
)
def test_unknown_attribute_models_are_one_line(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert said in refusal(lambda: load_attributes(name, "cpu"))


def test_without_assets_the_default_says_so(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    assert "faces-attributes" not in attribute_names()
    said = refusal(lambda: load_attributes(None, "cpu"))
    assert said.startswith("faces-attributes: this installation comes without it")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def build(): return 3", "returned a int, not a Metric"),
        ("def build(): return []", "not a Metric or a list"),
        ("def build(): return [3]", "where a Metric is due"),
        ("def build(): return Metric('My metric', True, None)", "use small letters"),
        ("def build(): return Metric('psnr', True, None)", "'psnr' already"),
        ("def build(): return [Metric('a', True, None)] * 2", "'a' already"),
        ("def build(): raise OSError('gone')", "raised OSError: gone"),
        ("build = 1", "has no function 'build'"),
        ("1 / 0", "raised ZeroDivisionError"),
    ],
)
def test_a_plug_in_without_a_sound_metric_is_refused(plugin, code: str, said: str) -> None:
    assert said in refusal(lambda: load_metrics([plugin(code)]))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sr.mean()", "gives () where (3,) is due"),
        ("0.5", "gives float where (3,) is due"),
        ("sr @ hr.flatten()", "raised RuntimeError"),
    ],
)
def test_values_of_a_plug_in_are_checked(plugin, body: str, said: str) -> None:
    code = f"def build(): return Metric('mine', True, lambda sr, hr: {body})"
    (metric,) = load_metrics([plugin(code)])
    assert said in refusal(lambda: metric.compute(images(), images()))


def test_a_plug_in_may_be_unable_to_measure(plugin) -> None:
    code = "def build(): return Metric('mine', True, lambda sr, hr: Unavailable('too small'))"
    (metric,) = load_metrics([plugin(code)])
    assert metric.compute(images(), images()) == Unavailable("too small")


MODEL = """
class Model:
    card = AttributeCard("m", {"race": WORDS}, resolution=8, crop="as-is")

    def __call__(self, images):
        return ANSWER

    def to(self, device):
        return self


def build():
    return Model()
"""


@pytest.mark.parametrize(
    ("words", "answer", "said"),
    [
        ('("A", "A")', "None", "names the word 'A' twice"),
        ('("A", "B")', "None", "answers with NoneType"),
        (
            '("A", "B")',
            "Attributes({'race': torch.ones(len(images), 2)}, None)",
            "no probabilities",
        ),
        ('("A", "B")', "Attributes({'sex': torch.ones(len(images), 2)}, None)", "predicts sex"),
        ('("A", "B")', "1 / 0", "raised ZeroDivisionError"),
    ],
)
def test_an_unsound_attribute_model_is_refused_when_it_is_loaded(
    plugin, words: str, answer: str, said: str
) -> None:
    reference = plugin(MODEL.replace("WORDS", words).replace("ANSWER", answer))
    assert said in refusal(lambda: load_attributes(reference, "cpu"))


def test_what_is_no_attribute_model_is_refused(plugin) -> None:
    reference = plugin("def build(): return torch.nn.Identity()")
    said = refusal(lambda: load_attributes(reference, "cpu"))
    assert "returned a Identity, not an attribute model" in said


def test_nets_of_our_own_training_are_loaded_as_files_and_as_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = AttributeNet({"race": ("A", "B", "C")}, widths=(4, 4, 4, 4), blocks=(1, 1, 1, 1))
    said = {"name": "ours", "crop": "ffhq", "temperatures": {"race": 1.0}, "held_out": {}}
    path = tmp_path / "faces-attributes.safetensors"
    save_attribute_net(network, path, said)
    monkeypatch.setattr(shipped, "ASSETS", tmp_path)
    assert attribute_names()[0] == "faces-attributes"
    for reference in (str(path), "faces-attributes", None):
        model = load_attributes(reference, "cpu")
        assert checked(model, images()).probabilities["race"].shape == (3, 3)
        assert model.card.sha256 == sha256(path.read_bytes())
