"""The first screen: which sentences and claims follow from corrected shifts of known truth."""

import numpy as np
import pytest

from pulse_audit.fairness.confusion import Confusion
from pulse_audit.fairness.correction import corrected_shifts
from pulse_audit.fairness.shift import Draws
from pulse_audit.summary.claims import Evidence, first_screen
from pulse_audit.summary.joint import Interval, joint_intervals

GROUPS = ["White", "Black", "Indian"]
COUNTS = np.array([[900, 50, 50], [40, 920, 40], [60, 60, 880]])
CONFUSION = Confusion.from_counts(COUNTS)
KEEPS = np.eye(3)
TURNS = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])


def draws(rng, shift, faces=100, number=2):
    """Draws of one arm: true groups by ``shift``, predicted ones by the confusion matrix."""
    truth = np.repeat(np.arange(3), faces * number)
    face = np.repeat(np.arange(3 * faces), number)
    cumulative = np.cumsum(shift @ CONFUSION.shares, axis=1)[truth]
    predicted = np.minimum((rng.random(len(truth))[:, None] > cumulative).sum(axis=1), 2)
    return Draws(face, truth, predicted, 3)


def evidence(matrices, seed=0, **changes):
    rng = np.random.default_rng(seed)
    faces = changes.pop("faces", 100)
    arms = [draws(rng, matrix, faces) for matrix in matrices.values()]
    shifts = corrected_shifts(arms, CONFUSION, replicates=500, seed=seed)
    content = {
        "attribute": "race",
        "name": "race",
        "groups": GROUPS,
        "labels_from": "people",
        "shifts": dict(zip(matrices, shifts, strict=True)),
        "agreement": {arm: Interval(0.5, 0.6, 0.7) for arm in matrices},
        "originals": 0.9,
        "raw_gaps": dict.fromkeys(matrices, 0.1),
        "faces": faces,
    }
    return Evidence(**{**content, **changes})


def claims(findings):
    return [claim for finding in findings for claim in finding.claims]


def test_a_planted_conversion_is_named_with_its_groups_and_truth():
    planted = evidence({"first": TURNS, "second": KEEPS}, planted={"first": TURNS})
    findings = first_screen(planted)
    (converted,) = [claim for claim in claims(findings) if claim.metric == "shift"]
    assert (converted.arm, converted.group, converted.to_group) == ("first", "Black", "White")
    assert 0.2 < converted.bound < 0.5
    text = " ".join(finding.text for finding in findings)
    assert "% of Black faces White (planted: 50 %), the largest of 6 conversions" in text
    assert "for second no conversion between groups is shown" in text
    assert 0 < converted.tipping_point <= 0.5
    # the pair of groups, the inequality and the difference of arms are claims of the same screen
    unequal = [claim for claim in claims(findings) if claim.direction == "unequal"]
    assert [claim.arm for claim in unequal] == ["first"] and unequal[0].bound > 0.2
    (pair,) = [claim for claim in claims(findings) if claim.than_group]
    assert pair.than_group == "Black" and pair.bound == unequal[0].bound
    (arms,) = [claim for claim in claims(findings) if claim.minus]
    assert (arms.arm, arms.minus, arms.direction) == ("second", "first", "higher")


def test_groups_kept_alike_are_called_so_within_the_stated_margin_only():
    alike = first_screen(evidence({"only": KEEPS}, faces=1500))
    (claim,) = [claim for claim in claims(alike) if claim.direction == "equivalent"]
    assert claim.bound == 0.10 and claim.group is None
    assert any("kept all groups alike to within 10 points" in f.text for f in alike)
    few = first_screen(evidence({"only": KEEPS}, faces=60))
    assert not [claim for claim in claims(few) if claim.direction in ("equivalent", "unequal")]
    assert any("no inequality between groups is shown (up to" in finding.text for finding in few)


def test_few_faces_give_no_number_but_say_so():
    few = first_screen(evidence({"only": TURNS}, faces=4))
    assert claims(few) == []
    assert few[0].text.startswith("The classifier agrees with the race label in 60 % [50, 70]")
    assert few[1].text == (
        "Who was kept and who became whom is not shown: the classifier's errors cannot be "
        "corrected at 4 faces a group."
    )


def test_without_a_correction_agreement_is_described_and_the_reason_given():
    bare = evidence({"only": KEEPS}, shifts={}, reason="its errors are not known", originals=None)
    assert [finding.text for finding in first_screen(bare)] == [
        "The classifier agrees with the race label in 60 % [50, 70] of outputs of only.",
        "Who was kept and who became whom is not shown: its errors are not known.",
    ]
    assert first_screen(evidence({"only": KEEPS}, shifts={}, agreement={})) == []


def test_where_a_model_gave_the_labels_both_numbers_must_show_an_inequality():
    shown = evidence({"only": TURNS}, labels_from="model")
    unequal = [c for c in claims(first_screen(shown)) if c.direction == "unequal"]
    assert unequal and unequal[0].tipping_point is None
    # errors that agree on both sides make retention look higher: no lower bound is claimed
    whole = [c.direction for c in claims(first_screen(shown)) if c.group == "all"]
    assert whole == ["lower"] and "kept in at most" in first_screen(shown)[0].text
    unshown = evidence({"only": TURNS}, labels_from="model", raw_gaps={"only": 0.0})
    assert not [c for c in claims(first_screen(unshown)) if c.direction == "unequal"]


def test_intervals_hold_together_and_groups_are_reversed_pairs():
    intervals = joint_intervals(evidence({"first": TURNS, "second": KEEPS}).shifts)
    assert set(intervals.kept) == {"first", "second"}
    assert set(intervals.arms) == {("first", "second")}
    pairs = intervals.groups["first"]
    assert len(pairs) == 6 and pairs[0, 1].reversed() == pairs[1, 0]
    assert all(0 <= c.low <= c.high <= 1 for c in intervals.cells["first"].values())
    truth = TURNS.diagonal().mean()
    assert intervals.kept["first"].low < truth < intervals.kept["first"].high


def test_no_group_exceeds_another_that_may_be_kept_wholly():
    # all faces are kept and answers repeat those on the originals: estimates exceed 1, unequally
    rng = np.random.default_rng(1)
    truth = np.repeat(np.arange(3), 200)
    arm = Draws(np.arange(600), truth, truth, 3)
    weak = Confusion.from_counts([[500, 250, 250], [30, 940, 30], [30, 30, 940]])
    (shift,) = corrected_shifts([arm], weak, replicates=300, seed=int(rng.integers(100)))
    assert shift.values.diagonal().max() > 1.3
    intervals = joint_intervals({"only": shift})
    assert max(interval.low for interval in intervals.groups["only"].values()) <= 0


@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_upsampler_is_not_accused(seed):
    findings = first_screen(evidence({"first": KEEPS, "second": KEEPS}, seed=seed))
    accusing = [c for c in claims(findings) if c.metric == "shift" or c.direction == "unequal"]
    assert accusing == [] and not [c for c in claims(findings) if c.minus and c.bound > 0.1]
