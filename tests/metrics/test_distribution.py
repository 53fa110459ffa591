"""FID's Inception, from a file and by name, and the features of attribute models."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import inception as torchvision_inception
from torchvision.models import inception_v3

from pulse_audit.files import file_sha256
from pulse_audit.metrics import distribution
from pulse_audit.metrics.distribution import FeatureNetwork, inception
from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.models import published
from pulse_audit.types import InputError


@pytest.fixture(scope="module")
def network() -> Any:
    """torchvision's architecture with seeded random weights that keep the signal alive."""
    torch.manual_seed(0)
    made = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.fill_(1.3)
    return made.eval()


@pytest.fixture(scope="module")
def path(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def ours(path: Path) -> FeatureNetwork:
    return inception(path)


def images(n: int, size: int) -> Tensor:
    coarse = torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(n))
    return functional.interpolate(coarse, (size, size), mode="bilinear")


class Poolings:
    """torch.nn.functional, but for the averages, which are taken from a list."""

    def __init__(self, pools: list[Callable[[Tensor], Tensor]]) -> None:
        self.pools = pools

    def avg_pool2d(self, x: Tensor, **_: int) -> Tensor:
        return self.pools.pop(0)(x)

    def __getattr__(self, name: str) -> Any:
        return getattr(functional, name)


def average_2015(x: Tensor) -> Tensor:
    """Mean over those pixels of each 3 x 3 window that exist."""
    there = functional.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1)
    return functional.avg_pool2d(x, 3, 1, 1) / there


def maximum(x: Tensor) -> Tensor:
    return functional.pad(x, (1, 1, 1, 1), value=-1e9).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))


def pool3(network: nn.Module, images: Tensor) -> np.ndarray:
    """What torchvision's network has after its last average, for images in [0, 1]."""
    tapped: list[Tensor] = []
    hook = network.avgpool.register_forward_hook(lambda *call: tapped.append(call[2].flatten(1)))
    with torch.no_grad():
        network(2 * images - 1)
    hook.remove()
    return tapped[0].numpy()


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / wanted.std())


def test_features_are_those_of_the_network_of_2015(ours, network, monkeypatch) -> None:
    """torchvision's network, its averages replaced in the order of the blocks."""
    pools = [average_2015] * 8 + [maximum]
    monkeypatch.setattr(torchvision_inception, "F", Poolings(pools))
    wanted = pool3(network, images(1, 299))
    monkeypatch.undo()
    assert pools == []
    found = ours.of(images(1, 299))
    assert relative(found, wanted) < 1e-3
    assert relative(found, pool3(network, images(1, 299))) > 0.1


def test_features_do_not_depend_on_batch_mates(ours) -> None:
    faces = images(2, 64)
    together, alone = ours.of(faces), ours.of(faces, batch=1)
    assert together.dtype == np.float32
    assert relative(together, alone) < 1e-3


def test_small_images_are_enlarged_as_pytorch_fid_does() -> None:
    faces = images(2, 64)
    wanted = functional.interpolate(faces, size=(299, 299), mode="bilinear", align_corners=False)
    torch.testing.assert_close(distribution.prepared(faces), 2 * wanted - 1)


def test_large_images_shrink_without_aliases() -> None:
    """Stripes finer than a pixel of the result are its mean grey."""
    stripes = torch.zeros(1, 3, 1196, 1196)
    stripes[..., ::2] = 1
    assert distribution.prepared(stripes)[..., 4:-4].abs().max() < 0.02


@pytest.mark.parametrize("content", [b"no tensors", [1], {"a": torch.zeros(2)}], ids=str)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(InputError) as caught:
        inception(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fetched_weights_are_used(path: Path, ours, tmp_path: Path, monkeypatch) -> None:
    """Missing weights name the command; a file in the cache, recorded as `fetch` does, is used."""
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    card = published.get(BY_NAME["fid"].weights)
    with pytest.raises(InputError, match="pulse-audit fetch fid-inception$"):
        published.fetched(card)
    published.path_of(card).parent.mkdir(parents=True)
    shutil.copy(path, published.path_of(card))
    published.record(card, file_sha256(path), card.url)
    loaded = inception(published.fetched(card)[0])
    assert (loaded.name, loaded.dimension) == ("inception-2015-12-05 pool3", 2048)
    np.testing.assert_array_equal(loaded.of(images(1, 64)), ours.of(images(1, 64)))
