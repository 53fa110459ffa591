"""The second attribute model: its own corrected shifts, agreement, and the marks on claims."""

import numpy as np
import pytest

from pulse_audit.summary.estimates import first_screen_of, summarise

RACES = ["White", "Black", "Indian"]
#: What the second model answers for each true group.
ERRS = np.array([[0.90, 0.05, 0.05], [0.05, 0.90, 0.05], [0.05, 0.05, 0.90]])


def audit(apparent_samples, apparent_manifest, outputs, labels_from="people"):
    """A made-up run; ``outputs`` says what the second model sees in an output of true group."""
    rng = np.random.default_rng(3)
    samples = apparent_samples(per_group=100, seed=1)
    truth = np.array([RACES.index(word) for word in samples["label_race"]])
    # the true group of each output is recorded by its measured skin tone
    shown = np.round((40.0 - samples["sr_ita"].to_numpy()) / 30).astype(int)
    pick = lambda groups: [RACES[rng.choice(3, p=ERRS[g])] for g in groups]  # noqa: E731
    of_face = dict(zip(samples["face_id"], pick(truth), strict=True))
    samples["hr_race_check"] = samples["face_id"].map(of_face)
    samples["sr_race_check"] = pick(truth if outputs == "kept" else shown)
    second = {
        "name": "second",
        "vocabulary": {"race": RACES},
        "confusion": {"race": (ERRS * 1000).astype(int).tolist()},
        "labels_from": labels_from,
    }
    return apparent_manifest(second_attributes=second), samples


@pytest.mark.parametrize(("outputs", "mark"), [("shifted", "confirmed"), ("kept", "not confirmed")])
def test_a_claim_is_marked_by_what_the_second_model_sees(
    apparent_samples, apparent_manifest, outputs, mark
):
    findings = first_screen_of(*audit(apparent_samples, apparent_manifest, outputs))
    found = [(claim, finding.text) for finding in findings for claim in finding.claims]
    (shift,) = [pair for pair in found if pair[0].metric == "shift" and pair[0].arm == "pulse:g"]
    assert (shift[0].group, shift[0].to_group, shift[0].checked) == ("Black", "White", mark)
    clause = "; the second attribute model does not confirm it"
    assert (clause in shift[1]) == (mark == "not confirmed")
    unequal = [claim for claim, _ in found if claim.direction == "unequal"]
    assert [claim.checked for claim in unequal] == [mark]


def test_without_a_second_model_no_claim_is_marked(apparent_samples, apparent_manifest):
    samples = apparent_samples(per_group=100, seed=1)
    findings = first_screen_of(apparent_manifest(), samples)
    claims = [claim for finding in findings for claim in finding.claims]
    assert claims and all(claim.checked is None for claim in claims)


def test_rows_of_the_second_model_recover_the_planted_shift(apparent_samples, apparent_manifest):
    summary = summarise(*audit(apparent_samples, apparent_manifest, "shifted"))
    rows = [row for row in summary.estimates if row.arm == "pulse:g"]
    cells = {
        (row.group, row.to_group): row
        for row in rows
        if row.metric == "shift_check" and row.group_by == "race"
    }
    assert {row.detail["attributes"] for row in cells.values()} == {"second"}
    # 5 % of draws show no face; planted: half of Black faces turn White
    assert cells["Black", "White"].low < 0.5 * 0.95 < cells["Black", "White"].high
    # what other code selects is the first model's alone
    kept = summary.select("retention_corrected", "pulse:g", "clean", 8, "race")
    assert [row.group for row in kept] == RACES
    agreement = {
        (row.group, row.correction): row for row in rows if row.metric == "model_agreement"
    }
    for correction in ("raw", "original_baseline"):
        groups = {group for group, of in agreement if of == correction}
        assert groups == {"all", *RACES}
    # first: .85 .90 .75 right, second .90 of each; errors are independent
    expected = (0.9 * (0.85 + 0.90 + 0.75) + 0.05 * (0.15 + 0.10 + 0.25)) / 3
    originals = agreement["all", "original_baseline"]
    assert originals.n_draws == 300 and originals.low < expected < originals.high
