"""Synthetic evaluation faces: balanced, reproducible from their seeds, readable as a data set."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit.faces.attribute_net import AttributeNet, ShippedAttributes
from pulse_audit.generators.adapt import as_generator
from pulse_audit.generators.gaussianise import GaussianFit
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.training import synthetic
from pulse_audit.training.config import GanConfig
from pulse_audit.types import AttributeCard, Generator, InputError

WORDS = {"race": ("A", "B"), "gender": ("F", "M"), "age": ("0-2", "20-29")}


@pytest.fixture
def network(config: GanConfig) -> Generator:
    fresh = StyleGAN2.fresh(config.generator_config(), 0).eval()
    fit = GaussianFit(torch.zeros(fresh.w_dim), torch.ones(fresh.w_dim))
    with pytest.warns(UserWarning, match="latent values"):
        return as_generator(fresh, gaussian_fit=fit)


def attributes(bias: float = 0.0) -> ShippedAttributes:
    """A net that takes the two races for about equally frequent, or never sees the second."""
    torch.manual_seed(0)
    net = AttributeNet(WORDS, (4, 4), (1, 1))
    with torch.no_grad():
        net.heads["race"].bias.copy_(torch.tensor([bias, 0.0]))
    card = AttributeCard("tiny", WORDS, 64, "as-is")
    return ShippedAttributes(net, card, dict.fromkeys(WORDS, 1.0), {})


def centred(network: Generator) -> ShippedAttributes:
    """Shift the first race's bias so that both occur."""
    model = attributes()
    pixels = synthetic.draw(network, "g", range(64))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    p = model(images).probabilities["race"]
    return attributes(float((p[:, 1].log() - p[:, 0].log()).median()))


def test_each_half_is_balanced_in_the_order_of_the_seeds(network: Generator) -> None:
    faces = synthetic.balanced(network, "g", centred(network), 3)
    races = [face.labels["race"] for face in faces]
    assert sorted(races) == ["A"] * 3 + ["B"] * 3
    seeds = [face.seed for face in faces]
    assert seeds == sorted(seeds)


def test_a_face_follows_from_its_name_and_seed(network: Generator) -> None:
    together = synthetic.draw(network, "g", [4, 5, 6])
    alone = synthetic.draw(network, "g", [5])[0]
    np.testing.assert_allclose(alone.astype(int), together[1].astype(int), atol=1)
    assert (synthetic.draw(network, "other", [5])[0] != together[1]).any()


def test_a_race_that_is_never_seen_is_named(
    network: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "MOST", 100)
    with pytest.raises(InputError, match="g: 100 samples show too few of B"):
        synthetic.balanced(network, "g", attributes(100.0), 2)


def test_the_folder_holds_photos_labels_and_origin(network: Generator, tmp_path: Path) -> None:
    faces = synthetic.balanced(network, "g", centred(network), 2)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "stale.png").write_bytes(b"")
    synthetic.write(faces, tmp_path / "set")
    with (tmp_path / "set" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["race"] for row in rows] == [face.labels["race"] for face in faces]
    assert {row["generator"] for row in rows} == {"g"}
    for row, face in zip(rows, faces, strict=True):
        with Image.open(tmp_path / "set" / row["file"]) as image:
            np.testing.assert_array_equal(np.asarray(image), face.pixels)
    assert len(list((tmp_path / "set").rglob("*.png"))) == 4
