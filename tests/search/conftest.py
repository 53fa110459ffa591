"""Small generators to search, and a plain downscaling operator."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_audit.generators.adapt import as_generator
from pulse_audit.generators.gaussianise import GaussianFit
from pulse_audit.generators.searchable import StyleGenerator
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.types import GeneratorCard


class Linear:
    """Images that are the latents themselves: 4 px, 48 values, every one free."""

    noise_shapes: tuple[tuple[int, int], ...] = ()
    card = GeneratorCard("linear", "test", 4, "as-is", 1, 48, "gaussian", 0)

    def styles(self, latents: Tensor) -> Tensor:
        return latents

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        return 0.5 + 0.4 * styles.reshape(-1, 3, 4, 4)

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        return self.images(self.styles(latents), noise)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Linear":
        return self


class Recording(StyleGenerator):
    """A style generator that keeps the norms of the latents and noise maps it is given."""

    def __init__(self, inner: StyleGenerator):
        super().__init__(inner.network, inner.fit, inner.card)
        self.latent_norms: list[Tensor] = []
        self.noise_norms: list[Tensor] = []
        self.noise: list[list[Tensor]] = []

    def synthesize(self, latents: Tensor, noise: Sequence[Tensor]) -> Tensor:
        raise AssertionError("the search renders styles")

    def styles(self, latents: Tensor) -> Tensor:
        self.latent_norms.append(latents.detach().double().norm(dim=-1))
        return super().styles(latents)

    def images(self, styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        self.noise.append([m.detach().clone() for m in noise])
        norms = [m.detach().double().flatten(1).norm(dim=1) for m in noise]
        self.noise_norms.append(torch.stack(norms))
        return super().images(styles, noise)


def make_style_generator() -> StyleGenerator:
    """A StyleGAN 2 of 16 px and 64-dimensional styles, all weights drawn from seed 0."""
    config = StyleGAN2Config((8, 8, 6), z_dim=8, w_dim=64, hidden=(8,))
    network = StyleGAN2.fresh(config, 0)
    with torch.no_grad():
        for name, tensor in network.weights().items():
            if name.endswith("noise_strength"):
                tensor.fill_(0.3)
    fit = GaussianFit(torch.zeros(64), torch.ones(64))
    generator = as_generator(network, name="tiny", gaussian_fit=fit)
    assert isinstance(generator, StyleGenerator)
    return generator


def mean_pool(factor: int) -> Callable[[Tensor], Tensor]:
    return lambda images: F.avg_pool2d(images, factor)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def style_generator() -> StyleGenerator:
    return make_style_generator()


@pytest.fixture
def recording() -> Recording:
    return Recording(make_style_generator())


@pytest.fixture
def linear() -> Linear:
    return Linear()


@pytest.fixture
def pool() -> Callable[[int], Callable[[Tensor], Tensor]]:
    """DS as the mean over blocks of the given side."""
    return mean_pool


@pytest.fixture
def inputs() -> Callable[[int, int], Tensor]:
    """Random inputs (n, 3, side, side) in [0.2, 0.8]."""

    def draw(n: int, side: int) -> Tensor:
        return 0.2 + 0.6 * torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(5))

    return draw
