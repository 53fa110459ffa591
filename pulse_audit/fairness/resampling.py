"""Resampled joint shares of input and output groups, faces as the unit.

Faces are resampled within the groups of the evaluation set, whose composition is fixed. To the
faces of each group two more are added, spread over the classes as the outputs are: without them a
share that was never seen would have no sampling error ("plus four", Agresti and Coull 1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import FloatArray, IntArray

#: Faces added to each group in resampling.
ADDED = 2.0


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
        Shares of ordered pairs of classified draws of one face, faces weighing alike; None where
        no face has two.
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

    @property
    def k(self) -> int:
        """Number of groups."""
        return len(self.shares)


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
    counts, of_face, truth = _by_face(draws, draws.truth if strata is None else strata)
    joint, pairs = _flat_joint(counts, truth), _flat_pairs(counts)
    typical = counts.sum(axis=0) / counts.sum()
    noise = _noise(joint, pairs, truth, of_face, typical, replicates, np.random.default_rng(seed))
    k, n_draws = draws.k, float(counts.sum())
    shape, cut = (k, k + 1), k * (k + 1)
    several = pairs[:, -1].sum()
    return Joint(
        shares=joint.sum(axis=0).reshape(shape) / n_draws,
        noise=(noise[:, :cut] / n_draws).reshape(-1, *shape),
        pairs=(pairs[:, :-1].sum(axis=0) / several).reshape(k, k) if several else None,
        pair_noise=_ratio_noise(noise[:, cut:], pairs.sum(axis=0), k) if several else None,
        n_faces=len(counts),
        n_draws=int(n_draws),
        confidence=confidence,
    )


def _by_face(draws: Draws, strata: ArrayLike) -> tuple[FloatArray, IntArray, IntArray]:
    """Draws of each output class (last: not classified), stratum and truth of each face."""
    _, first, face = np.unique(draws.faces, return_index=True, return_inverse=True)
    counts = np.zeros((len(first), draws.k + 1))
    np.add.at(counts, (face, draws.predicted), 1.0)  # -1 is the last column
    return counts, np.asarray(strata)[first], draws.truth[first]


def _flat_joint(counts: FloatArray, truth: IntArray) -> FloatArray:
    """Contribution of each face to the joint counts, (faces, k (k + 1))."""
    n, classes = counts.shape
    joint = np.zeros((n, classes - 1, classes))
    joint[np.arange(n), truth] = counts
    return joint.reshape(n, -1)


def _flat_pairs(counts: FloatArray) -> FloatArray:
    """Share of ordered pairs of draws of each face, (faces, k k); last column 1 where it has any.

    Rows of faces with fewer than two classified draws are 0.
    """
    seen = counts[:, :-1]
    n = seen.sum(axis=1)
    pairs = seen[:, :, None] * seen[:, None, :]
    diagonal = np.arange(seen.shape[1])
    pairs[:, diagonal, diagonal] -= seen
    total = np.where(n >= 2, n * (n - 1), np.inf)
    return np.column_stack([pairs.reshape(len(n), -1) / total[:, None], n >= 2])


def _noise(
    joint: FloatArray,
    pairs: FloatArray,
    truth: IntArray,
    strata: IntArray,
    typical: FloatArray,
    replicates: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Resampled totals less their mean, (replicates, joint and pairs)."""
    total = np.zeros((replicates, joint.shape[1] + pairs.shape[1]))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        held = np.hstack([joint[inside], pairs[inside]])
        added, weight = _added(held, joint.shape[1], truth[inside], typical)
        pool = np.vstack([held, added])
        chance = np.concatenate([np.ones(len(held)), weight]) / (len(held) + ADDED)
        times = rng.multinomial(len(held), chance, size=replicates)
        total += (times - len(held) * chance) @ pool
    return total


def _added(
    held: FloatArray, cut: int, truth: IntArray, typical: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Faces added to a stratum: of its own inputs, with outputs as all outputs are.

    Every face of the stratum lends its group of inputs; all draws of an added face agree.
    """
    classes = len(typical)
    groups, times = np.unique(truth, return_counts=True)
    draws = held[:, :cut].sum() / len(held)
    added = np.zeros((len(groups), classes, held.shape[1]))
    for place, group in enumerate(groups):
        for out in range(classes):
            added[place, out, group * classes + out] = draws
            if out < classes - 1:
                added[place, out, cut + out * (classes - 1) + out] = 1.0
                added[place, out, -1] = 1.0
    weight = ADDED * np.outer(times / times.sum(), typical)
    return added.reshape(-1, held.shape[1]), weight.ravel()


def _ratio_noise(noise: FloatArray, total: FloatArray, k: int) -> FloatArray:
    """Noise of pair shares whose number of faces is itself resampled."""
    value = total[:-1] / total[-1]
    faces = np.maximum(total[-1] + noise[:, -1:], 1.0)
    made = (total[:-1] + noise[:, :-1]) / faces - value
    return np.asarray((made - made.mean(axis=0)).reshape(-1, k, k))
