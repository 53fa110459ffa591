"""Shares corrected for the measured errors of the attribute model.

Observed shares are true shares times the model's confusion matrix, q = pi M, so pi = q M^-1. The
inverse is not constrained to shares between 0 and 1: constraining inside the bootstrap makes
intervals too short at the boundary (85 % coverage at retention 1, against 94 %). Intervals are the
estimate plus and minus t standard errors of the joint face bootstrap, clipped last. Draws without
a prediction (no face found, an error) are a further class that is known exactly.

The correction assumes that the model has the same errors on outputs as on originals. If its
accuracy is .9 on originals and .8 on outputs, corrected retention is too low by about .11 at every
sample size.

References
----------
G. Forman (2008), Data Mining and Knowledge Discovery 17:164 (inversion, "adjusted count").
D. W. K. Andrews (2000), Econometrica 68:399 (why a constrained estimate cannot be bootstrapped at
the boundary).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from pulse_audit.fairness.confusion import (
    Confusion,
    Outputs,
    group_numbers,
    integers,
    resample,
    saerens,
    tabulate,
    trust,
)
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import (
    FloatArray,
    IntArray,
    correlation_of_totals,
    interval_of_totals,
)
from pulse_audit.types import Estimate

Grade: TypeAlias = Literal["usable", "weak", "unavailable"]

#: Trust below which nothing is reported, and below which no rule is decided.
UNAVAILABLE_BELOW, WEAK_BELOW = 1.0, 2.0
METHOD = "inverse of the confusion matrix, t x face bootstrap"


@dataclass(frozen=True, eq=False)
class CorrectedShift:
    """Corrected shift matrix: row the labelled group, column the true group of the output.

    Parameters
    ----------
    estimates : list of list of Estimate or None, k x k
        Within [0, 1]; None in rows of groups without a draw, and everywhere if unavailable. A
        group of one face has an estimate without interval (both ends NaN).
    trust : float
        The ratio r of `pulse_audit.fairness.confusion.trust`.
    grade : str
        ``usable`` (r >= 2), ``weak`` (1 <= r < 2: shown, but decides no rule), ``unavailable``.
    reason : str
        Why the grade is not ``usable``; else empty.
    values : ndarray, (k, k)
        The estimates before clipping; a row sums to 1 less the share without a prediction.
    replicates : ndarray, (replicates, k, k)
        Bootstrap replicates of ``values``, for functions of several cells.
    observed : ndarray, (k, k)
        Shares of all draws before correction; NaN in rows of groups without a draw.
    confusion : Confusion
    faces, draws : ndarray, (k,)
        Numbers behind each row.
    confidence : float
    """

    estimates: list[list[Estimate | None]]
    trust: float
    grade: Grade
    reason: str
    values: FloatArray
    replicates: FloatArray
    observed: FloatArray
    confusion: Confusion
    faces: IntArray
    draws: IntArray
    confidence: float

    @cached_property
    def em(self) -> FloatArray:
        """Point estimates by EM, (k, k): never below 0; NaN where ``estimates`` has None."""
        if self.grade == "unavailable":
            return np.full(self.observed.shape, np.nan)
        return saerens(self.observed, self.confusion.shares)

    def combination(
        self, weights: ArrayLike, low: float = -1.0, high: float = 1.0
    ) -> Estimate | None:
        """Linear combination of cells, such as a difference of two groups' retention.

        Parameters
        ----------
        weights : array_like, (k, k)
        low, high : float
            Range of the quantity; estimate and ends are clipped to it last.

        Returns
        -------
        Estimate or None
            None where a cell with a weight is not estimated. Its degrees of freedom are those of
            the smallest group with a weight.
        """
        # rows that have a weight
        factors = np.asarray(weights, dtype=np.float64)
        used = (factors != 0).any(axis=1)
        if self.grade == "unavailable" or not used.any() or (self.faces[used] == 0).any():
            return None
        # the same combination of the estimates and of every replicate
        value = float((self.values[used] * factors[used]).sum())
        draws = (self.replicates[:, used] * factors[used]).sum(axis=(1, 2))
        half = _half_width(draws, int(self.faces[used].min()), self.confidence)
        value, lower, upper = np.clip([value, value - half, value + half], low, high).tolist()
        return Estimate(
            value,
            lower,
            upper,
            int(self.faces[used].sum()),
            int(self.draws[used].sum()),
            _method(len(draws), self.trust, half),
            self.confidence,
        )


def corrected_shifts(
    arms: Sequence[Draws],
    confusion: Confusion,
    *,
    replicates: int = 1000,
    seed: int,
    confidence: float = 0.95,
) -> list[CorrectedShift]:
    """Correct P(group of the output | group of the face) of several arms together.

    Parameters
    ----------
    arms : sequence of Draws
        Draws of every arm; equal face numbers are the same face, in all arms and in ``confusion``
        where it knows its faces. A draw without a prediction is not retained. The order of draws
        does not matter.
    confusion : Confusion
        Measured on unfiltered faces: excluding those that the model misclassified would make it
        look perfect.
    replicates : int
        Bootstrap replicates, at least 100.
    seed : int
        From `pulse_audit.seeding.fingerprint`.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    list of CorrectedShift
        One an arm. A replicate has the same resampled faces and confusion matrix in all of them,
        so that functions of several arms can be taken replicate by replicate.

    Raises
    ------
    ValueError
        If the confusion has other groups, a draw's number is out of range, one face carries two
        labels, or the replicates give no interval.

    Notes
    -----
    The degrees of freedom of t are the group's faces less 1. An interval reaches at least as far
    from its estimate as the Wilson interval of the observed share does: where every draw of a
    group agrees the bootstrap does not vary at all.

    EM maximises the likelihood of predicted classes under the estimated confusion matrix. Its
    bootstrap is inconsistent at the boundary, so it is a point estimate only.
    """
    outputs = [tabulate(draws.faces, draws.truth, draws.predicted, draws.k) for draws in arms]
    return _corrected(outputs, len(confusion.counts), confusion, replicates, seed, confidence)


def corrected_shift(
    faces: ArrayLike,
    truth: ArrayLike,
    predicted: ArrayLike,
    k: int,
    confusion: Confusion,
    *,
    replicates: int = 1000,
    seed: int,
    confidence: float = 0.95,
) -> CorrectedShift:
    """Correct the shift matrix of one arm, given as one number a draw (see `corrected_shifts`).

    Parameters
    ----------
    faces, truth, predicted : array_like of int, (draws,)
        The face of each draw, its labelled group, and the group predicted on the output (-1 where
        there is none).
    k : int
        Number of groups.
    confusion, replicates, seed, confidence
        As in `corrected_shifts`.
    """
    labels = group_numbers(truth, 0, k, "truth")
    outputs = tabulate(faces, labels, predicted, k)
    return _corrected([outputs], k, confusion, replicates, seed, confidence)[0]


def corrected_shares(
    faces: ArrayLike,
    predicted: ArrayLike,
    k: int,
    confusion: Confusion,
    *,
    replicates: int = 1000,
    seed: int,
    confidence: float = 0.95,
) -> list[Estimate | None]:
    """Correct the shares of the groups among all draws of one set (PR, UCPR).

    Parameters and errors as in `corrected_shift`. Give ``Confusion.from_counts(confusion.counts)``
    where ``faces`` number inputs that are not the faces of the confusion.

    Returns
    -------
    list of Estimate or None, (k,)
        None everywhere if the correction is unavailable.
    """
    # a single row, to which every face belongs
    numbers = integers(faces, "faces")
    rows = np.zeros(len(numbers), dtype=np.int64)
    outputs = tabulate(numbers, rows, predicted, k)
    return _corrected([outputs], 1, confusion, replicates, seed, confidence)[0].estimates[0]


def _corrected(
    arms: Sequence[Outputs],
    rows: int,
    confusion: Confusion,
    replicates: int,
    seed: int,
    confidence: float,
) -> list[CorrectedShift]:
    """Correct matrices of any number of rows; all arrays have one row a row of the matrix."""
    k = len(confusion.counts)
    for outputs in arms:
        if outputs.counts.shape[1] != k + 1:
            columns = outputs.counts.shape[1] - 1
            raise ValueError(f"the confusion matrix has {k} groups, not {columns}")
    if replicates < 100 or not 0 < confidence < 1:
        raise ValueError(f"{replicates} replicates at confidence {confidence} give no interval")
    # whether the confusion matrix can be inverted
    rng = np.random.default_rng(seed)
    ratio = trust(confusion, replicates, rng)
    empty = np.flatnonzero(confusion.counts.sum(axis=1) == 0)
    grade: Grade
    grade, reason = "usable", ""
    if len(empty):
        named = ", ".join(str(group) for group in empty)
        grade, reason = "unavailable", f"the confusion matrix has no face of group number {named}"
    elif ratio < UNAVAILABLE_BELOW:
        grade = "unavailable"
        reason = f"the confusion matrix is too noisy to invert (r {ratio:.2f} < 1)"
    elif ratio < WEAK_BELOW:
        grade, reason = "weak", f"the confusion matrix is estimated imprecisely (r {ratio:.2f} < 2)"

    # pi = q M^-1: matrices to multiply with, of the estimate and of every replicate
    inverse, inverses = np.full((k, k), np.nan), np.full((replicates, k, k), np.nan)
    resampled = np.full((len(arms), replicates, rows, k), np.nan)
    if grade != "unavailable":
        samples = resample(arms, confusion, rows, replicates, rng)
        inverse = np.linalg.inv(confusion.shares)
        # a singular M* gives NaN
        singular = (np.abs(np.linalg.det(samples.confusion)) < 1e-12)[:, None, None]
        inverses = np.linalg.inv(np.where(singular, np.eye(k), samples.confusion))
        inverses = np.where(singular, np.nan, inverses)
        resampled = samples.observed[..., :k] @ inverses

    shifts = []
    for outputs, of_arm in zip(arms, resampled, strict=True):
        # observed shares of all draws, (rows, k)
        totals = np.zeros((rows, k + 1), dtype=np.int64)
        np.add.at(totals, outputs.row, outputs.counts)
        draws, faces = totals.sum(axis=1), np.bincount(outputs.row, minlength=rows)
        shares = np.where(draws[:, None] > 0, totals[:, :k] / np.maximum(draws, 1)[:, None], np.nan)
        shift = CorrectedShift(
            [[None] * k for _ in range(rows)], ratio, grade, reason, shares @ inverse, of_arm,
            shares, confusion, faces, draws, confidence,
        )  # fmt: skip
        if grade != "unavailable" and faces.any():
            shift = replace(shift, estimates=_estimates(shift, outputs))
        shifts.append(shift)
    return shifts


def _estimates(shift: CorrectedShift, outputs: Outputs) -> list[list[Estimate | None]]:
    """Estimates with intervals, (rows, k); None in rows without faces."""
    # correlations within faces are pooled over rows, column by column
    rows, k = shift.values.shape
    estimates: list[list[Estimate | None]] = [[None] * k for _ in range(rows)]
    inside = [np.flatnonzero(outputs.row == row) for row in range(rows)]
    draws = outputs.counts.sum(axis=1).astype(np.float64)
    for column, successes in enumerate(outputs.counts[:, :k].T.astype(np.float64)):
        totals = [(successes[faces], draws[faces]) for faces in inside]
        pooled = correlation_of_totals([pair for pair in totals if len(pair[0])])
        for row in np.flatnonzero(shift.faces):
            value, n_faces = float(shift.values[row, column]), int(shift.faces[row])
            replicates = shift.replicates[:, row, column]
            half = _half_width(replicates, n_faces, shift.confidence)
            # at least as far as the Wilson interval of the observed share reaches; np.maximum, not
            # max: a half-width of NaN (one face) must stay NaN
            raw = interval_of_totals(*totals[row], pooled, shift.confidence)
            low = float(value - np.maximum(half, raw.value - raw.low))
            high = float(value + np.maximum(half, raw.high - raw.value))
            value, low, high = np.clip([value, low, high], 0.0, 1.0).tolist()
            estimates[row][column] = Estimate(
                value,
                low,
                high,
                n_faces,
                int(shift.draws[row]),
                _method(len(replicates), shift.trust, half),
                shift.confidence,
            )
    return estimates


def _half_width(draws: FloatArray, n_faces: int, confidence: float) -> float:
    """Student's t times the bootstrap standard error, enlarged by n / (n - 1) as a variance is."""
    # replicates with a singular matrix are NaN
    finite = draws[np.isfinite(draws)]
    if n_faces < 2 or len(finite) < 2:
        return math.nan
    error = float(finite.std(ddof=1)) * math.sqrt(n_faces / (n_faces - 1))
    return error * float(stdtrit(n_faces - 1, 0.5 + confidence / 2))


def _method(replicates: int, ratio: float, half: float) -> str:
    if math.isnan(half):
        return f"inverse of the confusion matrix, r {ratio:.1f}; no interval: one face"
    return f"{METHOD}, {replicates} replicates, r {ratio:.1f}"
