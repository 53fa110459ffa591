"""Adjusted p-values for families of tests.

References
----------
S. Holm (1979), Scandinavian Journal of Statistics 6:65. Y. Benjamini and Y. Hochberg (1995),
JRSS-B 57:289.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.stats.intervals import FloatArray


def holm(p_values: ArrayLike) -> FloatArray:
    """Holm's adjusted p-values: the chance of any false rejection is held, under any dependence.

    Parameters
    ----------
    p_values : array_like, (m,)
        In [0, 1]; every test of the family, also those that nobody looks at.

    Returns
    -------
    ndarray, (m,)
        In the order given, at most 1; rejected at level alpha are those <= alpha.

    Raises
    ------
    ValueError
        If a p-value is not a number in [0, 1].
    """
    p, order = _sorted(p_values)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _restored(np.minimum(stepped, 1), order)


def benjamini_hochberg(p_values: ArrayLike) -> FloatArray:
    """Benjamini and Hochberg's adjusted p-values: the expected share of false rejections is held.

    For independent or positively dependent tests.

    Parameters
    ----------
    p_values : array_like, (m,)
        In [0, 1].

    Returns
    -------
    ndarray, (m,)
        In the order given, at most 1.

    Raises
    ------
    ValueError
        If a p-value is not a number in [0, 1].
    """
    p, order = _sorted(p_values)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    stepped = np.minimum.accumulate(scaled[::-1])[::-1]
    return _restored(np.minimum(stepped, 1), order)


def _sorted(p_values: ArrayLike) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.intp]]]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values must be numbers between 0 and 1")
    return p, np.argsort(p, kind="stable")


def _restored(stepped: FloatArray, order: np.ndarray[tuple[int], np.dtype[np.intp]]) -> FloatArray:
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return adjusted
