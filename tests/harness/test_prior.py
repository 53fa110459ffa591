"""``pulse-audit prior``: five priors of a generator, resumed, and what cannot be had."""

import json
from pathlib import Path

import pytest
import torch

import pulse_audit as pa
from pulse_audit.cli import outcome
from pulse_audit.fairness.prior import OWN, PRIORS
from pulse_audit.harness.prior import _pairs, sample_priors, variants_of
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import parse_generator

pytestmark = pytest.mark.skipif(not shipped_generators(), reason="no shipped generators here")

TWIN = "faces-balanced"


def test_the_table_is_written_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prior", TWIN, "--samples", "40", "--out", str(tmp_path), "--quiet", "--json"]
    assert outcome(command) == 0
    first = json.loads(capsys.readouterr().out)
    text = (tmp_path / "prior.md").read_text()
    assert all(f"| {prior} |" in text for prior in PRIORS)
    rows = first["generators"][TWIN]["race"]
    assert [row["prior"] for row in rows] == list(PRIORS)
    assert all(row["n"] == 40 for row in rows)
    assert (tmp_path / f"{TWIN}.png").read_bytes().startswith(b"\x89PNG")
    # One part is lost and another damaged: both are made again, with the same numbers.
    parts = sorted((tmp_path / TWIN / "parts").iterdir())
    before = {path: path.read_bytes() for path in parts}
    parts[0].unlink()
    parts[1].write_text('{"counts": {}, "pairs": [1]}')
    assert outcome(command) == 0
    assert {path: path.read_bytes() for path in parts} == before
    assert json.loads(capsys.readouterr().out) == first


def test_variance_of_pairs() -> None:
    images = torch.zeros(4, 3, 8, 8)
    images[1], images[3] = 0.2, 0.4
    assert _pairs(images) == pytest.approx([0.02, 0.08])


def test_a_generator_of_one_latent_has_its_own_prior_alone(tmp_path: Path) -> None:
    code = (
        "import torch\nimport pulse_audit as pa\n"
        "def make():\n"
        "    net = torch.nn.Sequential(torch.nn.Linear(64, 3 * 32 * 32), "
        "torch.nn.Unflatten(1, (3, 32, 32)), torch.nn.Tanh())\n"
        "    return pa.as_generator(net, latent_dim=64)\n"
    )
    (tmp_path / "own.py").write_text(code)
    name = f"{tmp_path / 'own.py'}:make"
    variants, unavailable = variants_of(parse_generator(name))
    assert [variant.prior for variant in variants] == [OWN]
    assert unavailable.keys() == PRIORS.keys() - {OWN}
    found = sample_priors(
        parse_generator(name), load_attributes(None, "cpu"), samples=6, seed=0,
        device=torch.device("cpu"), folder=tmp_path / "out", progress=lambda *counts: None,
    )  # fmt: skip
    assert int(found.samples["race"][OWN].counts.sum()) == 6
    assert isinstance(pa.load_generator(name).card.name, str)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([f"{TWIN}@full"], "all variants are compared; leave @full out"),
        ([TWIN, TWIN], "two generators of that name"),
        ([TWIN, "--attributes", "none"], "shares of groups are an attribute model's"),
        (["faces-balancedd"], "did you mean faces-balanced"),
        ([f"{TWIN}#each"], "choose one class here"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(["prior", *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
