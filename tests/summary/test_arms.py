"""Arms compared on the same faces, and what is said of apparent groups."""

import numpy as np
import pytest

from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.summary import summarise


@pytest.fixture(scope="module")
def frame(apparent_samples):
    return apparent_samples(20, arms=("pulse:a", "pulse:g", "bicubic"))


@pytest.fixture(scope="module")
def summary(apparent_manifest, frame):
    arms = {name: {"kind": "pulse"} for name in ("pulse:a", "pulse:g")}
    return summarise(apparent_manifest(arms={**arms, "bicubic": {"kind": "interpolation"}}), frame)


def differences(summary, metric, group_by="all"):
    wanted = (metric, group_by, "difference")
    return [r for r in summary.estimates if (r.metric, r.group_by, r.statistic) == wanted]


def test_arms_on_trial_are_compared_on_the_same_faces(summary, frame):
    row = differences(summary, "retention")[0]
    assert (row.arm, row.detail) == ("pulse:a", {"minus": "pulse:g"})
    kept = (frame["sr_race"] == frame["label_race"]) & (frame["status"] == "ok")
    by_face = kept.groupby([frame["arm"], frame["face_id"]]).mean()
    gap = by_face["pulse:a"] - by_face["pulse:g"]
    expected = cluster_bca(gap, np.arange(len(gap)), seed=0)
    assert row.value == pytest.approx(expected.value)
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert row.method.startswith("paired by face")


def test_interpolation_is_not_on_trial_and_other_metrics_are_compared_too(summary):
    assert {r.detail["minus"] for r in differences(summary, "feasible_rate")} == {"pulse:g"}
    assert [r.group for r in differences(summary, "retention", "race")] == [
        "White",
        "Black",
        "Indian",
    ]


def test_faces_that_only_one_arm_saw_are_left_out(apparent_manifest, frame):
    arms = {name: {"kind": "pulse"} for name in ("pulse:a", "pulse:g")}
    lone = frame[~((frame["arm"] == "pulse:g") & (frame["face_id"] < "val/0030"))]
    made = summarise(apparent_manifest(arms=arms), lone[lone["arm"] != "bicubic"])
    assert differences(made, "retention")[0].n_faces == 30


def test_the_first_findings_are_of_retention_with_its_worst_and_best_group(summary):
    said = summary.findings
    assert said[0].startswith("pulse:a kept the apparent race in ")
    assert "worst for Black, " in said[0] and "; best for " in said[0]
    assert any(s.startswith("A perfect upsampler would score from") for s in said)
    compared = [s.startswith("On the same faces, pulse:a keeps the group") for s in said]
    assert compared.index(True) < next(i for i, s in enumerate(said) if "gap of retention" in s)
    assert not any("bicubic kept" in s for s in said)


def test_a_gap_is_called_shown_only_where_its_lower_bound_is_above_zero(summary):
    rows = [
        r
        for r in summary.estimates
        if (r.metric, r.group_by, r.statistic, r.correction)
        == ("retention", "race", "max_gap", "corrected")
        and r.arm.startswith("pulse")
    ]
    gaps = [s for s in summary.findings if "largest gap of retention, corrected" in s]
    for row, sentence in zip(rows, gaps, strict=True):
        assert ("shown to be at least" in sentence) == (row.low > 0)
        assert ("neither shown nor ruled out" in sentence) == (row.low == 0)
        assert row.high <= 1


def test_gains_are_told_where_the_interval_leaves_out_zero(summary):
    said = [s for s in summary.findings if "gain or lose by conversion" in s]
    assert said and all("Black -" in s for s in said)
