"""One verdict to be made, and what the data say on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pulse_audit.gate.rules import Rule
from pulse_audit.stats.gaps import Gap
from pulse_audit.stats.power import DropDesign
from pulse_audit.summary.schema import SubsetKey


class Case(NamedTuple):
    """One verdict to be made: a rule on one arm under one condition and scale.

    ``number`` counts the rules from 1; ``baseline`` is the other side's arm, None without one.
    """

    number: int
    rule: Rule
    key: SubsetKey
    baseline: SubsetKey | None


@dataclass(frozen=True)
class Evidence:
    """A worst case with its bounds, and what it is of.

    ``groups`` are the names of those that give the value; ``faces`` the number in the smallest
    group; ``comparisons`` of groups or pairs that a fail holds for together; ``left_out`` faces
    without a value; ``design`` what a drop is detected with, where the rule is about a rate
    against a baseline; ``no_pass`` and ``no_fail`` why that cannot be said, whatever the bounds;
    ``every_look`` whether the bounds hold at every look; ``caveat`` what a reader has to know.
    """

    gap: Gap
    metric: str
    groups: tuple[str, ...]
    faces: int
    comparisons: int = 1
    left_out: int = 0
    design: DropDesign | None = None
    no_pass: str = ""
    no_fail: str = ""
    every_look: bool = False
    caveat: str = ""
