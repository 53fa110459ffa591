"""Arms: the requested arms and generators to the upsamplers of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.files import file_sha256
from pulse_audit.models.generators import classes_of, find_generator
from pulse_audit.models.remedies import with_remedy
from pulse_audit.models.shipped import shipped_file, shipped_generators
from pulse_audit.names import (
    COMMAND,
    DIFFUSION,
    INTERPOLATION,
    NETWORKS,
    POSTERIORS,
    ArmReference,
    GeneratorReference,
    command_words,
    parse_arm,
    parse_folder,
    varied,
)
from pulse_audit.plugins import arm_package, factory_file, load_arm
from pulse_audit.seeding import hexdigest
from pulse_audit.sweeps import Value, points, variant_name
from pulse_audit.types import Generator, InputError, Progress, Upsampler

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from pulse_audit.search.config import SearchConfig
    from pulse_audit.upsamplers.diffusion import DiffusionModel


def expand_arms(
    arms: Sequence[ArmReference],
    generators: Sequence[GeneratorReference],
    trusted: Collection[str] = (),
    *,
    latent_fit: str = "diagonal",
    latents: str = "per-layer",
    sweep: Mapping[str, Sequence[Value]] | None = None,
) -> list[ArmReference]:
    """Turn ``--arm`` and ``--generator`` into the arms of a run, with their defaults.

    Parameters
    ----------
    arms : sequence of ArmReference
    generators : sequence of GeneratorReference
        ``GENERATOR#each`` makes an arm of every class of a conditional network.
    trusted : collection of str
        SHA-256 of trusted files, see `load_generator`.
    latent_fit, latents : str
        Variants of every pulse arm, see `varied`.
    sweep : mapping of str to sequence, optional
        Settings and their values: arms that have them become one arm a combination.

    Raises
    ------
    InputError
        If ``pulse`` is requested without a generator.
    """
    # Without generators: the shipped ones, for pulse or where no arm is named at all.
    pulse = any(arm.kind == "pulse" for arm in arms)
    if not generators and (not arms or pulse):
        generators = [GeneratorReference(name) for name in shipped_generators()]
        if not arms:
            arms = [parse_arm(arm) for arm in (["bicubic"] if generators else INTERPOLATION)]
    if pulse and not generators:
        raise InputError("arm 'pulse' needs a generator: add --generator FILE.py:FACTORY or a file")

    # One pulse arm for each generator, or for each of its classes, before the other arms.
    references = [arm for arm in arms if arm.kind != "pulse"]
    searched = [
        varied(one, latent_fit, latents)
        for generator in generators
        for one in classes_of(generator, trusted)
    ]
    references[:0] = [ArmReference(f"pulse:{one.stem}", "pulse", str(one), one) for one in searched]
    # Equal names get eight hex digits of their file's SHA-256, and then of the reference.
    for digest_of in (arm_sha256, lambda arm: hexdigest(arm.reference)):
        names = [arm.name for arm in references]
        references = [
            replace(arm, name=f"{arm.name}-{digest_of(arm)[:8]}")
            if names.count(arm.name) > 1
            else arm
            for arm in references
        ]
    # The variants of a sweep stand in the place of their arm.
    return [
        replace(arm, name=variant_name(arm.name, point), settings=point)
        for arm in references
        for point in points(sweep or {}, arm.kind)
    ]


def find_arm(arm: ArmReference) -> None:
    """Find what defines an arm; neither torch nor a file is loaded.

    Raises
    ------
    InputError
        If a generator, file, folder or program is missing.
    """
    if arm.generator is not None:
        find_generator(arm.generator)
    path = Path(arm.reference)
    if arm.kind == "network":
        path = network_file(arm)
        if arm.reference in NETWORKS and not path.is_file():
            raise InputError(
                f"{arm.name}: no weights of it are in the package; train some "
                f"(python -m pulse_audit.training.fsr --help) and give --arm {arm.name}:FILE"
            )
    if arm.kind == "factory":
        factory_file(arm.reference)
    elif arm.kind in ("planted", "onnx", "network") and not path.is_file():
        raise InputError(f"{path}: cannot be read (No such file or directory)")
    elif arm.kind == "folder" and not (root := parse_folder(arm.reference).root).is_dir():
        raise InputError(f"{root}: no such folder")
    elif arm.kind in DIFFUSION and not path.is_dir():
        raise InputError(f"{path}: no such folder")
    elif arm.kind == "command":
        program = command_words(arm.reference)[0]
        if shutil.which(program) is None:
            raise InputError(f"{COMMAND}{arm.reference}: no program {program!r} is found")


def arm_sha256(arm: ArmReference) -> str:
    """SHA-256 of what defines an arm: its generator, weights, matrix, network, factory or command.

    That of a folder is over its pictures, that of a diffusion model over its files, that of a
    command over its words and the files that they name.
    """
    if arm.kind == "command":
        return hexdigest(*command_words(arm.reference), *sorted(command_files(arm).values()))
    if arm.kind == "plugin":
        return hexdigest(arm.reference, arm_package(arm.reference))
    if arm.kind == "folder":
        from pulse_audit.upsamplers.folder import folder_sha256

        return folder_sha256(parse_folder(arm.reference).root)
    if arm.kind in DIFFUSION:
        from pulse_audit.upsamplers.unet import find_files

        return find_files(Path(arm.reference)).sha256
    if arm.kind == "network":
        return file_sha256(network_file(arm))
    if arm.kind == "onnx":
        return file_sha256(Path(arm.reference))
    # Matrix files and FILE.py:FACTORY are found as files of generators are.
    return find_generator(arm.generator or arm.reference).sha256


def network_file(arm: ArmReference) -> Path:
    """Return the file of a network's weights: the package's, or the one that was named."""
    return shipped_file(arm.reference) if arm.reference in NETWORKS else Path(arm.reference)


def command_files(arm: ArmReference) -> dict[str, str]:
    """SHA-256 of the program of a command, and of every file that a word of it names."""
    program, *words = command_words(arm.reference)
    paths = {program: shutil.which(program) or program, **{word: word for word in words}}
    return {word: file_sha256(Path(path)) for word, path in paths.items() if Path(path).is_file()}


def read_picture(folder: Path, name: str) -> Tensor:
    """Read an output of a foreign method, (3, H, W) in [0, 1], within the limits of any photo.

    Raises
    ------
    UnreadableImage
        With a short reason; a ValueError.
    """
    import torch

    from pulse_audit.datasets.images import FileImage, load

    return torch.from_numpy(load(FileImage(str(folder), name))).permute(2, 0, 1).contiguous()


def build_arm(
    reference: ArmReference,
    config: SearchConfig,
    bank: int,
    device: torch.device,
    load: Callable[[GeneratorReference | str], Generator],
    read: Callable[[Path], DiffusionModel],
    time_limit: float | None = None,
    diffusion_steps: int | None = None,
    dps_step: float | None = None,
    judges: Collection[str | None] = (),
    progress: Progress = lambda done, total, restored: None,
) -> Upsampler:
    """Build the upsampler of a reference on a device.

    ``config`` is that of every search, but for the settings of a variant, ``bank`` the samples of
    a posterior arm, ``load`` makes its generator ready, and ``read`` the model of a folder.
    ``time_limit`` are the seconds of a command for one input, ``diffusion_steps`` and ``dps_step``
    those of diffusion models; ``judges`` and ``progress`` are those of `with_remedy`. Planted
    arms and folders are over the faces of a run: see `harness.arms`.
    """
    if reference.kind == "interpolation":
        from pulse_audit.degrade.resample import resize
        from pulse_audit.upsamplers.interpolate import Interpolator

        return Interpolator(reference.reference, resize)
    if reference.kind == "network":
        from pulse_audit.degrade.resample import resize
        from pulse_audit.upsamplers.fsrnet import FSRNetUpsampler, load_fsrnet

        loaded = load_fsrnet(network_file(reference))
        return FSRNetUpsampler(reference.name, *loaded, resize, device)
    if reference.kind in ("factory", "plugin"):
        return load_arm(reference.reference)
    if reference.kind == "onnx":
        from pulse_audit.upsamplers.onnx import OnnxUpsampler

        return OnnxUpsampler(reference.name, Path(reference.reference), device)
    if reference.kind == "command":
        from pulse_audit.upsamplers.command import TIME_LIMIT, Command

        words, files = command_words(reference.reference), command_files(reference)
        limit = time_limit or TIME_LIMIT
        return Command(reference.name, words, files, read_picture, limit)
    if reference.kind in DIFFUSION:
        from pulse_audit.degrade.resample import cut_to_frame
        from pulse_audit.upsamplers.diffusion import STEP_SIZE, DiffusionUpsampler

        settings = dict(reference.settings)
        return DiffusionUpsampler(
            read(Path(reference.reference)),
            "dps" if reference.kind == "dps" else "ddnm",
            cut_to_frame,
            name=reference.name,
            steps=int(settings.get("diffusion_steps") or diffusion_steps or 0) or None,
            step_size=float(settings.get("dps_step") or dps_step or STEP_SIZE),
        )
    # A search on a generator, or draws of its posterior; either may be a variant of PULSE's.
    from pulse_audit.search.config import tuned
    from pulse_audit.search.posterior import PosteriorBank
    from pulse_audit.search.upsampler import PulseUpsampler

    generator = load(reference.generator or reference.reference)
    config = tuned(config, reference.settings)
    if reference.generator is not None and reference.generator.tied:
        config = replace(config, tied_latent=True)
    if reference.kind == "posterior":
        prior = POSTERIORS[reference.name.partition(":")[0]]
        return PosteriorBank(generator, config, name=reference.name, prior=prior, size=bank)
    starts = None
    if reference.generator is not None and reference.generator.remedy is not None:
        remedy = reference.generator.remedy
        generator, starts = with_remedy(
            generator, remedy, config, device, judges=judges, progress=progress
        )
    return PulseUpsampler(generator, config, name=reference.name, starts=starts)
