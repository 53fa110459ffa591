"""The search with a generator in bfloat16: latents and losses stay in float32."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pulse_audit.generators.searchable import StyleGenerator
from pulse_audit.search.engine import Iterate, SearchResult
from pulse_audit.search.pulse import Pulse

SEARCHES = 24


@pytest.fixture
def search(
    style_generator: StyleGenerator, inputs: Callable[[int, int], Tensor]
) -> Callable[..., list[SearchResult]]:
    """Search the same inputs from the same starts in a precision."""

    def run(dtype: torch.dtype, **options: object) -> list[SearchResult]:
        pulse = Pulse(
            style_generator, scale=8, kernel="area", search="fast", dtype=dtype,
            batch_size=SEARCHES,
        )  # fmt: skip
        lr = inputs(SEARCHES, 2)
        return pulse.upsample(lr, **options)

    return run


def test_feasible_rates_are_close(search: Callable[..., list[SearchResult]]) -> None:
    results = [search(dtype) for dtype in (torch.float32, torch.bfloat16)]
    rates = [sum(bool(one.feasible) for one in found) / SEARCHES for found in results]
    assert not torch.equal(results[0][0].image, results[1][0].image)
    assert 0.1 < rates[0] < 0.95
    assert abs(rates[0] - rates[1]) <= 0.15


def test_latents_losses_and_verdicts_stay_in_float32(
    search: Callable[..., list[SearchResult]],
    inputs: Callable[[int, int], Tensor],
    pool: Callable,
) -> None:
    seen: list[Iterate] = []
    results = search(torch.bfloat16, observe=seen.append)
    types = {t.dtype for it in seen for t in (it.latents, it.styles, it.images, it.total)}
    assert types == {torch.float32}
    images = torch.stack([result.image for result in results])
    error = (pool(8)(images) - inputs(SEARCHES, 2)).square().mean(dim=(1, 2, 3))
    reported = torch.tensor([result.downscale_error for result in results])
    torch.testing.assert_close(error, reported, rtol=1e-4, atol=1e-8)
