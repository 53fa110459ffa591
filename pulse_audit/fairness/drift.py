"""What a claim becomes if the attribute model errs otherwise on outputs than on originals.

The correction assumes that the model's confusion matrix holds for outputs too. Here its accuracy on
outputs of each true group may differ by up to d points, upwards or downwards and in any combination
of groups, while its errors keep their proportions. The values that a corrected share can then take
form an interval (partial identification); the tipping point of a claim is the smallest d at which
that interval, widened by the claim's sampling error, no longer supports it.

References
----------
C. F. Manski (2003), Partial Identification of Probability Distributions. P. R. Rosenbaum (2002),
Observational Studies, ch. 4 (how large a bias would have to be to undo a conclusion).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import FloatArray

#: Confusion matrices (n, k, k) -> the corrected quantity under each of them, (n,).
Corrected: TypeAlias = Callable[[FloatArray], FloatArray]

#: Groups up to which every combination of drifts is tried.
MOST_GROUPS = 12
#: Larger drifts of accuracy are not considered.
MOST_DRIFT = 0.5
#: Halvings of the interval that holds a tipping point: exact to 0.1 points.
_HALVINGS = 10


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
