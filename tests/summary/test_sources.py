"""Rows of ``sources/``: the split of planted draws and its sums, compositions, UCPR."""

import numpy as np
import pandas as pd
import pytest

from pulse_audit import store
from pulse_audit.fairness import sets
from pulse_audit.fairness.sources import ADVERSARIAL, INCAPACITY, PARTS, PREFERENCE, RETAINED
from pulse_audit.stats.intervals import wilson
from pulse_audit.summary.groups import DRAW_KEYS
from pulse_audit.summary.sources import source_rows, ucpr_rows
from pulse_audit.types import InputError

GROUPS = ("A", "B")
# group -> chance of retained, preference, adversarial, incapacity; A's originals misread
PLANTED = {
    "A": (0.7, 0.2, 0.05, 0.05),
    "B": (0.2, 0.1, 0.1, 0.6),
}
N_FACES, N_DRAWS = 40, 3


def planted(seed, check=True, arm="pulse:toy"):
    """Tables, samples and manifest of a run in which every draw's source is known."""
    rng = np.random.default_rng(seed)
    faces, guided, samples, originals = [], [], [], []
    for number in range(N_FACES * 2):
        group = GROUPS[number % 2]
        other = GROUPS[1 - number % 2]
        name = f"face-{number:03d}"
        misread = number % 10 == 0  # a fifth of A, none of B
        faces.append({"id": name, "labels": {"race": group}})
        original = {"face_id": name, "hr_race": other if misread else group}
        if check:
            original["check_race"] = group if number % 20 else other
        originals.append(original)
        for draw in range(N_DRAWS):
            part = rng.choice([RETAINED, PREFERENCE, ADVERSARIAL, INCAPACITY], p=PLANTED[group])
            key = {"arm": arm, "condition": "clean", "scale": 8, "face_id": name, "draw": draw}
            samples.append(
                {
                    **key,
                    "status": "ok",
                    "label_race": group,
                    "sr_race": group if part == RETAINED else other,
                }
            )
            row = {
                **key,
                "feasible": part != INCAPACITY or draw % 2 == 0,
                "shown": part in (RETAINED, PREFERENCE, ADVERSARIAL),
            }
            if check:
                row["check_race"] = other if part == ADVERSARIAL else group
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
    card = {"vocabulary": {"race": list(GROUPS)}, "confusion": {"race": [[90, 10], [20, 80]]}}
    manifest = {
        "schema": 1,
        "units": [],
        "arms": {arm: {"kind": "pulse"}},
        "spec": {"seed": 0},
        "faces": faces,
        "dataset": {"vocabulary": {"race": list(GROUPS)}},
        "attributes": {"vocabulary": {"race": list(GROUPS)}, "card": card},
        "sources": {"guided_by": ["race"], "training": {arm: {"race": {"A": 900, "B": 100}}}},
    }
    return tables, pd.DataFrame(samples), store.check_manifest(manifest)


def found(rows, metric, group="all", correction="raw"):
    (row,) = [r for r in rows if (r.metric, r.group, r.correction) == (metric, group, correction)]
    return row


@pytest.fixture(scope="module")
def estimated():
    return source_rows(*planted(0))


def test_the_split_is_what_was_planted(estimated):
    """Counted from the planted rows by hand, faces whose original is misread apart."""
    tables, samples, _ = planted(0)
    rows = samples.merge(tables["guided"], on=DRAW_KEYS).merge(
        tables["originals"], on="face_id", suffixes=("", "_hr")
    )
    for group, of_group in rows.groupby("label_race"):
        lost = of_group[of_group.sr_race != group]
        read = lost[lost.hr_race == group]
        expected = {
            "source_retained": len(of_group) - len(lost),
            "source_classifier": len(lost) - len(read),
            "source_preference": (read.shown & (read.check_race == group)).sum(),
            "source_adversarial": (read.shown & (read.check_race != group)).sum(),
            "source_incapacity": (~read.shown).sum(),
            "source_incapacity_infeasible": (~read.shown & ~read.feasible).sum(),
            "guided_shown": of_group.shown.sum(),
        }
        for metric, count in expected.items():
            row = found(estimated, metric, group)
            assert row.value == pytest.approx(count / len(of_group)), metric
            assert row.low <= row.value <= row.high
            assert (row.n_faces, row.n_draws) == (N_FACES, N_FACES * N_DRAWS)


def test_the_parts_sum_to_one(estimated):
    for group in ("all", *GROUPS):
        values = [found(estimated, f"source_{part}", group).value for part in PARTS]
        assert sum(values) == pytest.approx(1)


def test_without_a_second_model_nothing_is_called_adversarial():
    rows = source_rows(*planted(0, check=False))
    metrics = {row.metric for row in rows}
    assert not metrics & {"source_adversarial", "guided_confirmed"}
    parts = ("retained", "classifier", "preference", "incapacity")
    assert sum(found(rows, f"source_{p}", "B").value for p in parts) == pytest.approx(1)


def test_faces_that_no_draw_shows_are_counted_once(estimated):
    tables, samples, _ = planted(0)
    rows = samples.merge(tables["guided"], on=DRAW_KEYS)
    shows = (rows.sr_race == rows.label_race) | (rows.shown & (rows.check_race == rows.label_race))
    never = ~shows.groupby([rows.label_race, rows.face_id]).any()
    row = found(estimated, "source_incapacity_faces", "B")
    count = int(never["B"].sum())
    assert row.value == pytest.approx(count / N_FACES)
    assert (row.low, row.high) == pytest.approx(wilson(count, N_FACES))


def test_confirmation_stands_beside_what_originals_would_score(estimated):
    """Of B's 40 originals all are read by the first model; none of them is face 0, 20, 40, 60."""
    tables, samples, _ = planted(0)
    rows = samples.merge(tables["guided"], on=DRAW_KEYS)
    shown = rows[rows.shown & (rows.label_race == "B")]
    row = found(estimated, "guided_confirmed", "B")
    assert row.value == pytest.approx((shown.check_race == "B").mean())
    assert row.n_draws == len(shown)
    baseline = found(estimated, "guided_confirmed", "A", "original_baseline")
    # the first model reads 32 of A's; the second misses 0, 20, 40, 60, all misread by the first
    assert (baseline.value, baseline.n_faces) == (1, 32)


def test_compositions_and_what_lies_between_them(estimated):
    prior = found(estimated, "prior_share", "B")
    assert (prior.value, prior.n_draws) == (0.25, 200)
    assert found(estimated, "training_share", "B").value == 0.1
    assert found(estimated, "evaluation_share", "B").value == 0.5
    gap = found(estimated, "prior_minus_training", "B")
    assert gap.value == pytest.approx(0.15)
    assert gap.low == pytest.approx(prior.low - 0.1)
    assert found(estimated, "prior_minus_evaluation", "B").value == pytest.approx(-0.25)
    between = found(estimated, "training_minus_evaluation", "B")
    assert between.value == between.low == between.high == pytest.approx(-0.4)
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


def test_draws_without_a_sample_are_refused():
    tables, samples, manifest = planted(0)
    with pytest.raises(InputError, match="5 of its 240 draws are not in the samples"):
        source_rows(tables, samples.iloc[5:], manifest)


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
