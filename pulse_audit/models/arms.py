"""Arms: the requested arms and generators to the upsamplers of a run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pulse_audit.models.generators import classes_of, find_generator, load_generator
from pulse_audit.models.shipped import shipped_generators
from pulse_audit.names import (
    INTERPOLATION,
    POSTERIORS,
    ArmReference,
    GeneratorReference,
    parse_arm,
    varied,
)
from pulse_audit.plugins import load_factory
from pulse_audit.seeding import hexdigest
from pulse_audit.types import InputError, Upsampler

if TYPE_CHECKING:
    import torch

    from pulse_audit.search.config import SearchConfig


def expand_arms(
    arms: Sequence[ArmReference],
    generators: Sequence[GeneratorReference],
    trusted: Collection[str] = (),
    *,
    latent_fit: str = "diagonal",
    latents: str = "per-layer",
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
    return references


def arm_sha256(arm: ArmReference) -> str:
    """SHA-256 of the file that defines an arm: its generator, matrix or factory."""
    # Matrix files and FILE.py:FACTORY are found as files of generators are.
    return find_generator(arm.generator or arm.reference).sha256


def build_arm(
    reference: ArmReference,
    config: SearchConfig,
    bank: int,
    device: torch.device,
    dtype: torch.dtype,
    trusted: Collection[str] = (),
) -> Upsampler:
    """Build the upsampler of a reference on a device, generators in a precision.

    ``config`` is that of every search, ``bank`` the samples of a posterior arm.
    """
    if reference.kind == "interpolation":
        from pulse_audit.degrade.resample import resize
        from pulse_audit.upsamplers.interpolate import Interpolator

        return Interpolator(reference.reference, resize)
    if reference.kind == "factory":
        upsampler: Upsampler = load_factory(reference.reference)
        if not (callable(upsampler) and hasattr(upsampler, "describe")):
            raise InputError(f"{reference.reference}: returned no upsampler (see CONTRIBUTING.md)")
        return upsampler
    # A search on a generator, or draws of its posterior; either may be a variant of PULSE's.
    from pulse_audit.search.posterior import PosteriorBank
    from pulse_audit.search.upsampler import PulseUpsampler

    generator = load_generator(reference.generator or reference.reference, trusted).to(
        device, dtype
    )
    if reference.generator is not None and reference.generator.tied:
        config = replace(config, tied_latent=True)
    if reference.kind == "posterior":
        prior = POSTERIORS[reference.name.partition(":")[0]]
        return PosteriorBank(generator, config, name=reference.name, prior=prior, size=bank)
    return PulseUpsampler(generator, config, name=reference.name)
