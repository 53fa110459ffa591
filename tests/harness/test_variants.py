"""Variants of PULSE's prior as arms: the fit of its latents, and how many there are."""

from pathlib import Path

import pytest

import pulse_audit as pa
from pulse_audit.cli import outcome
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import GeneratorReference, parse_arm, varied
from pulse_audit.report.content import latents_of_searches
from pulse_audit.search import starts
from pulse_audit.types import InputError

pytestmark = [
    pytest.mark.skipif(not shipped_generators(), reason="no shipped generators here"),
    pytest.mark.usefixtures("without_reports"),
]

TWIN = "faces-balanced"
VARIANTS = [TWIN, f"{TWIN}@full", f"{TWIN}@tied", f"{TWIN}@full@tied"]


def test_the_four_variants_are_four_arms_of_one_run(tmp_path: Path) -> None:
    spec = make_spec(
        {
            "dataset": "synthetic-faces", "generators": VARIANTS, "arms": ["pulse"],
            "per_group": 1, "draws": 1, "metrics": ["psnr"], "threads": 1, "limit": 3,
            "attributes": "none",
        }
    )  # fmt: skip
    run = run_audit(spec, tmp_path / "run")
    told = {name: arm.as_dict() for name, arm in run.manifest.arms.items()}
    assert list(told) == [f"pulse:{name}" for name in VARIANTS]
    fits = [arm["generator"].get("latent_fit", "diagonal") for arm in told.values()]
    assert fits == ["diagonal", "full", "diagonal", "full"]
    assert [arm["search"]["tied_latent"] for arm in told.values()] == [False, False, True, True]
    said = latents_of_searches(run.manifest)
    assert said[f"pulse:{TWIN}"].endswith("drawn from PULSE's Gaussian of independent entries")
    assert said[f"pulse:{TWIN}@full@tied"].startswith("one for all layers, drawn from a Gaussian")
    # Each searches another space: the errors that they reach differ.
    reached = run.samples().groupby("arm")["downscale_error"].median()
    assert reached.nunique() == 4


def test_remedies_are_arms_that_start_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "BANK", 40)
    arms = {remedy: f"faces-skewed@{remedy}" for remedy in ("strata", "balanced")}
    asked = {
        "dataset": "synthetic-faces", "generators": ["faces-skewed", *arms.values()],
        "arms": ["pulse"], "per_group": 1, "draws": 1, "metrics": ["psnr"], "threads": 1,
        "limit": 2, "search": "fast", "attributes": "none",
    }  # fmt: skip
    run = run_audit(make_spec(asked), tmp_path / "run")
    said = latents_of_searches(run.manifest)
    assert "starts" not in said["pulse:faces-skewed"]
    for remedy, arm in arms.items():
        told = run.manifest.arms[f"pulse:{arm}"].as_dict()["starts"]
        assert (told["remedy"], told["samples"]) == (remedy, 40)
        # The model that judges a run by default is not the one that tells starts apart.
        assert told["attribute_model"] == "faces-attributes-check"
        assert sum(told["groups"].values()) == 40
        assert "its starts are spread evenly over apparent groups" in said[f"pulse:{arm}"]
        notes = run.manifest.arms[f"pulse:{arm}"].notes
        assert any("of 40 samples of the prior, as faces-attributes-check" in n for n in notes)
    assert run.samples().groupby("arm")["downscale_error"].median().nunique() == 3


def test_coarse_steps_are_in_manifest_and_notes(tmp_path: Path) -> None:
    asked = {
        "dataset": "synthetic-faces", "generators": [TWIN], "arms": ["pulse"], "per_group": 1,
        "draws": 1, "metrics": ["psnr"], "threads": 1, "limit": 3, "attributes": "none",
    }  # fmt: skip
    run = run_audit(make_spec({**asked, "coarse": "20@16"}), tmp_path / "run")
    told = run.manifest.arms[f"pulse:{TWIN}"].as_dict()
    assert (told["search"]["coarse_steps"], told["search"]["coarse_resolution"]) == (20, 16)
    assert any("first 20 of 100 steps are on pictures of 16 px" in note for note in told["notes"])
    rows = run.samples()
    assert set(rows["steps"]) == {100}
    assert (rows["feasible"] == (rows["downscale_error"] <= 2e-3)).all()
    # Inputs of 8 px cannot be compared with pictures of 4 px.
    with pytest.raises(InputError, match="no whole multiple"):
        run_audit(make_spec({**asked, "coarse": "20@4"}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_option_makes_variants_of_every_arm() -> None:
    asked = GeneratorReference("net", tied=True)
    assert varied(asked, "full") == GeneratorReference("net", full=True, tied=True)
    assert varied(asked, latents="tied") == asked
    with pytest.raises(InputError, match="--latents tiedd: unknown; did you mean tied"):
        varied(asked, latents="tiedd")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--arm", f"posterior:{TWIN}@full"], "@full is of PULSE's prior; use posterior-pulse:"),
        (["--dataset", f"samples:{TWIN}@tied"], "@tied is of searches, not of samples"),
        (["--arm", f"posterior-pulse:{TWIN}@strata"], "@strata is of searches, not of samples"),
        (["--generator", f"{TWIN}@ful"], f"--generator {TWIN}: @ful is not understood; give"),
        (["--generator", f"{TWIN}@tied@full"], "@full, @tied, @strata or @balanced, and #CLASS"),
        (["--latent-fit", "whole"], "latent_fit"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["run", "--out", str(tmp_path / "run"), "--quiet", "--dataset", "synthetic-faces"]
    assert outcome([*base, *arguments]) == 2
    error = capsys.readouterr().err
    assert line in error
    assert len(error.splitlines()) == 1


def test_a_full_fit_needs_the_mapping_network() -> None:
    generator = pa.load_generator(TWIN)
    network = generator.network
    network.map = None
    with pytest.raises(InputError, match="full-covariance fit is made from the mapping network"):
        pa.as_generator(network, latent_fit="full")
    with pytest.raises(InputError, match='latent_fit "whole" is not known'):
        pa.as_generator(network, gaussian_fit=generator.fit, latent_fit="whole")


def test_arms_of_the_posterior_take_the_variants_of_pulse() -> None:
    assert parse_arm(f"posterior-pulse:{TWIN}@full@tied").generator == GeneratorReference(
        TWIN, full=True, tied=True
    )
