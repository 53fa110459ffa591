"""What an audit claims first: who was kept, who became whom, how arms differ, what is not shown.

All quantities of the first screen are corrected for the attribute model's errors, and their
intervals hold together (`pulse_audit.summary.joint`). Where the errors cannot be corrected nothing
is claimed, and the reason is the finding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np

from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.fairness.drift import MOST_DRIFT, MOST_GROUPS, tipping_point
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.summary.joint import Interval, JointIntervals, joint_intervals
from pulse_audit.summary.schema import ALL, Claim, Finding

#: Smaller differences are not claimed.
LEAST_DIFFERENCE = 0.01
#: Groups, or arms, whose retention differs by no more are called alike.
MARGIN = 0.10
#: An interval of retention wider than this says too little to be printed.
WIDEST = 0.50


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the first screen is made of: the arms on trial under one condition and scale.

    Parameters
    ----------
    attribute : str
        As in the samples; ``group_by`` of all claims.
    name : str
        The attribute in a sentence.
    groups : sequence of str, (k,)
    labels_from : str
        ``people`` or ``model``.
    shifts : mapping of str to CorrectedShift
        Of the arms whose correction can be used, with aligned bootstrap replicates.
    agreement : mapping of str to (low, value, high)
        Of every arm: share of draws whose output the attribute model gives the face's label.
    originals : float or None
        The same share of the originals; None where it is 1 by construction or unknown.
    raw_gaps : mapping of str to float
        Of every arm: the difference of agreement between groups that is shown at the level `ALPHA`,
        0 if none. Where a model gave the labels, an inequality must be shown by both.
    planted : mapping of str to ndarray, (k, k)
        True shift matrices of planted arms.
    faces : int
        Of the smallest group that has any.
    reason : str
        Why corrections cannot be used, where that is not a matter of size.
    """

    attribute: str
    name: str
    groups: Sequence[str]
    labels_from: str
    shifts: Mapping[str, CorrectedShift]
    agreement: Mapping[str, Interval]
    originals: float | None
    raw_gaps: Mapping[str, float]
    planted: Mapping[str, FloatArray] = field(default_factory=dict)
    faces: int = 0
    reason: str = ""

    def claim(
        self,
        metric: str,
        arm: str,
        direction: Literal["higher", "lower", "unequal", "equivalent"],
        points: float,
        group: str | None = None,
        *,
        to_group: str | None = None,
        than_group: str | None = None,
        minus: str | None = None,
        drift: float | None = None,
    ) -> Claim:
        """Make a claim about corrected shares; ``points`` are per cent."""
        return Claim(
            metric=metric,
            correction="corrected",
            arm=arm,
            minus=minus,
            group_by=ALL if group == ALL else self.attribute,
            group=group,
            than_group=than_group,
            to_group=to_group,
            direction=direction,
            bound=points / 100,
            tipping_point=drift,
        )

    def weights(self, arm: str) -> FloatArray:
        """Weights of the cells, (k, k), whose sum is the arm's retention."""
        draws = self.shifts[arm].draws
        return np.asarray(np.diag(draws / draws.sum()), dtype=np.float64)

    def tipping_point(self, terms: Mapping[str, FloatArray], low: float) -> float | None:
        """Drift that undoes a claim about a sum, over arms, of weights (k, k) times shares.

        ``low`` is the lower end of its interval. None where a model gave the labels, which drifts
        with the answers on outputs, and for more groups than can be tried.
        """
        confusion = self.shifts[next(iter(terms))].confusion.shares
        if self.labels_from == "model" or len(confusion) > MOST_GROUPS:
            return None
        # one matrix of weighted shares: the quantity is linear in the observed ones
        sums = [
            (np.nan_to_num(self.shifts[arm].observed), weights) for arm, weights in terms.items()
        ]

        def corrected(matrices: FloatArray) -> FloatArray:
            inverses = np.linalg.inv(matrices)
            parts = [
                ((observed @ inverses) * weights).sum(axis=(1, 2)) for observed, weights in sums
            ]
            return np.asarray(np.sum(parts, axis=0), dtype=np.float64)

        error = float(corrected(confusion[None])[0]) - low
        return round(tipping_point(corrected, confusion, error), 3)


def first_screen(evidence: Evidence) -> list[Finding]:
    """At most four sentences: who was kept, groups compared, who became whom, arms compared."""
    if not evidence.shifts:
        return agreement(evidence, list(evidence.agreement)) if evidence.agreement else []
    intervals = joint_intervals(evidence.shifts)
    # arms whose retention is known well enough to be worth a number
    measured = [
        arm for arm, interval in intervals.kept.items() if interval.high - interval.low <= WIDEST
    ]
    findings: list[Finding] = []
    if measured:
        findings += [kept(evidence, intervals, measured)]
    if rest := [arm for arm in evidence.agreement if arm not in measured]:
        findings += agreement(evidence, rest)
    if measured:
        findings += [compared_groups(evidence, intervals, measured)]
        findings += [became(evidence, intervals, measured)]
    if len(measured) > 1:
        findings += [compared_arms(evidence, intervals, measured)]
    return findings


def kept(evidence: Evidence, intervals: JointIntervals, arms: Sequence[str]) -> Finding:
    """Retention of every arm; the ends of each interval are claims.

    Where a model gave the labels only the upper end is one: its errors on outputs agree with those
    on originals more often than the correction assumes, which makes retention look higher.
    """
    parts, claims = [], []
    for arm in arms:
        interval = intervals.kept[arm]
        low, high = floor(interval.low), ceiling(interval.high)
        claims.append(evidence.claim("retention", arm, "lower", high, ALL))
        if evidence.labels_from == "model":
            parts.append(f"at most {high} % of draws by {arm}")
        else:
            parts.append(f"{100 * interval.value:.0f} % [{low}, {high}] of draws by {arm}")
            claims.append(evidence.claim("retention", arm, "higher", low, ALL))
    text = (
        f"Corrected for classifier errors, the apparent {evidence.name} was kept in "
        f"{joined(parts)}."
    )
    return Finding(text=text, screen="first", claims=claims)


def agreement(evidence: Evidence, arms: Sequence[str]) -> list[Finding]:
    """Uncorrected agreement with the labels, where no correction can be used: no claim."""
    shares = []
    for arm in arms:
        ends = evidence.agreement[arm]
        percent = f"{100 * ends.value:.0f} % [{floor(ends.low)}, {ceiling(ends.high)}]"
        shares.append(f"{percent} of outputs of {arm}")
    label = f"{evidence.name} label"
    if evidence.labels_from == "model":
        label = f"model's {evidence.name} label of the original"
    text = f"The classifier agrees with the {label} in {joined(shares)}"
    if evidence.originals is not None:
        text += f", and in {100 * evidence.originals:.0f} % of originals"
    whom = "" if len(arms) == len(evidence.agreement) else f" for {joined(arms, 'or')}"
    why = evidence.reason or (
        f"the classifier's errors cannot be corrected at {faces_each(evidence.faces)}"
    )
    cannot = f"who was kept and who became whom is not shown{whom}: {why}"
    return [Finding(text=sentence(each), screen="first") for each in (text, cannot)]


def compared_groups(evidence: Evidence, intervals: JointIntervals, arms: Sequence[str]) -> Finding:
    """Inequality of retention between groups: shown, ruled out beyond the margin, or neither."""
    parts, claims = [], list[Claim]()
    alike, unclear, most = [], [], 0
    for arm in arms:
        if not (pairs := intervals.groups[arm]):
            continue
        (i, j), widest = max(pairs.items(), key=lambda pair: pair[1].low)
        reach = ceiling(min(1.0, max(interval.high for interval in pairs.values())))
        is_supported = evidence.labels_from == "people" or evidence.raw_gaps.get(arm, 0.0) > 0
        if widest.low >= LEAST_DIFFERENCE and is_supported:
            one, other, least = evidence.groups[i], evidence.groups[j], floor(widest.low)
            parts.append(f"{arm} kept {one} at least {points(least)} more often than {other}")
            weights = np.zeros((len(evidence.groups),) * 2)
            weights[i, i], weights[j, j] = 1, -1
            drift = evidence.tipping_point({arm: weights}, widest.low)
            claims += [
                evidence.claim("retention", arm, "unequal", least, drift=drift),
                evidence.claim(
                    "retention", arm, "higher", least, one, than_group=other, drift=drift
                ),
            ]
        elif reach <= 100 * MARGIN:
            alike.append(arm)
            claims.append(evidence.claim("retention", arm, "equivalent", 100 * MARGIN))
        else:
            unclear.append(arm)
            most = max(most, reach)
    if parts:
        k = int((next(iter(evidence.shifts.values())).faces > 0).sum())
        parts[-1] += f" (of {k * (k - 1) // 2} pairs){undone(claims)}"
    if alike:
        parts.append(f"{joined(alike)} kept all groups alike to within {100 * MARGIN:.0f} points")
    if unclear:
        bound = not_ruled_out(most, evidence.faces)
        parts.append(f"for {joined(unclear)} no inequality between groups is shown ({bound})")
    return Finding(text=sentence("; ".join(parts)), screen="first", claims=claims)


def became(evidence: Evidence, intervals: JointIntervals, arms: Sequence[str]) -> Finding:
    """Conversion from group to group that is shown to be largest, of every arm."""
    parts, claims, unclear = [], list[Claim](), []
    for arm in arms:
        cells = intervals.cells[arm]
        (i, j), largest = max(cells.items(), key=lambda cell: cell[1].low)
        if largest.low < LEAST_DIFFERENCE:
            unclear.append(arm)
            continue
        group, to_group, least = evidence.groups[i], evidence.groups[j], floor(largest.low)
        truth = ""
        if arm in evidence.planted:
            truth = f" (planted: {100 * evidence.planted[arm][i, j]:.0f} %)"
        parts.append(f"{arm} turned at least {least} % of {group} faces {to_group}{truth}")
        weights = np.zeros((len(evidence.groups),) * 2)
        weights[i, j] = 1
        drift = evidence.tipping_point({arm: weights}, largest.low)
        claims.append(
            evidence.claim("shift", arm, "higher", least, group, to_group=to_group, drift=drift)
        )
    if parts:
        number = len(intervals.cells[arms[0]])
        parts[-1] += f", the largest of {number} conversions{undone(claims)}"
    if unclear:
        parts.append(f"for {joined(unclear)} no conversion between groups is shown")
    return Finding(text=sentence("; ".join(parts)), screen="first", claims=claims)


def compared_arms(evidence: Evidence, intervals: JointIntervals, arms: Sequence[str]) -> Finding:
    """Differences of retention between arms on the same faces."""
    parts, claims = [], list[Claim]()
    alike, unclear, most = [], [], 0
    for one, other in combinations(arms, 2):
        interval = intervals.arms[one, other]
        if interval.high < 0:
            one, other, interval = other, one, interval.reversed()
        reach = ceiling(min(1.0, max(-interval.low, interval.high)))
        if interval.low >= LEAST_DIFFERENCE:
            least = floor(interval.low)
            parts.append(f"{one} exceeds {other} by at least {points(least)}")
            weights = {one: evidence.weights(one), other: -evidence.weights(other)}
            drift = evidence.tipping_point(weights, interval.low)
            claims.append(
                evidence.claim("retention", one, "higher", least, ALL, minus=other, drift=drift)
            )
        elif reach <= 100 * MARGIN:
            alike.append(f"{one} and {other}")
            claims.append(
                evidence.claim("retention", one, "equivalent", 100 * MARGIN, ALL, minus=other)
            )
        else:
            unclear.append(f"{one} and {other}")
            most = max(most, reach)
    if parts:
        parts[-1] += undone(claims)
    if alike:
        parts.append(f"{'; '.join(alike)} are alike to within {100 * MARGIN:.0f} points")
    if unclear:
        bound = not_ruled_out(most, evidence.faces)
        parts.append(f"no difference is shown between {'; '.join(unclear)} ({bound})")
    text = f"Retention on the same faces: {'; '.join(parts)}."
    return Finding(text=text, screen="first", claims=claims)


def undone(claims: Sequence[Claim]) -> str:
    """Say by which drift of the attribute model's accuracy the weakest claim would be undone."""
    drifts = [claim.tipping_point for claim in claims if claim.tipping_point is not None]
    if not drifts or min(drifts) >= MOST_DRIFT:
        return ""
    return f", unless classifier accuracy drifted {100 * min(drifts):.0f} points"


def not_ruled_out(most: int, faces: int) -> str:
    """Say what remains possible; an interval up to everything is not worth printing."""
    if most >= 100 * WIDEST:
        return f"{faces_each(faces)} {'is' if faces == 1 else 'are'} too few to tell"
    return f"up to {points(most)} {'is' if most == 1 else 'are'} not ruled out"


def faces_each(number: int) -> str:
    """Spell out how many faces a group has."""
    return f"{number} face{'' if number == 1 else 's'} a group"


def points(number: int) -> str:
    """Spell out a number of percentage points."""
    return f"{number} point{'' if number == 1 else 's'}"


def floor(share: float) -> int:
    """Per cent, rounded down: a bound that is printed must not exceed the one computed."""
    return math.floor(100 * share + 1e-9)


def ceiling(share: float) -> int:
    """Per cent, rounded up."""
    return math.ceil(100 * share - 1e-9)


def joined(parts: Sequence[str], word: str = "and") -> str:
    """Join as in ``a, b and c``; more than four parts are cut after the third."""
    if len(parts) > 4:
        parts = [*parts[:3], f"{len(parts) - 3} more"]
    return f" {word} ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def sentence(text: str) -> str:
    """Begin with a capital, unless with the name of an arm, and end with a full stop."""
    is_word = text.split()[0].isalpha() and text.split()[0] in ("who", "for")
    return f"{text[0].upper() if is_word else text[0]}{text[1:]}."
