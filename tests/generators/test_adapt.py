from functools import partial

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import nn

from pulse_audit.generators import adapt
from pulse_audit.generators.adapt import SphereWarning, as_generator
from pulse_audit.generators.gaussianise import GaussianFit, cached_fit
from pulse_audit.generators.network import is_style_network
from pulse_audit.generators.searchable import norm_spread
from pulse_audit.generators.stylegan1 import StyleGAN1
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.types import InputError, is_generator

W_DIM = 64


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def style_network(c_dim: int = 0) -> StyleGAN2:
    config = StyleGAN2Config((4, 4), z_dim=8, w_dim=W_DIM, c_dim=c_dim, hidden=(8,), embed_dim=4)
    return StyleGAN2.fresh(config, 0)


FIT = GaussianFit(normal(W_DIM, seed=1), 0.5 + normal(W_DIM, seed=2).abs())


class Decoder(nn.Module):
    """A linear decoder to 4 px with dropout, which evaluation mode switches off."""

    def __init__(self, latent_dim: int = 64, channels: int = 3):
        super().__init__()
        self.linear = nn.Linear(latent_dim, channels * 16)
        with torch.no_grad():
            self.linear.weight.copy_(normal(*self.linear.weight.shape))
            self.linear.bias.zero_()
        self.drop = nn.Dropout(0.5)

    def forward(self, z):
        return torch.tanh(self.drop(self.linear(z))).unflatten(1, (-1, 4, 4))


def test_a_style_network_is_searched_in_gaussianised_styles():
    network = style_network()
    generator = as_generator(network, gaussian_fit=FIT)
    assert is_generator(generator)
    latents = normal(2, network.num_ws, W_DIM)
    styles = F.leaky_relu(latents * FIT.std + FIT.mean, 0.2)
    assert torch.allclose(generator.styles(latents), styles, atol=1e-6)
    noise = [normal(2, 1, *s) for s in generator.noise_shapes]
    wanted = (network.synthesis(styles, noise) + 1) / 2
    assert torch.allclose(generator.synthesize(latents, noise), wanted, atol=1e-5)
    assert torch.allclose(generator.images(styles, noise), wanted, atol=1e-5)


def test_mapping_and_synthesis_are_the_network_s_own():
    network = style_network(c_dim=2)
    generator = as_generator(network, gaussian_fit=FIT)
    labels = torch.eye(2)
    w = generator.mapping(normal(2, 8), labels=labels, truncation=0.5)
    assert torch.equal(w, network.mapping(normal(2, 8), labels, truncation=0.5))
    assert torch.equal(generator.synthesis(w, noise="none"), network.synthesis(w, "none"))
    assert generator.card.classes == 2


def test_a_generator_is_returned_as_it_is():
    generator = as_generator(style_network(), gaussian_fit=FIT)
    assert as_generator(generator) is generator
    for options in ({"name": "other"}, {"crop": "ffhq"}, {"licence": "CC0"}, {"caveats": ["x"]}):
        with pytest.raises(InputError, match="has its settings and its card already"):
            as_generator(generator, **options)


def test_the_card_of_a_style_network_is_read_from_it():
    network = style_network()
    card = as_generator(network, gaussian_fit=FIT, crop="ffhq", licence="CC0").card
    assert (card.name, card.family) == ("stylegan2-8", "stylegan2")
    assert (card.resolution, card.crop, card.licence) == (8, "ffhq", "CC0")
    assert (card.n_latents, card.latent_dim) == (network.num_ws, W_DIM)
    assert card.parameters == sum(p.numel() for p in network.parameters())


def test_the_families_are_style_networks():
    assert is_style_network(style_network())
    assert not is_style_network(Decoder())


@pytest.fixture
def quick_fit(monkeypatch, tmp_path):
    """Fit to a thousand samples; return a function that adapts into an empty cache."""
    monkeypatch.setattr(adapt, "cached_fit", partial(cached_fit, samples=1000))
    return partial(as_generator, cache=tmp_path)


def test_a_style_network_is_fitted_where_no_fit_is_given(quick_fit):
    network = style_network()
    generator = quick_fit(network)
    w = network.mapping(normal(4000, 8, seed=9))[:, 0]
    before = F.leaky_relu(w, 5.0)
    assert torch.allclose(generator.fit.mean, before.mean(0), atol=0.15)
    assert torch.allclose(generator.fit.std, before.std(0), rtol=0.15)


def test_a_class_has_its_own_fit_and_without_one_classes_are_drawn(quick_fit):
    network = style_network(c_dim=2)
    of_0, of_1, of_all = (quick_fit(network, label=k).fit.mean for k in (0, 1, None))
    assert not torch.allclose(of_0, of_1, atol=1e-2)
    assert torch.allclose(of_all, (of_0 + of_1) / 2, atol=0.15)


@pytest.mark.parametrize(("c_dim", "label"), [(0, 0), (2, 2), (2, -1)])
def test_a_class_the_network_lacks_is_refused(c_dim, label):
    with pytest.raises(InputError, match=f"label {label} does not fit"):
        as_generator(style_network(c_dim), label=label)


def test_a_fit_of_another_size_is_refused():
    with pytest.raises(InputError, match="has 3 values, this network's w has 64"):
        as_generator(style_network(), gaussian_fit=GaussianFit(torch.zeros(3), torch.ones(3)))


def test_a_lone_synthesis_network_asks_for_a_fit(conformance):
    network = StyleGAN1(conformance("stylegan1_pulse_64").state)
    with pytest.raises(InputError, match="give gaussian_fit"):
        as_generator(network)
    fit = GaussianFit(torch.zeros(512), torch.ones(512))
    assert as_generator(network, gaussian_fit=fit).card.name == "stylegan1-64"


def test_a_decoder_is_searched_in_its_latent_vector():
    decoder = Decoder()
    generator = as_generator(decoder, name="mine", latent_dim=64)
    assert is_generator(generator)
    assert generator.noise_shapes == ()
    latents = normal(3, 1, 64)
    assert torch.equal(generator.synthesize(latents, []), (decoder(latents[:, 0]) + 1) / 2)
    card = generator.card
    assert (card.name, card.family, card.prior) == ("mine", "decoder", "gaussian")
    assert (card.n_latents, card.latent_dim, card.resolution) == (1, 64, 4)
    assert card.parameters == 64 * 48 + 48


def test_a_decoder_is_frozen_and_in_evaluation_mode():
    decoder = Decoder()
    as_generator(decoder, latent_dim=64)
    assert not decoder.training
    assert not any(p.requires_grad for p in decoder.parameters())


def test_the_uniform_prior_is_reached_through_the_distribution_function():
    generator = as_generator(Decoder(), latent_dim=64, prior="uniform")
    styles = generator.styles(normal(200, 1, 64))
    assert styles.abs().max() <= 1
    assert styles.square().mean() == pytest.approx(1 / 3, abs=0.01)  # variance of U(-1, 1)


def test_the_output_range_maps_to_black_and_white():
    def bytes_of(z):
        return z.new_full((len(z), 3, 2, 2), 255.0)

    generator = as_generator(bytes_of, latent_dim=64, output_range=(0, 255))
    assert torch.equal(generator.synthesize(normal(1, 1, 64), []), torch.ones(1, 3, 2, 2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_images_have_the_type_of_the_latents_whatever_the_arithmetic(dtype):
    generator = as_generator(Decoder(), latent_dim=64).to("cpu", dtype)
    latents = normal(1, 1, 64).to(torch.float64 if dtype == torch.float64 else torch.float32)
    assert generator.synthesize(latents, []).dtype == latents.dtype


def test_a_style_generator_moves_to_float64():
    network = style_network()
    latents = normal(1, network.num_ws, W_DIM)
    noise = [normal(1, 1, *s) for s in network.noise_shapes]
    generator = as_generator(network, gaussian_fit=FIT)
    single = generator.synthesize(latents, noise)
    exact = generator.to("cpu", torch.float64).synthesize(
        latents.double(), [m.double() for m in noise]
    )
    assert exact.dtype == torch.float64
    assert torch.allclose(single.double(), exact, atol=1e-5)


def test_norm_spread_is_that_of_the_chi_distribution():
    for d in (10, 50, 512):
        chi = scipy.stats.chi(d)
        assert norm_spread(d) == pytest.approx(chi.std() / chi.mean(), rel=0.03)


def test_a_small_latent_space_warns_once_and_leaves_a_caveat():
    with pytest.warns(SphereWarning, match="10 latent values .* varies by 22%") as caught:
        generator = as_generator(Decoder(10), latent_dim=10)
    assert len(caught) == 1
    assert generator.caveats == (str(caught[0].message),)


def test_fifty_latent_values_are_enough():
    assert as_generator(Decoder(50), latent_dim=50).caveats == ()


def test_nan_is_refused_at_the_door():
    def broken(z):
        return z.new_full((len(z), 3, 4, 4), float("nan"))

    with pytest.raises(InputError, match="broken-net: its images are not finite"):
        as_generator(broken, name="broken-net", latent_dim=64)


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (Decoder(), {}, "needs latent_dim"),
        (Decoder(), {"latent_dim": 63}, "cannot render a batch of latents: .*mat1 and mat2"),
        (Decoder(channels=1), {"latent_dim": 64}, "square RGB images \\(2, 3, R, R\\)"),
        (Decoder(), {"latent_dim": 64, "resolution": 8}, "renders 4 px, not 8"),
        (Decoder(), {"latent_dim": 64, "prior": "cauchy"}, '"cauchy" is not known'),
        (Decoder(), {"latent_dim": 64, "output_range": (1, 0)}, "black has to lie below white"),
        (Decoder(), {"latent_dim": 64, "crop": "square"}, '"square" is not known'),
        (Decoder(), {"latent_dim": 64, "label": 1}, "networks with a mapping part"),
        (style_network(), {"latent_dim": 64}, "are read from the network"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(network, settings, message):
    with pytest.raises(InputError, match=message):
        as_generator(network, **settings)
