"""Claims are compared with the truth; false sentences and power are counted."""

import numpy as np
import pytest

from pulse_audit.calibration import sentences
from pulse_audit.calibration.audits import AuditDesign, Truth, simulated_audit
from pulse_audit.summary import Claim, first_screen_of, summarise

#: Two groups; the first arm turns half of B into A, the second nothing.
TRUTH = Truth(
    ("A", "B"),
    np.array([0.5, 0.5]),
    {"one": np.array([[1.0, 0.0], [0.5, 0.5]]), "two": np.eye(2)},
    {"one": np.array([[0.8, 0.2], [0.5, 0.5]]), "two": np.eye(2)},
)


def claim(metric: str = "retention", correction: str = "corrected", **fields: object) -> Claim:
    given = {"arm": "one", "group_by": "race", "direction": "higher", **fields}
    return Claim(metric=metric, correction=correction, **given)


@pytest.mark.parametrize(
    ("statement", "is_true"),
    [
        (claim(group="all", bound=0.75), True),
        (claim(group="all", bound=0.76), False),
        (claim(group="all", bound=0.76, direction="lower"), True),
        (claim(group="B", bound=0.5), True),
        (claim(group="B", bound=-0.4, than_group="A", direction="lower"), True),
        (claim(group="A", bound=0.6, than_group="B"), False),
        (claim(direction="unequal", bound=0.5), True),
        (claim(direction="equivalent", bound=0.4), False),
        (claim(arm="two", direction="equivalent", bound=0.1), True),
        (claim(group="all", minus="two", direction="lower", bound=-0.25), True),
        (claim(group="all", minus="two", direction="equivalent", bound=0.2), False),
        (claim("shift", group="B", to_group="A", bound=0.5), True),
        (claim("shift", group="A", to_group="B", bound=0.01), False),
        (claim("net_flow", group="A", bound=0.25), True),
        (claim("net_flow", group="B", bound=-0.2, direction="lower"), True),
        (claim("net_flow", group="B", to_group="A", bound=0.25), True),
        (claim("retention", "raw", group="A", bound=0.8), True),
        (claim("retention", "raw", group="A", bound=0.9), False),
    ],
)
def test_claims_against_a_known_truth(statement: Claim, is_true: bool) -> None:
    assert sentences.is_true(statement, TRUTH) == is_true


def test_a_claim_without_a_truth_is_an_error() -> None:
    with pytest.raises(ValueError, match="no truth of psnr"):
        sentences.is_true(claim("psnr", group="A", bound=1.0), TRUTH)


def test_the_first_screen_is_that_of_the_summary() -> None:
    audit = simulated_audit(AuditDesign("other photos", 25, 2, "accuracy .9"), _random())
    findings = summarise(audit.manifest, audit.samples).findings
    first = [finding for finding in findings if finding.screen == "first"]
    assert first_screen_of(audit.manifest, audit.samples) == first
    assert any(finding.claims for finding in first)


def test_audits_of_a_large_planted_shift_say_so_and_say_nothing_false() -> None:
    design = AuditDesign("shifted", 100, 2, "accuracy .9", shift=0.4)
    said = {
        statement: sentences.shares_of(_random(), 8, design=design, statement=statement).value
        for statement in ("nothing false", "the conversion", "the inequality")
    }
    assert said["the conversion"] >= 0.7 and said["the inequality"] >= 0.5
    assert said["nothing false"] <= 0.13


def _random() -> np.random.Generator:
    return np.random.default_rng(7)
