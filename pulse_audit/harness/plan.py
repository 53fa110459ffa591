"""The plan: the faces, the arms, and work units that are never re-cut afterwards."""

from __future__ import annotations

import contextlib
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import torch

import pulse_audit
from pulse_audit import store
from pulse_audit.datasets.balance import Skipped, balanced_draw, replace_unusable
from pulse_audit.datasets.copies import Copies
from pulse_audit.datasets.images import decode
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.harness.arms import build_arms, describe_arm, input_notes
from pulse_audit.harness.comparison import photo_notes
from pulse_audit.harness.inputs import MEASURED_GROUPS, AuditInputs, find_inputs
from pulse_audit.harness.photos import training_photo_notes
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.harness.suite import MetricSuite, resolve_metrics
from pulse_audit.models.arms import expand_arms
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import ArmReference, GeneratorReference, parse_device
from pulse_audit.search.memory import free_memory, images_within
from pulse_audit.search.precision import bf16_time, choose_precision
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.seeding import sha256
from pulse_audit.store import Manifest
from pulse_audit.store.manifest import (
    DatasetEntry,
    Execution,
    FaceEntry,
    RecordedSpec,
    RoundsEntry,
    SkippedEntry,
    WorkUnit,
)
from pulse_audit.types import Face, InputError, Progress, Upsampler

#: Distributions whose version can change a result; recorded in the manifest.
RECORDED = ("pulse-audit", "torch", "torchvision", "numpy", "scipy", "scikit-image", "pillow")
#: Most draws of a run: those whose manifest can be read again.
MAX_DRAWS = 2_000_000
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """A planned audit: the manifest it will be stored with, and the objects that carry it out."""

    manifest: Manifest
    faces: Mapping[str, Face]
    arms: Mapping[str, Upsampler]
    suite: MetricSuite
    #: Of every pulse arm, what its generator was requested as.
    generators: Mapping[str, GeneratorReference]


def plan_audit(
    spec: AuditSpec,
    earlier: Manifest | None = None,
    inputs: AuditInputs | None = None,
    budget: int | None = None,
    looks: int | None = None,
    progress: Progress = lambda done, total, restored: None,
    workers: int = 1,
) -> Plan:
    """Plan an audit; deterministic in the spec, the budget and the data.

    Parameters
    ----------
    spec : AuditSpec
    earlier : Manifest, optional
        Manifest of a run to resume: its device (where that is here, or was asked for), precision,
        threads and batch are taken over, and its metrics. None resolves the spec's.
    inputs : AuditInputs, optional
        Result of `find_inputs` for the spec; None looks it up here.
    budget : int, optional
        Faces of each group that rounds of ``per_group`` may add up to; all of them are planned,
        and `harness.rounds.first_rounds` takes those that a run begins with. None: one round.
    looks : int, optional
        How often rules are judged up to the budget; None: after every round.
    progress : callable, optional
        Called with the samples that remedies classify.
    workers : int
        Processes that share this machine: the default of threads is their part of its cores.

    Raises
    ------
    InputError
        If anything the spec names cannot be used.
    """
    # The faces, and how the work is carried out; a resumed run keeps its execution.
    inputs = inputs or find_inputs(spec)
    index, groupings = inputs.index, inputs.groupings
    # Groupings that datasets.yaml has gained since are no columns of a run that was begun before.
    if earlier is not None:
        index = index.within(earlier.dataset.vocabulary)
        inputs = replace(inputs, index=index)
    references = arm_references(spec, inputs)
    per_group = budget or spec.per_group
    drawn = spec.model_copy(update={"per_group": per_group})
    chosen, skipped = choose_faces(drawn, index, groupings)
    execution = resumed(earlier.execution, spec) if earlier else resolve_execution(spec, workers)
    device, dtype = check_device(execution.device), DTYPES[execution.precision]
    torch.set_num_threads(execution.threads)

    # The arms, the frame and scales of their comparison, and what their outputs are measured with.
    used = {face.id for face, _ in chosen} | {skip.face.id for skip in skipped}
    built = build_arms(spec, references, inputs, used, device, dtype, progress)
    arms, frame, scales = built.arms, built.frame, built.scales
    references = [r for r in references if r.name in arms]
    times = None
    if earlier is None and spec.precision == "auto":
        execution, times = settle_precision(execution, arms, device)
    elif earlier is not None:
        times = earlier.bf16_times
    memory = fit_memory(arms, device, execution.batch)
    suite = resolve_metrics(spec, index, frame.resolution, device, earlier)

    # The manifest: what is planned, with what. It lists every draw.
    faces = [face for face, _ in chosen]
    ids = [face.id for face in faces]
    # faces that a round adds, of all groups
    width = len(ids) if budget is None else spec.per_group * (len(ids) // budget)
    rounds = [ids[start : start + width] for start in range(0, len(ids), width or 1)]
    draws = len(faces) * spec.draws * len(spec.conditions) * len(scales) * len(arms)
    if draws > MAX_DRAWS:
        raise InputError(
            f"{draws:,} draws (faces x draws x conditions x scales x arms) are more than a run "
            f"holds ({MAX_DRAWS:,}); lower --draws or --per-group, or make several runs"
        )
    manifest = Manifest(
        schema=store.SCHEMA_VERSION,
        status="planned",
        package_version=pulse_audit.__version__,
        spec=RecordedSpec(
            **{
                **spec.requested(),
                "scales": scales,
                "group_by": [",".join(g) for g in groupings],
            }
        ),
        fingerprint=spec.fingerprint,
        execution=execution,
        versions=versions(),
        platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        dataset=describe_dataset(index),
        prepared=frame,
        faces=[
            FaceEntry(id=face.id, labels=dict(face.labels), sha256=digest)
            for face, digest in chosen
        ],
        skipped=[
            SkippedEntry(
                id=skip.face.id, labels=dict(skip.face.labels), reason=skip.reason, kind=skip.kind
            )
            for skip in skipped
        ],
        arms={r.name: describe_arm(r, arms[r.name], frame) for r in references},
        units=cut_units(rounds, list(arms), scales, spec, execution.batch),
        notes=[
            *inputs.left_out,
            *built.left_out,
            *index.notes,
            *group_notes(index, groupings, faces),
            *copy_notes(skipped),
            *input_notes(scales, frame.resolution),
            *memory,
        ],
        **suite.entries(index.card.labels_from),
    )
    if times:
        manifest.bf16_times = times
    # Notes on the attribute model's crop, and on shipped models that were trained on these photos.
    named = [r.generator.source for r in references if r.generator is not None]
    models = [name for name in shipped_generators() if name in named]
    if suite.attributes is not None:
        models.append(suite.attributes.card.name)
    if suite.second is not None:
        models.append(suite.second.card.name)
    manifest.notes += sample_notes(index, manifest)
    manifest.notes += photo_notes(spec, frame, index.card)
    manifest.notes += suite.notes(frame.crop)
    manifest.notes += training_photo_notes(models, manifest)
    if budget is not None:
        manifest.rounds = RoundsEntry(
            per_round=spec.per_group, budget=budget, planned=len(rounds), looks=looks
        )
        manifest.notes.append(round_note(budget))
    # As it will be read back, so that a resumed run compares equal entries.
    manifest = store.check_manifest(manifest.as_dict())
    searched = {r.name: r.generator for r in references if r.kind == "pulse" and r.generator}
    return Plan(manifest, {face.id: face for face in faces}, arms, suite, searched)


def arm_references(spec: AuditSpec, inputs: AuditInputs) -> list[ArmReference]:
    """Name every arm of a run: sweeps, classes and variants written out."""
    return expand_arms(
        inputs.arms,
        inputs.generators,
        spec.trusted_files,
        latent_fit=spec.latent_fit,
        latents=spec.latents,
        sweep=spec.sweep,
    )


def restore_plan(spec: AuditSpec, manifest: Manifest) -> Plan:
    """Make the objects of a planned audit anew, as a worker does; no photo is read.

    Parameters
    ----------
    spec : AuditSpec
    manifest : Manifest
        Of the plan; its units are not needed.

    Raises
    ------
    InputError
        If data, weights or device are not here, or are not those of the plan.
    """
    inputs = find_inputs(spec)
    index = inputs.index.within(manifest.dataset.vocabulary)
    inputs, references = replace(inputs, index=index), arm_references(spec, inputs)
    device = check_device(manifest.execution.device)
    torch.set_num_threads(manifest.execution.threads)
    chosen = {face.id for face in manifest.faces}
    used = chosen | {skip.id for skip in manifest.skipped}
    dtype = DTYPES[manifest.execution.precision]
    built = build_arms(spec, references, inputs, used, device, dtype)
    arms, frame = built.arms, built.frame
    references = [r for r in references if r.name in arms]
    entries = {r.name: describe_arm(r, arms[r.name], frame) for r in references}
    for name, entry in entries.items():
        if name not in manifest.arms or entry != manifest.arms[name]:
            raise InputError(f"{name}: the arm or its weights are not those of the plan")
    fit_memory(arms, device, manifest.execution.batch)
    faces = {face.id: face for face in index.faces if face.id in chosen}
    if chosen - faces.keys():
        raise InputError(f"{min(chosen - faces.keys())}: the face of the plan is not there")
    suite = resolve_metrics(spec, index, frame.resolution, device, manifest)
    searched = {r.name: r.generator for r in references if r.kind == "pulse" and r.generator}
    return Plan(manifest, faces, arms, suite, searched)


def choose_faces(
    spec: AuditSpec, index: FaceIndex, groupings: Sequence[Sequence[str]]
) -> tuple[list[tuple[Face, str]], list[Skipped]]:
    """Draw the balanced sample, each face with the SHA-256 of its photo, and decode every photo.

    The second list are those left out: unreadable, or with the photo of another face.
    """
    # Balanced over the first grouping of labels alone: skin tone is measured later.
    balanced = next((g for g in groupings if not set(g) & set(MEASURED_GROUPS)), [])
    fewer = index.samples is not None
    # A derived grouping may have no group for some faces: these are not drawn.
    derived = [column for column in balanced if column in index.derived]
    faces = [face for face in index.faces if all(column in face.labels for column in derived)]
    draw = balanced_draw(faces, balanced, spec.per_group, spec.seed, index.vocabulary, fewer)
    digests: dict[str, str] = {}

    def verify(face: Face) -> None:
        data = face.source.read()
        decode(data)
        digests[face.id] = sha256(data)

    # Faces of one photo must agree in every label that the run groups by.
    columns = [column for g in groupings for column in g if column not in MEASURED_GROUPS]
    chosen, skipped = replace_unusable(draw, verify, Copies(index.faces), columns)
    return [(face, digests[face.id]) for face in chosen[: spec.limit]], skipped


def group_notes(
    index: FaceIndex, groupings: Sequence[Sequence[str]], faces: Sequence[Face]
) -> list[str]:
    """Say how many faces a derived grouping of the run has no group for, and which."""
    notes = []
    for column in dict.fromkeys(c for g in groupings for c in g if c in index.derived):
        source = index.derived[column][0]
        for these, sentence in (
            (index.faces, "of the data have no group"),
            (faces, "of this run have no group"),
        ):
            count = Counter(face.labels[source] for face in these if column not in face.labels)
            words = [f"{word} {count[word]:,}" for word in index.vocabulary[source] if count[word]]
            if words:
                named = f"{source}: {', '.join(words)}"
                notes.append(f"{column}: {count.total():,} faces {sentence} ({named})")
    return notes


def copy_notes(skipped: Sequence[Skipped]) -> list[str]:
    """Say how many faces were left out because others have their photo."""
    count = Counter[str](skip.kind for skip in skipped)
    meaning = {
        "duplicate": "the photo is another face's too, which stays",
        "contradictory": "the photo is there again under another label that the run groups by",
    }
    return [
        f"faces left out as {kind}: {count[kind]} ({text})"
        for kind, text in meaning.items()
        if count[kind]
    ]


def sample_notes(index: FaceIndex, manifest: Manifest) -> list[str]:
    """Say which arms search on the generator whose samples the faces are."""
    if index.samples is None:
        return []
    digests = {
        name: (arm.as_dict().get("generator") or {}).get("sha256")
        for name, arm in manifest.arms.items()
        if arm.kind == "pulse"
    }
    own = [name for name, digest in digests.items() if digest and digest == index.samples.sha256]
    return [
        f"{name} searches on the generator that made these faces: it can make every one of them, "
        "so what is lost is the search's doing, its prior included, and not incapacity"
        for name in own
    ]


def round_note(budget: int) -> str:
    """Say what a size that was not fixed beforehand means for the report."""
    return (
        f"faces are added until rules are decided, at most {budget} of each group: the verdicts "
        "hold at every look; intervals, tests and statements of the report assume a size that was "
        "fixed beforehand, and where an early stop ended the run they overstate what was found"
    )


def describe_dataset(index: FaceIndex) -> DatasetEntry:
    """Entry of the data set in the manifest."""
    card = index.card
    fields = ("name", "title", "licence", "terms", "citation", "labels_from", "labels_note", "crop")
    content = {
        **{field: getattr(card, field) for field in fields},
        "may_publish_images": card.may_publish_images,
        "split": index.split,
        "vocabulary": {column: list(words) for column, words in index.vocabulary.items()},
        "label_files": {file.name: file.sha256 for file in index.source_files},
    }
    if card.url:
        content["url"] = card.url
    if card.revocable:
        content["revocable"] = True
    if index.samples is not None:
        content["samples"] = index.samples.entry()
    return DatasetEntry(**content)


def cut_units(
    rounds: Sequence[Sequence[str]],
    arms: Sequence[str],
    scales: Sequence[int],
    spec: AuditSpec,
    batch: int,
) -> list[WorkUnit]:
    """Cut the work into units of at most ``batch`` draws (one face's draws stay together).

    Faces come in balanced random order and every arm sees a face before the next face starts,
    so what is finished at any time is balanced. No unit has faces of two ``rounds``.
    """
    # Faces per unit.
    width = max(1, batch // spec.draws)
    cells = [
        (face_ids[start : start + width], condition, scale, arm)
        for face_ids in rounds
        for start in range(0, len(face_ids), width)
        for condition in spec.conditions
        for scale in scales
        for arm in arms
    ]
    return [
        WorkUnit(
            id=f"u{number:05d}",
            arm=arm,
            condition=condition,
            scale=scale,
            draws=[(face_id, draw) for face_id in faces for draw in range(spec.draws)],
        )
        for number, (faces, condition, scale, arm) in enumerate(cells)
    ]


def resolve_execution(spec: AuditSpec, workers: int = 1) -> Execution:
    """Choose device, precision, threads and batch for this machine and so many processes.

    ``auto`` is float32 until `settle_precision` has seen the generators.
    """
    device = str(check_device(spec.device))
    return Execution(
        device=device,
        precision="fp32" if spec.precision == "auto" else spec.precision,
        threads=spec.threads or max(1, torch.get_num_threads() // workers),
        batch=spec.batch or (64 if device.startswith("cuda") else 8),
    )


def settle_precision(
    execution: Execution, arms: Mapping[str, Upsampler], device: torch.device
) -> tuple[Execution, dict[str, float | None]]:
    """Choose the precision of the searched generators by measurement, and move them to it.

    The second value is the time of a bfloat16 step over that of a float32 one by arm; None where
    it is unknown. See `pulse_audit.search.precision`.
    """
    searched = {n: arm.generator for n, arm in arms.items() if isinstance(arm, PulseUpsampler)}
    times = {name: bf16_time(generator, device) for name, generator in searched.items()}
    chosen = choose_precision(times, [g.card.sha256 for g in searched.values()])
    if chosen == "bf16":
        for generator in searched.values():
            generator.to(device, DTYPES[chosen])
    return execution.model_copy(update={"precision": chosen}), times


def fit_memory(arms: Mapping[str, Upsampler], device: torch.device, batch: int) -> list[str]:
    """Let arms search no more images at once than the memory of a GPU holds; say of which ones.

    On a CPU the number is a constant of the generator (`images_at_once`).
    """
    free, notes = free_memory(device), []
    for name, arm in arms.items():
        if free is None or not isinstance(arm, PulseUpsampler):
            continue
        fit = images_within(arm.generator, device, free)
        if fit < batch:
            arm.at_once = fit
            notes.append(
                f"{name}: {fit} images of a work unit are searched at once, as the memory of "
                f"{device} allows: results agree up to rounding with those of another number"
            )
    return notes


def resumed(execution: Execution, spec: AuditSpec) -> Execution:
    """Return how a run goes on: as before, on the CPU where a GPU that was found is gone."""
    try:
        check_device(execution.device)
    except InputError:
        if parse_device(spec.device) != "auto":
            raise
        return execution.model_copy(update={"device": "cpu"})
    return execution


def check_device(name: str) -> torch.device:
    """Turn ``auto | cpu | cuda[:i]`` into a device; `InputError` if it is not there."""
    if parse_device(name) == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {name}: not available here; use cpu") from None
    return device


def versions() -> dict[str, str]:
    """Versions of what can change a result."""
    installed = {}
    for name in RECORDED:
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed
