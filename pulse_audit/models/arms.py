"""Arms: what is asked for on the command line to the upsamplers of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.models.generators import classes_of, load_generator, reference_sha256
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import GeneratorReference, is_factory, nearest, parse_generator
from pulse_audit.plugins import load_factory
from pulse_audit.seeding import hexdigest
from pulse_audit.types import InputError, Upsampler

if TYPE_CHECKING:
    import torch

INTERPOLATING = ("nearest", "bicubic", "lanczos")
PLANTED = "planted:"
ARM_FORMS = ("pulse", *INTERPOLATING, f"{PLANTED}MATRIX.csv", "FILE.py:FACTORY")


@dataclass(frozen=True)
class ArmReference:
    """One arm as asked for: its name, and the generator or factory behind it."""

    name: str
    kind: str
    reference: str


def expand_arms(
    arms: Sequence[str], generators: Sequence[str], trusted: Collection[str] = ()
) -> list[ArmReference]:
    """Turn ``--arm`` and ``--generator`` into the arms of a run (cli.md, "Defaults of run").

    Parameters
    ----------
    arms, generators : sequence of str
        ``GENERATOR#each`` makes an arm of every class of a conditional network.
    trusted : collection of str
        SHA-256 of the files the user vouches for, see `load_generator`.

    Raises
    ------
    InputError
        If an arm is unknown, or ``pulse`` is asked for without a generator.
    """
    for arm in arms:
        known = arm in ("pulse", *INTERPOLATING) or arm.startswith(PLANTED) or is_factory(arm)
        if not known:
            raise InputError(f"unknown arm {arm!r}{nearest(arm, ARM_FORMS)}")
    if not generators and (not arms or "pulse" in arms):
        generators = shipped_generators()
        arms = arms or (["bicubic"] if generators else INTERPOLATING)
    if "pulse" in arms and not generators:
        raise InputError("arm 'pulse' needs a generator: add --generator FILE.py:FACTORY or a file")
    searched = [
        ArmReference(f"pulse:{parse_generator(one).stem}", "pulse", one)
        for generator in generators
        for one in classes_of(generator, trusted)
    ]
    others = [_other_arm(arm) for arm in arms if arm != "pulse"]
    return _distinct([*searched, *others])


def build_arm(
    reference: ArmReference,
    search: str,
    device: torch.device,
    dtype: torch.dtype,
    trusted: Collection[str] = (),
) -> Upsampler:
    """Build the upsampler behind a reference, on a device, generators in a precision.

    Raises
    ------
    InputError
        If its generator or factory cannot be used.
    """
    if reference.kind == "interpolation":
        from pulse_audit.degrade.resample import resize
        from pulse_audit.upsamplers.interpolate import Interpolator

        return Interpolator(reference.reference, resize)
    if reference.kind == "factory":
        made = load_factory(reference.reference)
        if not (callable(made) and hasattr(made, "describe")):
            raise InputError(f"{reference.reference}: returned no upsampler (see CONTRIBUTING.md)")
        upsampler: Upsampler = made
        return upsampler
    from pulse_audit.search.config import PRESETS
    from pulse_audit.search.upsampler import PulseUpsampler

    generator = load_generator(reference.reference, trusted).to(device, dtype)
    return PulseUpsampler(generator, PRESETS[search], name=reference.name)


def _other_arm(arm: str) -> ArmReference:
    """Return the reference of an arm that is not a search."""
    if arm in INTERPOLATING:
        return ArmReference(arm, "interpolation", arm)
    if arm.startswith(PLANTED):
        matrix = arm.removeprefix(PLANTED)
        return ArmReference(f"{PLANTED}{Path(matrix).stem}", "planted", matrix)
    return ArmReference(GeneratorReference(arm).stem, "factory", arm)


def _distinct(references: Sequence[ArmReference]) -> list[ArmReference]:
    """Equal names get eight hex digits of their file's SHA-256, and then of the reference."""

    def mark(reference: ArmReference, digest: str) -> ArmReference:
        return ArmReference(f"{reference.name}-{digest[:8]}", reference.kind, reference.reference)

    for digest_of in (reference_sha256, hexdigest):
        names = [r.name for r in references]
        references = [
            mark(r, digest_of(r.reference)) if names.count(r.name) > 1 else r for r in references
        ]
    return list(references)
