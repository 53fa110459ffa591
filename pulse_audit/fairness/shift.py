"""The shift matrix: which apparent group the outputs of each group of inputs have.

Every share is over all draws: outputs without a face and failed draws are in the denominator, as a
last column "not classified", so that an arm gains nothing by failing. Groups of inputs are fixed
by the evaluation set; faces within a group are the sample.

References
----------
A. Jalal et al. (2021), Fairness for Image Generation with Uncertain Sensitive Attributes, ICML
(the conditional shares whose equality is RDP). G. Y. Zou, W. Huang and X. Zhang (2009), CSDA
53:1080 (intervals of linear functions of proportions, from the intervals of each).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import (
    FloatArray,
    IntArray,
    intraclass_correlation,
    proportion_interval,
)
from pulse_audit.types import Estimate

#: ``predicted`` of a draw whose output has no apparent group: no face, an error, no prediction.
UNCLASSIFIED = -1


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of one arm under one condition and scale.

    Parameters
    ----------
    faces : array_like of int, (n,)
        Face of each draw. All draws of a face have the same ``truth``.
    truth : array_like of int, (n,)
        Group of the face, 0 to k - 1.
    predicted : array_like of int, (n,)
        Apparent group of the output, 0 to k - 1, or -1 where it has none.
    k : int
        Number of groups in the vocabulary; a group without faces is allowed.

    Raises
    ------
    ValueError
        If lengths differ, there is no draw, or a number is out of range.
    """

    faces: IntArray
    truth: IntArray
    predicted: IntArray
    k: int

    def __post_init__(self) -> None:
        """Check the arrays, and hold them as whole numbers."""
        for name in ("faces", "truth", "predicted"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        if not (self.faces.ndim == 1 and self.faces.size > 0):
            raise ValueError("draws need at least one face, given as one number a draw")
        if not self.faces.shape == self.truth.shape == self.predicted.shape:
            raise ValueError("faces, truth and predicted need one number a draw each")
        if not _within(self.truth, 0, self.k) or not _within(self.predicted, UNCLASSIFIED, self.k):
            raise ValueError(f"groups must be 0 to {self.k - 1}; -1 only for what was predicted")

    @cached_property
    def retained(self) -> FloatArray:
        """1 where the apparent group is the face's own, of all draws."""
        return np.asarray(self.truth == self.predicted, dtype=np.float64)

    @cached_property
    def converted(self) -> FloatArray:
        """1 where the output has another group than its face; 0 also where it has none."""
        other = (self.truth != self.predicted) & (self.predicted != UNCLASSIFIED)
        return np.asarray(other, dtype=np.float64)

    @cached_property
    def composition(self) -> FloatArray:
        """Share of the draws in each group of inputs, (k,)."""
        counts = np.bincount(self.truth, minlength=self.k)
        return np.asarray(counts / len(self.truth), dtype=np.float64)

    @property
    def classified(self) -> Draws | None:
        """The draws whose output has an apparent group, or None where there are none."""
        kept = self.predicted != UNCLASSIFIED
        if not kept.any():
            return None
        return Draws(self.faces[kept], self.truth[kept], self.predicted[kept], self.k)


def _within(numbers: IntArray, low: int, below: int) -> bool:
    return bool(((numbers >= low) & (numbers < below)).all())


def shares(
    outcomes: ArrayLike,
    faces: ArrayLike,
    groups: ArrayLike,
    n_groups: int,
    confidence: float = 0.95,
) -> list[Estimate | None]:
    """Share of draws with the outcome in each group, NaN outcomes left out.

    Wilson intervals at the design-effect sample size, with the larger of the group's own
    within-face correlation and the one pooled over groups.

    Returns
    -------
    list of Estimate or None, (n_groups,)
        None for a group without a measured draw.
    """
    values = np.asarray(outcomes, dtype=np.float64)
    measured = ~np.isnan(values)
    values = values[measured]
    clusters, strata = np.asarray(faces)[measured], np.asarray(groups)[measured]
    if not values.size:
        return [None] * n_groups
    pooled = intraclass_correlation(values, clusters, strata)
    return [
        proportion_interval(values[inside], clusters[inside], pooled, confidence)
        if (inside := strata == group).any()
        else None
        for group in range(n_groups)
    ]


def retention(draws: Draws, confidence: float = 0.95) -> list[Estimate | None]:
    """Diagonal of the shift matrix: recall of each group, over all its draws."""
    return shares(draws.retained, draws.faces, draws.truth, draws.k, confidence)


def retention_classified(draws: Draws, confidence: float = 0.95) -> list[Estimate | None]:
    """Retention given that the output has an apparent group."""
    outcomes = np.where(draws.predicted == UNCLASSIFIED, np.nan, draws.retained)
    return shares(outcomes, draws.faces, draws.truth, draws.k, confidence)


def retention_feasible(
    draws: Draws, feasible: ArrayLike, confidence: float = 0.95
) -> list[Estimate | None]:
    """Retention given that the output fits its input; ``feasible`` is 0 or 1, one a draw."""
    outcomes = np.where(np.asarray(feasible) > 0, draws.retained, np.nan)
    return shares(outcomes, draws.faces, draws.truth, draws.k, confidence)


def conversion(draws: Draws, confidence: float = 0.95) -> list[Estimate | None]:
    """Share of all draws of a group whose output has another apparent group."""
    return shares(draws.converted, draws.faces, draws.truth, draws.k, confidence)


def shift_matrix(draws: Draws, confidence: float = 0.95) -> list[list[Estimate | None]]:
    """P(apparent group of the output | group of the input).

    Returns
    -------
    list of lists, (k, k + 1)
        Row: group of the input; column: apparent group of the output, the last one "not
        classified". The values of a row sum to 1. None in rows of groups without faces. The
        diagonal is `retention`; the correlation of any other cell is pooled over the groups that
        would be converted by it.
    """
    diagonal = retention(draws, confidence)
    columns = [_column(draws, group, diagonal, confidence) for group in range(draws.k)]
    missing = (draws.predicted == UNCLASSIFIED).astype(np.float64)
    columns.append(shares(missing, draws.faces, draws.truth, draws.k, confidence))
    return [list(row) for row in zip(*columns, strict=True)]


def _column(
    draws: Draws, group: int, diagonal: Sequence[Estimate | None], confidence: float
) -> list[Estimate | None]:
    outcomes = np.where(draws.truth == group, np.nan, (draws.predicted == group).astype(float))
    column = shares(outcomes, draws.faces, draws.truth, draws.k, confidence)
    column[group] = diagonal[group]
    return column


def original_baseline(faces: ArrayLike, truth: ArrayLike, predicted: ArrayLike, k: int) -> Draws:
    """One draw a face: the original itself, as the attribute model sees it.

    Its retention is what a perfect upsampler would score: the model's own hit rate. Faces may
    repeat (a row a draw); the first row of each counts.
    """
    _, first = np.unique(np.asarray(faces), return_index=True)
    return Draws(
        np.asarray(faces)[first], np.asarray(truth)[first], np.asarray(predicted)[first], k
    )


def net_flows(draws: Draws, confidence: float = 0.95) -> list[list[Estimate | None]]:
    """Who gains whom: P(in i, out j) - P(in j, out i), as shares of all draws.

    Returns
    -------
    list of lists, (k, k)
        Positive where j gains from i; antisymmetric, None on the diagonal and for groups without
        faces. Intervals as in `net_gains`.
    """
    matrix, weight = shift_matrix(draws, confidence), draws.composition
    return [
        [
            None
            if i == j
            else _linear([(weight[i], matrix[i][j]), (-weight[j], matrix[j][i])], confidence)
            for j in range(draws.k)
        ]
        for i in range(draws.k)
    ]


def net_gains(draws: Draws, confidence: float = 0.95) -> list[Estimate | None]:
    """How many outputs a group gains from others less those it loses to others, of all draws.

    The gains of all groups sum to 0: draws that are not classified are neither gained nor lost.

    Notes
    -----
    A gain is a weighted sum of one share of each group of inputs, and groups share no face. Its
    interval is put together from the Wilson intervals of these shares (Zou, Huang and Zhang 2009,
    "MOVER"): unlike a bootstrap it has width where a group of few faces shows no loss at all.
    """
    weight, lost = draws.composition, conversion(draws, confidence)
    matrix = shift_matrix(draws, confidence)
    return [
        _linear(
            [(-weight[g], lost[g])]
            + [(weight[i], matrix[i][g]) for i in range(draws.k) if i != g and weight[i] > 0],
            confidence,
        )
        for g in range(draws.k)
    ]


def _linear(terms: list[tuple[float, Estimate | None]], confidence: float) -> Estimate | None:
    """Weighted sum of independent shares; groups without faces weigh nothing."""
    known = [(weight, share) for weight, share in terms if share is not None]
    if not known:
        return None
    value = sum(weight * share.value for weight, share in known)
    below, above = (
        math.sqrt(sum(_reach(weight, share, side) ** 2 for weight, share in known))
        for side in (-1, 1)
    )
    return Estimate(
        value,
        value - below,
        value + above,
        sum(share.n_faces for _, share in known),
        sum(share.n_draws for _, share in known),
        "MOVER from Wilson intervals at design-effect n",
        confidence,
    )


def _reach(weight: float, share: Estimate, side: int) -> float:
    """How far one term can pull the sum down (-1) or up (1)."""
    end = share.high if weight * side > 0 else share.low
    return weight * (end - share.value)
