"""The shift matrix, its flows between groups, and the diversity of outputs over seeds.

The shift matrix holds P(apparent group of the output | group of the input). Every share is over all
draws: outputs without a face and failed draws are in the denominator, as a last column "not
classified", so that failed draws cannot improve an arm's result. Groups of inputs are fixed by the
evaluation set; faces within a group are the sample. Diversity measures how much the apparent group
of one face's outputs depends on the seed.

References
----------
A. Jalal et al. (2021), Fairness for Image Generation with Uncertain Sensitive Attributes, ICML
(the conditional shares whose equality is RDP). G. Y. Zou, W. Huang and X. Zhang (2009), CSDA
53:1080 (intervals of linear functions of proportions, from the intervals of each). E. H. Simpson
(1949), Nature 163:688 (unbiased probability that two draws differ). Z. Zhang (2012), Neural
Computation 24:1368 (entropy in Turing's perspective: bias decays exponentially).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma

from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import (
    FloatArray,
    IntArray,
    intraclass_correlation,
    proportion_interval,
    wilson,
)
from pulse_audit.types import Estimate, Unavailable

#: ``predicted`` of a draw whose output has no apparent group: no face, an error, no prediction.
UNCLASSIFIED = -1
#: Where no face has two classified draws.
ONE_DRAW = Unavailable("diversity over seeds needs faces with at least two classified draws")


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
        """Check the arrays, and store them as int64."""
        for name in ("faces", "truth", "predicted"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        if not (self.faces.ndim == 1 and self.faces.size > 0):
            raise ValueError("draws need at least one face, given as one number a draw")
        if not self.faces.shape == self.truth.shape == self.predicted.shape:
            raise ValueError("faces, truth and predicted need one number a draw each")
        groups = np.concatenate([self.truth, self.predicted])
        if self.truth.min() < 0 or groups.min() < UNCLASSIFIED or groups.max() >= self.k:
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
    # NaN: not measured, or outside the condition of a conditional rate
    values = np.asarray(outcomes, dtype=np.float64)
    measured = ~np.isnan(values)
    values = values[measured]
    clusters, strata = np.asarray(faces)[measured], np.asarray(groups)[measured]
    if not values.size:
        return [None] * n_groups
    # one correlation for all groups, as a lower limit of each group's own
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
    diagonal, columns = retention(draws, confidence), []
    for group in range(draws.k):
        # off the diagonal: the correlation is pooled over the groups that lose draws to this one
        outcomes = np.where(draws.truth == group, np.nan, (draws.predicted == group).astype(float))
        column = shares(outcomes, draws.faces, draws.truth, draws.k, confidence)
        column[group] = diagonal[group]
        columns.append(column)
    # last column: not classified
    missing = (draws.predicted == UNCLASSIFIED).astype(np.float64)
    columns.append(shares(missing, draws.faces, draws.truth, draws.k, confidence))
    return [list(row) for row in zip(*columns, strict=True)]


def original_baseline(faces: ArrayLike, truth: ArrayLike, predicted: ArrayLike, k: int) -> Draws:
    """Take the originals as draws, one a face, with the attribute model's prediction.

    Their retention is that of a perfect upsampler: the model's own recall. Faces may repeat (a row
    a draw); the first row of each counts.
    """
    # the first row of every face
    _, first = np.unique(np.asarray(faces), return_index=True)
    return Draws(
        np.asarray(faces)[first], np.asarray(truth)[first], np.asarray(predicted)[first], k
    )


def net_flows(draws: Draws, confidence: float = 0.95) -> list[list[Estimate | None]]:
    """Net flow between two groups: P(in i, out j) - P(in j, out i), as shares of all draws.

    Returns
    -------
    list of lists, (k, k)
        Positive where j gains from i; antisymmetric, None on the diagonal and for groups without
        faces. Intervals as in `net_gains`.
    """
    # joint shares are rows of the matrix weighted by the composition of the inputs
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
    """Net gain of each group: outputs it gains from others less those it loses, over all draws.

    The gains of all groups sum to 0: draws that are not classified are neither gained nor lost.

    Notes
    -----
    A gain is a weighted sum of one share of each group of inputs, and groups share no face. Its
    interval is computed from the Wilson intervals of these shares (Zou, Huang and Zhang 2009,
    "MOVER"): unlike a bootstrap it has width where a group of few faces shows no loss at all.
    """
    weight, lost = draws.composition, conversion(draws, confidence)
    matrix = shift_matrix(draws, confidence)
    # gain of g: sum over i of w_i P(out g | in i), less w_g P(converted | in g)
    return [
        _linear(
            [(-weight[g], lost[g])]
            + [(weight[i], matrix[i][g]) for i in range(draws.k) if i != g and weight[i] > 0],
            confidence,
        )
        for g in range(draws.k)
    ]


def flip_rate(draws: Draws, confidence: float = 0.95) -> Estimate | Unavailable:
    """Probability that two draws of one face differ in apparent group, mean over faces.

    A face's value is the share of differing pairs among its classified draws, which is unbiased
    at any number of draws; every face has the same weight. It lies in [0, 1], so its variance is at
    most that of a binary outcome of the same mean: the Wilson interval at the number of faces is
    conservative, and of the usual accuracy at two draws.
    """
    _, counts = counts_by_face(draws)
    if not len(counts):
        return ONE_DRAW
    differing = differing_pairs(counts)
    low, high = wilson(float(differing.sum()), len(counts), confidence)
    method = "Wilson over faces; share of pairs of draws that differ"
    value, n_draws = float(differing.mean()), int(counts.sum())
    return Estimate(value, low, high, len(counts), n_draws, method, confidence)


def entropy(draws: Draws, *, seed: int, confidence: float = 0.95) -> Estimate | Unavailable:
    """Entropy of the apparent group over the draws of a face, in nats, mean over faces.

    Notes
    -----
    Zhang's (2012) estimator sum_i (x_i / n) (psi(n) - psi(x_i)): of the series
    H = sum_v 1/v sum_i p_i (1 - p_i)^v it estimates the first n - 1 terms without bias. Few draws
    therefore underestimate the entropy (at two draws it is the flip rate), but far less than the
    plug-in estimate does. The interval resamples faces (BCa); where all faces agree it is the
    Wilson interval of a quantity bounded by the largest value that many draws can give.
    """
    _, counts = counts_by_face(draws)
    if not len(counts):
        return ONE_DRAW
    values = entropies(counts)
    if np.ptp(values) > 0 and len(values) > 1:
        estimate = cluster_bca(values, np.arange(len(values)), seed=seed, confidence=confidence)
        value, low, high = estimate.value, max(0.0, estimate.low), estimate.high
        method = estimate.method
    else:
        # the largest value that so many draws can give scales the interval of a proportion
        most = most_entropy(int(counts.sum(axis=1).max()))
        value, method = float(values.mean()), "Wilson over faces, scaled"
        ends = wilson(min(1.0, value / most) * len(values), len(values), confidence)
        low, high = most * ends[0], most * ends[1]
    method += "; Zhang's entropy in nats"
    return Estimate(value, low, high, len(counts), int(counts.sum()), method, confidence)


def counts_by_face(draws: Draws) -> tuple[IntArray, FloatArray]:
    """Faces with at least two classified draws, and their draws of each apparent group.

    Returns
    -------
    faces : ndarray, (n,)
    counts : ndarray, (n, k)
    """
    classified = draws.predicted != UNCLASSIFIED
    names, face = np.unique(draws.faces[classified], return_inverse=True)
    counts = np.zeros((len(names), draws.k))
    np.add.at(counts, (face, draws.predicted[classified]), 1.0)
    several = counts.sum(axis=1) >= 2
    return names[several], counts[several]


def differing_pairs(counts: FloatArray) -> FloatArray:
    """Share of the pairs of each face's draws that differ, from `counts_by_face`; in [0, 1]."""
    # 1 - sum_i x_i (x_i - 1) / (n (n - 1)) of every face (Simpson 1949)
    n = counts.sum(axis=1)
    differing: FloatArray = 1.0 - (counts * (counts - 1)).sum(axis=1) / (n * (n - 1))
    return differing


def entropies(counts: FloatArray) -> FloatArray:
    """Zhang's entropy of each face's draws in nats, from `counts_by_face`; see `entropy`."""
    # psi(n) - psi(x_i), 0 where x_i is 0
    n = counts.sum(axis=1, keepdims=True)
    surprise = np.where(counts > 0, digamma(n) - digamma(np.maximum(counts, 1.0)), 0.0)
    values: FloatArray = (counts / n * surprise).sum(axis=1)
    return values


def most_entropy(n_draws: int) -> float:
    """Return the largest value that so many draws of a face can give, in nats."""
    return float(digamma(n_draws) - digamma(1))


def _linear(terms: list[tuple[float, Estimate | None]], confidence: float) -> Estimate | None:
    """Weighted sum of independent shares by MOVER; groups without faces have no weight."""
    # only shares that exist; no group of the evaluation set occurs in two of them
    present = [(weight, share) for weight, share in terms if share is not None]
    if not present:
        return None
    value = sum(weight * share.value for weight, share in present)
    # each end of the sum adds, in squares, the ends of its terms that pull in its direction
    below = math.sqrt(sum((w * ((s.high if w < 0 else s.low) - s.value)) ** 2 for w, s in present))
    above = math.sqrt(sum((w * ((s.high if w > 0 else s.low) - s.value)) ** 2 for w, s in present))
    return Estimate(
        value,
        value - below,
        value + above,
        sum(share.n_faces for _, share in present),
        sum(share.n_draws for _, share in present),
        "MOVER from Wilson intervals at design-effect n",
        confidence,
    )
