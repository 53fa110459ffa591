"""Comparisons of groups, and of arms on the same faces."""

import numpy as np
import pandas as pd
import pytest

from pulse_audit.stats import gaps, power
from pulse_audit.stats.intervals import intraclass_correlation
from pulse_audit.stats.paired import IDENTICAL, paired_proportions
from pulse_audit.summary import comparisons, summarise


@pytest.fixture(scope="module")
def frame(apparent_samples):
    return apparent_samples(20, arms=("pulse:g",))


@pytest.fixture(scope="module")
def summary(apparent_manifest, frame):
    return summarise(apparent_manifest(), frame)


def only(summary, **wanted):
    found = [r for r in summary.estimates if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_the_gap_of_a_rate_names_its_groups_and_what_equals_would_show(summary, frame):
    row = only(summary, metric="feasible_rate", statistic="max_gap", group_by="race")
    numbers = frame["label_race"].map({"White": 0, "Black": 1, "Indian": 2})
    faces = frame["face_id"].astype("category").cat.codes
    gap = gaps.max_gap(frame["feasible"], faces, numbers, proportion=True, alpha=0.025)
    assert (row.value, row.low, row.high) == pytest.approx(
        (gap.value, gap.fail_bound, gap.pass_bound)
    )
    assert row.group == "all" and {row.detail["highest"], row.detail["lowest"]} < {
        "White",
        "Black",
        "Indian",
    }
    assert row.detail["at_equality"] > 0


def test_a_gap_says_what_the_sample_could_show_and_what_ten_points_need(summary, frame):
    row = only(summary, metric="feasible_rate", statistic="max_gap", group_by="race")
    base = frame["feasible"].mean()
    faces = frame["face_id"].astype("category").cat.codes
    icc = intraclass_correlation(frame["feasible"], faces, frame["label_race"])
    design = power.Design(2, icc, groups=3, alpha=0.025)
    fall, rise = (power.detectable_proportion(base, end, 20, design) for end in (0.0, 1.0))
    expected = {"fall": fall, "rise": rise}
    shown = {word: size for word, size in expected.items() if size is not None}
    assert row.detail["detectable"] == pytest.approx(max(shown.values()))
    assert row.detail["detectable_as"] == " or ".join(shown)
    assert row.detail["faces_needed"] == max(
        power.faces_for_proportions(base, other, design) for other in (base - 0.1, base + 0.1)
    )
    blur = only(summary, metric="psnr", statistic="max_gap", group_by="race")
    means = frame.groupby(["label_race", "face_id"])["psnr"].mean()
    spread = (means - means.groupby("label_race").transform("mean")).pow(2).sum() / 57
    expected = power.detectable_mean(spread**0.5, 20, power.Design(groups=3, alpha=0.025))
    assert blur.detail["detectable"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rate", "direction"), [(0.0, "rise"), (0.1, "rise"), (0.5, "fall or rise"), (1.0, "fall")]
)
def test_a_rise_is_detectable_where_a_fall_is_not(rate, direction):
    values = np.tile(np.arange(40) < round(40 * rate), 3).astype(float)
    detail = comparisons.sample_size(values, np.arange(120), np.repeat([0, 1, 2], 40), True)
    assert detail["detectable_as"] == direction
    assert 0.15 < detail["detectable"] < 0.8 and 100 < detail["faces_needed"] < 1000


def test_retention_is_compared_raw_and_corrected(summary):
    raw = only(summary, metric="retention", statistic="max_gap", group_by="race", correction="raw")
    made = only(
        summary, metric="retention", statistic="max_gap", group_by="race", correction="corrected"
    )
    assert raw.detail["lowest"] == made.detail["lowest"] == "Black"
    assert 0 < raw.low < raw.value and made.value > raw.value
    worst = only(
        summary, metric="retention", statistic="worst_group", group_by="race", correction="raw"
    )
    assert worst.group == "Black"


def test_comparisons_are_not_taken_for_values_of_groups(summary):
    shown = summary.select("retention", "pulse:g", "clean", 8, "race")
    assert [r.group for r in shown] == ["White", "Black", "Indian"]
    assert all(r.plain for r in shown)


def test_means_are_compared_in_the_first_grouping_and_rates_in_all(summary):
    compared = {(r.metric, r.group_by) for r in summary.estimates if r.statistic == "max_gap"}
    assert ("psnr", "race") in compared and ("psnr", "skin_tone") not in compared
    assert ("feasible_rate", "skin_tone") in compared and ("psnr", "all") not in compared
    assert ("ita_shift", "race") in compared and ("hr_ita", "race") not in compared


def test_faces_without_a_label_are_no_group_to_compare(apparent_manifest, frame):
    frame = frame.copy()
    frame.loc[frame["face_id"] == "val/0000.jpg", ["label_race", "feasible"]] = [None, False]
    made = summarise(apparent_manifest(), frame)
    row = only(made, metric="feasible_rate", statistic="worst_group", group_by="race")
    assert row.group != "no label"


@pytest.fixture(scope="module")
def arms_frame(apparent_samples):
    return apparent_samples(20, arms=("pulse:a", "pulse:g", "bicubic"))


@pytest.fixture(scope="module")
def arms_summary(apparent_manifest, arms_frame):
    arms = {name: {"kind": "pulse"} for name in ("pulse:a", "pulse:g")}
    manifest = apparent_manifest(arms={**arms, "bicubic": {"kind": "interpolation"}})
    return summarise(manifest, arms_frame)


def differences(summary, metric, group_by="all"):
    wanted = (metric, group_by, "difference")
    return [r for r in summary.estimates if (r.metric, r.group_by, r.statistic) == wanted]


def test_arms_on_trial_are_compared_on_the_same_faces(arms_summary, arms_frame):
    row = differences(arms_summary, "retention")[0]
    assert (row.arm, row.detail) == ("pulse:a", {"minus": "pulse:g"})
    kept = (arms_frame["sr_race"] == arms_frame["label_race"]) & (arms_frame["status"] == "ok")
    by_face = kept.groupby([arms_frame["arm"], arms_frame["face_id"]]).mean()
    gap = by_face["pulse:a"] - by_face["pulse:g"]
    expected = paired_proportions(gap)
    assert row.value == pytest.approx(expected.value)
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))
    assert row.method.startswith("paired by face; Tango")


def test_arms_that_agree_on_every_face_differ_by_no_more_than_the_faces_rule_out(
    apparent_manifest, arms_frame
):
    arms = {name: {"kind": "pulse"} for name in ("pulse:a", "pulse:g")}
    one = arms_frame[arms_frame["arm"] == "pulse:a"]
    made = summarise(apparent_manifest(arms=arms), pd.concat([one, one.assign(arm="pulse:g")]))
    rows = differences(made, "retention", "race")
    assert rows and all(IDENTICAL in row.method and row.value == 0 for row in rows)
    # Tango's interval without a discordant pair reaches z^2 / (n + z^2)
    reach = 1.96**2 / (20 + 1.96**2)
    assert [(row.low, row.high) for row in rows] == [
        pytest.approx((-reach, reach), abs=1e-4) for _ in rows
    ]


def test_differences_of_means_are_bootstrapped(arms_summary):
    rows = differences(arms_summary, "ita_shift")
    assert rows and all("BCa" in row.method for row in rows)


def test_interpolation_is_not_on_trial_and_other_metrics_are_compared_too(arms_summary):
    assert {r.detail["minus"] for r in differences(arms_summary, "feasible_rate")} == {"pulse:g"}
    assert [r.group for r in differences(arms_summary, "retention", "race")] == [
        "White",
        "Black",
        "Indian",
    ]


def test_faces_that_only_one_arm_saw_are_left_out(apparent_manifest, arms_frame):
    arms = {name: {"kind": "pulse"} for name in ("pulse:a", "pulse:g")}
    lone = arms_frame[~((arms_frame["arm"] == "pulse:g") & (arms_frame["face_id"] < "val/0030"))]
    made = summarise(apparent_manifest(arms=arms), lone[lone["arm"] != "bicubic"])
    assert differences(made, "retention")[0].n_faces == 30
