"""Names to objects: arms and generators as the user writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulse_audit.names import GeneratorReference, is_factory, nearest, parse_generator
from pulse_audit.plugins import (
    ATTRIBUTES,
    caveats_unspoken,
    entry_point_names,
    load_attribute_plugin,
)
from pulse_audit.plugins import load_factory as load_factory
from pulse_audit.plugins import load_metrics as load_metrics
from pulse_audit.plugins import metric_names as metric_names
from pulse_audit.seeding import hexdigest, sha256
from pulse_audit.types import Generator, GeneratorCard, InputError, Upsampler, is_generator

if TYPE_CHECKING:
    import torch

    from pulse_audit.faces.fairface import FairFace
    from pulse_audit.generators.checkpoints import Network
    from pulse_audit.generators.gaussianise import GaussianFit
    from pulse_audit.types import AttributeModel
    from pulse_audit.weights.registry import WeightCard

INTERPOLATING = ("nearest", "bicubic", "lanczos")
#: What comes with the package, and the generators in it, whose twins differ in whom they saw.
ASSETS = Path(__file__).with_name("assets")
SHIPPED = ("faces-balanced", "faces-skewed")
SHIPPED_ATTRIBUTES = "faces-attributes"
#: Of the same training on another seed: it checks what guidance by the first one finds.
SHIPPED_CHECK = "faces-attributes-check"
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
        for one in _every_class(generator, trusted)
    ]
    others = [_other_arm(arm) for arm in arms if arm != "pulse"]
    return _distinct([*searched, *others])


def _other_arm(arm: str) -> ArmReference:
    """Return the reference of an arm that is not a search."""
    if arm in INTERPOLATING:
        return ArmReference(arm, "interpolation", arm)
    if arm.startswith(PLANTED):
        matrix = arm.removeprefix(PLANTED)
        return ArmReference(f"{PLANTED}{Path(matrix).stem}", "planted", matrix)
    return ArmReference(GeneratorReference(arm).stem, "factory", arm)


def _every_class(reference: str, trusted: Collection[str]) -> list[str]:
    """Return a reference, or for ``#each`` one reference to each class of the network."""
    asked = _asked(reference)
    if asked.label != "each":
        return [reference]
    classes: int = getattr(_read_network(asked, trusted), "c_dim", 0)
    if not classes:
        raise InputError(f"{reference}: this network has no classes; leave #each out")
    return [f"{reference.removesuffix('each')}{label}" for label in range(classes)]


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


def shipped_generators() -> list[str]:
    """Return the names of the generators that come with the package."""
    return [name for name in SHIPPED if (ASSETS / f"{name}.safetensors").is_file()]


def _asked(reference: str) -> GeneratorReference:
    """Take a reference apart; the name of a shipped generator becomes its file."""
    asked = parse_generator(reference)
    if asked.source not in shipped_generators():
        return asked
    return replace(asked, source=str(ASSETS / f"{asked.source}.safetensors"))


def generator_names() -> list[str]:
    """Return the names under which generators can be fetched."""
    from pulse_audit.weights.registry import cards

    return [card.name for card in cards().values() if card.kind == "generator"]


def generator_card(reference: str) -> WeightCard | None:
    """Return the card behind a reference that is the name of a generator's weights, else None."""
    from pulse_audit.weights.registry import cards

    name = parse_generator(reference).source
    return cards()[name] if name in generator_names() else None


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


def _adapted(
    asked: GeneratorReference,
    trusted: Collection[str],
    fit: Callable[[Any], GaussianFit] | None = None,
) -> Generator:
    """Load the network behind a reference and wrap it; ``fit`` replaces the fit that is found."""
    from pulse_audit.generators.adapt import as_generator
    from pulse_audit.generators.programs import ExportedDecoder

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
        with caveats_unspoken():
            return as_generator(network, **given, **facts)
    except InputError as error:
        raise InputError(f"{asked.source}: {error}") from None


def _read_network(asked: GeneratorReference, trusted: Collection[str]) -> Network:
    """Read the network of a name or file; nothing in the file is run unless it is trusted."""
    from pulse_audit.generators.checkpoints import load_generator as load_file

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
    return load_file(path, resolution=asked.resolution, trust_file=vouched)


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
    from pulse_audit.generators.own import read_card

    facts: dict[str, Any] = {
        "name": asked.path.stem,
        "sha256": reference_sha256(asked.source),
    }
    if asked.path.suffix != ".safetensors":
        return facts
    said = read_card(asked.path).get("card")
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
        from pulse_audit.weights.registry import get

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


def attribute_names() -> list[str]:
    """Return the names of attribute models: shipped, to be fetched, and of installed packages."""
    from pulse_audit.weights.registry import cards

    shipped = (SHIPPED_ATTRIBUTES, SHIPPED_CHECK)
    own = [name for name in shipped if (ASSETS / f"{name}.safetensors").is_file()]
    fetched_ones = [card.name for card in cards().values() if card.kind == "attribute model"]
    return list(dict.fromkeys([*own, *fetched_ones, *entry_point_names(ATTRIBUTES)]))


def attribute_words(name: str) -> Mapping[str, tuple[str, ...]]:
    """Return what a known attribute model predicts, also where its weights are not fetched."""
    from pulse_audit.faces.fairface import LAYOUTS

    known = LAYOUTS.get(name)
    return {a: words for a, (words, _) in known.attributes.items()} if known else {}


def load_attributes(reference: str | None, device: torch.device | str) -> AttributeModel:
    """Load an attribute model and move it to a device.

    Parameters
    ----------
    reference : str or None
        A name of `attribute_names`; ``fairface-race7:FILE`` or ``fairface-race4:FILE`` for a file
        of FairFace's authors that was not fetched by name; ``FILE.onnx``; ``FILE.safetensors`` as
        our training writes it; ``FILE.py:FACTORY``. None: the shipped one.
    device : torch.device or str

    Raises
    ------
    InputError
        With one line if there is no such thing, it is not fetched, or it cannot be used.
    """
    asked = reference or SHIPPED_ATTRIBUTES
    path = Path(asked)
    if is_factory(asked) or asked in entry_point_names(ATTRIBUTES):
        return load_attribute_plugin(asked).to(device)
    shipped = asked in (SHIPPED_ATTRIBUTES, SHIPPED_CHECK)
    if shipped or path.suffix == ".safetensors":
        from pulse_audit.faces.attribute_net import load_attribute_net

        file = _shipped(asked) if shipped else path
        return load_attribute_net(file).to(device)
    if path.suffix == ".onnx":
        from pulse_audit.faces.onnx_attributes import load_onnx

        return load_onnx(path).to(device)
    return _fairface(asked).to(device)


def _shipped(name: str) -> Path:
    path = ASSETS / f"{name}.safetensors"
    if not path.is_file():
        raise InputError(
            f"{name}: this installation comes without it; name another with --attributes"
        )
    return path


def _fairface(asked: str) -> FairFace:
    """Load a file of FairFace's authors: ``NAME``, or ``NAME:FILE``."""
    from pulse_audit.faces.fairface import LAYOUTS, load_fairface
    from pulse_audit.weights.registry import get

    name, _, file = asked.partition(":")
    if name not in LAYOUTS:
        if Path(asked).suffix in (".pt", ".pth"):
            which = " or ".join(f"{known}:{asked}" for known in LAYOUTS)
            raise InputError(f"{asked}: say which of FairFace's two files it is: {which}")
        hint = nearest(asked, attribute_names())
        raise InputError(
            f"unknown attribute model {asked!r}{hint}; also known: FILE.onnx, FILE.safetensors and "
            "FILE.py:FACTORY"
        )
    card = get(name)
    path = Path(file) if file else fetched(card)[0]
    return load_fairface(path, name, training_data=card.trained_on, licence=card.licence.name)


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
