"""Shares corrected for the measured errors of the attribute model.

Observed shares are true shares times the model's confusion matrix, q = S M, so S = q M^-1. Nothing
is constrained to shares between 0 and 1 before an interval is made: constraining first makes
intervals too short at the boundary. Draws without a prediction (no face found, an error) are a
further class that is known exactly.

*Intervals* invert a test of the hypothesis that a cell of S has a given value, with the variance
that its numerator and denominator have under that hypothesis, as Fieller's interval of a ratio
does. They stay correct where M is nearly singular, and where a correction is looked at only because
M came out well: with the shipped net's matrix at 32 px from 100 originals a group and the cases
kept that were graded usable, an interval of plus and minus t standard errors covers 83 %, this one
94 %.

*Run and card.* Where the run's own confusion matrix and that of the card are pooled, the shares of
outputs are adjusted by how far the run's originals differ from the pooled matrix, times the slope
of outputs on originals (a regression estimator, Cochran 1977): outputs that have the apparent group
of their original do not lose by pooling.

*Labels from a model.* Where the labels are the same model's predictions of the originals, they err
as the outputs do: J = M^T (pi S) M, where J holds the observed shares of label and output and pi
the true composition of the faces (pi M is that of the labels). That holds for faces that were not
chosen by their labels; where a set was balanced by them, the composition behind them is not known,
and if retention moves by more than 5 points when groups are taken as equally common there, the
correction is graded weak. It also takes the two errors of a face as independent given the true
groups. Where outputs resemble their originals errors agree more
often than that, and retention comes out too high. If it is seen to be above 1 the correction is
graded weak; below that, a lower bound of retention rests on the assumption. Retention is clipped at
1 before groups are compared, and groups are shown to differ only where the raw agreement shows it,
too. Net gains of groups need no such assumption: a linear function of compositions, they come out
as 0 where outputs equal their originals.

The correction assumes that the model has the same errors on outputs as on originals. If its
accuracy is .9 on originals and .8 on outputs, corrected retention is too low by about .11 at every
sample size.

References
----------
G. Forman (2008), Data Mining and Knowledge Discovery 17:164 (inversion, "adjusted count").
E. C. Fieller (1954), JRSS-B 16:175. T. W. Anderson and H. Rubin (1949), Ann. Math. Stat. 20:46
(test inversion). W. G. Cochran (1977), Sampling Techniques, ch. 7. D. W. K. Andrews (2000),
Econometrica 68:399 (why a constrained estimate cannot be bootstrapped at the boundary).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from pulse_audit.fairness.confusion import (
    Confusion,
    Outputs,
    integers,
    saerens,
    tabulate,
)
from pulse_audit.fairness.inversion import ends, half_widths, latent
from pulse_audit.fairness.noise import sampling_noise
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.types import Estimate

Grade: TypeAlias = Literal["usable", "weak", "unavailable"]
LabelsFrom: TypeAlias = Literal["people", "model"]

#: Half-width of the interval of a retention of one half, in the mean over groups, up to which the
#: correction is usable, and up to which it is shown at all.
USABLE_WITHIN, SHOWN_WITHIN = 0.35, 0.60
#: Change of a retention with the composition of the faces behind a model's labels that is too much.
MOVED = 0.05
#: Faces with an apparent group among their outputs that every group needs to be usable.
FEWEST_FACES = 15


@dataclass(frozen=True, eq=False)
class CorrectedShift:
    """Corrected shift matrix: row the group of the face, column the true group of the output.

    Parameters
    ----------
    estimates : list of list of Estimate or None, k x k
        Within [0, 1]; None in rows of groups without a draw, and everywhere if unavailable. A
        group of one face has an estimate without interval (both ends NaN).
    half_width : float
        That the intervals of retention would have if it was one half, mean over groups: infinite
        where M may be singular, NaN where no group has two faces. Where labels are a model's, of
        the intervals as they are, before clipping.
    grade : str
        ``usable``: a half-width of at most 35 points, and 15 faces with classified outputs in every
        group. ``weak``: a half-width of at most 60 points; shown, but decides nothing.
        Also where labels are a model's and an assumption is in doubt. ``unavailable``: neither.
    reason : str
        Why the grade is not ``usable``; else empty.
    values : ndarray, (k, k)
        The estimates before clipping; a row sums to 1 less the share without a prediction.
    replicates : ndarray, (replicates, k, k)
        ``values`` plus normal sampling errors, for functions of several cells. Replicate r is of
        the same faces in all arms that were corrected together.
    joint, joint_replicates : ndarray, (k, k) and (replicates, k, k)
        The same as shares of all draws: every row times the group's share of the faces.
    observed : ndarray, (k, k)
        Shares of all draws before correction; NaN in rows of groups without a draw.
    confusion : Confusion
    faces, draws : ndarray, (k,)
        Numbers behind each row.
    labels_from : str
        ``people``, or ``model`` where labels err as predictions do.
    confidence : float
    """

    estimates: list[list[Estimate | None]]
    half_width: float
    grade: Grade
    reason: str
    values: FloatArray
    replicates: FloatArray
    joint: FloatArray
    joint_replicates: FloatArray
    observed: FloatArray
    confusion: Confusion
    faces: IntArray
    draws: IntArray
    labels_from: LabelsFrom
    confidence: float

    @cached_property
    def em(self) -> FloatArray:
        """Point estimates by EM, (k, k): never below 0; NaN where ``estimates`` has None.

        EM maximises the likelihood of predicted classes under the estimated confusion matrix. Its
        bootstrap is inconsistent at the boundary, so it is a point estimate only. NaN where labels
        are a model's.
        """
        if self.grade == "unavailable" or self.labels_from == "model":
            return np.full(self.observed.shape, np.nan)
        return saerens(self.observed, self.confusion.shares)

    def combination(
        self, weights: ArrayLike, low: float = -1.0, high: float = 1.0, *, joint: bool = False
    ) -> Estimate | None:
        """Linear combination of cells, such as a difference of two groups' retention.

        Parameters
        ----------
        weights : array_like, (k, k)
        low, high : float
            Range of the quantity; estimate and ends are clipped to it last.
        joint : bool
            Combine ``joint`` instead of ``values``: all groups with faces are needed.

        Returns
        -------
        Estimate or None
            None where a cell with a weight is not estimated.
        """
        # rows that have a weight
        factors = np.asarray(weights, dtype=np.float64)
        used = self.faces > 0 if joint else (factors != 0).any(axis=1)
        if self.grade == "unavailable" or not used.any() or (self.faces[used] == 0).any():
            return None
        # the same combination of the estimates and of every replicate
        values, drawn = (
            (self.joint, self.joint_replicates) if joint else (self.values, self.replicates)
        )
        # what every row adds to it, (replicates, rows); rows without faces are 0 in ``joint``
        parts = np.nansum(drawn * factors, axis=2)
        value, spread = float(np.nansum(values * factors)), float(parts.sum(axis=1).std(ddof=1))
        # degrees of freedom after Satterthwaite (1946), faces less 1 in every row
        variances, freedom = parts.var(axis=0)[used], self.faces[used] - 1
        half = math.nan
        if (freedom > 0).all():
            df = variances.sum() ** 2 / max(float((variances**2 / freedom).sum()), 1e-300)
            half = spread * float(stdtrit(max(df, 1.0), 0.5 + self.confidence / 2))
        value, lower, upper = np.clip([value, value - half, value + half], low, high).tolist()
        numbers = int(self.faces[used].sum()), int(self.draws[used].sum())
        interval = "no interval: one face" if math.isnan(half) else "t x joint errors by face"
        method = f"{_method(self.confusion, self.labels_from)}; {interval}"
        return Estimate(value, lower, upper, *numbers, method, self.confidence)

    def output_shares(self) -> list[Estimate | None]:
        """Share of every true group among all draws, (k,)."""
        ones = np.ones(len(self.joint))
        units = np.eye(self.joint.shape[1])
        return [self.combination(np.outer(ones, unit), 0.0, 1.0, joint=True) for unit in units]

    def net_gains(self) -> list[Estimate | None]:
        """Net gain of every group as in `pulse_audit.fairness.shift.net_gains`; they sum to 0.

        Share of all draws whose output is of the group, less the share whose face is of it and
        whose output is classified.
        """
        ones = np.ones(len(self.joint))
        gains = [np.outer(ones, unit) - np.outer(unit, ones) for unit in np.eye(len(ones))]
        return [
            self.combination(weights, joint=True) if has_faces else None
            for weights, has_faces in zip(gains, self.faces > 0, strict=True)
        ]

    def net_flows(self) -> list[list[Estimate | None]]:
        """Net flows as in `pulse_audit.fairness.shift.net_flows`, (k, k)."""
        k = len(self.joint)
        flows: list[list[Estimate | None]] = [[None] * k for _ in range(k)]
        for i, j in permutations(np.flatnonzero(self.faces).tolist(), 2):
            weights = np.zeros((k, k))
            weights[i, j], weights[j, i] = 1.0, -1.0
            flows[i][j] = self.combination(weights, joint=True)
        return flows


def corrected_shifts(
    arms: Sequence[Draws],
    confusion: Confusion,
    *,
    labels_from: LabelsFrom = "people",
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
    labels_from : str
        ``model`` where the labels are the same model's predictions of the originals; the confusion
        must then be a card's.
    replicates : int
        Of the sampling errors, at least 100.
    seed : int
        From `pulse_audit.seeding.fingerprint`.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    list of CorrectedShift
        One an arm. A replicate has the same faces and confusion matrix in all of them, so that
        functions of several arms can be taken replicate by replicate.

    Raises
    ------
    ValueError
        If the confusion has other groups, or none of its own where labels are a model's; if a
        draw's number is out of range, or one face carries two labels; if the replicates give no
        interval.

    Notes
    -----
    Student's t has the group's faces less 1 as degrees of freedom. Where all draws of a group agree
    an interval also reaches at least as far from its estimate as Wilson's at the number of faces.
    """
    if labels_from == "model" and confusion.faces is not None:
        raise ValueError("labels that a model gave cannot measure its errors: give a card's counts")
    outputs = [tabulate(draws.faces, draws.truth, draws.predicted, draws.k) for draws in arms]
    rows = len(confusion.counts)
    return _corrected(outputs, rows, confusion, labels_from, replicates, seed, confidence)


def corrected_shares(
    faces: ArrayLike,
    predicted: ArrayLike,
    k: int,
    card: ArrayLike,
    *,
    replicates: int = 1000,
    seed: int,
    confidence: float = 0.95,
) -> list[Estimate | None]:
    """Correct the shares of the groups among all draws of one set, by the counts of a card.

    Parameters
    ----------
    faces, predicted : array_like of int, (draws,)
        The face of each draw, and the group predicted on its output (-1 where there is none).
    k : int
    card : array_like of int, (k, k)
    replicates, seed, confidence
        As in `corrected_shifts`.

    Returns
    -------
    list of Estimate or None, (k,)
        None everywhere if the correction is unavailable.
    """
    # a single row, to which every face belongs
    numbers = integers(faces, "faces")
    outputs = tabulate(numbers, np.zeros(len(numbers), dtype=np.int64), predicted, k)
    confusion = Confusion.from_counts(card)
    shift = _corrected([outputs], 1, confusion, "people", replicates, seed, confidence)[0]
    return shift.estimates[0]


def _corrected(
    arms: Sequence[Outputs],
    rows: int,
    confusion: Confusion,
    labels_from: LabelsFrom,
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

    # the confusion matrix M and its inverse
    matrix, sizes, unusable = confusion.shares, confusion.counts.sum(axis=1), ""
    if (sizes == 0).any():
        named = ", ".join(map(str, np.flatnonzero(sizes == 0)))
        unusable = f"the confusion matrix has no face of group number {named}"
    elif np.linalg.svd(matrix, compute_uv=False)[-1] < 1e-9:
        unusable = "the confusion matrix cannot be inverted"
    inverse: FloatArray = np.full((k, k), np.nan)
    if not unusable:
        inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    # errors of M: those of the run's faces and those of the card's, weighted by their numbers
    noise = sampling_noise(arms, confusion, rows, replicates, np.random.default_rng(seed))
    own = confusion.counts - (0 if confusion.card is None else confusion.card)
    n_own = own.sum(axis=1, keepdims=True)
    weight = n_own / np.maximum(sizes, 1)[:, None]
    of_matrix: FloatArray = weight * noise.originals + (1 - weight) * noise.card
    # how far the run's originals differ from M where it is pooled with a card; the error of that
    unlike: FloatArray = np.where(n_own > 0, own / np.maximum(n_own, 1) - matrix, 0.0)
    of_unlike: FloatArray = (1 - weight) * (noise.originals - noise.card) * (n_own > 0)

    shifts = []
    for outputs, of_shares, slope in zip(arms, noise.outputs, noise.likeness, strict=True):
        # observed shares of all draws, (rows, k), and the composition of the labels, (rows, 1)
        totals = np.zeros((rows, k + 1), dtype=np.int64)
        np.add.at(totals, outputs.row, outputs.counts)
        draws, faces = totals.sum(axis=1), np.bincount(outputs.row, minlength=rows)
        observed: FloatArray = totals[:, :k] / np.where(draws > 0, draws, np.nan)[:, None]
        composition = (draws / max(1, int(draws.sum())))[:, None]
        # S and pi S with their errors, and the ends of the intervals of S; t is NaN below two faces
        critical, doubt = _student(faces, confidence)[:, None], ""
        shares, reason = observed, unusable
        if confusion.source == "run and card":
            shares, of_shares = shares - slope * unlike, of_shares - slope * of_unlike
        if labels_from == "people":
            values: FloatArray = shares @ inverse
            errors: FloatArray = (of_shares - values @ of_matrix) @ inverse
            joint = composition * np.nan_to_num(values)
            of_joint = composition * np.nan_to_num(errors)
            low, high = ends(values, errors, inverse, of_matrix, critical)
        else:
            joint, of_joint, true, of_true = latent(
                composition, np.nan_to_num(shares), np.nan_to_num(of_shares), inverse, of_matrix
            )
            if (true <= 0).any():
                reason = "no composition of true groups explains the labels that the model gave"
            values = joint / true[:, None]
            errors = (of_joint - of_true[..., None] * values) / true[:, None]
            spread = errors.std(axis=0, ddof=1)
            low, high = values - critical * spread, values + critical * spread
            # retention above 1 in some group, beyond chance in k of them
            beyond = _student(faces, 1 - 0.1 / k) * spread.diagonal()
            if (values.diagonal() - beyond > 1).any():
                doubt = "errors on outputs agree with those on originals: retention above 1"
            # retention if groups were equally common among the faces that were given these labels
            behind = composition * matrix.T / matrix.sum(axis=0)[:, None]
            if not unusable and np.linalg.cond(behind) < 1e6:
                other = np.linalg.solve(behind, composition * np.nan_to_num(shares)) @ inverse
                moved = float(np.abs(other - values).diagonal().max())
                if moved > MOVED:
                    doubt = f"retention moves by {100 * moved:.0f} points with the composition of "
                    doubt += "the faces behind the labels, which is not known"
        # where all draws agree: as far as Wilson's interval at the number of faces
        squared = float(ndtri(0.5 + confidence / 2)) ** 2
        reach = np.where(faces > 1, squared / (faces + squared), np.nan)[:, None]
        low = np.where(observed == 1, np.fmin(low, values - reach), low)
        high = np.where(observed == 0, np.fmax(high, values + reach), high)

        # grade by the half-widths of retention (of all shares, where there is a single row)
        if labels_from == "people":
            # between one a face and all of them draws are worth as many independent ones
            alone = np.nansum(observed * (1 - observed) / np.maximum(faces, 1)[:, None])
            variance = np.square(of_shares)[:, faces > 0].mean(axis=0).sum()
            effective = np.clip(faces * (alone / max(variance, 1e-12)), faces, draws)
            halves = half_widths(matrix, inverse, of_matrix, effective, critical[:, 0])
        else:
            halves = ((high - low) / 2).diagonal()
        known = halves[(faces > 1) & ~np.isnan(halves)]
        half_width = float(known.mean()) if known.size else math.nan
        classified = np.bincount(outputs.row[outputs.counts[:, :k].any(axis=1)], minlength=rows)
        grade, reason = _grade(half_width, classified[faces > 0], doubt, reason)
        # estimates, clipped last
        estimates: list[list[Estimate | None]] = [[None] * k for _ in range(rows)]
        for row in np.flatnonzero(faces) if grade != "unavailable" else ():
            interval = "t x joint errors" if labels_from == "model" else "test inversion"
            interval = f"{interval} by face" if faces[row] > 1 else "no interval: one face"
            method = f"{_method(confusion, labels_from)}; {interval}"
            numbers = int(faces[row]), int(draws[row]), method, confidence
            cells = np.clip([values[row], low[row], high[row]], 0.0, 1.0).T.tolist()
            estimates[row] = [Estimate(v, below, above, *numbers) for v, below, above in cells]
        shifts.append(
            CorrectedShift(
                estimates, half_width, grade, reason, values, values + errors,
                joint, joint + of_joint, observed, confusion, faces, draws, labels_from, confidence,
            )
        )  # fmt: skip
    return shifts


def _student(faces: IntArray, confidence: float) -> FloatArray:
    """Student's t with the faces less 1 as degrees of freedom; NaN below two faces."""
    return np.where(faces > 1, stdtrit(np.maximum(faces - 1, 1), 0.5 + confidence / 2), np.nan)


def _grade(half_width: float, classified: IntArray, doubt: str, unusable: str) -> tuple[Grade, str]:
    """Grade and reason.

    From the mean half-width of retention, the faces of each group that have a classified output,
    and what the data say against the assumptions.
    """
    within = "retention could be anything"
    if half_width < 1:
        within = f"a retention of one half is known to within {100 * half_width:.0f} points"
    if unusable:
        return "unavailable", unusable
    if half_width > SHOWN_WITHIN:
        return "unavailable", f"too few faces, or too many errors of the attribute model: {within}"
    if math.isnan(half_width):
        return "weak", "no group has two faces"
    if doubt:
        return "weak", doubt
    if classified.min(initial=FEWEST_FACES) < FEWEST_FACES:
        return "weak", f"a group has only {classified.min()} faces with classified outputs"
    return ("weak", within) if half_width > USABLE_WITHIN else ("usable", "")


def _method(confusion: Confusion, labels_from: LabelsFrom) -> str:
    both = "labels and outputs" if labels_from == "model" else "outputs"
    return f"inverse of the confusion matrix ({confusion.source}), for {both}"
