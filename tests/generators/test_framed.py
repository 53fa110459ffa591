"""A generator seen through a frame: the same latents, a part of its pictures."""

import torch

from pulse_audit.degrade.resample import cut_to_frame
from pulse_audit.frames import Frame
from pulse_audit.generators.adapt import as_generator
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.generators.searchable import drawn_from, prior_images
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.types import is_generator

FRAME = Frame(0.15, 0.27, 0.69)


def style_generator():
    network = StyleGAN2.fresh(StyleGAN2Config((8,) * 3, z_dim=64, w_dim=64, hidden=(64,)), 0)
    return as_generator(network, name="small", crop="ffhq")


def framed(whole, resolution=12):
    return FramedGenerator(whole, FRAME, resolution, "fairface-0.25", cut_to_frame)


def test_the_card_is_that_of_the_part():
    whole = style_generator()
    card = framed(whole).card
    assert (card.resolution, card.crop, card.frame) == (12, "fairface-0.25", FRAME)
    assert (card.name, card.n_latents) == (whole.card.name, whole.card.n_latents)
    assert card.as_dict()["frame"] == {"left": 0.15, "top": 0.27, "side": 0.69}
    assert "frame" not in whole.card.as_dict()


def test_it_is_a_generator_whose_pictures_are_cut():
    whole = style_generator()
    part = framed(whole)
    assert is_generator(part)
    torch.manual_seed(1)
    latents = torch.randn(2, whole.card.n_latents, whole.card.latent_dim, requires_grad=True)
    noise = [torch.randn(2, 1, *shape) for shape in whole.noise_shapes]
    expected = cut_to_frame(whole.synthesize(latents, noise), FRAME, 12)
    found = part.synthesize(latents, noise)
    assert found.shape == (2, 3, 12, 12) and torch.equal(found, expected)
    found.square().mean().backward()
    assert latents.grad is not None and float(latents.grad.abs().max()) > 0
    assert part.to("cpu", torch.float32) is part


def test_samples_of_its_prior_are_those_of_the_whole_cut():
    device = torch.device("cpu")
    whole = style_generator()
    assert drawn_from(framed(whole)) == "mapping"
    # A sample draws its latent vector first, then its noise maps.
    source = torch.Generator().manual_seed(3)
    z = torch.randn(64, generator=source)[None]
    noise = [torch.randn(1, *s, generator=source)[None] for s in whole.noise_shapes]
    expected = cut_to_frame(whole.images(whole.mapping(z), noise), FRAME, 12).clamp(0, 1)
    torch.testing.assert_close(prior_images(framed(whole), [3], device), expected)

    decoder = as_generator(decode, name="d", latent_dim=64)
    assert drawn_from(framed(decoder)) == "gaussian"
    expected = cut_to_frame(prior_images(decoder, [3, 4], device), FRAME, 12)
    torch.testing.assert_close(prior_images(framed(decoder), [3, 4], device), expected)


def decode(z):
    """64 latents to smooth pictures of 16 px in [-1, 1]."""
    grid = torch.linspace(-1, 1, 16)
    waves = torch.stack([torch.outer(torch.cos(k * grid), torch.sin(grid + k)) for k in range(64)])
    return torch.tanh(0.01 * torch.einsum("nd,dhw->nhw", z, waves))[:, None].expand(-1, 3, -1, -1)
