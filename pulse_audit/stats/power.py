"""What an audit of a given size can detect, and the sample size that a difference needs.

Normal approximations: variances follow from the rates, the within-face correlation (ICC) and the
draws a face. More draws help little: at ICC .5, more than five cut the variance by 17 % at most,
while more faces cut it in proportion.

References
----------
J. M. Lachin (1981), Controlled Clinical Trials 2:93 (sample sizes). L. Kish (1965), Survey
Sampling, ch. 8 (design effect). S. Holm (1979), Scandinavian Journal of Statistics 6:65: the first
of m hypotheses is tested at alpha / m.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.special import ndtr, ndtri


@dataclass(frozen=True)
class Design:
    """How two groups of different faces are compared.

    Parameters
    ----------
    draws : int
        Draws a face.
    icc : float
        Within-face correlation of draws, in [0, 1].
    alpha : float
        Level of the whole family of tests.
    tests : int
        Tests in the family, such as the pairs of groups; each is made at alpha / tests.
    sides : int
        1 for a drop, 2 for a difference in either direction.
    """

    draws: int = 1
    icc: float = 0.0
    alpha: float = 0.05
    tests: int = 1
    sides: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        """Refuse designs that do not exist."""
        if self.draws < 1 or self.tests < 1 or self.sides not in (1, 2):
            raise ValueError("draws and tests must be at least 1, sides 1 or 2")
        if not (0 <= self.icc <= 1 and 0 < self.alpha < 1):
            raise ValueError("icc must lie in [0, 1], alpha in (0, 1)")

    @property
    def critical(self) -> float:
        """Critical value of the test, in standard errors."""
        return float(ndtri(1 - self.alpha / self.tests / self.sides))

    def of_face(self, variance: float) -> float:
        """Variance of a face's mean, from that of one draw."""
        return variance * (1 + (self.draws - 1) * self.icc) / self.draws

    def of_drop(self, base: float, difference: float) -> float:
        """Variance of the difference of two faces' means, at the rates before and after a drop.

        Raises
        ------
        ValueError
            If ``base`` or ``base - difference`` lies outside [0, 1].
        """
        rates = base, base - difference
        for rate in rates:
            if not -1e-12 <= rate <= 1 + 1e-12:
                raise ValueError(f"a proportion must lie between 0 and 1, not {rate}")
        # groups of different faces are independent: variances add
        before, after = (self.of_face(max(rate * (1 - rate), 0.0)) for rate in rates)
        return before + after


def power_of_proportions(base: float, difference: float, faces: float, design: Design) -> float:
    """Chance of detecting that a proportion fell.

    Parameters
    ----------
    base : float
        Proportion before; ``base - difference`` after, both in [0, 1].
    difference : float
        True fall.
    faces : float
        In each of the two samples.
    design : Design
    """
    variance = design.of_drop(base, difference)
    # at rates of 0 and 1 there is no sampling error
    if variance == 0:
        return float(difference > 0)
    shift = difference / math.sqrt(variance / faces)
    # a two-sided test may also reject in the wrong direction
    opposite = float(ndtr(-design.critical - shift)) if design.sides == 2 else 0.0
    return float(ndtr(shift - design.critical)) + opposite


def faces_for_proportions(
    base: float, difference: float, design: Design, power: float = 0.9
) -> int:
    """Faces in each sample that detect a fall of a proportion; see `power_of_proportions`.

    Raises
    ------
    ValueError
        If the difference is not positive, or leaves [0, 1].
    """
    variance = design.of_drop(base, difference)
    if not difference > 0 or not 0 < power < 1:
        raise ValueError("the difference must be positive, and the power lie in (0, 1)")
    # n = (z_alpha + z_power)^2 variance / difference^2, rounded up but for rounding errors
    distance = design.critical + float(ndtri(power))
    return max(2, math.ceil(variance * distance**2 / difference**2 - 1e-9))


def detectable_proportion(
    base: float, faces: int, design: Design, power: float = 0.9
) -> float | None:
    """Smallest fall of a proportion detected with the given power; None if even a fall to 0 is not.

    ``faces`` is the number in each sample.
    """
    if power_of_proportions(base, base, faces, design) < power:
        return None
    # power grows with the fall: halve the interval that holds the answer
    low, high = 0.0, base
    for _ in range(60):
        middle = (low + high) / 2
        is_detected = power_of_proportions(base, middle, faces, design) >= power
        low, high = (low, middle) if is_detected else (middle, high)
    return high


def detectable_mean(deviation: float, faces: int, design: Design, power: float = 0.9) -> float:
    """Smallest difference of means detected with the given power, in the unit of ``deviation``.

    ``deviation`` is the standard deviation of one draw, ``faces`` the number in each sample.
    """
    # the same equation solved for the difference, with equal variances in both samples
    variance = 2 * design.of_face(deviation**2)
    return (design.critical + float(ndtri(power))) * math.sqrt(variance / faces)
