"""The papers' experiments, shipped as specifications: what each plans, and two of them whole."""

from pathlib import Path
from typing import Any

import pytest

from pulse_audit.conditions import parse_condition
from pulse_audit.harness.inputs import find_inputs
from pulse_audit.harness.plan import Plan, plan_audit
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import AuditSpec, make_spec, read_spec, shipped_specs
from pulse_audit.models.arms import expand_arms
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.report.drawings import Drawing, Drawings
from pulse_audit.report.published import PUBLISHED
from pulse_audit.types import InputError

pytestmark = pytest.mark.skipif(not shipped_generators(), reason="no shipped generators here")

PAPERS = [name for name in shipped_specs() if name != "default"]
TINY = {"per_group": 1, "limit": 1, "draws": 2, "threads": 1}


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing of figures to the tests that look at them."""
    blank = Drawing(b"<svg/>", b"png", b"pdf")
    monkeypatch.setattr(Drawings, "drawing", lambda self, stem, make: blank)


def tiny(name: str, **changes: Any) -> AuditSpec:
    return make_spec({**read_spec(name), **TINY, **changes}, name)


def planned(name: str) -> Plan:
    return plan_audit(tiny(name))


def test_the_experiments_of_two_papers_ship() -> None:
    assert PAPERS == [
        "paper-comparison", "paper-prior", "paper-robustness", "paper-scale", "paper-variation",
        "unfairface",
    ]  # fmt: skip


def test_the_blur_of_the_robustness_figure_is_that_of_the_paper() -> None:
    conditions = planned("paper-robustness").manifest.spec.conditions
    assert conditions[:3] == ["clean", "gaussian:25", "gaussian:50"]
    (blur,) = parse_condition(conditions[3]).steps
    # 100 of 1024 px; of the twins' 32 px three.
    assert blur.kind.before_downscaling and blur.amount(1024) == pytest.approx(100, abs=0.5)
    assert blur.amount(32) == pytest.approx(3.1, abs=0.05)


def test_the_priors_are_searches_of_their_own() -> None:
    searches = [a.as_dict()["search"] for a in planned("paper-prior").manifest.arms.values()]
    weights = [(s["prior"], s["nll_weight"]) for s in searches]
    assert weights[2:] == [("nll", 1e-4), ("nll", 1e-3), ("nll", 1e-2), ("nll", 1e-1)]
    assert [s["prior"] for s in searches[:2]] == ["sphere", "none"]


def test_draws_of_the_variation_differ_in_start_or_noise() -> None:
    arms = planned("paper-variation").manifest.arms
    assert [arm.settings for arm in arms.values()] == [{"vary": "start"}, {"vary": "noise"}]


def test_the_fairness_study_has_twins_methods_and_empty_inputs() -> None:
    spec = make_spec(read_spec("unfairface"))
    assert spec.sources
    twins, inputs = ["faces-balanced", "faces-skewed"], find_inputs(spec)
    assert [arm.name for arm in expand_arms(inputs.arms, inputs.generators)] == [
        *(f"pulse:{twin}" for twin in twins),
        *(f"pulse:{twin}@full@tied" for twin in twins),
        "bicubic",
    ]


def test_scales_that_do_not_fit_are_left_out_with_the_reason(tmp_path: Path) -> None:
    changes = {"search": "fast", "attributes": "none", "metrics": ["psnr"], "draws": 1}
    run = run_audit(tiny("paper-scale", **changes), tmp_path / "run")
    assert run.manifest.spec.scales == [2, 4, 8, 16]
    notes = [note for note in run.manifest.notes if "is not run" in note]
    assert notes[0].startswith("scale 32 is not run: inputs of 32 / 32 px, under 2")
    assert notes[1].startswith("scale 64 is not run: inputs of 32 / 64 px, under 2")
    figures = {path.name for path in (run.path / "report" / "figures").iterdir()}
    assert {"against_scale.pdf", "faces.pdf", "faces_column.pdf"} <= figures
    # Without the choice, the same scales are refused.
    with pytest.raises(InputError, match="PULSE's downscaling by 32 needs more than 48 pixels"):
        plan_audit(tiny("paper-scale", skip_unfit=False))


def test_the_comparison_prints_the_paper_s_figures_beside_its_own(tmp_path: Path) -> None:
    changes = {"search": "fast", "attributes": "none", "metrics": ["psnr"], "draws": 1}
    run = run_audit(tiny("paper-comparison", **changes), tmp_path / "run")
    # An arm that is not here is left out in one line; the others run.
    said = " ".join(run.manifest.notes)
    for arm in ("fsrnet", "fsrgan"):
        assert arm in run.manifest.arms or f"arm {arm} is left out: " in said
    assert {"nearest", "bicubic", "pulse:faces-balanced"} <= set(run.manifest.arms)
    table = (run.path / "report" / "tables" / "published_menon2020.csv").read_text().splitlines()
    assert len(table) == 1 + len(PUBLISHED["menon2020"].methods)
    assert table[-1].startswith("PULSE,pulse:faces-balanced,3.60,not rated (pulse-audit rate),2.47")
    page = (run.path / "report" / "index.html").read_text()
    assert "no comparison of numbers" in page and "Beside published figures" in page
    assert (run.path / "report" / "figures" / "faces.pdf").is_file()


def test_a_run_without_any_arm_left_is_refused() -> None:
    with pytest.raises(InputError, match="no arm is left: arm x is left out: unknown arm 'x'$"):
        plan_audit(make_spec({"dataset": "synthetic-faces", "arms": ["x"], "skip_unfit": True}))
