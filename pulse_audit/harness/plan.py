"""The plan: which faces, which arms, and work units that nothing re-cuts afterwards."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

import pulse_audit
from pulse_audit import store
from pulse_audit.datasets.balance import Skipped, balanced_draw, replace_unreadable
from pulse_audit.datasets.images import decode
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.datasets.registry import DatasetCard
from pulse_audit.degrade.resample import check_factor
from pulse_audit.harness.inputs import MEASURED_GROUPS, AuditInputs, find_inputs
from pulse_audit.harness.planted import planted_arms, preparer
from pulse_audit.harness.provenance import notes_of_seen
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.harness.suite import MetricSuite, resolve_metrics
from pulse_audit.models.arms import arm_sha256, build_arm, expand_arms
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import ArmReference, parse_device, parse_generator
from pulse_audit.seeding import sha256
from pulse_audit.store import Manifest
from pulse_audit.types import Face, InputError, Upsampler

#: Distributions whose version can change a result; recorded in the manifest.
RECORDED = ("pulse-audit", "torch", "torchvision", "numpy", "scipy", "scikit-image", "pillow")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Plan:
    """A planned audit: the manifest it will be stored with, and the objects that carry it out."""

    manifest: Manifest
    faces: Mapping[str, Face]
    arms: Mapping[str, Upsampler]
    instruments: MetricSuite


def plan_audit(
    spec: AuditSpec,
    earlier: Manifest | None = None,
    inputs: AuditInputs | None = None,
) -> Plan:
    """Plan an audit; deterministic in the spec and the data.

    Parameters
    ----------
    spec : AuditSpec
    earlier : Manifest, optional
        Manifest of a run to resume: its device, precision, threads and batch are taken over, and
        its metrics. None resolves the spec's.
    inputs : AuditInputs, optional
        What `find_inputs` found for the spec; None looks it up here.

    Raises
    ------
    InputError
        If anything the spec names cannot be used.
    """
    inputs = inputs or find_inputs(spec)
    index, groupings = inputs.index, inputs.groupings
    card = index.card
    references = expand_arms(spec.arms, spec.generators, spec.trusted_files)
    chosen, skipped = choose_faces(spec, index, groupings)
    execution = earlier.execution.as_dict() if earlier else resolve_execution(spec)
    device = check_device(str(execution["device"]))
    torch.set_num_threads(int(execution["threads"]))
    dtype = DTYPES[str(execution["precision"])]
    arms = {
        r.name: build_arm(r, spec.search, device, dtype, spec.trusted_files)
        for r in references
        if r.kind != "planted"
    }
    resolution, crop = compared_at(spec, arms, card)
    arms |= planted_arms(
        [r for r in references if r.kind == "planted"],
        index,
        groupings[0] if groupings else [],
        {face.id for face, _ in chosen} | {s.face.id for s in skipped},
        preparer(index.faces, device, needs_alignment(card, crop), crop, resolution),
    )
    arms = {r.name: arms[r.name] for r in references}
    check_geometry(spec, arms, resolution)
    instruments = resolve_metrics(spec, index, resolution, device, earlier)
    content = {
        "schema": store.SCHEMA_VERSION,
        "status": "planned",
        "package_version": pulse_audit.__version__,
        "spec": {**spec.asked(), "group_by": [",".join(g) for g in groupings]},
        "fingerprint": spec.fingerprint,
        "execution": dict(execution),
        "versions": versions(),
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "dataset": describe_dataset(index),
        "prepared": {
            "resolution": resolution,
            "crop": crop,
            "aligned": needs_alignment(card, crop),
        },
        "faces": [
            {"id": face.id, "labels": dict(face.labels), "sha256": digest}
            for face, digest in chosen
        ],
        "skipped": [
            {"id": s.face.id, "labels": dict(s.face.labels), "reason": s.reason} for s in skipped
        ],
        "arms": {r.name: describe_arm(r, arms[r.name], resolution, crop) for r in references},
        "units": cut_units(
            [face.id for face, _ in chosen], list(arms), spec, int(execution["batch"])
        ),
        "notes": list(index.notes),
        **instruments.entries(card.labels_from),
    }
    manifest = store.check_manifest(content)
    manifest.notes += instruments.notes(crop)
    manifest.notes += notes_of_seen(shipped_models(references, instruments), manifest)
    return Plan(manifest, {face.id: face for face, _ in chosen}, arms, instruments)


def shipped_models(references: Sequence[ArmReference], instruments: MetricSuite) -> list[str]:
    """Names of the models of a run that come with the package."""
    named = [parse_generator(r.reference).source for r in references if r.kind == "pulse"]
    generators = [name for name in shipped_generators() if name in named]
    model = instruments.attributes
    return [*generators, *([model.card.name] if model is not None else [])]


def choose_faces(
    spec: AuditSpec, index: FaceIndex, groupings: Sequence[Sequence[str]]
) -> tuple[list[tuple[Face, str]], list[Skipped]]:
    """Draw the balanced sample; every chosen photo has been decoded once.

    Skin tone is measured, not labelled, so only groupings over label columns can be balanced.

    Returns
    -------
    chosen : list of (Face, SHA-256 of its bytes)
    skipped : unreadable photos, replaced from the balanced reserve
    """
    balanced = next((g for g in groupings if not set(g) & set(MEASURED_GROUPS)), [])
    draw = balanced_draw(index.faces, balanced, spec.per_group, spec.seed, index.vocabulary)
    digests: dict[str, str] = {}

    def verify(face: Face) -> None:
        data = face.source.read()
        decode(data)
        digests[face.id] = sha256(data)

    faces, skipped = replace_unreadable(draw, verify)
    return [(face, digests[face.id]) for face in faces[: spec.limit]], skipped


def compared_at(
    spec: AuditSpec, arms: Mapping[str, Upsampler], card: DatasetCard
) -> tuple[int, str]:
    """Resolution and crop at which outputs are compared: the smallest generator's by default."""
    searched = [arm for arm in arms.values() if arm.resolution is not None]
    smallest = min(searched, key=lambda arm: arm.resolution or 0, default=None)
    native = smallest.resolution if smallest is not None else card.resolution
    resolution = spec.resolution or native
    if resolution is None:
        raise InputError(
            f"data set {card.name!r} has no native size and no arm has one: add --resolution"
        )
    native_crop = getattr(smallest, "crop", "as-is")
    return resolution, spec.crop or (card.crop if native_crop == "as-is" else native_crop)


def check_geometry(spec: AuditSpec, arms: Mapping[str, Upsampler], resolution: int) -> None:
    """Check that every scale divides the resolution, and every arm's own size.

    Raises
    ------
    InputError
        Naming the scale, and the arm where one is at fault.
    """
    for scale in spec.scales:
        check_factor(resolution, scale, spec.kernel)
        lr_size = resolution // scale
        for name, arm in arms.items():
            if arm.resolution is None:
                continue
            if arm.resolution % lr_size:
                raise InputError(
                    f"{name}: its {arm.resolution} px are no whole multiple of the {lr_size} px "
                    f"input at --scale {scale} and --resolution {resolution}"
                )
            check_factor(arm.resolution, arm.resolution // lr_size, spec.kernel)


def describe_arm(
    reference: ArmReference, arm: Upsampler, resolution: int, crop: str
) -> dict[str, Any]:
    """Say what the manifest holds of an arm, with notes where it is compared off its own ground."""
    notes = []
    if arm.resolution not in (None, resolution):
        notes.append(f"native size {arm.resolution} px, resampled to {resolution} px")
    if getattr(arm, "crop", "as-is") not in ("as-is", crop):
        notes.append(f"made for crop {getattr(arm, 'crop', None)}, compared at crop {crop}")
    notes.extend(getattr(arm, "caveats", ()))
    described = {**arm.describe(), "notes": notes}
    if described.get("search", {}).get("stop_at_feasibility"):
        notes.append("search fast: an image is kept at its first feasible step, and not improved")
    if reference.kind != "interpolation":
        digest = arm_sha256(reference)
        described["file_sha256"] = digest
        generator = described.get("generator")
        if isinstance(generator, dict):
            generator["sha256"] = generator.get("sha256") or digest
    return described


def describe_dataset(index: FaceIndex) -> dict[str, Any]:
    """Say what the manifest holds of the data set."""
    card = index.card
    fields = ("name", "title", "licence", "terms", "citation", "labels_from", "labels_note", "crop")
    return {
        **{field: getattr(card, field) for field in fields},
        "may_publish_images": card.may_publish_images,
        "split": index.split,
        "vocabulary": {column: list(words) for column, words in index.vocabulary.items()},
        "label_files": {file.name: file.sha256 for file in index.source_files},
    }


def needs_alignment(card: DatasetCard, crop: str) -> bool:
    """Whether faces of the data set must be aligned to get the run's crop."""
    return crop not in ("as-is", card.crop)


def cut_units(
    face_ids: Sequence[str], arms: Sequence[str], spec: AuditSpec, batch: int
) -> list[dict[str, Any]]:
    """Cut the work into units of at most ``batch`` draws (one face's draws stay together).

    Faces come in balanced random order and every arm sees a face before the next face starts,
    so what is finished at any time is balanced.
    """
    width = max(1, batch // spec.draws)
    cells = [
        (face_ids[start : start + width], condition, scale, arm)
        for start in range(0, len(face_ids), width)
        for condition in spec.conditions
        for scale in spec.scales
        for arm in arms
    ]
    return [
        {
            "id": f"u{number:05d}",
            "arm": arm,
            "condition": condition,
            "scale": scale,
            "draws": [[face_id, draw] for face_id in faces for draw in range(spec.draws)],
        }
        for number, (faces, condition, scale, arm) in enumerate(cells)
    ]


def resolve_execution(spec: AuditSpec) -> dict[str, Any]:
    """Settle device, precision, threads and batch on this machine."""
    device = str(check_device(spec.device))
    return {
        "device": device,
        "precision": "fp32" if spec.precision == "auto" else spec.precision,
        "threads": spec.threads or torch.get_num_threads(),
        "batch": spec.batch or (64 if device.startswith("cuda") else 8),
    }


def check_device(name: str) -> torch.device:
    """Turn ``auto | cpu | cuda[:i]`` into a device that is there.

    Raises
    ------
    InputError
        If the device is unknown or not there.
    """
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
    found = {}
    for name in RECORDED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
