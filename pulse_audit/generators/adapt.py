"""From any network to the `Generator` that the search and the audit take.

Style networks (mapping and synthesis) are searched in W+, gaussianised as PULSE does it; any other
decoder from a latent vector to images is searched in that vector, one sphere an image.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.gaussianise import GaussianFit, cached_fit, read_gaussian_fit
from pulse_audit.generators.network import StyleNetwork, is_style_network
from pulse_audit.generators.searchable import Decoder, DecoderGenerator, StyleGenerator
from pulse_audit.names import LATENT_FITS
from pulse_audit.types import CROPS, Generator, GeneratorCard, InputError, is_generator

PRIORS = ("gaussian", "uniform")


class SphereWarning(UserWarning):
    """The latent space is too small for a sphere to stand for the Gaussian prior."""


def as_generator(
    network: StyleNetwork | Decoder | Generator,
    *,
    name: str | None = None,
    crop: str = "as-is",
    gaussian_fit: GaussianFit | str | Path | None = None,
    latent_fit: str | None = None,
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
    network : StyleNetwork, callable or Generator
        A style network, or a module or function from latents (n, latent_dim) to images
        (n, 3, R, R). What is a `Generator` already is returned as it is.
    name : str, optional
        Name in reports; default: family and resolution.
    crop : str
        How its training faces were cropped: ``ffhq``, ``fairface-0.25``, ``fairface-1.25``,
        ``celeba``, ``celeba-108`` or ``as-is``.
    gaussian_fit : GaussianFit or path, optional
        Style networks only. Default: fitted to the mapping network (a million samples) and kept
        in ``cache``.
    latent_fit : {"diagonal", "full"}, optional
        Style networks only: ``diagonal`` (default) is PULSE's fit, ``full`` that of the whole
        covariance, which needs the mapping network.
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
    card_facts: dict[str, Any] = {
        "crop": crop,
        "training_data": training_data,
        "licence": licence,
        "sha256": sha256,
        "training_composition": training_composition,
    }
    # Arguments for another kind of network would be ignored without a word.
    for_styles: tuple[object, ...] = (gaussian_fit, latent_fit, label, cache)
    for_decoders: tuple[object, ...] = (latent_dim, prior, output_range, resolution)
    if is_generator(network):
        misplaced = (name, None if crop == "as-is" else crop, *list(card_facts.values())[1:])
        misplaced += (*for_styles, *for_decoders, caveats or None)
        reason = "a generator has its settings and its card already"
    elif is_style_network(network):
        misplaced = for_decoders
        reason = "latent_dim, prior, output_range and resolution are read from the network"
    else:
        misplaced = for_styles
        reason = "gaussian_fit, latent_fit, label and cache are for networks with a mapping part"
    if any(value is not None for value in misplaced):
        raise InputError(f"as_generator: {reason}; leave them out here")
    if is_generator(network):
        return network
    # The search changes latents only.
    if isinstance(network, nn.Module):
        network.requires_grad_(False).eval()
    generator: StyleGenerator | DecoderGenerator
    if is_style_network(network):
        fit = _fit(network, gaussian_fit, latent_fit or "diagonal", label, cache)
        generator = _style_generator(network, name, fit, card_facts)
    else:
        generator = _decoder_generator(
            network, name, latent_dim, prior or "gaussian", output_range or (-1.0, 1.0), card_facts
        )
        card = generator.card
        if resolution not in (None, card.resolution):
            raise InputError(f"{card.name} renders {card.resolution} px, not {resolution}")
    # Once for the person at the terminal, and in every report.
    for caveat in generator.caveats:
        warnings.warn(caveat, SphereWarning, stacklevel=2)
    generator.caveats = (*generator.caveats, *caveats)
    return generator


def _style_generator(
    network: StyleNetwork, name: str | None, fit: GaussianFit, card_facts: Mapping[str, Any]
) -> StyleGenerator:
    # A style network says what it is; the card is read from it.
    card = GeneratorCard(
        name=name or f"{network.family}-{network.resolution}",
        family=network.family,
        resolution=network.resolution,
        n_latents=network.num_ws,
        latent_dim=network.w_dim,
        prior="gaussian",
        parameters=_parameter_count(network),
        classes=network.c_dim,
        latent_fit="diagonal" if fit.factor is None else "full",
        **card_facts,
    )
    # Render once, so that a network that gives NaN or another size is refused here.
    generator = StyleGenerator(network, fit, card)
    device = _device_of(network)
    noise = [torch.zeros(1, 1, *shape, device=device) for shape in network.noise_shapes]
    latents = _test_latents(1, network.num_ws, network.w_dim).to(device)
    side = _rendered_side(lambda: generator.synthesize(latents, noise), 1, card.name)
    if side != network.resolution:
        raise InputError(f"{card.name} renders {side} px but says {network.resolution}")
    return generator


def _decoder_generator(
    decoder: Decoder,
    name: str | None,
    latent_dim: int | None,
    prior: str,
    output_range: tuple[float, float],
    card_facts: Mapping[str, Any],
) -> DecoderGenerator:
    if latent_dim is None or latent_dim < 1:
        raise InputError("a plain decoder needs latent_dim, the length of its latent vector")
    if prior not in PRIORS:
        raise InputError(f'prior "{prior}" is not known; use one of {", ".join(PRIORS)}')
    if not output_range[0] < output_range[1]:
        raise InputError(f"output_range {output_range}: black has to lie below white")
    # Two latents, so that a decoder that mixes up its batch is noticed.
    latents = _test_latents(2, latent_dim).to(_device_of(decoder))
    side = _rendered_side(lambda: decoder(latents), 2, name or "decoder")
    card = GeneratorCard(
        name=name or f"decoder-{side}",
        family="decoder",
        resolution=side,
        n_latents=1,
        latent_dim=latent_dim,
        prior=prior,
        parameters=_parameter_count(decoder),
        **card_facts,
    )
    return DecoderGenerator(decoder, card, output_range)


def _fit(
    network: StyleNetwork,
    gaussian_fit: GaussianFit | str | Path | None,
    latent_fit: str,
    label: int | None,
    cache: Path | None,
) -> GaussianFit:
    """Return the fit that was given, or the one of the mapping network, on the network's device."""
    if latent_fit not in LATENT_FITS:
        raise InputError(f'latent_fit "{latent_fit}" is not known; use {" or ".join(LATENT_FITS)}')
    if label is not None and not 0 <= label < network.c_dim:
        wanted = f"0 to {network.c_dim - 1}" if network.c_dim else "none: it has no classes"
        raise InputError(f"label {label} does not fit this {network.family}, which takes {wanted}")
    source = torch.Generator().manual_seed(0)

    def styles(z: Tensor) -> Tensor:
        """Map z (n, z_dim) to w (n, w_dim), for one class or for classes drawn uniformly."""
        if network.c_dim == 0:
            return network.mapping(z)[:, 0]
        classes = torch.randint(network.c_dim, (len(z),), generator=source)
        if label is not None:
            classes = torch.full_like(classes, label)
        return network.mapping(z, F.one_hot(classes, network.c_dim).to(z))[:, 0]

    device = _device_of(network)
    if isinstance(gaussian_fit, GaussianFit):
        fit = gaussian_fit
    elif gaussian_fit is not None:
        fit = read_gaussian_fit(gaussian_fit)
    elif network.map is None and latent_fit == "full":
        raise InputError(
            f"a full-covariance fit is made from the mapping network, without which this "
            f"{network.family} was loaded"
        )
    elif network.map is None:
        raise InputError(
            f"this {network.family} was loaded without its mapping network: give gaussian_fit, "
            "the path of PULSE's gaussian_fit.pt, or load mapping.pt with it"
        )
    else:
        full = latent_fit == "full"
        # A million z through the mapping network, once; then from the cache.
        weights = network.map.state_dict()
        fit = cached_fit(
            styles, network.z_dim, weights, label=label, full=full, device=device, cache=cache
        )
    if (fit.factor is not None) != (latent_fit == "full"):
        raise InputError(
            "a full-covariance fit is made from the mapping network: leave gaussian_fit out"
            if latent_fit == "full"
            else "this gaussian fit is one of the full covariance: say latent_fit full"
        )
    if len(fit.mean) != network.w_dim:
        raise InputError(
            f"the gaussian fit has {len(fit.mean)} values, this network's w has {network.w_dim}"
        )
    return fit.to(device)


@torch.no_grad()
def _rendered_side(render: Callable[[], Tensor], n: int, name: str) -> int:
    """Render once and return R; InputError unless that gives finite images (n, 3, R, R)."""
    try:
        images = render()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{name}: the network cannot render a batch of latents: {line}") from error
    # Whatever the callable returned: a tensor of that shape, or it is refused.
    shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
    if not isinstance(images, Tensor) or images.shape != (n, 3, *images.shape[-1:] * 2):
        raise InputError(f"{name}: wanted square RGB images ({n}, 3, R, R) from it, got {shape}")
    if not bool(torch.isfinite(images).all()):
        raise InputError(f"{name}: its images are not finite (NaN or infinity): damaged weights")
    return images.shape[-1]


def _test_latents(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _device_of(network: object) -> torch.device:
    """Return where a module's weights are; the CPU for a plain function."""
    tensors = network.parameters() if isinstance(network, nn.Module) else iter(())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _parameter_count(network: object) -> int:
    """Count the weights; a network that stores them in another form keeps its own count."""
    if not isinstance(network, nn.Module):
        return 0
    stored = sum(tensor.numel() for tensor in network.parameters())
    return int(getattr(network, "parameter_count", stored))
