"""`pulse-audit run --until-decided`: rules judged after every round of faces.

A rule with a bound that holds at every look is decided as soon as it clears or breaks its limit.
Every other rule is judged once, at the budget, which is a size fixed beforehand; a run with such a
rule goes on to it. All verdicts are one family at the level of the rules, as in a check.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pulse_audit.gate.baseline import check_match, read_baseline
from pulse_audit.gate.case import Case
from pulse_audit.gate.check import GateResult
from pulse_audit.gate.check import publish as publish_result
from pulse_audit.gate.evidence import Judge
from pulse_audit.gate.measure import Trial, measure_run, must_match
from pulse_audit.gate.record import ArmRecord, Pairing, Record
from pulse_audit.gate.rules import (
    CORRECTED,
    DISTANCES,
    OF_GROUPS,
    SHARES,
    metric_of,
    read_rules,
)
from pulse_audit.gate.sequential import balanced_columns, blocks_of, evidence_so_far, why_once
from pulse_audit.gate.verdicts import decide, plan
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.names import nearest
from pulse_audit.stats.sequential import EveryLook, FixedLooks
from pulse_audit.store import Manifest, Run
from pulse_audit.summary.groups import TONES
from pulse_audit.summary.schema import SubsetKey
from pulse_audit.types import InputError, Unavailable


class UntilDecided:
    """Rules that a run adds faces for.

    Parameters
    ----------
    rules : Path
        A ``rules.yaml``, or the name of shipped rules.
    budget : int
        Faces of each group, at most.
    baseline : Path, optional
        A run directory, or a file that a check wrote.
    looks : int, optional
        Judge so often, at equal parts of the budget (O'Brien and Fleming); None: after every round,
        by betting.

    Raises
    ------
    InputError
        If rules or baseline cannot be used, or a rule needs a baseline and there is none.
    """

    def __init__(
        self, rules: Path, budget: int, baseline: Path | None = None, looks: int | None = None
    ) -> None:
        self.rules, self.budget, self.baseline, self.looks = rules, budget, baseline, looks
        self._held_to = read_rules(rules)
        if self._held_to.against_baseline and baseline is None:
            every = enumerate(self._held_to.rules, 1)
            number = next(n for n, rule in every if rule.against_baseline)
            raise InputError(
                f"{rules}: rule {number} needs a baseline; give --baseline RUN or FILE"
            )
        self._other = None if baseline is None else read_baseline(baseline, self._held_to.rules)
        self._cases: list[Case] = []
        self._once: dict[Case, str] = {}
        self.result: GateResult | None = None

    def check_plan(self, planned: Manifest) -> list[str]:
        """Check rules and baseline against the whole plan, before any work.

        Returns
        -------
        list of str
            What to know beforehand: rules that are judged once, and why.

        Raises
        ------
        InputError
            If a rule names what the run will not have, or the baseline does not fit the plan.
        """
        where = str(self.rules)
        metrics = {
            rule.metric: metric_of(rule, planned.metrics, where) for rule in self._held_to.rules
        }
        known = [*planned.dataset.vocabulary, *TONES]
        for number, rule in enumerate(self._held_to.rules, 1):
            for column in str(rule.group_by).split(",") if rule.group_by else ():
                if column not in known:
                    hint = nearest(column, known)
                    raise InputError(f"{where}: rule {number}: unknown group_by {column!r}{hint}")
            if why := _no_value(planned, metrics[rule.metric]):
                raise InputError(f"{where}: rule {number} would never be decided: {why}")
        # a record of what the run will have, without a value
        keys = dict.fromkeys(SubsetKey(u.arm, u.condition, u.scale) for u in planned.units)
        promised = Record.model_construct(
            must_match=must_match(planned, metrics),
            arms={name: arm.kind for name, arm in planned.arms.items()},
            settings=[ArmRecord(**key._asdict(), values=[]) for key in keys],
        )
        if self._other is not None:
            self._check_baseline(planned, promised, self._other)
        self._cases = plan(self._held_to, promised, self._other, where=where)
        balanced = balanced_columns(planned)
        reasons = [why_once(case, metrics[case.rule.metric], balanced) for case in self._cases]
        self._once = {case: why for case, why in zip(self._cases, reasons, strict=True) if why}
        told = dict.fromkeys((case.number, why) for case, why in self._once.items())
        return [
            f"rule {number} is judged once, at {self.budget} faces a group: {why}"
            for number, why in told
        ]

    def _check_baseline(self, planned: Manifest, promised: Record, other: Record) -> None:
        """Refuse a baseline that differs in more than the arm, or lacks faces or metrics."""
        check_match(promised, other, ["faces"], str(self.baseline))
        held = set(other.faces)
        wanted = [(face.id, face.sha256[:16]) for face in planned.faces]
        if missing := [name for name, digest in wanted if (name, digest) not in held]:
            raise InputError(
                f"{self.baseline}: lacks {len(missing):,} of the {len(wanted):,} faces that "
                f"--budget {self.budget} may take, {missing[0]} first; lower --budget, or make the "
                f"baseline with --per-group {self.budget} and the same --seed"
            )
        for rule in self._held_to.rules:
            is_raw = rule.against_baseline and rule.metric not in (SHARES, CORRECTED)
            if is_raw and not other.holds(rule.metric):
                raise InputError(
                    f"{self.baseline}: holds no {rule.metric}; write it again with these rules"
                )

    def is_decided(self, run: Run) -> bool:
        """Judge the faces that are there: whether every rule is decided, or the budget reached."""
        rounds = run.manifest.rounds
        assert rounds is not None
        if rounds.faces < self.budget and (self._once or rounds.faces not in rounds.faces_at_looks):
            return False
        self.result = self.judge(run)
        is_open = any(verdict.outcome == "inconclusive" for verdict in self.result.verdicts)
        return rounds.faces >= self.budget or not is_open

    def judge(self, run: Run) -> GateResult:
        """Judge every rule on the faces that are there; `check_plan` comes first."""
        rounds = run.manifest.rounds
        assert rounds is not None and self._cases
        trial = measure_run(run, self._held_to.rules, str(self.rules))
        level, last = self._held_to.alpha / len(self._cases), rounds.faces >= self.budget
        blocks, verdicts = blocks_of(run.manifest), []
        schedule: EveryLook | FixedLooks = EveryLook(self.budget)
        if rounds.looks is not None:
            every = tuple(rounds.faces_at_looks)
            schedule = FixedLooks(every, sum(look <= rounds.faces for look in every))
        for case in self._cases:
            if case not in self._once:
                evidence = evidence_so_far(case, trial, self._other, blocks, level, schedule, last)
            elif last:
                evidence = self._judge_of(case, trial).evidence(case)
            else:
                evidence = Unavailable(self._once[case])
            verdicts.append(decide(case, evidence, level))
        note = (
            f"sampled until decided: {rounds.faces} faces of each group, of at most {self.budget}"
        )
        if not last:
            note += (
                "; the verdicts hold at every look, but intervals and statements of the report "
                "assume a size that was fixed beforehand, and overstate what was found"
            )
        return GateResult(
            run.path,
            self.rules,
            self.baseline,
            self._held_to.alpha,
            verdicts,
            [note],
            samples_sha256=run.samples_sha256,
        )

    def publish(self, run: Run) -> None:
        """Judge a finished run, and write ``RUN/gate/``."""
        self.result = self.judge(run)
        publish_result(self.result)

    def _judge_of(self, case: Case, trial: Trial) -> Judge:
        """Return the judge of a size fixed beforehand."""
        if case.baseline is None or self._other is None:
            return Judge(trial, None, None, self._held_to.alpha, len(self._cases))
        place = {name: number for number, (name, _) in enumerate(self._other.faces)}
        faces = np.array([place[name] for name, _ in trial.record.faces], dtype=np.int64)
        pairing = Pairing(np.arange(len(faces), dtype=np.int64), faces, True)
        return Judge(trial, self._other, pairing, self._held_to.alpha, len(self._cases))


def _no_value(planned: Manifest, metric: MetricDefinition) -> str:
    """Why a metric will have no value, as far as the plan knows; empty where it may have one."""
    if metric.name in DISTANCES:
        return f"{metric.name}: {planned.features.why}" if planned.features.why else ""
    if metric.name in OF_GROUPS:
        missing = planned.attributes is None
        return f"{metric.name} needs an attribute model" if missing else ""
    columns = [*(metric.columns or metric.reads)]
    reasons = [why for column in columns if (why := planned.unavailable.get(column))]
    return f"{metric.name}: {reasons[0]}" if reasons else ""
