"""What the data say on one rule and arm: a worst case over groups with its two bounds.

Absolute rules on metrics of apparent groups are judged on estimates corrected for the attribute
model's errors, and against a baseline on what they name: the same model reads both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pulse_audit.fairness.confusion import NONE
from pulse_audit.fairness.correction import CorrectedShift, corrected_shifts
from pulse_audit.fairness.shift import Draws
from pulse_audit.gate.baseline import Pairing
from pulse_audit.gate.record import GroupingRecord, Outputs, Record, Trial
from pulse_audit.gate.rules import ATTRIBUTE_RATES, CORRECTED, Rule, higher_is_better
from pulse_audit.gate.sides import (
    Sides,
    both_sides,
    chosen_groups,
    draws_of,
    renumbered,
    totals,
)
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.seeding import fingerprint
from pulse_audit.stats import against, gaps
from pulse_audit.stats.against import Sampled
from pulse_audit.stats.gaps import Gap, GroupStatistic
from pulse_audit.stats.intervals import Groups, IntArray, correlation_of_totals
from pulse_audit.stats.paired import IDENTICAL
from pulse_audit.stats.power import DropDesign
from pulse_audit.summary.schema import ALL, SubsetKey
from pulse_audit.types import InputError, Unavailable

#: Replicates of the sampling errors of a correction, at least and at most.
REPLICATES, MOST_REPLICATES = 4000, 20_000


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
    group; ``left_out`` faces without a value; ``design`` what a drop is detected with, where the
    rule is about a rate against a baseline; ``no_pass`` why a pass cannot be given.
    """

    gap: Gap
    metric: str
    groups: tuple[str, ...]
    faces: int
    left_out: int = 0
    design: DropDesign | None = None
    no_pass: str = ""


@dataclass(frozen=True, eq=False)
class Judge:
    """A trial, the baseline beside it, and the error rate of every verdict."""

    trial: Trial
    baseline: Record | None
    pairing: Pairing | None
    alpha: float
    verdicts: int

    @property
    def level(self) -> float:
        """Error rate of each verdict: all of them are one family (Bonferroni)."""
        return self.alpha / self.verdicts

    def evidence(self, case: Case) -> Evidence | Unavailable:
        """Find the evidence of a case, or why there is none."""
        rule, metric = case.rule, self.trial.metrics[case.rule.metric]
        grouping = self.trial.record.grouping(rule.group_by or ALL)
        assert grouping is not None
        if metric.name in ATTRIBUTE_RATES and grouping.attribute is None:
            return Unavailable(self.trial.record.why_not(metric.name))
        if metric.name == CORRECTED or (metric.name in ATTRIBUTE_RATES and case.baseline is None):
            if metric.name not in (CORRECTED, "retention"):
                return Unavailable(
                    f"{metric.name} cannot be corrected for the attribute model's errors, and by "
                    "itself says as much of that model as of the arm: use retention_corrected"
                )
            return self._corrected(case, grouping)
        return self._raw(case, metric, grouping)

    def _raw(
        self, case: Case, metric: MetricDefinition, grouping: GroupingRecord
    ) -> Evidence | Unavailable:
        """Evidence on measured values."""
        attribute = grouping.attribute if metric.name in ATTRIBUTE_RATES else None
        record, proportion = self.trial.record, metric.kind == "proportion"
        values = record.values(case.key, metric.name, attribute)
        if values is None:
            return Unavailable(record.why_not(metric.name))
        names, of_face = chosen_groups(case.rule, grouping)
        seed = fingerprint("gate", *case.key, metric.name, grouping.name, case.rule.statistic)
        seed %= 2**32
        if case.baseline is None:
            sides = Sides(*totals(values, of_face, np.arange(len(of_face)), len(names), proportion))
            if missing := sides.missing(names):
                return missing
            gap = self._absolute(case.rule, metric, sides.trial, seed)
            return found(gap, metric.name, names, sides)

        assert self.baseline is not None and self.pairing is not None
        other = self.baseline.grouping(grouping.name)
        theirs = self.baseline.values(case.baseline, metric.name, attribute)
        if other is None or not self.baseline.holds(metric.name):
            raise InputError(
                f"the baseline holds no {metric.name} by {grouping.name}; write it again with "
                "these rules"
            )
        if theirs is None:
            return Unavailable(f"in the baseline: {self.baseline.why_not(metric.name)}")
        other_of_face = renumbered(case.rule, other, names)
        sides = both_sides(
            (values, of_face), (theirs, other_of_face), self.pairing, len(names), proportion
        )
        if missing := sides.missing(names):
            return missing
        assert sides.baseline is not None
        better = higher_is_better(case.rule, metric)
        if case.rule.statistic in ("worst_group", "mean"):
            gap = against.largest_drop(
                sides.trial,
                sides.baseline,
                paired=self.pairing.paired,
                proportion=proportion,
                higher_is_better=better,
                alpha=self.level,
                seed=seed,
            )
            design = None
            if proportion:
                design = drop_design(sides, self, case.rule.limit, better)
            return replace(found(gap, metric.name, names, sides), design=design)
        if sides.identical:
            return found(no_change(case.rule, sides.trial), metric.name, names, sides)
        # both sides are resampled, where paired the same faces of both
        replicates = gaps.replicates_at(self.level)
        seeds = (seed, seed if self.pairing.paired else seed + 1)
        one, two = (
            against.sampled_means(side, proportion, replicates, each)
            for side, each in zip((sides.trial, sides.baseline), seeds, strict=True)
        )
        if one is None or two is None:
            return Unavailable("a group has fewer than two faces")
        statistic = statistic_of(case.rule)
        gap = against.worst_of_sampled(statistic, one, two, alpha=self.level)
        return found(gap, metric.name, names, sides)

    def _absolute(self, rule: Rule, metric: MetricDefinition, sample: Groups, seed: int) -> Gap:
        """Bounds of a statistic by itself, from the draws that the totals of faces stand for."""
        proportion = metric.kind == "proportion"
        data = draws_of(sample, proportion)
        if rule.statistic == "max_gap":
            return gaps.max_gap(*data, proportion=proportion, alpha=self.level, seed=seed)
        if rule.statistic == "min_ratio":
            return gaps.min_ratio(*data, proportion=proportion, alpha=self.level)
        if rule.statistic == "max_abs":
            return gaps.max_abs(*data, alpha=self.level, seed=seed)
        return gaps.worst_group(
            *data,
            proportion=proportion,
            higher_is_better=higher_is_better(rule, metric),
            alpha=self.level,
            seed=seed,
        )

    def _corrected(self, case: Case, grouping: GroupingRecord) -> Evidence | Unavailable:
        """Evidence on retention corrected for the attribute model's errors."""
        record, rule = self.trial.record, case.rule
        labels = record.attribute(str(grouping.attribute))
        assert labels is not None
        if grouping.name not in (ALL, labels.name):
            return Unavailable(
                f"retention of {labels.name} is corrected by {labels.name} alone, not by "
                f"{grouping.name}"
            )
        confusion = self.trial.confusions[labels.name]
        if isinstance(confusion, Unavailable):
            return confusion
        sides = [(record, case.key)]
        if case.baseline is not None:
            assert self.baseline is not None
            sides.append((self.baseline, case.baseline))
        draws, outputs = [], []
        for number, (side, key) in enumerate(sides):
            theirs, shown = side.attribute(labels.name), side.outputs(key, labels.name)
            if theirs is None or shown is None or theirs.groups != labels.groups:
                raise InputError(
                    f"the baseline holds no outputs by {labels.name} in these groups; write it "
                    "again with these rules"
                )
            used, numbers = self._numbered(number, len(side.faces))
            outputs.append([shown.predicted[face] for face in used.tolist()])
            each = draws_by_face(shown, theirs.truth, used, numbers, len(labels.groups))
            if each is None:
                return Unavailable(f"no face has a group of {labels.name}")
            draws.append(each)
        shifts = corrected_shifts(
            draws,
            confusion,
            labels_from=labels.labels_from,
            replicates=min(max(REPLICATES, math.ceil(20 / self.level)), MOST_REPLICATES),
            seed=fingerprint("gate", "correction", case.key.condition, case.key.scale, labels.name),
        )
        for shift in shifts:
            if shift.grade != "usable":
                return Unavailable(f"the correction is {shift.grade}: {shift.reason}")
        # groups that have faces, or the whole sample
        present = np.flatnonzero(np.all([shift.faces > 0 for shift in shifts], axis=0))
        if rule.group is not None:
            present = present[[labels.groups[group] == rule.group for group in present]]
            if not len(present):
                return Unavailable(f"group {rule.group} has no face")
        whole = rule.statistic == "mean" and rule.group is None
        sampled = [corrected_sample(shift, present, whole) for shift in shifts]
        names = [ALL] if whole else [labels.groups[group] for group in present]
        paired = self.pairing is not None and self.pairing.paired
        better, statistic = (
            higher_is_better(rule, self.trial.metrics[rule.metric]),
            statistic_of(rule),
        )
        if len(outputs) == 2 and paired and outputs[0] == outputs[1]:
            gap = no_change(rule, Groups([], [], sampled[0].faces, sampled[0].draws))
        else:
            gap = against.worst_of_sampled(
                statistic, *sampled, higher_is_better=better, alpha=self.level
            )
        evidence = Evidence(
            gap,
            CORRECTED,
            tuple(names[group] for group in gap.groups),
            int(sampled[0].faces.min()),
        )
        if labels.labels_from == "model" and case.baseline is None:
            return self._of_model_labels(evidence, case, draws[0], better)
        return evidence

    def _numbered(self, number: int, n: int) -> tuple[IntArray, IntArray]:
        """Faces of a side that are used, and their numbers: shared faces have one number."""
        if self.pairing is None:
            return np.arange(n), np.arange(n)
        used = (self.pairing.trial, self.pairing.baseline)[number]
        if number == 0 or self.pairing.paired:
            return used, self.pairing.trial
        return used, len(self.trial.record.faces) + used

    def _of_model_labels(
        self, evidence: Evidence, case: Case, draws: Draws, better: bool
    ) -> Evidence:
        """Hold back what labels that a model gave cannot show, as the first screen does.

        Its errors on outputs agree with those on originals more often than the correction assumes:
        retention comes out too high, and an inequality has to be shown by the raw agreement too.
        """
        rule = case.rule
        if rule.statistic in ("worst_group", "mean", "max_abs"):
            if better:
                reason = "a model gave the labels, which makes corrected retention look higher"
                return replace(evidence, no_pass=reason)
            return evidence
        present = np.unique(draws.truth, return_inverse=True)[1]
        data = draws.retained, draws.faces, present
        raw = (
            gaps.max_gap(*data, proportion=True, alpha=self.level)
            if rule.statistic == "max_gap"
            else gaps.min_ratio(*data, proportion=True, alpha=self.level)
        )
        least = min if rule.statistic == "max_gap" else max
        gap = evidence.gap
        fail_bound = least(gap.fail_bound, raw.fail_bound)
        method = f"{gap.method}, and by raw agreement"
        return replace(evidence, gap=replace(gap, fail_bound=fail_bound, method=method))


def found(gap: Gap, metric: str, names: Sequence[str], sides: Sides) -> Evidence:
    """Make the evidence of a gap."""
    groups = tuple(names[group] for group in gap.groups)
    return Evidence(gap, metric, groups, int(sides.trial.n_faces.min()), sides.left_out)


def statistic_of(rule: Rule) -> GroupStatistic:
    """Statistic over groups; the mean is that of a single group."""
    return "worst_group" if rule.statistic == "mean" else rule.statistic


def no_change(rule: Rule, sample: Groups) -> Gap:
    """Nothing changed on any face."""
    numbers = int(sample.n_faces.sum()), int(sample.n_draws.sum())
    method = f"paired by face; {IDENTICAL}"
    return Gap(statistic_of(rule), 0.0, 0.0, 0.0, True, (0,), None, *numbers, method)


def draws_by_face(
    shown: Outputs, truth: Sequence[int], used: IntArray, names: IntArray, k: int
) -> Draws | None:
    """Draws of the faces that are used and have a group."""
    faces, labels, predicted = [], [], []
    for face, name in zip(used.tolist(), names.tolist(), strict=True):
        if truth[face] != NONE:
            answers = shown.predicted[face]
            faces += [name] * len(answers)
            labels += [truth[face]] * len(answers)
            predicted += answers
    if not faces:
        return None
    return Draws(np.array(faces), np.array(labels), np.array(predicted), k)


def corrected_sample(shift: CorrectedShift, present: IntArray, whole: bool) -> Sampled:
    """Corrected retention of groups, or of the whole sample, with replicates.

    Where a model gave the labels, retention may come out above 1 and is clipped first. A standard
    error is at least that of a share which one face of n + 2 does not have.
    """
    size = shift.faces[present]
    reach = np.ptp(np.linalg.inv(shift.confusion.shares), axis=0)[present]
    least = np.sqrt((size + 1.0) / size) / (size + 2.0) * reach
    if whole:
        weights = shift.draws[present] / shift.draws[present].sum()
        value = shift.joint[present, present].sum()
        drawn = shift.joint_replicates[:, present, present].sum(axis=1)
        numbers = np.array([size.sum()]), np.array([shift.draws[present].sum()])
        error = np.array([np.linalg.norm(weights * least)])
        return Sampled(np.array([value]), drawn[:, None], error, *numbers)
    values = shift.values[present, present]
    if shift.labels_from == "model":
        values = np.minimum(values, 1.0)
    drawn = shift.replicates[:, present, present]
    return Sampled(values, drawn, least, size, shift.draws[present])


def drop_design(sides: Sides, judge: Judge, margin: float, better: bool) -> DropDesign | None:
    """Describe the comparison as the table of sample sizes does, from the data of both sides."""
    assert sides.baseline is not None
    draws = int(round(sides.trial.n_draws.sum() / sides.trial.n_faces.sum()))
    pairs = list(zip(sides.baseline.sums, sides.baseline.counts, strict=True))
    icc = correlation_of_totals(pairs)
    rate = float(sides.baseline.means().mean())
    base = min(max(rate if better else 1 - rate, 0.02), 0.98)
    correlation = None
    if judge.pairing is not None and judge.pairing.paired:
        # of both sides' means of a face, within groups
        means = [
            np.concatenate([s / n - (s / n).mean() for s, n in zip(g.sums, g.counts, strict=True)])
            for g in (sides.trial, sides.baseline)
        ]
        spread = math.sqrt(float((means[0] ** 2).sum() * (means[1] ** 2).sum()))
        shared = float((means[0] * means[1]).sum()) / spread if spread > 0 else 0.0
        correlation = min(max(shared, 0.0), 0.99)
    return DropDesign(
        base,
        max(draws, 1),
        1.0 if icc is None else icc,
        correlation,
        len(sides.trial.sums),
        judge.verdicts,
        margin,
        judge.alpha,
    )
