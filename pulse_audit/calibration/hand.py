"""People's labels of outputs: accuracy there, and its drift from that on photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from pulse_audit.calibration.audits import confusion as true_confusion
from pulse_audit.calibration.audits import retaining
from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    categories,
    draws_of_faces,
    worst,
)
from pulse_audit.fairness.drift import AccuracyDrift, accuracy_drift, drifted
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.types import Estimate

GROUPS = 7
#: Group whose accuracy drifts.
WORST = 1
#: Retention of every group, and correlations within a face: of the true groups of its outputs, and
#: of the model's answers to those of one group.
RETENTION, GROUP_CORRELATION, ANSWER_CORRELATION = 0.7, 0.5, 0.3


@dataclass(frozen=True)
class Situation:
    """Labels of one arm's outputs.

    Parameters
    ----------
    faces, draws : int
        Labelled faces a group (of the face), and labelled outputs a face.
    photos : int
        Photos a group behind the confusion matrix.
    drift : float
        Accuracy on outputs of `WORST` less that on photos; other groups do not drift.
    """

    faces: int
    draws: int
    photos: int
    drift: float

    def matrices(self) -> tuple[FloatArray, FloatArray]:
        """Return the true confusion matrix on photos and the one on outputs, (7, 7) each."""
        on_photos, change = true_confusion("shipped net"), np.zeros((1, GROUPS))
        change[0, WORST] = self.drift
        return on_photos, drifted(on_photos, change)[0]


SITUATIONS = (
    Situation(20, 1, 572, 0.0),
    Situation(20, 1, 572, -0.2),
    Situation(20, 2, 572, -0.2),
    Situation(60, 2, 572, -0.2),
    Situation(60, 1, 60, -0.2),
    Situation(60, 5, 572, 0.1),
)


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    method = "score interval at the effective size"
    code = ("pulse_audit.fairness.drift.accuracy_drift",)
    for of, low in (("accuracy", 0.925), ("drift", 0.925), ("largest drift", 0.94)):
        for situation in SITUATIONS:
            settings = {"of": of, **asdict(situation)}
            name = f"{method}, Bonferroni" if of == "largest drift" else method
            simulate = partial(coverage, situation=situation, of=of)
            yield Scenario("hand labels", name, settings, "coverage", simulate, code, low)


def coverage(
    random: np.random.Generator, replicates: int, *, situation: Situation, of: str
) -> Performance:
    """Share of intervals that contain the truth, of groups where it is lowest.

    ``largest drift`` is covered where the upper end is not below it; audits with too few labels of
    a group have none.
    """
    on_photos, on_outputs = (matrix.diagonal() for matrix in situation.matrices())
    truth = on_outputs if of == "accuracy" else on_outputs - on_photos
    is_covered, widths = [], []
    for _ in range(replicates):
        found = labelled(random, situation)
        if not isinstance(found.largest, Estimate):
            continue
        if of == "largest drift":
            is_covered.append([np.abs(truth).max() <= found.largest.high])
            widths.append([found.largest.high - found.largest.low])
            continue
        estimates = found.accuracy if of == "accuracy" else found.drift
        pairs = [(e, t) for e, t in zip(estimates, truth, strict=True) if isinstance(e, Estimate)]
        is_covered.append([e.low <= t <= e.high for e, t in pairs])
        widths.append([e.high - e.low for e, _ in pairs])
    if len(is_covered) < 2:
        return Performance(np.nan, np.nan)
    return worst(is_covered, widths)


def labelled(random: np.random.Generator, situation: Situation) -> AccuracyDrift:
    """Simulate photos and labelled outputs, and estimate. People see the true group."""
    on_photos, on_outputs = situation.matrices()
    counts = np.stack([random.multinomial(situation.photos, row) for row in on_photos])
    shift = retaining(RETENTION, GROUPS)
    seen = draws_of_faces(random, shift, situation.faces, situation.draws, GROUP_CORRELATION)
    seen = seen.reshape(-1, situation.draws)
    # answers to outputs of one face: with this probability from the same random number
    alike = random.random((len(seen), 1)) < ANSWER_CORRELATION
    numbers = np.where(alike, random.random((len(seen), 1)), random.random(seen.shape))
    predicted = categories(numbers, on_outputs[seen])
    faces = np.repeat(np.arange(len(seen)), situation.draws)
    groups = [f"group {number}" for number in range(GROUPS)]
    return accuracy_drift(faces, seen.ravel(), predicted.ravel(), counts, groups)
