"""The search in bfloat16: latents and losses stay in float32; when it is chosen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from pulse_audit.generators.searchable import StyleGenerator
from pulse_audit.search import precision
from pulse_audit.search.engine import Iterate, SearchResult
from pulse_audit.search.pulse import Pulse

SEARCHES = 24
CPU = torch.device("cpu")


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


# --- The choice by measurement ---


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[torch.dtype]:
    """A clock on which bfloat16 takes half the time, and the precisions that it timed."""
    timed: list[torch.dtype] = []

    def step(generator: StyleGenerator, images: int, device: torch.device) -> float:
        timed.append(generator.network.dtype)
        return 1.0 if timed[-1] == torch.bfloat16 else 2.0

    monkeypatch.setattr(precision, "step_seconds", step)
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    return timed


def with_weights(generator: StyleGenerator, sha256: str | None) -> StyleGenerator:
    return StyleGenerator(generator.network, generator.fit, replace(generator.card, sha256=sha256))


def test_a_generator_is_measured_once_and_left_in_float32(
    style_generator: StyleGenerator, seconds: list[torch.dtype], tmp_path: Path
) -> None:
    generator = with_weights(style_generator, "a" * 64)
    assert precision.bf16_time(generator, CPU) == 0.5
    assert len(seconds) == 2 * (precision.ROUNDS + 1)
    assert generator.network.dtype == torch.float32
    # Again: read, not measured; other weights, and a damaged file, are measured.
    assert precision.bf16_time(generator, CPU) == 0.5
    assert len(seconds) == 2 * (precision.ROUNDS + 1)
    (kept,) = (tmp_path / "precision").iterdir()
    kept.write_text('{"bf16 over fp32": "quick"}')
    assert precision.bf16_time(generator, CPU) == 0.5
    assert precision.bf16_time(with_weights(style_generator, "b" * 64), CPU) == 0.5
    assert len(seconds) == 6 * (precision.ROUNDS + 1)


def test_what_bfloat16_would_change_for_good_is_not_measured(
    style_generator: StyleGenerator, seconds: list[torch.dtype]
) -> None:
    assert precision.bf16_time(with_weights(style_generator, None), CPU) is None
    decoder = SimpleNamespace(card=replace(style_generator.card, sha256="d" * 64))
    assert precision.bf16_time(decoder, CPU) is None
    assert seconds == []


def test_the_real_clock_gives_a_positive_share(
    style_generator: StyleGenerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PULSE_AUDIT_HOME", str(tmp_path))
    share = precision.bf16_time(with_weights(style_generator, "c" * 64), CPU)
    assert share is not None
    assert share > 0


@pytest.mark.parametrize(
    ("times", "weights", "chosen"),
    [
        ({"a": 0.5}, ["shown"], "bf16"),
        ({"a": 0.5}, ["another"], "fp32"),
        ({"a": 0.9}, ["shown"], "fp32"),
        ({"a": None}, ["shown"], "fp32"),
        ({"a": 0.5, "b": 0.9}, ["shown", "shown"], "fp32"),
        ({"a": 0.5, "b": 0.5}, ["shown", None], "fp32"),
        ({}, [], "fp32"),
    ],
)
def test_bfloat16_is_chosen_only_where_it_is_quick_and_shown_to_be_harmless(
    times: dict[str, float | None],
    weights: list[str | None],
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "UNMOVED", frozenset({"shown"}))
    assert precision.choose_precision(times, weights) == chosen
