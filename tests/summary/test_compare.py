"""Differences of runs, on runs whose samples are written as a run's are."""

import numpy as np
import pytest

from pulse_audit import store
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.summary.compare import changes, compare_runs, paired_arms
from pulse_audit.types import InputError

FACES = [(f"val/{n}.jpg", ("White", "Black")[n % 2]) for n in range(12)]


def make_run(path, feasible, lightness=0.0, faces=FACES, arm="pulse:g", **spec):
    """A run of one arm; ``feasible`` gives a flag for each face and draw, (faces, 2)."""
    draws = [[face_id, draw] for face_id, _ in faces for draw in range(2)]
    manifest = {
        "schema": 1,
        "status": "complete",
        "spec": {
            "dataset": "x", "conditions": ["clean"], "scales": [4], "group_by": ["race"], **spec
        },
        "dataset": {"name": "x", "vocabulary": {"race": ["White", "Black"]}},
        "faces": [{"id": i, "labels": {"race": r}, "sha256": f"{i}"} for i, r in faces],
        "arms": {arm: {"kind": "pulse"}},
        "units": [{"id": "u0", "arm": arm, "condition": "clean", "scale": 4, "draws": draws}],
    }  # fmt: skip
    path.mkdir()
    run = store.create_run(path, store.check_manifest(manifest))
    race = dict(faces)
    rows = [
        {
            "face_id": face_id, "dataset": "x", "arm": arm, "condition": "clean", "scale": 4,
            "draw": draw, "seed": 1, "status": "ok", "feasible": bool(feasible[number // 2, draw]),
            "label_race": race[face_id], "hr_lightness": 50.0,
            "sr_lightness": 50.0 + lightness + number / 10,
        }
        for number, (face_id, draw) in enumerate(draws)
    ]  # fmt: skip
    run.write_unit("u0", rows)
    return run


@pytest.fixture
def flags():
    return np.random.default_rng(3).random((2, 12, 2)) < 0.6


def test_differences_are_those_of_the_faces_at_the_level_of_the_family(tmp_path, flags):
    runs = [make_run(tmp_path / str(n), flags[n], n) for n in (0, 1)]
    found = compare_runs(*runs)
    rows = {(d.metric, d.group): d for d in found.differences}
    each = flags[0].mean(1) - flags[1].mean(1)
    for group, chosen in (("all", slice(None)), ("White", slice(0, None, 2))):
        expected = paired_proportions(each[chosen], 1 - 0.05 / 3)
        made = rows["feasible_rate", group].estimate
        assert (made.value, made.low, made.high) == (expected.value, expected.low, expected.high)
    # one run's outputs are lighter by 1 on every face
    assert rows["lightness_shift", "all"].estimate.value == pytest.approx(-1)
    assert rows["lightness_shift", "all"].shown
    assert found.as_json()["faces"] == {"shared": 12, "only_first": 0, "only_second": 0}


def test_a_run_is_not_shown_to_differ_from_itself(tmp_path, flags):
    run = make_run(tmp_path / "a", flags[0])
    found = compare_runs(run, run)
    assert not any(d.shown for d in found.differences) and not found.changes
    assert {d.estimate.value for d in found.differences} == {0.0}


def test_only_shared_faces_count_and_faces_with_other_bytes_are_not_shared(tmp_path, flags):
    first = make_run(tmp_path / "a", flags[0])
    second = make_run(tmp_path / "b", flags[1][4:], faces=FACES[4:], seed=5)
    second.manifest.faces[0].sha256 = "other bytes"
    found = compare_runs(first, second)
    assert (found.faces, found.only_first, found.only_second) == (7, 5, 1)
    whole = next(d for d in found.differences if (d.metric, d.group) == ("feasible_rate", "all"))
    assert whole.estimate.value == pytest.approx((flags[0].mean(1) - flags[1].mean(1))[5:].mean())
    assert ("spec.seed", "not recorded", "5") in found.changes
    assert found.changes[-1][2] == "1 photos have other bytes under the same name"


def test_arms_of_other_names_pair_where_each_run_has_one(tmp_path, flags):
    runs = [make_run(tmp_path / a, flags[0], arm=f"pulse:{a}") for a in "ab"]
    assert paired_arms(runs[0].manifest, runs[1].manifest) == [("pulse:a", "pulse:b")]
    assert any(name.startswith("arms.pulse:a") for name, *_ in changes(*(r.manifest for r in runs)))


def test_runs_without_a_common_face_or_setting_are_refused(tmp_path, flags):
    first = make_run(tmp_path / "a", flags[0])
    with pytest.raises(InputError, match="share no face"):
        compare_runs(first, make_run(tmp_path / "b", flags[0], faces=[("y", "White")]))


def with_groups(run, shown, seconds):
    """Write the samples again with apparent groups of the outputs, (draws,), and seconds."""
    rows = run.samples().drop(columns=["sr_race"], errors="ignore")
    rows = rows.assign(sr_race=shown, hr_race=rows["label_race"], seconds=seconds)
    columns = ["face_id", "dataset", "arm", "condition", "scale", "draw", "seed", "status"]
    columns += ["feasible", "label_race", "hr_lightness", "sr_lightness"]
    columns += ["sr_race", "hr_race", "seconds"]
    run.write_unit("u0", rows[columns].to_dict("records"))
    return run


def test_shares_of_outputs_gaps_and_prices_are_compared(tmp_path, flags):
    runs = [make_run(tmp_path / a, flags[0], arm=f"pulse:{a}") for a in "ab"]
    race = runs[0].samples()["label_race"].to_numpy()
    # One run keeps every group; the other makes all first draws White.
    every_first = np.tile([True, False], 12)
    with_groups(runs[0], race, 1.0)
    with_groups(runs[1], np.where(every_first, "White", race), 3.0)
    found = compare_runs(*runs)
    rows = {(d.metric, d.group, d.statistic): d for d in found.differences}
    # Half of the draws of Black faces, which are half of the faces.
    assert rows["output_share", "White", "value"].estimate.value == pytest.approx(-0.25)
    assert rows["output_share", "Black", "value"].estimate.value == pytest.approx(0.25)
    gap = rows["retention", "all", "max_gap"].estimate
    assert gap.value == pytest.approx(-0.5) and gap.low < -0.5 < gap.high
    prices = {p.name: p for p in found.prices}
    assert (prices["seconds"].first.value, prices["seconds"].second.value) == (1, 3)
    apart = prices["pairs_apart"]
    assert (apart.first.value, apart.second.value) == (0, 0.5) and apart.group_by == "race"
    stored = found.as_json()["prices"]
    assert {price["name"] for price in stored} == {"seconds", "pairs_apart"}
    assert stored[0]["minus"] == "pulse:b"


def test_two_arms_are_compared_by_name(tmp_path, flags):
    first = make_run(tmp_path / "a", flags[0], arm="pulse:one")
    second = make_run(tmp_path / "b", flags[1], arm="pulse:two")
    found = compare_runs(first, second, "pulse:one", "pulse:two")
    assert {(d.arm, d.other) for d in found.differences} == {("pulse:one", "pulse:two")}
    with pytest.raises(InputError, match="b: has no arm 'pulse:one'; did you mean pulse:two"):
        compare_runs(first, second, "pulse:one")
