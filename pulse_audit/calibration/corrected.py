"""Coverage of retention corrected for the attribute model's errors, and its bias under drift."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np

from pulse_audit.calibration.audits import confusion, held_out
from pulse_audit.calibration.scenarios import (
    Performance,
    PerformanceMeasure,
    Scenario,
    ScenarioSettings,
    share,
)
from pulse_audit.fairness.confusion import Confusion, told_apart
from pulse_audit.fairness.correction import CorrectedShift, corrected_shift
from pulse_audit.stats.gaps import Decision, max_gap_of_replicates
from pulse_audit.stats.intervals import FloatArray, IntArray

GROUPS = 7
DRAWS = 2
ICC = 0.5
#: Replicates of the errors behind one interval; a run uses 1,000.
RESAMPLES = 500
CODE = ("pulse_audit.fairness.correction.corrected_shifts",)
METHOD = "inverse, test inversion by face"
#: Limit of rules on the largest gap, and the groups' retention where they are hardest to decide.
LIMIT = 0.2
RETENTIONS = {
    "equal": (0.7,) * GROUPS,
    "four below three": (0.6,) * 4 + (0.8,) * 3,
    "one pair apart": (0.6, 0.8) + (0.7,) * 5,
}
#: The planted shift matrix: White first, Black second.
PLANTED = "Black kept .38, made White .52, others kept .88"


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    fixed: dict[str, str | int | float] = {"draws": DRAWS, "icc": ICC}
    for faces, accuracy in ((100, 0.6), (100, 0.9), (200, 0.6)):
        for retention in (0.0, 0.5, 1.0):
            settings = {"faces": faces, **fixed, "accuracy": accuracy, "retention": retention}
            simulate = partial(coverage, faces=faces, accuracy=accuracy, retention=retention)
            # at 0 and 1 the ends are clipped, and intervals conservative
            high = 0.985 if 0 < retention < 1 else None
            yield Scenario(
                "corrected retention", METHOD, settings, "coverage", simulate, CODE, 0.92, high
            )
    # a whole matrix, with one cell off the diagonal
    named: ScenarioSettings = {"faces": 100, **fixed, "accuracy": 0.7, "matrix": PLANTED}
    covered = partial(planted, faces=100, accuracy=0.7)
    yield Scenario("planted matrix", METHOD, named, "coverage", covered, CODE, 0.92, 0.985)
    # rules on the largest gap of corrected retention, given that the correction is usable
    gaps: tuple[tuple[PerformanceMeasure, Decision, float, str], ...] = (
        ("false fail", "fail", 0.0, "equal"),
        ("false fail", "fail", LIMIT, "four below three"),
        ("false pass", "pass", LIMIT, "one pair apart"),
    )
    for faces, (measure, decision, limit, pattern) in product((30, 100), gaps):
        settings = {
            "faces": faces, **fixed, "accuracy": 0.9, "limit": limit, "groups": pattern,
        }  # fmt: skip
        decides = partial(decided, faces=faces, accuracy=0.9, limit=limit,
                          rates=RETENTIONS[pattern], decision=decision)  # fmt: skip
        code = ("pulse_audit.stats.gaps.max_gap_of_replicates",)
        yield Scenario("corrected gap", "max-T of the joint bootstrap", settings, measure, decides,
                       code, None, 0.06, fraction=0.5)  # fmt: skip
    # a run's confusion and the card's are pooled unless they are told apart
    for faces in (10, 30, 100):
        settings = {"faces": faces, "on the card": "572", "confusion": "of the shipped net"}
        yield Scenario("pooled confusions", "likelihood ratios and accuracy, Holm", settings,
                       "size", partial(told, faces=faces),
                       ("pulse_audit.fairness.confusion.told_apart",), None, 0.06)  # fmt: skip
    # accuracy .9 on originals, .8 on outputs: the data contain no sign of it
    for faces in (100, 200):
        settings = {
            "faces": faces, **fixed, "accuracy": 0.9, "retention": 1.0, "accuracy on outputs": 0.8,
        }  # fmt: skip
        drifted = partial(bias, faces=faces, accuracy=0.9, retention=1.0, on_outputs=0.8)
        yield Scenario("drift", METHOD, settings, "bias", drifted, CODE)


def decided(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    accuracy: float,
    rates: Sequence[float],
    limit: float,
    decision: Decision,
) -> Performance:
    """Share of usable corrections in which the rule on the largest gap comes to this decision."""
    # retention by group, the rest of each row spread evenly
    matrix = np.stack([diagonal(rate)[group] for group, rate in enumerate(rates)])
    model, hits = diagonal(accuracy), []
    for _ in range(replicates):
        found = audited(random, faces, matrix, model, model)
        if found.grade == "usable":
            replicated = found.replicates.diagonal(axis1=1, axis2=2)
            gap = max_gap_of_replicates(
                found.values.diagonal(), replicated, found.faces, found.draws
            )
            hits.append(gap.decide(limit) == decision)
    return share(hits)


def told(random: np.random.Generator, replicates: int, *, faces: int) -> Performance:
    """Share of runs whose confusion is told apart from the card's, where they are the same."""
    model, sizes = confusion("shipped net"), held_out()[1].sum(axis=1)
    hits = []
    for _ in range(replicates):
        run = np.stack([random.multinomial(faces, row) for row in model])
        card = np.stack([random.multinomial(n, p) for n, p in zip(sizes, model, strict=True)])
        hits.append(told_apart(run, card, seed=int(random.integers(2**62))))
    return share(hits)


def coverage(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    accuracy: float,
    retention: float,
) -> Performance:
    """Share of 95 % intervals that contain the true retention, over all groups."""
    matrix, model = diagonal(retention), diagonal(accuracy)
    cells = [(group, group) for group in range(GROUPS)]
    return _cell_coverage(random, replicates, faces, matrix, model, cells)


def planted(
    random: np.random.Generator, replicates: int, *, faces: int, accuracy: float
) -> Performance:
    """Share of intervals that contain the planted truth: seven retentions, and Black to White."""
    cells = [*((group, group) for group in range(GROUPS)), (1, 0)]
    return _cell_coverage(random, replicates, faces, planted_matrix(), diagonal(accuracy), cells)


def _cell_coverage(
    random: np.random.Generator,
    replicates: int,
    faces: int,
    matrix: FloatArray,
    model: FloatArray,
    cells: list[tuple[int, int]],
) -> Performance:
    """Share of the intervals of some cells of the shift matrix that contain its true values."""
    is_covered, widths = [], []
    for _ in range(replicates):
        estimates = audited(random, faces, matrix, model, model).estimates
        pairs = [(matrix[i, j], estimates[i][j]) for i, j in cells]
        is_covered.append([e is not None and e.low <= truth <= e.high for truth, e in pairs])
        widths.append([np.nan if e is None else e.high - e.low for _, e in pairs])
    return share(is_covered, widths)


def bias(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    accuracy: float,
    retention: float,
    on_outputs: float,
) -> Performance:
    """Mean of corrected minus true retention."""
    matrices = diagonal(retention), diagonal(accuracy), diagonal(on_outputs)
    values = [audited(random, faces, *matrices).values.diagonal() for _ in range(replicates)]
    return share(np.stack(values) - retention)


def planted_matrix() -> FloatArray:
    """White .88 retained, Black .38 and .52 to White, the others .88; the rest spread evenly."""
    matrix = diagonal(0.88)
    matrix[1] = 0.10 / (GROUPS - 2)
    matrix[1, :2] = 0.52, 0.38
    return matrix


def diagonal(value: float) -> FloatArray:
    """Matrix (7, 7) with ``value`` on the diagonal and the rest of each row spread evenly."""
    matrix = np.full((GROUPS, GROUPS), (1 - value) / (GROUPS - 1))
    np.fill_diagonal(matrix, value)
    return matrix


def audited(
    random: np.random.Generator,
    faces: int,
    matrix: FloatArray,
    model: FloatArray,
    on_outputs: FloatArray,
) -> CorrectedShift:
    """Simulate an audit of ``faces`` faces a group, and correct it.

    With probability ICC all draws of a face go to one group, otherwise each draw independently:
    this is their correlation. The attribute model errs independently on every image.
    """
    # predictions on the originals, one a face
    n = GROUPS * faces
    truth = np.repeat(np.arange(GROUPS), faces)
    on_originals = categories(random, model[truth])
    # true groups of the outputs, (faces, draws), and predictions on them
    alone = categories(random, np.repeat(matrix[truth], DRAWS, axis=0)).reshape(n, DRAWS)
    together = random.random(n) < ICC
    groups = np.where(together[:, None], alone[:, :1], alone).ravel()
    predicted = categories(random, on_outputs[groups])
    number = np.arange(n)
    return corrected_shift(
        np.repeat(number, DRAWS),
        np.repeat(truth, DRAWS),
        predicted,
        GROUPS,
        Confusion.of_faces(number, truth, on_originals, GROUPS),
        replicates=RESAMPLES,
        seed=int(random.integers(2**62)),
    )


def categories(random: np.random.Generator, rows: FloatArray) -> IntArray:
    """One category for each row of probabilities, (n, k) -> (n,)."""
    # how many cumulative probabilities a uniform number exceeds
    below = np.cumsum(rows, axis=1)[:, :-1]
    numbers: IntArray = (random.random((len(rows), 1)) >= below).sum(axis=1)
    return numbers
