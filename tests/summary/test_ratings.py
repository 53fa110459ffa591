"""Ratings as estimates: against sums done by hand, and two raters of whom one is harsh."""

from itertools import product

import numpy as np
import pytest

from pulse_audit.stats.crossed import crossed_mean
from pulse_audit.stats.ranks import mann_whitney
from pulse_audit.store import Answer, RatingItem, RatingKey, Ratings
from pulse_audit.summary import summarise

RACES = ["White", "Black", "Indian"]
ARMS = ["pulse:g", "bicubic"]
RATERS = ["harsh", "mild", "third"]
FACES = [f"val/{number:04d}.jpg" for number in range(6)]
#: Grades that a mild rater gives.
GRADES = {"": 5, "pulse:g": 4, "bicubic": 2}


@pytest.fixture(scope="module")
def samples(apparent_samples):
    frame = apparent_samples(per_group=20, draws=1)
    frame["image"] = [
        f"images/{a}/{f}.png" for a, f in zip(frame["arm"], frame["face_id"], strict=True)
    ]
    return frame


@pytest.fixture(scope="module")
def ratings(samples):
    """Three raters of six faces: each grade, group and choice follows a rule."""
    shown = [("mos", [arm] if arm else []) for arm in GRADES]
    shown += [("group", [arm]) for arm in ARMS] + [("choice", ARMS)]
    items = [
        RatingItem(
            id=f"i{number:08x}", task=task, face=face, condition="clean", scale=8, draw=0,
            # every second pair the other way round
            arms=arms[::-1] if task == "choice" and number % 2 else arms,
        )
        for number, (face, (task, arms)) in enumerate(product(FACES, shown))
    ]  # fmt: skip
    key = RatingKey(
        kit="k00000000", run="", seed=0, raters=RATERS, attribute="race", words=RACES, items=items
    )
    answers = [
        Answer(rater=rater, item=item.id, answer=answer_of(rater, item))
        for rater, item in product(RATERS, items)
    ]
    # one rater missed a picture
    return Ratings.make(
        key, {}, [a for a in answers if (a.rater, a.item) != ("third", items[1].id)]
    )


def answer_of(rater, item):
    face = FACES.index(item.face)
    if item.task == "mos":
        grade = GRADES[item.arms[0] if item.arms else ""]
        return str(max(1, grade - (rater == "harsh") - (face == 0)))
    if item.task == "group":
        # all see Black; on the second face they differ, on the third two cannot tell
        words = {1: dict(zip(RATERS, RACES, strict=True))[rater], 2: "cannot tell"}
        return "Black" if face > 2 or (face == 2 and rater == "third") else words.get(face, "Black")
    # pulse is closer, but for the first face
    wanted = "bicubic" if face == 0 else "pulse:g"
    return "left" if item.arms[0] == wanted else "right"


@pytest.fixture(scope="module")
def summary(samples, ratings, apparent_manifest):
    return summarise(apparent_manifest(), samples, ratings=ratings)


def rows(summary, metric, **wanted):
    found = [r for r in summary.estimates if r.metric == metric]
    return [r for r in found if all(getattr(r, k) == v for k, v in wanted.items())]


def graded(rater, face, arm):
    item = RatingItem(
        id="i00000000", task="mos", face=FACES[face], condition="", scale=8, draw=0, arms=[arm]
    )
    return int(answer_of(rater, item))


def test_without_ratings_nothing_changes(summary, samples, apparent_manifest):
    plain = summarise(apparent_manifest(), samples)
    new = ("mos", "mos_p", "preference", "rater_alpha", "drift", "hand_accuracy")
    assert [r for r in summary.estimates if r.metric not in new] == plain.estimates
    assert not [r for r in plain.estimates if r.metric in new]


def test_mean_opinion_scores_of_arms_groups_and_originals(summary):
    (row,) = rows(summary, "mos", arm="bicubic", group="all", statistic="value", correction="raw")
    values = [(graded(r, f, "bicubic"), r, f) for r in RATERS for f in range(6)]
    expected = crossed_mean(*zip(*values, strict=True), (1, 5))
    assert (row.value, row.low, row.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert (row.n_faces, row.n_draws) == (6, 6) and row.detail == {"raters": 3, "ratings": 18}
    # the picture that one rater missed
    (row,) = rows(summary, "mos", arm="pulse:g", group="all", statistic="value", correction="raw")
    assert row.detail["ratings"] == 17
    # faces 0 and 3 are White
    (row,) = rows(summary, "mos", arm="bicubic", group="White", correction="raw")
    assert row.value == pytest.approx(
        np.mean([graded(r, f, "bicubic") for r in RATERS for f in (0, 3)])
    )
    baselines = rows(summary, "mos", group="all", correction="original_baseline")
    assert {r.arm for r in baselines} == set(ARMS) and len({r.value for r in baselines}) == 1
    assert baselines[0].value == pytest.approx(5 - 1 / 3 - 1 / 6)


def test_differences_are_of_the_same_rater_and_face(summary):
    found = {(r.arm, r.detail["minus"]): r for r in rows(summary, "mos", statistic="difference")}
    assert set(found) == {("pulse:g", "bicubic"), ("pulse:g", "original"), ("bicubic", "original")}
    # harsh or mild, everyone grades pulse two above bicubic, but for the end of the scale
    row = found["pulse:g", "bicubic"]
    both = [(r, f) for r in RATERS for f in range(6) if (r, f) != ("third", 0)]
    differences = [graded(r, f, "pulse:g") - graded(r, f, "bicubic") for r, f in both]
    assert row.value == pytest.approx(np.mean(differences)) and row.detail["ratings"] == 17
    # far narrower than either score's own interval, which hold how harsh raters are
    (own,) = rows(summary, "mos", arm="bicubic", group="all", statistic="value", correction="raw")
    assert row.high - row.low < own.high - own.low


def test_rank_tests_are_of_all_ratings_and_adjusted(summary):
    found = {(r.arm, r.detail["minus"]): r for r in rows(summary, "mos_p")}
    one = [graded(r, f, "pulse:g") for r in RATERS for f in range(6) if (r, f) != ("third", 0)]
    two = [graded(r, f, "bicubic") for r in RATERS for f in range(6)]
    row, test = found["pulse:g", "bicubic"], mann_whitney(one, two)
    assert row.detail["u"] == test.u and row.detail["p_unadjusted"] == pytest.approx(test.p)
    plain = sorted(r.detail["p_unadjusted"] for r in found.values())
    adjusted = np.maximum.accumulate(np.multiply(plain, (3, 2, 1)))
    assert sorted(r.value for r in found.values()) == pytest.approx(list(adjusted))
    assert row.low is None and "as if independent" in row.method


def test_preferences_count_the_arm_and_not_the_side(summary):
    (row,) = rows(summary, "preference", group="all")
    assert (row.arm, row.detail["over"]) == ("pulse:g", "bicubic")
    assert row.value == pytest.approx(5 / 6) and row.low < 5 / 6 < row.high
    values = {r.group: r.value for r in rows(summary, "preference", group_by="race")}
    assert values == {"White": 0.5, "Black": 1.0, "Indian": 1.0}


def test_agreement_of_raters_on_groups_and_choices(summary):
    alphas = {(r.arm, r.detail["task"]): r.value for r in rows(summary, "rater_alpha")}
    assert alphas["pulse:g", "choice"] == 1 and 0 < alphas["pulse:g", "group"] < 1
    assert set(alphas) == {(arm, task) for arm in ARMS for task in ("mos", "group", "choice")}


def test_the_group_that_most_raters_saw_labels_an_output(
    summary, samples, ratings, apparent_manifest
):
    # four of six faces: of one all raters differ, and of one most cannot tell
    (row,) = rows(summary, "hand_accuracy", arm="bicubic", group="all")
    mine = samples[(samples["arm"] == "bicubic") & samples["face_id"].isin(FACES)]
    labelled = mine[mine["face_id"].isin([FACES[f] for f in (0, 3, 4, 5)])]
    seen = labelled[labelled["status"] == "ok"]
    assert row.n_draws == len(seen)
    assert row.value == pytest.approx((seen["sr_race"] == "Black").mean())
    # labels given otherwise go before
    image = seen["image"].iloc[0]
    again = summarise(
        apparent_manifest(), samples, ratings=ratings,
        hand_labels={image: {"race": seen["sr_race"].iloc[0]}},
    )  # fmt: skip
    (other,) = rows(again, "hand_accuracy", arm="bicubic", group="all")
    assert other.n_draws == row.n_draws and other.value >= row.value


def test_sentences_say_what_raters_said(summary):
    text = "\n".join(finding.text for finding in summary.findings)
    assert "Mean opinion score of 3 raters who did not know the arms" in text
    assert "4.50 [" in text and "for originals" in text
    assert "closer to the original than those of bicubic in 83 [" in text
    assert "Krippendorff's alpha of the raters is" in text
    assert not [f for f in summary.findings if "rater" in f.text and f.claims]


def test_one_rater_has_no_interval(samples, ratings, apparent_manifest):
    one = Ratings.make(ratings.key, {}, [a for a in ratings.answers if a.rater == "mild"])
    summary = summarise(apparent_manifest(), samples, ratings=one)
    (row,) = rows(summary, "mos", arm="bicubic", group="all", statistic="value", correction="raw")
    assert row.value is not None and row.low is None and row.method == "no interval: one rater"
    assert not rows(summary, "rater_alpha")
    assert any("(no interval)" in finding.text for finding in summary.findings)
