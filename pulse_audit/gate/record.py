"""What the gate reads of a run: per face, the sum of its draws in every metric that rules name.

The unit of every verdict is the face with all its draws, so that a record holds all that verdicts
need, of a run or of a committed baseline file alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pulse_audit.fairness.confusion import Confusion
from pulse_audit.gate.rules import ATTRIBUTE_RATES, CORRECTED, SHARES, Rule, metric_of
from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.group_metrics import OUTCOME_METRICS
from pulse_audit.names import nearest
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.store import Manifest
from pulse_audit.summary.attributes import (
    AttributeLabels,
    Grouping,
    make_groupings,
    retention_columns,
)
from pulse_audit.summary.comparisons import UNKNOWN
from pulse_audit.summary.groups import (
    DRAW_KEYS,
    JOIN,
    NONE,
    TONES,
    Subset,
    face_numbers,
    make_subsets,
)
from pulse_audit.summary.schema import ALL, SubsetKey
from pulse_audit.types import InputError, Unavailable

SCHEMA_VERSION: Literal[1] = 1
Name = Annotated[str, Field(max_length=500)]
Number = Annotated[float, Field(allow_inf_nan=False)]
#: Digits of stored sums, so that a run and the file made of it hold the same numbers.
DIGITS = 10


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FaceValues(_Part):
    """One metric of one arm: the sum over each face's measured draws, and their number.

    ``draws`` is one number where all faces have as many; 0 draws: not measured. ``attribute`` is
    what a metric of apparent groups compares.
    """

    metric: Name
    attribute: Name | None = None
    sums: list[Number]
    draws: int | list[int]

    def arrays(self) -> tuple[FloatArray, IntArray]:
        """Return sums and numbers of draws, (faces,) each."""
        sums = np.array(self.sums, dtype=np.float64)
        return sums, np.broadcast_to(np.array(self.draws, dtype=np.int64), sums.shape)


class Outputs(_Part):
    """Apparent groups of every face's outputs, by number, -1 where there is none."""

    attribute: Name
    predicted: list[list[int]]


class ArmRecord(_Part):
    """One arm under one condition and scale."""

    arm: Name
    condition: Name
    scale: int
    values: list[FaceValues]
    outputs: list[Outputs] = []

    @property
    def key(self) -> SubsetKey:
        """Arm, condition and scale."""
        return SubsetKey(self.arm, self.condition, self.scale)


class GroupingRecord(_Part):
    """A grouping: the group of every face by number, -1 where it has none."""

    name: Name
    groups: list[Name]
    of_face: list[int]
    attribute: Name | None = None


class AttributeRecord(_Part):
    """An attribute that outputs have too: its groups, and the labelled group of every face."""

    name: Name
    groups: list[Name]
    truth: list[int]
    labels_from: Literal["people", "model"]


class Record(_Part):
    """What rules are judged on.

    ``must_match`` holds texts that have to be equal on both sides; ``arms`` the kind of every arm;
    ``faces`` name and digest of every face, in the order of all lists of faces.
    """

    schema_version: Literal[1] = Field(SCHEMA_VERSION, alias="schema")
    package_version: Name = ""
    must_match: dict[Name, Annotated[str, Field(max_length=10_000)]]
    arms: dict[Name, Name | None]
    faces: list[tuple[Name, Name]]
    groupings: list[GroupingRecord]
    attributes: list[AttributeRecord]
    settings: list[ArmRecord]
    unavailable: dict[Name, Name] = {}

    @model_validator(mode="after")
    def _lists_fit(self) -> Record:
        n, words = len(self.faces), {each.name: len(each.groups) for each in self.attributes}
        if not n or len({name for name, _ in self.faces}) < n:
            raise ValueError("faces are missing or named twice")
        for grouping in self.groupings:
            _check_numbers(grouping.of_face, n, len(grouping.groups), f"grouping {grouping.name}")
        for attribute in self.attributes:
            _check_numbers(attribute.truth, n, len(attribute.groups), f"labels {attribute.name}")
        if len({setting.key for setting in self.settings}) < len(self.settings):
            raise ValueError("an arm, condition and scale occur twice")
        for setting in self.settings:
            if setting.arm not in self.arms:
                raise ValueError(f"{setting.arm} is not among the arms")
            for values in setting.values:
                draws = [values.draws] if isinstance(values.draws, int) else values.draws
                if len(values.sums) != n or len(draws) not in (1, n) or min(draws) < 0:
                    raise ValueError(f"{setting.arm}, {values.metric}: not one sum a face")
                if isinstance(values.draws, list) and len(draws) != n:
                    raise ValueError(f"{setting.arm}, {values.metric}: not one number a face")
            for outputs in setting.outputs:
                if outputs.attribute not in words or len(outputs.predicted) != n:
                    raise ValueError(f"{setting.arm}, {outputs.attribute}: not one list a face")
                flat = [number for each in outputs.predicted for number in each]
                _check_numbers(flat, len(flat), words[outputs.attribute], outputs.attribute)
        return self

    def grouping(self, name: str) -> GroupingRecord | None:
        """Find a grouping by name."""
        return next((each for each in self.groupings if each.name == name), None)

    def attribute(self, name: str) -> AttributeRecord | None:
        """Find an attribute by name."""
        return next((each for each in self.attributes if each.name == name), None)

    def values(self, key: SubsetKey, metric: str, attribute: str | None) -> FaceValues | None:
        """Find the values of a metric under an arm, condition and scale."""
        setting = next((each for each in self.settings if each.key == key), None)
        wanted = (metric, attribute)
        every = setting.values if setting else []
        return next((v for v in every if (v.metric, v.attribute) == wanted), None)

    def outputs(self, key: SubsetKey, attribute: str) -> Outputs | None:
        """Find the apparent groups of the outputs of an arm, condition and scale."""
        setting = next((each for each in self.settings if each.key == key), None)
        every = setting.outputs if setting else []
        return next((each for each in every if each.attribute == attribute), None)

    def holds(self, metric: str) -> bool:
        """Whether a metric was asked for when the record was made."""
        held = {values.metric for setting in self.settings for values in setting.values}
        return metric in held or metric in self.unavailable

    def why_not(self, metric: str) -> str:
        """Why there is no value of a metric."""
        return self.unavailable.get(metric, "not measured in this run")


def _check_numbers(numbers: Sequence[int], n: int, k: int, what: str) -> None:
    if len(numbers) != n or (numbers and not (min(numbers) >= NONE and max(numbers) < k)):
        raise ValueError(f"{what}: not one group of {k} for each face")


@dataclass(frozen=True, eq=False)
class Trial:
    """A run as the gate reads it: its record, and what only the run itself has.

    ``confusions`` holds, by attribute, the measured errors of the attribute model.
    """

    record: Record
    confusions: Mapping[str, Confusion | Unavailable]
    metrics: Mapping[str, MetricDefinition]


def measure(manifest: Manifest, samples: pd.DataFrame, rules: Sequence[Rule], where: str) -> Trial:
    """Record per face what rules need of a run.

    Raises
    ------
    InputError
        If a metric or a column that a rule names is unknown.
    """
    frame = samples.sort_values(DRAW_KEYS, kind="stable", ignore_index=True)
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
        if rule.metric not in ATTRIBUTE_RATES:
            needed[rule.metric, None] = None
        elif labels is not None:
            needed[rule.metric, labels.attribute] = labels
            # the raw rate stands beside the corrected one
            needed["retention", labels.attribute] = labels
    attributes = {labels.attribute: labels for labels in needed.values() if labels is not None}
    settings = []
    for subset in make_subsets(manifest, frame):
        values = [
            _by_face(subset, metrics, name, labels, len(ids))
            for name, labels in (
                (metric, of)
                for (metric, _), of in needed.items()
                if metric not in (CORRECTED, SHARES)
            )
        ]
        outputs = [_outputs(subset, labels, len(ids)) for labels in attributes.values()]
        settings.append(
            ArmRecord(
                **subset.key._asdict(), values=[v for v in values if v is not None], outputs=outputs
            )
        )  # fmt: skip
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
        unavailable=_unavailable(manifest, frame, metrics, groupings, rules),
    )
    return Trial(record, {n: labels.confusion for n, labels in attributes.items()}, metrics)


def _groupings(
    manifest: Manifest, frame: pd.DataFrame, rules: Iterable[Rule], where: str
) -> list[Grouping]:
    """Make the groupings of the rules, by any column that the samples have."""
    asked = [rule.group_by for rule in rules if rule.group_by not in (None, ALL)]
    labels = [str(name)[6:] for name in frame if str(name).startswith("label_")]
    known = [*labels, *(tone for tone, (name, _) in TONES.items() if f"hr_{name}" in frame)]
    for grouping in asked:
        for column in str(grouping).split(","):
            if column not in known:
                raise InputError(f"{where}: unknown group_by {column!r}{nearest(column, known)}")
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
    if labels is not None:
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
    sums = np.bincount(subset.faces[measured], numbers[measured], n)
    draws = np.bincount(subset.faces[measured], minlength=n).tolist()
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
) -> dict[str, str]:
    """Why metrics of the rules have no value, by metric."""
    found = {}
    for rule in rules:
        if rule.metric in ATTRIBUTE_RATES:
            grouping = groupings[rule.group_by or ALL]
            if grouping.labels is None:
                column = next(iter(manifest.spec.group_by), "race").split(",")[0]
                reason = manifest.unavailable.get(f"sr_{column}", "no output has a predicted group")
                found[rule.metric] = reason[:500]
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
