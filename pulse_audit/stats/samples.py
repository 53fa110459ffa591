"""Draws sorted by group and face: what gaps, tests and power are worked out from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import (
    FloatArray,
    IntArray,
    cluster_totals,
    correlation_of_totals,
    design_effect,
)


@dataclass(frozen=True, eq=False)
class Groups:
    """Totals of every face of every group.

    ``sums`` and ``counts`` hold one array (faces of the group,) a group: the sum of its values and
    the number of its draws; empty where a group has no draw. ``n_faces`` and ``n_draws`` are (k,).
    """

    sums: list[FloatArray]
    counts: list[FloatArray]
    n_faces: IntArray
    n_draws: IntArray

    def means(self) -> FloatArray:
        """Return the mean over draws of every group, (k,); NaN without a draw."""
        totals = np.array([part.sum() for part in self.sums])
        return np.where(self.n_draws > 0, totals / np.maximum(self.n_draws, 1), np.nan)

    def errors(self) -> FloatArray:
        """Return the standard error of every mean, (k,), between faces; NaN below 2 faces."""
        pairs = zip(self.sums, self.counts, strict=True)
        return np.array([mean_error(*pair)[1] if len(pair[0]) > 1 else math.nan for pair in pairs])

    def effective_sizes(self) -> FloatArray:
        """Return effective numbers of draws of proportions, (k,); 0 without a draw.

        Kish's design effect with the larger of the group's own and the pooled correlation, as in
        `pulse_audit.stats.intervals.proportion_interval`.
        """
        present = [pair for pair in zip(self.sums, self.counts, strict=True) if len(pair[0])]
        pooled = correlation_of_totals(present)
        return np.array(
            [
                part.sum() / design_effect(sums, part, pooled)[0] if len(part) else 0.0
                for sums, part in zip(self.sums, self.counts, strict=True)
            ]
        )


def by_group(
    values: ArrayLike, faces: ArrayLike, groups: ArrayLike, k: int | None = None
) -> Groups:
    """Sort draws by group and face.

    Parameters
    ----------
    values : array_like, (draws,)
        Finite.
    faces : array_like, (draws,)
    groups : array_like of int, (draws,)
        0 to k - 1; a face is in one group.
    k : int, optional
        Number of groups; default: as many as occur.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, a group is out of range, or a face is in two.
    """
    numbers, owners = np.asarray(values, dtype=np.float64), np.asarray(faces)
    members = np.asarray(groups)
    if not (numbers.ndim == 1 and numbers.shape == owners.shape == members.shape):
        raise ValueError("need a face and a group for every value")
    size = k if k is not None else int(members.max(initial=-1)) + 1
    if members.size and (
        members.dtype.kind not in "iu" or members.min() < 0 or members.max() >= size
    ):
        raise ValueError(f"groups must be whole numbers from 0 to {size - 1}")
    parts = [members == group for group in range(size)]
    none = np.empty(0), np.empty(0)
    totals = [cluster_totals(numbers[part], owners[part]) if part.any() else none for part in parts]
    n_faces = np.array([len(pair[0]) for pair in totals], dtype=np.int64)
    if n_faces.sum() != len(np.unique(owners)):
        raise ValueError("a face is in two groups")
    n_draws = np.bincount(members.astype(np.int64), minlength=size)
    return Groups([s for s, _ in totals], [c for _, c in totals], n_faces, n_draws)


def mean_error(sums: FloatArray, counts: FloatArray) -> tuple[float, float]:
    """Mean over draws, and its standard error between faces (linearised ratio).

    Returns
    -------
    mean, error : float
        The error is NaN with one face.
    """
    n, draws = len(sums), counts.sum()
    mean = float(sums.sum() / draws)
    if n < 2:
        return mean, math.nan
    squares = float(np.square(sums - mean * counts).sum())
    return mean, math.sqrt(n / (n - 1) * squares) / float(draws)


def outcomes(values: ArrayLike) -> FloatArray:
    """Return float64 values; raise ValueError unless all are 0 or 1."""
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isin(numbers, (0.0, 1.0)).all():
        raise ValueError("outcomes of a proportion must be 0 or 1")
    return numbers
