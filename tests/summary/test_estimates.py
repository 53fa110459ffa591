import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from pulse_audit import store
from pulse_audit.metrics.registry import BY_NAME, SAMPLE_METRICS, metrics_of_run
from pulse_audit.stats.intervals import intraclass_correlation, proportion_interval, wilson
from pulse_audit.summary import summarise
from pulse_audit.types import Estimate, InputError

RACES = ["White", "Black", "Indian"]


def manifest(**changes):
    content = {
        "schema": 1,
        "faces": [],
        "units": [],
        "spec": {
            "group_by": [["race"], ["race", "gender"], ["skin_tone"], ["monk"]],
            "conditions": ["clean"],
            "scales": [8],
            "seed": 0,
        },
        "dataset": {"vocabulary": {"race": RACES, "gender": ["Male", "Female"]}},
        "arms": {"pulse:g": {"kind": "pulse"}, "bicubic": {"kind": "interpolation"}},
        "unavailable": {"lpips": "weights not fetched"},
        **changes,
    }
    return store.check_manifest(content)


def samples(n_faces=12, draws=3, arms=("pulse:g", "bicubic"), seed=0):
    rng = np.random.default_rng(seed)
    faces = np.arange(n_faces)
    hr_ita = rng.uniform(-40, 65, n_faces)
    hr_monk = rng.integers(1, 11, n_faces)
    rows = [
        {
            "face_id": f"val/{face}.jpg",
            "arm": arm,
            "condition": "clean",
            "scale": 8,
            "draw": draw,
            "status": "ok",
            "feasible": bool(rng.random() < 0.8),
            "downscale_error": rng.gamma(2, 5e-4),
            "steps": 100,
            "psnr": rng.normal(22, 2),
            "ssim": rng.uniform(0.5, 0.9),
            "hr_lightness": 60.0,
            "sr_lightness": 60.0 + rng.normal(3, 2),
            "hr_ita": hr_ita[face],
            "sr_ita": hr_ita[face] + 5,
            "hr_hue": 50.0,
            "sr_hue": 55.0,
            "hr_monk": int(hr_monk[face]),
            "sr_monk": 5,
            "sr_face_found": None,
            "lpips": None,
            "label_race": RACES[face % 3],
            "label_gender": ["Male", "Female"][face % 2],
        }
        for arm in arms
        for face in faces
        for draw in range(draws)
    ]
    return pd.DataFrame(rows)


def only(summary, **wanted):
    rows = [r for r in summary.estimates if all(getattr(r, k) == v for k, v in wanted.items())]
    assert len(rows) == 1, rows
    return rows[0]


def test_feasible_rate_is_over_all_draws_and_errors_count_against_it():
    frame = samples(4, 2, arms=["pulse:g"])
    frame["feasible"] = [True, True, True, None, False, True, True, True]
    frame["status"] = ["ok", "ok", "error", "error", "infeasible", "ok", "ok", "ok"]
    summary = summarise(manifest(), frame)
    feasible = only(summary, metric="feasible_rate", group_by="all")
    assert (feasible.value, feasible.n_draws, feasible.n_faces) == (5 / 8, 8, 4)
    assert only(summary, metric="error_rate", group_by="all").value == 2 / 8
    assert only(summary, metric="infeasible_rate", group_by="all").value == 1 / 8


def test_rates_get_wilson_intervals_with_the_correlation_pooled_over_groups():
    frame = samples(30, 4, arms=["pulse:g"])
    summary = summarise(manifest(), frame)
    pooled = intraclass_correlation(frame["feasible"], frame["face_id"], frame["label_race"])
    black = frame[frame["label_race"] == "Black"]
    expected = proportion_interval(black["feasible"], black["face_id"], pooled)
    row = only(summary, metric="feasible_rate", group_by="race", group="Black")
    assert_allclose((row.low, row.high), (expected.low, expected.high), rtol=1e-9)


def test_one_draw_a_face_gives_the_plain_wilson_interval():
    frame = samples(20, 1, arms=["pulse:g"])
    frame["feasible"] = [True] * 15 + [False] * 5
    row = only(summarise(manifest(), frame), metric="feasible_rate", group_by="all")
    assert_allclose((row.low, row.high), wilson(15, 20), rtol=1e-9)


def test_downscale_rmse_is_in_levels_of_255():
    frame = samples(10, 2, arms=["pulse:g"])
    summary = summarise(manifest(), frame)
    expected = 255 * np.sqrt(frame["downscale_error"].mean())
    row = only(summary, metric="downscale_rmse", group_by="all")
    assert row.value == pytest.approx(expected)
    assert row.low < expected < row.high
    mse = only(summary, metric="downscale_error", group_by="all")
    assert mse.value == pytest.approx(frame["downscale_error"].mean())


def test_shifts_are_output_minus_original():
    frame = samples(6, 2, arms=["pulse:g"])
    frame["sr_lightness"] = 57.5
    summary = summarise(manifest(), frame)
    assert only(summary, metric="lightness_shift", group_by="all").value == -2.5
    assert only(summary, metric="hr_lightness", group_by="all").value == 60.0
    assert only(summary, metric="sr_lightness", group_by="all").value == 57.5
    assert only(summary, metric="ita_shift", group_by="all").value == pytest.approx(5)


def test_hue_shift_goes_the_shorter_way_round_the_circle():
    frame = samples(4, 1, arms=["pulse:g"])
    frame["hr_hue"], frame["sr_hue"] = 355.0, 5.0
    assert only(summarise(manifest(), frame), metric="hue_shift", group_by="all").value == 10.0


def test_monk_shift_is_absolute():
    frame = samples(4, 1, arms=["pulse:g"])
    frame["hr_monk"], frame["sr_monk"] = [2, 8, 5, 5], 5
    assert only(summarise(manifest(), frame), metric="monk_shift", group_by="all").value == 1.5


def test_identical_images_count_as_100_decibels_and_the_method_says_so():
    frame = samples(4, 1, arms=["pulse:g"])
    frame["psnr"] = [20.0, np.inf, 20.0, np.inf]
    row = only(summarise(manifest(), frame), metric="psnr", group_by="all")
    assert row.value == 60.0
    assert row.method.endswith("2 identical images counted as 100 dB")


def test_means_leave_out_draws_that_were_not_measured_and_count_the_rest():
    frame = samples(6, 2, arms=["pulse:g"])
    frame.loc[0:2, "psnr"] = None
    row = only(summarise(manifest(), frame), metric="psnr", group_by="all")
    assert (row.n_faces, row.n_draws) == (5, 9)
    assert row.value == pytest.approx(frame["psnr"].mean())


def test_a_group_without_a_measured_draw_is_null_and_says_why():
    frame = samples(6, 2, arms=["pulse:g"])
    frame.loc[frame["label_race"] == "Black", "psnr"] = None
    row = only(summarise(manifest(), frame), metric="psnr", group_by="race", group="Black")
    assert (row.value, row.low, row.high, row.n_draws) == (None, None, None, 0)
    assert row.method == "not measured: none of 4 draws has a value"


def test_a_group_of_one_face_has_a_value_but_no_interval():
    frame = samples(3, 2, arms=["pulse:g"])
    row = only(summarise(manifest(), frame), metric="psnr", group_by="race", group="Black")
    assert row.value is not None and row.low is None and row.high is None
    assert row.method == "no interval: one face"


def test_unmeasured_metrics_are_unavailable_with_the_manifest_s_reason():
    reasons = {"sr_face_found": "no detector ran", "lpips": "weights not fetched"}
    summary = summarise(manifest(unavailable=reasons), samples())
    assert summary.unavailable["no_face_rate"] == "no detector ran"
    assert summary.unavailable["lpips"] == "weights not fetched"
    assert not [r for r in summary.estimates if r.metric == "no_face_rate"]


def test_groups_come_in_the_order_of_the_vocabulary_and_intersections_are_joined():
    summary = summarise(manifest(), samples(12, 1, arms=["pulse:g"]))
    rates = summary.select("feasible_rate", "pulse:g", "clean", 8, "race")
    assert [row.group for row in rates] == RACES
    crossed = summary.select("feasible_rate", "pulse:g", "clean", 8, "race,gender")
    assert [row.group for row in crossed][:3] == [
        "White × Male",
        "White × Female",
        "Black × Male",
    ]


def test_groupings_may_be_written_as_joined_columns():
    listed, joined = manifest(), manifest()
    joined.spec.group_by = ["race", "race,gender", "skin_tone", "monk"]
    assert summarise(listed, samples()) == summarise(joined, samples())


def test_skin_tone_and_monk_groups_are_those_of_the_original():
    frame = samples(7, 1, arms=["pulse:g"])
    frame["hr_ita"] = [60.0, 55.0, 41.0, 28.0, 10.0, -30.0, None]
    frame["hr_monk"] = [1, 3, 4, 6, 7, 10, None]
    summary = summarise(manifest(), frame)
    tones = summary.select("feasible_rate", "pulse:g", "clean", 8, "skin_tone")
    assert [row.group for row in tones] == [
        "very light",
        "light",
        "intermediate",
        "tan",
        "brown",
        "dark",
        "not measured",
    ]
    monk = summary.select("feasible_rate", "pulse:g", "clean", 8, "monk")
    assert {row.group: row.n_faces for row in monk} == {
        "1-3": 2,
        "4-6": 2,
        "7-10": 2,
        "not measured": 1,
    }


def test_faces_without_a_label_are_a_group_of_their_own():
    frame = samples(6, 1, arms=["pulse:g"])
    frame.loc[0, "label_race"] = None
    row = only(
        summarise(manifest(), frame), metric="feasible_rate", group_by="race", group="no label"
    )
    assert row.n_faces == 1


def test_an_unknown_grouping_is_refused_in_one_line():
    spec = {**manifest().spec.as_dict(), "group_by": [["region"]]}
    with pytest.raises(InputError, match=r"group_by region: .*race, gender, skin_tone, monk"):
        summarise(manifest(spec=spec), samples())


def test_the_order_of_rows_does_not_change_a_byte():
    frame = samples()
    shuffled = frame.sample(frac=1, random_state=3)
    first, second = (json.dumps(summarise(manifest(), f).as_json()) for f in (frame, shuffled))
    assert first == second


def test_the_run_seed_moves_only_the_bootstrap():
    other = manifest()
    other.spec.seed = 1
    a = only(summarise(manifest(), samples(arms=["bicubic"])), metric="psnr", group_by="all")
    b = only(summarise(other, samples(arms=["bicubic"])), metric="psnr", group_by="all")
    assert a.value == b.value and a.low != b.low


def test_a_run_without_a_finished_unit_has_no_estimates():
    summary = summarise(manifest(), samples().iloc[:0])
    assert summary.estimates == []
    assert [f.text for f in summary.findings] == [
        "No draw is finished yet: there is nothing to report."
    ]


def test_nullable_columns_as_parquet_gives_them_are_understood():
    frame = samples(4, 2, arms=["pulse:g"])
    frame["feasible"] = pd.array([True, None] * 4, dtype="object")
    frame["hr_monk"] = frame["hr_monk"].astype("float64")
    assert only(summarise(manifest(), frame), metric="feasible_rate", group_by="all").value == 0.5


def test_an_interval_does_not_reach_where_the_quantity_cannot():
    data = samples(n_faces=3, draws=2)
    data["sr_monk"] = data["hr_monk"] + (data["face_id"] == "val/0.jpg")
    rows = summarise(manifest(), data).select("monk_shift", "bicubic", "clean", 8)
    assert rows[0].low == 0.0
    assert rows[0].value == pytest.approx(1 / 3)
    assert rows[0].high > rows[0].value


def test_columns_of_plug_in_metrics_are_means_like_any_other():
    metrics = {"blur": {"columns": ["blur"], "better": "lower", "unit": "px"}}
    made = summarise(manifest(metrics=metrics), samples().assign(blur=2.5))
    assert only(made, metric="blur", arm="bicubic", group_by="all").value == 2.5
    missing = summarise(manifest(metrics=metrics, unavailable={"blur": "too small"}), samples())
    assert missing.unavailable["blur"] == "too small"


def test_metrics_of_the_contract_are_not_taken_twice():
    named = manifest(metrics={"psnr": {"columns": ["psnr"]}})
    assert metrics_of_run(named.metrics) == [*SAMPLE_METRICS]


@pytest.mark.parametrize("n_faces", [6, 12])
def test_intervals_of_bounded_metrics_stay_inside_their_bounds(n_faces):
    """Two faces a group, or four, and values near both ends."""
    frame, rng = samples(n_faces, 2, arms=["pulse:g"]), np.random.default_rng(3)
    sign = rng.choice([-1, 1], len(frame))
    frame["ssim"] = sign * rng.uniform(0.7, 1.0, len(frame))
    frame["sr_lightness"] = 50.0 + sign * rng.uniform(40, 50, len(frame))
    frame["hr_lightness"] = 50.0
    clipped = 0
    for row in summarise(manifest(), frame).estimates:
        metric = BY_NAME[row.metric]
        if row.statistic == "value" and metric.kind == "mean" and row.low is not None:
            assert metric.lower_bound <= row.low <= row.high <= metric.upper_bound, row
        if row.metric == "ssim" and row.statistic == "max_gap":
            assert 0 <= row.low <= row.high <= 2
        clipped += "clipped at -1 and 1" in row.method
    assert clipped >= 3


def test_an_interval_inside_the_bounds_says_nothing_of_them():
    inside = Estimate(0.5, 0.1, 0.9, 4, 8, "BCa")
    assert BY_NAME["ssim"].bounded(inside) is inside
    outside = BY_NAME["ssim"].bounded(Estimate(0.5, -1.5, 2.4, 2, 4, "t"))
    assert (outside.low, outside.high, outside.method) == (-1.0, 1.0, "t; clipped at -1 and 1")
    positive = BY_NAME["downscale_error"].bounded(Estimate(0.1, -0.2, 5.0, 2, 4, "t"))
    assert (positive.low, positive.high, positive.method) == (0.0, 5.0, "t; clipped at 0")
    nothing = Estimate(0.5, float("nan"), float("nan"), 1, 2, "one face")
    assert BY_NAME["ssim"].bounded(nothing) is nothing
