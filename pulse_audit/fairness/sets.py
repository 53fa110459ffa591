"""Fairness of a set of outputs: RDP, PR, CPR, UCPR, SPE as divergences from where they hold.

With X the face, Y its low-resolution input, X' the output and c_i the faces of group i (Jalal et
al. 2021; numbered as restated by Ohayon et al. 2024, eqs. 2 to 4):

- RDP (representation demographic parity): P(X' in c_i | X in c_i) is the same for all i.
- PR (proportional representation): P(X' in c_i) = P(X in c_i).
- CPR (conditional PR): P(X' in c_i | Y) = P(X in c_i | Y), which implies PR.
- UCPR: CPR where Y is uninformative about the group (Laszkiewicz et al. 2024).
- SPE (symmetric pairwise error): P(X in c_i, X' in c_j) = P(X in c_j, X' in c_i).

Posterior sampling satisfies all but RDP. Groups are fixed by the evaluation set: P(X in c_i) is its
composition, not uniform unless it is balanced.

All are functions of the joint shares of input and output groups. For their sampling noise, faces
are resampled within the groups of the evaluation set, whose composition is fixed. To the faces of
each group two more are added, spread over the classes as the outputs are: otherwise a share that
was never observed would have no sampling error ("plus four", Agresti and Coull 1998).

References
----------
A. Jalal et al. (2021), ICML. G. Ohayon et al. (2024), NeurIPS. M. Laszkiewicz et al. (2024),
FAccT. A. Agresti and B. A. Coull (1998), The American Statistician 52:119.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.fairness.divergence import (
    DIVERGENCES,
    Divergence,
    PointStatistic,
    between,
    corrected,
    reference_shares,
)
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.bootstrap import MANY_FACES
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.types import Estimate, Unavailable

#: Divergences that are norms of a difference.
Norm: TypeAlias = Literal["tv", "chebyshev"]
METHOD = "bias-corrected, bootstrap by face with test inversion"
#: Faces added to each group in resampling.
ADDED = 2.0
_UNCLASSIFIED = Unavailable("no output has an apparent group")


@dataclass(frozen=True, eq=False)
class Joint:
    """Shares of draws by group of the input and of the output, and their sampling noise.

    Parameters
    ----------
    shares : ndarray, (k, k + 1)
        Of all draws; last column: not classified.
    noise : ndarray, (replicates, k, k + 1)
        Resampled shares less their mean.
    pairs : ndarray or None, (k, k)
        Shares of ordered pairs of classified draws of one face, faces having equal weight; None
        where no face has two.
    pair_noise : ndarray or None, (replicates, k, k)
    n_faces, n_draws : int
    confidence : float
    """

    shares: FloatArray
    noise: FloatArray
    pairs: FloatArray | None
    pair_noise: FloatArray | None
    n_faces: int
    n_draws: int
    confidence: float


@dataclass(frozen=True)
class SetEstimate:
    """A bias-corrected estimate, and the plug-in value that other tools report."""

    estimate: Estimate
    plug_in: float


def joint_shares(
    draws: Draws,
    *,
    seed: int,
    strata: ArrayLike | None = None,
    replicates: int = 1000,
    confidence: float = 0.95,
) -> Joint:
    """Joint shares of input and output groups with resamples by face.

    Parameters
    ----------
    draws : Draws
    seed : int
        Of the resampling.
    strata : array_like of int, (n,), optional
        Groups within which faces are resampled; default ``draws.truth``.
    replicates : int
    confidence : float
    """
    k = draws.k
    _, first, face = np.unique(draws.faces, return_index=True, return_inverse=True)
    truth, n_faces = draws.truth[first], len(first)
    stratum = np.asarray(draws.truth if strata is None else strata)[first]
    counts = np.zeros((n_faces, k + 1))  # draws of each output class of each face
    np.add.at(counts, (face, draws.predicted), 1.0)  # -1 is the last column
    n_draws = float(counts.sum())
    # of many faces those that do not differ are resampled together: how often is multinomial, too
    number = np.ones(n_faces)
    if n_faces >= MANY_FACES:
        rows = np.column_stack([stratum, truth, counts]).astype(np.int64)
        alike, repeated = np.unique(rows, axis=0, return_counts=True)
        stratum, truth, counts = alike[:, 0], alike[:, 1], alike[:, 2:].astype(np.float64)
        number = repeated.astype(np.float64)
    composition = (counts * number[:, None]).sum(axis=0) / n_draws
    n_rows = len(number)

    # contribution of each face to the joint counts, (rows, k (k + 1))
    by_truth = np.zeros((n_rows, k, k + 1))
    by_truth[np.arange(n_rows), truth] = counts
    joint = by_truth.reshape(n_rows, -1)

    # share of ordered pairs of draws of each face, (rows, k k), and whether it has any; 0 for
    # faces with fewer than two classified draws
    classified = counts[:, :-1]
    n = classified.sum(axis=1)
    ordered = classified[:, :, None] * classified[:, None, :]
    diagonal = np.arange(k)
    ordered[:, diagonal, diagonal] -= classified
    n_ordered = np.where(n >= 2, n * (n - 1), np.inf)
    pairs = np.column_stack([ordered.reshape(n_rows, -1) / n_ordered[:, None], n >= 2])

    # totals of resampled faces less their mean, (replicates, joint and pairs)
    rng, cut = np.random.default_rng(seed), k * (k + 1)
    noise = np.zeros((replicates, cut + pairs.shape[1]))
    for each in np.unique(stratum):
        inside = np.flatnonzero(stratum == each)
        observed = np.hstack([joint[inside], pairs[inside]])
        faces = number[inside]
        n_inside = int(faces.sum())
        groups, place = np.unique(truth[inside], return_inverse=True)
        added = _added_faces(float(faces @ counts[inside].sum(axis=1)) / n_inside, cut, groups, k)
        # added faces have the stratum's input groups, and the output classes of all draws
        weight = ADDED * np.outer(np.bincount(place, faces) / n_inside, composition)
        pool = np.vstack([observed, added])
        chance = np.concatenate([faces, weight.ravel()]) / (n_inside + ADDED)
        drawn = rng.multinomial(n_inside, chance, size=replicates)
        noise += (drawn - n_inside * chance) @ pool

    shares = (joint * number[:, None]).sum(axis=0).reshape(k, k + 1) / n_draws
    share_noise = (noise[:, :cut] / n_draws).reshape(-1, k, k + 1)
    totals = (pairs * number[:, None]).sum(axis=0)
    numbers = n_faces, int(n_draws), confidence
    if not totals[-1]:
        return Joint(shares, share_noise, None, None, *numbers)
    # the number of faces with pairs, which divides, is resampled too
    pair_shares = totals[:-1] / totals[-1]
    with_pairs = np.maximum(totals[-1] + noise[:, -1:], 1.0)
    drift = (totals[:-1] + noise[:, cut:-1]) / with_pairs - pair_shares
    pair_noise = (drift - drift.mean(axis=0)).reshape(-1, k, k)
    return Joint(shares, share_noise, pair_shares.reshape(k, k), pair_noise, *numbers)


def _added_faces(draws: float, cut: int, groups: IntArray, k: int) -> FloatArray:
    """Rows of the faces added to a stratum: one for every input group and output class.

    An added face has as many draws as the stratum's faces have on average, all of one class.
    """
    # columns: joint counts (cut), ordered pairs (k k), whether the face has pairs (1)
    added = np.zeros((len(groups), k + 1, cut + k * k + 1))
    for place, group in enumerate(groups):
        for output in range(k + 1):
            added[place, output, group * (k + 1) + output] = draws
            # draws that agree give pairs on the diagonal; unclassified ones give none
            if output < k:
                added[place, output, cut + output * k + output] = 1.0
                added[place, output, -1] = 1.0
    return added.reshape(-1, cut + k * k + 1)


@dataclass(frozen=True, eq=False)
class _Parts:
    """A property as two distributions that are equal where it holds.

    ``point`` (m,) is the estimate, ``null`` the fair point and ``noise`` (replicates, m) the
    sampling error; ``sides`` turns points (..., m) into both distributions. ``is_fixed``: the
    second one is a reference that is not estimated.
    """

    point: FloatArray
    null: FloatArray
    noise: FloatArray
    sides: Callable[[FloatArray], tuple[FloatArray, FloatArray]]
    is_fixed: bool

    def statistic(self, divergence: Divergence) -> PointStatistic:
        """Divergence of the two distributions as a function of points."""
        if self.is_fixed:
            return lambda points: DIVERGENCES[divergence](*self.sides(points))
        return lambda points: between(divergence)(np.concatenate(self.sides(points), axis=-1))


def rdp(joint: Joint, divergence: Divergence) -> SetEstimate | Unavailable:
    """Divergence of the groups' retention from equality.

    Retention of the groups that have faces, divided by its sum, is compared with uniform shares
    (P_RDP of Laszkiewicz et al. 2024); draws without a prediction count as not retained. chi2 is
    then the squared coefficient of variation of retention.
    """
    return _estimate(joint, _rdp(joint), divergence)


def _rdp(joint: Joint) -> _Parts | Unavailable:
    # P(X' in c_i | X in c_i) of the groups with faces
    total = joint.shares.sum(axis=1)
    present = np.flatnonzero(total > 0)
    recall = joint.shares[present, present] / total[present]
    if len(present) < 2 or recall.sum() == 0:
        return Unavailable("a single group" if len(present) < 2 else "no output keeps its group")
    uniform = np.full(len(present), 1 / len(present))
    return _Parts(
        recall,
        np.full(len(present), recall.mean()),
        joint.noise[:, present, present] / total[present],
        lambda points: (_normalised(points), uniform),
        True,
    )


def pr(joint: Joint, divergence: Divergence) -> SetEstimate | Unavailable:
    """Divergence of the outputs' composition from that of the evaluation set.

    Only outputs with an apparent group count. Half a face is added to each group of the evaluation
    set where one is empty.
    """
    return _estimate(joint, _pr(joint), divergence)


def _pr(joint: Joint) -> _Parts | Unavailable:
    # compositions of the inputs and of the classified outputs, (k,)
    target = reference_shares(joint.shares.sum(axis=1) * joint.n_faces)
    outputs = joint.shares[:, :-1].sum(axis=0)
    if outputs.sum() == 0:
        return _UNCLASSIFIED
    return _Parts(
        outputs,
        target * outputs.sum(),
        joint.noise[:, :, :-1].sum(axis=1),
        lambda points: (_normalised(points), target),
        True,
    )


def spe(joint: Joint, divergence: Divergence) -> SetEstimate | Unavailable:
    """Divergence between P(X in c_i, X' in c_j) and its transpose, of classified draws.

    Use apparent groups on both sides (``truth`` as the attribute model predicts on the original):
    the model's errors then affect both alike, and the property needs no correction.
    """
    return _estimate(joint, _spe(joint), divergence)


def _spe(joint: Joint) -> _Parts | Unavailable:
    square = joint.shares[:, :-1]
    if square.sum() == 0:
        return _UNCLASSIFIED
    k = len(square)

    def sides(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        shares = _normalised(points)
        transposed = shares.reshape(*shares.shape[:-1], k, k).swapaxes(-1, -2)
        return shares, transposed.reshape(shares.shape)

    # the nearest symmetric matrix is the fair point
    noise = joint.noise[:, :, :-1].reshape(len(joint.noise), -1)
    return _Parts(square.ravel(), ((square + square.T) / 2).ravel(), noise, sides, False)


def cpr(joint: Joint, divergence: Divergence) -> SetEstimate | Unavailable:
    """Lower bound of the mean divergence of P(X' | Y) from P(X | Y), from two draws a face.

    A low-resolution image has one original, so P(X | Y) itself cannot be estimated. But where CPR
    holds, X and two draws X', X'' are exchangeable given Y: (X, X') is then distributed as
    (X'', X'). The divergence between these two joint distributions is 0 under CPR and, for tv, at
    most the mean over Y of the divergence in question (joint convexity); 0 does not prove CPR.
    Apparent groups on both sides, as in `spe`.
    """
    return _estimate(joint, _cpr(joint), divergence)


def _cpr(joint: Joint) -> _Parts | Unavailable:
    square = joint.shares[:, :-1]
    if joint.pairs is None or joint.pair_noise is None or square.sum() == 0:
        return Unavailable("needs faces with at least two classified draws")
    cells = square.size

    def sides(points: FloatArray) -> tuple[FloatArray, FloatArray]:
        return _normalised(points[..., :cells]), _normalised(points[..., cells:])

    # joint distributions of (X, X') and of (X'', X'), side by side
    first, second = (square / square.sum()).ravel(), joint.pairs.ravel()
    noise = joint.noise[:, :, :-1].reshape(len(joint.noise), -1) / square.sum()
    both = np.hstack([noise, joint.pair_noise.reshape(len(noise), -1)])
    # under CPR the two distributions are equal: their mean is the fair point
    middle = (first + second) / 2
    return _Parts(
        np.hstack([first, second]), np.hstack([middle, middle]), both, sides, False
    )  # fmt: skip


#: Properties of apparent groups on both sides.
_OF_APPARENT = {"cpr": _cpr, "spe": _spe}


@dataclass(frozen=True)
class SetBounds:
    """A plug-in divergence with a lower and an upper bound, each at one level."""

    value: float
    low: float
    high: float


def bounds(name: str, divergence: Norm, joint: Joint, level: float) -> SetBounds | Unavailable:
    """Bounds of a divergence whose error rates hold on either side.

    Parameters
    ----------
    name : str
        ``cpr`` or ``spe``.
    divergence : str
        tv and chebyshev are norms of the difference of two distributions.
    joint : Joint
    level : float
        Chance that either bound is on the wrong side of the truth, at most.

    Notes
    -----
    An estimate is no further from the truth than its error is long (triangle inequality): the
    bounds are the estimate less and plus the quantile of the length of the error. They are
    conservative, while the ends of the intervals of `cpr` and `spe` are equal-tailed only on
    average: near 0, where most cells agree, the lower one exceeds the truth too often.
    """
    parts = _OF_APPARENT[name](joint)
    if isinstance(parts, Unavailable):
        return parts
    first, second = parts.sides(parts.point)
    ones, others = parts.sides(parts.point + parts.noise)
    moved = (ones - others) - (first - second)
    none = np.zeros_like(first)
    value = float(DIVERGENCES[divergence](first - second, none))
    reach = float(np.quantile(DIVERGENCES[divergence](moved, none), 1 - level))
    return SetBounds(value, max(value - reach, 0.0), value + reach)


def ucpr(
    inputs: ArrayLike,
    predicted: ArrayLike,
    reference: ArrayLike,
    divergence: Divergence,
    *,
    seed: int,
    replicates: int = 1000,
    confidence: float = 0.95,
) -> SetEstimate | Unavailable:
    """Divergence of the outputs' composition from a reference, for uninformative inputs.

    Parameters
    ----------
    inputs : array_like, (n,)
        Input of each draw. The inputs are fixed, not a sample of others: draws are resampled
        within each, every input having the weight of its draws.
    predicted : array_like of int, (n,)
        Apparent group of each output, -1 where it has none (left out).
    reference : array_like, (k,)
        Composition that an unbiased method would have, nowhere 0.
    divergence : str
    seed : int
    replicates : int
    confidence : float
    """
    target, groups = np.asarray(reference, dtype=np.float64), np.asarray(predicted)
    classified = groups >= 0
    if not classified.any():
        return _UNCLASSIFIED
    _, number = np.unique(np.asarray(inputs)[classified], return_inverse=True)
    # draws by input and apparent group, (inputs, k)
    counts = np.zeros((number.max() + 1, len(target)))
    np.add.at(counts, (number, groups[classified]), 1.0)
    # noise of each input's counts, with two draws added as in `joint_shares`
    rng, noise = np.random.default_rng(seed), np.zeros((replicates, len(target)))
    for row in counts:
        chance = (row + ADDED * counts.sum(axis=0) / counts.sum()) / (row.sum() + ADDED)
        noise += rng.multinomial(int(row.sum()), chance, replicates) - row.sum() * chance
    # shares of classified draws sum to 1 already
    result = corrected(
        lambda points: DIVERGENCES[divergence](points, target),
        counts.sum(axis=0) / counts.sum(),
        target,
        noise / counts.sum(),
        confidence,
    )
    n_inputs, n_draws = len(counts), int(counts.sum())
    method = "bias-corrected, bootstrap of draws within inputs with test inversion"
    return SetEstimate(
        Estimate(result.value, result.low, result.high, n_inputs, n_draws, method, confidence),
        result.plug_in,
    )


def _normalised(points: FloatArray) -> FloatArray:
    """Divide by the sum over the last axis."""
    shares: FloatArray = points / np.maximum(points.sum(axis=-1, keepdims=True), 1e-9)
    return shares


def _estimate(
    joint: Joint, parts: _Parts | Unavailable, divergence: Divergence
) -> SetEstimate | Unavailable:
    if isinstance(parts, Unavailable):
        return parts
    statistic = parts.statistic(divergence)
    result = corrected(statistic, parts.point, parts.null, parts.noise, joint.confidence)
    numbers = joint.n_faces, joint.n_draws, METHOD, joint.confidence
    return SetEstimate(Estimate(result.value, result.low, result.high, *numbers), result.plug_in)
