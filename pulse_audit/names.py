"""Names as users write them, parsed into objects; no torch, and nothing is loaded."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from pulse_audit.types import InputError

#: Arms that are interpolation kernels.
INTERPOLATION = ("nearest", "bicubic", "lanczos")
#: Arms that are networks; alone with the weights of the package, or this, a colon and a file.
NETWORKS = ("fsrnet", "fsrgan")
PLANTED = "planted:"
#: Models and outputs of others: this and a file, a folder or a command line.
ONNX, FOLDER, COMMAND = "onnx:", "folder:", "command:"
#: What a command line may name: files of one input and its output, the factor and the draw's seed.
PLACEHOLDER = re.compile(r"\{(input|output|scale|seed)\}")
#: What the path of a folder of outputs may hold: the folder of a condition and scale, as
#: export-inputs names it, and the name of an input without its end.
SETTING, NAME = "{setting}", "{name}"
#: Data sets drawn from a generator's prior: this and the generator.
SAMPLES = "samples:"
#: Draws of a generator's posterior, given its own prior or PULSE's: this and the generator.
POSTERIORS = {"posterior": "own", "posterior-pulse": "pulse"}
#: Draws of a diffusion model, by the method that bends them toward an input: this and a folder.
DIFFUSION = ("dps", "ddnm")
ARM_FORMS = (
    "pulse",
    *INTERPOLATION,
    *NETWORKS,
    *(f"{name}:FILE" for name in NETWORKS),
    *(f"{name}:GENERATOR" for name in POSTERIORS),
    *(f"{name}:MODEL" for name in DIFFUSION),
    f"{PLANTED}MATRIX.csv",
    f"{ONNX}FILE",
    f"{FOLDER}DIR",
    f'{COMMAND}"PROG {{input}} {{output}}"',
    "FILE.py:FACTORY",
)
# Programs that run another one, after which an arm is better called.
_INTERPRETER = re.compile(
    r"python[\d.]*|pypy[\d.]*|bash|sh|node|Rscript|julia|ruby|perl|uv|env|run"
)


#: The Gaussian that latents are drawn from, and how many there are: PULSE's choice first.
LatentFit = Literal["diagonal", "full"]
Latents = Literal["per-layer", "tied"]
LATENT_FITS: tuple[str, ...] = get_args(LatentFit)
LATENTS: tuple[str, ...] = get_args(Latents)
#: Remedies of where a search starts: over the apparent groups in turn, or from a prior whose mean
#: and starts are reweighted toward equal groups.
REMEDIES = ("strata", "balanced")

# Source, resolution, upsampling, variants of the search and class; all but the first optional.
_GENERATOR = re.compile(
    r"(.+?)(?:@(\d{1,5}))?(?:@(auto|fused|separate))?(?:@(full))?(?:@(tied))?"
    r"(?:@(strata|balanced))?(?:#(\d{1,6}|each))?"
)


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known ones, or all."""
    # At most three names that share about half of their letters with it.
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(known)}"


def is_factory(reference: str) -> bool:
    """Whether a reference has the form ``FILE.py:FACTORY``."""
    path, _, name = reference.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


@dataclass(frozen=True)
class GeneratorReference:
    """A generator as requested.

    ``SOURCE[@RESOLUTION][@UPSAMPLING][@full][@tied][@strata|@balanced][#CLASS]``.
    """

    #: A name, a checkpoint file or ``FILE.py:FACTORY``.
    source: str
    #: Of a network whose file does not tell it; of others, that to which pictures are shrunk.
    resolution: int | None = None
    #: Class of a conditional network, ``each`` for all, None for classes drawn uniformly.
    label: str | None = None
    #: How a StyleGAN 1 of genforce upsamples (its setting ``fused_scale``), which its files do not
    #: say: ``auto``, ``fused`` (True) or ``separate`` (False).
    upsampling: str | None = None
    #: The Gaussian fit has the full covariance of the mapped latents, not PULSE's diagonal one.
    full: bool = False
    #: One latent vector serves all layers, where PULSE searches one for each.
    tied: bool = False
    #: One of `REMEDIES`, None for PULSE's starts.
    remedy: str | None = None

    def __str__(self) -> str:
        """Return the reference as users write it."""
        choices = [f"@{c}" for c in (self.resolution, self.upsampling) if c is not None]
        label = f"#{self.label}" if self.label else ""
        return "".join([self.source, *choices]) + self.variant + label

    @property
    def variant(self) -> str:
        """What is unlike PULSE: ``@full``, ``@tied``, a remedy, several or nothing."""
        remedy = f"@{self.remedy}" if self.remedy else ""
        return "@full" * self.full + "@tied" * self.tied + remedy

    @property
    def is_factory(self) -> bool:
        """Whether the source is ``FILE.py:FACTORY``."""
        return is_factory(self.source)

    @property
    def path(self) -> Path:
        """The file behind it, unless it is a name."""
        return Path(self.source.rsplit(":", 1)[0] if self.is_factory else self.source)

    @property
    def stem(self) -> str:
        """The part of an arm's name that comes from the generator."""
        # A named generator is another arm at each size; of a file it may be what the file lacks.
        named = self.resolution is not None and self.source == self.path.stem
        size = f"@{self.resolution}" if named else ""
        label = f"#{self.label}" if self.label else ""
        return self.path.stem + size + self.variant + label


def parse_generator(reference: str | GeneratorReference) -> GeneratorReference:
    """Parse a reference; where a file of just that name exists, the whole is its name."""
    if isinstance(reference, GeneratorReference):
        return reference
    match = _GENERATOR.fullmatch(reference)
    if match is None or Path(reference).is_file():
        return GeneratorReference(reference)
    # FILE@256@auto@full@tied@strata#3 -> FILE, 256, auto, full, tied, strata, 3
    source, resolution, upsampling, full, tied, remedy, label = match.groups()
    side = int(resolution) if resolution else None
    return GeneratorReference(source, side, label, upsampling, bool(full), bool(tied), remedy)


def parse_coarse(text: str) -> tuple[int, int]:
    """Read ``STEPS@RESOLUTION``: so many first steps of a search on pictures of that side.

    Raises
    ------
    InputError
        If it is not two whole numbers above 0.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})@([1-9]\d{0,3})", text)
    if match is None:
        raise InputError(f"--coarse {text}: give STEPS@RESOLUTION, such as 20@16")
    return int(match[1]), int(match[2])


def varied(
    reference: GeneratorReference, latent_fit: str = "diagonal", latents: str = "per-layer"
) -> GeneratorReference:
    """Return a generator with the variants of an option added to its own; `InputError` if unknown.

    Parameters
    ----------
    reference : GeneratorReference
    latent_fit : {"diagonal", "full"}
    latents : {"per-layer", "tied"}
    """
    for option, value, known in (
        ("--latent-fit", latent_fit, LATENT_FITS),
        ("--latents", latents, LATENTS),
    ):
        if value not in known:
            raise InputError(f"{option} {value}: unknown{nearest(value, known)}")
    full, tied = latent_fit == "full", latents == "tied"
    return replace(reference, full=reference.full or full, tied=reference.tied or tied)


def sampled_generator(dataset: str) -> str | None:
    """Return GENERATOR of a data set ``samples:GENERATOR``, None for any other data set."""
    return dataset.removeprefix(SAMPLES) if dataset.startswith(SAMPLES) else None


def plain_dataset(dataset: str) -> str:
    """Return the name of a data set as one of a file.

    ``samples:dir/FILE.pkl@256`` is ``samples-file.pkl-256``; other names stay as they are.
    """
    generator = sampled_generator(dataset)
    if generator is None:
        return dataset
    stem = re.sub(r"[^a-z0-9._]+", "-", generator.rsplit("/", 1)[-1].lower()).strip("-.")
    return f"samples-{stem or 'generator'}"[:100]


@dataclass(frozen=True)
class ArmReference:
    """An arm as requested."""

    name: str
    #: ``pulse``, ``interpolation``, ``network``, ``posterior``, ``dps``, ``ddnm``, ``planted``,
    #: ``onnx``, ``folder``, ``command``, ``factory`` or ``plugin``.
    kind: str
    #: The generator, the interpolation kernel, the shipped network, the file, folder or
    #: command line, ``FILE.py:FACTORY`` or the name of an entry point.
    reference: str
    #: The parsed generator of a pulse or a posterior arm.
    generator: GeneratorReference | None = None
    #: Of a variant in a sweep: its settings with their values, see `pulse_audit.sweeps`.
    settings: tuple[tuple[str, float | int | str], ...] = ()


def parse_arm(arm: str, plugins: Sequence[str] = ()) -> ArmReference:
    """Parse an arm, ``pulse`` without its generators.

    Parameters
    ----------
    arm : str
    plugins : sequence of str
        Names of the arms that installed packages offer.

    Raises
    ------
    InputError
        If it has no known form, or lacks a part.
    """
    if arm == "pulse":
        return ArmReference(arm, "pulse", arm)
    if arm in INTERPOLATION:
        return ArmReference(arm, "interpolation", arm)
    if arm in NETWORKS:
        return ArmReference(arm, "network", arm)
    if arm.startswith(PLANTED):
        matrix = arm.removeprefix(PLANTED)
        return ArmReference(f"{PLANTED}{Path(matrix).stem}", "planted", matrix)
    for prefix, what in ((ONNX, "FILE"), (FOLDER, "DIR"), (COMMAND, '"PROG {input} {output}"')):
        if arm.strip() == prefix:
            raise InputError(f"arm {prefix} wants more: {prefix}{what}")
    if arm.startswith(ONNX):
        file = arm.removeprefix(ONNX)
        return ArmReference(f"{ONNX}{Path(file).stem}", "onnx", file)
    if arm.startswith(FOLDER):
        folder = arm.removeprefix(FOLDER)
        root = parse_folder(folder).root
        return ArmReference(f"{FOLDER}{Path(os.path.abspath(root)).name}", "folder", folder)
    if arm.startswith(COMMAND):
        command = arm.removeprefix(COMMAND)
        return ArmReference(f"{COMMAND}{_program(command_words(command))}", "command", command)
    form, _, generator = arm.partition(":")
    if form in DIFFUSION and generator.strip():
        model = Path(os.path.abspath(generator)).name
        return ArmReference(f"{form}:{model}", form, generator)
    if form in NETWORKS and generator:
        return ArmReference(f"{form}:{Path(generator).stem}", "network", generator)
    if form in POSTERIORS and generator:
        parsed = parse_generator(generator)
        if parsed.label == "each":
            raise InputError(f"{arm}: choose one class here, such as #0, or leave #each out")
        if parsed.variant and POSTERIORS[form] == "own":
            raise InputError(f"{arm}: {parsed.variant} is of PULSE's prior; use posterior-pulse:")
        if parsed.remedy:
            raise InputError(f"{arm}: @{parsed.remedy} is of searches, not of samples")
        return ArmReference(f"{form}:{parsed.stem}", "posterior", generator, parsed)
    if is_factory(arm):
        return ArmReference(Path(arm.rpartition(":")[0]).stem, "factory", arm)
    if arm in plugins:
        return ArmReference(arm, "plugin", arm)
    raise InputError(f"unknown arm {arm!r}{nearest(arm, [*ARM_FORMS, *plugins])}")


@dataclass(frozen=True)
class OutputPattern:
    """Where outputs that were made elsewhere lie: ``DIR``, ``DIR/{setting}/faces/{name}_00.png``.

    ``root`` is the folder that holds all of them, ``place`` the path of a setting's folder below
    it, empty where none is given, and ``file`` the form of the files' names.
    """

    root: Path
    place: str = ""
    file: str = NAME


def parse_folder(reference: str) -> OutputPattern:
    """Parse the path of a ``folder:`` arm.

    Raises
    ------
    InputError
        If ``{name}`` is not in the name of a file, once, or ``{setting}`` not in that of a folder.
    """
    *folders, last = Path(reference).parts or (".",)
    # Without {name} the last part is a folder too, and files have the names of their inputs.
    folders, file = (folders, last) if NAME in last else ([*folders, last], NAME)
    if any(NAME in part for part in folders) or file.count(NAME) != 1 or SETTING in file:
        raise InputError(
            f"{FOLDER}{reference}: {NAME} stands once, in the name of the files, and {SETTING} in "
            f"that of a folder, such as {FOLDER}DIR/{SETTING}/faces/{NAME}_00.png"
        )
    fixed = next((n for n, part in enumerate(folders) if SETTING in part), len(folders))
    return OutputPattern(Path(*folders[:fixed]), "/".join(folders[fixed:]), file)


def command_words(command: str) -> list[str]:
    """Split a command line into words as a shell would, without running one.

    Raises
    ------
    InputError
        If a quote is left open, or ``{input}`` or ``{output}`` is missing.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"{COMMAND}{command}: {str(error).lower()}") from None
    named = {match[1] for word in words for match in PLACEHOLDER.finditer(word)}
    for place in ("input", "output"):
        if place not in named:
            raise InputError(
                f"{COMMAND}{command}: has no {{{place}}}, where the {place} image's file goes; "
                f'wanted {COMMAND}"PROG {{input}} {{output}}"'
            )
    return words


def _program(words: Sequence[str]) -> str:
    """Return the name of the program that a command runs: a script's, not its interpreter's."""
    stems = [Path(word).stem for word in words if not PLACEHOLDER.search(word) and word[:1] != "-"]
    named = (stem for stem in stems if not _INTERPRETER.fullmatch(stem))
    return next(named, stems[0] if stems else "program")


def parse_device(name: str) -> str:
    """Return a device, present or not; `InputError` if its form is not supported."""
    if not re.fullmatch(r"auto|cpu(:0)?|cuda(:\d{1,3})?", name):
        raise InputError(f"--device {name}: not supported; use auto, cpu, cuda or cuda:N")
    return name
