"""The studentised range of Tukey, for comparing all pairs of groups.

scipy.stats has it, and takes most of a second to import, a sixth of the time of a report; the tests
compare the two.

References
----------
J. W. Tukey (1953), The problem of multiple comparisons. H. L. Harter (1960), Annals of Mathematical
Statistics 31:1122 (the double integral).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import gammainccinv, gammaincinv, gammaln, ndtr

from pulse_audit.stats.intervals import FloatArray

#: Nodes over the smallest of the standard normal values and over the pooled standard deviation.
_NODES_Z, _NODES_S = 256, 192
#: Beyond this no standard normal value is met: its density is below 1e-17.
_FAR = 8.7


@lru_cache(maxsize=256)
def quantile(p: float, k: int, df: float) -> float:
    """Return the quantile of the range of k standard normal values over a pooled deviation.

    Parameters
    ----------
    p : float
        Between 0 and 1.
    k : int
        Groups, 2 or more.
    df : float
        Degrees of freedom of the deviation; infinite where it is known.
    """
    # The range is unbounded: double until the quantile lies below, then bisect and halve on.
    low, high = 0.0, 1.0
    while distribution(high, k, df) < p:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if distribution(middle, k, df) < p else (low, middle)
    return (low + high) / 2


def distribution(q: float, k: int, df: float) -> float:
    """Return the probability that the studentised range of k values is at most q."""
    if math.isinf(df):
        return float(_range(np.array([q]), k)[0])
    s, weights = _deviations(df)
    return float(weights @ _range(q * s, k))


def _range(width: FloatArray, k: int) -> FloatArray:
    """Probability that k standard normal values lie within a width, (n,).

    k times the integral of phi(z) (Phi(z + width) - Phi(z))^(k - 1) over the smallest value z.
    """
    nodes, weights = _legendre(_NODES_Z)
    z = _FAR * nodes
    density = _FAR * weights * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    # (n, nodes); the others lie between z and z + width
    others = ndtr(z + width[:, None]) - ndtr(z)
    return np.asarray(k * (others ** (k - 1)) @ density, dtype=np.float64)


@lru_cache(maxsize=256)
def _deviations(df: float) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights over the pooled deviation s, whose df s^2 is chi-square."""
    ends = [math.sqrt(2 * float(inverse(df / 2, 1e-16)) / df)
            for inverse in (gammaincinv, gammainccinv)]  # fmt: skip
    # Cubed, nodes are dense near 0, where few degrees of freedom need them.
    nodes, weights = _legendre(_NODES_S)
    u, span = (nodes + 1) / 2, ends[1] - ends[0]
    s = ends[0] + span * u**3
    log_density = (
        math.log(2) + df / 2 * math.log(df / 2) - float(gammaln(df / 2))
        + (df - 1) * np.log(s) - df * s**2 / 2
    )  # fmt: skip
    return s, span * 3 * u**2 * weights / 2 * np.exp(log_density)


@lru_cache(maxsize=4)
def _legendre(n: int) -> tuple[FloatArray, FloatArray]:
    return np.polynomial.legendre.leggauss(n)
