"""Priors of a search, and the agreement of two attribute models: coverage, and false claims."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pulse_audit.calibration.scenarios import Performance, Scenario, share, worst
from pulse_audit.fairness.prior import OWN, PULSE, PriorSample, largest_shift, prior_table
from pulse_audit.stats.agreement import kappa_interval
from pulse_audit.stats.intervals import FloatArray

#: Shares of seven groups: those of a generator, and of PULSE's prior on it, moved by so much.
OWN_SHARES = np.array([0.57, 0.04, 0.12, 0.14, 0.04, 0.01, 0.08])
MOVED_SHARES = np.array([0.66, 0.005, 0.18, 0.05, 0.005, 0.005, 0.095])
#: Variance of a pixel; half squared differences of pairs vary as a chi-squared of so few degrees.
VARIANCE, DEGREES = 0.04, 8
GROUPS = 7


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    table = ("pulse_audit.fairness.prior.prior_table",)
    for of, method, low in (
        ("share", "Wilson", 0.925),
        ("variance", "Student's t over pairs", 0.93),
        ("moved", "bootstrap test inversion", 0.92),
    ):
        for n in (1000, 10_000):
            simulate = partial(coverage, n=n, of=of)
            settings = {"of": of, "samples": n}
            yield Scenario(
                "priors", method, settings, "coverage", simulate, table, low, fraction=0.3
            )
    shift = ("pulse_audit.fairness.prior.largest_shift",)
    for n in (1000, 10_000):
        method, settings = "score interval, Bonferroni", {"of": "largest shift", "samples": n}
        simulate = partial(false_claims, n=n)
        yield Scenario("priors", method, settings, "false claim", simulate, shift, None, 0.06)
    kappa = ("pulse_audit.stats.agreement.kappa_interval",)
    for faces, draws in ((20, 1), (20, 5), (100, 2)):
        simulate = partial(kappa_coverage, faces=faces, draws=draws)
        settings = {"of": "kappa", "faces": faces, "draws": draws}
        yield Scenario(
            "agreement", "jackknife over faces", settings, "coverage", simulate, kappa, 0.91
        )


def drawn(random: np.random.Generator, shares: FloatArray, n: int) -> PriorSample:
    """Draw samples of a prior with these shares."""
    pairs = VARIANCE * random.chisquare(DEGREES, n // 2) / DEGREES
    return PriorSample(random.multinomial(n, shares), pairs)


def coverage(random: np.random.Generator, replicates: int, *, n: int, of: str) -> Performance:
    """Share of intervals that contain the truth; of shares, in the group where it is lowest."""
    covered, widths = [], []
    for seed in range(replicates):
        samples = {OWN: drawn(random, OWN_SHARES, n), PULSE: drawn(random, MOVED_SHARES, n)}
        row = prior_table(samples, seed)[1]
        if of == "share":
            estimates, truths = list(row.shares), MOVED_SHARES
        elif of == "variance":
            estimates, truths = [row.variance], np.array([VARIANCE])
        else:
            assert row.from_own is not None
            estimates = [row.from_own.estimate]
            truths = np.array([np.abs(MOVED_SHARES - OWN_SHARES).sum() / 2])
        pairs = list(zip(estimates, truths, strict=True))
        covered.append([e.low <= t <= e.high for e, t in pairs])
        widths.append([e.high - e.low for e, _ in pairs])
    return worst(covered, widths)


def false_claims(random: np.random.Generator, replicates: int, *, n: int) -> Performance:
    """Share of equal priors of which some group is said to be shown more or less often."""
    words = [f"group {number}" for number in range(GROUPS)]
    false = []
    for _ in range(replicates):
        one, two = (random.multinomial(n, OWN_SHARES) for _ in range(2))
        difference = largest_shift(words, one, two).difference
        false.append(not difference.low <= 0 <= difference.high)
    return share(false)


def kappa_coverage(
    random: np.random.Generator, replicates: int, *, faces: int, draws: int
) -> Performance:
    """Two models that answer alike on 70 % of images beyond chance, half of it face by face."""
    covered, widths = [], []
    for _ in range(replicates):
        truth = np.repeat(random.integers(0, GROUPS, faces), draws)
        # Whether the second model answers at random: for a whole face, or for each image.
        by_face = np.repeat(random.random(faces) < 0.5, draws)
        of_face = np.repeat(random.random(faces), draws)
        guesses = np.where(by_face, of_face, random.random(faces * draws)) < 0.3
        other = np.where(guesses, random.integers(0, GROUPS, faces * draws), truth)
        found = kappa_interval(truth, other, np.repeat(np.arange(faces), draws), GROUPS)
        covered.append([found.low <= 0.7 <= found.high])
        widths.append([found.high - found.low])
    return worst(covered, widths)
