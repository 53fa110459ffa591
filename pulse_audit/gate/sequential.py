"""What the data say on one rule while faces are still being added: bounds that hold at every look.

The unit is a face with all its draws; against a baseline, the difference of a face from itself.
Faces come in rounds that hold the same number of every balanced group, in random order. What is
bet on is therefore the mean of a group's faces in each *block*, one face of every cell: blocks are
exchangeable whatever the rule groups by, while single faces of a mixed group would not be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pulse_audit.gate.case import Case, Evidence
from pulse_audit.gate.measure import Trial
from pulse_audit.gate.record import GroupingRecord, Record
from pulse_audit.gate.rules import (
    ATTRIBUTE_RATES,
    CORRECTED,
    OF_GROUPS,
    SET_METRICS,
    SHARES,
    higher_is_better,
)
from pulse_audit.gate.sides import chosen_groups
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.stats.gaps import Gap
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.stats.paired import IDENTICAL
from pulse_audit.stats.sequential import EveryLook, FixedLooks
from pulse_audit.store import Manifest
from pulse_audit.summary.groups import TONES
from pulse_audit.summary.schema import ALL
from pulse_audit.types import Unavailable


def why_once(case: Case, metric: MetricDefinition, balanced: Sequence[str]) -> str:
    """Why a rule has no bound that holds at every look; empty where it has one.

    Parameters
    ----------
    case : Case
    metric : MetricDefinition
        The rule's.
    balanced : sequence of str
        Columns that the sample is balanced over.
    """
    rule = case.rule
    if metric.name in SET_METRICS:
        return f"{metric.name} is a number of all draws together"
    if rule.statistic not in ("worst_group", "mean"):
        return f"{rule.statistic} has no bound that holds at every look"
    if metric.name == CORRECTED or (metric.name in ATTRIBUTE_RATES and case.baseline is None):
        return "estimates corrected for the attribute model's errors have no such bound"
    low, high = range_of(metric)
    if metric.name == SHARES or not np.isfinite([low, high]).all():
        return f"{metric.name} has no least and greatest value"
    grouped = [] if rule.group_by in (None, ALL) else str(rule.group_by).split(",")
    if not set(grouped) <= set(balanced):
        over = ",".join(balanced) or "nothing"
        return f"the sample is balanced over {over}, not over {rule.group_by}"
    return ""


def range_of(metric: MetricDefinition) -> tuple[float, float]:
    """Least and greatest value of a metric."""
    if metric.kind == "proportion" or metric.unit == "%":
        return 0.0, 1.0
    return metric.lower_bound, metric.upper_bound


def balanced_columns(manifest: Manifest) -> list[str]:
    """Label columns that a run's sample is balanced over: its first grouping of labels alone."""
    groupings = [grouping.split(",") for grouping in manifest.spec.group_by]
    return next((columns for columns in groupings if not set(columns) & set(TONES)), [])


def blocks_of(manifest: Manifest) -> dict[str, int]:
    """Block of every face: the first face of every cell, the second, and so on."""
    assert manifest.rounds is not None
    cells = len(manifest.faces) // manifest.rounds.faces
    return {face.id: number // cells for number, face in enumerate(manifest.faces)}


def evidence_so_far(
    case: Case,
    trial: Trial,
    baseline: Record | None,
    blocks: Mapping[str, int],
    level: float,
    schedule: EveryLook | FixedLooks,
    last: bool,
) -> Evidence | Unavailable:
    """Find the evidence of a case on the faces that are there.

    Parameters
    ----------
    case : Case
        Of those that `why_once` has nothing against.
    trial : Trial
    baseline : Record or None
        Holds every face of the trial.
    blocks : mapping of str to int
        As of `blocks_of`.
    level : float
        Error rate of the verdict; a fail holds for all groups simultaneously (Bonferroni).
    schedule : EveryLook or FixedLooks
        Looks that the bounds hold at simultaneously.
    last : bool
        Whether this is the last look, at which values that equal the baseline's on every face pass.
    """
    rule, metric, record = case.rule, trial.metrics[case.rule.metric], trial.record
    grouping = record.grouping(rule.group_by or ALL)
    assert grouping is not None
    attribute = grouping.attribute if metric.name in OF_GROUPS else None
    if metric.name in OF_GROUPS and attribute is None:
        return Unavailable(record.why_not(metric.name))
    sides = [(record, case.key)]
    if case.baseline is not None:
        assert baseline is not None
        sides.append((baseline, case.baseline))
    means, n_draws = [], 0
    for side, key in sides:
        values = side.values(key, metric.name, attribute)
        if values is None:
            return Unavailable(side.why_not(metric.name))
        sums, draws = values.arrays()
        measured = np.divide(sums, draws, out=np.full(len(sums), np.nan), where=draws > 0)
        n_draws = n_draws or int(draws.sum())
        place = {name: number for number, (name, _) in enumerate(side.faces)}
        means.append(measured[[place[name] for name, _ in record.faces]])

    # by how much a face is worse than before, or its mean, turned so that larger is worse
    better, (low, high) = higher_is_better(rule, metric), range_of(metric)
    worse = -means[0] if better else means[0]
    low, high = (-high, -low) if better else (low, high)
    if len(means) == 2:
        worse = worse + (means[1] if better else -means[1])
        low, high = low - high, high - low
    names, groups, of_blocks = _groups_in_blocks(case, grouping, record, worse, blocks)
    together = list(zip(groups, of_blocks, strict=True))
    empty = [name for name, group in zip(names, groups, strict=True) if not len(group)]
    if empty or not names:
        return Unavailable(f"no face of {empty[0] if empty else 'any group'} has a value")
    try:
        # an upper bound is the lower one of what is turned round
        passing = [-schedule.lower(-x, block, level, (-high, -low)) for x, block in together]
        each = level / len(groups)
        failing = [schedule.lower(x, block, each, (low, high)) for x, block in together]
    except ValueError:
        return Unavailable(f"{metric.name} has values outside its range")
    values_of = [float(group.mean()) for group in groups]
    worst = int(np.argmax(values_of))
    # turned back, where it is no worsening from a baseline
    sign = -1.0 if better and len(means) == 1 else 1.0
    numbers = values_of[worst], max(passing), max(failing)
    method, left_out = schedule.method, int(np.isnan(worse).sum())
    if len(means) == 2:
        is_unchanged = last and not worse[np.isfinite(worse)].any()
        numbers = (0.0, 0.0, 0.0) if is_unchanged else numbers
        method = f"paired by face; {IDENTICAL if is_unchanged else method}"
    n_faces = len(worse) - left_out
    value, passes, fails = (sign * number for number in numbers)
    gap = Gap(
        "worst_group", value, passes, fails, sign > 0, (worst,), None, n_faces, n_draws, method
    )
    fewest = min(len(group) for group in groups)
    return Evidence(
        gap, metric.name, (names[worst],), fewest, len(groups), left_out, every_look=True
    )


def _groups_in_blocks(
    case: Case,
    grouping: GroupingRecord,
    record: Record,
    values: FloatArray,
    blocks: Mapping[str, int],
) -> tuple[list[str], list[FloatArray], list[IntArray]]:
    """Names of the groups, of each the mean of its faces in every block, and these blocks."""
    names, of_face = chosen_groups(case.rule, grouping)
    block: IntArray = np.array([blocks[name] for name, _ in record.faces])
    found, of_blocks = list[FloatArray](), list[IntArray]()
    for number in range(len(names)):
        inside = (of_face == number) & np.isfinite(values)
        n = np.bincount(block[inside], minlength=1)
        sums = np.bincount(block[inside], values[inside], minlength=1)
        found.append(sums[n > 0] / n[n > 0])
        of_blocks.append(np.flatnonzero(n > 0))
    return names, found, of_blocks
