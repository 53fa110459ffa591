"""What an audit of a given size can see, and the size needed to see something.

Normal approximations: variances follow from the rates, the within-face correlation (ICC) and the
draws a face. Draws beyond the first few buy little: with ICC .5, more than five cut the variance by
17 % at most, while faces cut it in proportion.

References
----------
J. M. Lachin (1981), Controlled Clinical Trials 2:93 (sample sizes). L. Kish (1965), Survey
Sampling, ch. 8 (design effect). S. Holm (1979), Scandinavian Journal of Statistics 6:65: the first
of m hypotheses is tested at alpha / m. J. W. Tukey (1953), The Problem of Multiple Comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri

from pulse_audit.stats.contrasts import pairs, tukey
from pulse_audit.stats.intervals import FloatArray, IntArray

_SIMULATIONS = 20_000
_MOST_FACES = 10_000_000


@dataclass(frozen=True)
class Design:
    """How two things are compared: what sets the size of the test and the variance of a face.

    Parameters
    ----------
    draws : int
        Draws a face.
    icc : float
        Within-face correlation of draws, in [0, 1].
    paired : float or None
        Correlation between the two arms' face means when both see the same faces; None for
        different faces.
    alpha : float
        Of the whole family.
    tests : int
        Tests in the family: rules times groups where the worst of the groups is judged. Holm's
        first one has alpha / tests.
    sides : int
        1 for a drop, 2 for a difference either way.
    """

    draws: int = 1
    icc: float = 0.0
    paired: float | None = None
    alpha: float = 0.05
    tests: int = 1
    sides: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        """Refuse designs that do not exist."""
        correlation = 0.0 if self.paired is None else self.paired
        if self.draws < 1 or self.tests < 1 or self.sides not in (1, 2):
            raise ValueError("draws and tests must be at least 1, sides 1 or 2")
        if not (0 <= self.icc <= 1 and -1 <= correlation < 1 and 0 < self.alpha < 1):
            raise ValueError("icc must lie in [0, 1], paired in [-1, 1), alpha in (0, 1)")

    @property
    def critical(self) -> float:
        """Standard errors that the test asks for."""
        return float(ndtri(1 - self.alpha / self.tests / self.sides))

    def of_face(self, variance: float) -> float:
        """Variance of a face's mean, from that of one draw."""
        return variance * (1 + (self.draws - 1) * self.icc) / self.draws

    def of_difference(self, first: float, second: float) -> float:
        """Variance of one face's (or two faces') difference, from those of one draw each."""
        a, b = self.of_face(first), self.of_face(second)
        return a + b - 2 * (self.paired or 0.0) * math.sqrt(a * b)


def power_of_proportions(
    base: float, difference: float, faces: float, design: Design, margin: float = 0.0
) -> float:
    """Chance of showing that a proportion fell by more than ``margin``.

    Parameters
    ----------
    base : float
        Proportion before; ``base - difference`` after, both in [0, 1].
    difference : float
        True fall, larger than ``margin`` to be found.
    faces : float
        In each of the two samples, or pairs.
    design : Design
    margin : float
        Fall that would be allowed.
    """
    variance = design.of_difference(_bernoulli(base), _bernoulli(base - difference))
    return _power(difference - margin, variance, faces, design)


def power_of_means(difference: float, deviation: float, faces: float, design: Design) -> float:
    """Chance of showing a difference of means; ``deviation`` is the standard one of a draw."""
    return _power(difference, design.of_difference(deviation**2, deviation**2), faces, design)


def faces_for_proportions(
    base: float, difference: float, design: Design, power: float = 0.9, margin: float = 0.0
) -> int:
    """Faces (in each sample, or pairs) to show a fall of a proportion; see `power_of_proportions`.

    Raises
    ------
    ValueError
        If the difference does not exceed the margin, or leaves [0, 1].
    """
    variance = design.of_difference(_bernoulli(base), _bernoulli(base - difference))
    return _faces(difference - margin, variance, design, power)


def faces_for_means(difference: float, deviation: float, design: Design, power: float = 0.9) -> int:
    """Faces (in each sample, or pairs) to show a difference of means."""
    return _faces(difference, design.of_difference(deviation**2, deviation**2), design, power)


def detectable_proportion(
    base: float, faces: int, design: Design, power: float = 0.9
) -> float | None:
    """Smallest fall of a proportion found with the given power; None if even ``base`` is not."""
    if power_of_proportions(base, base, faces, design) < power:
        return None
    low, high = 0.0, base
    for _ in range(60):
        middle = (low + high) / 2
        enough = power_of_proportions(base, middle, faces, design) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def detectable_mean(deviation: float, faces: int, design: Design, power: float = 0.9) -> float:
    """Smallest difference of means found with the given power, in units of ``deviation``'s."""
    variance = design.of_difference(deviation**2, deviation**2)
    return (design.critical + float(ndtri(power))) * math.sqrt(variance / faces)


@dataclass(frozen=True)
class GapPower:
    """Chances that a rule on ``max_gap`` passes and fails; the rest stays undecided."""

    passes: float
    fails: float


def power_of_max_gap(rates: Sequence[float], limit: float, faces: int, design: Design) -> GapPower:
    """Chances of either decision of `pulse_audit.stats.gaps.max_gap` on proportions.

    Parameters
    ----------
    rates : sequence of float
        True proportion of every group.
    limit : float
        Gap allowed.
    faces : int
        In each group.
    design : Design
        ``alpha / tests`` is the level of either decision.

    Notes
    -----
    20,000 simulated audits with normal errors and fixed seed: standard error at most .4 points.
    """
    draws, members = _normal_groups(len(rates))
    return _gap_power(np.asarray(rates, dtype=np.float64), limit, faces, design, draws, members)


def faces_for_max_gap(
    rates: Sequence[float],
    limit: float,
    decision: Literal["pass", "fail"],
    design: Design,
    power: float = 0.9,
) -> int | None:
    """Faces a group for a rule on ``max_gap`` to reach a decision with the given power.

    Returns
    -------
    int or None
        None where no number of faces can, since the true gap is on the other side of the limit.
    """
    true = np.asarray(rates, dtype=np.float64)
    if (np.ptp(true) >= limit) == (decision == "pass"):
        return None
    draws, members = _normal_groups(len(true))

    def enough(faces: int) -> bool:
        chances = _gap_power(true, limit, faces, design, draws, members)
        return (chances.passes if decision == "pass" else chances.fails) >= power

    return _smallest(enough)


def _normal_groups(k: int) -> tuple[FloatArray, tuple[IntArray, IntArray]]:
    if k < 2:
        raise ValueError("a gap needs at least two groups")
    return np.random.default_rng(0).standard_normal((_SIMULATIONS, k)), pairs(k)


def _gap_power(
    rates: FloatArray,
    limit: float,
    faces: int,
    design: Design,
    draws: FloatArray,
    members: tuple[IntArray, IntArray],
) -> GapPower:
    errors = np.sqrt([design.of_face(_bernoulli(rate)) / faces for rate in rates])
    estimates = rates + draws * errors
    i, j = members
    distances, spread = np.abs(estimates[:, i] - estimates[:, j]), np.hypot(errors[i], errors[j])
    level = design.alpha / design.tests
    inside = distances + float(ndtri(1 - level)) * spread <= limit
    outside = distances - tukey(len(rates), math.inf, level) * spread > limit
    return GapPower(float(inside.all(axis=1).mean()), float(outside.any(axis=1).mean()))


def _bernoulli(rate: float) -> float:
    if not -1e-12 <= rate <= 1 + 1e-12:
        raise ValueError(f"a proportion must lie between 0 and 1, not {rate}")
    return max(rate * (1 - rate), 0.0)


def _power(distance: float, variance: float, faces: float, design: Design) -> float:
    if variance == 0:
        return float(distance > 0)
    shift = distance / math.sqrt(variance / faces)
    opposite = float(ndtr(-design.critical - shift)) if design.sides == 2 else 0.0
    return float(ndtr(shift - design.critical)) + opposite


def _faces(distance: float, variance: float, design: Design, power: float) -> int:
    if not distance > 0 or not 0 < power < 1:
        raise ValueError("the difference must exceed the margin, and the power lie in (0, 1)")
    wanted = design.critical + float(ndtri(power))
    return max(2, math.ceil(variance * wanted**2 / distance**2 - 1e-9))


def _smallest(enough: Callable[[int], bool]) -> int | None:
    """Smallest whole number from 2 on that is enough, by doubling and halving."""
    high = 2
    while not enough(high):
        high *= 2
        if high > _MOST_FACES:
            return None
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
