"""Fairness of a set of outputs: RDP, PR, CPR, UCPR, SPE as divergences from where they hold.

With X the face, Y its low-resolution input, X' the output and c_i the faces of group i (Jalal et
al. 2021; numbered as restated by Ohayon et al. 2024, eqs. 2 to 4):

- RDP (representation demographic parity): P(X' in c_i | X in c_i) is the same for all i.
- PR (proportional representation): P(X' in c_i) = P(X in c_i).
- CPR (conditional PR): P(X' in c_i | Y) = P(X in c_i | Y), which implies PR.
- UCPR: CPR where Y says nothing about the group (Laszkiewicz et al. 2024).
- SPE (symmetric pairwise error): P(X in c_i, X' in c_j) = P(X in c_j, X' in c_i).

Posterior sampling fulfils all but RDP. Groups are fixed by the evaluation set: P(X in c_i) is its
composition, not uniform unless it is balanced.

References
----------
A. Jalal et al. (2021), ICML. G. Ohayon et al. (2024), NeurIPS. M. Laszkiewicz et al. (2024),
FAccT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.fairness.divergence import (
    DIVERGENCES,
    Name,
    Statistic,
    between,
    corrected,
    reference_shares,
)
from pulse_audit.fairness.resampling import ADDED, Joint
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.types import Estimate, Unavailable

METHOD = "bias-corrected, bootstrap by face with test inversion"


@dataclass(frozen=True)
class SetEstimate:
    """An estimate less its bias, and the plug-in value that other tools print."""

    estimate: Estimate
    plug_in: float


def rdp(joint: Joint, divergence: Name) -> SetEstimate | Unavailable:
    """Divergence of the groups' retention from equality.

    Retention of the groups that have faces, divided by its sum, is compared with uniform shares
    (P_RDP of Laszkiewicz et al. 2024); draws without a prediction count as not retained. chi2 is
    then the squared coefficient of variation of retention.
    """
    total = joint.shares.sum(axis=1)
    present = np.flatnonzero(total > 0)
    recall = joint.shares[present, present] / total[present]
    if len(present) < 2 or recall.sum() == 0:
        return Unavailable("a single group" if len(present) < 2 else "no output keeps its group")
    uniform = np.full(len(present), 1 / len(present))
    return _estimate(
        joint,
        lambda points: DIVERGENCES[divergence](_normalised(points), uniform),
        recall,
        np.full(len(present), recall.mean()),
        joint.noise[:, present, present] / total[present],
    )


def pr(
    joint: Joint, divergence: Name, reference: ArrayLike | None = None
) -> SetEstimate | Unavailable:
    """Divergence of the outputs' composition from that of the evaluation set.

    ``reference`` are shares (k,), default the composition of the draws' inputs, with half a face
    more a group where one is empty. Of the outputs, those with an apparent group.
    """
    if reference is None:
        reference = reference_shares(joint.shares.sum(axis=1) * joint.n_faces)
    target = np.asarray(reference, dtype=np.float64)
    outputs = joint.shares[:, :-1].sum(axis=0)
    if outputs.sum() == 0:
        return _NOTHING
    return _estimate(
        joint,
        lambda points: DIVERGENCES[divergence](_normalised(points), target),
        outputs,
        target * outputs.sum(),
        joint.noise[:, :, :-1].sum(axis=1),
    )


def spe(joint: Joint, divergence: Name) -> SetEstimate | Unavailable:
    """Divergence between P(X in c_i, X' in c_j) and its transpose, of classified draws.

    Use apparent groups on both sides (``truth`` as the attribute model sees the original): the
    model's errors then fall on both alike, and the property needs no correction.
    """
    square = joint.shares[:, :-1]
    if square.sum() == 0:
        return _NOTHING
    compare, k = between(divergence), joint.k

    def asymmetry(points: FloatArray) -> FloatArray:
        held = _normalised(points)
        turned = held.reshape(*held.shape[:-1], k, k).swapaxes(-1, -2).reshape(held.shape)
        return compare(np.concatenate([held, turned], axis=-1))

    noise = joint.noise[:, :, :-1].reshape(len(joint.noise), -1)
    return _estimate(joint, asymmetry, square.ravel(), ((square + square.T) / 2).ravel(), noise)


def cpr(joint: Joint, divergence: Name) -> SetEstimate | Unavailable:
    """Lower bound of the mean divergence of P(X' | Y) from P(X | Y), from two draws a face.

    A low-resolution image has one original, so P(X | Y) itself cannot be estimated. But where CPR
    holds, X and two draws X', X'' are exchangeable given Y: (X, X') is then distributed as
    (X'', X'). The divergence between these two joint distributions is 0 under CPR and, for tv, at
    most the mean over Y of the divergence in question (joint convexity); 0 does not prove CPR.
    Apparent groups on both sides, as in `spe`.
    """
    square = joint.shares[:, :-1]
    if joint.pairs is None or joint.pair_noise is None or square.sum() == 0:
        return Unavailable("needs faces with at least two classified draws")
    compare, cells = between(divergence), joint.k**2

    def difference(points: FloatArray) -> FloatArray:
        parts = (_normalised(points[..., :cells]), _normalised(points[..., cells:]))
        return compare(np.concatenate(parts, axis=-1))

    first, second = (square / square.sum()).ravel(), joint.pairs.ravel()
    noise = joint.noise[:, :, :-1].reshape(len(joint.noise), -1) / square.sum()
    both = np.hstack([noise, joint.pair_noise.reshape(len(noise), -1)])
    middle = (first + second) / 2
    return _estimate(
        joint, difference, np.hstack([first, second]), np.hstack([middle, middle]), both
    )


def ucpr(
    inputs: ArrayLike,
    predicted: ArrayLike,
    reference: ArrayLike,
    divergence: Name,
    *,
    seed: int,
    replicates: int = 1000,
    confidence: float = 0.95,
) -> SetEstimate | Unavailable:
    """Divergence of the outputs' composition from a reference, for uninformative inputs.

    Parameters
    ----------
    inputs : array_like, (n,)
        Input of each draw. The inputs are these and no sample of others: draws are resampled
        within each, every input weighing by its draws.
    predicted : array_like of int, (n,)
        Apparent group of each output, -1 where it has none (left out).
    reference : array_like, (k,)
        Composition that an unbiased method would show, nowhere 0.
    divergence : str
    seed : int
    replicates : int
    confidence : float
    """
    target, groups = np.asarray(reference, dtype=np.float64), np.asarray(predicted)
    seen = groups >= 0
    if not seen.any():
        return _NOTHING
    _, number = np.unique(np.asarray(inputs)[seen], return_inverse=True)
    counts = np.zeros((number.max() + 1, len(target)))
    np.add.at(counts, (number, groups[seen]), 1.0)
    rng = np.random.default_rng(seed)
    made = corrected(
        lambda points: DIVERGENCES[divergence](points, target),
        counts.sum(axis=0) / counts.sum(),
        target,
        sum(_draw_noise(row, counts, replicates, rng) for row in counts) / counts.sum(),
        confidence,
    )
    n_inputs, n_draws = len(counts), int(counts.sum())
    method = "bias-corrected, bootstrap of draws within inputs with test inversion"
    return SetEstimate(
        Estimate(made.value, made.low, made.high, n_inputs, n_draws, method, confidence),
        made.plug_in,
    )


def _draw_noise(
    row: FloatArray, counts: FloatArray, replicates: int, rng: np.random.Generator
) -> FloatArray:
    """Noise of one input's counts; two draws are added as in `resampling`."""
    chance = (row + ADDED * counts.sum(axis=0) / counts.sum()) / (row.sum() + ADDED)
    return np.asarray(rng.multinomial(int(row.sum()), chance, replicates) - row.sum() * chance)


_NOTHING = Unavailable("no output has an apparent group")


def _normalised(points: FloatArray) -> FloatArray:
    """Shares of the sum over the last axis."""
    held: FloatArray = points / np.maximum(points.sum(axis=-1, keepdims=True), 1e-9)
    return held


def _estimate(
    joint: Joint, statistic: Statistic, point: FloatArray, null: FloatArray, noise: FloatArray
) -> SetEstimate:
    made = corrected(statistic, point, null, noise, joint.confidence)
    estimate = Estimate(
        made.value, made.low, made.high, joint.n_faces, joint.n_draws, METHOD, joint.confidence
    )
    return SetEstimate(estimate, made.plug_in)
