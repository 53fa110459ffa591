"""Names to objects: arms and generators as the user writes them."""

from __future__ import annotations

import importlib.util
import sys
import warnings
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

    from pulse_audit.weights.registry import WeightCard

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
        If it cannot be read, or is known by name and not fetched.
    """
    known = generator_card(reference)
    if known is not None:
        return fetched(known)[1]
    path = Path(reference.rsplit(":", 1)[0] if is_factory(reference) else reference)
    try:
        return sha256(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def generator_names() -> list[str]:
    """Return the names under which generators can be fetched."""
    from pulse_audit.weights.registry import cards

    return [card.name for card in cards().values() if card.kind == "generator"]


def generator_card(reference: str) -> WeightCard | None:
    """Return the card behind a reference that is the name of a generator's weights, else None."""
    from pulse_audit.weights.registry import cards

    return cards()[reference] if reference in generator_names() else None


def fetched(card: WeightCard) -> tuple[Path, str]:
    """Return the file of a card, and its SHA-256.

    Raises
    ------
    InputError
        If it is not there, or no longer what was fetched; the line names the command that helps.
    """
    from pulse_audit.weights import cache

    path, seen = cache.located(card.name), cache.seen(card)
    if path is None or seen is None:
        found = cache.state(card)
        state = "not fetched" if found == "missing" else f"its file is {found}"
        raise InputError(f"{card.name} is known but {state}: pulse-audit fetch {card.name}")
    return path, seen.sha256


def to_fetch(names: Sequence[str]) -> list[WeightCard]:
    """Return the cards of weights by name, each followed by the Gaussian fit it needs, if any.

    Raises
    ------
    InputError
        If a name is unknown, or is a data set, which has to be obtained by hand.
    """
    from pulse_audit.datasets.registry import load_registry
    from pulse_audit.weights.registry import get

    datasets = load_registry().cards
    for name in names:
        if name in datasets:
            raise InputError(f"{name} is a data set without a direct link: {datasets[name].obtain}")
    wanted = [also for name in names for also in (name, get(name).gaussian_fit) if also]
    return [get(name) for name in dict.fromkeys(wanted)]


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
    """Call foreign code; whatever it raises becomes one line.

    A warning about small latent spaces is a caveat of the generator, which the manifest and the
    report carry; it need not be printed as a warning too.
    """
    from pulse_audit.generators.adapt import SphereWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SphereWarning)
            return call()
    except InputError as error:
        raise InputError(f"{reference}: {error}") from None
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{reference}: raised {type(error).__name__}: {text}") from None


def load_generator(reference: str) -> Generator:
    """Load a generator: ``FILE.py:FACTORY``, a name of the catalogue or a checkpoint file.

    Raises
    ------
    InputError
        If there is no such thing, it is not fetched, or it is not a generator.
    """
    if is_factory(reference):
        made = load_factory(reference)
        if not isinstance(made, Generator):
            raise InputError(
                f"{reference}: returned a {type(made).__name__}, not a generator "
                "(wrap a network with pulse_audit.as_generator)"
            )
        return made
    known = generator_card(reference)
    if known is not None:
        return _load_named(known)
    if Path(reference).is_file():
        return _load_file(reference)
    raise InputError(
        f"unknown generator {reference!r}{nearest(reference, generator_names())}; also known: a "
        "checkpoint file or FILE.py:FACTORY"
    )


def _load_named(card: WeightCard) -> Generator:
    from pulse_audit.weights.registry import get

    path, digest = fetched(card)
    fit = fetched(get(card.gaussian_fit))[0] if card.gaussian_fit else None
    from pulse_audit.generators.adapt import as_generator
    from pulse_audit.generators.checkpoints import load_generator as load_file

    return as_generator(
        load_file(path),
        name=card.name,
        crop=card.crop or "as-is",
        gaussian_fit=fit,
        training_data=card.trained_on,
        licence=card.licence.name,
        sha256=digest,
    )


def _load_file(reference: str) -> Generator:
    from pulse_audit.generators.adapt import as_generator
    from pulse_audit.generators.checkpoints import load_generator as load_file
    from pulse_audit.generators.programs import ExportedDecoder

    network = load_file(reference)
    given = {"name": Path(reference).stem, "sha256": reference_sha256(reference)}
    if isinstance(network, ExportedDecoder):
        return as_generator(network, latent_dim=network.latent_dim, **given)
    return as_generator(network, gaussian_fit=_fit_beside(reference), **given)


def _fit_beside(reference: str) -> Path | None:
    """PULSE's ``gaussian_fit.pt`` beside a checkpoint, for files without a mapping network."""
    path = Path(reference).with_name("gaussian_fit.pt")
    return path if path.is_file() else None


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

    from pulse_audit.search.config import PRESETS
    from pulse_audit.search.upsampler import PulseUpsampler

    generator = load_generator(reference.reference).to(device, torch.float32)
    return PulseUpsampler(generator, PRESETS[search], name=reference.name)
