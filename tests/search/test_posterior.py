"""Draws of a posterior by rejection: against numeric integration, and by ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.generators.adapt import as_generator
from pulse_audit.search import posterior
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.posterior import PosteriorBank, start_images
from pulse_audit.seeding import fingerprint
from pulse_audit.types import Request, Status

CPU = torch.device("cpu")
DS = DegradationModel("clean", 4, "area")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    monkeypatch.setattr("pulse_audit.search.bank.MAX_BATCH", 2_000)
    return tmp_path / "banks"


@pytest.fixture
def linear():
    """Two Gaussian latents to grey plus two patterns, 8 px; also the patterns (2, 3, 8, 8)."""
    patterns = 0.05 * torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    patterns += torch.tensor([0.04, -0.05]).view(2, 1, 1, 1)

    def decode(z):
        return 0.5 + torch.einsum("nd,dchw->nchw", z, patterns.to(z))

    with pytest.warns(UserWarning, match="sphere"):
        return as_generator(decode, name="linear", latent_dim=2, output_range=(0, 1)), patterns


def latents(bank: PosteriorBank, places: torch.Tensor) -> np.ndarray:
    """Latents (k, 2) of samples of the toy bank, drawn as `prior_images` does."""
    seeds = [fingerprint("posterior bank", bank.prior, int(place)) for place in places]
    draws = [torch.randn(2, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws).double().numpy()


def test_draws_within_eps_have_the_moments_of_numeric_integration(linear):
    generator, patterns = linear
    bank = PosteriorBank(generator, SearchConfig(eps=4e-4), size=20_000)
    lr = DS.downscale(0.5 + (0.8 * patterns[0] - 1.1 * patterns[1])[None])[0]
    places, errors = bank.within(lr, DS)
    assert float(errors.max()) <= 4e-4
    z = latents(bank, places)

    # Density of the prior on a grid, where DS of the image is within eps of the input.
    axis = np.linspace(-6, 6, 1201)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    low = DS.downscale(patterns).flatten(1).double().numpy()
    distance = ((0.5 + grid @ low - lr.flatten().double().numpy()) ** 2).mean(1)
    weight = np.exp(-(grid**2).sum(1) / 2) * (distance <= 4e-4)
    weight /= weight.sum()
    mean = weight @ grid
    covariance = (grid - mean).T @ ((grid - mean) * weight[:, None])

    # The share within eps, the means and the variances, each within four standard errors.
    k = len(z)
    assert 300 < k < 15_000
    share = np.exp(-(grid**2).sum(1) / 2)[distance <= 4e-4].sum() * 0.01**2 / (2 * np.pi)
    assert abs(k / 20_000 - share) < 4 * np.sqrt(share * (1 - share) / 20_000)
    assert (np.abs(z.mean(0) - mean) < 4 * np.sqrt(np.diag(covariance) / k)).all()
    squares = ((z - mean) ** 2).std(0) / np.sqrt(k)
    assert (np.abs(((z - mean) ** 2).mean(0) - np.diag(covariance)) < 4 * squares).all()


def ranks(bank: PosteriorBank, patterns: torch.Tensor, nearest: float = 1.0) -> np.ndarray:
    """Rank in (0, 1) of the true latent among draws, of 300 inputs that the generator made.

    The input is DS of a fresh sample plus an error that is uniform in the ball of eps; the draws
    are the share ``nearest`` of those within eps.
    """
    eps = bank.config.eps
    random, found = np.random.default_rng(2), []
    of_bank = latents(bank, torch.arange(bank.size))[:, 0]
    for _ in range(300):
        truth = random.standard_normal(2)
        image = 0.5 + torch.einsum("d,dchw->chw", torch.tensor(truth).float(), patterns)
        lr = DS.downscale(image[None])[0]
        direction = random.standard_normal(lr.numel())
        length = random.random() ** (1 / lr.numel()) * np.sqrt(eps * lr.numel())
        error = direction / np.linalg.norm(direction) * length
        places, errors = bank.within(lr + torch.tensor(error).float().view(lr.shape), DS)
        places = places[errors <= errors.quantile(nearest)] if len(places) else places
        if len(places) >= 20:
            below = np.sum(of_bank[places.numpy()] < truth[0])
            found.append((below + random.random()) / (len(places) + 1))
    return np.array(found)


def test_the_true_latent_has_a_uniform_rank_among_the_draws(linear):
    generator, patterns = linear
    bank = PosteriorBank(generator, SearchConfig(eps=2e-3), size=10_000)
    calibrated = ranks(bank, patterns)
    assert len(calibrated) > 270
    for uniform in (calibrated, np.abs(2 * calibrated - 1)):
        assert stats.kstest(uniform, "uniform").pvalue > 0.01
    # The same test refuses draws that fit better than the posterior's, as a search prefers them.
    narrow = ranks(bank, patterns, nearest=0.2)
    assert stats.kstest(np.abs(2 * narrow - 1), "uniform").pvalue < 1e-4


def test_equal_seeds_give_equal_draws_and_rare_inputs_none(linear):
    generator, patterns = linear
    bank = PosteriorBank(generator, SearchConfig(eps=1e-3), size=2_000)
    common = DS.downscale(0.5 + patterns[:1] * 0.2)[0]
    rare = DS.downscale(0.5 + patterns[:1] * 9)[0]
    first, second = bank([Request(common, "a", {}, 1), Request(rare, "b", {}, 1)], DS)
    assert first.feasible
    assert torch.equal(first.image, bank([Request(common, "a", {}, 1)], DS)[0].image)
    error = (DS.downscale(first.image[None])[0] - common).square().mean()
    assert first.downscale_error == pytest.approx(float(error), rel=1e-4)
    assert (second.image, second.status) == (None, Status.INFEASIBLE)
    assert "fewer than 20" in second.reason


def test_draws_of_a_face_are_different_samples(linear):
    generator, patterns = linear
    bank = PosteriorBank(generator, SearchConfig(eps=3e-3), size=2_000)
    lr = DS.downscale(0.5 + patterns[:1] * 0.2)[0]
    _, errors = bank.within(lr, DS)
    every = [Request(lr, "face", {}, seed % 3) for seed in range(len(errors))]
    # Asked for as often as there are samples, it gives every one once.
    drawn = bank(every, DS)
    assert sorted(answer.downscale_error for answer in drawn) == sorted(errors.tolist())
    more = bank([*every, every[0]], DS)
    assert {answer.status for answer in more} == {Status.INFEASIBLE}


def test_the_cache_gives_the_same_bank_and_damaged_parts_are_made_again(linear, cache):
    generator, _ = linear
    made = PosteriorBank(generator, size=5_000).prepare(DS, 2, CPU)
    parts = sorted(cache.rglob("*.npy"))
    assert len(parts) == 3
    parts[1].write_bytes(parts[1].read_bytes()[:100])
    calls = []
    again = PosteriorBank(generator, size=5_000).prepare(DS, 2, CPU, lambda *c: calls.append(c))
    assert torch.equal(made, again)
    assert calls[0] == (4_000, 5_000, 4_000)
    # A larger bank begins with the smaller one.
    assert torch.equal(PosteriorBank(generator, size=9_000).prepare(DS, 2, CPU)[:5_000], made)


def test_banks_of_another_prior_eps_or_ds_do_not_share_the_cache(style_generator, cache):
    for prior in ("own", "pulse"):
        PosteriorBank(style_generator, prior=prior, size=2_000).prepare(DS, 4, CPU)
    PosteriorBank(style_generator, size=2_000).prepare(DegradationModel("clean", 4), 4, CPU)
    assert len(list(cache.iterdir())) == 3


def test_pulses_prior_is_where_its_searches_start(style_generator):
    config = SearchConfig(bad_noise_layers="1")
    images = start_images(style_generator, [3, 4], config, CPU)
    start = posterior.draw_start(style_generator, [3, 4], config)
    start.noise[1].zero_()
    expected = style_generator.synthesize(start.latents, start.noise).clamp(0, 1)
    assert torch.allclose(images, expected, atol=1e-6)
