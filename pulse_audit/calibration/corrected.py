"""Correction for the attribute model's errors: coverage given the grade, gaps, flows, and drift."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product

import numpy as np

from pulse_audit.calibration.audits import confusion as true_confusion
from pulse_audit.calibration.audits import retaining
from pulse_audit.calibration.scenarios import (
    Performance,
    PerformanceMeasure,
    Scenario,
    ScenarioSettings,
    categories,
    draws_of_faces,
    share,
    worst,
)
from pulse_audit.fairness.confusion import Confusion, told_apart
from pulse_audit.fairness.correction import CorrectedShift, corrected_shifts
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.gaps import Decision, max_gap, max_gap_of_replicates
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.types import Estimate

GROUPS = 7
#: Faces of every group on the card.
CARD = 572
#: Replicates of the errors behind one interval; a run uses 1,000.
RESAMPLES = 500
CODE = ("pulse_audit.fairness.correction.corrected_shifts",)
METHOD = "inverse, test inversion by face"
#: Limit of rules on the largest gap, and the groups' retention where they are hardest to decide.
LIMIT = 0.2
RETENTIONS = {
    "four below three": (0.6,) * 4 + (0.8,) * 3,
    "one pair apart": (0.6, 0.8) + (0.7,) * 5,
}


@dataclass(frozen=True)
class Situation:
    """A simulated audit with one arm.

    Parameters
    ----------
    faces, draws, icc : number
        Faces a group, draws a face, and their correlation.
    model : str or float
        ``shipped net`` (its held-out matrix at 32 px), or the accuracy of a model whose errors are
        spread evenly.
    shift : str or float
        ``planted``, ``original`` (every output is its original), a key of `RETENTIONS`, or the
        retention of every group; the rest is spread evenly.
    errors_of : str
        ``run``: measured on the originals alone. ``pooled``: with a card of the same model, unless
        a test tells them apart. ``other card``: the same with a card whose accuracy is .05 higher.
        ``labels``: a card's, and the labels are the model's own predictions of the originals.
    """

    faces: int
    draws: int
    icc: float
    model: str | float
    shift: str | float
    errors_of: str = "pooled"

    def matrices(self) -> tuple[FloatArray, FloatArray]:
        """Return the true shift matrix and the true confusion matrix, (7, 7) each."""
        if self.shift == "planted":
            shift = planted_matrix()
        elif self.shift in RETENTIONS:
            rates = RETENTIONS[str(self.shift)]
            shift = np.stack([diagonal(rate)[group] for group, rate in enumerate(rates)])
        else:
            shift = diagonal(1.0 if self.shift == "original" else float(self.shift))
        model = true_confusion("shipped net")
        return shift, model if self.model == "shipped net" else diagonal(float(self.model))


#: Where retention and cells are examined: small and large samples, both sources of errors.
EXAMINED = (
    Situation(20, 2, 0.5, 0.75, 0.9),
    Situation(20, 10, 0.9, 0.6, 0.5),
    Situation(30, 2, 0.1, "shipped net", 0.5),
    Situation(30, 10, 0.9, "shipped net", "planted"),
    Situation(100, 2, 0.5, "shipped net", 0.9),
    Situation(100, 10, 0.1, 0.9, 1.0),
    Situation(30, 2, 0.5, 0.75, 0.9, "run"),
    Situation(100, 2, 0.5, "shipped net", 0.9, "run"),
    Situation(100, 2, 0.5, "shipped net", 1.0, "run"),
    Situation(100, 2, 0.5, 0.6, 0.0, "run"),
)
#: Estimates whose coverage is examined: a name, and requirements.
ESTIMANDS: Mapping[str, Callable[[CorrectedShift], list[Estimate | None]]] = {
    "retention": lambda shift: [row[i] for i, row in enumerate(shift.estimates)],
    "cells": lambda shift: [
        cell for i, row in enumerate(shift.estimates) for j, cell in enumerate(row) if i != j
    ],
    "net gains": lambda shift: shift.net_gains(),
    "net flows": lambda shift: [flow for row in shift.net_flows() for flow in row],
    "composition": lambda shift: shift.output_shares(),
}


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""

    def scenario(
        study: str,
        situation: Situation,
        measure: PerformanceMeasure,
        simulate: Callable[..., Performance],
        low: float | None = None,
        high: float | None = None,
        method: str = METHOD,
        code: tuple[str, ...] = CODE,
        **options: str | float,
    ) -> Scenario:
        settings = {**options, **asdict(situation)}
        simulation = partial(simulate, situation=situation, **options)
        return Scenario(
            study, method, settings, measure, simulation, code, low, high, fraction=0.15
        )

    # the lowest group, of the audits that are graded usable; worst row for cells
    for estimand, situation in product(("retention", "cells"), EXAMINED):
        yield scenario(
            "corrected, given usable", situation, "coverage", coverage, 0.925, of=estimand
        )
    flows = (
        Situation(10, 2, 0.5, 0.75, "planted"),
        Situation(30, 2, 0.5, "shipped net", "planted"),
        Situation(100, 10, 0.5, 0.9, 0.9),
    )
    for estimand, situation in product(("net gains", "net flows", "composition"), flows):
        method = "linear in the corrected matrix, t x joint errors"
        yield scenario(
            "corrected flows", situation, "coverage", coverage, 0.925, method=method, of=estimand
        )
    # rules on the largest gap: shown to be larger than it is, or to be smaller than it is
    code = (*CODE, "pulse_audit.stats.gaps.max_gap_of_replicates")
    rules: list[tuple[PerformanceMeasure, Decision, float, Situation]] = [
        ("false fail", "fail", 0.0, situation)
        for situation in (*EXAMINED, Situation(20, 2, 0.5, "shipped net", "original"))
        if situation.shift != "planted"
    ]
    for faces in (30, 100):
        apart = Situation(faces, 2, 0.5, 0.9, "four below three")
        rules += [
            ("false fail", "fail", LIMIT, apart),
            ("false pass", "pass", LIMIT, replace(apart, shift="one pair apart")),
        ]
    for measure, decision, limit, situation in rules:
        yield scenario(
            "corrected gap", situation, measure, decided, None, 0.06,
            method="t x joint errors, max-T", code=code, limit=limit, decision=decision,
        )  # fmt: skip
    # labels of the model itself: independent errors, and an arm that errs as the labels do
    labelled = (
        Situation(30, 2, 0.5, 0.9, 0.9, "labels"),
        Situation(100, 2, 0.5, 0.75, 1.0, "labels"),
        Situation(300, 2, 0.5, 0.6, 0.9, "labels"),
    )
    for situation in labelled:
        yield scenario(
            "labels of the model", situation, "coverage", coverage, 0.9,
            method="inverse on both sides, t x joint errors", of="retention",
        )  # fmt: skip
    # the shipped net's correction is never usable here; a gap is still not shown
    uneven = replace(labelled[-1], model="shipped net", shift=1.0)
    for situation in (*labelled, *(replace(s, shift="original") for s in labelled), uneven):
        yield scenario(
            "labels of the model", situation, "false fail", decided, None, 0.06,
            method="corrected and raw agreement, max-T", code=code, limit=0.0, decision="fail",
        )  # fmt: skip
    # a run's confusion and the card's are pooled unless they are told apart; what a card of another
    # accuracy does to retention
    for faces, better in product((10, 30, 100), (0.0, 0.05)):
        settings: ScenarioSettings = {
            "faces": faces, "on the card": CARD, "accuracy on the card": f"+{better:.2f}",
        }  # fmt: skip
        simulate = partial(told, faces=faces, better=better)
        tests = "pulse_audit.fairness.confusion.told_apart"
        yield Scenario(
            "pooled confusions", "likelihood ratios and accuracy, Holm", settings,
            "power" if better else "size", simulate, (tests,), None, None if better else 0.06,
        )  # fmt: skip
    for faces in (30, 100):
        situation = Situation(faces, 2, 0.5, "shipped net", 0.9, "other card")
        yield scenario("pooled confusions", situation, "coverage", coverage, of="retention")
    # accuracy .9 on originals, .8 on outputs: the data contain no sign of it
    for faces in (100, 200):
        yield scenario("drift", Situation(faces, 2, 0.5, 0.9, 1.0, "run"), "bias", drift)


def coverage(
    random: np.random.Generator, replicates: int, *, situation: Situation, of: str
) -> Performance:
    """Share of intervals that contain the truth where it is lowest, of audits graded usable.

    Flows and compositions are examined whatever the grade, as long as they are available.
    """
    shift, _ = situation.matrices()
    joint = shift / GROUPS
    off = ~np.eye(GROUPS, dtype=bool)
    truth = {
        "retention": shift.diagonal(),
        "cells": shift[off],
        "net gains": joint.sum(axis=0) - joint.sum(axis=1),
        "net flows": (joint - joint.T).ravel(),
        "composition": joint.sum(axis=0),
    }[of]
    # cells of one group count together
    kinds = np.repeat(np.arange(GROUPS), GROUPS - 1) if of == "cells" else np.arange(len(truth))
    grades = ("usable",) if of in ("retention", "cells") else ("usable", "weak")
    is_covered, widths = [], []
    for _ in range(replicates):
        corrected, _ = audited(random, situation)
        if corrected.grade not in grades:
            continue
        estimates = ESTIMANDS[of](corrected)
        # a flow of a group into itself does not exist, and is covered
        pairs = list(zip(estimates, truth, strict=True))
        is_covered.append([e is None or e.low <= t <= e.high for e, t in pairs])
        widths.append([np.nan if e is None else e.high - e.low for e, _ in pairs])
    if len(is_covered) < 2:
        return Performance(np.nan, np.nan)
    return worst(is_covered, np.nan_to_num(widths), kinds)


def decided(
    random: np.random.Generator,
    replicates: int,
    *,
    situation: Situation,
    limit: float,
    decision: Decision,
) -> Performance:
    """Share of the audits with a correction in which the rule on the largest gap decides so."""
    hits = []
    for _ in range(replicates):
        corrected, draws = audited(random, situation)
        if corrected.grade == "unavailable":
            continue
        retention = corrected.values.diagonal()
        by_model = corrected.labels_from == "model"
        gap = max_gap_of_replicates(
            np.minimum(retention, 1.0) if by_model else retention,
            corrected.replicates.diagonal(axis1=1, axis2=2),
            corrected.faces,
            corrected.draws,
        )
        # of labels that err themselves, raw agreement has to show the gap, too
        if by_model:
            raw = max_gap(draws.retained, draws.faces, draws.truth, proportion=True)
            gap = replace(gap, fail_bound=min(gap.fail_bound, raw.fail_bound))
        hits.append(gap.decide(limit) == decision)
    return share(hits) if len(hits) > 1 else Performance(np.nan, np.nan)


def told(
    random: np.random.Generator, replicates: int, *, faces: int, better: float = 0.0
) -> Performance:
    """Share of runs whose confusion is told apart from that of a card with another accuracy."""
    model, hits = true_confusion("shipped net"), []
    for _ in range(replicates):
        run = np.stack([random.multinomial(faces, row) for row in model])
        card = card_counts(random, model, better)
        hits.append(told_apart(run, card, seed=int(random.integers(2**62))))
    return share(hits)


def card_counts(random: np.random.Generator, model: FloatArray, better: float) -> IntArray:
    """Draw the counts of a card, (7, 7), of a model whose accuracy is higher there."""
    on_card = model + better * (np.eye(GROUPS) - (1 - np.eye(GROUPS)) / (GROUPS - 1))
    on_card = np.maximum(on_card, 0.0)
    return np.stack([random.multinomial(CARD, row / row.sum()) for row in on_card])


def drift(random: np.random.Generator, replicates: int, *, situation: Situation) -> Performance:
    """Mean of corrected less true retention, for a model of accuracy .8 on outputs."""
    truth = situation.matrices()[0].diagonal()
    found = [audited(random, situation, diagonal(0.8))[0] for _ in range(replicates)]
    return share(np.stack([corrected.values.diagonal() for corrected in found]) - truth)


def audited(
    random: np.random.Generator, situation: Situation, on_outputs: FloatArray | None = None
) -> tuple[CorrectedShift, Draws]:
    """Simulate an audit and correct it; also its draws.

    The attribute model errs independently on every image, on outputs by another matrix if one is
    given.
    """
    shift, model = situation.matrices()
    by_model = situation.errors_of == "labels"
    # true groups of the faces and of their outputs; where a model labels, faces are drawn until
    # each label has enough
    surplus = 8 if by_model else 1
    truth = np.repeat(np.arange(GROUPS), surplus * situation.faces)
    outputs = draws_of_faces(
        random, shift, surplus * situation.faces, situation.draws, situation.icc
    ).reshape(len(truth), situation.draws)
    on_originals = seen(random, model, truth)
    labels = truth
    if by_model:
        order = random.permutation(len(truth))
        chosen = np.concatenate(
            [order[on_originals[order] == label][: situation.faces] for label in range(GROUPS)]
        )
        truth, outputs, on_originals = truth[chosen], outputs[chosen], on_originals[chosen]
        labels = on_originals
    predicted = seen(random, model if on_outputs is None else on_outputs, outputs)
    if situation.shift == "original":
        predicted = np.repeat(on_originals[:, None], situation.draws, axis=1)

    # errors of the model: of the run's originals, of a card, or of both
    card = card_counts(random, model, 0.05 if situation.errors_of == "other card" else 0.0)
    numbers, seed = np.arange(len(truth)), int(random.integers(2**62))
    confusion = Confusion.from_counts(card)
    if not by_model:
        confusion = Confusion.of_faces(numbers, truth, on_originals, GROUPS)
        pools = situation.errors_of != "run"
        if pools and not told_apart(confusion.counts, card, seed=seed):
            confusion = confusion.pooled(card)
    owner, group = np.repeat(numbers, situation.draws), np.repeat(labels, situation.draws)
    draws = Draws(owner, group, predicted.ravel(), GROUPS)
    corrected = corrected_shifts(
        [draws],
        confusion,
        labels_from="model" if by_model else "people",
        replicates=RESAMPLES,
        seed=seed,
    )
    return corrected[0], draws


def seen(random: np.random.Generator, model: FloatArray, groups: IntArray) -> IntArray:
    """Prediction of the attribute model for images of these true groups, of the same shape."""
    return categories(random.random(groups.shape), model[groups])


def planted_matrix() -> FloatArray:
    """White .88 retained, Black .38 and .52 to White, the others .88; the rest spread evenly."""
    matrix = diagonal(0.88)
    matrix[1] = 0.10 / (GROUPS - 2)
    matrix[1, :2] = 0.52, 0.38
    return matrix


def diagonal(value: float) -> FloatArray:
    """Matrix (7, 7) with ``value`` on the diagonal and the rest of each row spread evenly."""
    return retaining(value, GROUPS)
