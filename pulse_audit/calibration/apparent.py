"""Coverage of the shift matrix, net flows, diversity over draws, and partially pooled rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
from scipy.special import expit, logit

from pulse_audit.calibration.corrected import planted_matrix
from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    ScenarioSettings,
    draws_of_faces,
    share,
    successes,
    worst,
)
from pulse_audit.fairness import pooling, shift
from pulse_audit.fairness.hierarchical import hierarchical_shift
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.types import Estimate, Unavailable

STUDY = "apparent groups"
ICC = 0.5
#: Share of draws without an apparent group, in every group.
NOT_CLASSIFIED = 0.05
#: Standard deviations, in logits, of the cells' parts and of their interactions.
EFFECTS, INTERACTIONS = (0.8, 0.4), 0.3

Model: TypeAlias = Literal["hierarchical", "separate"]
Population: TypeAlias = Literal["alike", "planted"]
Values: TypeAlias = Sequence[Estimate | Unavailable | None]

#: Estimators by name: from draws, and a seed where one is needed, to their estimates in a row.
ESTIMATORS: Mapping[str, Callable[[Draws, int], Values]] = {
    "shares": lambda draws, seed: shift.shares(draws.retained, draws.faces, draws.truth, draws.k),
    "shift_matrix": lambda draws, seed: [e for row in shift.shift_matrix(draws) for e in row],
    "net_flows": lambda draws, seed: [e for row in shift.net_flows(draws) for e in row],
    "net_gains": lambda draws, seed: shift.net_gains(draws),
    "flip_rate": lambda draws, seed: [shift.flip_rate(draws)],
    "entropy": lambda draws, seed: [shift.entropy(draws, seed=seed)],
}
METHODS = {
    "shares": "Wilson at design-effect n",
    "shift_matrix": "Wilson at design-effect n",
    "net_flows": "MOVER of Wilson intervals",
    "net_gains": "MOVER of Wilson intervals",
    "flip_rate": "Wilson over faces",
    "entropy": "BCa over faces",
}


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    for name, faces, draws in product(ESTIMATORS, (10, 30), (2, 10)):
        # an arm with a planted shift, Black to White
        settings: ScenarioSettings = {
            "of": name.replace("_", " "), "faces": faces, "draws": draws, "icc": ICC,
        }  # fmt: skip
        simulate = partial(coverage, name=name, faces=faces, draws=draws)
        code = (f"pulse_audit.fairness.shift.{name}",)
        yield Scenario(STUDY, METHODS[name], settings, "coverage", simulate, code, 0.92, None,
                       fraction=0.5)  # fmt: skip
    # the hierarchical model, and on the same draws the intervals of groups apart
    models: dict[Model, str] = {
        "hierarchical": "pulse_audit.fairness.hierarchical.hierarchical_shift",
        "separate": "pulse_audit.fairness.shift.shift_matrix",
    }
    populations: tuple[Population, ...] = ("alike", "planted")
    for rows, faces in product(populations, (10, 30)):
        settings = {"groups": rows, "faces": faces, "draws": 2, "icc": ICC}
        for method, function in models.items():
            simulate = partial(hierarchy, method=method, rows=rows, faces=faces)
            # a cell unlike all others is drawn toward them: no coverage is promised
            low = None if (rows, method) == ("planted", "hierarchical") else 0.90
            yield Scenario("hierarchical model", f"{method} rows", settings, "coverage", simulate,
                           (function,), low, None, fraction=0.5)  # fmt: skip
    settings = {"cells": 14, "faces": "4-12", "draws": 2, "icc": ICC}
    code = ("pulse_audit.fairness.pooling.partial_pooling",)
    yield Scenario("pooled cells", "empirical Bayes, average over cells", settings, "coverage",
                   pooled, code, 0.93, 0.985)  # fmt: skip


def coverage(
    random: np.random.Generator, replicates: int, *, name: str, faces: int, draws: int
) -> Performance:
    """Share of intervals that contain the truth, lowest over cells or groups of unequal truth."""
    matrix = with_unclassified(0.0 if name in ("flip_rate", "entropy") else NOT_CLASSIFIED)
    truth = true_values(matrix, draws)[name]
    is_covered, widths = [], []
    for _ in range(replicates):
        sample = draws_of(random, matrix, faces, draws)
        estimates = ESTIMATORS[name](sample, int(random.integers(2**62)))
        # net flows have no diagonal
        pairs = [(e, t) for e, t in zip(estimates, truth, strict=True) if isinstance(e, Estimate)]
        is_covered.append([e.low <= t <= e.high for e, t in pairs])
        widths.append([e.high - e.low for e, _ in pairs])
    kinds = np.unique([round(t, 9) for _, t in pairs], return_inverse=True)[1]
    return worst(is_covered, widths, kinds)


def hierarchy(
    random: np.random.Generator,
    replicates: int,
    *,
    method: Model,
    rows: Population,
    faces: int,
) -> Performance:
    """Share of intervals of the shift matrix that contain the truth.

    ``alike``: over all cells of groups drawn from one population. ``planted``: for the one large
    cell that is unlike all others.
    """
    is_covered, widths = [], []
    for _ in range(replicates):
        matrix = with_unclassified(NOT_CLASSIFIED)
        if rows == "alike":
            matrix[:, :-1] = (1 - NOT_CLASSIFIED) * population_rows(random)
        sample = draws_of(random, matrix, faces, 2)
        if method == "separate":
            cells = [cell for row in shift.shift_matrix(sample) for cell in row]
        else:
            found = hierarchical_shift(sample, seed=int(random.integers(2**62)), samples=1000)
            cells = [cell.estimate for row in found for cell in row if cell is not None]
        ends = np.array([(cell.low, cell.high) for cell in cells if cell is not None])
        low, high = ends.reshape(*matrix.shape, 2).transpose(2, 0, 1)
        inside = (low <= matrix) & (matrix <= high)
        is_covered.append(inside.ravel() if rows == "alike" else inside[1, :1])
        widths.append((high - low).mean())
    return share(is_covered, widths)


def population_rows(random: np.random.Generator) -> FloatArray:
    """Return rows of a shift matrix whose groups are drawn from one population, (7, 7).

    Retention is Beta(6, 3); conversions go to the other groups by shares common to all rows, with
    a Dirichlet spread of strength 8.
    """
    k = len(planted_matrix())
    retention, common = random.beta(6, 3, k), random.dirichlet(np.full(k, 2.0))
    rows = np.zeros((k, k))
    for group in range(k):
        others = np.delete(common, group)
        spread = random.dirichlet(8 * others / others.sum() + 0.05)
        rows[group] = np.insert((1 - retention[group]) * spread, group, retention[group])
    return rows


def with_unclassified(share_lost: float) -> FloatArray:
    """Return the planted shift matrix, (7, 8), its last column the draws without a group."""
    planted = planted_matrix()
    return np.column_stack([(1 - share_lost) * planted, np.full(len(planted), share_lost)])


def draws_of(random: np.random.Generator, matrix: FloatArray, faces: int, draws: int) -> Draws:
    """Simulate the draws of balanced faces by a shift matrix (7, 8), correlated within faces."""
    k = len(matrix)
    columns = draws_of_faces(random, matrix, faces, draws, ICC).ravel()
    owner, groups = np.repeat(np.arange(k * faces), draws), np.repeat(np.arange(k), faces * draws)
    return Draws(owner, groups, np.where(columns == k, -1, columns), k)


def true_values(matrix: FloatArray, draws: int) -> dict[str, FloatArray]:
    """Return what the estimators estimate, in a row each, of a matrix (7, 8) and correlation ICC.

    Flip rate and entropy are those of a matrix whose draws are all classified.
    """
    k = len(matrix)
    # flows as shares of all draws
    turned = matrix[:, :k] / k
    flows = turned - turned.T
    # draws of a face are alike with probability ICC; else they differ with probability
    # sum p (1 - p), and n draws estimate the terms 1/v sum p (1 - p)^v of the entropy up to n - 1
    p = matrix[:, :k]
    terms = [(p * (1 - p) ** v).sum(axis=1).mean() / v for v in range(1, draws)]
    return {
        "shares": matrix.diagonal(),
        "shift_matrix": matrix.ravel(),
        "net_flows": flows.ravel(),
        "net_gains": flows.sum(axis=0),
        "flip_rate": (1 - ICC) * np.array(terms[:1]),
        "entropy": (1 - ICC) * np.array([sum(terms)]),
    }


def pooled(random: np.random.Generator, replicates: int) -> Performance:
    """Share of pooled intervals that contain the truth, over the cells of an intersection."""
    parts = [(str(i), str(j)) for i in range(7) for j in range(2)]
    is_covered, widths = [], []
    for _ in range(replicates):
        # rates: two additive effects, and an interaction of every cell
        first, second = random.normal(0, EFFECTS[0], 7), random.normal(0, EFFECTS[1], 2)
        logits = logit(0.6) + np.add.outer(first, second).ravel()
        rates = expit(logits + random.normal(0, INTERACTIONS, 14))
        faces = random.integers(4, 13, 14)
        sums = np.concatenate(
            [successes(random, n, p, ICC, 2) for n, p in zip(faces, rates, strict=True)]
        )
        outcomes = (np.arange(2) < sums[:, None]).ravel()
        owner = np.repeat(np.arange(len(sums)), 2)
        cells = np.repeat(np.arange(14), 2 * faces)
        estimates = [e.estimate for e in pooling.partial_pooling(outcomes, owner, cells, parts)]
        is_covered.append([e.low <= p <= e.high for e, p in zip(estimates, rates, strict=True)])
        widths.append([e.high - e.low for e in estimates])
    return share(is_covered, widths)
