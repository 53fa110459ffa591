"""Generators: catalogue names, checkpoint files and factories to objects."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_audit.files import read_card
from pulse_audit.models.published import fetched, generator_card, generator_names
from pulse_audit.models.shipped import shipped_file, shipped_generators
from pulse_audit.names import GeneratorReference, is_factory, nearest, parse_generator
from pulse_audit.plugins import load_factory, suppress_sphere_warning
from pulse_audit.seeding import sha256
from pulse_audit.types import Generator, GeneratorCard, InputError, is_generator

if TYPE_CHECKING:
    from pulse_audit.generators.checkpoints import Network
    from pulse_audit.generators.gaussianise import GaussianFit
    from pulse_audit.models.registry import WeightCard


def load_generator(reference: str, trusted: Collection[str] = ()) -> Generator:
    """Load a generator: ``FILE.py:FACTORY``, a name of the catalogue or a checkpoint file.

    Parameters
    ----------
    reference : str
        As `parse_generator` takes it; ``#3`` fixes class 3 of a conditional network, without it
        classes are drawn uniformly.
    trusted : collection of str
        SHA-256 of the files the user vouches for: what is in those is run if need be.

    Raises
    ------
    InputError
        If there is no such thing, it is not fetched, or it is not a generator.
    """
    if not is_factory(reference):
        return _adapted(_asked(reference), trusted)
    made = load_factory(reference)
    if not is_generator(made):
        raise InputError(
            f"{reference}: returned a {type(made).__name__}, not a generator "
            "(wrap a network with pulse_audit.as_generator)"
        )
    return made


def describe_generator(reference: str, trusted: Collection[str] = ()) -> GeneratorCard:
    """Return the card of a generator; quick, because no Gaussian is fitted for it.

    Raises
    ------
    InputError
        As `load_generator`.
    """
    if is_factory(reference):
        card = load_generator(reference).card
        return replace(card, sha256=card.sha256 or reference_sha256(reference))
    import torch

    from pulse_audit.generators.gaussianise import GaussianFit

    def any_fit(network: Any) -> GaussianFit:
        return GaussianFit(torch.zeros(network.w_dim), torch.ones(network.w_dim))

    return _adapted(_asked(reference), trusted, any_fit).card


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
    path = _asked(reference).path
    try:
        return sha256(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def classes_of(reference: str, trusted: Collection[str] = ()) -> list[str]:
    """Return a reference, or for ``#each`` one reference to each class of the network.

    Raises
    ------
    InputError
        If the network has no classes, or cannot be read.
    """
    asked = _asked(reference)
    if asked.label != "each":
        return [reference]
    classes: int = getattr(_read_network(asked, trusted), "c_dim", 0)
    if not classes:
        raise InputError(f"{reference}: this network has no classes; leave #each out")
    return [f"{reference.removesuffix('each')}{label}" for label in range(classes)]


def _asked(reference: str) -> GeneratorReference:
    """Take a reference apart; the name of a shipped generator becomes its file."""
    asked = parse_generator(reference)
    if asked.source not in shipped_generators():
        return asked
    return replace(asked, source=str(shipped_file(asked.source)))


def _adapted(
    asked: GeneratorReference,
    trusted: Collection[str],
    fit: Callable[[Any], GaussianFit] | None = None,
) -> Generator:
    """Load the network behind a reference and wrap it; ``fit`` replaces the fit that is found."""
    from pulse_audit.generators.adapt import as_generator
    from pulse_audit.generators.checkpoints.programs import ExportedDecoder

    network = _read_network(asked, trusted)
    known = generator_card(asked.source)
    facts: dict[str, Any] = _facts(asked) if known is None else _facts_of(known)
    given: dict[str, Any] = {"label": int(asked.label) if asked.label else None}
    if isinstance(network, ExportedDecoder):
        if asked.label:
            raise InputError(f"{asked.source}: an exported program takes no class")
        given = {"latent_dim": network.latent_dim}
    else:
        given["gaussian_fit"] = fit(network) if fit else _fit_for(asked, known, network)
    try:
        with suppress_sphere_warning():
            return as_generator(network, **given, **facts)
    except InputError as error:
        raise InputError(f"{asked.source}: {error}") from None


def _read_network(asked: GeneratorReference, trusted: Collection[str]) -> Network:
    """Read the network of a name or file; nothing in the file is run unless it is trusted."""
    from pulse_audit.generators.checkpoints import read_checkpoint

    known = generator_card(asked.source)
    path = fetched(known)[0] if known else asked.path
    if is_factory(asked.source):
        raise InputError(f"{asked.source}: @RESOLUTION and #CLASS are for files, not for factories")
    if known is None and not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise InputError(f"--generator {asked.source}: no such file")
        hint = nearest(asked.source, [*shipped_generators(), *generator_names()])
        raise InputError(
            f"unknown generator {asked.source!r}{hint}; also known: a checkpoint file or "
            "FILE.py:FACTORY"
        )
    digest = reference_sha256(asked.source) if trusted else None
    vouched = digest if digest in trusted else None
    return read_checkpoint(path, resolution=asked.resolution, trust_file=vouched)


def _facts_of(card: WeightCard) -> dict[str, Any]:
    """Return what the catalogue says of a generator."""
    return {
        "name": card.name,
        "crop": card.crop or "as-is",
        "training_data": card.trained_on,
        "licence": card.licence.name,
        "sha256": fetched(card)[1],
    }


def _facts(asked: GeneratorReference) -> dict[str, Any]:
    """Return what is known of a file: of our own ones what their card says."""
    from pulse_audit.generators.native_format import KIND

    facts: dict[str, Any] = {
        "name": asked.path.stem,
        "sha256": reference_sha256(asked.source),
    }
    if asked.path.suffix != ".safetensors":
        return facts
    said = read_card(asked.path, KIND).get("card")
    given = said if isinstance(said, dict) else {}
    wanted = ("name", "crop", "training_data", "licence")
    said_so = {key: str(given[key]) for key in wanted if given.get(key)}
    caveat = given.get("caveat")
    return {
        **facts,
        **said_so,
        "training_composition": _counted(given.get("composition")),
        "caveats": (str(caveat),) if caveat else (),
    }


def _counted(composition: Any) -> dict[str, int] | None:
    """Return the training faces by label that a card gives, if they are counts at all."""
    if not isinstance(composition, dict) or not composition:
        return None
    whole = all(isinstance(c, int) and c >= 0 for c in composition.values())
    return {str(word): count for word, count in composition.items()} if whole else None


def _fit_for(asked: GeneratorReference, known: WeightCard | None, network: Any) -> Path | None:
    """Return the Gaussian fit that came with a network, None where it has to be made.

    A fit beside our own file is over all classes. PULSE's is of its StyleGAN 1, so a network that
    has a mapping is never given the one that happens to lie in the same folder.
    """
    if known is not None:
        from pulse_audit.models.registry import get

        return fetched(get(known.gaussian_fit))[0] if known.gaussian_fit else None
    if network.map is not None:
        beside = asked.path.with_name(f"{asked.path.stem}-fit.safetensors")
        own = asked.path.suffix == ".safetensors" and asked.label is None
        return beside if own and beside.is_file() else None
    beside = asked.path.with_name("gaussian_fit.pt")
    if not beside.is_file():
        raise InputError(
            f"{asked.source}: a synthesis network alone; put PULSE's gaussian_fit.pt "
            "(pulse-audit fetch pulse-gaussian-fit) or mapping.pt beside it"
        )
    return beside
