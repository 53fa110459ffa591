"""Posterior arms in a run, beside a search at the same eps."""

from pathlib import Path

import pytest

from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import parse_arm
from pulse_audit.types import InputError

pytestmark = [
    pytest.mark.skipif(not shipped_generators(), reason="no shipped generators here"),
    pytest.mark.usefixtures("without_reports"),
]


def test_a_posterior_arm_gives_rows_beside_pulse_at_the_same_eps(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path / "home"))
    spec = make_spec(
        {
            "dataset": "synthetic-faces", "generators": ["faces-balanced"], "search": "fast",
            "arms": ["posterior:faces-balanced", "posterior-pulse:faces-balanced"], "eps": 0.03,
            "bank": 2_000, "per_group": 2, "draws": 2, "metrics": ["psnr"], "threads": 1,
            "limit": 8,
        }
    )  # fmt: skip
    counts: list[tuple[int, int, int]] = []
    run = run_audit(spec, tmp_path / "run", lambda *c: counts.append(c))
    rows = run.samples()
    drawn = rows[rows["arm"] == "posterior:faces-balanced"]
    feasible = drawn[drawn["feasible"]]
    assert 0 < len(feasible) < len(drawn) == 16
    assert (feasible["downscale_error"] <= 0.03).all()
    assert feasible["sr_race"].notna().all()
    # An input is answered in all of its draws or in none, and says why.
    assert (drawn.groupby("face_id")["feasible"].nunique() == 1).all()
    refused = drawn[~drawn["feasible"]]
    assert set(refused["status"]) == {"infeasible"}
    assert refused["reason"].str.contains("of 2000 samples within eps").all()
    searched = rows[rows["arm"] == "pulse:faces-balanced"]
    assert searched["feasible"].all()
    assert (searched["downscale_error"] <= 0.03).all()
    # Both banks show their progress, before the draws show theirs.
    assert (0, 2_000, 0) in counts
    assert run.manifest.arms["posterior-pulse:faces-balanced"].as_dict()["prior"] == "search start"


def test_names_of_posterior_arms():
    arm = parse_arm("posterior:dir/net.pkl#3")
    assert (arm.name, arm.kind, arm.generator.label) == ("posterior:net#3", "posterior", "3")
    assert parse_arm("posterior-pulse:faces-balanced").name == "posterior-pulse:faces-balanced"
    with pytest.raises(InputError, match="choose one class"):
        parse_arm("posterior:net.pkl#each")
    with pytest.raises(InputError, match="did you mean posterior"):
        parse_arm("posterio:net")
