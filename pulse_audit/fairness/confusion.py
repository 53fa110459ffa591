"""Confusion matrices of an attribute model: of a run's originals, of a card, or of both.

A confusion matrix has a row for each labelled group and a column for each group the model
predicts; as shares, its rows sum to 1. The matrix of a run is that of the photos in question, and
small; a card's is large, and may be about other photos. They are pooled where a test does not tell
them apart.

References
----------
M. Saerens, P. Latinne and C. Decaestecker (2002), Neural Computation 14:21 (EM). A. Agresti (2002),
Categorical Data Analysis, section 3.5 (exact tests of tables by simulation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import FloatArray, IntArray

#: No group: no label, no prediction, or no row in the table in question.
NONE = -1
#: Steps of EM between two checks of convergence.
_EM_BLOCK = 25
#: Simulated tables of `told_apart`.
_TABLES = 2000


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of labelled against predicted groups, with the faces behind them where known.

    Construct one with `of_faces`, `from_counts` or `pooled`. ``counts`` is (k, k), row the labelled
    group. ``faces``, ``truth`` and ``predicted`` are the run's originals, (n,), and None where only
    counts are known. ``card`` is the part of ``counts`` that is of other faces, or None.
    """

    counts: IntArray
    faces: IntArray | None = None
    truth: IntArray | None = None
    predicted: IntArray | None = None
    card: IntArray | None = None

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
        return cls(table, card=table)

    def pooled(self, card: ArrayLike) -> Confusion:
        """Add the counts of a card, (k, k), to those of this run's originals."""
        other = Confusion.from_counts(card)
        return replace(self, counts=self.counts + other.counts, card=other.counts)

    @property
    def source(self) -> str:
        """Whose faces were counted: ``run``, ``card``, or ``run and card``."""
        if self.card is None:
            return "run"
        return "card" if self.faces is None else "run and card"

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


def told_apart(run: ArrayLike, card: ArrayLike, *, seed: int, level: float = 0.05) -> bool:
    """Test whether two confusion matrices are of the same model on the same kind of photos.

    Parameters
    ----------
    run, card : array_like of int, (k, k)
        Counts, row the labelled group.
    seed : int
    level : float
        Of the family of tests: one likelihood-ratio test a row, and one of overall accuracy
        (Holm 1979; the family rejects if its smallest p-value does).

    Returns
    -------
    bool
        True where some test rejects equality.

    Notes
    -----
    P-values are exact up to simulation (2,000 tables with the same margins), since most cells of a
    run's matrix are nearly empty. 20 faces a group and 572 on the card: an accuracy of .53 instead
    of .63 is noticed in about two of three runs, by the test of accuracy.
    """
    first, second = np.asarray(run, dtype=np.int64), np.asarray(card, dtype=np.int64)
    rng, rows = np.random.default_rng(seed), np.flatnonzero(first.sum(axis=1))
    p_values, hits, simulated_hits = [], 0.0, np.zeros(_TABLES)
    for row in rows:
        # the run's share of a row's faces, given how often each group was predicted in both
        both, n = first[row] + second[row], int(first[row].sum())
        tables = rng.multivariate_hypergeometric(both, n, size=_TABLES)
        likelihood = _likelihood_ratio(np.vstack([first[row], tables]), both)
        p_values.append((1 + (likelihood[1:] >= likelihood[0] - 1e-9).sum()) / (1 + _TABLES))
        # accuracy: hits beyond those expected, over all rows
        expected = n * both[row] / both.sum()
        hits += first[row, row] - expected
        simulated_hits += tables[:, row] - expected
    p_values.append((1 + (np.abs(simulated_hits) >= abs(hits) - 1e-9).sum()) / (1 + _TABLES))
    return bool(min(p_values) <= level / len(p_values))


def _likelihood_ratio(tables: IntArray, both: IntArray) -> FloatArray:
    """Likelihood-ratio statistic of each first row of 2 x k tables with column sums ``both``."""
    n, total = tables.sum(axis=1, keepdims=True), both.sum()
    statistic = np.zeros(len(tables))
    for counts, size in ((tables, n), (both - tables, total - n)):
        expected = np.maximum(size * both / max(int(total), 1), 1e-300)
        statistic += (counts * np.log(np.maximum(counts, 1e-300) / expected)).sum(axis=1)
    return statistic


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
