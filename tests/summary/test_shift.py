"""Apparent groups of outputs, from samples to rows of the summary."""

import numpy as np
import pandas as pd
import pytest

from pulse_audit.fairness import sets, shift
from pulse_audit.fairness.confusion import Confusion
from pulse_audit.fairness.sets import joint_shares
from pulse_audit.fairness.shift import Draws
from pulse_audit.summary import summarise
from pulse_audit.summary.attributes import AGREEMENT, AttributeLabels, intersection

RACES = ["White", "Black", "Indian"]


@pytest.fixture(scope="module")
def frame(apparent_samples):
    return apparent_samples()


@pytest.fixture(scope="module")
def summary(apparent_manifest, frame):
    return summarise(apparent_manifest(), frame)


@pytest.fixture(scope="module")
def draws(frame):
    """Draws of pulse:g by race, made from the samples by hand."""
    mine = frame[frame["arm"] == "pulse:g"]
    number = {race: place for place, race in enumerate(RACES)}
    predicted = np.where(mine["status"] == "no_face", -1, mine["sr_race"].map(number))
    faces = mine["face_id"].str[4:8].astype(int)
    return Draws(faces, mine["label_race"].map(number), predicted, 3)


def rows(summary, metric, arm="pulse:g", group_by="race", correction="raw", **wanted):
    return [
        r
        for r in summary.estimates
        if (r.metric, r.arm, r.group_by, r.correction) == (metric, arm, group_by, correction)
        and r.statistic == "value"
        and all(getattr(r, key) == value for key, value in wanted.items())
    ]


def retention_where(draws, condition):
    outcomes = np.where(condition, draws.retained, np.nan)
    return shift.shares(outcomes, draws.faces, draws.truth, draws.k)


def ends(row):
    return row.value, row.low, row.high, row.n_faces, row.n_draws


def of(estimate):
    return pytest.approx(
        (estimate.value, estimate.low, estimate.high, estimate.n_faces, estimate.n_draws)
    )


def test_retention_is_over_all_draws_and_no_face_counts_against_it(summary, draws):
    found = summary.select("retention", "pulse:g", "clean", 8, "race")
    assert [r.group for r in found] == RACES
    for row, estimate in zip(found, shift.retention(draws), strict=True):
        assert ends(row) == of(estimate)


def test_conditional_retention_says_what_share_it_leaves_out(summary, draws, frame):
    found = rows(summary, "retention_classified", group="Black")[0]
    estimate = retention_where(draws, draws.predicted != shift.UNCLASSIFIED)[1]
    assert ends(found) == of(estimate)
    left_out = (draws.predicted[draws.truth == 1] == -1).mean()
    assert found.detail == {"attribute": "race", "excluded": pytest.approx(left_out)}
    mine = frame[(frame["arm"] == "pulse:g")]
    feasible = retention_where(draws, mine["feasible"].to_numpy(float) > 0)[1]
    assert ends(rows(summary, "retention_feasible", group="Black")[0]) == of(feasible)


def test_every_cell_of_the_shift_matrix_is_there(summary, draws):
    matrix = shift.shift_matrix(draws)
    found = rows(summary, "shift")
    assert len(found) == 3 * 4
    for row in found:
        column = [*RACES, "not classified"].index(row.to_group)
        assert ends(row) == of(matrix[RACES.index(row.group)][column])
    assert summary.select("shift", "pulse:g", "clean", 8, "race") == []


def test_the_original_baseline_is_the_model_on_the_originals_and_the_same_for_every_arm(
    summary, frame
):
    one = frame[frame["arm"] == "bicubic"].drop_duplicates("face_id")
    hits = (one["hr_race"] == one["label_race"]).groupby(one["label_race"]).mean()
    for arm in ("pulse:g", "bicubic"):
        for row in rows(summary, "retention", arm, correction="original_baseline"):
            assert row.value == pytest.approx(hits[row.group])
            assert row.n_draws == row.n_faces == 20
    assert len(rows(summary, "shift", correction="original_baseline")) == 9
    crossed = rows(summary, "retention", group_by="race,gender", correction="original_baseline")
    assert len(crossed) == 6


def test_corrected_retention_recovers_what_was_planted(summary):
    # no_face is 5 %, independent of the group
    for row, planted in zip(
        rows(summary, "retention", correction="corrected"), (0.9, 0.4, 0.85), strict=True
    ):
        assert row.low <= 0.95 * planted <= row.high
        assert row.detail["grade"] == "usable" and row.detail["half_width"] < 0.3
        assert row.detail["confusion"] == "run and card"
        assert 0 <= row.detail["em"] <= 1
    kept = rows(summary, "retention", "bicubic", correction="corrected")
    assert all(row.high >= 0.95 for row in kept)
    whole = rows(summary, "retention", group_by="all", correction="corrected")
    assert whole[0].low < 0.95 * np.mean([0.9, 0.4, 0.85]) < whole[0].high


def test_corrected_retention_is_selected_by_its_own_name(summary):
    found = summary.select("retention_corrected", "pulse:g", "clean", 8, "race")
    assert found == rows(summary, "retention", correction="corrected")


def test_labels_of_a_model_are_corrected_on_both_sides_by_its_card(
    apparent_manifest, apparent_samples
):
    # the labels are what the model sees in the originals, and err as it does
    manifest = apparent_manifest()
    manifest.attributes.labels_from = "model"
    frame = apparent_samples(100, arms=("pulse:g", "bicubic"))
    frame["label_race"] = frame["hr_race"]
    made = summarise(manifest, frame)
    for row, planted in zip(
        rows(made, "retention", correction="corrected"), (0.9, 0.4, 0.85), strict=True
    ):
        assert row.low <= 0.95 * planted <= row.high
        assert row.detail["confusion"] == "card" and "labels and outputs" in row.method
    raw = rows(made, "retention", "bicubic")
    assert all(r.value < 0.85 for r in raw)
    assert {r.detail["estimand"] for r in raw} == {AGREEMENT}
    # an inequality needs the raw agreement, too
    key = ("retention", "max_gap", "corrected", "pulse:g")
    gap = [r for r in made.estimates if (r.metric, r.statistic, r.correction, r.arm) == key]
    assert "by raw agreement" in gap[0].method and 0 < gap[0].low < 0.5


def test_outputs_that_equal_originals_a_model_labelled_are_not_known_to_be_kept(
    apparent_manifest, apparent_samples
):
    # every output is its original: the errors agree, and retention comes out above 1
    manifest = apparent_manifest()
    manifest.attributes.labels_from = "model"
    frame = apparent_samples(60, arms=("pulse:g",)).assign(status="ok")
    frame["label_race"] = frame["sr_race"] = frame["hr_race"]
    made = summarise(manifest, frame)
    for row in rows(made, "retention", correction="corrected"):
        assert row.value == row.high == 1 and row.detail["grade"] == "weak"
    gains = [r for r in rows(made, "net_flow", correction="corrected") if r.to_group is None]
    assert all(abs(r.value) < 1e-9 and r.low < 0 < r.high for r in gains)
    assert [r.low for r in made.estimates if r.statistic == "max_gap"
            and (r.metric, r.correction) == ("retention", "corrected")] == [0]  # fmt: skip


def test_labels_of_another_model_cannot_be_corrected(apparent_manifest, apparent_samples):
    manifest = apparent_manifest()
    manifest.attributes.labels_from = "model"
    made = summarise(manifest, apparent_samples(20, arms=("pulse:g",)))
    assert rows(made, "retention", correction="corrected") == []
    assert "another model" in made.unavailable["retention_corrected"]


def test_without_a_confusion_retention_is_raw_and_the_reason_is_given(
    apparent_manifest, apparent_samples
):
    manifest = apparent_manifest()
    manifest.attributes.labels_from = "model"
    manifest.attributes.card = {}
    made = summarise(manifest, apparent_samples(6, arms=("pulse:g",)))
    assert rows(made, "retention", correction="corrected") == []
    assert "no held-out confusion" in made.unavailable["retention_corrected"]


def test_a_correction_not_to_be_trusted_is_null_with_its_reason(
    apparent_manifest, apparent_samples
):
    frame = apparent_samples(6, arms=("pulse:g",))
    frame["hr_race"] = "White"  # a model that cannot tell
    made = summarise(apparent_manifest(), frame)
    found = rows(made, "retention", correction="corrected")
    assert [row.value for row in found] == [None] * 3
    assert all(row.detail["grade"] == "unavailable" and row.method for row in found)


def test_flows_are_between_pairs_and_from_all_others(summary, draws):
    flows, gains = shift.net_flows(draws), shift.net_gains(draws)
    found = {(r.group, r.to_group): r for r in rows(summary, "net_flow")}
    assert ends(found["Black", "White"]) == of(flows[1][0])
    assert ends(found["White", None]) == of(gains[0])
    assert len(found) == 9


def test_flows_are_corrected_and_have_what_the_originals_show(summary, frame):
    # bicubic keeps every group: its raw gains are errors of the model, as are the originals'
    def gains(correction, arm="bicubic"):
        return {r.group: r for r in rows(summary, "net_flow", arm, correction=correction)
                if r.to_group is None}  # fmt: skip

    corrected, baseline = gains("corrected"), gains("original_baseline")
    assert all(r.low <= 0 <= r.high for r in corrected.values())
    assert sum(r.value for r in corrected.values()) == pytest.approx(0, abs=1e-9)
    originals = frame[frame["arm"] == "bicubic"].drop_duplicates("face_id")
    for race, row in baseline.items():
        gained = (originals["hr_race"] == race).mean() - (originals["label_race"] == race).mean()
        assert row.value == pytest.approx(gained)
    # pulse:g: White gains .5 + .1 of a third less .1, but for 5 % without a face
    row = gains("corrected", "pulse:g")["White"]
    assert row.low <= 0.95 * 0.5 / 3 <= row.high
    assert row.detail["confusion"] == "run and card"
    pairs = {(r.group, r.to_group): r for r in rows(summary, "net_flow", correction="corrected")}
    assert len(pairs) == 9
    assert pairs["Black", "White"].value == pytest.approx(-pairs["White", "Black"].value)


def test_the_composition_of_outputs_is_corrected_and_by_cleam(summary):
    truth = 0.95 * np.array([0.9 + 0.5 + 0.1, 0.05 + 0.4 + 0.05, 0.05 + 0.1 + 0.85]) / 3
    ours = rows(summary, "output_share", correction="corrected")
    published = rows(summary, "output_share_cleam", correction="corrected")
    for row, other, share in zip(ours, published, truth, strict=True):
        assert row.low <= share <= row.high
        assert other.value == pytest.approx(row.value, abs=0.05)
        assert "taken as known" in other.method


def test_set_metrics_are_raw_and_of_originals_with_the_plug_in_beside_them(summary, draws):
    joint = joint_shares(draws, seed=0)
    row = rows(summary, "rdp_chi2")[0]
    assert (row.group, row.value > 0) == ("all", True)
    assert row.detail["plug_in"] == pytest.approx(sets.rdp(joint, "chi2").plug_in)
    assert len(rows(summary, "pr_tv", correction="original_baseline")) == 1
    names = {
        f"{p}_{d}" for p in ("rdp", "pr", "cpr", "spe") for d in ("chi2", "kl", "tv", "chebyshev")
    }
    assert names <= {r.metric for r in summary.estimates if r.value is not None}


def test_spe_and_cpr_start_from_the_apparent_group_of_the_original(summary, frame):
    mine = frame[(frame["arm"] == "pulse:g")]
    number = {race: place for place, race in enumerate(RACES)}
    predicted = np.where(mine["status"] == "no_face", -1, mine["sr_race"].map(number))
    faces = mine["face_id"].str[4:8].astype(int)
    origin = Draws(faces, mine["hr_race"].map(number), predicted, 3)
    expected = sets.spe(joint_shares(origin, seed=0), "tv").plug_in
    assert rows(summary, "spe_tv")[0].detail["plug_in"] == pytest.approx(expected)


def test_diversity_is_given_for_every_group_and_missing_at_one_draw(
    summary, apparent_manifest, apparent_samples
):
    assert [r.group for r in rows(summary, "flip_rate")] == RACES
    assert all(r.value > 0 for r in rows(summary, "entropy"))
    single = summarise(apparent_manifest(), apparent_samples(6, 1, arms=("pulse:g",)))
    row = rows(single, "flip_rate")[0]
    assert row.value is None and "at least two" in row.method


def test_the_largest_corrected_conversion_is_named_with_its_truth(
    apparent_manifest, apparent_samples
):
    frame = apparent_samples(100, arms=("planted:m",))
    rng, black = np.random.default_rng(2), frame["label_race"] == "Black"
    turned = black & (rng.random(len(frame)) < 0.5)
    frame["planted_group"] = np.where(turned, "White", frame["label_race"])
    frame["sr_race"] = [RACES[g] for g in seen(rng, frame["planted_group"].map(RACES.index))]
    matrix = [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]]
    arms = {"planted:m": {"kind": "planted", "groups": RACES, "matrix": matrix}}
    made = summarise(apparent_manifest(arms=arms), frame)
    cell = rows(made, "planted_shift", "planted:m", group="Black", to_group="White")[0]
    assert cell.value == pytest.approx(turned[black].mean()) and cell.detail == {"planted": 0.5}
    (sentence,) = [f.text for f in made.findings if "largest corrected conversion" in f.text]
    assert "planted:m is from Black to White" in sentence
    assert f"in truth {100 * cell.value:.0f} % of the photos" in sentence
    assert sentence.endswith("told 50 %.")


def seen(rng, groups):
    """Answers of a model that is right in 8 of 10, else in the next group."""
    return (groups + (rng.random(len(groups)) < 0.2)) % 3


def test_entropy_is_no_more_than_that_of_even_groups(apparent_manifest, apparent_samples):
    made = summarise(apparent_manifest(), apparent_samples(2, 5, arms=("pulse:g",), seed=1))
    found = [r for r in made.estimates if r.metric == "entropy" and r.high is not None]
    assert all(0 <= r.low <= r.value <= r.high <= max(r.value, np.log(6)) for r in found)
    by_race = [r for r in found if r.group_by == "race"]
    assert any(r.high == pytest.approx(np.log(3)) and "clipped" in r.method for r in by_race)


def test_skin_tone_is_compared_with_the_class_measured_on_the_output(summary):
    # White faces are intermediate, all others brown: .5 and .1 of these become White
    found = {(r.group, r.to_group): r.value for r in rows(summary, "shift", group_by="skin_tone")}
    assert found["brown", "intermediate"] == pytest.approx(0.3, abs=0.1)
    assert rows(summary, "retention", group_by="skin_tone", correction="original_baseline") == []


def test_an_intersection_of_which_outputs_have_one_attribute_says_which_it_compares(summary):
    found = rows(summary, "retention", group_by="race,gender")
    assert len(found) == 6 and {r.detail["attribute"] for r in found} == {"race"}
    assert rows(summary, "shift", group_by="race,gender") == []


@pytest.fixture(scope="module")
def crossed(apparent_manifest, apparent_samples):
    """Outputs turn Male with probability .3 whatever their race; the model errs in 1 of 10."""
    frame, rng = apparent_samples(100, arms=("pulse:g",)), np.random.default_rng(5)
    male = frame["label_gender"] == "Male"
    errs = pd.Series(rng.random(frame["face_id"].nunique()) < 0.1, index=frame["face_id"].unique())
    shown = male | (rng.random(len(frame)) < 0.3)
    for side, true, wrong in (
        ("hr", male, frame["face_id"].map(errs)),
        ("sr", shown, rng.random(len(frame)) < 0.1),
    ):
        frame[f"{side}_gender"] = np.where(true ^ wrong, "Male", "Female")
    manifest = apparent_manifest()
    for entry in (manifest.attributes.vocabulary, manifest.attributes.card.vocabulary):
        entry["gender"] = ["Male", "Female"]
    return manifest, frame, summarise(manifest, frame)


def test_retention_of_an_intersection_means_that_all_its_attributes_are_kept(crossed):
    _, frame, made = crossed
    kept = frame["sr_race"].eq(frame["label_race"]) & frame["sr_gender"].eq(frame["label_gender"])
    kept &= frame["status"] == "ok"
    by_group = kept.groupby(frame["label_race"] + " × " + frame["label_gender"]).mean()
    found = rows(made, "retention", group_by="race,gender")
    assert {r.group: r.value for r in found} == pytest.approx(by_group.to_dict())
    assert {r.detail["attribute"] for r in found} == {"race,gender"}
    # less is kept than of either attribute alone
    single = rows(made, "retention")
    assert max(r.value for r in found) <= max(r.value for r in single)
    cells = [r for r in rows(made, "shift", group_by="race,gender") if r.group == "Black × Female"]
    assert sum(r.value for r in cells) == pytest.approx(1)
    baseline = rows(made, "retention", group_by="race,gender", correction="original_baseline")
    assert 0.6 < baseline[0].value < 0.9  # .85 x .9


def test_an_intersection_of_many_groups_has_retention_alone(apparent_manifest, apparent_samples):
    frame = apparent_samples(4, arms=("pulse:g",))
    ages = [f"{decade}0s" for decade in range(1, 8)]
    for column in ("label_age", "hr_age", "sr_age"):
        frame[column] = [ages[n % 7] for n in pd.factorize(frame["face_id"])[0]]
    for column in ("hr_gender", "sr_gender"):
        frame[column] = frame["label_gender"]
    manifest = apparent_manifest()
    manifest.spec.group_by = ["race", "race,gender,age"]
    manifest.attributes.vocabulary |= {"gender": ["Male", "Female"], "age": ages}
    made = summarise(manifest, frame)
    found = rows(made, "retention", group_by="race,gender,age")
    assert {r.detail["attribute"] for r in found} == {"race,gender,age"}
    assert rows(made, "shift", group_by="race,gender,age") == []
    reason = made.unavailable["retention_corrected by race,gender,age"]
    assert reason == "at most 30 groups are corrected, not 42"


def test_an_intersection_is_corrected_by_the_errors_on_the_run_s_originals(crossed):
    _, _, made = crossed
    found = rows(made, "retention", group_by="race,gender", correction="corrected")
    truth = {f"{race} × {gender}": 0.95 * planted * kept
             for race, planted in zip(RACES, (0.9, 0.4, 0.85), strict=True)
             for gender, kept in (("Male", 1.0), ("Female", 0.7))}  # fmt: skip
    assert [r.group for r in found] == list(truth)
    for row in found:
        assert row.low <= truth[row.group] <= row.high, row


def test_the_card_s_errors_of_single_attributes_do_not_correct_an_intersection(crossed):
    manifest, frame, _ = crossed
    by_model = manifest.model_copy(deep=True)
    by_model.attributes.labels_from = "model"
    by_model.attributes.card.confusion["gender"] = [[90, 10], [10, 90]]
    frame = frame[frame["face_id"] < "val/0060"]
    labels = {f"label_{column}": frame[f"hr_{column}"] for column in ("race", "gender")}
    made = summarise(by_model, frame.assign(**labels))
    assert rows(made, "retention", correction="corrected")
    assert rows(made, "retention", group_by="race,gender", correction="corrected") == []
    assert "do not follow" in made.unavailable["retention_corrected by race,gender"]


def test_the_numbers_of_an_intersection_are_those_of_its_names():
    first = AttributeLabels(
        "a", ["x", "y"], *(np.array(v) for v in ([0, 1, 1], [0, 1, -1], [1, 1, 0])),
        Confusion.of_faces([0, 1], [0, 1], [0, 1], 2),
    )  # fmt: skip
    second = AttributeLabels(
        "b", ["u", "v", "w"], *(np.array(v) for v in ([2, 0, -1], [2, 1, 0], [2, -1, 1])),
        Confusion.of_faces([0, 1], [2, 0], [2, 1], 3),
    )  # fmt: skip
    both = intersection([first, second], np.array([0, 1, 2]))
    names = [*both.groups, None]
    assert [names[n] for n in both.truth] == ["x × w", "y × u", None]
    assert [names[n] for n in both.original] == ["x × w", "y × v", None]
    assert [names[n] for n in both.output] == ["y × w", None, "x × v"]
    assert both.confusion.counts.sum() == 2 and both.confusion.counts[2, 2] == 1


def test_cells_of_an_intersection_are_pooled_beside_their_raw_retention(summary):
    raw = {r.group: r for r in rows(summary, "retention", group_by="race,gender")}
    pooled = rows(summary, "retention_pooled", group_by="race,gender")
    assert [r.group for r in pooled] == list(raw)
    assert all("partially pooled" in r.method and 0 < r.detail["shrunk"] < 1 for r in pooled)
    spread = [np.ptp([r.value for r in found]) for found in (pooled, raw.values())]
    assert spread[0] < spread[1]
    assert not rows(summary, "retention_pooled")


def test_originals_without_a_found_face_are_the_baseline_of_the_no_face_rate(
    apparent_manifest, apparent_samples
):
    frame = apparent_samples(4, arms=("pulse:g",))
    frame["sr_face_found"] = frame["status"] == "ok"
    frame["hr_face_found"] = ~frame["face_id"].isin(["val/0001.jpg", "val/0004.jpg"])
    made = summarise(apparent_manifest(), frame)
    baselines = rows(made, "no_face_rate", correction="original_baseline")
    assert [(r.group, r.value, r.n_draws) for r in baselines] == [
        ("White", 0.0, 4),
        ("Black", 0.5, 4),
        ("Indian", 0.0, 4),
    ]


def test_the_whole_sample_tests_what_the_first_grouping_tests(summary, draws):
    found = rows(summary, "retention", group_by="all")[0]
    assert found.value == pytest.approx(draws.retained.mean())
    assert found.detail == {"attribute": "race"}


def test_without_predictions_metrics_of_groups_are_unavailable_because(
    apparent_manifest, apparent_samples
):
    bare = apparent_samples(4).drop(columns=["sr_race", "hr_race", "hr_ita", "sr_ita"])
    manifest = apparent_manifest(attributes=None, unavailable={"sr_race": "no attribute model"})
    manifest.spec.group_by = ["race"]
    made = summarise(manifest, bare)
    assert made.unavailable["retention"] == "no attribute model"
    assert made.unavailable["flip_rate"] == "no attribute model"
    assert not [r for r in made.estimates if r.metric == "retention"]


def test_faces_without_a_label_take_no_part(apparent_manifest, apparent_samples):
    frame = apparent_samples(8, arms=("pulse:g",))
    frame.loc[frame["face_id"] == "val/0000.jpg", "label_race"] = None
    made = summarise(apparent_manifest(), frame)
    assert rows(made, "retention", group="White")[0].n_faces == 7
    unlabelled = rows(made, "retention", group="no label")[0]
    assert unlabelled.value is None and unlabelled.n_draws == 0


def test_the_shift_matrix_under_the_hierarchical_model_stands_beside_the_raw_one(summary):
    pooled = rows(summary, "shift_pooled", arm="pulse:g", group_by="race")
    raw = rows(summary, "shift", arm="pulse:g", group_by="race", correction="raw")
    assert [(r.group, r.to_group) for r in pooled] == [(r.group, r.to_group) for r in raw]
    assert all(r.method.startswith("hierarchical multinomial") for r in pooled)
    assert all(abs(p.value - r.value) < 0.25 for p, r in zip(pooled, raw, strict=True))
    assert 0 < pooled[0].detail["shrunk"] < 1


def test_published_tests_stand_beside_the_right_ones(summary):
    for name in ("pr_p_published", "pr_p", "rdp_p_published", "rdp_p"):
        (row,) = rows(summary, name, arm="pulse:g", group_by="race")
        assert 0 <= row.value <= 1 and row.low is None and row.method.startswith("p; ")
    (right,) = rows(summary, "rdp_p", arm="pulse:g", group_by="race")
    (published,) = rows(summary, "rdp_p_published", arm="pulse:g", group_by="race")
    assert right.value < published.value
