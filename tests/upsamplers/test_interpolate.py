"""The interpolating arms against Pillow, and the contract of an upsampler."""

import numpy as np
import pytest
import torch
from PIL import Image

from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.degrade.resample import resize
from pulse_audit.types import Request, Status
from pulse_audit.upsamplers.interpolate import Interpolator

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def requests(n: int = 3, size: int = 8) -> list[Request]:
    random = torch.Generator().manual_seed(0)
    return [
        Request(torch.rand(3, size, size, generator=random), f"val/{i}.jpg", {}, i)
        for i in range(n)
    ]


def by_pillow(lr: torch.Tensor, kernel: str, size: int) -> np.ndarray:
    planes = [Image.fromarray(p.numpy()).resize((size, size), PILLOW[kernel]) for p in lr]
    return np.stack([np.asarray(plane) for plane in planes]).clip(0, 1)


@pytest.mark.parametrize("kernel", PILLOW)
def test_the_interior_is_pillow_s(kernel: str) -> None:
    given = requests()
    answers = Interpolator(kernel, resize)(given, DegradationModel("clean", 4))
    for request, answer in zip(given, answers, strict=True):
        expected = by_pillow(request.lr, kernel, 32)
        # Pillow cuts its filter off at the edge, this project mirrors the picture there.
        inner = slice(12, -12)
        np.testing.assert_allclose(
            answer.image[:, inner, inner], expected[:, inner, inner], atol=1e-5
        )


@pytest.mark.parametrize("kernel", PILLOW)
def test_answers_keep_the_contract(kernel: str) -> None:
    degradation = DegradationModel("clean", 4, "area")
    given = requests()
    for request, answer in zip(
        given, Interpolator(kernel, resize)(given, degradation), strict=True
    ):
        assert answer.status is Status.OK and answer.steps == 0 and answer.feasible is None
        assert answer.image.shape == (3, 32, 32)
        assert answer.image.min() >= 0 and answer.image.max() <= 1
        blocks = answer.image.view(3, 8, 4, 8, 4).mean(dim=(2, 4))
        error = (blocks - request.lr).double().square().mean().item()
        assert answer.downscale_error == pytest.approx(error, rel=1e-4, abs=1e-12)


def test_nearest_undoes_block_means_exactly() -> None:
    answers = Interpolator("nearest", resize)(requests(), DegradationModel("clean", 4, "area"))
    assert max(answer.downscale_error for answer in answers) < 1e-14
