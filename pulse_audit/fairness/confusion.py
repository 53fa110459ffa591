"""Confusion matrices of an attribute model, and the joint resampling of them with outputs.

A confusion matrix has a row for each labelled group and a column for each group the model
predicts; as shares, its rows sum to 1. Where it was measured on this run's originals, its errors
and those of the outputs concern the same faces, so both are resampled together, face by face.

References
----------
A. C. Davison and D. V. Hinkley (1997), Bootstrap Methods and their Application, sections 3.2
(several samples) and 3.8 (clusters). M. Saerens, P. Latinne and C. Decaestecker (2002), Neural
Computation 14:21 (EM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import FloatArray, IntArray

#: No group: no label, no prediction, or no row in the table in question.
NONE = -1
#: Steps of EM between two checks of convergence.
_EM_BLOCK = 25


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of labelled against predicted groups, with the faces behind them where known.

    Construct one with `of_faces` or `from_counts`. ``counts`` is (k, k), row the labelled group.
    ``faces``, ``truth`` and ``predicted`` are (n,) and None where only counts are known.
    """

    counts: IntArray
    faces: IntArray | None = None
    truth: IntArray | None = None
    predicted: IntArray | None = None

    @classmethod
    def of_faces(
        cls, faces: ArrayLike, truth: ArrayLike, predicted: ArrayLike, k: int
    ) -> Confusion:
        """Confusion of this run's originals, one prediction a face.

        Parameters
        ----------
        faces : array_like of int, (n,)
            Face numbers, each once; equal numbers mean the same faces as among the draws.
        truth : array_like of int, (n,)
            The labelled group, 0 to k - 1.
        predicted : array_like of int, (n,)
            The group predicted on the original, or -1 where there is none; such faces are left
            out.
        k : int
            Number of groups.

        Raises
        ------
        ValueError
            If a face occurs twice, or a group lies outside its range.
        """
        numbers, labels = integers(faces, "faces"), group_numbers(truth, 0, k, "truth")
        answers = group_numbers(predicted, NONE, k, "predicted")
        check_lengths(numbers, labels, answers)
        if len(np.unique(numbers)) != len(numbers):
            raise ValueError("a face occurs twice among the originals: one prediction a face")
        # the matrix is that of predictions made
        has_answer = answers >= 0
        counts = np.zeros((k, k), dtype=np.int64)
        np.add.at(counts, (labels[has_answer], answers[has_answer]), 1)
        return cls(counts, numbers[has_answer], labels[has_answer], answers[has_answer])

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> Confusion:
        """Confusion of other faces, such as an attribute card's held-out ones.

        Parameters
        ----------
        counts : array_like of int, (k, k)
            Row the labelled group, column the predicted one.

        Raises
        ------
        ValueError
            If the table is not square, or a count is negative or not whole.
        """
        table = integers(counts, "counts")
        if table.ndim != 2 or table.shape[0] != table.shape[1] or (table < 0).any():
            raise ValueError(f"counts must be a square table of numbers >= 0, not {table.shape}")
        return cls(table)

    @property
    def shares(self) -> FloatArray:
        """Rows summing to 1, (k, k); NaN in rows of groups without a face."""
        totals = self.counts.sum(axis=1, keepdims=True)
        return np.where(totals > 0, self.counts / np.maximum(totals, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Outputs:
    """Predictions on the draws of every face: one row a face, faces in sorted order.

    ``faces`` is (f,); ``counts`` is (f, k + 1): draws by predicted group, last those without one;
    ``row`` is (f,): the face's row in the matrix to be corrected.
    """

    faces: IntArray
    counts: IntArray
    row: IntArray


@dataclass(frozen=True, eq=False)
class Resamples:
    """Shares in every bootstrap replicate.

    ``confusion`` is (replicates, k, k), ``observed`` (arms, replicates, rows, k + 1), its last
    column the draws without a prediction. Rows without a face are NaN.
    """

    confusion: FloatArray
    observed: FloatArray


def tabulate(faces: ArrayLike, row: ArrayLike, predicted: ArrayLike, k: int) -> Outputs:
    """Count the draws of every face by predicted group.

    Raises
    ------
    ValueError
        If lengths differ, a group lies outside its range, or the draws of one face differ in their
        row.
    """
    numbers, answers = integers(faces, "faces"), group_numbers(predicted, NONE, k, "predicted")
    rows = integers(row, "row")
    check_lengths(numbers, rows, answers)
    # all draws of a face have its first draw's row
    names, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    if (rows[first][place] != rows).any():
        raise ValueError("draws of one face carry different labels")
    # one number for every face and predicted class -> (faces, k + 1)
    cells = place * (k + 1) + np.where(answers < 0, k, answers)
    counts = np.bincount(cells, minlength=len(names) * (k + 1)).reshape(-1, k + 1)
    return Outputs(names, counts, rows[first])


def resample(
    arms: Sequence[Outputs],
    confusion: Confusion,
    rows: int,
    replicates: int,
    rng: np.random.Generator,
) -> Resamples:
    """Resample faces, each with its original's prediction and all its draws of all arms.

    Faces are resampled among those of the same row of the confusion and of the outputs of every arm
    (or of some of them, where a face is not in all), so that the group sizes of a balanced design
    stay fixed. A confusion known by its counts is resampled as independent multinomials, one a row.

    Parameters
    ----------
    arms : sequence of Outputs
    confusion : Confusion
    rows : int
        Rows of the resulting matrices of observed shares.
    replicates : int
    rng : numpy.random.Generator
    """
    k = len(confusion.counts)
    # every face once: its row in the confusion and in each arm's outputs, (faces, 1 + arms)
    originals = np.empty(0, dtype=np.int64) if confusion.faces is None else confusion.faces
    every = np.unique(np.concatenate([originals, *(outputs.faces for outputs in arms)]))
    keys = np.full((len(every), 1 + len(arms)), NONE, dtype=np.int64)
    # the prediction on its original, beside those on its draws, (faces, k + arms (k + 1))
    columns = [slice(k + arm * (k + 1), k + (arm + 1) * (k + 1)) for arm in range(len(arms))]
    table = np.zeros((len(every), k + len(arms) * (k + 1)), dtype=np.int64)
    if confusion.truth is not None and confusion.predicted is not None:
        place = np.searchsorted(every, originals)
        keys[place, 0] = confusion.truth
        table[place, confusion.predicted] = 1
    for arm, outputs in enumerate(arms):
        place = np.searchsorted(every, outputs.faces)
        keys[place, 1 + arm] = outputs.row
        table[place, columns[arm]] = outputs.counts

    # strata to be resampled: their rows, distinct faces and how many there are of each
    strata: list[tuple[IntArray, IntArray, IntArray]] = []
    if confusion.faces is None:
        for truth, counts in enumerate(confusion.counts):
            key = np.array([truth] + [NONE] * len(arms), dtype=np.int64)
            if counts.sum():
                strata.append((key, np.eye(k, table.shape[1], dtype=np.int64), counts))
    for key in np.unique(keys, axis=0):
        patterns, counts = np.unique(table[(keys == key).all(axis=1)], axis=0, return_counts=True)
        strata.append((key, patterns, counts))

    # how often each distinct face is drawn, times its counts: totals of every replicate
    matrices = np.zeros((replicates, k, k))
    observed = np.zeros((len(arms), replicates, rows, k + 1))
    for key, patterns, counts in strata:
        drawn = rng.multinomial(counts.sum(), counts / counts.sum(), size=replicates)
        totals = drawn.astype(np.float64) @ patterns
        if key[0] != NONE:
            matrices[:, key[0]] += totals[:, :k]
        for arm, row in enumerate(key[1:]):
            if row != NONE:
                observed[arm, :, row] += totals[:, columns[arm]]
    return Resamples(_normalised(matrices), _normalised(observed))


def trust(confusion: Confusion, replicates: int, rng: np.random.Generator) -> float:
    """Distance of the confusion matrix from singularity, in units of its own sampling error.

    The smallest singular value of M over the median of the spectral norm ||M* - M|| over
    resampled M*. Below 1 the inverse is noise; between 1 and 2 it is weak.

    Notes
    -----
    Faces of a row are independent, so M* is multinomial whether or not outputs are resampled too.
    One pseudo-face, spread evenly over the columns, is added to each row that is resampled:
    otherwise the row of a group of one face would never vary and seem to be known exactly.

    Returns
    -------
    float
        0 where a group has no face or M is singular.
    """
    # a group without a face cannot be corrected
    shares, k = confusion.shares, len(confusion.counts)
    if np.isnan(shares).any():
        return 0.0
    sizes = confusion.counts.sum(axis=1)
    smoothed = (confusion.counts + 1 / k) / (sizes[:, None] + 1)
    # resampled matrices M*, (replicates, k, k)
    drawn = np.stack(
        [rng.multinomial(n, p, size=replicates) / n for n, p in zip(sizes, smoothed, strict=True)],
        axis=1,
    )
    noise = float(np.median(np.linalg.norm(drawn - shares, ord=2, axis=(1, 2))))
    smallest = float(np.linalg.svd(shares, compute_uv=False)[-1])
    return 0.0 if smallest < 1e-9 else smallest / noise


def saerens(shares: ArrayLike, confusion: ArrayLike, steps: int = 3000) -> FloatArray:
    """EM for the composition behind observed shares of predicted classes.

    Parameters
    ----------
    shares : array_like, (..., k)
        Observed shares; a row may sum to less than 1 (the rest has no prediction).
    confusion : array_like, (k, k)
        Rows sum to 1.
    steps : int
        At most; it stops when no share moved by more than 1e-8 in 25 steps.

    Returns
    -------
    ndarray, (..., k)
        Shares >= 0 with the same row sums as ``shares``.
    """
    every, matrix = np.asarray(shares, dtype=np.float64), np.asarray(confusion, dtype=np.float64)
    # no composition explains a class the model never predicts: spread it over the others
    possible = matrix.sum(axis=0) > 0
    matrix, observed = matrix[:, possible], every[..., possible]
    totals, sums = (part.sum(axis=-1, keepdims=True) for part in (every, observed))
    observed = observed * np.divide(totals, sums, out=np.zeros_like(totals), where=sums != 0)
    # start from the uniform composition
    mixture = np.repeat(totals / len(matrix), len(matrix), axis=-1)
    for _ in range(max(1, steps // _EM_BLOCK)):
        previous = mixture
        for _ in range(_EM_BLOCK):
            # pi_i <- pi_i sum_j q_j M_ij / (pi M)_j
            mixture = mixture * ((observed / np.maximum(mixture @ matrix, 1e-300)) @ matrix.T)
        if np.nanmax(np.abs(mixture - previous), initial=0.0) <= 1e-8:
            break
    return mixture


def _normalised(totals: FloatArray) -> FloatArray:
    # rows without a face become NaN
    sizes = totals.sum(axis=-1, keepdims=True)
    return np.where(sizes > 0, totals / np.where(sizes > 0, sizes, 1), np.nan)


def integers(numbers: ArrayLike, name: str) -> IntArray:
    """Return an int64 array; raise ValueError where a number is not whole."""
    # floats are accepted where they are whole, since data frames make floats of integers
    array = np.asarray(numbers)
    if array.size and (array.dtype.kind not in "iufb" or not np.equal(np.mod(array, 1), 0).all()):
        raise ValueError(f"{name} must be whole numbers")
    return array.astype(np.int64)


def group_numbers(numbers: ArrayLike, least: int, k: int, name: str) -> IntArray:
    """Return an int64 array; raise ValueError where a number is outside [least, k)."""
    array = integers(numbers, name)
    if ((array < least) | (array >= k)).any():
        raise ValueError(f"{name} must lie in {least} to {k - 1}")
    return array


def check_lengths(*arrays: IntArray) -> None:
    """Raise ValueError unless all arrays are one-dimensional and equally long."""
    if any(array.ndim != 1 or array.shape != arrays[0].shape for array in arrays):
        raise ValueError(f"need one number a draw each: {[array.shape for array in arrays]}")
