import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from pulse_audit.generators.adapt import SphereWarning
from pulse_audit.search.pulse import Pulse
from pulse_audit.types import Generator

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def build(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Generator]:
    """Build a generator of the examples by the name of its file; skips without weights."""
    monkeypatch.setenv("PULSE_AUDIT_WEIGHTS", str(shared / "weights"))

    def load(name: str) -> Generator:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SphereWarning)
            return module.build()

    return load


def samples(generator: Generator, n: int, seed: int = 0) -> torch.Tensor:
    shape = (n, generator.card.n_latents, generator.card.latent_dim)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return generator.synthesize(latents, []).clamp(0, 1)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("celeba_dcgan", ("celeba-dcgan32", 32, 100, "uniform", "Apache-2.0", "celeba-108")),
        ("celeba_vae", ("celeba-vae64", 64, 10, "gaussian", "MIT", "celeba")),
    ],
)
def test_the_card_says_what_is_known(build, name, card):
    found = build(name).card
    said = (found.name, found.resolution, found.latent_dim, found.prior, found.licence)
    assert (*said, found.crop) == card
    assert (found.training_data, len(found.sha256)) == ("CelebA", 64)


@pytest.mark.parametrize("name", ["celeba_dcgan", "celeba_vae"])
def test_samples_look_like_faces_on_average(build, name):
    """The mean of many faces is smooth, symmetric, and redder than blue in its middle."""
    mean = samples(build(name), 256).mean(0)
    size = mean.shape[-1]
    middle = mean[:, size // 4 : -size // 4, size // 4 : -size // 4].mean((1, 2))
    assert middle[0] > middle[1] > middle[2]
    assert (
        F.cosine_similarity(
            (mean - mean.mean()).flatten(), (mean.flip(2) - mean.mean()).flatten(), 0
        )
        > 0.9
    )
    assert samples(build(name), 64).std(0).mean() > 0.05


def test_a_small_latent_space_is_told(build):
    assert build("celeba_dcgan").caveats == ()
    assert "sphere" in build("celeba_vae").caveats[0]


def test_the_search_recovers_the_dcgan_s_own_samples(build, record_property):
    """At scale 4 an image of the generator's own has a feasible answer: itself."""
    generator = build("celeba_dcgan")
    lr = F.avg_pool2d(samples(generator, 8, seed=3), 4)
    pulse = Pulse(generator, scale=4, kernel="area", batch_size=16)
    results = pulse.upsample(lr, seeds=[0, 1])
    rate = sum(result.feasible for result in results) / len(results)
    record_property("feasible_rate", rate)
    assert rate >= 0.9
    for result in results:
        assert result.feasible == (result.downscale_error <= 2e-3)
