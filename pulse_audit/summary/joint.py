"""Intervals that hold together: corrected shares of all arms and groups, and their differences.

Shares corrected for the attribute model's errors have joint replicates of their sampling errors,
aligned over arms. Max-T intervals made of them hold together with 95 % confidence (Romano and Wolf
2005, JASA 100:94), so that a sentence may pick the largest of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np

from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.stats.contrasts import joint_bounds
from pulse_audit.stats.intervals import FloatArray

#: Level of all claims of a screen together.
ALPHA = 0.05


@dataclass(frozen=True)
class Interval:
    """A value with ends that hold together with those of the whole family."""

    low: float
    value: float
    high: float

    def clipped(self) -> Interval:
        """Return the interval of a share, within [0, 1]."""
        return Interval(*(min(max(end, 0.0), 1.0) for end in (self.low, self.value, self.high)))

    def reversed(self) -> Interval:
        """Interval of the same quantity with its sign changed."""
        return Interval(-self.high, -self.value, -self.low)


class Quantity(NamedTuple):
    """A member of the family: retention, a cell, or a difference of two groups or arms.

    ``group`` -1 is the whole sample.
    """

    kind: Literal["kept", "cell", "groups", "arms"]
    arm: str
    group: int = -1
    other_group: int = -1
    other_arm: str = ""


class Family:
    """Quantities that share a bootstrap, until `intervals` bounds all of them together."""

    def __init__(self) -> None:
        self._quantities: list[Quantity] = []
        self._replicates: list[FloatArray] = []
        # value, faces of the smallest sample, least standard error
        self._numbers: list[tuple[float, float, float]] = []

    def add(
        self, quantity: Quantity, value: float, drawn: FloatArray, faces: float, least_error: float
    ) -> None:
        """Add a quantity with its replicates, (replicates,)."""
        self._quantities.append(quantity)
        self._replicates.append(drawn)
        self._numbers.append((value, faces, least_error))

    def intervals(self) -> dict[Quantity, Interval]:
        """Max-T intervals of all quantities together, at the level `ALPHA`."""
        values, faces, least = np.array(self._numbers).T
        drawn = np.stack(self._replicates, axis=1)
        bounds = joint_bounds(values, drawn, faces.astype(np.int64), ALPHA, least)
        ends = np.stack([bounds.all_low, values, bounds.all_high], axis=1).tolist()
        return {name: Interval(*each) for name, each in zip(self._quantities, ends, strict=True)}


@dataclass(frozen=True, eq=False)
class JointIntervals:
    """Intervals that hold together, those of shares within [0, 1].

    ``kept`` has the retention of every arm; ``cells`` of an arm the share of a group (row) that
    became another (column); ``groups`` its retention of one group less another's; ``arms`` the
    retention of one arm less another's.
    """

    kept: Mapping[str, Interval]
    cells: Mapping[str, Mapping[tuple[int, int], Interval]]
    groups: Mapping[str, Mapping[tuple[int, int], Interval]]
    arms: Mapping[tuple[str, str], Interval]


def joint_intervals(shifts: Mapping[str, CorrectedShift]) -> JointIntervals:
    """Intervals of all arms, and of the groups that have faces in all of them.

    A standard error is at least that of a share which one face of n + 2 does not have: where all
    faces agree, the bootstrap does not vary.
    """
    family, wholes = Family(), dict[str, tuple[float, FloatArray, float]]()
    has_faces = np.all([shift.faces > 0 for shift in shifts.values()], axis=0)
    groups: list[int] = np.flatnonzero(has_faces).tolist()
    for arm, shift in shifts.items():
        size, values, drawn = shift.faces, shift.values, shift.replicates
        # the change of a corrected share if all faces changed their apparent group, (k,)
        reach = np.ptp(np.linalg.inv(shift.confusion.shares), axis=0)
        rare = np.sqrt((size + 1.0) / np.maximum(size, 1)) / (size + 2.0)
        least = rare[:, None] * reach
        for i in groups:
            for j in range(len(size)):
                quantity = Quantity("kept" if i == j else "cell", arm, i, j)
                family.add(quantity, values[i, j], drawn[:, i, j], size[i], least[i, j])
        for i, j in combinations(groups, 2):
            difference = drawn[:, i, i] - drawn[:, j, j]
            error, fewest = float(np.hypot(least[i, i], least[j, j])), min(size[i], size[j])
            value = values[i, i] - values[j, j]
            family.add(Quantity("groups", arm, i, j), value, difference, fewest, error)
        # the whole sample: shares of all draws, summed over groups
        diagonal = shift.joint_replicates[:, groups, groups].sum(axis=1)
        value = float(shift.joint[groups, groups].sum())
        weights = shift.draws[groups] / shift.draws[groups].sum()
        error = float(np.linalg.norm(weights * least[groups, groups]))
        family.add(Quantity("kept", arm), value, diagonal, float(size[groups].sum()), error)
        wholes[arm] = value, diagonal, error
    for arm, other in combinations(shifts, 2):
        (value, diagonal, error), (value_2, diagonal_2, _) = wholes[arm], wholes[other]
        faces = float(min(shifts[arm].faces.sum(), shifts[other].faces.sum()))
        quantity = Quantity("arms", arm, other_arm=other)
        family.add(quantity, value - value_2, diagonal - diagonal_2, faces, error)

    intervals = family.intervals()
    kept: dict[str, Interval] = {}
    cells: dict[str, dict[tuple[int, int], Interval]] = {arm: {} for arm in shifts}
    differences: dict[str, dict[tuple[int, int], Interval]] = {arm: {} for arm in shifts}
    arms: dict[tuple[str, str], Interval] = {}
    for (kind, arm, i, j, other), interval in intervals.items():
        if kind == "cell":
            cells[arm][i, j] = interval.clipped()
        elif kind == "kept" and i < 0:
            kept[arm] = interval.clipped()
        elif kind == "arms":
            arms[arm, other] = interval
        elif kind == "groups":
            # A true share is at most 1, whatever the estimate (errors on outputs that depend on
            # those on originals push it above): no group exceeds another by more than 1 less it.
            most_i = 1 - min(1.0, intervals[Quantity("kept", arm, j, j)].high)
            most_j = 1 - min(1.0, intervals[Quantity("kept", arm, i, i)].high)
            low, high = min(interval.low, most_i), max(interval.high, -most_j)
            differences[arm][i, j] = Interval(low, interval.value, high)
            differences[arm][j, i] = differences[arm][i, j].reversed()
    return JointIntervals(kept, cells, differences, arms)
