"""Coverage of the composition of a generator's prior: Goodman's, corrected, and by CLEAM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from pulse_audit.calibration.audits import confusion, held_out
from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    ScenarioSettings,
    categories,
    share,
    worst,
)
from pulse_audit.fairness.cleam import cleam
from pulse_audit.fairness.correction import corrected_shares
from pulse_audit.fairness.sources import composition
from pulse_audit.types import Estimate

STUDY = "compositions"
#: A prior like a data set with one frequent group.
SHARES = np.array([0.58, 0.17, 0.10, 0.06, 0.04, 0.03, 0.02])
RESAMPLES = 300


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    for samples in (100, 500):
        settings: ScenarioSettings = {"samples": samples, "groups": len(SHARES)}
        code = ("pulse_audit.fairness.sources.composition",)
        simulate = partial(simultaneous, samples=samples)
        yield Scenario(STUDY, "Goodman, all shares together", settings, "coverage", simulate, code,
                       0.92, None)  # fmt: skip
        code = ("pulse_audit.fairness.correction.corrected_shares",)
        simulate = partial(corrected, samples=samples, published=False)
        settings = {**settings, "confusion": "of the shipped net"}
        yield Scenario(STUDY, "inverse by the card's confusion", settings, "coverage", simulate,
                       code, 0.92, None)  # fmt: skip
        # as published: what it costs to take an estimated matrix as known
        code = ("pulse_audit.fairness.cleam.cleam",)
        simulate = partial(corrected, samples=samples, published=True)
        yield Scenario(STUDY, "CLEAM, the card's confusion taken as known", settings, "coverage",
                       simulate, code)  # fmt: skip


def simultaneous(random: np.random.Generator, replicates: int, *, samples: int) -> Performance:
    """Share of samples in which all shares lie in their intervals."""
    hits, widths = [], []
    for counts in random.multinomial(samples, SHARES, size=replicates):
        estimates = composition(counts.tolist())
        pairs = zip(estimates, SHARES, strict=True)
        hits.append(all(e.low <= truth <= e.high for e, truth in pairs))
        widths.append(np.median([e.high - e.low for e in estimates]))
    return share(hits, widths)


def corrected(
    random: np.random.Generator, replicates: int, *, samples: int, published: bool
) -> Performance:
    """Share of true shares within their corrected intervals, in the group where it is lowest."""
    model, sizes = confusion("shipped net"), held_out()[1].sum(axis=1)
    is_covered, widths = [], []
    for _ in range(replicates):
        # the card's matrix is a sample, and so are the model's answers to the prior's images
        card = np.stack([random.multinomial(n, p) for n, p in zip(sizes, model, strict=True)])
        groups = categories(random.random(samples), SHARES)
        answers = categories(random.random(samples), model[groups])
        owner = np.arange(samples)
        estimates: Sequence[Estimate | None]
        if published:
            estimates = cleam(owner, answers, card / card.sum(axis=1, keepdims=True))
        else:
            seed = int(random.integers(2**62))
            estimates = corrected_shares(
                owner, answers, len(SHARES), card, replicates=RESAMPLES, seed=seed
            )
        ends = [(e.low, e.high) for e in estimates if e is not None]
        is_covered.append([low <= p <= high for (low, high), p in zip(ends, SHARES, strict=True)])
        widths.append([high - low for low, high in ends])
    return worst(is_covered, widths)
