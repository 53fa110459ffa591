"""Coverage of retention corrected for the attribute model's errors, and what no correction sees."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pulse_audit.calibration.cells import Cell, Measured, Setting, share
from pulse_audit.fairness.correction import Confusion, CorrectedShift, corrected_shift
from pulse_audit.stats.intervals import FloatArray, IntArray

GROUPS = 7
DRAWS = 2
ICC = 0.5
#: Bootstrap replicates of one interval; a run takes 1,000, which is dearer and a little better.
RESAMPLES = 200
CODE = (
    "pulse_audit.fairness.correction",
    "pulse_audit.fairness.confusion",
    "pulse_audit.stats.intervals",
)
METHOD = "inverse, t x joint face bootstrap"
#: The planted matrix that an audit must find: White first, Black second.
PLANTED = "Black kept .38, made White .52, others kept .88"


def cells() -> Iterator[Cell]:
    """Cells of the study, in order."""
    for faces, accuracy in ((100, 0.6), (100, 0.9), (200, 0.6)):
        for retention in (0.0, 0.5, 1.0):
            yield _coverage_cell(faces, accuracy, retention)
    settings: dict[str, Setting] = {"faces": 100, "draws": DRAWS, "icc": ICC, "accuracy": 0.7}
    settings["matrix"] = PLANTED
    found = partial(planted, faces=100, accuracy=0.7)
    yield Cell("planted matrix", METHOD, settings, "coverage", found, CODE, 0.92, 0.985)
    yield from _drift_cells()


def _coverage_cell(faces: int, accuracy: float, retention: float) -> Cell:
    simulate = partial(coverage, faces=faces, accuracy=accuracy, retention=retention)
    settings = _settings(faces, accuracy, retention)
    high = 0.985 if 0 < retention < 1 else None
    study = "corrected retention"
    return Cell(study, METHOD, settings, "coverage", simulate, CODE, 0.92, high)


def _drift_cells() -> Iterator[Cell]:
    """Accuracy .9 on originals, .8 on outputs: nothing in the data shows it."""
    for faces in (100, 200):
        settings = _settings(faces, 0.9, 1.0) | {"accuracy on outputs": 0.8}
        simulate = partial(bias, faces=faces, accuracy=0.9, retention=1.0, on_outputs=0.8)
        yield Cell("drift", METHOD, settings, "bias", simulate, CODE)


def _settings(faces: int, accuracy: float, retention: float) -> dict[str, Setting]:
    return {
        "faces": faces, "draws": DRAWS, "icc": ICC, "accuracy": accuracy, "retention": retention,
    }  # fmt: skip


def coverage(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    accuracy: float,
    retention: float,
) -> Measured:
    """Share of 95 % intervals that hold the true retention, over all groups."""
    matrix, model = diagonal(retention), diagonal(accuracy)
    held, widths = [], []
    for _ in range(replicates):
        kept = audited(random, faces, matrix, model, model).retention
        held.append([e is not None and e.low <= retention <= e.high for e in kept])
        widths.append([np.nan if e is None else e.high - e.low for e in kept])
    return share(held, widths)


def bias(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    accuracy: float,
    retention: float,
    on_outputs: float,
) -> Measured:
    """Mean of corrected less true retention."""
    given = diagonal(retention), diagonal(accuracy), diagonal(on_outputs)
    found = [audited(random, faces, *given).values.diagonal() for _ in range(replicates)]
    return share(np.stack(found) - retention)


def planted(
    random: np.random.Generator, replicates: int, *, faces: int, accuracy: float
) -> Measured:
    """Share of intervals that hold the planted truth: seven retentions, and Black made White."""
    matrix, model = planted_matrix(), diagonal(accuracy)
    asked = [*((i, i) for i in range(GROUPS)), (1, 0)]
    held, widths = [], []
    for _ in range(replicates):
        estimates = audited(random, faces, matrix, model, model).estimates
        found = [(matrix[i, j], estimates[i][j]) for i, j in asked]
        held.append([e is not None and e.low <= truth <= e.high for truth, e in found])
        widths.append([np.nan if e is None else e.high - e.low for _, e in found])
    return share(held, widths)


def planted_matrix() -> FloatArray:
    """White .88 kept, Black .38 kept and .52 made White, the others .88 kept; rest spread."""
    matrix = diagonal(0.88)
    matrix[1] = 0.10 / (GROUPS - 2)
    matrix[1, :2] = 0.52, 0.38
    return matrix


def diagonal(kept: float) -> FloatArray:
    """Matrix (7, 7) with ``kept`` on the diagonal and the rest of each row spread evenly."""
    matrix = np.full((GROUPS, GROUPS), (1 - kept) / (GROUPS - 1))
    np.fill_diagonal(matrix, kept)
    return matrix


def audited(
    random: np.random.Generator,
    faces: int,
    matrix: FloatArray,
    model: FloatArray,
    on_outputs: FloatArray,
) -> CorrectedShift:
    """Simulate an audit of ``faces`` faces a group, and correct it.

    A face sends all its draws to one group with probability ICC, else each draw on its own:
    draws of a face then correlate by that much. The attribute model errs on every image anew.
    """
    n = GROUPS * faces
    truth = np.repeat(np.arange(GROUPS), faces)
    seen = categories(random, model[truth])
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
        Confusion.of_faces(number, truth, seen, GROUPS),
        replicates=RESAMPLES,
        seed=int(random.integers(2**62)),
    )


def categories(random: np.random.Generator, rows: FloatArray) -> IntArray:
    """One category for each row of probabilities, (n, k) -> (n,)."""
    below = np.cumsum(rows, axis=1)[:, :-1]
    numbers: IntArray = (random.random((len(rows), 1)) >= below).sum(axis=1)
    return numbers
