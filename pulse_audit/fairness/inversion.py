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
    moved = _of_distance(inverse, of_matrix)
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


def half_widths(
    matrix: FloatArray,
    inverse: FloatArray,
    of_matrix: FloatArray,
    sizes: FloatArray,
    critical: FloatArray,
) -> FloatArray:
    """Half-widths that intervals of retention would have if it was one half, (rows,).

    They depend on the sizes of the samples and on M, not on what the outputs show: a grade by them
    does not select samples in which retention came out high.

    Parameters
    ----------
    matrix, inverse, of_matrix : ndarray, (k, k), (k, k) and (replicates, k, k)
        M, its inverse, and its errors.
    sizes, critical : ndarray, (rows,)
        Effective numbers of draws, and Student's t. With k rows of retention its half-width; with a
        single row the mean half-width of the shares of an even composition.

    Returns
    -------
    ndarray, (rows,)
        Infinite where M may be singular.
    """
    k, rows = len(matrix), len(sizes)
    # row and column of every share, and the composition of its row, (shares, k)
    row = np.arange(k) if rows == k else np.zeros(k, dtype=np.int64)
    composition = np.full((k, k), 1 / k)
    if rows == k:
        composition = np.full((k, k), 0.5 / (k - 1)) + np.eye(k) * (0.5 - 0.5 / (k - 1))
    # variance of the column of M^-1 over the predictions, and of the error of M times that column
    predicted = composition @ matrix
    outputs = (predicted * inverse.T**2).sum(axis=1) - (predicted * inverse.T).sum(axis=1) ** 2
    model = np.square((composition * (of_matrix @ inverse).swapaxes(1, 2)).sum(axis=2)).mean(axis=0)
    distance = np.square(_of_distance(inverse, of_matrix)).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = 1 - critical[row] ** 2 * distance
        half = critical[row] * np.sqrt((outputs / sizes[row] + model) / np.maximum(left, 0.0))
    of_shares: FloatArray = np.where(left <= 0, np.inf, half)
    return of_shares if rows == k else of_shares.mean(keepdims=True)


def _of_distance(inverse: FloatArray, of_matrix: FloatArray) -> FloatArray:
    """Relative error of the distance of every row of M from the span of the others.

    g M u of `ends`, with errors of M in place of M, for every column; (replicates, k).
    """
    slopes = (inverse.T @ inverse) / np.square(inverse).sum(axis=0)[:, None]
    error: FloatArray = ((of_matrix @ inverse) * slopes.T).sum(axis=1)
    return error


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
