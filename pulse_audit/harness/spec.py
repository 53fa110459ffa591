"""The specification of an audit: one flat model, from flags or YAML."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from pulse_audit.documents import read_yaml
from pulse_audit.names import FOLDER, LatentFit, Latents, nearest, plain_dataset
from pulse_audit.report.published import PUBLISHED
from pulse_audit.seeding import hexdigest
from pulse_audit.sweeps import Value, read_sweep
from pulse_audit.types import InputError

Search = Literal["official", "paper", "fast"]
Split = Literal["val", "train", "all"]
KeepImages = Literal["all", "sample", "none"]
Kernel = Literal["pulse", "bicubic", "lanczos", "bilinear", "area", "nearest"]
Precision = Literal["auto", "fp32", "bf16"]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Scale = Annotated[int, Field(ge=1, le=1024)]
Resolution = Annotated[int, Field(ge=1, le=4096)]
Draws = Annotated[int, Field(ge=1, le=10_000)]
Faces = Annotated[int, Field(ge=1, le=10_000_000)]
Eps = Annotated[float, Field(gt=0, le=1)]
Bank = Annotated[int, Field(ge=100, le=10_000_000)]
Truncation = Annotated[float, Field(gt=0, le=1)]
DiffusionSteps = Annotated[int, Field(ge=2, le=100_000)]
DpsStep = Annotated[float, Field(gt=0, le=1000)]
Seconds = Annotated[float, Field(gt=0, le=1_000_000)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

#: Longest text, such as a path, and most entries of a list.
MAX_TEXT, MAX_ENTRIES = 4096, 1000

#: Where data lies: not part of the fingerprint.
PLACES = frozenset({"data_root", "datasets_file"})
#: Fields that came after the first release.
LATER = frozenset(
    {
        "truncation", "eps", "bank", "latent_fit", "latents", "coarse", "time_limit", "sweep",
        "skip_unfit", "published", "diffusion_steps", "dps_step",
    }
)  # fmt: skip


class AuditSpec(BaseModel):
    """An audit, completely specified.

    Attributes
    ----------
    dataset : str
        Name in ``datasets.yaml`` or in the user's own ``datasets_file``, or ``samples:GENERATOR``:
        faces drawn from a generator's own prior.
    truncation : float or None
        Of ``samples:GENERATOR``, above 0 and at most 1; None means the whole prior, as 1 does.
    arms : list of str
        ``pulse | nearest | bicubic | lanczos | posterior:GENERATOR | posterior-pulse:GENERATOR |
        dps:MODEL | ddnm:MODEL | planted:MATRIX.csv | onnx:FILE | folder:DIR |
        command:"PROG {input} {output}" | FILE.py:FACTORY``, or the name of an entry point of an
        installed package.
    skip_unfit : bool
        Whether arms that are not available here, and scales that do not fit, are left out with a
        note; else they are refused.
    time_limit : float or None
        Seconds that a command may take for one input; None means 600.
    diffusion_steps : int or None
        Noise levels that ``dps:`` and ``ddnm:`` arms visit; None means all of the model's.
    dps_step : float or None
        Size of a step of a ``dps:`` arm, in the public code's convention; None means 0.3.
    generators : list of str
        ``FILE.py:FACTORY``, a name or a checkpoint file; each makes a pulse arm. The full form is
        ``SOURCE[@RESOLUTION][@UPSAMPLING][#CLASS]``: ``@256`` gives the resolution where the file
        does not; StyleGAN 1 files of genforce need ``@auto``, ``@fused`` or ``@separate``; ``#3``
        fixes class 3 of a conditional network, ``#each`` makes an arm of every class, else classes
        are drawn uniformly.
    trusted_files : list of str
        SHA-256 of ``.pt2`` programs that may be run although they can contain any code.
    search : str
        ``official`` and ``paper`` are 100 steps to eps 2e-3 or 1e-3; ``fast`` is official, but an
        image leaves the search at its first feasible iterate.
    eps : float or None
        Feasible is an output whose downscaled image is within this MSE of the input; None means
        the search's own.
    coarse : str or None
        ``STEPS@RESOLUTION``: so many of a search's first steps are on smaller pictures, of
        generators that have them (StyleGAN 2 of the skip architecture).
    bank : int
        Samples in the bank of a posterior arm.
    latent_fit, latents : str
        Variants of every pulse arm: latents drawn from a Gaussian of the ``full`` covariance of
        the mapped latents, where PULSE's is ``diagonal``, and one ``tied`` latent for all layers,
        where PULSE has one ``per-layer``. ``GENERATOR@full@tied`` chooses them for one arm.
    sweep : dict of str to list
        Settings of arms and the values of each, see `pulse_audit.sweeps`: every combination is a
        variant of every arm that has them, ``pulse:faces-balanced~eps=0.001,steps=50``.
    scales : list of int or None
        Downscaling factors; None means 8, or less where the input would fall under 8 px.
    conditions : list of str
        ``clean | gaussian:SIGMA | saltpepper:P | motion:LENGTH | jpeg:Q``, or several joined by
        ``+``, as ``motion:9.8%+gaussian:25``.
    published : list of str
        Papers whose figures the report prints beside those of the run, see
        `pulse_audit.report.published`.
    kernel : str
        The downscaling operator DS; ``pulse`` is the bicubic of the official code.
    resolution, crop : int, str or None
        At which outputs are compared; None means the resolution of the smallest generator, and
        what photos and generators both show.
    group_by : list of str or None
        Groupings; ``"race,gender"`` is an intersection; None means the data set's own.
        The first one over label columns is balanced by ``per_group``.
    limit : int or None
        Stop after this many faces of the balanced order (a trial run; gates refuse it).
    attributes : str or None
        The attribute model: a name, a file or ``FILE.py:FACTORY``; None means the shipped one,
        ``none`` means none.
    metrics : list of str or None
        Names of metrics or ``FILE.py:FACTORY``; None means all that can be measured here.
    sources : bool
        Whether to attribute shifts to their sources after the units: see `harness.sources`.
    second_attributes : str or None
        The attribute model that checks the first on originals and outputs, and never guides; None
        means the shipped check where it predicts the same words, ``none`` means no check.
    seed : int
        Run seed, from which every draw's seed follows.
    precision : str
        Of the generators: ``bf16`` renders in bfloat16 and searches in float32; ``auto`` is
        ``fp32``, unless bfloat16 is measured quicker on this machine and was shown not to move the
        findings on these generators.
    threads, batch : int or None
        None: this machine's cores, and a batch that suits the device.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    truncation: Truncation | None = None
    data_root: Path | None = None
    datasets_file: Path | None = None
    split: Split = "val"
    arms: list[str] = []
    skip_unfit: bool = False
    generators: list[str] = []
    trusted_files: list[Digest] = []
    search: Search = "official"
    eps: Eps | None = None
    time_limit: Seconds | None = None
    diffusion_steps: DiffusionSteps | None = None
    dps_step: DpsStep | None = None
    coarse: str | None = None
    bank: Bank = 60_000
    latent_fit: LatentFit = "diagonal"
    latents: Latents = "per-layer"
    sweep: dict[str, list[Value]] = {}
    scales: Annotated[list[Scale], Field(min_length=1)] | None = None
    conditions: Annotated[list[str], Field(min_length=1)] = ["clean"]
    kernel: Kernel = "pulse"
    resolution: Resolution | None = None
    crop: str | None = None
    group_by: list[str] | None = None
    per_group: Faces = 10
    draws: Draws = 2
    limit: Faces | None = None
    seed: Seed = 0
    keep_images: KeepImages = "sample"
    attributes: str | None = None
    metrics: list[str] | None = None
    sources: bool = False
    published: list[str] = []
    second_attributes: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    threads: Threads | None = None
    batch: Batch | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _bounded(cls, value: Any, info: ValidationInfo) -> Any:
        entries = value if isinstance(value, list) else [value]
        if len(entries) > MAX_ENTRIES:
            raise ValueError(f"a list of more than {MAX_ENTRIES:,} entries")
        for text in (str(entry) for entry in entries if isinstance(entry, str | Path)):
            if len(text) > MAX_TEXT:
                raise ValueError(f"text of more than {MAX_TEXT:,} characters")
            if "\0" in text:
                raise ValueError("text with a NUL byte")
            # The manifest is UTF-8 and records all but where data lies.
            if info.field_name in PLACES:
                if not text:
                    raise ValueError("an empty path; . is the current folder")
            elif any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError("text that is not UTF-8")
        return value

    @field_validator("trusted_files", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        return [str(v).lower() for v in value] if isinstance(value, list) else value

    @field_validator("published")
    @classmethod
    def _known_papers(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in PUBLISHED:
                raise ValueError(f"unknown paper {name[:80]!r}{nearest(name, [*PUBLISHED])}")
        return list(dict.fromkeys(value))

    @field_validator("sweep", mode="before")
    @classmethod
    def _known_settings(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        try:
            return read_sweep(value)
        except InputError as error:
            raise ValueError(str(error)) from None

    @field_validator(
        "arms", "generators", "trusted_files", "scales", "conditions", "group_by", "metrics"
    )
    @classmethod
    def _without_repeats(cls, value: list[Any] | None) -> list[Any] | None:
        return None if value is None else list(dict.fromkeys(value))

    def requested(self) -> dict[str, Any]:
        """Return the specification as plain JSON values, without the places where data lies.

        Fields that came after the first release are left out where they are not set, so that the
        runs of an earlier release can be resumed.
        """
        unset = {key for key in LATER if getattr(self, key) == type(self).model_fields[key].default}
        return self.model_dump(mode="json", exclude=set(PLACES) | unset)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over `requested`, in hex."""
        return hexdigest(self.requested())

    @property
    def default_out(self) -> Path:
        """Where the run goes without ``--out``, so that the same command resumes."""
        return self.default_out_of(None)

    def default_out_of(self, shard: tuple[int, int] | None) -> Path:
        """Return where a shard goes without ``--out``, or the whole run."""
        name = f"{plain_dataset(self.dataset)}-{self.fingerprint[:8]}"
        return Path("runs") / (name if shard is None else "{}-shard-{}-of-{}".format(name, *shard))


def make_spec(values: Mapping[str, Any], where: str = "the audit") -> AuditSpec:
    """Validate values into a spec; `InputError` names the first field at fault."""
    try:
        return AuditSpec.model_validate(dict(values))
    except ValidationError as error:
        # The first field at fault, with the known ones where it is no field at all.
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])[:80] or "spec"
        hint = ""
        if first["type"] == "extra_forbidden" and "." not in field:
            hint = f" (known: {', '.join(sorted(AuditSpec.model_fields))})"
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {field}: {reason}{hint}") from None


def without_folders(spec: AuditSpec) -> AuditSpec:
    """Return a specification without ``folder:`` arms, whose pictures may still have to be made.

    They take whatever size a run has, as interpolation does, whose place they are given.
    """
    arms = ["nearest" if arm.startswith(FOLDER) else arm for arm in spec.arms]
    return spec.model_copy(update={"arms": list(dict.fromkeys(arms))})


def read_spec(text_or_path: str) -> dict[str, Any]:
    """Read a spec from a YAML file, or by the name of one that ships with the package.

    `InputError` if there is no such file or name, or it is not a YAML mapping.
    """
    # What does not end in .yaml is the name of a shipped spec.
    path = Path(text_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        shipped = _spec_files()
        if text_or_path not in shipped:
            known = nearest(text_or_path, sorted(shipped))
            raise InputError(f"unknown spec {text_or_path!r}{known}; also possible: a .yaml file")
        path = shipped[text_or_path]
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such spec file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a spec is a YAML mapping of options to values")
    return content


def shipped_specs() -> dict[str, str]:
    """Names of the specs that ship with the package, each with its first comment line."""
    return {n: path.read_text().splitlines()[0].lstrip("# ") for n, path in _spec_files().items()}


def _spec_files() -> dict[str, Path]:
    folder = Path(str(resources.files("pulse_audit"))) / "specs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


KEEP_IMAGES: tuple[str, ...] = get_args(KeepImages)
KERNELS: tuple[str, ...] = get_args(Kernel)
SEARCHES: tuple[str, ...] = get_args(Search)
SPLITS: tuple[str, ...] = get_args(Split)
