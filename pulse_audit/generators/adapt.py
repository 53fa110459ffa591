"""The one door from any network to the `Generator` that the search and the audit take.

Style networks (mapping and synthesis) are searched in W+, gaussianised as PULSE does it; any other
decoder from a latent vector to images is searched in that vector, one sphere an image.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import TypeIs

from pulse_audit.generators.gaussianise import (
    GaussianFit,
    cached_fit,
    read_gaussian_fit,
    uniform_from_gaussian,
)
from pulse_audit.generators.probe import (
    device_of,
    freeze,
    normal_latents,
    parameter_count,
    probed_side,
)
from pulse_audit.types import CROPS, Generator, GeneratorCard, InputError

PRIORS = ("gaussian", "uniform")
# Above this relative spread of a Gaussian's norm the sphere leaves out much of the prior.
MAX_NORM_SPREAD = 0.1

Decoder = Callable[[Tensor], Tensor]


class SphereWarning(UserWarning):
    """The latent space is too small for a sphere to stand for the Gaussian prior."""


class StyleNetwork(Protocol):
    """What every family of style-based generators offers; StyleGAN 1, 2 and 3 are such networks.

    Attributes
    ----------
    family : str
        ``stylegan1``, ``stylegan2``, ...
    resolution, num_ws, z_dim, w_dim, c_dim : int
        Side of the images, styles an image, sizes of z, of w and of the one-hot label (0: none).
    noise_shapes : tuple of (int, int)
        Height and width of each noise map; empty for families without noise.
    map : nn.Module or None
        The mapping network, whose tensors are the key under which its gaussian fit is cached.
    """

    family: str
    resolution: int
    num_ws: int
    z_dim: int
    w_dim: int
    c_dim: int
    noise_shapes: tuple[tuple[int, int], ...]

    @property
    def map(self) -> nn.Module | None:
        """The mapping network, None where it was not loaded."""
        ...

    def mapping(self, z: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Map z (n, z_dim) and one-hot labels (n, c_dim) to w (n, num_ws, w_dim)."""
        ...

    def synthesis(self, w: Tensor, noise: str | Sequence[Tensor] = "const") -> Tensor:
        """Render w (n, num_ws, w_dim) to raw images (n, 3, R, R), about [-1, 1].

        ``noise`` is ``"const"``, ``"none"``, ``"random"`` or one map (n, 1, h, w) per entry of
        ``noise_shapes``.
        """
        ...

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Move to a device and choose the type of the feature maps."""
        ...


def is_style_network(candidate: object) -> TypeIs[StyleNetwork]:
    """Whether an object offers what `StyleNetwork` asks for; see `types.is_generator`."""
    names = "family resolution num_ws z_dim w_dim c_dim noise_shapes map mapping synthesis to"
    return all(hasattr(candidate, name) for name in names.split())


class StyleGenerator:
    """A style network, searched in gaussianised W+: one sphere for each style vector.

    ``styles`` are ``LeakyReLU0.2(latents * std + mean)``, the network's own w, and images are
    ``(synthesis + 1) / 2``. Build it with `as_generator`.

    Attributes
    ----------
    network : StyleNetwork
        The network inside, moved along by `to`.
    caveats : tuple of str
        Sentences a report on this generator has to carry.
    """

    def __init__(self, network: StyleNetwork, fit: GaussianFit, card: GeneratorCard) -> None:
        self.network, self.fit, self.card = network, fit, card
        self.noise_shapes = network.noise_shapes
        self.caveats = sphere_caveats(card)

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (n, num_ws, w_dim) to w of the same shape."""
        return self.fit.styles(latents)

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render w (n, num_ws, w_dim) to images (n, 3, R, R), nominally in [0, 1]."""
        return (self.network.synthesis(styles, noise if self.noise_shapes else "none") + 1) / 2

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render latents (n, num_ws, w_dim) to images (n, 3, R, R)."""
        return self.images(self.styles(latents), noise)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Move the network; bfloat16 concerns its feature maps only."""
        self.network.to(device=device, dtype=dtype)
        self.fit = GaussianFit(self.fit.mean.to(device), self.fit.std.to(device))
        return self


class DecoderGenerator:
    """Any decoder from one latent vector to images: one sphere an image, no noise maps.

    Build it with `as_generator`.

    Attributes
    ----------
    decoder : callable
        ``decoder(latents (n, latent_dim)) -> (n, 3, R, R)``.
    caveats : tuple of str
        Sentences a report on this generator has to carry.
    """

    noise_shapes: tuple[tuple[int, int], ...] = ()

    def __init__(self, decoder: Decoder, card: GeneratorCard, output_range: tuple[float, float]):
        self.decoder, self.card, self.output_range = decoder, card, output_range
        self.caveats = sphere_caveats(card)
        self._dtype = torch.float32

    def styles(self, latents: Tensor) -> Tensor:
        """Map Gaussian latents (n, 1, latent_dim) to the decoder's own prior."""
        return uniform_from_gaussian(latents) if self.card.prior == "uniform" else latents

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render (n, 1, latent_dim) to images (n, 3, R, R); ``noise`` is not used."""
        low, high = self.output_range
        raw = self.decoder(styles[:, 0].to(self._dtype)).to(styles.dtype)
        return (raw - low) / (high - low)

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Render latents (n, 1, latent_dim) to images (n, 3, R, R)."""
        return self.images(self.styles(latents), noise)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Self:
        """Move the decoder, weights included; a plain callable is given ``dtype`` latents.

        What bfloat16 rounds off the weights does not come back.
        """
        if isinstance(self.decoder, nn.Module):
            self.decoder.to(device=device, dtype=dtype)
        # An exported program keeps its own precision.
        self._dtype = getattr(self.decoder, "dtype", dtype)
        return self


def as_generator(
    network: StyleNetwork | Decoder,
    *,
    name: str | None = None,
    crop: str = "as-is",
    gaussian_fit: GaussianFit | str | Path | None = None,
    label: int | None = None,
    cache: Path | None = None,
    latent_dim: int | None = None,
    prior: str | None = None,
    output_range: tuple[float, float] | None = None,
    resolution: int | None = None,
    training_data: str | None = None,
    licence: str | None = None,
    sha256: str | None = None,
    training_composition: Mapping[str, int] | None = None,
    caveats: Sequence[str] = (),
) -> Generator:
    """Wrap a network as the generator that the search and the audit take.

    The network is frozen, put into evaluation mode and rendered once, so that its resolution is
    known and one that gives NaN is refused here.

    Parameters
    ----------
    network : StyleNetwork or callable
        A style network, or a module or function from latents (n, latent_dim) to images
        (n, 3, R, R).
    name : str, optional
        Name in reports; default: family and resolution.
    crop : str
        How its training faces were cropped: ``ffhq``, ``fairface-0.25``, ``fairface-1.25``,
        ``celeba``, ``celeba-108`` or ``as-is``.
    gaussian_fit : GaussianFit or path, optional
        Style networks only. Default: fitted to the mapping network (a million samples) and kept
        in ``cache``.
    label : int, optional
        Conditional style networks only: the class all faces are drawn from. Default: the fit is
        to all classes, drawn uniformly.
    cache : Path, optional
        Folder of the fits; default: see `cached_fit`.
    latent_dim : int, optional
        Decoders only, and needed there.
    prior : {"gaussian", "uniform"}, optional
        Decoders only: standard normal (default), or uniform in [-1, 1], reached through the
        normal distribution function.
    output_range : (float, float), optional
        Decoders only: the values of black and white; default (-1, 1).
    resolution : int, optional
        Decoders only: checked against what the network renders.
    training_data, licence, sha256 : str, optional
        For the card.
    training_composition : mapping, optional
        For the card: how many training faces carry each label.
    caveats : sequence of str, optional
        Further sentences that a report has to carry.

    Returns
    -------
    Generator
        With ``card``, and ``caveats`` a report has to carry.

    Raises
    ------
    InputError
        If an argument does not fit the kind of network, or the probe gives no finite square RGB
        images.

    Warns
    -----
    SphereWarning
        If the latent space is so small that the sphere argument fails.
    """
    if crop not in CROPS:
        raise InputError(f'crop "{crop}" is not known; use one of {", ".join(CROPS)}')
    facts: dict[str, Any] = {
        "crop": crop,
        "training_data": training_data,
        "licence": licence,
        "sha256": sha256,
        "training_composition": training_composition,
    }
    generator: StyleGenerator | DecoderGenerator
    if is_style_network(network):
        read = (latent_dim, prior, output_range, resolution)
        _refuse(read, "latent_dim, prior, output_range and resolution are read from the network")
        freeze(network)
        fit = _fit(network, gaussian_fit, label, cache)
        generator = _style_generator(network, name, fit, facts)
    else:
        _refuse(
            (gaussian_fit, label, cache),
            "gaussian_fit, label and cache are for networks with a mapping part",
        )
        freeze(network)
        adapted = _decoder_generator(network, name, latent_dim, prior, output_range, facts)
        generator = _of_resolution(adapted, resolution)
    for caveat in generator.caveats:
        warnings.warn(caveat, SphereWarning, stacklevel=2)
    generator.caveats = (*generator.caveats, *caveats)
    return generator


def norm_spread(latent_dim: int) -> float:
    """Return the relative standard deviation of a Gaussian vector's norm.

    That of the chi distribution to leading order, ``1 / sqrt(2 d)``.
    """
    return 1 / math.sqrt(2 * latent_dim)


def sphere_caveats(card: GeneratorCard) -> tuple[str, ...]:
    """Say what the sphere leaves out where the latent space is small."""
    spread = norm_spread(card.latent_dim)
    if spread <= MAX_NORM_SPREAD:
        return ()
    return (
        f"{card.name}: with {card.latent_dim} latent values the norm of a draw from the prior "
        f"varies by {spread:.0%}, so the sphere PULSE searches holds only part of the faces this "
        'generator can draw; compare with the search prior "none"',
    )


def _style_generator(
    network: StyleNetwork, name: str | None, fit: GaussianFit, facts: Mapping[str, Any]
) -> StyleGenerator:
    card = GeneratorCard(
        name=name or f"{network.family}-{network.resolution}",
        family=network.family,
        resolution=network.resolution,
        n_latents=network.num_ws,
        latent_dim=network.w_dim,
        prior="gaussian",
        parameters=parameter_count(network),
        **facts,
    )
    generator = StyleGenerator(network, fit, card)
    device = device_of(network)
    noise = [torch.zeros(1, 1, *shape, device=device) for shape in network.noise_shapes]
    latents = normal_latents(1, network.num_ws, network.w_dim).to(device)
    side = probed_side(lambda: generator.synthesize(latents, noise), 1, card.name)
    if side != network.resolution:
        raise InputError(f"{card.name} renders {side} px but says {network.resolution}")
    return generator


def _decoder_generator(
    decoder: Decoder,
    name: str | None,
    latent_dim: int | None,
    prior: str | None,
    output_range: tuple[float, float] | None,
    facts: Mapping[str, Any],
) -> DecoderGenerator:
    prior, output_range = prior or "gaussian", output_range or (-1.0, 1.0)
    if latent_dim is None or latent_dim < 1:
        raise InputError("a plain decoder needs latent_dim, the length of its latent vector")
    if prior not in PRIORS:
        raise InputError(f'prior "{prior}" is not known; use one of {", ".join(PRIORS)}')
    if not output_range[0] < output_range[1]:
        raise InputError(f"output_range {output_range}: black has to lie below white")
    called = name or "decoder"
    latents = normal_latents(2, latent_dim).to(device_of(decoder))
    side = probed_side(lambda: decoder(latents), 2, called)
    card = GeneratorCard(
        name=name or f"decoder-{side}",
        family="decoder",
        resolution=side,
        n_latents=1,
        latent_dim=latent_dim,
        prior=prior,
        parameters=parameter_count(decoder),
        **facts,
    )
    return DecoderGenerator(decoder, card, output_range)


def _of_resolution(generator: DecoderGenerator, resolution: int | None) -> DecoderGenerator:
    if resolution not in (None, generator.card.resolution):
        card = generator.card
        raise InputError(f"{card.name} renders {card.resolution} px, not {resolution}")
    return generator


def _fit(
    network: StyleNetwork,
    given: GaussianFit | str | Path | None,
    label: int | None,
    cache: Path | None,
) -> GaussianFit:
    if label is not None and not 0 <= label < network.c_dim:
        wanted = f"0 to {network.c_dim - 1}" if network.c_dim else "none: it has no classes"
        raise InputError(f"label {label} does not fit this {network.family}, which takes {wanted}")
    if isinstance(given, GaussianFit):
        fit = given
    elif given is not None:
        fit = read_gaussian_fit(given)
    elif network.map is None:
        raise InputError(
            f"this {network.family} was loaded without its mapping network: give gaussian_fit, "
            "the path of PULSE's gaussian_fit.pt, or load mapping.pt with it"
        )
    else:
        fit = cached_fit(
            _styles_of_class(network, label),
            network.z_dim,
            network.map.state_dict(),
            label=label,
            device=device_of(network),
            cache=cache,
        )
    if len(fit.mean) != network.w_dim:
        raise InputError(
            f"the gaussian fit has {len(fit.mean)} values, this network's w has {network.w_dim}"
        )
    device = device_of(network)
    return GaussianFit(fit.mean.to(device), fit.std.to(device))


def _styles_of_class(network: StyleNetwork, label: int | None) -> Decoder:
    """From z (n, z_dim) to w (n, w_dim), for one class or for classes drawn uniformly."""
    source = torch.Generator().manual_seed(0)

    def styles(z: Tensor) -> Tensor:
        if network.c_dim == 0:
            return network.mapping(z)[:, 0]
        classes = torch.randint(network.c_dim, (len(z),), generator=source)
        if label is not None:
            classes = torch.full_like(classes, label)
        return network.mapping(z, F.one_hot(classes, network.c_dim).to(z))[:, 0]

    return styles


def _refuse(given: Sequence[object], reason: str) -> None:
    if any(value is not None for value in given):
        raise InputError(f"as_generator: {reason}; leave them out here")
