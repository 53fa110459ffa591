"""Requests of random inputs for arms of others."""

from collections.abc import Callable

import pytest
import torch

from pulse_audit.types import Request


@pytest.fixture
def requests() -> Callable[..., list[Request]]:
    """Make requests of random inputs, the draws of a face after one another."""

    def make(faces: int = 3, draws: int = 1, size: int = 8) -> list[Request]:
        random = torch.Generator().manual_seed(0)
        return [
            Request(lr, f"val/{i}.jpg", {}, 10 * i + k, draw=k)
            for i, lr in enumerate(torch.rand(faces, 3, size, size, generator=random))
            for k in range(draws)
        ]

    return make
