"""Rows of ``sources/``: the split of planted draws and its sums, compositions, UCPR."""

import numpy as np
import pandas as pd
import pytest

from pulse_audit import store
from pulse_audit.fairness import sets
from pulse_audit.fairness.sources import PARTS
from pulse_audit.stats.intervals import wilson
from pulse_audit.summary import text
from pulse_audit.summary.sources import attributed, source_rows, ucpr_rows, unavailable_sources
from pulse_audit.types import InputError

GROUPS = ("A", "B", "C")
FATES = ("retained", "chance", "preference", "adversarial", "incapacity")
# group -> chance of every fate
PLANTED = {
    "A": (0.6, 0.1, 0.2, 0.05, 0.05),
    "B": (0.2, 0.05, 0.1, 0.1, 0.55),
    "C": (0.1, 0.1, 0.5, 0.2, 0.1),
}
N_FACES, N_DRAWS = 40, 3


def planted(seed, check=True, arm="pulse:toy"):
    """Tables, samples and manifest of a run in which every draw's fate is known."""
    rng = np.random.default_rng(seed)
    faces, guided, samples, originals = [], [], [], []
    for number in range(N_FACES * 3):
        group, other, third = (GROUPS[(number + step) % 3] for step in range(3))
        name = f"face-{number:03d}"
        misread = number % 15 == 0  # a fifth of A, none of B and C
        faces.append({"id": name, "labels": {"race": group}})
        original = {"face_id": name, "hr_race": other if misread else group}
        if check:
            original["check_race"] = group if number % 8 else other
        originals.append(original)
        for draw in range(N_DRAWS):
            fate = rng.choice(FATES, p=PLANTED[group])
            key = {"arm": arm, "condition": "clean", "scale": 8, "face_id": name, "draw": draw}
            samples.append(
                {
                    **key,
                    "status": "ok",
                    "label_race": group,
                    "hr_race": original["hr_race"],
                    "sr_race": group if fate == "retained" else other,
                    "fate": fate,
                }
            )
            if misread or fate == "retained":
                continue
            shown = {
                "own": fate != "incapacity",
                "placebo": fate == "chance",
                "wrong": draw % 2 == 0,
            }
            for kind, is_shown in shown.items():
                toward = third if kind == "wrong" else group
                row = {**key, "search": kind, "toward": toward, "shown": is_shown}
                row["feasible"] = is_shown or draw % 2 == 0
                if check:
                    row["check_race"] = other if fate == "adversarial" else toward
                guided.append(row)
    prior = pd.DataFrame({"arm": arm, "sr_race": list("AAAB") * 50, "lightness": 60.0, "ita": 30.0})
    ucpr = [
        {"arm": arm, "scale": 8, "kind": kind, "input": kind, "sr_race": "A" if i < 15 else "B"}
        for kind in ("group_mean", "grey")
        for i in range(20)
    ]
    tables = {
        "originals": pd.DataFrame(originals),
        "prior": prior,
        "guided": pd.DataFrame(guided),
        "uninformative": pd.DataFrame(ucpr),
    }
    card = {
        "vocabulary": {"race": list(GROUPS)},
        "confusion": {"race": [[90, 10, 0], [20, 80, 0], [0, 0, 100]]},
    }
    manifest = {
        "schema": 1,
        "units": [],
        "arms": {arm: {"kind": "pulse"}},
        "spec": {"seed": 0},
        "faces": faces,
        "dataset": {"vocabulary": {"race": list(GROUPS)}},
        "attributes": {"vocabulary": {"race": list(GROUPS)}, "card": card},
        "sources": {
            "guided_by": ["race"],
            "training": {arm: {"race": {"A": 900, "B": 100, "C": 0}}},
        },
    }
    return tables, pd.DataFrame(samples), store.check_manifest(manifest)


def found(rows, metric, group="all", correction="raw"):
    (row,) = [r for r in rows if (r.metric, r.group, r.correction) == (metric, group, correction)]
    return row


@pytest.fixture(scope="module")
def estimated():
    return source_rows(*planted(0))


@pytest.mark.parametrize("group", ["all", *GROUPS])
def test_the_split_is_what_was_planted(estimated, group):
    """Counted from the planted fates by hand, faces whose original is misread apart."""
    samples = planted(0)[1]
    draws = samples if group == "all" else samples[samples.label_race == group]
    read = draws[draws.hr_race == draws.label_race]
    count = read.fate.value_counts()
    lost = read[read.fate != "retained"]
    of_read = {
        "source_retained": count["retained"],
        "source_chance": count["chance"],
        "source_found": count["chance"] + count["preference"],
        "source_preference": count["preference"],
        "source_adversarial": count["adversarial"],
        "source_incapacity": count["incapacity"],
        "source_incapacity_infeasible": (lost.draw[lost.fate == "incapacity"] % 2).sum(),
    }
    of_searched = {
        "guided_shown": len(lost) - count["incapacity"],
        "placebo_shown": count["chance"],
        "wrong_shown": (lost.draw % 2 == 0).sum(),
    }
    of_all = {
        "source_misread": len(draws) - len(read),
        "source_misread_lost": (draws.drop(read.index).fate != "retained").sum(),
    }
    for counts, n in ((of_read, len(read)), (of_searched, len(lost)), (of_all, len(draws))):
        for metric, number in counts.items():
            row = found(estimated, metric, group)
            assert row.value == pytest.approx(number / n), metric
            assert row.low <= row.value <= row.high
            assert row.n_draws == n


def test_the_parts_sum_to_one(estimated):
    for group in ("all", *GROUPS):
        values = [found(estimated, f"source_{part}", group).value for part in PARTS]
        assert sum(values) == pytest.approx(1)


def test_without_a_second_model_nothing_is_called_adversarial():
    tables, samples, manifest = planted(0, check=False)
    manifest.sources.unchecked = "not asked for"
    rows = source_rows(tables, samples, manifest)
    why = unavailable_sources(rows, manifest)
    for metric in ("source_adversarial", "guided_confirmed", "wrong_confirmed"):
        assert metric not in {row.metric for row in rows}
        assert why[metric] == "not asked for"
    assert "draws from the posterior" in why["source_preference_fair"]
    parts = ("retained", "chance", "preference", "incapacity")
    assert sum(found(rows, f"source_{p}", "B").value for p in parts) == pytest.approx(1)


def test_where_no_draw_is_lost_there_are_no_searches_and_no_preference():
    tables, samples, manifest = planted(0)
    samples["sr_race"] = samples["label_race"]
    rows = source_rows({**tables, "guided": tables["guided"].iloc[:0]}, samples, manifest)
    assert found(rows, "source_retained").value == 1
    preference = found(rows, "source_preference")
    assert preference.value == 0 and preference.low < 0 < preference.high
    why = unavailable_sources(rows, manifest)
    for metric in ("guided_shown", "placebo_shown", "wrong_shown"):
        assert metric not in {row.metric for row in rows}
        assert why[metric] == "no draw of a face whose original is read right was lost"


def test_a_preference_that_chance_explains_is_not_said_to_be_shown(estimated):
    (sentence, wrong) = text.sources(estimated)
    assert "not shown" not in sentence
    row = found(estimated, "source_preference")
    assert f"Preference is what exceeds that: {100 * row.value:+.0f} points" in sentence
    assert f"{100 * found(estimated, 'wrong_shown').value:.0f} %" in wrong
    # with the placebo in the place of guidance
    tables, samples, manifest = planted(0)
    searches = tables["guided"]
    placebo = searches[searches.search == "placebo"]
    both = pd.concat([placebo.assign(search="own"), placebo])
    rows = source_rows({**tables, "guided": both}, samples, manifest)
    (sentence,) = text.sources(rows)
    assert "+0 points" in sentence and sentence.count("not shown") == 1


def test_of_two_groups_there_is_no_wrong_one_to_guide_to():
    tables, samples, manifest = planted(0)
    searches = tables["guided"]
    rows = source_rows(
        {**tables, "guided": searches[searches.search != "wrong"]}, samples, manifest
    )
    assert "wrong_shown" not in {row.metric for row in rows}
    assert "show the only other group" in unavailable_sources(rows, manifest)["wrong_shown"]
    assert found(rows, "guided_shown").value > 0


def test_an_output_that_shows_no_face_is_lost():
    samples = (
        planted(0)[1]
        .iloc[:4]
        .assign(
            status=["ok", "no_face", "error", "ok"],
            label_race="A",
            hr_race=["A", "A", "A", None],
            sr_race=["A", "A", None, "A"],
        )
    )
    rows = attributed(samples, ["race"])
    assert rows.retained.tolist() == [True, False, False, True]
    assert rows.read.tolist() == [True, True, True, False]
    assert rows.lost.tolist() == [False, True, True, False]
    assert rows.apparent.tolist() == ["A", "", "", "A"]


def test_faces_that_no_draw_shows_are_counted_once(estimated):
    samples = planted(0)[1]
    read = samples[(samples.label_race == "B") & (samples.hr_race == "B")]
    shows = read.fate.isin(["retained", "chance", "preference"])
    count = int((~shows.groupby(read.face_id).any()).sum())
    row = found(estimated, "source_incapacity_faces", "B")
    assert row.value == pytest.approx(count / N_FACES)
    assert (row.low, row.high) == pytest.approx(wilson(count, N_FACES))


def test_confirmation_stands_beside_what_originals_would_score(estimated):
    """The second model misreads every eighth original: 14 or so, of which the first some too."""
    tables, samples, _ = planted(0)
    fate = samples[samples.hr_race == samples.label_race].fate
    row = found(estimated, "guided_confirmed")
    believed, shown = fate.isin(["chance", "preference"]), ~fate.isin(["retained", "incapacity"])
    assert row.value == pytest.approx(believed.sum() / shown.sum())
    assert row.n_draws == shown.sum()
    read = [number for number in range(N_FACES * 3) if number % 15]
    baseline = found(estimated, "guided_confirmed", correction="original_baseline")
    assert baseline.value == pytest.approx(np.mean([number % 8 > 0 for number in read]))
    assert baseline.n_faces == len(read)


def test_compositions_and_what_lies_between_them(estimated):
    prior = found(estimated, "prior_share", "B")
    assert (prior.value, prior.n_draws) == (0.25, 200)
    assert found(estimated, "training_share", "B").value == 0.1
    assert found(estimated, "evaluation_share", "B").value == pytest.approx(1 / 3)
    gap = found(estimated, "prior_minus_training", "B")
    assert gap.value == pytest.approx(0.15)
    assert gap.low == pytest.approx(prior.low - 0.1)
    assert found(estimated, "prior_minus_evaluation", "B").value == pytest.approx(-1 / 12)
    between = found(estimated, "training_minus_evaluation", "B")
    assert between.value == between.low == between.high == pytest.approx(0.1 - 1 / 3)
    assert found(estimated, "prior_lightness").value == 60


def test_the_prior_is_corrected_by_the_card(estimated):
    """Of x of B, .8 x + .1 (1 - x) is read as B: .25 is read of 3/14."""
    row = found(estimated, "prior_share", "B", "corrected")
    assert row.value == pytest.approx(0.15 / 0.7)
    assert row.low < 0.15 / 0.7 < row.high


def test_uninformative_inputs_by_kind(estimated):
    row = found(estimated, "ucpr_share_grey", "A")
    assert (row.value, row.n_draws, row.condition) == (0.75, 20, "clean")
    assert found(estimated, "ucpr_share_group_mean", "B").value == 0.25


def test_no_row_is_there_twice(estimated):
    key = ("arm", "condition", "scale", "metric", "group_by", "group", "correction")
    assert len({tuple(getattr(row, k) for k in key) for row in estimated}) == len(estimated)


def test_the_order_of_rows_does_not_matter(estimated):
    tables, samples, manifest = planted(0)
    mixed = {name: table.sample(frac=1, random_state=1) for name, table in tables.items()}
    again = source_rows(mixed, samples.sample(frac=1, random_state=2), manifest)
    assert sorted(map(str, again)) == sorted(map(str, estimated))


def test_searches_without_a_sample_are_refused():
    tables, samples, manifest = planted(0)
    with pytest.raises(InputError, match="'own' searches are not one for each draw of the samples"):
        source_rows(tables, samples.iloc[15:], manifest)


def test_lost_draws_without_a_search_are_refused():
    tables, samples, manifest = planted(0)
    short = {**tables, "guided": tables["guided"].iloc[3:]}
    with pytest.raises(InputError, match="not those of the lost draws"):
        source_rows(short, samples, manifest)


def test_ucpr_compares_outputs_with_the_composition_of_the_faces(
    apparent_manifest, apparent_samples
):
    frame = apparent_samples(12, arms=("pulse:g",))
    table = pd.DataFrame(
        {
            "arm": "pulse:g",
            "scale": 8,
            "kind": np.repeat(["grey", "group_mean"], 30),
            "input": np.repeat(["grey", "mean Black"], 30),
            "sr_race": ["White"] * 30 + ["White", "Black", "Indian"] * 10,
        }
    )
    rows = ucpr_rows(table, frame, apparent_manifest())
    found = {(r.metric, r.group): r for r in rows}
    assert found["ucpr_tv", "grey"].detail["plug_in"] == pytest.approx(2 / 3)
    assert found["ucpr_tv", "group_mean"].value < 0.1
    expected = sets.ucpr([0] * 30, [0] * 30, [1 / 3] * 3, "chi2", seed=0).plug_in
    assert found["ucpr_chi2", "grey"].detail["plug_in"] == pytest.approx(expected)
