"""Conditions as users write them, parsed: what is done to a face beside downscaling. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from pulse_audit.names import nearest
from pulse_audit.types import InputError

#: Corruptions in a condition, at most.
MAX_CORRUPTIONS = 8


@dataclass(frozen=True)
class ConditionKind:
    """A kind of corruption: the numbers it takes, when it is applied and how it is described."""

    form: str
    #: Smallest and largest number; ``whole``: no fractions.
    limits: tuple[float, float]
    before_downscaling: bool
    #: For reports, with a place for the number.
    description: str
    #: For `pulse-audit list conditions`.
    meaning: str
    whole: bool = False
    #: Whether the number may be in per cent of the side of the face, as in ``motion:10%``.
    of_side: bool = False

    @property
    def name(self) -> str:
        """The form without its number."""
        return self.form.partition(":")[0]


CONDITION_KINDS: Mapping[str, ConditionKind] = {
    kind.name: kind
    for kind in (
        # form, limits of the number, before downscaling, description, meaning
        ConditionKind(
            "gaussian:SIGMA",
            (0, 255),
            False,
            "Gaussian noise of standard deviation {} (0-255 scale)",
            "Gaussian noise after downscaling; SIGMA on the 0-255 scale (paper: 25, 50)",
        ),
        ConditionKind(
            "saltpepper:P",
            (0, 1),
            False,
            "salt-and-pepper noise on a share {} of the pixels",
            "share P of the pixels turned black or white after downscaling (paper: 0.05)",
        ),
        ConditionKind(
            "motion:LENGTH",
            (1, 4096),
            True,
            "motion blur over {} in a random direction",
            "motion blur in a random direction before downscaling; LENGTH in pixels of the "
            "run's resolution (paper: 100 at 1024), or in % of the side (9.8%)",
            of_side=True,
        ),
        ConditionKind(
            "jpeg:Q",
            (1, 100),
            False,
            "JPEG compression of quality {}",
            "JPEG of quality Q, 1 to 100, after downscaling",
            whole=True,
        ),
    )
}
#: The forms of a condition, with their meaning.
CONDITIONS: Mapping[str, str] = {
    "clean": "downscaling alone",
    **{kind.form: kind.meaning for kind in CONDITION_KINDS.values()},
    "FORM+FORM": "several in the order written, motion before downscaling and so first: "
    "motion:100+gaussian:25",
}


@dataclass(frozen=True)
class Corruption:
    """One step of a condition: a kind of corruption, and its number."""

    kind: ConditionKind
    number: float
    #: Whether the number is in per cent of the side of the face.
    per_cent: bool = False

    def amount(self, side: int) -> float:
        """Return the number for faces of ``side`` px; of per cent at least the smallest one."""
        return max(self.kind.limits[0], self.number / 100 * side) if self.per_cent else self.number

    def describe(self) -> str:
        """Say what it does, with its number."""
        number = f"{self.number:g}"
        if self.kind.of_side:
            number += " % of the side" if self.per_cent else " pixels"
        return self.kind.description.format(number)


@dataclass(frozen=True)
class Condition:
    """A parsed condition: its corruptions in the order of their application, none for ``clean``."""

    steps: tuple[Corruption, ...]

    @property
    def before(self) -> tuple[Corruption, ...]:
        """Those of the face, before it is downscaled."""
        return tuple(step for step in self.steps if step.kind.before_downscaling)

    @property
    def after(self) -> tuple[Corruption, ...]:
        """Those of the small image."""
        return self.steps[len(self.before) :]


def parse_condition(text: str) -> Condition:
    """Parse ``clean | gaussian:SIGMA | saltpepper:P | motion:LENGTH | jpeg:Q``, or several with +.

    Raises
    ------
    InputError
        With the known forms if a name is unknown, with the allowed numbers, or if a corruption
        before downscaling stands behind one after it.
    """
    if text == "clean":
        return Condition(())
    parts = text.split("+")
    if len(parts) > MAX_CORRUPTIONS:
        raise InputError(f"condition {text[:80]!r}: at most {MAX_CORRUPTIONS} corruptions")
    steps = tuple(_parse_corruption(part, text) for part in parts)
    for one, following in itertools.pairwise(steps):
        if following.kind.before_downscaling and not one.kind.before_downscaling:
            raise InputError(
                f"condition {text!r}: {following.kind.name} comes before downscaling and "
                f"{one.kind.name} after it; write {following.kind.name} first"
            )
    return Condition(steps)


def _parse_corruption(part: str, condition: str) -> Corruption:
    """Parse one corruption of a condition."""
    name, _, text = part.partition(":")
    kind = CONDITION_KINDS.get(name)
    if kind is None and name == "clean" and part != condition:
        raise InputError(f"condition {condition!r}: clean has no corruptions; leave it out")
    if kind is None:
        hint = nearest(name, ["clean", *CONDITION_KINDS])
        raise InputError(f"unknown condition {condition!r}{hint} (forms: {', '.join(CONDITIONS)})")
    per_cent = kind.of_side and text.endswith("%")
    try:
        number = float(text.removesuffix("%") if per_cent else text)
    except ValueError:
        number = math.nan  # not within any limits
    if per_cent:
        if not 0 < number <= 100:
            raise InputError(f"condition {condition!r}: {kind.name} takes 0 to 100 % of the side")
        return Corruption(kind, number, per_cent)
    low, high = kind.limits
    if not low <= number <= high or (kind.whole and number % 1):
        numbers = "whole number" if kind.whole else "number"
        raise InputError(
            f"condition {condition!r}: {kind.form} takes a {numbers} from {low:g} to {high:g}"
        )
    return Corruption(kind, number)
