"""Names to objects: arms and generators as the user writes them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_audit.names import nearest
from pulse_audit.seeding import hexdigest, sha256
from pulse_audit.types import Generator, InputError, Upsampler

if TYPE_CHECKING:
    import torch

INTERPOLATING = ("nearest", "bicubic", "lanczos")
ARM_FORMS = ("pulse", *INTERPOLATING, "FILE.py:FACTORY")


@dataclass(frozen=True)
class ArmReference:
    """One arm as asked for: its name, and the generator or factory behind it."""

    name: str
    kind: str
    reference: str


def expand_arms(arms: Sequence[str], generators: Sequence[str]) -> list[ArmReference]:
    """Turn ``--arm`` and ``--generator`` into the arms of a run (cli.md, "Defaults of run").

    Raises
    ------
    InputError
        If an arm is unknown, or ``pulse`` is asked for without a generator.
    """
    for arm in arms:
        if arm not in ("pulse", *INTERPOLATING) and not is_factory(arm):
            raise InputError(f"unknown arm {arm!r}{nearest(arm, ARM_FORMS)}")
    if "pulse" in arms and not generators:
        raise InputError("arm 'pulse' needs a generator: add --generator FILE.py:FACTORY or a file")
    searched = [ArmReference(f"pulse:{_stem(g)}", "pulse", g) for g in generators]
    others = [
        ArmReference(arm, "interpolation", arm)
        if arm in INTERPOLATING
        else ArmReference(_stem(arm), "factory", arm)
        for arm in (arms or ([] if generators else INTERPOLATING))
        if arm != "pulse"
    ]
    return _distinct([*searched, *others])


def _stem(reference: str) -> str:
    return Path(reference.rsplit(":", 1)[0] if is_factory(reference) else reference).stem


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


def is_factory(reference: str) -> bool:
    """Whether a reference has the form ``FILE.py:FACTORY``."""
    path, _, name = reference.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def reference_sha256(reference: str) -> str:
    """SHA-256 of the file behind a reference.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = Path(reference.rsplit(":", 1)[0] if is_factory(reference) else reference)
    try:
        return sha256(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def load_factory(reference: str) -> Any:
    """Run ``FACTORY()`` of ``FILE.py``: code the user named, run by design.

    Raises
    ------
    InputError
        With one line if the file cannot be imported or the factory raises.
    """
    path_text, _, name = reference.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise InputError(f"{reference}: no such file {path}")
    module_name = f"pulse_audit_plugin_{hexdigest(str(path.resolve()))[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{reference}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    _call_plugin(partial(spec.loader.exec_module, module), reference)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise InputError(f"{reference}: {path.name} has no function {name!r}")
    return _call_plugin(factory, reference)


def _call_plugin(call: Callable[[], Any], reference: str) -> Any:
    """Call foreign code; whatever it raises becomes one line."""
    try:
        return call()
    except InputError as error:
        raise InputError(f"{reference}: {error}") from None
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{reference}: raised {type(error).__name__}: {text}") from None


def load_generator(reference: str) -> Generator:
    """Load a generator: ``FILE.py:FACTORY`` or a checkpoint file.

    Raises
    ------
    InputError
        If there is no such thing, or it is not a generator.
    """
    if is_factory(reference):
        made = load_factory(reference)
        if not isinstance(made, Generator):
            raise InputError(
                f"{reference}: returned a {type(made).__name__}, not a generator "
                "(wrap a network with pulse_audit.as_generator)"
            )
        return made
    raise InputError(
        f"unknown generator {reference!r}; known: a checkpoint file or FILE.py:FACTORY"
    )


def build_arm(reference: ArmReference, search: str, device: torch.device) -> Upsampler:
    """Build the upsampler behind a reference, on a device.

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
    import torch

    from pulse_audit.search.pulse import PRESETS
    from pulse_audit.search.upsampler import PulseUpsampler

    generator = load_generator(reference.reference).to(device, torch.float32)
    return PulseUpsampler(generator, PRESETS[search], name=reference.name)
