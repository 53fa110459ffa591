"""What an audit of a given size can detect, and the sample size that a difference needs.

Of two groups among several, by the test that a gap is claimed with: the score test at effective
sample sizes, with Tukey's range for all pairs of groups (`pulse_audit.stats.contrasts`). Its
standard error is that of equal proportions, and the correlation that it uses is on average larger
than the true one; both are allowed for. More draws help little: at a within-face correlation (ICC)
of .5, more than five cut the variance by 17 % at most, while more faces cut it in proportion.

References
----------
J. M. Lachin (1981), Controlled Clinical Trials 2:93 (sample sizes). L. Kish (1965), Survey
Sampling, ch. 8 (design effect). J. W. Tukey (1953), The Problem of Multiple Comparisons. R. A.
Fisher (1925), Statistical Methods for Research Workers, ch. 7 (standard error of the ICC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import nctdtrinc, ndtr, ndtri, stdtrit

from pulse_audit.stats.contrasts import tukey
from pulse_audit.stats.intervals import SPARSE


@dataclass(frozen=True)
class Design:
    """How groups of different faces are compared.

    Parameters
    ----------
    draws : int
        Draws a face.
    icc : float
        Within-face correlation of draws, in [0, 1].
    groups : int
        Groups of which all pairs are compared.
    alpha : float
        Level of all pairs together, either direction counted.
    """

    draws: int = 1
    icc: float = 0.0
    groups: int = 2
    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Refuse designs that do not exist."""
        if self.draws < 1 or self.groups < 2:
            raise ValueError("draws must be at least 1, groups at least 2")
        if not (0 <= self.icc <= 1 and 0 < self.alpha < 1):
            raise ValueError("icc must lie in [0, 1], alpha in (0, 1)")

    def effect(self, icc: float) -> float:
        """Design effect at a within-face correlation."""
        return 1 + (self.draws - 1) * icc

    def icc_used(self, rate: float, faces: float) -> float:
        """Correlation that the interval of a group uses on average; see `proportion_interval`.

        It is the larger of the group's own estimate and the pooled one, moved toward 1 where
        outcomes of one kind are few.
        """
        m, icc = self.draws, self.icc
        if m == 1 or faces < 2:
            return 1.0
        # standard error of the group's own estimate; the mean of max(0, x) is .4 of its deviation
        error = math.sqrt(2 / (m * (m - 1) * (faces - 1))) * (1 - icc) * self.effect(icc)
        icc = min(1.0, icc + error * math.sqrt((1 - 1 / self.groups) / (2 * math.pi)))
        # chance that a face has an outcome of the rarer kind, with its draws as independent ones
        rare = 1 - (1 - min(rate, 1 - rate)) ** (m / self.effect(self.icc))
        return icc + (1 - icc) * float((1 - (1 - SPARSE) * rare) ** faces)


def power_of_proportions(first: float, second: float, faces: float, design: Design) -> float:
    """Chance of showing that the proportions of two groups differ, in the direction they do.

    Parameters
    ----------
    first, second : float
        True proportions, in [0, 1].
    faces : float
        In each of the two groups.
    design : Design

    Raises
    ------
    ValueError
        If a proportion lies outside [0, 1].
    """
    rates = first, second
    for rate in rates:
        if not -1e-12 <= rate <= 1 + 1e-12:
            raise ValueError(f"a proportion must lie between 0 and 1, not {rate}")
    if first == second:
        return 0.0
    # effective sizes as the test takes them, and the error that it takes from them if rates are
    # equal
    sizes = [
        faces * design.draws / design.effect(design.icc_used(min(max(rate, 0.0), 1.0), faces))
        for rate in rates
    ]
    total = sum(sizes)
    common = (first * sizes[0] + second * sizes[1]) / total
    assumed = common * (1 - common) * sum(1 / size for size in sizes) * total / max(total - 1, 1e-9)
    # true error of the difference: groups of different faces are independent
    variance = sum(max(rate * (1 - rate), 0.0) for rate in rates)
    error = math.sqrt(variance * design.effect(design.icc) / (faces * design.draws))
    distance = abs(first - second) - tukey(design.groups, math.inf, design.alpha) * math.sqrt(
        assumed
    )
    # at rates of 0 and 1 there is no sampling error
    return float(ndtr(distance / error)) if error > 0 else float(distance > 0)


def faces_for_proportions(first: float, second: float, design: Design, power: float = 0.9) -> int:
    """Faces in each group that show a difference of proportions; see `power_of_proportions`.

    Raises
    ------
    ValueError
        If the proportions are equal or leave [0, 1], or the power is not in (0, 1).
    """
    if first == second or not 0 < power < 1:
        raise ValueError("the difference must not be 0, and the power lie in (0, 1)")
    # more faces give more power: double the number until it is enough, then halve the interval
    high = 2
    while power_of_proportions(first, second, high, design) < power:
        high *= 2
    low = max(high // 2, 1)
    while high - low > 1:
        middle = (low + high) // 2
        if power_of_proportions(first, second, middle, design) >= power:
            high = middle
        else:
            low = middle
    return high


def detectable_proportion(
    base: float, end: float, faces: int, design: Design, power: float = 0.9
) -> float | None:
    """Smallest difference from ``base`` toward ``end`` (0 or 1) that is shown with the given power.

    None if even the whole way is not. ``faces`` is the number in each group.
    """
    reach = abs(end - base)
    if reach == 0 or power_of_proportions(base, end, faces, design) < power:
        return None
    # power grows with the difference: halve the interval that holds the answer
    low, high = 0.0, reach
    for _ in range(60):
        middle = (low + high) / 2
        other = base + math.copysign(middle, end - base)
        is_shown = power_of_proportions(base, other, faces, design) >= power
        low, high = (low, middle) if is_shown else (middle, high)
    return high


def detectable_mean(deviation: float, faces: int, design: Design, power: float = 0.9) -> float:
    """Smallest difference of means shown with the given power, in the unit of ``deviation``.

    ``deviation`` is the standard deviation of one draw, ``faces`` the number in each group, whose
    standard deviations are estimated. Infinite with one face.
    """
    if faces < 2:
        return math.inf
    # Tukey's range with the degrees of freedom of one group: close to the bootstrap's max-T
    critical = tukey(design.groups, faces - 1, design.alpha)
    # noncentral t: the standard error of the difference is estimated from both groups
    distance = float(nctdtrinc(2 * (faces - 1), 1 - power, critical))
    variance = 2 * deviation**2 * design.effect(design.icc) / design.draws
    return distance * math.sqrt(variance / faces)


@dataclass(frozen=True)
class DropDesign:
    """How a rule compares the worst of several groups with a baseline.

    Parameters
    ----------
    base : float
        The baseline's rate, in (0, 1). The variance is largest, and the power least, where it lies
        as far above one half as the trial's below: at .55 for a drop of ten points.
    draws, icc
        As of `Design`.
    correlation : float or None
        Of a face's means on both sides, in [0, 1); None where the sides have different faces.
    groups : int
        Of which the worst counts (Sidak's level).
    rules : int
        Verdicts of the family, each at ``alpha`` divided by their number.
    margin : float
        Worsening that the rule allows.
    alpha : float
    """

    base: float = 0.55
    draws: int = 5
    icc: float = 0.5
    correlation: float | None = None
    groups: int = 7
    rules: int = 4
    margin: float = 0.0
    alpha: float = 0.05

    def deviation(self, drop: float) -> float:
        """Return the standard deviation of one face's part in the difference of both sides."""
        one, other = (
            rate * (1 - rate) * (1 + (self.draws - 1) * self.icc) / self.draws
            for rate in (self.base, min(max(self.base - drop, 0.0), 1.0))
        )
        shared = 2 * (self.correlation or 0.0) * math.sqrt(one * other)
        return math.sqrt(max(one + other - shared, 0.0))

    def power(self, drop: float, faces: int) -> float:
        """Chance that a drop of one group's rate fails the rule, with so many faces a group."""
        if faces < 2:
            return 0.0
        level = 1 - (1 - self.alpha / self.rules) ** (1 / self.groups)
        error = max(self.deviation(drop) / math.sqrt(faces), 1e-12)
        distance = drop - self.margin
        if self.correlation is not None:
            # Student's quantile, since the error is estimated
            return float(ndtr(distance / error - stdtrit(faces - 1, 1 - level)))
        # the score test's error is that of rates no further apart than the margin, at its own
        # effective sizes
        middle, design = self.base - drop / 2, Design(self.draws, self.icc, max(self.groups, 2))
        assumed = 0.0
        for rate in (middle + self.margin / 2, middle - self.margin / 2):
            used = design.effect(design.icc_used(min(max(rate, 0.0), 1.0), faces))
            assumed += max(rate * (1 - rate), 0.0) * used / (faces * self.draws)
        return float(ndtr((distance + ndtri(level) * math.sqrt(assumed)) / error))


def faces_for_drop(drop: float, design: DropDesign, power: float = 0.9) -> int:
    """Faces in each group with which a drop of one group's rate fails a rule; see `DropDesign`.

    Raises
    ------
    ValueError
        If the drop does not exceed the margin, or the power is not in (0, 1).
    """
    if drop <= design.margin or not 0 < power < 1:
        raise ValueError("the drop must exceed the margin, and the power lie in (0, 1)")
    high = 2
    while design.power(drop, high) < power:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if design.power(drop, middle) >= power else (middle, high)
    return high


def detectable_drop(faces: int, design: DropDesign, power: float = 0.9) -> float | None:
    """Smallest drop of one group's rate that fails a rule with the given power; None if none does.

    ``faces`` is the number in each group.
    """
    if design.power(design.base, faces) < power:
        return None
    low, high = design.margin, design.base
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if design.power(middle, faces) >= power else (middle, high)
    return high
