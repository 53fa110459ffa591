"""What a specification names: arms, generators, models, metrics, the data set and its faces.

Everything is looked up before torch is loaded, so that a wrong name is answered at once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.conditions import parse_condition
from pulse_audit.datasets.registry import load_registry
from pulse_audit.harness.spec import SEARCHES, AuditSpec
from pulse_audit.models.arms import find_arm
from pulse_audit.models.attributes import find_attributes
from pulse_audit.models.generators import find_generator
from pulse_audit.names import (
    ArmReference,
    GeneratorReference,
    nearest,
    parse_arm,
    parse_coarse,
    parse_device,
    parse_generator,
    sampled_generator,
)
from pulse_audit.plugins import arm_names, find_metric
from pulse_audit.sweeps import SETTINGS
from pulse_audit.types import CROPS, InputError, Progress

if TYPE_CHECKING:
    from pulse_audit.datasets.readers import FaceIndex

#: Groupings by what is measured on the originals, not labelled.
MEASURED_GROUPS = ("skin_tone", "monk")


@dataclass(frozen=True)
class AuditInputs:
    """What a specification names: parsed arms and generators, faces and groupings."""

    arms: list[ArmReference]
    generators: list[GeneratorReference]
    index: FaceIndex
    #: Label columns of each grouping; the data set's own where the specification names none.
    groupings: list[list[str]]
    #: Notes on the arms that were left out (``skip_unfit``).
    left_out: tuple[str, ...] = ()


def find_inputs(spec: AuditSpec, progress: Progress | None = None) -> AuditInputs:
    """Look up every name in a specification; no photo and no weights are read.

    The faces of ``samples:GENERATOR`` are drawn here, after everything else was found, unless they
    are in the cache: ``progress`` is called with the samples drawn.

    Raises
    ------
    InputError
        One line about the first name that is unknown, or the first file that is missing.
    """
    # Arms and their generators.
    arms, left_out = find_arms(spec)
    generators = [parse_generator(generator) for generator in spec.generators]
    for generator in generators:
        find_generator(generator)
    if spec.coarse is not None:
        parse_coarse(spec.coarse)
        if spec.sources:
            raise InputError("--coarse: the searches of --sources are whole; leave one of them out")
    check_sweep(spec, {arm.kind for arm in arms})
    # Inputs and execution.
    for condition in spec.conditions:
        parse_condition(condition)
    parse_device(spec.device)
    if spec.crop not in (None, *CROPS):
        raise InputError(f"--crop {spec.crop}: unknown{nearest(str(spec.crop), CROPS)}")
    # Measurements. Without the shipped attribute model a run continues; a named one has to exist.
    for metric in spec.metrics or ():
        find_metric(metric)
    for model in (spec.attributes, spec.second_attributes):
        if model not in (None, "none"):
            find_attributes(model)

    # The data set and its label files, and the groupings: "race,gender" is an intersection of label
    # columns or measured skin tones.
    groupings = [
        [column.strip() for column in text.split(",") if column.strip()]
        for text in spec.group_by or ()
    ]
    index = _read_dataset(spec, groupings, progress or (lambda done, total, restored: None))
    card = index.card
    if spec.group_by is None:
        groupings = [list(card.group_by)]
    known = [*index.vocabulary, *MEASURED_GROUPS]
    for column in (column for grouping in groupings for column in grouping):
        if column not in known:
            hint = nearest(column, known)
            raise InputError(f"--group-by {column}: no label of {card.name!r}{hint}")
    groupings = [grouping for grouping in groupings if grouping]
    return AuditInputs(arms, generators, index, groupings, tuple(left_out))


def find_arms(spec: AuditSpec) -> tuple[list[ArmReference], list[str]]:
    """Look up the arms of a specification; with ``skip_unfit`` also notes on those left out.

    Raises
    ------
    InputError
        About the first arm that is unknown or lacks a file, or if none is left.
    """
    arms, notes = list[ArmReference](), list[str]()
    for name in spec.arms:
        try:
            arm = parse_arm(name, arm_names())
            find_arm(arm)
        except InputError as error:
            if not spec.skip_unfit:
                raise
            # The nearest names that an unknown one is answered with are of no use here.
            reason = str(error).partition("; did you mean")[0].partition("; known:")[0]
            notes.append(f"arm {name} is left out: {reason}")
        else:
            arms.append(arm)
    if spec.arms and not arms:
        raise InputError(f"no arm is left: {notes[0]}")
    return arms, notes


def _read_dataset(
    spec: AuditSpec, groupings: Sequence[Sequence[str]], progress: Progress
) -> FaceIndex:
    """Read the faces of a data set, or draw them where they are samples of a generator."""
    generator = sampled_generator(spec.dataset)
    if generator is None:
        if spec.truncation is not None:
            raise InputError("--truncation: only --dataset samples:GENERATOR can be truncated")
        card = load_registry(spec.datasets_file).get(spec.dataset)
        from pulse_audit.datasets.readers import read_faces  # loads numpy: wrong names come first

        return read_faces(card, spec.data_root, spec.split)
    reference = parse_generator(generator)
    if reference.label == "each":
        raise InputError(f"{spec.dataset}: choose one class here, such as #0, or leave #each out")
    if reference.variant:
        raise InputError(f"{spec.dataset}: {reference.variant} is of searches, not of samples")
    if spec.split not in ("val", "all"):
        raise InputError(f"{spec.dataset}: samples have no splits; leave --split out")
    if spec.attributes == "none":
        raise InputError(f"{spec.dataset}: groups are an attribute model's; leave none out")
    find_generator(reference)
    find_attributes(spec.attributes)
    from pulse_audit.harness.plan import check_device  # loads torch: wrong names come first
    from pulse_audit.harness.samples import samples_of

    columns = next((g for g in groupings if not set(g) & set(MEASURED_GROUPS)), None)
    # Without any grouping of labels all samples are one group.
    if columns is None and spec.group_by is not None:
        columns = []
    return samples_of(spec, generator, columns, check_device(spec.device), progress)


def check_sweep(spec: AuditSpec, kinds: Collection[str]) -> None:
    """Refuse a sweep that would change nothing; ``kinds`` are those of the arms that are named.

    Raises
    ------
    InputError
        If no arm has one of its settings, the run sets it for all, or there is one draw a face
        where draws are to differ.
    """
    # A generator makes a pulse arm, and so does a run that names no arm.
    searched = {"pulse"} if spec.generators or not spec.arms else set[str]()
    for name, values in spec.sweep.items():
        of = SETTINGS[name].kinds
        if not {*kinds, *searched} & {*of}:
            raise InputError(f"sweep: no arm of this run has {name}; {' and '.join(of)} arms do")
        whole_run = ("eps", "diffusion_steps", "dps_step")
        if name in whole_run and getattr(spec, name) is not None:
            raise InputError(f"sweep: {name} is set for the whole run, too; leave one of them out")
        if name == "vary" and "noise" in values and spec.draws < 2:
            raise InputError("sweep: vary=noise is about the draws of a face; give two --draws")


def check_prior(generators: Sequence[str], attributes: str | None, device: str) -> None:
    """Look up what ``pulse-audit prior`` names; errors as `find_inputs`."""
    parse_device(device)
    for name in generators:
        reference = parse_generator(name)
        if reference.label == "each":
            raise InputError(f"{name}: choose one class here, such as #0, or leave #each out")
        if reference.variant:
            raise InputError(f"{name}: all variants are compared; leave {reference.variant} out")
        find_generator(reference)
    stems = [parse_generator(name).stem for name in generators]
    for stem in stems:
        if stems.count(stem) > 1:
            raise InputError(f"{stem}: two generators of that name would share their files")
    if attributes == "none":
        raise InputError("--attributes none: shares of groups are an attribute model's")
    find_attributes(attributes)


def listed_photos(given: Sequence[Path], out: Path) -> list[Path]:
    """Replace folders by the photos in them, by name; subfolders and hidden files are left out.

    `InputError` for a folder without photos, and for one that the outputs would go into.
    """
    photos: list[Path] = []
    for path in given:
        if not path.is_dir():
            photos.append(path)
            continue
        from pulse_audit.datasets.scan import IMAGE_SUFFIXES  # loads numpy: wrong names come first

        if path.resolve() == out.resolve():
            raise InputError(f"--out {out}: the folder of the photos; choose another")
        try:
            entries = sorted(path.iterdir())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        entries = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
        found = [entry for entry in entries if entry.is_file() and entry.name[0] != "."]
        if not found:
            raise InputError(f"{path}: no photos in this folder ({', '.join(IMAGE_SUFFIXES)})")
        photos += found
    # A photo may be given by itself and in its folder.
    return list(dict.fromkeys(photos))


def check_search(
    photos: Sequence[Path], generator: str, search: str, coarse: str | None, device: str
) -> None:
    """Look up what ``pulse-audit upsample`` names; errors as `find_inputs`."""
    if coarse is not None:
        parse_coarse(coarse)
    if search not in SEARCHES:
        raise InputError(f"--search {search}: unknown{nearest(search, SEARCHES)}")
    if parse_generator(generator).label == "each":
        raise InputError(f"{generator}: choose one class here, such as #0, or leave #each out")
    # The photos are decoded later; here they only have to exist.
    parse_device(device)
    for photo in photos:
        if not photo.exists():
            raise InputError(f"{photo}: cannot be read (No such file or directory)")
    find_generator(generator)
