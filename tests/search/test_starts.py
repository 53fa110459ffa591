"""Where searches start: strata hit exactly, equal shares, draws of a prior given a group."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.generators.gaussianise import SLOPE, GaussianFit
from pulse_audit.generators.searchable import StyleGenerator
from pulse_audit.search import starts
from pulse_audit.search.config import SearchConfig
from pulse_audit.search.posterior import start_images
from pulse_audit.search.starts import StartBank, classified, reweighted
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import InputError, Request

CPU, CONFIG, SEEDS = torch.device("cpu"), SearchConfig(steps=2), list(range(4_000))
#: A first latent below, between and above these: 80, 18 and 2 % of a Gaussian.
EDGES = torch.tensor(stats.norm.ppf([0.80, 0.98]), dtype=torch.float32)
GROUPS = ("many", "few", "rare")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    yield tmp_path / "starts"


@pytest.fixture
def unclipped(linear, monkeypatch):
    """The toy generator with its pictures as they are, so that none is clipped to [0, 1]."""
    monkeypatch.setattr(
        type(linear), "images", lambda self, s, noise: 0.5 + s.view(-1, 3, 4, 4) / 90
    )
    return linear


def shown(images: Tensor) -> Tensor:
    return torch.bucketize((images[:, 0, 0, 0] - 0.5) * 90, EDGES)


@pytest.fixture
def bank(unclipped) -> StartBank:
    def render(seeds):
        return start_images(unclipped, seeds, CONFIG, CPU)

    groups = classified(render, shown, SEEDS, "toy").tolist()
    seeds_of = {
        name: [seed for seed, g in zip(SEEDS, groups, strict=True) if g == number]
        for number, name in enumerate(GROUPS)
    }
    return StartBank("strata", seeds_of, {"attribute_model": "toy", "samples": len(SEEDS)})


def requests(faces: int, draws: int) -> list[Request]:
    """Requests of faces, each draw with its own seed."""
    lr = torch.full((3, 2, 2), 0.5)
    return [
        Request(lr, f"{face}.png", {}, 1000 * face + draw, draw=draw)
        for face in range(faces)
        for draw in range(draws)
    ]


def groups_of_starts(arm: PulseUpsampler, asked: list[Request]) -> list[int]:
    """What the starts of an arm show, by their own pictures."""
    start = arm.start(asked)
    return shown(arm.generator.synthesize(start.latents, start.noise)).tolist()


def test_the_draws_of_a_face_hit_every_stratum_exactly(unclipped, bank) -> None:
    arm = PulseUpsampler(unclipped, CONFIG, starts=bank)
    found = groups_of_starts(arm, requests(40, 6))
    for face in range(40):
        assert Counter(found[6 * face : 6 * face + 6]) == {0: 2, 1: 2, 2: 2}
    # One draw a face: every stratum is as frequent over faces as any other.
    first = np.bincount(groups_of_starts(arm, requests(900, 1)), minlength=3)
    assert stats.chisquare(first).pvalue > 0.001


def test_balanced_starts_have_equal_shares_within_the_sampling_error(unclipped, bank) -> None:
    asked = requests(750, 4)
    plain = np.bincount(groups_of_starts(PulseUpsampler(unclipped, CONFIG), asked), minlength=3)
    assert stats.chisquare(plain, 3000 * np.array([0.8, 0.18, 0.02])).pvalue > 0.001
    arm = PulseUpsampler(unclipped, CONFIG, starts=replace(bank, remedy="balanced"))
    found = np.array(groups_of_starts(arm, asked))
    assert stats.chisquare(np.bincount(found, minlength=3)).pvalue > 0.001
    # The draws of a face are independent: their groups repeat as often as chance has it.
    first, second = found.reshape(-1, 4)[:, :2].T
    assert abs((first == second).mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / 750)


def test_starts_of_a_stratum_are_draws_of_the_prior_given_the_group(unclipped, bank) -> None:
    seeds = bank.seeds_of["few"]
    start = PulseUpsampler(unclipped, CONFIG).start(
        [replace(requests(1, 1)[0], seed=s) for s in seeds]
    )
    low, high = EDGES.tolist()
    value, other = start.latents[:, 0, 0].numpy(), start.latents[:, 0, 1].numpy()
    assert stats.kstest(value, stats.truncnorm(low, high).cdf).pvalue > 0.001
    assert stats.kstest(other, "norm").pvalue > 0.001


def test_a_start_depends_on_its_request_alone(unclipped, bank) -> None:
    asked = requests(5, 3)
    seeds = bank.seeds(asked)
    assert [bank.seeds([one])[0] for one in reversed(asked)] == seeds[::-1]
    other = [replace(one, seed=one.seed + 1) for one in asked]
    assert [bank.group(one) for one in other] == [bank.group(one) for one in asked]
    assert bank.seeds(other) != seeds
    # A search of one image is the search of the batch.
    arm = PulseUpsampler(unclipped, CONFIG, starts=bank)
    degradation = DegradationModel("clean", 2, "area")
    together, alone = arm(asked, degradation), [arm([one], degradation)[0] for one in asked]
    for one, two in zip(together, alone, strict=True):
        torch.testing.assert_close(one.image, two.image)


def test_rare_groups_are_said_and_lone_ones_refused(bank) -> None:
    counts = {name: len(seeds) for name, seeds in bank.seeds_of.items()}
    assert bank.describe() == {
        "remedy": "strata", "attribute_model": "toy", "samples": 4000, "groups": counts, "least": 5,
    }  # fmt: skip
    assert len(bank.caveats) == 1
    few = replace(bank, seeds_of={**bank.seeds_of, "rare": [1, 2], "none": []})
    assert few.strata == ["many", "few"]
    assert few.caveats[1] == (
        "no search starts at rare (2), none (0): fewer than 5 samples show them"
    )
    with pytest.raises(InputError, match=r"@strata: the prior shows fewer than two .* \(many\)"):
        replace(bank, seeds_of={"many": range(50), "few": [1]})


def test_classes_are_kept_and_damaged_parts_made_again(cache: Path) -> None:
    rendered: list[int] = []

    def render(seeds) -> Tensor:
        rendered.extend(seeds)
        return torch.tensor(seeds).float().view(-1, 1, 1, 1).expand(-1, 3, 4, 4) / 2000

    def parity(images: Tensor) -> Tensor:
        return (images[:, 0, 0, 0] * 2000).round().long() % 3

    seeds = list(range(1_200))
    found = classified(render, parity, seeds, "toy")
    assert found.tolist() == [seed % 3 for seed in seeds]
    rendered.clear()
    assert torch.equal(classified(render, parity, seeds, "toy"), found)
    assert rendered == [0, 1, 2, 3]
    # One part is damaged, one of another model is asked for.
    (part,) = cache.glob("*/00000500.npy")
    part.write_bytes(b"no array")
    rendered.clear()
    assert torch.equal(classified(render, parity, seeds, "toy"), found)
    assert sorted(rendered[4:]) == list(range(500, 1000))
    rendered.clear()
    classified(render, parity, seeds, "another")
    assert len(rendered) == 1_204


def two_clusters() -> StyleGenerator:
    """A style generator whose mapped latents lie about -1 or, one time in ten, about +3."""
    edge = stats.norm.ppf(0.9)

    def mapping(z: Tensor, labels: object = None, truncation: float = 1.0) -> Tensor:
        centre = torch.where(z[:, :1] > edge, 3.0, -1.0)
        return F.leaky_relu(centre + 0.1 * z, SLOPE)[:, None]

    network = SimpleNamespace(map=object(), c_dim=0, z_dim=6, noise_shapes=(), mapping=mapping)
    card = SimpleNamespace(name="clusters", latent_dim=6000)
    fit = GaussianFit(torch.full((6,), -0.6), torch.full((6,), 1.2))
    return StyleGenerator(network, fit, card)  # type: ignore[arg-type]


def test_the_reweighted_mean_lies_between_the_clusters() -> None:
    generator, seeds = two_clusters(), list(range(2_000))
    z = torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(s)) for s in seeds])
    classes = (z[:, 0] > stats.norm.ppf(0.9)).long()
    moved = reweighted(generator, seeds, classes)
    assert isinstance(moved, StyleGenerator)
    # Half of the way between -1 and +3, where the mean of the prior is at -0.6.
    torch.testing.assert_close(moved.fit.mean[1:], torch.ones(5), atol=0.02, rtol=0)
    # By importance weights on the samples, written out.
    before = F.leaky_relu(generator.mapping(z)[:, 0], 1 / SLOPE).double()
    weights = 1 / (2 * torch.bincount(classes)[classes].double())
    torch.testing.assert_close(moved.fit.mean.double(), weights @ before, atol=1e-6, rtol=1e-6)
    assert torch.equal(moved.fit.std, generator.fit.std)
    assert torch.equal(generator.fit.mean, torch.full((6,), -0.6))
    # A class that hardly any sample shows counts for nothing.
    classes[: starts.LEAST - 1] = 2
    again = reweighted(generator, seeds, classes)
    assert isinstance(again, StyleGenerator)
    torch.testing.assert_close(again.fit.mean[1:], torch.ones(5), atol=0.02, rtol=0)


def test_a_mean_needs_a_mapping_network(linear) -> None:
    with pytest.raises(InputError, match="linear@balanced: the mean of a prior is made from the"):
        reweighted(linear, [0], torch.zeros(1, dtype=torch.long))
