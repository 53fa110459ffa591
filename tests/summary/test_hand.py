"""People's labels of outputs: rows, sentences, and claims held against the drift they allow."""

import numpy as np
import pytest

from pulse_audit.summary import summarise
from pulse_audit.summary.hand import drift_verdict
from pulse_audit.summary.schema import Claim, Finding

RACES = ["White", "Black", "Indian"]
ARM = "pulse:g"


@pytest.fixture(scope="module")
def samples(apparent_samples):
    """Sixty faces a group, one draw; the group that an output truly shows is in ``shown``."""
    frame = apparent_samples(per_group=60, draws=1)
    # the made-up skin tone of an output follows its true group
    frame["shown"] = [RACES[round((40 - tone) / 30)] for tone in frame["sr_ita"]]
    frame["image"] = [
        f"images/{a}/{f}.png" for a, f in zip(frame["arm"], frame["face_id"], strict=True)
    ]
    return frame.drop(columns=["hr_ita", "sr_ita"])


def manifest(apparent_manifest):
    spec = {"group_by": [["race"]], "conditions": ["clean"], "scales": [8], "seed": 0}
    return apparent_manifest(spec=spec)


def given(frame, per_group=None, arms=(ARM,), wrong=0.0, by="label_race"):
    """Labels of outputs; a share of the Black ones is called Indian."""
    chosen = frame[frame["arm"].isin(arms)]
    if per_group:
        chosen = chosen.groupby(["arm", by]).head(per_group)
    rng = np.random.default_rng(0)
    return {
        image: {"race": "Indian" if word == "Black" and rng.random() < wrong else word}
        for image, word in zip(chosen["image"], chosen["shown"], strict=True)
    }


def rows(summary, metric, arm=ARM, **wanted):
    found = [r for r in summary.estimates if (r.metric, r.arm) == (metric, arm)]
    return [r for r in found if all(getattr(r, k) == v for k, v in wanted.items())]


def test_without_labels_nothing_changes(samples, apparent_manifest):
    plain = summarise(manifest(apparent_manifest), samples)
    labelled = summarise(manifest(apparent_manifest), samples, hand_labels=given(samples))
    assert not rows(plain, "drift") and not rows(plain, "hand_accuracy")
    others = [r for r in labelled.estimates if r.metric not in ("drift", "hand_accuracy")]
    assert others == plain.estimates


def test_accuracy_and_drift_by_the_group_that_people_see(samples, apparent_manifest):
    labels = given(samples)
    summary = summarise(manifest(apparent_manifest), samples, hand_labels=labels)
    frame = samples[(samples["arm"] == ARM) & (samples["status"] == "ok")]
    for group in RACES:
        inside = frame[frame["shown"] == group]
        (accuracy,) = rows(summary, "hand_accuracy", group=group)
        assert accuracy.value == pytest.approx((inside["sr_race"] == group).mean())
        assert (accuracy.n_draws, accuracy.group_by) == (len(inside), "race")
        (drift,) = rows(summary, "drift", group=group)
        # the model errs alike on photos and outputs
        assert drift.low < 0 < drift.high
    (whole,) = rows(summary, "hand_accuracy", group="all")
    assert whole.group_by == "all" and whole.n_draws == len(frame)
    (largest,) = rows(summary, "drift", statistic="max_abs")
    assert largest.low == 0 and largest.high > max(abs(r.value) for r in rows(summary, "drift"))
    text = " ".join(finding.text for finding in summary.findings)
    assert f"People labelled {len(frame)} outputs of pulse:g" in text
    # arms without labels have no rows
    assert not rows(summary, "hand_accuracy", arm="bicubic")


def test_a_drift_is_shown_where_people_see_another_group_than_the_model(samples, apparent_manifest):
    # two in three outputs that show a Black face are Indian to people, whom the model calls Black
    labels = given(samples, arms=("bicubic",), wrong=0.65)
    summary = summarise(manifest(apparent_manifest), samples, hand_labels=labels)
    (drift,) = rows(summary, "drift", "bicubic", group="Indian")
    assert drift.high < 0
    (largest,) = rows(summary, "drift", "bicubic", statistic="max_abs")
    assert largest.low > 0


def test_few_labels_are_unavailable_because(samples, apparent_manifest):
    labels = given(samples, per_group=4)
    summary = summarise(manifest(apparent_manifest), samples, hand_labels=labels)
    (drift,) = rows(summary, "drift", group="Indian")
    assert drift.value is None and "outputs of group Indian were labelled" in drift.method
    (largest,) = rows(summary, "drift", statistic="max_abs")
    assert largest.value is None
    text = " ".join(finding.text for finding in summary.findings)
    assert "allow is unavailable, because only" in text and "undo this" not in text


def test_an_attribute_without_predictions_says_so(samples, apparent_manifest):
    labels = {image: {"gender": "Male"} for image in given(samples)}
    summary = summarise(manifest(apparent_manifest), samples, hand_labels=labels)
    assert "hand_accuracy by gender" in summary.unavailable
    assert not rows(summary, "hand_accuracy")


def test_the_first_screen_s_claims_are_held_against_the_drift(apparent_samples, apparent_manifest):
    frame = apparent_samples(per_group=400, draws=1, arms=(ARM,))
    frame["shown"] = [RACES[round((40 - tone) / 30)] for tone in frame["sr_ita"]]
    frame["image"] = [f"images/{face}.png" for face in frame["face_id"]]
    for per_group, verdict in ((12, "would undo this"), (400, "this holds against the drift")):
        summary = summarise(
            manifest(apparent_manifest), frame, hand_labels=given(frame, per_group, by="shown")
        )
        (converted,) = [f for f in summary.findings if any(c.metric == "shift" for c in f.claims)]
        (largest,) = rows(summary, "drift", statistic="max_abs")
        point = next(c.tipping_point for c in converted.claims)
        assert verdict in converted.text
        assert (point <= largest.high) == (verdict == "would undo this")


def claim(arm, point, minus=None):
    return Claim(
        metric="retention", correction="corrected", arm=arm, minus=minus, group_by="race",
        direction="higher", bound=0.1, tipping_point=point,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ([], ""),
        ([claim("a", None)], ""),
        ([claim("unlabelled", 0.2)], ""),
        (
            [claim("a", 0.05)],
            "; people's labels allow a drift of up to 9 points, which would undo this",
        ),
        # the weakest claim decides
        (
            [claim("a", 0.3), claim("a", 0.08)],
            "; people's labels allow a drift of up to 9 points, which would undo this",
        ),
        (
            [claim("a", 0.3)],
            "; this holds against the drift of up to 9 points that people's labels allow",
        ),
        (
            [claim("a", 0.3), claim("b", 0.1)],
            "; people's labels allow a drift of up to 20 points, which would undo this for b; this "
            "holds for a against the drift of up to 9 points that people's labels allow",
        ),
        (
            [claim("a", 0.3, minus="b")],
            "; this holds against the drift of up to 20 points that people's labels allow, if both "
            "arms drift alike",
        ),
        # no drift that was tried undoes it, and labels allow larger ones
        ([claim("wide", 0.5)], ""),
        (
            [claim("a", 0.3), claim("unlabelled", 0.3)],
            "; this holds for a against the drift of up to 9 points that people's labels allow",
        ),
    ],
)
def test_verdicts(claims, text):
    assert drift_verdict(claims, {"a": 0.083, "b": 0.2, "wide": 0.6}) == text
    assert Finding(text="x", claims=claims).claims == claims
