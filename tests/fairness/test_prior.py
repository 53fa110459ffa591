"""The prior table, against closed forms and simulations of known truth."""

import numpy as np
import pytest

from pulse_audit.fairness.prior import (
    OWN,
    PULSE,
    PriorSample,
    largest_shift,
    movement,
    pixel_variance,
    prior_table,
)

SHARES = np.array([0.1, 0.2, 0.7])
MOVED = np.array([0.3, 0.2, 0.5])


def drawn(rng: np.random.Generator, shares: np.ndarray, n: int = 2_000) -> PriorSample:
    return PriorSample(rng.multinomial(n, shares), rng.chisquare(8, n // 2) / 8)


def test_a_table_has_a_row_for_every_prior_that_was_sampled() -> None:
    rng = np.random.default_rng(0)
    samples = {PULSE: drawn(rng, MOVED), OWN: drawn(rng, SHARES)}
    own, pulse = prior_table(samples, seed=0)
    assert (own.prior, pulse.prior) == (OWN, PULSE)
    assert own.from_own is own.from_step is None
    # The prior one step away from PULSE's was not sampled.
    assert pulse.from_step is None
    assert pulse.from_own is not None and pulse.from_own.origin == OWN
    assert sum(share.value for share in own.shares) == pytest.approx(1)
    assert own.shares[2].low < 0.7 < own.shares[2].high


def test_the_variance_is_that_of_a_pixel() -> None:
    """Half the squared difference of two independent values has the variance as its mean."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        first, second = rng.normal(0.5, 0.2, (2, 150))
        found = pixel_variance((first - second) ** 2 / 2)
        covered += found.low <= 0.04 <= found.high
    # 95 % of 400 audits, less three standard errors; squares are skewed.
    assert covered >= 366


def test_movement_covers_the_total_variation() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        found = movement("z", rng.multinomial(500, SHARES), rng.multinomial(500, MOVED), seed)
        covered += found.estimate.low <= 0.2 <= found.estimate.high
    assert covered >= 180


def test_equal_priors_are_seldom_said_to_have_moved() -> None:
    rng = np.random.default_rng(3)
    above = floors = values = 0.0
    for seed in range(200):
        found = movement("z", rng.multinomial(500, SHARES), rng.multinomial(500, SHARES), seed)
        above += found.estimate.low > 0
        floors += found.floor / 200
        values += found.estimate.value / 200
    assert above <= 16
    # The expected distance of two samples of 500 of one prior: half the sum of E |difference|.
    expected = np.sqrt(2 * SHARES * (1 - SHARES) / 500 * 2 / np.pi).sum() / 2
    assert floors == pytest.approx(expected, rel=0.05)
    assert values < floors


def test_the_largest_shift_holds_for_the_largest_of_all_groups() -> None:
    rng = np.random.default_rng(4)
    false = 0
    shares = np.full(9, 1 / 9)
    for _ in range(400):
        found = largest_shift(
            list("abcdefghi"), rng.multinomial(900, shares), rng.multinomial(900, shares)
        )
        false += not found.difference.low <= 0 <= found.difference.high
    assert false <= 33
    found = largest_shift(["a", "b", "c"], *(rng.multinomial(5_000, s) for s in (SHARES, MOVED)))
    assert found.group in ("a", "c")
    assert found.difference.low < found.share - found.origin < found.difference.high
