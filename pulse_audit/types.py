"""The contracts that all packages share. No torch at import time.

Images are NCHW float32 RGB in [0, 1] everywhere; labels are strings of the data set's own
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from typing_extensions import TypeIs

from pulse_audit.frames import Frame
from pulse_audit.seeding import fingerprint

if TYPE_CHECKING:
    import torch
    from torch import Tensor


#: How a face lies in its picture. ``celeba`` is the 178 px centre square of CelebA's aligned
#: images, ``celeba-108`` their 108 px one; of ``as-is`` nothing is known.
Crop = Literal["ffhq", "fairface-0.25", "fairface-1.25", "celeba", "celeba-108", "as-is"]
CROPS: tuple[str, ...] = get_args(Crop)
#: Which values of a metric are better.
Direction = Literal["higher", "lower", "nearer 0", "neither"]
#: Called with the work that is done, all work, and what was done by an earlier process.
Progress = Callable[[int, int, int], None]


class InputError(Exception):
    """Something the user gave cannot be used; the message is one line: what, where, what to do.

    The command line prints it on stderr and exits with code 2.
    """


class UnfinishedRun(Exception):
    """Work of a run is missing; the message is one line: what, why, what makes the rest.

    The command line prints it on stderr and exits with code 3.
    """


class Status(StrEnum):
    """What became of one draw. Infeasible outcomes are data, not missing data."""

    OK = "ok"
    INFEASIBLE = "infeasible"
    NO_FACE = "no_face"
    ERROR = "error"


class ImageSource(Protocol):
    """Where the encoded bytes of one photo come from; cheap to hold and to pickle."""

    def read(self) -> bytes:
        """Return the encoded image (JPEG, PNG, WebP, ...).

        Raises
        ------
        OSError
            If the bytes cannot be read.
        """
        ...


@dataclass(frozen=True)
class Face:
    """One evaluation face: the data set's own relative file name, its photo and its labels."""

    id: str
    source: ImageSource
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Draw:
    """One attempt at one face under one condition and scale."""

    face_id: str
    condition: str
    scale: int
    index: int

    def seed(self, run_seed: int) -> int:
        """Seed of this draw; no arm and no path in it, so arms share their random numbers."""
        return fingerprint(run_seed, self.face_id, self.condition, self.scale, self.index)


@dataclass(frozen=True)
class GeneratorCard:
    """What is known of a generator; enters every manifest.

    ``crop`` is one of `CROPS`.
    ``training_data``, ``licence`` and ``sha256`` are None where nothing is known;
    ``training_composition`` counts the training faces by label; None where it is not known.
    ``classes`` is the number of classes of a conditional generator, 0 for all others. ``frame`` is
    the part of its pictures that is shown, None for all of them: ``resolution`` and ``crop`` are
    then those of the part. ``latent_fit`` is the Gaussian that latents are drawn from, ``diagonal``
    as in PULSE or ``full``.
    """

    name: str
    family: str
    resolution: int
    crop: str
    n_latents: int
    latent_dim: int
    prior: str
    parameters: int
    training_data: str | None = None
    licence: str | None = None
    sha256: str | None = None
    training_composition: Mapping[str, int] | None = None
    classes: int = 0
    frame: Frame | None = None
    latent_fit: str = "diagonal"

    def as_dict(self) -> dict[str, Any]:
        """Return the card as plain JSON values; the last three only where they are unusual."""
        usual = {"classes": 0, "frame": None, "latent_fit": "diagonal"}
        values = asdict(self).items()
        return {key: value for key, value in values if key not in usual or value != usual[key]}


class Generator(Protocol):
    """A face generator whose prior is a standard Gaussian, so that the sphere argument holds.

    Latents are (n, ``card.n_latents``, ``card.latent_dim``): ``n_latents`` spheres an image, each
    of radius about sqrt(latent_dim). Noise maps are one tensor (n, 1, r, r) per entry of
    ``noise_shapes``; families without noise have none and ignore what they are given.
    """

    card: GeneratorCard
    noise_shapes: tuple[tuple[int, int], ...]

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (n, L, D) to the network's own input, on which GEOCROSS acts."""
        ...

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render styles to images (n, 3, R, R), nominally in [0, 1] and not clamped."""
        ...

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render latents: ``images(styles(latents), noise)``."""
        ...

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Generator:
        """Move to a device and floating-point type; returns the generator itself."""
        ...


def is_generator(candidate: object) -> TypeIs[Generator]:
    """Whether an object offers what `Generator` asks for.

    ``isinstance`` with a protocol looks attributes up statically since Python 3.12, and does not
    see the parts of a torch module.
    """
    names = ("card", "noise_shapes", "styles", "images", "synthesize", "to")
    return all(hasattr(candidate, name) for name in names)


def smaller(generator: Generator, resolution: int) -> Generator:
    """Return a generator's own smaller pictures, of those that have them (``at_resolution``).

    It takes the first of the styles and of the noise maps of the whole one, as many as it needs.
    InputError if it has none of that resolution.
    """
    at_resolution = getattr(generator, "at_resolution", None)
    if at_resolution is None:
        raise InputError(f"{generator.card.name}: it has no smaller pictures for coarse steps")
    found: Generator = at_resolution(resolution)
    return found


class Degradation(Protocol):
    """From a face to the low-resolution input: HR -> corruption -> downscale -> corruption.

    ``downscale`` alone is the operator DS that the search inverts: differentiable and without
    noise.
    """

    condition: str
    scale: int

    def downscale(self, images: Tensor, scale: int | None = None) -> Tensor:
        """Downscale (n, 3, H, W) by ``scale`` (default: the degradation's own)."""
        ...

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Degrade (n, 3, H, W) to (n, 3, H/scale, W/scale); random parts use one seed an image."""
        ...

    def describe(self) -> str:
        """One sentence for the report."""
        ...


@dataclass(frozen=True)
class Request:
    """One input to an upsampler: ``lr`` is (3, h, w) in [0, 1].

    ``draw`` is the number of the draw among those of the face, from 0, and ``first_seed`` the seed
    of the first of them, None where it is not known. ``frame`` is the part of the run's crop that
    the input shows, where its photo does not fill the crop; an answer shows the same part.
    """

    lr: Tensor
    face_id: str
    labels: Mapping[str, str]
    seed: int
    frame: Frame | None = None
    draw: int = 0
    first_seed: int | None = None


@dataclass(frozen=True)
class Upsampled:
    """One answer of an upsampler.

    ``image`` is (3, H, W) in [0, 1] or None; ``downscale_error`` is the MSE between DS(image) and
    the LR input on the [0, 1] scale; ``steps`` counts optimisation steps, ``seconds`` is the
    image's share of the wall time. Planted arms say whose photo the image is: ``planted_from`` is
    the face, ``planted_group`` its labelled group; other arms leave both None. Searches say how
    long their latent vectors ended: ``latent_radius`` is the mean norm over sqrt(d), the radius of
    the prior's sphere.
    """

    image: Tensor | None
    downscale_error: float | None
    feasible: bool | None
    steps: int
    seconds: float
    status: Status
    reason: str | None = None
    planted_from: str | None = None
    planted_group: str | None = None
    latent_radius: float | None = None


class Upsampler(Protocol):
    """A method on trial. ``promises_feasibility`` arms may return infeasible; others are ok."""

    name: str
    promises_feasibility: bool
    resolution: int | None

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Answer every request, in order."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return settings, weights and their SHA-256, as plain JSON values for the manifest."""
        ...


@dataclass(frozen=True)
class Unavailable:
    """A measurement that cannot be taken, and why; never a silent gap, never a fake number."""

    reason: str


@dataclass(frozen=True)
class Metric:
    """One value per image: ``compute(sr, hr)`` maps two (n, 3, R, R) batches to (n,) values.

    Where the batch cannot be measured at all, ``compute`` answers with the reason instead.
    ``smallest`` is the side in pixels from which on the metric is defined.
    """

    name: str
    higher_is_better: bool
    compute: Callable[[Tensor, Tensor], Tensor | Unavailable]
    unit: str = ""
    smallest: int = 1

    def available(self, resolution: int) -> Unavailable | None:
        """Why images of this many pixels a side cannot be measured, or None if they can."""
        if resolution >= self.smallest:
            return None
        return Unavailable(
            f"{self.name} needs images of at least {self.smallest} px, not {resolution}"
        )


@dataclass(frozen=True)
class Estimate:
    """A value with its interval at ``confidence``, the sample behind it and how it was made."""

    value: float
    low: float
    high: float
    n_faces: int
    n_draws: int
    method: str
    confidence: float = 0.95


@dataclass(frozen=True)
class AttributeCard:
    """What is known of an attribute model; enters every manifest.

    ``vocabulary`` maps each attribute to its words, in the order of the probabilities.
    ``confusion`` maps an attribute to counts of held-out faces: row the group that people gave,
    column the group the model gave, both in the order of ``vocabulary``; empty where the model
    came without. Its further entries are of groupings: ``groupings`` maps each to its groups, in
    order, and these to their words, whose probabilities are summed. ``resolution`` and ``crop``
    are those of the images it was made for; it takes any and resizes. ``feature_dim`` is None
    where the model gives no features.
    """

    name: str
    vocabulary: Mapping[str, tuple[str, ...]]
    resolution: int
    crop: str
    feature_dim: int | None = None
    training_data: str | None = None
    licence: str | None = None
    sha256: str | None = None
    confusion: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    groupings: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the card as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Attributes:
    """What an attribute model sees in n images.

    ``probabilities`` maps each attribute to (n, k), rows summing to 1; ``features`` is (n, d), or
    None where the model gives none.
    """

    probabilities: Mapping[str, Tensor]
    features: Tensor | None


class AttributeModel(Protocol):
    """Apparent attributes of faces, with the confusion matrix measured on held-out ones.

    Deterministic, an image's answer independent of its batch mates, and differentiable with
    respect to the images wherever guidance is to use it.
    """

    card: AttributeCard

    def __call__(self, images: Tensor) -> Attributes:
        """Predict from (n, 3, R, R) in [0, 1], R any."""
        ...

    def to(self, device: torch.device | str) -> AttributeModel:
        """Move to a device; returns the model itself."""
        ...
