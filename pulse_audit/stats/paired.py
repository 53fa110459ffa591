"""Difference of two proportions on the same faces, each with several draws: a score interval.

With one draw a face, a face that differs between the arms is won (+1) or lost (-1), and Tango's
score interval holds for few faces and for rates near 0 and 1. With several draws a face can differ
by a part of 1. Gains and losses are then the means of the positive and of the negative differences,
and the number of faces is replaced by an effective one, as Kish's is for a single proportion: the
variance that the gains and losses would have as whole faces, over the variance observed.

References
----------
T. Tango (1998), Statistics in Medicine 17:891 (score interval, restricted estimate in closed form).
A. Agresti and Y. Min (2005), Statistics in Medicine 24:729 (pairs added for few faces). L. Kish
(1965), Survey Sampling, ch. 8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from pulse_audit.stats.intervals import FloatArray
from pulse_audit.stats.score import crossing
from pulse_audit.types import Estimate

#: In the method of an estimate: both arms agree on every face.
IDENTICAL = "both alike on every face"


def paired_score(
    gain: ArrayLike, loss: ArrayLike, n: ArrayLike, difference: ArrayLike
) -> FloatArray:
    """Tango's score statistic of gain - loss = ``difference``; standard normal under it.

    Parameters
    ----------
    gain, loss : array_like
        Shares of faces won and lost, in [0, 1], together at most 1.
    n : array_like
        (Effective) number of faces.
    difference : array_like
        In [-1, 1].
    """
    won, lost = np.asarray(gain) * n, np.asarray(loss) * n
    delta, size = np.asarray(difference, dtype=np.float64), np.asarray(n, dtype=np.float64)
    # share of faces lost, by restricted maximum likelihood: the larger root of a quadratic
    a, b = 2 * size, -won - lost + (2 * size - won + lost) * delta
    c = -lost * delta * (1 - delta)
    share = (np.sqrt(np.maximum(b**2 - 4 * a * c, 0)) - b) / (2 * a)
    variance = size * (2 * share + delta * (1 - delta))
    distance = won - lost - size * delta
    return np.asarray(distance / np.sqrt(np.maximum(variance, 1e-300)), dtype=np.float64)


def paired_proportions(differences: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean difference of two arms' proportions on the same faces, with a score interval.

    Parameters
    ----------
    differences : array_like, (faces,)
        The first arm's proportion of a face's draws less the second's, in [-1, 1].
    confidence : float
        Two-sided, in (0, 1).

    Returns
    -------
    Estimate
        Both ends lie in [-1, 1] and never coincide. Where the arms agree on every face the interval
        reaches as far from 0 as differences are not ruled out, and ``method`` contains
        ``IDENTICAL``.

    Raises
    ------
    ValueError
        If there is no face, or a difference is not in [-1, 1].

    Notes
    -----
    In 1,800 simulated scenarios (6 to 100 faces, 2 to 10 draws, rates .5 to 1, within-face
    correlations .1 to 1, correlations of arms 0 to .95) it covered at least 93 % at a nominal 95 %,
    where a BCa bootstrap covered 63 % in the worst.
    """
    each = np.asarray(differences, dtype=np.float64)
    if each.ndim != 1 or not each.size or not (np.abs(each) <= 1 + 1e-9).all():
        raise ValueError("need the differences of faces, each from -1 to 1")
    n, value = len(each), float(each.mean())
    gain, loss = float(np.maximum(each, 0).mean()), float(np.maximum(-each, 0).mean())
    # sums of squares: observed, and of whole faces won and lost in these shares; two faces are
    # added to both, one won and one lost, since few faces show too little of their spread
    observed = np.square(each - value).sum() * n / max(n - 1, 1) + 2
    whole = n * (gain + loss - value**2) + 2
    effective = n * max(whole / observed, 1.0)

    def score(at: FloatArray) -> FloatArray:
        return paired_score(gain, loss, effective, at)

    # the lower end lies below the estimate, the upper end above it
    limit = float(ndtri(0.5 + confidence / 2))
    low, high = crossing(
        score, np.array([-1.0, value]), np.array([value, 1.0]), np.array([limit, -limit])
    )
    method = f"Tango's score interval, effective number of faces {effective:.1f}"
    if not each.any():
        method += f"; {IDENTICAL}"
    return Estimate(value, float(low), float(high), n, n, method, confidence)
