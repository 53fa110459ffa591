"""Largest gap between groups: false-pass and false-fail rates of rules on it, and their power."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pulse_audit.calibration.scenarios import (
    Performance,
    PerformanceMeasure,
    Scenario,
    ScenarioSettings,
    share,
    successes,
)
from pulse_audit.stats.gaps import Decision, max_gap
from pulse_audit.stats.intervals import FloatArray

LIMIT = 0.20
DRAWS, ICC, BASE = 5, 0.5, 0.6
GROUPS = 7
CODE = ("pulse_audit.stats.gaps", "pulse_audit.stats.contrasts", "pulse_audit.stats.intervals")
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


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order: error rates, power, and a percentile rule beside it."""
    for measure, decision, faces, gap, pattern in AUDITS:
        simulate = partial(decided, faces=faces, gap=gap, pattern=pattern, decision=decision)
        high = None if measure == "power" else 0.06
        settings = _settings(faces, gap, pattern)
        yield Scenario("largest gap", SHIPPED, settings, measure, simulate, CODE, None, high)
    for gap, pattern in ((0.0, "equal"), (LIMIT, "four below three")):
        settings = _settings(25, gap, pattern)
        fails = partial(percentile_fails, faces=25, gap=gap, pattern=pattern)
        yield Scenario("largest gap", PERCENTILE, settings, "false fail", fails, ())


def _settings(faces: int, gap: float, pattern: str) -> ScenarioSettings:
    return {
        "faces": faces, "draws": DRAWS, "icc": ICC, "gap": gap, "limit": LIMIT, "groups": pattern,
    }  # fmt: skip


def decided(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    gap: float,
    pattern: str,
    decision: Decision,
) -> Performance:
    """Share of audits in which the rule comes to this decision."""
    # the face and the group of every draw
    owner = np.repeat(np.arange(GROUPS * faces), DRAWS)
    group = np.repeat(np.arange(GROUPS), faces * DRAWS)
    hits = []
    for _ in range(replicates):
        sums = np.concatenate(_audit(random, faces, gap, pattern))
        values = (np.arange(DRAWS) < sums[:, None]).astype(np.float64).ravel()
        hits.append(max_gap(values, owner, group, proportion=True).decide(LIMIT) == decision)
    return share(hits)


def percentile_fails(
    random: np.random.Generator, replicates: int, *, faces: int, gap: float, pattern: str
) -> Performance:
    """Share of audits whose percentile interval of max - min lies above the limit (one-sided)."""
    hits = []
    for _ in range(replicates):
        rates = np.stack(_audit(random, faces, gap, pattern)) / DRAWS
        # faces resampled within groups, (resamples, groups, faces)
        picked = random.integers(0, faces, size=(RESAMPLES, GROUPS, faces))
        means = np.take_along_axis(rates[None], picked, axis=2).mean(axis=2)
        gaps = means.max(axis=1) - means.min(axis=1)
        hits.append(np.quantile(gaps, 0.05) > LIMIT)
    return share(hits)


def _audit(random: np.random.Generator, faces: int, gap: float, pattern: str) -> list[FloatArray]:
    """Successes of every face, group by group."""
    rates = BASE + gap * np.array(PATTERNS[pattern])
    return [successes(random, faces, rate, ICC, DRAWS) for rate in rates]
