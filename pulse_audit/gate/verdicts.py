"""Pass, fail or inconclusive: what rules say of a run, with an error rate over all of them.

A rule passes only where its bound clears the limit, and fails only where the simultaneous bound
shows it broken. Each verdict has the level alpha divided by the number of verdicts: the chance of
any false pass, and of any false fail, is at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from scipy.special import ndtri

from pulse_audit.gate.baseline import pair_arms
from pulse_audit.gate.case import Case, Evidence
from pulse_audit.gate.evidence import Judge
from pulse_audit.gate.measure import Trial
from pulse_audit.gate.record import Pairing, Record, pair_faces
from pulse_audit.gate.rules import Rule, Rules, choose_arms
from pulse_audit.gate.sides import DROP
from pulse_audit.names import nearest
from pulse_audit.stats.power import detectable_drop, faces_for_drop
from pulse_audit.types import InputError, Unavailable

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
#: Power that sample sizes are given for.
POWER = 0.9
#: More faces a group than this are no advice.
MOST_FACES = 1_000_000


@dataclass(frozen=True)
class Verdict:
    """What a rule says of one arm under one condition and scale.

    Parameters
    ----------
    rule : int
        Its place in the file, from 1; ``text`` is the rule itself.
    minus : str or None
        The baseline's arm.
    outcome : str
        ``inconclusive`` also where nothing could be judged; ``judged`` is False then.
    metric : str
        What was judged: the corrected estimate where a rule names an uncorrected attribute rate.
    value, pass_bound, fail_bound : float or None
        The statistic, or by how much the trial is worse; a pass needs ``pass_bound`` within the
        limit, a fail ``fail_bound`` beyond it.
    limit : float
    groups : tuple of str
        Those that give the value.
    faces, faces_needed : int or None
        In the smallest group (the whole sample for a mean); about how many would settle the rule,
        if the estimates were the truth. None where no number would.
    detectable : float or None
        Smallest worsening, or distance from the limit, that this sample shows with 90 % power.
    reason, method : str
    """

    rule: int
    text: str
    arm: str
    condition: str
    scale: int
    minus: str | None
    outcome: Outcome
    judged: bool
    metric: str
    value: float | None
    pass_bound: float | None
    fail_bound: float | None
    limit: float
    groups: tuple[str, ...]
    faces: int | None
    faces_needed: int | None
    detectable: float | None
    reason: str
    method: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "groups": list(self.groups)}

    @property
    def is_possible(self) -> bool:
        """Whether a check can have said this: a pass and a fail have the bound that shows them."""
        if self.outcome == "inconclusive":
            return True
        bound = self.pass_bound if self.outcome == "pass" else self.fail_bound
        if not self.judged or bound is None:
            return False
        # how far the bound lies beyond the limit; both are rounded
        beyond = (self.limit - bound) if " at_least " in self.text else (bound - self.limit)
        near = 1e-9 * max(1.0, abs(self.limit))
        return beyond <= near if self.outcome == "pass" else beyond >= -near

    @property
    def title(self) -> str:
        """Rule, arm and setting in one line."""
        against = f" against {self.minus}" if self.minus else ""
        return f"{self.text}: {self.arm}{against} ({self.condition}, x{self.scale})"


def plan(
    rules: Rules,
    trial: Record,
    baseline: Record | None,
    *,
    where: str,
    arm: str | None = None,
    baseline_arm: str | None = None,
    can_wait: bool = False,
) -> list[Case]:
    """List the verdicts to be made: every rule on every arm, condition and scale it selects.

    With ``can_wait``, rules against a baseline are left out where there is none yet.

    Raises
    ------
    InputError
        If an arm, condition or scale is unknown, arms do not pair, or a baseline is missing.
    """
    if rules.against_baseline and baseline is None and not can_wait:
        number = next(n for n, rule in enumerate(rules.rules, 1) if rule.against_baseline)
        raise InputError(f"{where}: rule {number} needs a baseline; give --baseline RUN or FILE")
    keys, cases = [setting.key for setting in trial.settings], list[Case]()
    known_keys = {setting.key for setting in baseline.settings} if baseline else set()
    for number, rule in enumerate(rules.rules, 1):
        if rule.against_baseline and baseline is None:
            continue
        place = f"{where}: rule {number}"
        arms = _selected(rule, trial, arm, place)
        pairs: dict[str, str | None] = dict.fromkeys(arms)
        if rule.against_baseline and baseline is not None:
            if baseline_arm is not None and baseline_arm not in baseline.arms:
                hint = nearest(baseline_arm, list(baseline.arms))
                raise InputError(f"--baseline-arm: the baseline has no arm {baseline_arm!r}{hint}")
            theirs = _known(rule, baseline)
            pairs = dict(pair_arms(arms, theirs, baseline_arm, place))
        for name, values in (("condition", rule.condition), ("scale", rule.scale)):
            known = list(dict.fromkeys(str(getattr(key, name)) for key in keys))
            if values is not None and str(values) not in known:
                raise InputError(f"{place}: unknown {name} {values!r}{nearest(str(values), known)}")
        chosen = [
            key
            for key in keys
            if key.arm in pairs
            and rule.condition in (None, key.condition)
            and rule.scale in (None, key.scale)
        ]
        for key in chosen:
            other = pairs[key.arm]
            partner = None if other is None else key._replace(arm=other)
            # after an accepted difference of conditions or scales, what both have is compared
            if partner is None or partner in known_keys:
                cases.append(Case(number, rule, key, partner))
        if not any(case.number == number for case in cases):
            raise InputError(f"{place}: nothing to judge: no condition and scale is on both sides")
    return cases


def _selected(rule: Rule, record: Record, arm: str | None, where: str) -> list[str]:
    judged = [name for name, kind in record.arms.items() if kind != "interpolation"]
    if arm is None:
        return choose_arms(rule, list(record.arms), judged, where)
    if arm not in record.arms:
        raise InputError(f"--arm: unknown arm {arm!r}{nearest(arm, list(record.arms))}")
    if rule.arm is not None and arm not in choose_arms(rule, list(record.arms), judged, where):
        raise InputError(f"{where}: it is about the arms {rule.arm!r}, and --arm {arm} is not one")
    return [arm]


def _known(rule: Rule, record: Record) -> list[str]:
    """Arms of a baseline that a rule selects; none is no fault yet, the only pair may be named."""
    judged = [name for name, kind in record.arms.items() if kind != "interpolation"]
    try:
        return choose_arms(rule, list(record.arms), judged, "")
    except InputError:
        return judged


def judge(
    rules: Rules, trial: Trial, baseline: Record | None, cases: Sequence[Case]
) -> list[Verdict]:
    """Judge every case; all verdicts are one family at the level of the rules."""
    pairing: Pairing | None = None
    if baseline is not None:
        pairing = pair_faces(trial.record, baseline)
    judges = {
        against: Judge(
            trial,
            baseline if against else None,
            pairing if against else None,
            rules.alpha,
            len(cases),
        )
        for against in (False, True)
    }
    return [
        decide(case, judges[case.baseline is not None].evidence(case), rules.alpha / len(cases))
        for case in cases
    ]


def decide(case: Case, evidence: Evidence | Unavailable, level: float) -> Verdict:
    """Turn evidence into a verdict; what is unavailable is never a pass."""
    rule, key = case.rule, case.key
    minus = None if case.baseline is None else case.baseline.arm
    head = (case.number, rule.text, *key, minus)
    if isinstance(evidence, Unavailable) or not math.isfinite(evidence.gap.value):
        reason = "there are too few groups or faces to compare"
        metric = rule.metric
        if isinstance(evidence, Unavailable):
            reason = evidence.reason
        nothing = None, None, None, rule.limit, ()
        return Verdict(*head, "inconclusive", False, metric, *nothing, None, None, None, reason, "")

    gap = evidence.gap
    outcome: Outcome = gap.decide(rule.limit)
    needed, detectable = settling(evidence, rule.limit, level), None
    held_back = {"pass": evidence.no_pass, "fail": evidence.no_fail}.get(outcome, "")
    if held_back:
        outcome, needed = "inconclusive", None
    bounds = {
        "pass": f"shown to be within {rule.limit:g} (bound {gap.pass_bound:.3g})",
        "fail": f"shown to be beyond {rule.limit:g} (bound {gap.fail_bound:.3g})",
        "inconclusive": f"neither bound ({gap.fail_bound:.3g}, {gap.pass_bound:.3g}) settles it",
    }
    sentences = [bounds[outcome]]
    if outcome == "inconclusive":
        if held_back:
            sentences = [f"a {gap.decide(rule.limit)} cannot be shown: {held_back}"]
        elif needed is None:
            sentences.append("the estimate is so near the limit that no number of faces is advice")
        else:
            sentences.append(
                f"about {needed:,} faces{_each(rule)} would, {evidence.faces:,} are there"
            )
    if evidence.design is not None:
        detectable = detectable_drop(evidence.faces, evidence.design, POWER)
        wanted = rule.limit + DROP
        if wanted < evidence.design.base:
            least = faces_for_drop(wanted, evidence.design, POWER)
            if evidence.faces < least:
                sentences.append(below_table(evidence, least, wanted, detectable, _each(rule)))
    elif not evidence.every_look and (detectable := shown_distance(evidence, level)) is not None:
        beyond = f"{detectable:.2g} beyond the limit"
        sentences.append(f"{beyond} would be shown with {100 * POWER:.0f} % power")
    if evidence.caveat:
        sentences.append(evidence.caveat)
    if evidence.left_out:
        sentences.append(f"{evidence.left_out:,} faces have no value and are left out")
    ends = (_finite(gap.value), _finite(gap.pass_bound), _finite(gap.fail_bound), rule.limit)
    return Verdict(
        *head,
        outcome,
        True,
        evidence.metric,
        *ends,
        evidence.groups,
        evidence.faces,
        needed if outcome == "inconclusive" else None,
        None if detectable is None else _finite(detectable),
        "; ".join(sentences),
        gap.method,
    )


def below_table(
    evidence: Evidence, least: int, drop: float, detectable: float | None, each: str
) -> str:
    """Say what a sample below the tabulated size detects."""
    shown = "no drop" if detectable is None else f"a drop of {100 * detectable:.0f} points"
    return (
        f"{evidence.faces:,} faces{each} detect {shown} ({100 * POWER:.0f} % power), "
        f"{100 * drop:.0f} points need {least:,}"
    )


def settling(evidence: Evidence, limit: float, level: float) -> int | None:
    """About how many faces (in each group) would settle a rule, if the estimate were the truth.

    The distance of the bound that would settle it shrinks with the root of the number of faces; the
    estimate has to keep its own error's distance, for 90 % power.
    """
    gap = evidence.gap
    sign = 1.0 if gap.larger_is_worse else -1.0
    distance = sign * (limit - gap.value)
    # a bound may have met the end of its range: then the other one tells the error
    half = max(abs(bound - gap.value) for bound in (gap.pass_bound, gap.fail_bound))
    if not math.isfinite(half) or distance == 0:
        return None
    factor = 1 + float(ndtri(POWER) / ndtri(1 - level))
    needed = evidence.faces * (half * factor / distance) ** 2
    return math.ceil(needed) if needed <= MOST_FACES else None


def shown_distance(evidence: Evidence, level: float) -> float | None:
    """Distance beyond the limit that a sample of this size shows to be broken, with 90 % power.

    None where nothing varies, as between identical runs.
    """
    gap = evidence.gap
    half = max(abs(bound - gap.value) for bound in (gap.pass_bound, gap.fail_bound))
    factor = 1 + float(ndtri(POWER) / ndtri(1 - level / evidence.comparisons))
    return half * factor if 0 < half < math.inf else None


def _each(rule: Rule) -> str:
    return "" if rule.statistic == "mean" else " a group"


def _finite(number: float) -> float | None:
    return float(f"{number:.10g}") if math.isfinite(number) else None
