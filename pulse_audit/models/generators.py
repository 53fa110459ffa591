"""Generators: shipped and published names, checkpoint files and factories to objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_audit.files import file_sha256, read_card
from pulse_audit.frames import WHOLE
from pulse_audit.models import published
from pulse_audit.models.shipped import shipped_file, shipped_generators
from pulse_audit.names import GeneratorReference, nearest, parse_generator
from pulse_audit.plugins import factory_file, load_factory, suppress_sphere_warning
from pulse_audit.types import Generator, GeneratorCard, InputError, is_generator

if TYPE_CHECKING:
    from pulse_audit.generators.checkpoints import Network
    from pulse_audit.generators.gaussianise import GaussianFit


@dataclass(frozen=True)
class GeneratorSource:
    """The file behind a generator reference, and the card of published weights."""

    reference: GeneratorReference
    path: Path
    card: published.WeightCard | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the file; of published weights, as recorded when they were fetched."""
        try:
            return published.fetched(self.card)[1] if self.card else file_sha256(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None


def find_generator(reference: str | GeneratorReference) -> GeneratorSource:
    """Find the file of a generator; neither torch nor the file is loaded.

    Raises
    ------
    InputError
        If there is no such name or file, or a published one is not fetched.
    """
    requested = parse_generator(reference)
    name = requested.source
    # Known names come before files.
    if name in shipped_generators():
        return GeneratorSource(requested, shipped_file(name))
    if name in published.names_of("generator"):
        card = published.get(name)
        return GeneratorSource(requested, published.fetched(card)[0], card)
    if requested.is_factory:
        if str(replace(requested, tied=False, remedy=None)) != name:
            raise InputError(
                f"{name}: @RESOLUTION, @UPSAMPLING, @full and #CLASS are for files, not factories"
            )
        return GeneratorSource(requested, factory_file(name))
    path = requested.path
    if not path.is_file():
        # A name or a file that exists, with something behind @ or # that is not understood.
        names = [*shipped_generators(), *published.names_of("generator")]
        match = re.fullmatch(r"(.+?)([@#][^/]*)", str(requested))
        if match is not None and (match[1] in names or Path(match[1]).is_file()):
            raise InputError(
                f"--generator {match[1]}: {match[2]} is not understood; give @RESOLUTION (@256), "
                "@auto, @fused or @separate, @full, @tied, @strata or @balanced, and #CLASS (#3 or "
                "#each), in this order"
            )
        if path.suffix or len(path.parts) > 1:
            raise InputError(f"--generator {name}: no such file")
        raise InputError(
            f"unknown generator {name!r}{nearest(name, names)}; also possible: a checkpoint file "
            "or FILE.py:FACTORY"
        )
    return GeneratorSource(requested, path)


def load_generator(reference: str | GeneratorReference, trusted: Collection[str] = ()) -> Generator:
    """Load a generator: ``FILE.py:FACTORY``, a known name or a checkpoint file.

    Parameters
    ----------
    reference : str or GeneratorReference
        ``#3`` fixes class 3 of a conditional network, without it classes are drawn uniformly;
        ``@256`` below a network's own resolution shrinks its pictures; of a StyleGAN 1 file of
        rosinality it is the network's, and ``@auto`` of one of genforce says how it upsamples;
        ``@full`` fits the full covariance. ``@tied``, ``@strata`` and ``@balanced`` concern the
        search alone: see `SearchConfig.tied_latent` and `pulse_audit.models.remedies`.
    trusted : collection of str
        SHA-256 of the files that may be loaded although loading them can run code.

    Raises
    ------
    InputError
        If there is no such thing, it is not fetched, or it is not a generator.
    """
    source = find_generator(reference)
    if not source.reference.is_factory:
        return _adapted(source, trusted)
    generator = load_factory(source.reference.source)
    if not is_generator(generator):
        raise InputError(
            f"{source.reference.source}: returned a {type(generator).__name__}, not a generator "
            "(wrap a network with pulse_audit.as_generator)"
        )
    return generator


def describe_generator(reference: str, trusted: Collection[str] = ()) -> GeneratorCard:
    """Return the card of a generator without fitting a Gaussian; errors as `load_generator`."""
    source = find_generator(reference)
    if source.reference.is_factory:
        card = load_generator(reference).card
        return replace(card, sha256=card.sha256 or source.sha256)
    import torch

    from pulse_audit.generators.gaussianise import GaussianFit

    def unit_fit(network: Any) -> GaussianFit:
        return GaussianFit(torch.zeros(network.w_dim), torch.ones(network.w_dim))

    return _adapted(source, trusted, unit_fit).card


def classes_of(
    reference: str | GeneratorReference, trusted: Collection[str] = ()
) -> list[GeneratorReference]:
    """Return a reference, or for ``#each`` one reference to each class of the network."""
    requested = parse_generator(reference)
    if requested.label != "each":
        return [requested]
    classes: int = getattr(_read_network(find_generator(requested), trusted), "c_dim", 0)
    if not classes:
        raise InputError(f"{requested}: this network has no classes; leave #each out")
    return [replace(requested, label=str(label)) for label in range(classes)]


def _read_network(source: GeneratorSource, trusted: Collection[str]) -> Network:
    """Read the network of a file; code in the file is run only where the file is trusted."""
    from pulse_audit.generators.checkpoints import read_checkpoint

    digest = source.sha256 if trusted else None
    trusted_digest = digest if digest in trusted else None
    return read_checkpoint(
        source.path,
        resolution=source.reference.resolution,
        upsampling=source.reference.upsampling,
        trust_file=trusted_digest,
    )


def _adapted(
    source: GeneratorSource,
    trusted: Collection[str],
    fit: Callable[[Any], GaussianFit] | None = None,
) -> Generator:
    """Read the network of a source and wrap it; ``fit`` replaces the fit that would be used."""
    from pulse_audit.generators.adapt import as_generator
    from pulse_audit.generators.checkpoints.programs import ExportedDecoder

    # An exported program has neither classes nor a mapping network to fit.
    network, label = _read_network(source, trusted), source.reference.label
    classes = getattr(network, "c_dim", 0)
    if label == "each" and classes:
        raise InputError(f"{source.reference}: choose one class, #0 to #{classes - 1}, not #each")
    if label == "each":
        raise InputError(f"{source.reference}: this network has no classes; leave #each out")
    options: dict[str, Any] = {"label": int(label) if label else None}
    if isinstance(network, ExportedDecoder):
        if label or source.reference.full:
            wrong = "no class" if label else "no @full: it has no mapping network"
            raise InputError(f"{source.reference.source}: an exported program takes {wrong}")
        options = {"latent_dim": network.latent_dim}
    else:
        # Fits in files are PULSE's; the full covariance is fitted to the mapping network.
        if fit is not None:
            options["gaussian_fit"] = fit(network)
        elif source.reference.full:
            options["latent_fit"] = "full"
        else:
            options["gaussian_fit"] = _fit_file(source, network)
    try:
        with suppress_sphere_warning():
            generator = as_generator(network, **options, **_facts(source))
    except InputError as error:
        raise InputError(f"{source.reference.source}: {error}") from None
    resolution = source.reference.resolution
    return generator if resolution is None else _shrunk(generator, resolution)


def _shrunk(generator: Generator, resolution: int) -> Generator:
    """Return a generator whose pictures are shrunk to a whole fraction of their side, if they are.

    The whole network is rendered, so that the faces are its own; only the comparison is smaller.
    """
    from pulse_audit.degrade.resample import cut_to_frame
    from pulse_audit.generators.framed import FramedGenerator

    card = generator.card
    if resolution == card.resolution:
        return generator
    if resolution < 1 or card.resolution % resolution:
        raise InputError(f"{card.name} renders {card.resolution} px, not {resolution}")
    shrunk = FramedGenerator(generator, WHOLE, resolution, card.crop, cut_to_frame)
    shrunk.card = replace(shrunk.card, name=f"{card.name}@{resolution}")
    note = f"its pictures of {card.resolution} px, shrunk to {resolution} px (antialiased)"
    shrunk.caveats = (*shrunk.caveats, f"{shrunk.card.name}: {note}")
    return shrunk


def in_crop_of(generator: Generator, crop: str, largest: int) -> Generator:
    """Cut a generator to a crop, at ``largest`` px or fewer, where it shows more than that crop."""
    from pulse_audit.degrade.resample import cut_to_frame
    from pulse_audit.faces.crops import frame_in_ffhq
    from pulse_audit.generators.framed import FramedGenerator

    card = generator.card
    if "as-is" in (card.crop, crop) or card.crop == crop:
        return generator
    if not frame_in_ffhq(card.crop).contains(frame_in_ffhq(crop)):
        return generator
    frame = frame_in_ffhq(crop).seen_from(frame_in_ffhq(card.crop))
    size = min(largest, round(frame.side * card.resolution))
    return FramedGenerator(generator, frame, size, crop, cut_to_frame)


def _facts(source: GeneratorSource) -> dict[str, Any]:
    """Return what is known of a generator, as arguments of ``as_generator``."""
    from pulse_audit.generators.native_format import KIND

    if source.card is not None:
        return {
            "name": source.card.name,
            "crop": source.card.crop or "as-is",
            "training_data": source.card.trained_on,
            "licence": source.card.licence.name,
            "sha256": source.sha256,
        }
    facts: dict[str, Any] = {"name": source.path.stem, "sha256": source.sha256}
    if source.path.suffix != ".safetensors":
        return facts

    # Our own files have a card beside them; entries of another type than expected are left out.
    content = read_card(source.path, KIND).get("card")
    card = content if isinstance(content, dict) else {}
    words = ("name", "crop", "training_data", "licence")
    facts |= {key: str(card[key]) for key in words if card.get(key)}
    composition = card.get("composition")
    if isinstance(composition, dict) and all(
        isinstance(count, int) and count >= 0 for count in composition.values()
    ):
        composition = {str(word): count for word, count in composition.items()}
    else:
        composition = None
    caveat = card.get("caveat")
    return {
        **facts,
        "training_composition": composition or None,
        "caveats": (str(caveat),) if caveat else (),
    }


def _fit_file(source: GeneratorSource, network: Any) -> Path | None:
    """Return the file of a network's Gaussian fit, None where the fit has to be computed."""
    if source.card is not None:
        fit = source.card.gaussian_fit
        return published.fetched(published.get(fit))[0] if fit else None
    # A fit beside our own file is over all classes, so it does not serve a single one.
    if network.map is not None:
        beside = source.path.with_name(f"{source.path.stem}-fit.safetensors")
        own = source.path.suffix == ".safetensors" and source.reference.label is None
        return beside if own and beside.is_file() else None
    # PULSE's fit belongs to its StyleGAN 1, which comes without its mapping network.
    beside = source.path.with_name("gaussian_fit.pt")
    if not beside.is_file():
        raise InputError(
            f"{source.reference.source}: a synthesis network alone; put PULSE's gaussian_fit.pt "
            "(pulse-audit fetch pulse-gaussian-fit) or mapping.pt beside it"
        )
    return beside
