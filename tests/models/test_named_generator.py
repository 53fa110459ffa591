"""A generator by name: from a fetched file to a card with its origin."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from pulse_audit.models import published
from pulse_audit.models.fetch import fetch
from pulse_audit.models.generators import find_generator, load_generator
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError

DATA = Path(__file__).resolve().parents[1] / "data"


def rosinality_file(path: Path) -> None:
    """Write a small StyleGAN 2 of seeded weights in rosinality's layout."""
    arrays = np.load(DATA / "stylegan2_rosinality_32.npz")
    rule = json.loads(str(arrays["meta"]))["rule"]
    blur = torch.outer(torch.tensor([1.0, 3, 3, 1]), torch.tensor([1.0, 3, 3, 1])) / 16
    state = {}
    for key, (scale, shape) in rule.items():
        if f"keep/{key}" in arrays:
            state[key] = torch.from_numpy(np.asarray(arrays[f"keep/{key}"]))
        elif scale == "keep":
            state[key] = blur.expand(shape).clone()
        else:
            random = np.random.RandomState(zlib.crc32(key.encode()))
            state[key] = torch.from_numpy(random.standard_normal(shape).astype("float32"))
    torch.save({"g_ema": state, "latent_avg": torch.zeros(512)}, path)


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> published.WeightCard:
    """A fetched generator of the catalogue, with its Gaussian fit."""
    fit = published.get("pulse-gaussian-fit").model_copy(
        update={"sha256": None, "sha256_status": "unknown", "sha256_source": None}
    )
    card = published.get("pulse-stylegan1-ffhq-1024")
    monkeypatch.setattr(published, "cards", lambda: {card.name: card, fit.name: fit})
    published.weights_folder().mkdir(parents=True)
    rosinality_file(published.path_of(card))
    torch.save({"mean": torch.zeros(512), "std": torch.ones(512)}, published.path_of(fit))
    for one in (card, fit):
        fetch(one, lambda text: True)
    return card


def test_a_named_generator_carries_its_origin(named: published.WeightCard) -> None:
    generator = load_generator(named.name)
    card = generator.card
    assert (card.name, card.resolution, card.crop) == (named.name, 32, "ffhq")
    assert card.training_data == named.trained_on
    assert card.licence == "CC BY-NC 4.0"
    content = published.path_of(named).read_bytes()
    assert card.sha256 == sha256(content) == find_generator(named.name).sha256


def test_a_missing_gaussian_fit_names_its_own_command(named: published.WeightCard) -> None:
    published.path_of(published.get(named.gaussian_fit)).unlink()
    with pytest.raises(InputError, match="pulse-audit fetch pulse-gaussian-fit"):
        load_generator(named.name)
