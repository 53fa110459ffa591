"""What people's labels of outputs say: the attribute model's accuracy there, and its drift.

The correction uses the errors that the model makes on photos. Where people labelled outputs, its
accuracy on these is estimated by the group that people see, and what that allows its drift to be is
held against the tipping point of every claim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pulse_audit.fairness.drift import MOST_DRIFT, AccuracyDrift, accuracy_drift
from pulse_audit.stats.intervals import IntArray, proportion_interval
from pulse_audit.store import Manifest
from pulse_audit.summary.attributes import (
    AttributeLabels,
    Grouping,
    attribute_labels,
    group_numbers,
)
from pulse_audit.summary.claims import ceiling, joined
from pulse_audit.summary.groups import JOIN, NONE, Subset, face_numbers
from pulse_audit.summary.schema import ALL, Claim, Detail, EstimateRow, Finding, make_row
from pulse_audit.types import Estimate, Unavailable

#: Word that people gave an output, by image and attribute.
HandLabels = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Drift:
    """What people's labels of the outputs of one arm say in one attribute.

    ``accuracy`` is that on all labelled outputs, ``by_group`` by the group that people see.
    """

    subset: Subset
    labels: AttributeLabels
    accuracy: Estimate
    by_group: AccuracyDrift


def drifts(
    manifest: Manifest,
    samples: pd.DataFrame,
    subsets: Sequence[Subset],
    groupings: Sequence[Grouping],
    hand_labels: HandLabels,
) -> tuple[list[Drift], dict[str, str]]:
    """Estimate the drift of every arm whose outputs people labelled, in every labelled attribute.

    Returns
    -------
    list of Drift
    dict
        By metric, why a labelled attribute has none.
    """
    words = pd.DataFrame(
        [hand_labels.get(image, {}) for image in samples["image"].fillna("")],
        index=samples.index,
        dtype=object,
    )
    # attributes and intersections of the groupings, then what else people labelled
    compared = {g.labels.attribute: g.labels for g in groupings if g.labels is not None}
    unavailable: dict[str, str] = {}
    for attribute in map(str, words):
        if f"sr_{attribute}" not in samples or samples[f"sr_{attribute}"].isna().all():
            reason = manifest.unavailable.get(f"sr_{attribute}", "no output has a prediction of it")
            unavailable[f"hand_accuracy by {attribute}"] = reason
        elif attribute not in compared:
            faces = face_numbers(samples)
            compared[attribute] = attribute_labels(attribute, manifest, samples, faces)

    found = []
    for attribute, labels in compared.items():
        columns = attribute.split(",")
        if not set(columns) <= set(words):
            continue
        # the group that people see on every output; of intersections, where all words are given
        given = words[columns].astype(object).to_numpy()
        named = [None if pd.isna(row).any() else JOIN.join(row) for row in given]
        seen = group_numbers(pd.Series(named, dtype=object), labels.groups)
        classified = (seen != NONE) & (labels.output != NONE)
        labelled = [subset for subset in subsets if classified[subset.rows].any()]
        found += [drift_of(each, labels, seen, classified, len(labelled)) for each in labelled]
    return found, unavailable


def drift_of(
    subset: Subset, labels: AttributeLabels, seen: IntArray, classified: IntArray, arms: int
) -> Drift:
    """Drift on the labelled outputs of one arm; the largest ones of all ``arms`` hold together."""
    chosen = classified[subset.rows].astype(bool)
    rows, faces, k = subset.rows[chosen], subset.faces[chosen], len(labels.groups)
    # without a confusion there are no photos to compare with
    confusion, photos = labels.confusion, np.zeros((k, k), dtype=np.int64)
    if not isinstance(confusion, Unavailable):
        photos = confusion.counts
    by_group = accuracy_drift(
        faces, seen[rows], labels.output[rows], photos, labels.groups, families=arms
    )
    right = (seen[rows] == labels.output[rows]).astype(np.float64)
    return Drift(subset, labels, proportion_interval(right, faces), by_group)


def drift_rows(found: Sequence[Drift]) -> Iterator[EstimateRow]:
    """Accuracy on labelled outputs and drift, by the group that people see; the largest drift."""
    for each in found:
        key, labels, by_group = each.subset.key, each.labels, each.by_group
        detail: Detail = {"attribute": labels.attribute}
        yield make_row(key, "hand_accuracy", ALL, ALL, each.accuracy, detail=detail)
        for metric, estimates in (
            ("hand_accuracy", by_group.accuracy),
            ("drift", [known_drift(labels, drift) for drift in by_group.drift]),
        ):
            for group, estimate in zip(labels.groups, estimates, strict=True):
                yield make_row(key, metric, labels.attribute, group, estimate, detail=detail)
        yield make_row(
            key,
            "drift",
            labels.attribute,
            ALL,
            known_drift(labels, by_group.largest),
            statistic="max_abs",
            detail=detail,
        )


def known_drift(labels: AttributeLabels, drift: Estimate | Unavailable) -> Estimate | Unavailable:
    """Return the drift, or why none is known: the model's errors on photos, first of all."""
    return labels.confusion if isinstance(labels.confusion, Unavailable) else drift


def drift_sentences(found: Sequence[Drift], setting: tuple[str, int]) -> Iterator[str]:
    """Describe accuracy on outputs and its drift, of the arms under one condition and scale."""
    for each in found:
        if each.subset.key[1:] != setting:
            continue
        arm, labels, whole = each.subset.key.arm, each.labels, each.accuracy
        percent = f"{100 * whole.value:.0f} % [{100 * whole.low:.0f}, {100 * whole.high:.0f}]"
        sentence = (
            f"People labelled {whole.n_draws:,} outputs of {arm} ({whole.n_faces:,} faces) by "
            f"{labels.attribute.replace(',', ' and ')}; the classifier agrees with them on "
            f"{percent}"
        )
        drifts_known = [
            (drift, group)
            for drift, group in zip(each.by_group.drift, labels.groups, strict=True)
            if isinstance(known_drift(labels, drift), Estimate) and isinstance(drift, Estimate)
        ]
        if drifts_known:
            drift, group = max(drifts_known, key=lambda pair: abs(pair[0].value))
            ends = f"[{100 * drift.low:+.0f}, {100 * drift.high:+.0f}]"
            sentence += (
                f"; its accuracy differs most from that on photos for {group}, by "
                f"{100 * drift.value:+.0f} points {ends} (the largest of {len(drifts_known)}, with "
                "the interval of one)"
            )
        yield f"{sentence}."
        largest = known_drift(labels, each.by_group.largest)
        if isinstance(largest, Unavailable):
            yield (
                f"What drift people's labels of {arm} allow is unavailable, because "
                f"{largest.reason}."
            )
        else:
            yield (
                f"People's labels of {arm} allow the classifier's accuracy on outputs to differ by "
                f"up to {ceiling(largest.high)} points from that on photos, in any group."
            )


def against_drift(
    findings: Sequence[Finding], found: Sequence[Drift], attribute: str, setting: tuple[str, int]
) -> list[Finding]:
    """Say of every finding whether the drift that people's labels allow would undo its claims.

    A claim about two arms is held against the larger of their drifts.
    """
    allowed: dict[str, float] = {}
    for each in found:
        largest = known_drift(each.labels, each.by_group.largest)
        if (
            each.subset.key[1:] == setting
            and each.labels.attribute == attribute
            and isinstance(largest, Estimate)
        ):
            allowed[each.subset.key.arm] = largest.high
    return [
        finding.model_copy(update={"text": f"{finding.text.removesuffix('.')}{verdict}."})
        if (verdict := drift_verdict(finding.claims, allowed))
        else finding
        for finding in findings
    ]


def drift_verdict(claims: Sequence[Claim], allowed: Mapping[str, float]) -> str:
    """End of a sentence with these claims; empty where no claim can be judged."""
    # the weakest claim of each arm, or pair of arms: (tipping point, drift that is allowed)
    weakest: dict[str, tuple[float, float]] = {}
    for claim in claims:
        arms = [claim.arm] if claim.minus is None else [claim.arm, claim.minus]
        if claim.tipping_point is None or not set(arms) <= allowed.keys():
            continue
        most, name = max(allowed[arm] for arm in arms), " and ".join(arms)
        # drifts beyond the largest that is tried are not known to undo anything
        if claim.tipping_point >= MOST_DRIFT < most:
            continue
        weakest[name] = min(weakest.get(name, (1.0, most)), (claim.tipping_point, most))
    undone = {name: most for name, (point, most) in weakest.items() if point <= most}
    held = {name: most for name, (point, most) in weakest.items() if point > most}
    # arms are named where the claims of a sentence fare differently, or are not all judged
    judged = [claim for claim in claims if claim.tipping_point is not None]
    several = len({(claim.arm, claim.minus) for claim in judged}) > 1
    parts = []
    if undone:
        whom = f" for {joined(list(undone))}" if several else ""
        parts.append(
            f"people's labels allow a drift of up to {ceiling(max(undone.values()))} points, which "
            f"would undo this{whom}"
        )
    if held:
        whom = f" for {joined(list(held))}" if several else ""
        alike = ", if both arms drift alike" if any(claim.minus for claim in judged) else ""
        parts.append(
            f"this holds{whom} against the drift of up to {ceiling(max(held.values()))} points "
            f"that people's labels allow{alike}"
        )
    return "".join(f"; {part}" for part in parts)
