"""Nine steps of the official PULSE at 1024 px, on weights drawn by a stated rule."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pulse_audit.generators.adapt import as_generator
from pulse_audit.generators.gaussianise import GaussianFit
from pulse_audit.generators.stylegan1 import StyleGAN1
from pulse_audit.search.pulse import Pulse
from pulse_audit.search.sphere import Start

DATA = Path(__file__).resolve().parents[1] / "data"


def draw(key: str, *shape: int) -> Tensor:
    random = np.random.RandomState(zlib.crc32(key.encode()))
    return torch.from_numpy(random.standard_normal(shape).astype("float32"))


def weights() -> dict[str, Tensor]:
    rule = json.loads(str(np.load(DATA / "stylegan1_pulse_1024.npz")["meta"]))["rule"]
    keys = {key: shape for key, (scale, shape) in rule.items() if scale != "keep"}
    small = (".bias", ".noise.weight")
    return {k: draw(k, *s) * (0.1 if k.endswith(small) else 1.0) for k, s in keys.items()}


class Stop(Exception):
    pass


@pytest.fixture(autouse=True)
def one_thread():
    """All threads: this network is large."""


@pytest.mark.slow
def test_nine_steps_are_those_of_the_official_search():
    expected = np.load(DATA / "pulse_search_1024.npz")
    network = StyleGAN1(weights())
    std = 0.3 + 0.1 * draw("gaussian.std", 512).abs()
    fit = GaussianFit(0.1 * draw("gaussian.mean", 512), std)
    noise = [draw(f"input.noise{i}", 1, 1, *s) for i, s in enumerate(network.noise_shapes)]
    noise[17].zero_()
    start = Start(draw("input.latent", 1, 18, 512), tuple(noise))
    iterates = []

    def observe(iterate):
        iterates.append(iterate)
        if len(iterates) == 9:
            raise Stop

    pulse = Pulse(as_generator(network, gaussian_fit=fit), scale=32)
    with pytest.raises(Stop):
        lr = torch.sigmoid(draw("input.lr", 1, 3, 32, 32))
        pulse.upsample(lr, start=start, observe=observe)

    losses = [[float(i.terms["L2"]), float(i.terms["GEOCROSS"]), float(i.total)] for i in iterates]
    np.testing.assert_allclose(losses, expected["losses"], rtol=1e-3)
    # Adam's step is nearly the sign of the gradient, so rounding turns a few small entries around.
    assert relative(iterates[-1].styles, expected["w_last"]) < 0.02
    pixels = iterates[-1].images.reshape(-1)[expected["pixel_index"]]
    assert relative(pixels, expected["pixels_last"]) < 0.05


def relative(found: Tensor, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found.numpy() - wanted) / np.linalg.norm(wanted))
