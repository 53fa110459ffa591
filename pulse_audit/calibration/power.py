"""Power where an audit says that a difference is detectable, or that so many faces are enough.

One group is apart from the others, which are equal; counted is the claim that a given pair of
groups differs, by the bound that a largest gap is reported with.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    ScenarioSettings,
    share,
    successes,
)
from pulse_audit.stats import power
from pulse_audit.stats.contrasts import mean_pairs, proportion_pairs
from pulse_audit.stats.gaps import REPLICATES
from pulse_audit.stats.intervals import Groups

CODE = "pulse_audit.stats.power"
METHOD = "score test of a pair at Tukey's range"
MEANS = "bootstrap-t of a pair, max-T"
#: Level of the lower bound of a gap: half of the error of a 95 % interval.
ALPHA = 0.025
#: Rate of the other groups, end toward which one group is apart; faces, draws, ICC, groups.
DETECTABLE: tuple[tuple[float, float, int, int, float, int], ...] = (
    (0.15, 1.0, 10, 5, 0.5, 3),
    (0.15, 1.0, 25, 5, 0.5, 7),
    (0.5, 0.0, 25, 10, 0.1, 7),
    (0.6, 0.0, 60, 2, 0.9, 7),
    (0.6, 1.0, 60, 5, 0.5, 2),
    (0.9, 0.0, 100, 5, 0.5, 7),
    (0.9, 0.0, 200, 10, 0.9, 2),
)
#: Rates of the other groups and of one, ICC, groups.
NEEDED: tuple[tuple[float, float, float, int], ...] = (
    (0.15, 0.25, 0.1, 7),
    (0.15, 0.25, 0.5, 7),
    (0.15, 0.25, 0.9, 2),
    (0.6, 0.5, 0.5, 7),
    (0.95, 0.85, 0.5, 7),
)
#: Draws a face where faces are asked for.
DRAWS = 5


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order; 90 % power is promised in all of them."""
    for base, end, faces, draws, icc, groups in DETECTABLE:
        design = power.Design(draws, icc, groups, ALPHA)
        difference = power.detectable_proportion(base, end, faces, design)
        other = base + (difference or 0.0) * (1 if end > base else -1)
        yield _scenario("detectable difference", base, other, faces, design,
                        "detectable_proportion")  # fmt: skip
    for base, other, icc, groups in NEEDED:
        design = power.Design(DRAWS, icc, groups, ALPHA)
        faces = power.faces_for_proportions(base, other, design)
        yield _scenario("faces needed", base, other, faces, design, "faces_for_proportions")
    for faces in (6, 10, 50):
        settings: ScenarioSettings = {"faces": faces, "groups": 7, "values": "normal means"}
        yield Scenario("detectable difference", MEANS, settings, "power",
                       partial(mean_shown, faces=faces, groups=7), (f"{CODE}.detectable_mean",),
                       0.85, 0.96, fraction=0.1)  # fmt: skip


def _scenario(
    study: str, base: float, other: float, faces: int, design: power.Design, function: str
) -> Scenario:
    """Power of a design at rates ``base`` and ``other``."""
    settings: ScenarioSettings = {
        "faces": faces, "draws": design.draws, "icc": design.icc, "groups": design.groups,
        "rates": f"{base} and {other:.3f}",
    }  # fmt: skip
    simulate = partial(shown, base=base, other=other, faces=faces, design=design)
    return Scenario(study, METHOD, settings, "power", simulate, (f"{CODE}.{function}",), 0.87, 0.94)


def shown(
    random: np.random.Generator,
    replicates: int,
    *,
    base: float,
    other: float,
    faces: int,
    design: power.Design,
) -> Performance:
    """Share of audits in which the first group is shown to differ from the second as it does."""
    rates = [other, *[base] * (design.groups - 1)]
    counts = [np.full(faces, float(design.draws))] * design.groups
    n = np.full(design.groups, faces)
    hits = []
    for _ in range(replicates):
        sums = [successes(random, faces, rate, design.icc, design.draws) for rate in rates]
        bounds = proportion_pairs(Groups(sums, counts, n, n * design.draws), design.alpha)
        # the first pair is that of the first two groups
        hits.append(bounds.all_low[0] > 0 if other > base else bounds.all_high[0] < 0)
    return share(hits)


def mean_shown(
    random: np.random.Generator, replicates: int, *, faces: int, groups: int
) -> Performance:
    """Share of audits in which two normal means are shown to differ by what is detectable."""
    distance = power.detectable_mean(1.0, faces, power.Design(groups=groups, alpha=ALPHA))
    counts, n = [np.ones(faces)] * groups, np.full(groups, faces)
    hits = []
    for _ in range(replicates):
        means = np.r_[distance, np.zeros(groups - 1)]
        sums = [random.normal(mean, 1.0, faces) for mean in means]
        bounds = mean_pairs(
            Groups(sums, counts, n, n), ALPHA, int(random.integers(2**31)), REPLICATES
        )
        hits.append(bounds.all_low[0] > 0)
    return share(hits)
