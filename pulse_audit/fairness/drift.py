"""Drift: an attribute model that errs otherwise on outputs than on originals.

The correction assumes that the model's confusion matrix holds for outputs too. What does a claim
become if it does not? The accuracy on outputs of each true group may differ by up to d points,
upwards or downwards and in any combination of groups, while errors keep their proportions. The
values that a corrected share can then take form an interval (partial identification); the tipping
point of a claim is the smallest d at which that interval, widened by the claim's sampling error, no
longer supports it. How large the drift is can be estimated where people labelled outputs
(`accuracy_drift`).

References
----------
C. F. Manski (2003), Partial Identification of Probability Distributions. P. R. Rosenbaum (2002),
Observational Studies, ch. 4 (how large a bias would have to be to undo a conclusion). O. Miettinen
and M. Nurminen (1985), Statistics in Medicine 4:213.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from pulse_audit.fairness.confusion import check_lengths, group_numbers, integers
from pulse_audit.stats.intervals import (
    FloatArray,
    by_group,
    intraclass_correlation,
    proportion_interval,
)
from pulse_audit.stats.score import difference_interval
from pulse_audit.types import Estimate, Unavailable

#: Confusion matrices (n, k, k) -> the corrected quantity under each of them, (n,).
Corrected: TypeAlias = Callable[[FloatArray], FloatArray]

#: Groups up to which every combination of drifts is tried.
MOST_GROUPS = 12
#: Larger drifts of accuracy are not considered.
MOST_DRIFT = 0.5
#: Halvings of the interval that holds a tipping point: exact to 0.1 points.
_HALVINGS = 10
#: Faces of a group whose outputs people have to label before its drift is estimated.
FEWEST_LABELLED = 10


def drifted(confusion: ArrayLike, change: ArrayLike) -> FloatArray:
    """Confusion matrices whose accuracies differ by some amounts.

    Parameters
    ----------
    confusion : array_like, (k, k)
        Rows sum to 1.
    change : array_like, (n, k)
        Added to the diagonal, which stays within [0.01, 1]; errors keep their proportions (a group
        without errors makes all others alike).

    Returns
    -------
    ndarray, (n, k, k)
    """
    matrix, changes = np.asarray(confusion, dtype=np.float64), np.asarray(change, dtype=np.float64)
    k, accuracy = len(matrix), matrix.diagonal()
    changed = np.clip(accuracy + changes, 0.01, 1.0)
    # errors as shares of all errors of the group, (k, k) with an empty diagonal
    errors = matrix * (1 - np.eye(k))
    total = errors.sum(axis=1, keepdims=True)
    even = (1 - np.eye(k)) / max(1, k - 1)
    proportions = np.where(total > 1e-12, errors / np.where(total > 1e-12, total, 1), even)
    return (1 - changed)[..., None] * proportions + changed[..., None] * np.eye(k)


def bounds_under_drift(
    corrected: Corrected, confusion: ArrayLike, drift: float
) -> tuple[float, float]:
    """Smallest and largest value of a corrected quantity over drifts of up to ``drift``.

    Parameters
    ----------
    corrected : callable
        (n, k, k) -> (n,). A linear function of cells of q M^-1, which is a ratio of functions that
        are linear in each accuracy and so takes its extremes where every accuracy has drifted as
        far as it may.
    confusion : array_like, (k, k)
    drift : float
        In [0, 1].

    Raises
    ------
    ValueError
        If there are more than 12 groups, or the drift lies outside [0, 1].
    """
    matrix = np.asarray(confusion, dtype=np.float64)
    if len(matrix) > MOST_GROUPS or not 0 <= drift <= 1:
        raise ValueError(f"drift {drift} of {len(matrix)} groups: at most 12, and in [0, 1]")
    corners = drift * np.array(list(product((-1.0, 1.0), repeat=len(matrix))))
    values = corrected(drifted(matrix, corners))
    return float(values.min()), float(values.max())


def tipping_point(
    corrected: Corrected, confusion: ArrayLike, sampling_error: float, most: float = MOST_DRIFT
) -> float:
    """Smallest drift at which a quantity is no longer shown to be above 0.

    Parameters
    ----------
    corrected, confusion
        As in `bounds_under_drift`.
    sampling_error : float
        Distance of the estimate from its lower confidence bound, kept under drift.
    most : float
        Larger drifts are not considered; in (0, 1].

    Returns
    -------
    float
        In [0, most]: 0 where the claim does not hold without drift, ``most`` where it holds
        throughout. A drift that makes the matrix singular undoes every claim.
    """

    def is_shown(drift: float) -> bool:
        # determinants of one sign: no matrix between them is singular
        low, _ = bounds_under_drift(corrected, confusion, drift)
        corners = np.array(list(product((-drift, drift), repeat=len(np.asarray(confusion)))))
        determinants = np.linalg.det(drifted(confusion, corners))
        return bool(determinants.min() > 1e-9) and low > sampling_error

    if not is_shown(0.0):
        return 0.0
    if is_shown(most):
        return most
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_shown(middle) else (low, middle)
    return low


@dataclass(frozen=True, eq=False)
class AccuracyDrift:
    """An attribute model's accuracy on outputs, by the group that people see, against photos.

    ``accuracy`` and ``drift`` have an estimate a group, or why there is none; drift is accuracy on
    outputs less that on photos. ``largest`` is the largest drift in size over all groups with the
    ends of its simultaneous interval: a drift at least the lower one is shown for some group, and
    no group's exceeds the upper one. It is unavailable where a group's drift is.
    """

    accuracy: list[Estimate | Unavailable]
    drift: list[Estimate | Unavailable]
    largest: Estimate | Unavailable


def accuracy_drift(
    faces: ArrayLike,
    seen: ArrayLike,
    predicted: ArrayLike,
    photos: ArrayLike,
    groups: Sequence[str],
    *,
    families: int = 1,
    confidence: float = 0.95,
) -> AccuracyDrift:
    """Estimate by how much an attribute model's accuracy on outputs differs from that on photos.

    Parameters
    ----------
    faces : array_like of int, (n,)
        Face of each output that people labelled and the model classified.
    seen, predicted : array_like of int, (n,)
        Group that people gave the output, and the model, 0 to k - 1.
    photos : array_like of int, (k, k)
        Counts of photos, row the labelled group, column the predicted one: the confusion matrix
        that a correction uses.
    groups : sequence of str, (k,)
        Names of the groups.
    families : int
        Arms whose largest drifts hold together, at least 1.
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    AccuracyDrift

    Raises
    ------
    ValueError
        If lengths differ or a group is out of range.

    Notes
    -----
    Score intervals for the difference of two proportions (Miettinen and Nurminen 1985), for outputs
    at Kish's effective size, since draws of a face are alike; a face whose outputs people see in
    two groups counts in both. Outputs and photos are taken as independent, although some may be of
    the same faces: where the model errs on both alike the intervals are too wide. Those of
    ``largest`` hold for all groups of all families together (Bonferroni).
    """
    k, counts = len(groups), integers(photos, "photos")
    numbers, given = integers(faces, "faces"), group_numbers(seen, 0, k, "seen")
    answers = group_numbers(predicted, 0, k, "predicted")
    check_lengths(numbers, given, answers)
    # a face is one cluster in every group that people see on its outputs
    right = (given == answers).astype(np.float64)
    clusters = numbers * k + given
    sample = by_group(right, clusters, given, k)
    icc = intraclass_correlation(right, clusters, given) if len(right) else None
    on_photos = counts.sum(axis=1)
    missing = [
        _too_few(name, int(sample.n_faces[group]), int(sample.n_draws[group]))
        for group, name in enumerate(groups)
    ]

    # accuracy on outputs, on photos, and the difference alone and together with all others
    p, n = sample.means(), sample.effective_sizes() if len(right) else np.zeros(k)
    q = counts.diagonal() / np.maximum(on_photos, 1)
    levels = np.array([[1 - confidence], [(1 - confidence) / (k * families)]])
    low, high = difference_interval(
        np.nan_to_num(p), np.maximum(n, 1.0), q, np.maximum(on_photos, 1), ndtri(1 - levels / 2)
    )
    accuracy: list[Estimate | Unavailable] = []
    drift: list[Estimate | Unavailable] = []
    for group, name in enumerate(groups):
        here, reason = given == group, missing[group]
        if not reason:
            accuracy.append(proportion_interval(right[here], numbers[here], icc, confidence))
        else:
            accuracy.append(Unavailable(reason))
        if not reason and not on_photos[group]:
            reason = f"no photo of group {name} was classified"
        method = (
            f"score interval against {on_photos[group]} photos, effective number {n[group]:.1f}"
        )
        drift.append(
            Unavailable(reason)
            if reason
            else Estimate(
                float(p[group] - q[group]), float(low[0, group]), float(high[0, group]),
                int(sample.n_faces[group]), int(sample.n_draws[group]), method, confidence,
            )
        )  # fmt: skip
    reasons = [each.reason for each in drift if isinstance(each, Unavailable)]
    if reasons:
        return AccuracyDrift(accuracy, drift, Unavailable(reasons[0]))
    largest = Estimate(
        float(np.abs(p - q).max()),
        float(np.maximum(0.0, np.maximum(low[1], -high[1])).max()),
        float(np.maximum(-low[1], high[1]).max()),
        len(np.unique(numbers)),
        len(numbers),
        f"largest of {k} groups, Bonferroni over {k * families} score intervals",
        confidence,
    )
    return AccuracyDrift(accuracy, drift, largest)


def _too_few(group: str, faces: int, outputs: int) -> str:
    """Why a group has no estimate; empty where it has enough faces."""
    if faces >= FEWEST_LABELLED:
        return ""
    if outputs < FEWEST_LABELLED:
        return f"only {outputs} outputs of group {group} were labelled"
    return f"the {outputs} labelled outputs of group {group} are of only {faces} faces"
