"""Simulated audits have the truth that they state, in the columns of a run."""

import numpy as np
import pytest

from pulse_audit.calibration import audits
from pulse_audit.calibration.audits import AuditDesign, simulated_audit
from pulse_audit.stats.intervals import intraclass_correlation
from pulse_audit.summary import summarise

DESIGNS = [
    AuditDesign("the originals", 200, 2),
    AuditDesign("other photos", 200, 2),
    AuditDesign("other photos", 200, 2, labels_from="model"),
    AuditDesign("the originals", 200, 2, labels_from="model"),
    AuditDesign("shifted", 200, 2, "accuracy .9", shift=0.4),
]


@pytest.mark.parametrize("design", DESIGNS)
def test_shares_of_labels_and_answers_are_those_of_the_truth(design: AuditDesign) -> None:
    audit = simulated_audit(design, np.random.default_rng(0))
    groups, k = audit.truth.groups, 7
    for arm, of_arm in audit.samples.groupby("arm"):
        counts = np.zeros((k, k))
        for label, answer in zip(of_arm["label_race"], of_arm["sr_race"], strict=True):
            if isinstance(answer, str):
                counts[groups.index(label), groups.index(answer)] += 1
        observed = counts / (200 * 2)
        # three standard errors of a share of 200 faces are at most .11
        assert np.abs(observed - audit.truth.apparent[str(arm)]).max() < 0.11
    assert (of_arm.groupby("label_race")["face_id"].nunique() == 200).all()


def test_the_originals_as_outputs_are_classified_as_they_were() -> None:
    audit = simulated_audit(DESIGNS[0], np.random.default_rng(1))
    assert (audit.samples["hr_race"] == audit.samples["sr_race"]).all()
    assert np.array_equal(audit.truth.shift["first"], np.eye(7))


def test_labels_of_the_model_agree_with_it_on_every_original() -> None:
    audit = simulated_audit(DESIGNS[2], np.random.default_rng(2))
    assert (audit.samples["hr_race"] == audit.samples["label_race"]).all()
    # the true groups behind the labels keep theirs, as many as show a face
    assert np.allclose(audit.truth.shift["first"], 0.95 * np.eye(7))
    assert audit.truth.composition.sum() == pytest.approx(1)


def test_the_planted_shift_is_of_one_arm_and_two_groups() -> None:
    matrices = audits.shift_matrices(DESIGNS[4])
    difference = matrices["first"] - matrices["second"]
    assert difference[1, 0] == pytest.approx(0.4) and difference[1, 1] == pytest.approx(-0.4)
    assert np.abs(difference).sum() == pytest.approx(0.8)


def test_draws_of_a_face_are_correlated_and_so_are_arms() -> None:
    design = AuditDesign("equal arms", 300, 4, "accuracy .9")
    samples = simulated_audit(design, np.random.default_rng(3)).samples
    kept = (samples["label_race"] == samples["sr_race"]).to_numpy().astype(float)
    first = (samples["arm"] == "first").to_numpy()
    faces = samples["face_id"].astype("category").cat.codes.to_numpy()
    one = np.zeros(int(first.sum()), dtype=int)
    icc = intraclass_correlation(kept[first], faces[first], one)
    assert icc is not None and 0.25 < icc < 0.5
    means = [np.bincount(faces[rows], kept[rows]) for rows in (first, ~first)]
    assert 0.2 < np.corrcoef(*means)[0, 1] < 0.9


def test_equal_seeds_give_equal_audits_and_the_summary_takes_them() -> None:
    design = AuditDesign("equal arms", 6, 2)
    one, two = (simulated_audit(design, np.random.default_rng(4)) for _ in range(2))
    assert one.samples.equals(two.samples) and one.manifest == two.manifest
    summary = summarise(one.manifest, one.samples)
    assert {row.arm for row in summary.estimates} == {"first", "second"}
    assert "retention" not in summary.unavailable
