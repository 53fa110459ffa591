"""What the gate reads of a run: per face, the sum of its draws in every metric that rules name.

The unit of every verdict is the face with all its draws, so that a record holds all that verdicts
need, of a run or of a committed baseline file alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.summary.groups import NONE
from pulse_audit.summary.schema import SubsetKey

SCHEMA_VERSION: Literal[1] = 1
Name = Annotated[str, Field(max_length=500)]
#: Sums and numbers of draws, far below where squares and products of them leave a double's range.
Number = Annotated[float, Field(ge=-1e50, le=1e50, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=0, le=10**7)]
#: Faces are paired where the sides share at least this part of the larger one; else the sides are
#: two samples. It depends on the designs alone, never on an outcome.
SHARED = 0.5


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FaceValues(_Part):
    """One metric of one arm: the sum over each face's measured draws, and their number.

    ``draws`` is one number where all faces have as many; 0 draws: not measured. ``attribute`` is
    what a metric of apparent groups compares. A metric of all draws of a face together, such as the
    flip rate, counts as one draw.
    """

    metric: Name
    attribute: Name | None = None
    sums: list[Number]
    draws: Count | list[Count]

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
        self._check_names()
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
                if len(values.sums) != n or len(draws) not in (1, n):
                    raise ValueError(f"{setting.arm}, {values.metric}: not one sum a face")
                if isinstance(values.draws, list) and len(draws) != n:
                    raise ValueError(f"{setting.arm}, {values.metric}: not one number a face")
            for outputs in setting.outputs:
                if outputs.attribute not in words or len(outputs.predicted) != n:
                    raise ValueError(f"{setting.arm}, {outputs.attribute}: not one list a face")
                flat = [number for each in outputs.predicted for number in each]
                _check_numbers(flat, len(flat), words[outputs.attribute], outputs.attribute)
        return self

    def _check_names(self) -> None:
        """Raise ValueError where two entries of a list have one name: either could be meant."""
        every: list[tuple[str, list[object]]] = [
            ("groupings", [grouping.name for grouping in self.groupings]),
            ("attributes", [attribute.name for attribute in self.attributes]),
        ]
        every += [(f"groups of {each.name}", [*each.groups]) for each in self.groupings]
        every += [(f"groups of {each.name}", [*each.groups]) for each in self.attributes]
        for setting in self.settings:
            values = [(each.metric, each.attribute) for each in setting.values]
            every.append((f"values of {setting.arm}", [*values]))
            every.append((f"outputs of {setting.arm}", [out.attribute for out in setting.outputs]))
        for what, names in every:
            if len(set(names)) < len(names):
                raise ValueError(f"{what}: a name occurs twice")

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
class Pairing:
    """Positions of the faces that are compared; where ``paired``, the same faces in one order."""

    trial: IntArray
    baseline: IntArray
    paired: bool


def pair_faces(trial: Record, baseline: Record) -> Pairing:
    """Pair the faces of two records by name and digest, as far as they share enough of them."""
    place = {face: number for number, face in enumerate(baseline.faces)}
    shared = [(n, place[face]) for n, face in enumerate(trial.faces) if face in place]
    sizes = len(trial.faces), len(baseline.faces)
    if shared and len(shared) >= SHARED * max(sizes):
        of_trial, of_baseline = np.array(shared, dtype=np.int64).T
        return Pairing(of_trial, of_baseline, True)
    of_trial, of_baseline = (np.arange(size, dtype=np.int64) for size in sizes)
    return Pairing(of_trial, of_baseline, False)
