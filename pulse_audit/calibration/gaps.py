"""Largest gap, worst group, smallest ratio: false passes and fails of rules on them, and power."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np

from pulse_audit.calibration.scenarios import (
    Performance,
    PerformanceMeasure,
    Scenario,
    ScenarioSettings,
    share,
    successes,
)
from pulse_audit.stats.gaps import Decision, max_gap, min_ratio, worst_group

LIMIT = 0.20
DRAWS, ICC, BASE = 5, 0.5, 0.6
GROUPS = 7
CODE = "pulse_audit.stats.gaps"
SHIPPED, PERCENTILE = "pass by pairs, fail by Tukey's range", "percentile bootstrap of max - min"
#: Bootstrap replicates of the percentile rule.
RESAMPLES = 500
#: Positions of the groups, in gaps below and above the common rate. The hardest cases: for a pass,
#: a single pair at the limit; for a fail, the largest possible number of pairs at the limit.
PATTERNS = {
    "equal": (0.0,) * GROUPS,
    "one pair apart": (-0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0),
    "four below three": (-0.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5),
}
#: Measure, decision counted, faces, gap, pattern.
AUDITS: tuple[tuple[PerformanceMeasure, Decision, int, float, str], ...] = (
    ("false pass", "pass", 50, LIMIT, "one pair apart"),
    ("false pass", "pass", 200, LIMIT, "one pair apart"),
    ("false fail", "fail", 25, LIMIT, "four below three"),
    ("false fail", "fail", 100, LIMIT, "four below three"),
    ("false fail", "fail", 25, 0.0, "equal"),
    ("power", "pass", 200, 0.0, "equal"),
    ("power", "fail", 100, 0.4, "one pair apart"),
)
WORST = "pass by exact bounds of every group, fail by Sidak's level"
#: Within-face correlations of the groups, the first of which is the worst one.
CORRELATIONS = {
    "0.1": (0.1,) * GROUPS,
    "0.9": (0.9,) * GROUPS,
    "first 0.9, others 0.1": (0.9,) + (0.1,) * 6,
}
#: Measure, decision counted, faces, draws, rate of the worst group, of the others, limit, ICCs.
#: The hardest cases: for a pass, one group at the limit and the others far above it; for a fail,
#: all groups at the limit, near 1.
WORST_AUDITS: tuple[
    tuple[PerformanceMeasure, Decision, int, int, float, float, float, str], ...
] = (
    ("false pass", "pass", 10, 10, 0.90, 0.995, 0.90, "first 0.9, others 0.1"),
    ("false pass", "pass", 25, 10, 0.95, 0.995, 0.95, "first 0.9, others 0.1"),
    ("false pass", "pass", 60, 10, 0.98, 0.995, 0.98, "first 0.9, others 0.1"),
    ("false pass", "pass", 60, 5, 0.50, 0.95, 0.50, "first 0.9, others 0.1"),
    ("false pass", "pass", 200, 10, 0.90, 0.995, 0.90, "first 0.9, others 0.1"),
    ("false fail", "fail", 10, 2, 0.98, 0.98, 0.98, "0.1"),
    ("false fail", "fail", 25, 2, 0.98, 0.98, 0.98, "0.1"),
    ("false fail", "fail", 25, 2, 0.95, 0.95, 0.95, "0.9"),
    ("false fail", "fail", 60, 2, 0.98, 0.98, 0.98, "0.9"),
    ("false fail", "fail", 60, 10, 0.98, 0.98, 0.98, "first 0.9, others 0.1"),
    ("false fail", "fail", 200, 5, 0.50, 0.50, 0.50, "0.9"),
    ("power", "pass", 100, 5, 0.80, 0.80, 0.60, "0.9"),
    ("power", "fail", 100, 5, 0.40, 0.80, 0.60, "0.9"),
)
#: Smallest acceptable ratio of two groups' rates. Measure, decision counted, faces, ICCs, rates of
#: the groups.
RATIO = 0.8
RATES = {
    "one pair apart": (0.72, 0.9) + (0.81,) * 5,
    "four below three": (0.72,) * 4 + (0.9,) * 3,
}
RATIO_AUDITS: tuple[tuple[PerformanceMeasure, Decision, int, str, str], ...] = (
    ("false pass", "pass", 50, "0.1", "one pair apart"),
    ("false pass", "pass", 50, "first 0.9, others 0.1", "one pair apart"),
    ("false fail", "fail", 25, "0.1", "four below three"),
    ("false fail", "fail", 25, "0.9", "four below three"),
)


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order: error rates, power, and a percentile rule beside it."""
    for measure, decision, faces, gap, pattern in AUDITS:
        rule = partial(
            decided, statistic="max_gap", faces=faces, draws=DRAWS, rates=_rates(gap, pattern),
            iccs=(ICC,) * GROUPS, limit=LIMIT, decision=decision,
        )  # fmt: skip
        high = None if measure == "power" else 0.06
        yield Scenario("largest gap", SHIPPED, _settings(faces, gap, pattern), measure, rule,
                       (f"{CODE}.max_gap",), None, high)  # fmt: skip
    for gap, pattern in ((0.0, "equal"), (LIMIT, "four below three")):
        fails = partial(percentile_fails, faces=25, rates=_rates(gap, pattern))
        settings = _settings(25, gap, pattern)
        yield Scenario("largest gap", PERCENTILE, settings, "false fail", fails, ())
    for measure, decision, faces, draws, rate, others, limit, icc in WORST_AUDITS:
        rule = partial(
            decided, statistic="worst_group", faces=faces, draws=draws,
            rates=(rate,) + (others,) * (GROUPS - 1), iccs=CORRELATIONS[icc], limit=limit,
            decision=decision,
        )  # fmt: skip
        settings = {
            "faces": faces, "draws": draws, "icc": icc, "worst": rate, "others": others,
            "limit": limit,
        }  # fmt: skip
        high = None if measure == "power" else 0.055
        yield Scenario("worst group", WORST, settings, measure, rule,
                       (f"{CODE}.worst_group",), None, high)  # fmt: skip
    for measure, decision, faces, icc, pattern in RATIO_AUDITS:
        rule = partial(
            decided, statistic="min_ratio", faces=faces, draws=DRAWS, rates=RATES[pattern],
            iccs=CORRELATIONS[icc], limit=RATIO, decision=decision,
        )  # fmt: skip
        settings = {
            "faces": faces, "draws": DRAWS, "icc": icc, "limit": RATIO, "groups": pattern,
        }  # fmt: skip
        yield Scenario("smallest ratio", SHIPPED, settings, measure, rule,
                       (f"{CODE}.min_ratio",), None, 0.06)  # fmt: skip


def _settings(faces: int, gap: float, pattern: str) -> ScenarioSettings:
    return {
        "faces": faces, "draws": DRAWS, "icc": ICC, "gap": gap, "limit": LIMIT, "groups": pattern,
    }  # fmt: skip


def _rates(gap: float, pattern: str) -> tuple[float, ...]:
    return tuple(BASE + gap * position for position in PATTERNS[pattern])


def decided(
    random: np.random.Generator,
    replicates: int,
    *,
    statistic: Literal["max_gap", "worst_group", "min_ratio"],
    faces: int,
    draws: int,
    rates: Sequence[float],
    iccs: Sequence[float],
    limit: float,
    decision: Decision,
) -> Performance:
    """Share of audits in which a rule on groups of these rates comes to this decision."""
    # the face and the group of every draw
    owner = np.repeat(np.arange(len(rates) * faces), draws)
    group = np.repeat(np.arange(len(rates)), faces * draws)
    compare = {"max_gap": max_gap, "worst_group": worst_group, "min_ratio": min_ratio}[statistic]
    hits = []
    for _ in range(replicates):
        # successes of every face, as outcomes of its draws
        sums = [successes(random, faces, *pair, draws) for pair in zip(rates, iccs, strict=True)]
        values = (np.arange(draws) < np.concatenate(sums)[:, None]).astype(np.float64).ravel()
        hits.append(compare(values, owner, group, proportion=True).decide(limit) == decision)
    return share(hits)


def percentile_fails(
    random: np.random.Generator, replicates: int, *, faces: int, rates: Sequence[float]
) -> Performance:
    """Share of audits whose percentile interval of max - min lies above the limit (one-sided)."""
    hits = []
    for _ in range(replicates):
        # mean of every face, (groups, faces)
        means = np.stack([successes(random, faces, rate, ICC, DRAWS) for rate in rates]) / DRAWS
        # faces resampled within groups, (resamples, groups, faces)
        picked = random.integers(0, faces, size=(RESAMPLES, GROUPS, faces))
        resampled = np.take_along_axis(means[None], picked, axis=2).mean(axis=2)
        gaps = resampled.max(axis=1) - resampled.min(axis=1)
        hits.append(np.quantile(gaps, 0.05) > LIMIT)
    return share(hits)
