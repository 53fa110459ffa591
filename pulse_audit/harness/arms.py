"""The arms of a run: planted ones, the frame in which all are compared, and their descriptions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from pulse_audit.datasets.balance import cell_of
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import check_factor
from pulse_audit.harness.comparison import arm_notes, find_comparison, frame_arms
from pulse_audit.harness.inputs import AuditInputs
from pulse_audit.harness.photos import FacePreparer
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.models.arms import arm_sha256, build_arm, read_picture
from pulse_audit.models.generators import load_generator
from pulse_audit.names import ArmReference, GeneratorReference, parse_folder
from pulse_audit.plugins import arm_package
from pulse_audit.search.config import check_coarse, preset
from pulse_audit.search.posterior import PosteriorBank
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.store.manifest import ArmEntry, Manifest, Prepared
from pulse_audit.summary.groups import JOIN
from pulse_audit.types import Generator, InputError, Progress, Upsampler
from pulse_audit.upsamplers.diffusion import DiffusionModel
from pulse_audit.upsamplers.folder import Folder, picture_names
from pulse_audit.upsamplers.fsrnet import FSRNetUpsampler
from pulse_audit.upsamplers.onnx import OnnxUpsampler
from pulse_audit.upsamplers.planted import Planted, read_matrix
from pulse_audit.upsamplers.unet import read_model

#: The default downscaling factor, and the smallest side in pixels of an input that shows a face.
DEFAULT_SCALE, SMALLEST_INPUT = 8, 8
#: The smallest side in pixels of an input where scales that do not fit are left out.
LEAST_INPUT = 2


@dataclass(frozen=True)
class BuiltArms:
    """The arms of a run, their frame and scales, and notes on what was left out (skip_unfit)."""

    arms: dict[str, Upsampler]
    frame: Prepared
    scales: list[int]
    left_out: list[str]


def build_arms(
    spec: AuditSpec,
    references: Sequence[ArmReference],
    inputs: AuditInputs,
    used: Collection[str],
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress = lambda done, total, restored: None,
) -> BuiltArms:
    """Build the arms of a run, and find the frame and the scales at which they are compared.

    ``used`` are the ids of the run's own faces, ``progress`` counts the samples that remedies
    classify; errors as of the functions below.
    """
    left_out: list[str] = []
    config = preset(spec.search, spec.eps, coarse=spec.coarse)

    # The variants of a sweep share their generator or model.
    @cache
    def load(reference: GeneratorReference | str) -> Generator:
        return load_generator(reference, spec.trusted_files).to(device, dtype)

    @cache
    def read(folder: Path) -> DiffusionModel:
        return read_model(folder, device, dtype)

    arms: dict[str, Upsampler] = {}
    for r in (r for r in references if r.kind not in ("planted", "folder")):
        try:
            arms[r.name] = build_arm(
                r, config, spec.bank, device, load, read, spec.time_limit, spec.diffusion_steps,
                spec.dps_step, judges=(spec.attributes,), progress=progress,
            )  # fmt: skip
        except InputError as error:
            # What a run searches on is what it is about.
            if not spec.skip_unfit or r.kind == "pulse":
                raise
            left_out.append(f"arm {r.name} is left out: {error}")
    # Planted arms return prepared faces, and folders pictures of the inputs' size times the scale:
    # the frame of the others comes first.
    frame = find_comparison(spec, arms, inputs.index.card)
    arms = frame_arms(arms, frame)
    scales = spec.scales or [default_scale(frame.resolution)]
    if spec.skip_unfit:
        scales, arms, notes = fitting(scales, spec.kernel, arms, frame.resolution)
        left_out += notes
    preparer = FacePreparer.of(frame, device)
    arms |= planted_arms(
        [r for r in references if r.kind == "planted"],
        inputs.index,
        inputs.groupings[0] if inputs.groupings else [],
        used,
        preparer.prepare_by_id(inputs.index.faces),
    )
    settings = list(itertools.product(spec.conditions, scales))
    names = picture_names([face.id for face in inputs.index.faces])
    for r in (r for r in references if r.kind == "folder"):
        folder = Folder(r.name, parse_folder(r.reference), names, settings, read_picture)
        folder.check_outputs(list(used))
        arms[r.name] = folder
    # In the order of the specification.
    arms = {r.name: arms[r.name] for r in references if r.name in arms}
    check_geometry(scales, spec.kernel, arms, frame.resolution)
    return BuiltArms(arms, frame, scales, left_out)


def fitting(
    scales: Sequence[int], kernel: str, arms: Mapping[str, Upsampler], resolution: int
) -> tuple[list[int], dict[str, Upsampler], list[str]]:
    """Keep the scales that fit the run and its searches, then the other arms that fit these.

    Returns
    -------
    tuple
        Scales, arms, and a note on each that was left out.

    Raises
    ------
    InputError
        If no scale is left.
    """
    searches = {name: arm for name, arm in arms.items() if isinstance(arm, PulseUpsampler)}
    fit: dict[str, Upsampler] = {**searches}
    kept, notes = list[int](), list[str]()
    for scale in scales:
        try:
            if resolution // scale < LEAST_INPUT:
                raise InputError(f"inputs of {resolution} / {scale} px, under {LEAST_INPUT}")
            check_geometry([scale], kernel, searches, resolution)
            kept.append(scale)
        except InputError as error:
            notes.append(f"scale {scale} is not run: {error}")
    if not kept:
        raise InputError(f"no scale is left: {notes[0]}")
    for name, arm in arms.items():
        try:
            check_geometry(kept, kernel, {name: arm}, resolution)
            fit[name] = arm
        except InputError as error:
            notes.append(f"arm {name} is left out: {error}")
    return kept, fit, notes


def prepare_arms(arms: Mapping[str, Upsampler], manifest: Manifest, progress: Progress) -> None:
    """Make the banks of samples that posterior arms draw from, unless they are in the cache."""
    device = torch.device(manifest.execution.device)
    for arm in arms.values():
        for scale in manifest.spec.scales if isinstance(arm, PosteriorBank) else ():
            assert isinstance(arm, PosteriorBank)
            # The operator that is inverted has no noise, whatever the condition.
            degradation = DegradationModel("clean", scale, manifest.spec.kernel)
            arm.prepare(degradation, manifest.prepared.resolution // scale, device, progress)


def default_scale(resolution: int) -> int:
    """Return the downscaling factor of a side in pixels: 8, or the largest that leaves 8 px.

    A 4 px input of a 32 px generator says so little of a face that a detector finds none in nearly
    all outputs.

    Raises
    ------
    InputError
        If no factor from 2 to 8 divides the side and leaves an input of 8 px.
    """
    for scale in range(DEFAULT_SCALE, 1, -1):
        if resolution % scale == 0 and resolution // scale >= SMALLEST_INPUT:
            return scale
    raise InputError(
        f"no factor from 2 to {DEFAULT_SCALE} divides {resolution} px and leaves an input of at "
        f"least {SMALLEST_INPUT} px: choose one with --scale, or another --resolution"
    )


def input_notes(scales: Sequence[int], resolution: int) -> list[str]:
    """Say where inputs are so small that few outputs show a face."""
    return [
        f"scale {scale} makes inputs of {resolution // scale} px, under {SMALLEST_INPUT}: they "
        "hold so little of a face that few outputs show one; look at the no-face rate"
        for scale in scales
        if resolution // scale < SMALLEST_INPUT
    ]


def check_geometry(
    scales: Sequence[int], kernel: str, arms: Mapping[str, Upsampler], resolution: int
) -> None:
    """Check that every scale divides the resolution and every arm's size, or raise `InputError`."""
    for scale in scales:
        check_factor(resolution, scale, kernel)
        # An arm upsamples the same input to its own size, by another factor.
        lr_size = resolution // scale
        for name, arm in arms.items():
            if isinstance(arm, OnnxUpsampler | FSRNetUpsampler):
                arm.check_scale(scale, lr_size)
            if arm.resolution is None:
                continue
            if arm.resolution % lr_size:
                raise InputError(
                    f"{name}: its {arm.resolution} px are no whole multiple of the {lr_size} px "
                    f"input at --scale {scale} and --resolution {resolution}"
                )
            check_factor(arm.resolution, arm.resolution // lr_size, kernel)
            if isinstance(arm, PulseUpsampler):
                check_coarse(arm.config, lr_size)


def planted_arms(
    references: Sequence[ArmReference],
    index: FaceIndex,
    columns: Sequence[str],
    used: Collection[str],
    prepare: Callable[[str], Tensor | None],
) -> dict[str, Upsampler]:
    """Build planted arms over the groups of the columns.

    The run's own faces estimate the attribute model's confusion, all other faces of the split may
    be returned: two folds without a common face, so the correction is never tested on the faces
    it was estimated from.

    Parameters
    ----------
    references : sequence of ArmReference
        Their ``reference`` is the matrix file.
    index : FaceIndex
        The faces of the run's split.
    columns : sequence of str
        Label columns of the run's first grouping.
    used : collection of str
        Ids of the run's own faces.
    prepare : callable
        See `Planted`.

    Raises
    ------
    InputError
        If the grouping is measured or missing, the matrix is not one over its groups, or a group
        has no face left.
    """
    if not references:
        return {}
    if not columns or set(columns) - set(index.vocabulary):
        raise InputError(
            f"{references[0].name}: a planted matrix is over labelled groups: --group-by starts "
            f"with {','.join(columns) or 'nothing'}, not with one of {', '.join(index.vocabulary)}"
        )
    # All intersections of the words, and the faces of each that may be returned.
    words = (index.vocabulary[column] for column in columns)
    groups = [JOIN.join(cell) for cell in itertools.product(*words)]
    pool: dict[str, list[str]] = {group: [] for group in groups}
    for face in index.faces:
        # Faces of no group are never returned.
        group = JOIN.join(cell_of(face, columns))
        if face.id not in used and group in pool:
            pool[group].append(face.id)

    def group_of(labels: Mapping[str, str]) -> str:
        return JOIN.join(labels[column] for column in columns)

    return {
        r.name: Planted(r.name, read_matrix(Path(r.reference), groups), group_of, pool, prepare)
        for r in references
    }


def describe_arm(reference: ArmReference, arm: Upsampler, frame: Prepared) -> ArmEntry:
    """Entry of an arm in the manifest, with notes where its size or crop is not the run's.

    Raises
    ------
    InputError
        If the description of a foreign arm cannot be stored.
    """
    # What a reader has to know: sizes and crops other than the run's, and the arm's own caveats.
    notes = arm_notes(arm, frame)
    notes.extend(getattr(arm, "caveats", ()))
    description = {**arm.describe(), "notes": notes}
    if reference.settings:
        description["settings"] = dict(reference.settings)
    if description.get("search", {}).get("stop_at_feasibility"):
        notes.append("search fast: an image is kept at its first feasible step, and not improved")
    # Weights, matrix, network, pictures or code: what defines the arm.
    if reference.kind == "plugin":
        description["package"] = arm_package(reference.reference)
    elif reference.kind != "interpolation":
        digest = arm_sha256(reference)
        description["file_sha256"] = digest
        generator = description.get("generator")
        if isinstance(generator, dict):
            generator["sha256"] = generator.get("sha256") or digest
    try:
        return ArmEntry.model_validate(description)
    except ValidationError as error:
        entry = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise InputError(f"{reference.name}: {entry!r} of describe() cannot be stored") from None
