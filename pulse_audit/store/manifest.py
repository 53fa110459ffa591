"""What ``manifest.json`` holds: what was planned, with what, and how the run ended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from pulse_audit.documents import read_json
from pulse_audit.frames import Frame
from pulse_audit.store.images import output_path
from pulse_audit.types import InputError

SCHEMA_VERSION: Literal[1] = 1

#: Names that become columns or files of a run; a foreign manifest may hold any text.
ColumnName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_ .-]{0,79}$")]
Count = Annotated[int, Field(ge=0, le=10**12)]
UnitId = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,40}$")]


class _Entry(BaseModel):
    """Keys beyond those declared are kept as they are, so that nothing recorded is lost."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)

    def as_dict(self) -> dict[str, Any]:
        """Return the recorded keys, and only those, as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class RecordedSpec(_Entry):
    """The specification of the run, as `pulse_audit.harness.spec.AuditSpec` was given.

    ``group_by`` holds one text per grouping, the columns joined by commas.
    """

    dataset: str = ""
    seed: int = 0
    search: Literal["official", "paper", "fast"] = "official"
    eps: float | None = None
    scales: list[int] = []
    conditions: list[str] = []
    kernel: str = "pulse"
    group_by: list[str] = []
    limit: int | None = None
    keep_images: str = "none"
    sources: bool = False

    @field_validator("group_by", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        # A grouping may be given as a list of its columns.
        if not isinstance(value, list):
            return [] if value is None else value
        return [",".join(g) if isinstance(g, list) else g for g in value]

    @property
    def groupings(self) -> list[list[str]]:
        """Columns of each grouping."""
        return [grouping.split(",") for grouping in self.group_by]


class Execution(_Entry):
    """Device, precision of the generators, CPU threads, and draws per work unit."""

    device: str = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    batch: Annotated[int, Field(ge=1, le=65_536)] = 8


class DatasetEntry(_Entry):
    """The evaluation set: its terms, and the words of its labels in order."""

    name: str = ""
    title: str = ""
    terms: str | None = None
    labels_from: str | None = None
    crop: str = "as-is"
    may_publish_images: bool = False
    revocable: bool = False
    vocabulary: dict[str, list[str]]


class FrameEntry(_Entry):
    """A square part of a picture, in units of its side; see `pulse_audit.frames.Frame`."""

    left: Annotated[float, Field(ge=-10, le=10)]
    top: Annotated[float, Field(ge=-10, le=10)]
    side: Annotated[float, Field(gt=0, le=10)]

    @property
    def frame(self) -> Frame:
        """The square itself."""
        return Frame(self.left, self.top, self.side)


class Prepared(_Entry):
    """How the originals were prepared: side in pixels, crop, and whether faces were aligned.

    ``frames`` maps every other crop of photos or generators to the part of its pictures that is
    compared. Where ``per_photo``, an aligned photo that does not fill the crop is cut to the part
    of it that it shows, and so are the outputs for it.
    """

    resolution: int = 0
    crop: str = "as-is"
    aligned: bool = False
    frames: dict[str, FrameEntry] = {}
    per_photo: bool = False


class FaceEntry(_Entry):
    """One face of the run: the data set's file name, its labels, SHA-256 of its bytes."""

    id: str
    labels: dict[str, str | None] = {}
    sha256: str = ""


class SkippedEntry(_Entry):
    """A face left out, and why: ``unreadable``, ``duplicate`` or ``contradictory``."""

    id: str
    labels: dict[str, str | None] = {}
    reason: str = ""
    kind: str = "unreadable"


class PlantedTruth(_Entry):
    """What a planted arm was told: P(group returned | group of the face), (k, k)."""

    groups: list[str]
    matrix: list[list[Annotated[float, Field(ge=0, le=1)]]]

    @model_validator(mode="after")
    def _square(self) -> PlantedTruth:
        k = len(self.groups)
        if len(set(self.groups)) < k or [len(row) for row in self.matrix] != [k] * k:
            raise ValueError("the planted matrix is not one over its groups")
        return self


class ArmEntry(_Entry):
    """One arm: its kind, settings, weights, and what must be known about it."""

    kind: str | None = None
    promises_feasibility: bool | None = None
    caveats: list[str] | None = None
    notes: list[str] = []
    #: Of a variant in a sweep; see `pulse_audit.sweeps`.
    settings: dict[str, float | str] = {}

    @property
    def truth(self) -> PlantedTruth | None:
        """The matrix of a planted arm; None for other arms, and where none is recorded."""
        if self.kind != "planted":
            return None
        try:
            return PlantedTruth.model_validate(self.as_dict())
        except ValidationError:
            return None


class WorkUnit(_Entry):
    """A batch of draws, (face id, index) each, of one arm under one condition and scale."""

    id: UnitId
    arm: str = ""
    condition: str = ""
    scale: int = 0
    draws: list[tuple[str, int]] = []


class CardEntry(_Entry):
    """The card of an attribute model, of what reports use of it; see `pulse_audit.types`."""

    name: str = "an attribute model"
    vocabulary: dict[str, list[str]] = {}
    resolution: int | None = None
    confusion: dict[str, list[list[Count]]] = {}
    notes: list[str] = []


class AttributesEntry(_Entry):
    """The attribute model: its card, and the words it predicts by label column.

    ``predicted_as`` maps a label column to the attribute of the card that is predicted for it,
    ``confusion`` to the card's held-out counts in the order of the column's words.
    """

    name: str = ""
    card: CardEntry = CardEntry()
    vocabulary: dict[ColumnName, list[str]]
    predicted_as: dict[str, str] = {}
    confusion: dict[str, list[list[Count]]] = {}
    labels_from: str | None = None


class FeaturesEntry(_Entry):
    """The network whose features are stored, their length, and why none are."""

    network: str | None = None
    dim: Annotated[int, Field(ge=1, le=65_536)] | None = None
    why: str | None = None


class ReferencesEntry(_Entry):
    """What was fitted on all originals, and by column why it could not be."""

    unavailable: dict[str, str] = {}


class MetricEntry(_Entry):
    """A measured metric: the columns it fills and its settings."""

    columns: list[ColumnName]
    unit: str | None = None
    better: str | None = None


class SourcesEntry(_Entry):
    """Settings of the tables in ``sources/``: the columns that guided, what generators trained on.

    ``training`` maps an arm to counts of its generator's training faces by column and word.
    """

    guided_by: list[str]
    training: dict[str, dict[str, dict[str, Count]]] = {}


class RoundsEntry(_Entry):
    """How a run adds faces until rules are decided.

    Each round adds ``per_round`` faces of every group, up to ``budget``; ``planned`` rounds are in
    ``faces`` and ``units``. All of it follows from the seed: a round is the next part of the draw.
    ``looks`` is how often rules are judged where that was fixed beforehand; None: after every
    round.
    """

    per_round: Annotated[int, Field(ge=1, le=10**7)]
    budget: Annotated[int, Field(ge=1, le=10**7)]
    planned: Annotated[int, Field(ge=1, le=10**7)]
    looks: Annotated[int, Field(ge=2, le=1000)] | None = None

    @property
    def faces(self) -> int:
        """Faces of each group that are planned."""
        return min(self.planned * self.per_round, self.budget)

    @property
    def faces_at_looks(self) -> list[int]:
        """Faces of each group at every look, the last one at the budget."""
        rounds = -(-self.budget // self.per_round)
        looks = rounds if self.looks is None else self.looks
        # the rounds that lie nearest above equal parts of all rounds
        return [
            min(-(-look * rounds // looks) * self.per_round, self.budget)
            for look in range(1, looks + 1)
        ]


class ShardEntry(_Entry):
    """Which part of its plan a run carries out: shard ``index`` of ``of``, counted from 1."""

    index: Annotated[int, Field(ge=1, le=100_000)]
    of: Annotated[int, Field(ge=1, le=100_000)]

    def __str__(self) -> str:
        """Return it as ``--shard`` takes it."""
        return f"{self.index}/{self.of}"


class Manifest(_Entry):
    """Everything a run records about itself, beside its samples.

    ``second_attributes`` is the model that checks the first, in the same words. ``unavailable``
    maps columns without a value to the reason. ``references`` holds what was fitted
    on all originals, ``sources`` the settings of the tables in ``sources/``, ``rounds`` how faces
    are added, ``bf16_times`` the time of a bfloat16 step over that of a float32 one by arm (null
    where it is unknown), ``shard`` which part of the plan is this run's own; None where there are
    none.
    """

    schema_version: Literal[1] = Field(SCHEMA_VERSION, alias="schema")
    status: str = "planned"
    package_version: str = ""
    spec: RecordedSpec
    fingerprint: str = ""
    execution: Execution = Execution()
    versions: dict[str, str] = {}
    platform: str = "unknown"
    dataset: DatasetEntry
    prepared: Prepared = Prepared()
    faces: list[FaceEntry]
    skipped: list[SkippedEntry] = []
    arms: dict[str, ArmEntry]
    units: list[WorkUnit]
    notes: list[str] = []
    attributes: AttributesEntry | None = None
    second_attributes: AttributesEntry | None = None
    features: FeaturesEntry = FeaturesEntry()
    metrics: dict[str, MetricEntry] = {}
    unavailable: dict[str, str] = {}
    started: str | None = None
    references: ReferencesEntry | None = None
    sources: SourcesEntry | None = None
    rounds: RoundsEntry | None = None
    bf16_times: dict[str, float | None] | None = None
    shard: ShardEntry | None = None
    seconds: float = 0.0
    finished: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the run finished."""
        return self.status == "complete"

    @property
    def planned_draws(self) -> int:
        """Draws of all work units."""
        return sum(len(unit.draws) for unit in self.units)

    @property
    def own_units(self) -> list[WorkUnit]:
        """Work units of this run's shard, in the order of the plan; all where it has none.

        The units of the same faces are in one shard: it measures their originals once, and every
        shard has a like share of each arm, condition and scale.
        """
        if self.shard is None:
            return self.units
        own, number = list[WorkUnit](), -1
        for before, unit in zip([None, *self.units], self.units, strict=False):
            number += before is None or before.draws != unit.draws
            if number % self.shard.of == self.shard.index - 1:
                own.append(unit)
        return own

    @property
    def planned_outputs(self) -> set[str]:
        """Where the outputs of all draws are kept, if they are, relative to the run."""
        return {
            output_path(unit.arm, face_id, unit.condition, unit.scale, draw)
            for unit in self.units
            for face_id, draw in unit.draws
        }


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a run directory; a foreign one is not trusted.

    Raises
    ------
    InputError
        If there is none, or it is not a manifest of this version.
    """
    where = path / "manifest.json"
    try:
        content = read_json(where)
    except FileNotFoundError:
        raise InputError(f"{path}: not a run directory (no manifest.json)") from None
    if not isinstance(content, dict) or not isinstance(content.get("schema"), int):
        raise InputError(f"{where}: not a manifest of pulse-audit")
    if content["schema"] != SCHEMA_VERSION:
        raise InputError(
            f"{where}: schema {content['schema']}, this version reads {SCHEMA_VERSION}"
        )
    manifest = check_manifest(content, where)
    _check_plan(manifest, where)
    return manifest


def _check_plan(manifest: Manifest, where: Path) -> None:
    """Refuse a manifest whose parts do not fit together: InputError naming the first at fault."""
    faces = {face.id for face in manifest.faces}
    if len(faces) < len(manifest.faces):
        raise InputError(f"{where}: entry 'faces' names a face twice")
    if len({unit.id for unit in manifest.units}) < len(manifest.units):
        raise InputError(f"{where}: entry 'units' names a unit twice")
    spec, rows = manifest.spec, set[tuple[str, str, int, str, int]]()
    for unit in manifest.units:
        entry = f"{where}: unit {unit.id!r}"
        place = (unit.arm, unit.condition, unit.scale)
        if unit.arm not in manifest.arms:
            raise InputError(f"{entry} is of an arm that 'arms' does not hold")
        if unit.condition not in spec.conditions or unit.scale not in spec.scales:
            raise InputError(f"{entry} is of a condition or a scale that 'spec' does not hold")
        # No draw is planned twice, in one unit or in two.
        if not faces.issuperset(face_id for face_id, _ in unit.draws):
            raise InputError(f"{entry} holds a face that 'faces' does not")
        before = len(rows)
        rows.update((*place, face_id, draw) for face_id, draw in unit.draws)
        if len(rows) - before < len(unit.draws):
            raise InputError(f"{entry} holds a draw twice")


def check_manifest(content: dict[str, Any], where: Path | str = "manifest.json") -> Manifest:
    """Check plain JSON values against the model.

    Raises
    ------
    InputError
        Naming the first entry at fault.
    """
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(str(part) for part in first["loc"] if part != "[key]")
        if first["type"] == "string_pattern_mismatch":
            raise InputError(f"{where}: {entry}: {first['input']!r} is not one of ours") from None
        raise InputError(f"{where}: entry {entry!r} is missing or damaged") from None
