"""What guidance finds beyond a placebo: coverage, and how often chance is called preference."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import TypeAlias

import numpy as np

from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    ScenarioSettings,
    draws_of_faces,
    share,
)
from pulse_audit.fairness.sources import AttributedDraws, Searches, split_estimates
from pulse_audit.types import Estimate

#: Shares of draws that both searches find, guidance alone, and the placebo alone.
Found: TypeAlias = tuple[float, float, float]

FACES = (10, 30, 100)
DRAWS = (1, 4)
ICC = 0.5
RETAINED = 0.3
FRACTION = 0.25
#: Guidance without effect: what it finds is found by the iterates that are looked through.
NONE: tuple[Found, ...] = ((0.2, 0.0, 0.0), (0.1, 0.05, 0.05), (0.1, 0.2, 0.2))
SOME: tuple[Found, ...] = ((0.1, 0.1, 0.0), (0.1, 0.3, 0.02), (0.0, 0.6, 0.0))
STUDY = "preference"
SHIPPED, RAW = "guided less placebo", "guided alone"
CODE = ("pulse_audit.fairness.sources.split_estimates",)


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order; guidance without a placebo stands beside it once."""
    for found, faces, draws in product((*NONE, *SOME), FACES, DRAWS):
        both, guided, placebo = found
        settings: ScenarioSettings = {
            "faces": faces, "draws": draws, "chance": round(both + placebo, 3),
            "preference": round(guided - placebo, 3),
        }  # fmt: skip
        called = partial(called_preference, found=found, faces=faces, draws=draws)
        if found not in NONE:
            simulate = partial(covered, found=found, faces=faces, draws=draws)
            yield Scenario(STUDY, SHIPPED, settings, "coverage", simulate, CODE, 0.93, None,
                           fraction=FRACTION)  # fmt: skip
            continue
        simulate = partial(called, metric="source_preference")
        yield Scenario(STUDY, SHIPPED, settings, "false claim", simulate, CODE, None, 0.05,
                       fraction=FRACTION)  # fmt: skip
        if (faces, draws) == (30, 4):
            simulate = partial(called, metric="source_found")
            yield Scenario(STUDY, RAW, settings, "false claim", simulate, (), fraction=FRACTION)


def called_preference(
    random: np.random.Generator,
    replicates: int,
    *,
    metric: str,
    found: Found,
    faces: int,
    draws: int,
) -> Performance:
    """Share of samples in which the interval of a metric lies above 0."""
    estimates = [simulated(random, found, faces, draws)[metric] for _ in range(replicates)]
    return share([e.low > 0 for e in estimates], [e.high - e.low for e in estimates])


def covered(
    random: np.random.Generator, replicates: int, *, found: Found, faces: int, draws: int
) -> Performance:
    """Share of intervals of the preference that contain the true one."""
    truth, metric = found[1] - found[2], "source_preference"
    estimates = [simulated(random, found, faces, draws)[metric] for _ in range(replicates)]
    return share([e.low <= truth <= e.high for e in estimates], [e.high - e.low for e in estimates])


def simulated(
    random: np.random.Generator, found: Found, faces: int, draws: int
) -> dict[str, Estimate]:
    """Raw estimates of one sample of draws, whose originals are all read right."""
    # retained, found by both, by guidance alone, by the placebo alone, by neither
    shares = np.array([[RETAINED, *found, 1 - RETAINED - sum(found)]])
    part = draws_of_faces(random, shares, faces, draws, ICC)[0].ravel()
    face, yes = np.repeat(np.arange(faces), draws), np.ones(len(part), dtype=bool)
    lost, own, placebo = part > 0, np.isin(part, (1, 2)), np.isin(part, (1, 3))
    sample = AttributedDraws(
        faces=face,
        groups=np.zeros_like(face),
        read=yes,
        retained=~lost,
        checked=None,
        own=Searches(lost, lost, own, None),
        placebo=Searches(lost, lost, placebo, None),
        wrong=Searches(~yes, ~yes, ~yes, None),
    )
    estimates = split_estimates(sample, 0.95, {})
    return {name: e for (name, correction), e in estimates.items() if correction == "raw"}
