"""Inverse of a confusion matrix: intervals by test inversion, and labels that err as well.

References
----------
E. C. Fieller (1954), JRSS-B 16:175. T. W. Anderson and H. Rubin (1949), Ann. Math. Stat. 20:46.
P. Guggenberger, F. Kleibergen, S. Mavroeidis and L. Chen (2012), Econometrica 80:2649 (the test of
one coefficient with the others replaced by their best fit).
"""

from __future__ import annotations

import numpy as np

from pulse_audit.stats.intervals import FloatArray


def ends(
    values: FloatArray,
    errors: FloatArray,
    inverse: FloatArray,
    of_matrix: FloatArray,
    critical: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Both ends of the intervals of S = q M^-1 by test inversion, (rows, k) each.

    Parameters
    ----------
    values : ndarray, (rows, k)
        S.
    errors : ndarray, (replicates, rows, k)
        Errors of S.
    inverse, of_matrix : ndarray, (k, k) and (replicates, k, k)
        M^-1, and errors of M.
    critical : ndarray, (rows, 1)

    Notes
    -----
    Let u be column b of M^-1: it is normal to all rows of M but row b. If S_ab = t, then q less t
    times row b lies in the span of the other rows, and the combination s(t) of them that fits best
    is S_a - (S_ab - t) g, with g = u^T M^-1 / |u|^2. The error of (q - s(t) M) u is that of S_ab
    plus d = S_ab - t times that of g M u, so that t is accepted where
    d^2 <= c^2 (v + 2 d w + d^2 x), with the variances v, x and the covariance w of these two.
    The accepted values are unbounded where c^2 x >= 1: then M may be singular.
    """
    # g M u for every column, with errors of M in place of M: (replicates, k)
    slopes = (inverse.T @ inverse) / np.square(inverse).sum(axis=0)[:, None]
    moved = ((of_matrix @ inverse) * slopes.T).sum(axis=1)
    v = np.square(errors).mean(axis=0)
    w = (errors * moved[:, None]).mean(axis=0)
    x = np.square(moved).mean(axis=0)
    # roots of (1 - c^2 x) d^2 - 2 c^2 w d - c^2 v = 0
    square = critical**2
    with np.errstate(divide="ignore", invalid="ignore"):
        lead, middle = 1 - square * x, square * w
        root = np.sqrt(np.maximum(middle**2 + lead * square * v, 0.0))
        low, high = values - (middle + root) / lead, values - (middle - root) / lead
    bounded = ~(lead <= 0)
    return np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf)


def latent(
    composition: FloatArray,
    shares: FloatArray,
    of_shares: FloatArray,
    inverse: FloatArray,
    of_matrix: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Shares of true group of face and output where labels err too, J = M^T (pi S) M.

    Parameters
    ----------
    composition : ndarray, (k, 1)
        Of the labels, pi M.
    shares, of_shares : ndarray, (k, k) and (replicates, k, k)
        Of the outputs of every label, and their errors.
    inverse, of_matrix : ndarray, (k, k) and (replicates, k, k)
        M^-1, and errors of M.

    Returns
    -------
    joint, of_joint : ndarray, (k, k) and (replicates, k, k)
        pi S and its errors, by the delta method.
    true, of_true : ndarray, (k,) and (replicates, k)
        pi and its errors.
    """
    joint: FloatArray = inverse.T @ (composition * shares) @ inverse
    of_observed = inverse.T @ (composition * of_shares) @ inverse
    of_labels = inverse.T @ of_matrix.swapaxes(1, 2) @ joint
    of_joint: FloatArray = of_observed - of_labels - joint @ of_matrix @ inverse
    true: FloatArray = composition[:, 0] @ inverse
    of_true: FloatArray = -(true @ of_matrix @ inverse)
    return joint, of_joint, true, of_true
