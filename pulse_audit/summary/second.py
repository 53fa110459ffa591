"""What a second attribute model says of the same images: its shifts, its agreement, its checks.

Which shifts are found can depend on the classifier more than on the images, above all where its
decision boundaries cross dense regions (arXiv 2506.09106, "Bias Analysis in Unconditional Image
Generative Models", 2025). So originals and outputs are classified by two models, each corrected for
its own errors, and a claim that the second does not support is marked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd

from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.stats.agreement import kappa_interval
from pulse_audit.stats.intervals import IntArray, proportion_interval
from pulse_audit.store import Manifest
from pulse_audit.summary.attributes import AttributeLabels, Grouping
from pulse_audit.summary.claims import LEAST_DIFFERENCE
from pulse_audit.summary.corrected import corrected_rows
from pulse_audit.summary.groups import NONE, TONES, Subset
from pulse_audit.summary.joint import JointIntervals, joint_intervals
from pulse_audit.summary.schema import (
    ALL,
    Claim,
    Correction,
    EstimateRow,
    Finding,
    SubsetKey,
    make_row,
)
from pulse_audit.types import Estimate

#: Corrected estimates under the second model, by the metric of the first.
METRICS: Mapping[str, str] = {"retention": "retention_check", "shift": "shift_check"}


def as_second_sees(
    manifest: Manifest, samples: pd.DataFrame
) -> tuple[Manifest, pd.DataFrame] | None:
    """Put the second model in the place of the first; None where a run has none.

    Returns
    -------
    manifest : Manifest
    samples : DataFrame
        ``hr_<attribute>`` and ``sr_<attribute>`` are the second model's, null where it predicts no
        such attribute. Labels that a model gave are replaced by what the second says of the
        originals, so that labels and outputs share a model, as under the first.
    """
    first, second = manifest.attributes, manifest.second_attributes
    if first is None or second is None:
        return None
    columns: dict[str, pd.Series[str]] = {}
    empty = pd.Series(None, index=samples.index, dtype=object)
    for attribute in first.vocabulary:
        for side in ("hr", "sr"):
            columns[f"{side}_{attribute}"] = samples.get(f"{side}_{attribute}_check", empty)
        label = f"label_{attribute}"
        is_checked = attribute in second.vocabulary
        if is_checked and second.labels_from != "people" and label in samples:
            columns[label] = columns[f"hr_{attribute}"]
    return manifest.model_copy(update={"attributes": second}), samples.assign(**columns)


def second_rows(
    subset: Subset,
    groupings: Sequence[Grouping],
    corrections: Mapping[tuple[SubsetKey, str], CorrectedShift],
    name: str,
) -> Iterator[EstimateRow]:
    """Corrected retention and shift of an arm under the second model, called ``name``."""
    for grouping in groupings:
        labels = grouping.labels
        if labels is None or not (grouping.by_attribute or grouping.name == ALL):
            continue
        draws = labels.draws(subset.rows, subset.faces)
        if draws is None:
            continue
        correction = corrections.get((subset.key, labels.attribute))
        for row in corrected_rows(subset, grouping, labels, draws, correction):
            if row.metric in METRICS and row.statistic == "value":
                detail = {**(row.detail or {}), "attributes": name}
                yield row.model_copy(update={"metric": METRICS[row.metric], "detail": detail})


def agreement_rows(
    subset: Subset, first: Sequence[Grouping], second: Sequence[Grouping], name: str
) -> Iterator[EstimateRow]:
    """Agreement of both models by labelled group: rate and Cohen's kappa (1960).

    On outputs (``raw``) and on originals (``original_baseline``), of images that both give a group.
    """
    # skin tones are measured, by neither model
    by_name = {
        grouping.name: grouping.labels
        for grouping in second
        if grouping.by_attribute and not set(grouping.name.split(",")) & set(TONES)
    }
    for grouping in first:
        labels, other = grouping.labels, by_name.get(grouping.name)
        if labels is None or other is None or not grouping.by_attribute:
            continue
        # every original once, every output once
        once = np.unique(subset.faces, return_index=True)[1]
        detail = {"attribute": labels.attribute, "attributes": name}
        for correction, side, chosen in (
            ("raw", "output", np.arange(len(subset.rows))),
            ("original_baseline", "original", once),
        ):
            rows, faces = subset.rows[chosen], subset.faces[chosen]
            one, two = getattr(labels, side)[rows], getattr(other, side)[rows]
            both = (one != NONE) & (two != NONE)
            within = {ALL: both} | {
                group: both & (labels.truth[rows] == number)
                for number, group in enumerate(labels.groups)
            }
            for group, here in within.items():
                for metric, estimate in agreement(one[here], two[here], faces[here], labels):
                    yield make_row(
                        subset.key,
                        metric,
                        labels.attribute,
                        group,
                        estimate,
                        correction=cast(Correction, correction),
                        detail=detail,
                    )


def agreement(
    one: IntArray, two: IntArray, faces: IntArray, labels: AttributeLabels
) -> Iterator[tuple[str, Estimate]]:
    """Rate of agreement and kappa of the images that both models give a group, if there are any."""
    if len(one):
        yield "model_agreement", proportion_interval((one == two).astype(np.float64), faces)
        yield "model_kappa", kappa_interval(one, two, faces, len(labels.groups))


def check_findings(
    findings: Sequence[Finding], labels: AttributeLabels, shifts: Mapping[str, CorrectedShift]
) -> list[Finding]:
    """Mark the claims of a screen by the second model, and say where it does not support them.

    ``shifts`` are corrected under the second model; arms that it cannot correct stay unmarked.
    """
    usable = {arm: shift for arm, shift in shifts.items() if shift.grade == "usable"}
    if not usable:
        return list(findings)
    intervals, checked = joint_intervals(usable), list[Finding]()
    for finding in findings:
        claims = [
            claim.model_copy(update={"checked": verdict(claim, labels.groups, intervals)})
            for claim in finding.claims
        ]
        # arms of claims that are not supported, in order
        lost = [claim.arm for claim in claims if claim.checked == "not confirmed"]
        text = finding.text
        if lost:
            whom = ", ".join(dict.fromkeys(lost))
            of_whom = "" if {claim.arm for claim in claims} == set(lost) else f" for {whom}"
            text = f"{text.removesuffix('.')}; the second attribute model does not confirm it"
            text += f"{of_whom}."
        checked.append(finding.model_copy(update={"claims": claims, "text": text}))
    return checked


def verdict(claim: Claim, groups: Sequence[str], intervals: JointIntervals) -> str | None:
    """Whether the second model's joint interval supports a claim; None where it has none.

    A difference or a conversion has to be at least 1 point in the same direction, one of equality
    within its margin; an end of an interval of retention has to be compatible with the second's.
    """
    number = {group: place for place, group in enumerate(groups)}
    arm, bound = claim.arm, claim.bound
    is_shown: bool
    if arm not in intervals.kept or (claim.minus and claim.minus not in intervals.kept):
        return None
    if claim.minus is not None:
        pair = (arm, claim.minus)
        between = intervals.arms.get(pair) or intervals.arms[pair[::-1]].reversed()
        within = max(-between.low, between.high) <= bound
        is_shown = within if claim.direction == "equivalent" else between.low >= LEAST_DIFFERENCE
    elif claim.group == ALL:
        kept = intervals.kept[arm]
        is_shown = kept.low <= bound if claim.direction == "lower" else kept.high >= bound
    elif claim.direction in ("unequal", "equivalent"):
        pairs = intervals.groups[arm].values()
        if not pairs:
            return None
        equal = max(each.high for each in pairs) <= bound
        is_shown = (
            equal
            if claim.direction == "equivalent"
            else any(pair.low >= LEAST_DIFFERENCE for pair in pairs)
        )
    else:
        family = intervals.cells if claim.metric == "shift" else intervals.groups
        other = claim.to_group if claim.metric == "shift" else claim.than_group
        found = family[arm].get((number[str(claim.group)], number[str(other)]))
        if found is None:
            return None
        is_shown = found.low >= LEAST_DIFFERENCE
    return "confirmed" if is_shown else "not confirmed"
