"""A sweep through a whole run: its arms, their searches, rows, resume and figures."""

import numpy as np
import pytest

from pulse_audit import store
from pulse_audit.harness.inputs import find_inputs
from pulse_audit.harness.plan import plan_audit
from pulse_audit.harness.run import check_same_plan, run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.report.drawings import Drawing, Drawings
from pulse_audit.types import InputError

pytestmark = pytest.mark.skipif(not shipped_generators(), reason="no shipped generators here")

ARM = "pulse:faces-balanced"
PRIORS = ("sphere", "nll:0.1")
ASKED = {
    "dataset": "synthetic-faces", "generators": ["faces-balanced"], "arms": ["pulse", "bicubic"],
    "per_group": 1, "limit": 2, "draws": 2, "metrics": ["psnr", "spread", "latent_radius"],
    "threads": 1, "attributes": "none",
    "sweep": {
        "prior": ["sphere", "nll:0.1"], "vary": ["start", "noise"], "steps": [12], "eps": [0.02],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    with pytest.MonkeyPatch.context() as patch:
        # The drawing of figures is left to the tests that look at them.
        blank = Drawing(b"<svg/>", b"png", b"pdf")
        patch.setattr(Drawings, "drawing", lambda self, stem, make: blank)
        return run_audit(make_spec(ASKED), tmp_path_factory.mktemp("sweep") / "run")


def name(prior: str, vary: str) -> str:
    return f"{ARM}~prior={prior},vary={vary},steps=12,eps=0.02"


def test_every_point_is_an_arm_with_its_own_search(run: store.Run) -> None:
    points = [(p, v) for p in PRIORS for v in ("start", "noise")]
    assert list(run.manifest.arms) == [*(name(*point) for point in points), "bicubic"]
    recorded = run.manifest.arms[name("nll:0.1", "noise")].as_dict()
    assert recorded["settings"] == {"prior": "nll:0.1", "vary": "noise", "steps": 12, "eps": 0.02}
    search = recorded["search"]
    assert (search["prior"], search["nll_weight"], search["vary"]) == ("nll", 0.1, "noise")
    assert (search["steps"], search["eps"]) == (12, 0.02)
    # What is as in PULSE is recorded as before sweeps were there.
    assert "vary" not in run.manifest.arms[name("sphere", "start")].as_dict()["search"]


def test_rows_are_those_of_arms(run: store.Run) -> None:
    rows = run.samples()
    searched = rows[rows["arm"] != "bicubic"]
    assert set(searched["steps"]) == {12}
    assert (searched["feasible"] == (searched["downscale_error"] <= 0.02)).all()
    # The first draw of a face starts alike, whatever is varied: so it ends alike.
    first = searched[searched["draw"] == 0].set_index(["face_id", "arm"])["downscale_error"]
    for prior in PRIORS:
        both = [first.xs(name(prior, vary), level="arm") for vary in ("start", "noise")]
        np.testing.assert_allclose(*both, rtol=1e-3)


def test_the_sphere_keeps_the_radius_and_the_prior_s_density_pulls_it_in(run: store.Run) -> None:
    radius = run.samples().groupby("arm")["latent_radius"].mean()
    sphere, pulled = (radius[name(prior, "start")] for prior in PRIORS)
    assert sphere == pytest.approx(1, abs=0.03)
    assert pulled < 0.9 * sphere
    assert np.isnan(radius["bicubic"])


def test_draws_of_one_start_are_closer_to_each_other(run: store.Run) -> None:
    spread = run.samples().groupby("arm")["spread"].mean()
    assert 0 < spread[name("sphere", "noise")] < spread[name("sphere", "start")]


def test_the_report_has_a_figure_of_each_setting(run: store.Run) -> None:
    figures = {path.name for path in (run.path / "report" / "figures").iterdir()}
    for stem in ("against_prior", "against_vary", "soap-bubble"):
        assert {f"{stem}.pdf", f"{stem}_column.pdf", f"{stem}.svg", f"{stem}.png"} <= figures
    # Settings of one value are no axis.
    assert not any(each.startswith("against_steps") for each in figures)
    page = (run.path / "report" / "index.html").read_text()
    assert "What the run varies" in page
    assert f"one row for each of {ARM}, prior=sphere; {ARM}, prior=nll:0.1" in page


def test_a_sweep_is_resumed_and_another_refused(run: store.Run) -> None:
    again = plan_audit(make_spec(ASKED), run.manifest)
    check_same_plan(run.manifest, again.manifest, run.path)
    with pytest.raises(InputError, match="holds another audit.*sweep"):
        run_audit(make_spec({**ASKED, "sweep": {"steps": [12]}}), run.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": 0.01}, "sweep: eps is set for the whole run"),
        ({"draws": 1}, "sweep: vary=noise is about the draws of a face"),
        ({"arms": ["bicubic"], "generators": []}, "no arm of this run has prior; pulse arms do"),
    ],
)
def test_a_sweep_that_changes_nothing_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_inputs(make_spec({**ASKED, **change}))
