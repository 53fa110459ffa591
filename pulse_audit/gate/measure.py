"""From the samples of a run to what the gate reads of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.fairness.confusion import Confusion
from pulse_audit.fairness.shift import ONE_DRAW, counts_by_face, differing_pairs, entropies
from pulse_audit.gate.record import (
    SCHEMA_VERSION,
    ArmRecord,
    AttributeRecord,
    FaceValues,
    GroupingRecord,
    Outputs,
    Record,
)
from pulse_audit.gate.rules import (
    ATTRIBUTE_RATES,
    CORRECTED,
    DISTANCES,
    FACE_RATES,
    OF_GROUPS,
    SET_METRICS,
    SHARES,
    Rule,
    metric_of,
)
from pulse_audit.gate.sets import SetDraws
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.group_metrics import OUTCOME_METRICS
from pulse_audit.names import nearest
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import IntArray
from pulse_audit.store import Manifest, Run
from pulse_audit.summary.attributes import (
    AttributeLabels,
    Grouping,
    make_groupings,
    retention_columns,
)
from pulse_audit.summary.comparisons import UNKNOWN
from pulse_audit.summary.estimates import Array, align_features
from pulse_audit.summary.groups import (
    DRAW_KEYS,
    JOIN,
    NONE,
    TONES,
    Subset,
    face_numbers,
    make_subsets,
)
from pulse_audit.summary.schema import ALL
from pulse_audit.types import InputError, Unavailable

#: Digits of stored sums, so that a run and the file made of it hold the same numbers.
DIGITS = 10


@dataclass(frozen=True, eq=False)
class Trial:
    """A run as the gate reads it: its record, and what only the run itself has.

    ``confusions`` holds, by attribute, the measured errors of the attribute model; ``sets`` the
    draws that rules on whole sets of them are judged on, None where there is no such rule.
    """

    record: Record
    confusions: Mapping[str, Confusion | Unavailable]
    metrics: Mapping[str, MetricDefinition]
    sets: SetDraws | None = None


def measure_run(run: Run, rules: Sequence[Rule], where: str) -> Trial:
    """Measure a run directory, its features too where a rule needs them; errors as `measure`."""
    features = run.features() if any(rule.metric in DISTANCES for rule in rules) else None
    return measure(run.manifest, run.samples(), rules, where, features)


def measure(
    manifest: Manifest,
    samples: pd.DataFrame,
    rules: Sequence[Rule],
    where: str,
    features: tuple[Array, Mapping[str, Array]] | None = None,
) -> Trial:
    """Record per face what rules need of a run.

    Parameters
    ----------
    manifest : Manifest
    samples : DataFrame
        One row a draw.
    rules : sequence of Rule
    where : str
        How messages name the rules.
    features : tuple, optional
        As `pulse_audit.store.Run.features` returns them, aligned with ``samples``.

    Raises
    ------
    InputError
        If a metric or a column that a rule names is unknown.
    """
    by_draw = samples.reset_index(drop=True).sort_values(DRAW_KEYS, kind="stable")
    frame = by_draw.reset_index(drop=True)
    metrics = {rule.metric: metric_of(rule, manifest.metrics, where) for rule in rules}
    groupings = {each.name: each for each in _groupings(manifest, frame, rules, where)}
    # one row a face, in the order of face numbers
    faces = face_numbers(frame)
    ids, first = np.unique(faces, return_index=True)
    digests = {face.id: face.sha256 for face in manifest.faces}
    names = [str(name) for name in frame["face_id"].iloc[first]]

    needed: dict[tuple[str, str | None], AttributeLabels | None] = {}
    for rule in rules:
        labels = groupings[rule.group_by or ALL].labels
        if rule.metric not in (*OF_GROUPS, *DISTANCES):
            needed[rule.metric, None] = None
        elif labels is not None and rule.metric not in DISTANCES:
            needed[rule.metric, labels.attribute] = labels
            # the raw rate stands beside the corrected one
            if rule.metric in ATTRIBUTE_RATES:
                needed["retention", labels.attribute] = labels
    attributes = {labels.attribute: labels for labels in needed.values() if labels is not None}
    # numbers of every face, but for metrics that are computed of the outputs when rules are judged
    later = (CORRECTED, SHARES, *SET_METRICS)
    by_face = [(metric, labels) for (metric, _), labels in needed.items() if metric not in later]
    settings, subsets = [], list(make_subsets(manifest, frame))
    for subset in subsets:
        values = [_by_face(subset, metrics, name, labels, len(ids)) for name, labels in by_face]
        outputs = [_outputs(subset, labels, len(ids)) for labels in attributes.values()]
        settings.append(
            ArmRecord(
                **subset.key._asdict(), values=[v for v in values if v is not None], outputs=outputs
            )
        )  # fmt: skip
    sets = None
    if any(rule.metric in SET_METRICS for rule in rules):
        wants_features = any(rule.metric in DISTANCES for rule in rules)
        sets = SetDraws(
            {subset.key: subset for subset in subsets},
            groupings,
            align_features(manifest, features if wants_features else None, by_draw),
        )
    record = Record(
        schema=SCHEMA_VERSION,
        package_version=manifest.package_version,
        must_match=must_match(manifest, metrics),
        arms={name: arm.kind for name, arm in manifest.arms.items()},
        faces=[(name, digests.get(name, "")[:16]) for name in names],
        groupings=[_grouping_record(each, first) for each in groupings.values()],
        attributes=[
            AttributeRecord(
                name=name,
                groups=list(labels.groups),
                truth=labels.truth[first].tolist(),
                labels_from=labels.labels_from,
            )
            for name, labels in attributes.items()
        ],
        settings=settings,
        unavailable=_unavailable(manifest, frame, metrics, groupings, rules, settings),
    )
    confusions = {name: labels.confusion for name, labels in attributes.items()}
    return Trial(record, confusions, metrics, sets)


def _groupings(
    manifest: Manifest, frame: pd.DataFrame, rules: Iterable[Rule], where: str
) -> list[Grouping]:
    """Make the groupings of the rules, by any column that the samples have."""
    asked = [rule.group_by for rule in rules if rule.group_by not in (None, ALL)]
    labels = [str(name)[6:] for name in frame if str(name).startswith("label_")]
    known = [*labels, *(tone for tone, (name, _) in TONES.items() if f"hr_{name}" in frame)]
    for grouping in asked:
        columns = str(grouping).split(",")
        for column in columns:
            if column not in known:
                raise InputError(f"{where}: unknown group_by {column!r}{nearest(column, known)}")
            if columns.count(column) > 1:
                raise InputError(f"{where}: group_by {grouping!r} names {column} twice")
    by = list(dict.fromkeys([*manifest.spec.group_by, *map(str, asked)]))
    spec = manifest.spec.model_copy(update={"group_by": by})
    groupings = make_groupings(manifest.model_copy(update={"spec": spec}), frame)
    # those that no rule names are left out
    wanted = {ALL, *asked}
    chosen = [each for each in groupings if each.name in wanted]
    by_name = {each.name: each for each in chosen}
    for rule in rules:
        groups = by_name[rule.group_by or ALL].groups
        if rule.group is not None and rule.group not in groups:
            hint = nearest(rule.group, list(groups))
            raise InputError(f"{where}: unknown group {rule.group!r} of {rule.group_by}{hint}")
    return chosen


def _grouping_record(grouping: Grouping, first: IntArray) -> GroupingRecord:
    """Return the groups of faces; those about which something is not known are in none."""
    known = [group for group in grouping.groups if not set(group.split(JOIN)) & UNKNOWN]
    number = {group: known.index(group) for group in known}
    of_face = [number.get(grouping.groups[each], NONE) for each in grouping.of_draw[first].tolist()]
    attribute = None if grouping.labels is None else grouping.labels.attribute
    return GroupingRecord(name=grouping.name, groups=known, of_face=of_face, attribute=attribute)


def _by_face(
    subset: Subset,
    metrics: Mapping[str, MetricDefinition],
    name: str,
    labels: AttributeLabels | None,
    n: int,
) -> FaceValues | None:
    """Sum a metric over each face's draws; None where no draw was measured."""
    faces = subset.faces
    if name in FACE_RATES and labels is not None:
        # one number a face
        classified = labels.draws(subset.rows, subset.faces)
        if classified is None:
            return None
        faces, counts = counts_by_face(classified)
        numbers = differing_pairs(counts) if name == "flip_rate" else entropies(counts)
    elif labels is not None:
        metric = next(each for each in OUTCOME_METRICS if each.name == name)
        numbers = metric.values(retention_columns(subset, labels))
    else:
        metric = metrics[name]
        if metric.missing(subset.samples, {}) is not None:
            return None
        numbers = metric.values(subset.samples)
    measured = np.isfinite(numbers)
    if not measured.any():
        return None
    sums = np.bincount(faces[measured], numbers[measured], n)
    draws = np.bincount(faces[measured], minlength=n).tolist()
    return FaceValues(
        metric=name,
        attribute=None if labels is None else labels.attribute,
        sums=[float(f"{value:.{DIGITS}g}") for value in sums.tolist()],
        draws=draws[0] if len(set(draws)) == 1 else draws,
    )


def _outputs(subset: Subset, labels: AttributeLabels, n: int) -> Outputs:
    predicted: list[list[int]] = [[] for _ in range(n)]
    shown = labels.output[subset.rows].tolist()
    for face, group in zip(subset.faces.tolist(), shown, strict=True):
        predicted[face].append(group)
    return Outputs(attribute=labels.attribute, predicted=predicted)


def _unavailable(
    manifest: Manifest,
    frame: pd.DataFrame,
    metrics: Mapping[str, MetricDefinition],
    groupings: Mapping[str, Grouping],
    rules: Iterable[Rule],
    settings: Iterable[ArmRecord],
) -> dict[str, str]:
    """Why metrics of the rules have no value, by metric."""
    found, held = {}, {values.metric for setting in settings for values in setting.values}
    for rule in rules:
        if rule.metric in OF_GROUPS:
            grouping = groupings[rule.group_by or ALL]
            if grouping.labels is None:
                column = next(iter(manifest.spec.group_by), "race").split(",")[0]
                reason = manifest.unavailable.get(f"sr_{column}", "no output has a predicted group")
                found[rule.metric] = reason[:500]
            elif rule.metric in FACE_RATES and rule.metric not in held:
                found[rule.metric] = ONE_DRAW.reason
        elif (why := metrics[rule.metric].missing(frame, manifest.unavailable)) is not None:
            found[rule.metric] = why[:500]
    return found


def must_match(manifest: Manifest, metrics: Mapping[str, MetricDefinition]) -> dict[str, str]:
    """List what two runs need in common for a difference to be the arm's, as texts by key."""
    spec, prepared = manifest.spec, manifest.prepared
    faces = sorted((face.id, face.sha256) for face in manifest.faces)
    model = manifest.attributes
    network = "none" if model is None else f"{model.name} {getattr(model.card, 'sha256', '')}"
    keys = {
        "dataset": manifest.dataset.name or spec.dataset,
        "faces": f"{len(faces)} faces, fingerprint {fingerprint(repr(faces)):x}",
        "scales": ", ".join(map(str, sorted(spec.scales))),
        "conditions": ", ".join(sorted(spec.conditions)),
        "group_by": "; ".join(spec.group_by),
        "kernel": spec.kernel,
        "prepared": f"{prepared.resolution} px, crop {prepared.crop}"
        + (", aligned" if prepared.aligned else ""),
        "attributes": network.strip(),
    }
    # how a metric was measured, where the manifest records it
    recorded = {name: entry for entry in manifest.metrics.values() for name in entry.columns}
    for name, metric in metrics.items():
        entries = [recorded[c].as_dict() for c in (metric.columns or metric.reads) if c in recorded]
        if entries:
            keys[f"metric {name}"] = _text(entries)
    return keys


def _text(entries: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(f"{key} {value}" for entry in entries for key, value in sorted(entry.items()))
