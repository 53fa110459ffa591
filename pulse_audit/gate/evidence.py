"""What the data say on one rule and arm: a worst case over groups with its two bounds.

Absolute rules on metrics of apparent groups are judged on estimates corrected for the attribute
model's errors, and against a baseline on what they name: the same model reads both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pulse_audit.fairness.correction import CorrectedShift, corrected_shifts
from pulse_audit.fairness.shift import Draws
from pulse_audit.gate import sets
from pulse_audit.gate.case import Case, Evidence
from pulse_audit.gate.measure import Trial
from pulse_audit.gate.record import AttributeRecord, GroupingRecord, Pairing, Record
from pulse_audit.gate.rules import (
    ATTRIBUTE_RATES,
    CORRECTED,
    DISTANCES,
    DIVERGENCE_OF,
    FACE_RATES,
    OF_GROUPS,
    SHARES,
    Rule,
    higher_is_better,
)
from pulse_audit.gate.sides import (
    Sides,
    both_sides,
    chosen_groups,
    corrected_sample,
    draws_of,
    draws_of_sides,
    drop_design,
    most_diverse,
    parts_of,
    renumbered,
    shares_of,
    totals,
)
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.seeding import fingerprint
from pulse_audit.stats import against, gaps
from pulse_audit.stats.gaps import Gap, GroupStatistic
from pulse_audit.stats.intervals import Groups
from pulse_audit.stats.paired import IDENTICAL
from pulse_audit.summary.schema import ALL
from pulse_audit.types import InputError, Unavailable

#: Replicates of the sampling errors of a correction, at least and at most.
REPLICATES, MOST_REPLICATES = 4000, 20_000
#: What a reader of the diversity of draws by itself has to know.
AS_CLASSIFIED = "of groups as classified: errors of the attribute model count as differences"


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
        if metric.name in OF_GROUPS and grouping.attribute is None:
            return Unavailable(self.trial.record.why_not(metric.name))
        if metric.name in DISTANCES:
            assert self.trial.sets is not None
            return self.trial.sets.distances(case, grouping, self.level)
        if metric.name in DIVERGENCE_OF:
            return self._divergence(case, grouping)
        if metric.name == SHARES:
            return self._shares(case, str(grouping.attribute))
        if metric.name == CORRECTED or (metric.name in ATTRIBUTE_RATES and case.baseline is None):
            if metric.name not in (CORRECTED, "retention"):
                return Unavailable(
                    f"{metric.name} cannot be corrected for the attribute model's errors, and by "
                    "itself says as much of that model as of the arm: use retention_corrected"
                )
            return self._corrected(case, grouping)
        if metric.name in FACE_RATES:
            return self._diversity(case, metric, grouping)
        return self._raw(case, metric, grouping)

    def _diversity(
        self, case: Case, metric: MetricDefinition, grouping: GroupingRecord
    ) -> Evidence | Unavailable:
        """Evidence on how far the draws of a face differ, bounded as a share of the most it can."""
        sides = [(self.trial.record, case.key)]
        if case.baseline is not None and self.baseline is not None:
            sides.append((self.baseline, case.baseline))
        most = 1.0
        if metric.name == "entropy":
            most = most_diverse(side.outputs(key, str(grouping.attribute)) for side, key in sides)
        evidence = self._raw(case, metric, grouping, most)
        if isinstance(evidence, Unavailable):
            return evidence
        gap, factor = evidence.gap, 1.0 if case.rule.statistic == "min_ratio" else most
        ends = (gap.value, gap.pass_bound, gap.fail_bound)
        value, passed, failed = (factor * end for end in ends)
        gap = replace(gap, value=value, pass_bound=passed, fail_bound=failed)
        return replace(evidence, gap=gap, caveat="" if case.baseline else AS_CLASSIFIED)

    def _raw(
        self, case: Case, metric: MetricDefinition, grouping: GroupingRecord, most: float = 1.0
    ) -> Evidence | Unavailable:
        """Evidence on measured values, in parts of ``most``."""
        attribute = grouping.attribute if metric.name in OF_GROUPS else None
        # a number of a whole face from 0 to 1 varies no more than an outcome of the same mean
        record, proportion = self.trial.record, is_bounded(metric)
        values = parts_of(record.values(case.key, metric.name, attribute), most)
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
        theirs = parts_of(self.baseline.values(case.baseline, metric.name, attribute), most)
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
                design = drop_design(
                    sides, self.pairing.paired, better, self.verdicts, case.rule.limit, self.alpha
                )
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

    def _shares(self, case: Case, attribute: str) -> Evidence | Unavailable:
        """Evidence on the rise of each apparent group's share of all draws."""
        assert self.baseline is not None and self.pairing is not None and case.baseline is not None
        labels, other = (side.attribute(attribute) for side in (self.trial.record, self.baseline))
        shown = self.trial.record.outputs(case.key, attribute)
        before = self.baseline.outputs(case.baseline, attribute)
        if labels is None or shown is None:
            return Unavailable(f"no output has a group of {attribute}")
        if other is None or before is None or other.groups != labels.groups:
            raise InputError(
                f"the baseline holds no outputs by {attribute} in these groups; write it again "
                "with these rules"
            )
        k, positions = len(labels.groups), (self.pairing.trial, self.pairing.baseline)
        if self.pairing.paired:
            # faces that have draws on both sides
            both = zip(*(place.tolist() for place in positions), strict=True)
            has_draws = [bool(shown.predicted[i] and before.predicted[j]) for i, j in both]
            positions = (positions[0][has_draws], positions[1][has_draws])
        one, two = (
            shares_of(outputs, place, k)
            for outputs, place in zip((shown, before), positions, strict=True)
        )
        if not one.n_faces.all() or not two.n_faces.all():
            return Unavailable("no face has a draw on both sides")
        gap = against.largest_drop(
            one,
            two,
            paired=self.pairing.paired,
            proportion=True,
            higher_is_better=False,
            alpha=self.level,
            other_faces=False,
        )
        return found(gap, SHARES, labels.groups, Sides(one, 0, two))

    def _absolute(self, rule: Rule, metric: MetricDefinition, sample: Groups, seed: int) -> Gap:
        """Bounds of a statistic by itself, from the draws that the totals of faces stand for."""
        proportion = is_bounded(metric)
        data = draws_of(sample, proportion)
        if rule.statistic == "max_gap":
            return gaps.max_gap(*data, proportion=proportion, alpha=self.level, seed=seed)
        if rule.statistic == "min_ratio":
            return gaps.min_ratio(*data, proportion=proportion, alpha=self.level)
        if rule.statistic == "max_abs" and proportion:
            # no share is below 0: the largest one
            gap = gaps.worst_group(*data, proportion=True, higher_is_better=False, alpha=self.level)
            return replace(gap, statistic="max_abs")
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
        rule, found_shifts = case.rule, self._corrections(case, grouping)
        if isinstance(found_shifts, Unavailable):
            return found_shifts
        labels, sides, shifts = found_shifts

        # the groups that have faces, one of them, or the whole sample
        present = np.flatnonzero(shifts[0].faces)
        if rule.group is not None:
            present = present[[labels.groups[group] == rule.group for group in present]]
        empty = [labels.groups[group] for group in present if shifts[-1].faces[group] == 0]
        if empty or not len(present):
            named = empty[0] if empty else str(rule.group)
            return Unavailable(f"no face of {named} has a value on both sides")
        whole = rule.statistic == "mean" and rule.group is None
        sampled = [corrected_sample(shift, present, whole) for shift in shifts]
        names = [ALL] if whole else [labels.groups[group] for group in present]
        better = higher_is_better(rule, self.trial.metrics[rule.metric])
        statistic = statistic_of(rule)
        gap = against.worst_of_sampled(
            statistic, *sampled, higher_is_better=better, alpha=self.level
        )
        if case.baseline is None and statistic in ("max_gap", "max_abs"):
            # distances and shares have a range, which joint errors do not know
            ends = max(gap.fail_bound, 0.0), min(gap.pass_bound, 1.0)
            gap = replace(gap, fail_bound=ends[0], pass_bound=ends[1])
        if len(sides) == 2 and alike(*sides):
            gap = no_change(rule, Groups([], [], sampled[0].faces, sampled[0].draws))
        groups = tuple(names[group] for group in gap.groups)
        fewest = int(sampled[0].faces.min())
        evidence = Evidence(gap, CORRECTED, groups, fewest, compared(gap, len(names)))
        if labels.labels_from == "model" and case.baseline is None:
            return self._of_model_labels(evidence, case, sides[0], better)
        return evidence

    def _corrections(
        self, case: Case, grouping: GroupingRecord, confidence: float = 0.95
    ) -> tuple[AttributeRecord, list[Draws], list[CorrectedShift]] | Unavailable:
        """Correct the trial and the baseline, if any, by one attribute; only usable ones."""
        labels = self.trial.record.attribute(str(grouping.attribute))
        assert labels is not None
        if grouping.name not in (ALL, labels.name):
            return Unavailable(
                f"retention of {labels.name} is corrected by {labels.name} alone, not by "
                f"{grouping.name}"
            )
        sides = draws_of_sides(case, self.trial.record, self.baseline, self.pairing, labels)
        if isinstance(sides, Unavailable):
            return sides
        confusion = self.trial.confusions[labels.name]
        if isinstance(confusion, Unavailable):
            return confusion
        # one correction of both sides, whose replicates are of the same faces
        shifts = corrected_shifts(
            sides,
            confusion,
            labels_from=labels.labels_from,
            replicates=min(max(REPLICATES, math.ceil(20 / self.level)), MOST_REPLICATES),
            seed=fingerprint("gate", "correction", case.key.condition, case.key.scale, labels.name),
            confidence=confidence,
        )
        for shift in shifts:
            if shift.grade != "usable":
                return Unavailable(f"the correction is {shift.grade}: {shift.reason}")
        return labels, sides, shifts

    def _divergence(self, case: Case, grouping: GroupingRecord) -> Evidence | Unavailable:
        """Evidence on a divergence of all draws from where groups are treated alike."""
        if DIVERGENCE_OF[case.rule.metric][0] in sets.HIDDEN:
            assert self.trial.sets is not None
            apparent = self.trial.sets.apparent(case, self.level)
            if isinstance(apparent, Unavailable):
                return apparent
            return sets.of_apparent(case.rule, apparent, self.level)
        # one interval of every group, all of them at the level together
        compared = self.trial.record.attribute(str(grouping.attribute))
        assert compared is not None
        level = self.level / len(compared.groups)
        found_shifts = self._corrections(case, grouping, 1 - 2 * level)
        if isinstance(found_shifts, Unavailable):
            return found_shifts
        labels, _, shifts = found_shifts
        if labels.labels_from == "model":
            return Unavailable(
                f"a model gave the labels, so that {case.rule.metric} says as much of it as of the "
                "arm"
            )
        return sets.of_corrected(case.rule, shifts[0])

    def _of_model_labels(
        self, evidence: Evidence, case: Case, draws: Draws, better: bool
    ) -> Evidence:
        """Hold back what labels that a model gave cannot show, as the first screen does.

        Its errors on outputs agree with those on originals more often than the correction assumes:
        retention comes out too high, and an inequality has to be shown by the raw agreement too.
        """
        rule = case.rule
        if rule.statistic in ("worst_group", "mean", "max_abs"):
            reason = "a model gave the labels, which makes corrected retention look higher"
            no_pass, no_fail = (reason, "") if better else ("", reason)
            return replace(evidence, no_pass=no_pass, no_fail=no_fail)
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


def is_bounded(metric: MetricDefinition) -> bool:
    """Whether a metric is a proportion, or a number from 0 to 1 of a whole face."""
    return metric.kind == "proportion" or metric.name in FACE_RATES


def found(gap: Gap, metric: str, names: Sequence[str], sides: Sides) -> Evidence:
    """Make the evidence of a gap."""
    groups = tuple(names[group] for group in gap.groups)
    fewest = int(sides.trial.n_faces.min())
    return Evidence(gap, metric, groups, fewest, compared(gap, len(names)), sides.left_out)


def compared(gap: Gap, k: int) -> int:
    """Count the groups, or the pairs of them, that a statistic is the worst of."""
    return max(k * (k - 1) // 2, 1) if gap.statistic in ("max_gap", "min_ratio") else k


def alike(one: Draws, other: Draws) -> bool:
    """Whether two sides have the same faces, and outputs of the same groups, draw for draw."""
    return all(
        np.array_equal(getattr(one, part), getattr(other, part))
        for part in ("faces", "truth", "predicted")
    )


def statistic_of(rule: Rule) -> GroupStatistic:
    """Statistic over groups; the mean is that of a single group."""
    return "worst_group" if rule.statistic == "mean" else rule.statistic


def no_change(rule: Rule, sample: Groups) -> Gap:
    """Nothing changed on any face."""
    numbers = int(sample.n_faces.sum()), int(sample.n_draws.sum())
    method = f"paired by face; {IDENTICAL}"
    return Gap(statistic_of(rule), 0.0, 0.0, 0.0, True, (0,), None, *numbers, method)
