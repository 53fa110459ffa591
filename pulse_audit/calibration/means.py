"""Coverage of intervals of means over faces, and error rates of rules on the means of groups.

A rule is wrong most often where the truth is exactly at its limit: a pass where one group is there,
a fail where as many groups as possible are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import product
from typing import Literal, TypeAlias

import numpy as np

from pulse_audit.calibration.scenarios import (
    Performance,
    PerformanceMeasure,
    Scenario,
    ScenarioSettings,
    share,
)
from pulse_audit.fairness.sources import independent_mean
from pulse_audit.stats import gaps
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.gaps import Decision, GroupStatistic
from pulse_audit.stats.intervals import FloatArray

Shape: TypeAlias = Literal["normal", "exponential", "lognormal"]

DRAWS = 2
#: Variance between faces and between the draws of a face, of values of mean 0.
BETWEEN, WITHIN = 0.5, 0.5
#: Faces a group of the rules, and by statistic the limit, the means of the seven groups where one
#: is at it, and where as many as possible are.
FACES = 25
RULES: Mapping[GroupStatistic, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "max_gap": (0.6, (-0.3, 0.3, 0, 0, 0, 0, 0), (-0.3, -0.3, -0.3, -0.3, 0.3, 0.3, 0.3)),
    "worst_group": (5.0, (5, 6, 6, 6, 6, 6, 6), (5,) * 7),
    "max_abs": (0.6, (0.6, 0, 0, 0, 0, 0, 0), (0.6, 0.6, 0.6, 0.6, -0.6, -0.6, -0.6)),
    "min_ratio": (0.8, (4, 5, 4.5, 4.5, 4.5, 4.5, 4.5), (4, 4, 4, 4, 5, 5, 5)),
}
#: Lowest acceptable coverage by the faces' distribution; skewed ones need many faces.
LOWEST: dict[Shape, float] = {"normal": 0.92, "exponential": 0.90, "lognormal": 0.84}


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    shapes: tuple[Shape, ...] = ("normal", "exponential", "lognormal")
    for shape, faces in product(shapes, (4, 10, 30, 100)):
        settings: ScenarioSettings = {"faces": faces, "draws": DRAWS, "distribution": shape}
        method = "BCa by face" if faces > 5 else "t by face"
        simulate = partial(coverage, shape=shape, faces=faces)
        code = ("pulse_audit.stats.bootstrap.cluster_bca",)
        yield Scenario("means", method, settings, "coverage", simulate, code, LOWEST[shape], None)
    settings = {"samples": 500, "distribution": "exponential"}
    code = ("pulse_audit.fairness.sources.independent_mean",)
    yield Scenario("means", "normal", settings, "coverage", independent, code, 0.93, 0.97)
    # rules at their limits
    for name, (limit, one, many) in RULES.items():
        decisions: tuple[tuple[PerformanceMeasure, Decision, tuple[float, ...]], ...] = (
            ("false pass", "pass", one), ("false fail", "fail", many),
        )  # fmt: skip
        for measure, decision, means in decisions:
            settings = {
                "of": name.replace("_", " "),
                "faces": FACES,
                "draws": DRAWS,
                "limit": limit,
            }
            rule = partial(decided, name=name, limit=limit, means=means, decision=decision)
            code = (f"pulse_audit.stats.gaps.{name}",)
            method = "Fieller by face" if name == "min_ratio" else "bootstrap-t by face"
            yield Scenario("rules on means", method, settings, measure, rule, code, None, 0.06,
                           fraction=0.25)  # fmt: skip


def decided(
    random: np.random.Generator,
    replicates: int,
    *,
    name: GroupStatistic,
    limit: float,
    means: tuple[float, ...],
    decision: Decision,
) -> Performance:
    """Share of audits in which the rule on groups of these means comes to this decision."""
    k = len(means)
    owner, groups = np.repeat(np.arange(k * FACES), DRAWS), np.repeat(np.arange(k), FACES * DRAWS)
    hits = []
    for _ in range(replicates):
        # (k, faces, draws)
        between = np.sqrt(BETWEEN) * random.standard_normal((k, FACES, 1))
        values = between + np.sqrt(WITHIN) * random.standard_normal((k, FACES, DRAWS))
        values += np.array(means)[:, None, None]
        draws = values.ravel(), owner, groups
        if name == "min_ratio":
            gap = gaps.min_ratio(*draws, proportion=False)
        elif name == "max_abs":
            gap = gaps.max_abs(*draws, seed=int(random.integers(2**62)))
        else:
            statistic = gaps.max_gap if name == "max_gap" else gaps.worst_group
            gap = statistic(*draws, proportion=False, seed=int(random.integers(2**62)))
        hits.append(gap.decide(limit) == decision)
    return share(hits)


def coverage(
    random: np.random.Generator, replicates: int, *, shape: Shape, faces: int
) -> Performance:
    """Share of 95 % intervals that contain the mean."""
    owner = np.repeat(np.arange(faces), DRAWS)
    hits, widths = [], []
    for _ in range(replicates):
        # (faces, draws), mean 0
        between = np.sqrt(BETWEEN) * standardised(random, shape, faces)[:, None]
        values = between + np.sqrt(WITHIN) * random.standard_normal((faces, DRAWS))
        estimate = cluster_bca(values.ravel(), owner, seed=int(random.integers(2**62)))
        hits.append(estimate.low <= 0 <= estimate.high)
        widths.append(estimate.high - estimate.low)
    return share(hits, widths)


def independent(random: np.random.Generator, replicates: int) -> Performance:
    """Share of 95 % intervals of 500 independent values that contain their mean."""
    estimates = [
        independent_mean(standardised(random, "exponential", 500)) for _ in range(replicates)
    ]
    hits = [estimate.low <= 0 <= estimate.high for estimate in estimates]
    return share(hits, [estimate.high - estimate.low for estimate in estimates])


def standardised(random: np.random.Generator, shape: Shape, n: int) -> FloatArray:
    """Values of mean 0 and variance 1, (n,)."""
    if shape == "normal":
        return random.standard_normal(n)
    if shape == "exponential":
        return random.exponential(size=n) - 1
    # exp(Z) has mean exp(1/2) and variance (e - 1) e
    values = np.exp(random.standard_normal(n)) - np.exp(0.5)
    return np.asarray(values / np.sqrt((np.e - 1) * np.e), dtype=np.float64)
