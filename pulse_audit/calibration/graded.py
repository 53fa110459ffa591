"""Corrections of whole audits, given their grade: how often they have it, and what they cover then.

A correction is shown because its grade allows it, so that coverage over all audits is not that of
the intervals printed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pulse_audit.calibration.audits import AuditDesign, simulated_audit
from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    ScenarioSettings,
    share,
    worst,
)
from pulse_audit.fairness.correction import CorrectedShift, Grade
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.summary import shift
from pulse_audit.summary.groups import make_groupings, make_subsets

STUDY, METHOD = "corrections given their grade", "inverse, test inversion by face"
CODE = ("pulse_audit.fairness.correction.corrected_shifts",)
SHIFT = 0.4
#: Designs, and the grade that most of their corrections have.
DESIGNS: tuple[tuple[AuditDesign, Grade], ...] = (
    (AuditDesign("shifted", 30, 2, "shipped net", "people", SHIFT), "weak"),
    (AuditDesign("shifted", 100, 2, "shipped net", "people", SHIFT), "usable"),
    (AuditDesign("shifted", 100, 2, "shipped net", "model", SHIFT), "weak"),
    (AuditDesign("shifted", 10, 2, "accuracy .9", "people", SHIFT), "weak"),
    (AuditDesign("shifted", 30, 2, "accuracy .9", "people", SHIFT), "usable"),
    (AuditDesign("shifted", 100, 2, "accuracy .9", "people", SHIFT), "usable"),
    (AuditDesign("shifted", 30, 2, "accuracy .9", "model", SHIFT), "usable"),
)
#: Audits simulated at most for one of the grade.
MOST = 20


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    for design, grade in DESIGNS:
        settings: ScenarioSettings = {
            "labels": design.labels_from, "faces": design.faces, "draws": design.draws,
            "model": design.model, "grade": grade,
        }  # fmt: skip
        found = partial(frequency, design=design, grade=grade)
        yield Scenario(STUDY, METHOD, settings, "frequency", found, CODE, fraction=0.1)
        covered = partial(coverage, design=design, grade=grade)
        yield Scenario(STUDY, METHOD, settings, "coverage", covered, CODE, 0.92, None, fraction=0.5)


def frequency(
    random: np.random.Generator, replicates: int, *, design: AuditDesign, grade: Grade
) -> Performance:
    """Share of audits whose corrections have this grade."""
    return share([corrected(random, design)[0].grade == grade for _ in range(replicates)])


def coverage(
    random: np.random.Generator, replicates: int, *, design: AuditDesign, grade: Grade
) -> Performance:
    """Coverage of the cells of the planted arm in audits of this grade.

    Cells of equal truth count together, retention and conversion apart; the lowest share counts.

    Raises
    ------
    ValueError
        If hardly any audit has the grade.
    """
    is_covered, widths = list[FloatArray](), []
    for _ in range(MOST * replicates):
        correction, truth = corrected(random, design)
        if correction.grade != grade:
            continue
        ends = np.array(
            [[(e.low, e.high) for e in row if e is not None] for row in correction.estimates]
        )
        inside = (ends[..., 0] <= truth + 1e-9) & (truth <= ends[..., 1] + 1e-9)
        is_covered.append(inside.ravel().astype(np.float64))
        widths.append(np.ptp(ends, axis=-1).ravel())
        if len(is_covered) == replicates:
            kinds = np.unique(np.round(truth.ravel(), 9), return_inverse=True)[1]
            return worst(is_covered, widths, kinds)
    raise ValueError(f"{len(is_covered)} of {MOST * replicates} corrections are {grade}")


def corrected(
    random: np.random.Generator, design: AuditDesign
) -> tuple[CorrectedShift, FloatArray]:
    """Simulate an audit and return the correction of its first arm, and its true matrix (7, 7)."""
    audit, arm = simulated_audit(design, random), design.arms[0]
    subsets = list(make_subsets(audit.manifest, audit.samples))
    groupings = make_groupings(audit.manifest, audit.samples)
    corrections = shift.corrections(subsets, groupings, int(random.integers(2**62)))
    (found,) = (of for (key, _), of in corrections.items() if key.arm == arm)
    return found, audit.truth.shift[arm]
