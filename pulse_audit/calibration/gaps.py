"""Largest gap between groups: how often a rule passes or fails who does not deserve it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pulse_audit.calibration.cells import Cell, Measured, Measures, Setting, share
from pulse_audit.calibration.draws import successes
from pulse_audit.stats.gaps import max_gap
from pulse_audit.stats.intervals import FloatArray

LIMIT = 0.20
DRAWS, ICC, BASE = 5, 0.5, 0.6
GROUPS = 7
CODE = ("pulse_audit.stats.gaps", "pulse_audit.stats.contrasts", "pulse_audit.stats.intervals")
SHIPPED, PERCENTILE = "pass by pairs, fail by Tukey's range", "percentile bootstrap of max - min"
#: Bootstrap replicates of the percentile rule.
RESAMPLES = 500
#: Where groups lie, in gaps below and above the common rate. What is hardest to get right: to
#: pass, a single pair at the limit; to fail, as many pairs at the limit as there can be.
PATTERNS = {
    "equal": (0.0,) * GROUPS,
    "one pair apart": (-0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0),
    "four below three": (-0.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5),
}


def cells() -> Iterator[Cell]:
    """Cells of the study, in order: what must not happen, then what should, then a bad rule."""
    for faces in (50, 200):
        yield _cell(_settings(faces, LIMIT, "one pair apart"), "false pass", "pass", 0.06)
    for faces in (25, 100):
        yield _cell(_settings(faces, LIMIT, "four below three"), "false fail", "fail", 0.06)
    yield _cell(_settings(25, 0.0, "equal"), "false fail", "fail", 0.06)
    yield _cell(_settings(200, 0.0, "equal"), "power", "pass", None)
    yield _cell(_settings(100, 0.4, "one pair apart"), "power", "fail", None)
    for gap, pattern in ((0.0, "equal"), (LIMIT, "four below three")):
        settings = _settings(25, gap, pattern)
        simulate = partial(percentile_fails, faces=25, gap=gap, pattern=pattern)
        yield Cell("largest gap", PERCENTILE, settings, "false fail", simulate, ())


def _settings(faces: int, gap: float, pattern: str) -> dict[str, Setting]:
    return {
        "faces": faces, "draws": DRAWS, "icc": ICC, "gap": gap, "limit": LIMIT, "groups": pattern,
    }  # fmt: skip


def _cell(
    settings: dict[str, Setting], measures: Measures, decision: str, high: float | None
) -> Cell:
    faces, gap, pattern = int(settings["faces"]), float(settings["gap"]), str(settings["groups"])
    simulate = partial(decided, faces=faces, gap=gap, pattern=pattern, decision=decision)
    return Cell("largest gap", SHIPPED, settings, measures, simulate, CODE, None, high)


def decided(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    gap: float,
    pattern: str,
    decision: str,
) -> Measured:
    """Share of audits in which the rule comes to this decision."""
    owner = np.repeat(np.arange(GROUPS * faces), DRAWS)
    group = np.repeat(np.arange(GROUPS), faces * DRAWS)
    hits = []
    for _ in range(replicates):
        kept = np.concatenate(_audited(random, faces, gap, pattern))
        values = (np.arange(DRAWS) < kept[:, None]).astype(np.float64).ravel()
        hits.append(max_gap(values, owner, group, proportion=True).decide(LIMIT) == decision)
    return share(hits)


def percentile_fails(
    random: np.random.Generator, replicates: int, *, faces: int, gap: float, pattern: str
) -> Measured:
    """Share of audits whose percentile interval of max - min lies above the limit (one-sided)."""
    hits = []
    for _ in range(replicates):
        kept = np.stack(_audited(random, faces, gap, pattern)) / DRAWS
        picked = random.integers(0, faces, size=(RESAMPLES, GROUPS, faces))
        means = np.take_along_axis(kept[None], picked, axis=2).mean(axis=2)
        gaps = means.max(axis=1) - means.min(axis=1)
        hits.append(np.quantile(gaps, 0.05) > LIMIT)
    return share(hits)


def _audited(random: np.random.Generator, faces: int, gap: float, pattern: str) -> list[FloatArray]:
    """Successes of every face, group by group."""
    rates = BASE + gap * np.array(PATTERNS[pattern])
    return [successes(random, faces, rate, ICC, DRAWS) for rate in rates]
