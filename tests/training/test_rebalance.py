"""Training toward photos without a discriminator: the distance, what moves, and where to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import energy_distance as in_one_dimension
from torch import Tensor

from pulse_audit.faces.attribute_net import AttributeNet
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.training import rebalance
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import TrainingSet
from pulse_audit.training.rebalance import PARTS, Rebalancing, energy_distance, features
from pulse_audit.types import InputError


@pytest.fixture
def network() -> AttributeNet:
    torch.manual_seed(0)
    net = AttributeNet({"race": ("A", "B")}, widths=(4, 8), blocks=(1, 1))
    return net.eval().requires_grad_(False)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rebalance, "SIDE", 16)
    monkeypatch.setattr(rebalance, "OF_SAMPLES", 16)


def dark(count: int = 20) -> TrainingSet:
    images = np.random.default_rng(0).integers(0, 40, (count, 16, 16, 3), dtype=np.uint8)
    names = tuple(map(str, range(count)))
    return TrainingSet(images, names, ("A",) * count, ("",) * count)


def fresh(config: GanConfig) -> StyleGAN2:
    wider = config.model_copy(update={"channels": (8, 8, 8), "resolution": 16})
    return StyleGAN2.fresh(wider.generator_config(), seed=3)


def test_the_distance_is_the_energy_distance() -> None:
    x, y = torch.randn(300, 1).double(), torch.randn(200, 1).double() + 0.7
    # scipy's is the root, with every point's distance to itself in the means.
    n = len(x)
    within = torch.cdist(x, x).sum() / (n * (n - 1))
    biased = energy_distance(x, y) + within / n - torch.cdist(y, y).mean()
    assert float(biased) == pytest.approx(in_one_dimension(x[:, 0], y[:, 0]) ** 2, rel=1e-9)


def test_features_are_the_networks_own(network: AttributeNet, small: None) -> None:
    images = torch.rand(3, 3, 16, 16)
    own, statistics, pixels = features(network, images)
    torch.testing.assert_close(own, network.trunk(images))
    assert statistics.shape == (3, 2 * (4 + 8)) and pixels.shape == (3, 48)
    torch.testing.assert_close(statistics[:, 8:16], own)


def moved(run: Rebalancing, before: dict[str, Tensor]) -> set[str]:
    return {k for k, v in run.generator.named_parameters() if not torch.equal(v, before[k])}


def test_samples_move_toward_the_photos_and_late_blocks_stay(
    config: GanConfig, network: AttributeNet, small: None
) -> None:
    generator = fresh(config)
    before = {key: value.clone() for key, value in generator.named_parameters()}
    run = Rebalancing(generator, network, dark(), steps=40, rate=0.02, seed=1)
    light = float(run.sample().detach().mean())
    distances = np.array(list(run))
    assert (distances[-10:].mean(0) < distances[:10].mean(0)).all()
    assert float(run.sample().detach().mean()) < light - 0.1
    changed = moved(run, before)
    assert changed and all(key.startswith(PARTS) for key in changed)
    assert all(torch.equal(v, before[k]) for k, v in generator.named_parameters())
    assert not torch.equal(run.average.map.fc0.weight, before["map.fc0.weight"])


def test_a_run_follows_from_its_seed(config: GanConfig, network: AttributeNet, small: None) -> None:
    runs = [
        list(Rebalancing(fresh(config), network, dark(), steps=2, rate=0.01, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_generators_of_another_size_are_refused(tmp_path: Path) -> None:
    words = ["--generator", "faces-skewed", "--config", "faces-skewed-64", "--data", "none"]
    words += ["--out", str(tmp_path / "new.safetensors")]
    answer = CliRunner().invoke(rebalance.main, words)
    assert isinstance(answer.exception, InputError)
    assert "32 px, where faces-skewed-64 has another size" in str(answer.exception)
    assert not list(tmp_path.iterdir())
