"""False sentences: how often the first screen of a simulated audit claims what is not so.

An audit is false if any claim of its first screen contradicts the truth that it was simulated
from: all claims of a screen together are to hold with 95 % confidence. Power is the share of audits
that state the planted conversion, and the planted inequality.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from typing import Literal, TypeAlias

import numpy as np

from pulse_audit.calibration.audits import (
    FROM,
    TO,
    AuditDesign,
    ModelName,
    SimulatedAudit,
    Truth,
    simulated_audit,
)
from pulse_audit.calibration.scenarios import Performance, Scenario, ScenarioSettings, share
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.summary import Claim, first_screen_of
from pulse_audit.summary.schema import ALL

#: Highest acceptable share of audits with a false claim.
HIGHEST = 0.06
#: Rounding of bounds in a summary.
TOLERANCE = 1e-9
#: Replicates as a fraction of those of single estimates.
FRACTION = 0.15
CODE = ("pulse_audit.summary.estimates.first_screen_of",)
STUDY = "sentences"

MODELS: tuple[ModelName, ...] = ("shipped net", "accuracy .9")

#: What is counted of a simulated audit.
Statement: TypeAlias = Literal["nothing false", "the conversion", "the inequality"]


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order; power is of the same audits as false sentences."""
    for design in designs():
        settings: ScenarioSettings = {
            "outputs": design.outputs, "labels": design.labels_from, "faces": design.faces,
            "draws": design.draws, "model": design.model,
        }  # fmt: skip
        if design.shift:
            settings = {**settings, "shift": design.shift}
        false = partial(shares_of, design=design, statement="nothing false")
        yield Scenario(STUDY, "claims of the first screen", settings, "false claim", false, CODE,
                       None, HIGHEST, fraction=FRACTION)  # fmt: skip
        statements: tuple[Statement, ...] = ("the conversion", "the inequality")
        for statement in statements if design.shift else ():
            stated = partial(shares_of, design=design, statement=statement)
            yield Scenario(STUDY, f"first screen says {statement}", settings, "power", stated,
                           CODE, fraction=FRACTION)  # fmt: skip


def designs() -> Iterator[AuditDesign]:
    """Designs of the simulated audits; those of the more accurate model with two draws alone."""
    for model, faces, draws in product(MODELS, (10, 30, 100), (2, 10)):
        if model == "shipped net" or draws == 2:
            yield AuditDesign("the originals", faces, draws, model)
            yield AuditDesign("other photos", faces, draws, model)
            yield AuditDesign("equal arms", faces, draws, model)
            yield AuditDesign("the originals", faces, draws, model, labels_from="model")
            yield AuditDesign("other photos", faces, draws, model, labels_from="model")
            yield AuditDesign("shifted", faces, draws, model, shift=0.2)
            yield AuditDesign("shifted", faces, draws, model, shift=0.4)


def shares_of(
    random: np.random.Generator, replicates: int, *, design: AuditDesign, statement: Statement
) -> Performance:
    """Share of audits with a false claim, or with the planted conversion or inequality claimed."""
    # the first number of a scenario: the same for all statements about the same design
    outcomes = audited(design, replicates, int(random.integers(2**62)))
    if statement == "nothing false":
        return share([is_false for is_false, _, _ in outcomes])
    place = 1 if statement == "the conversion" else 2
    return share([outcome[place] for outcome in outcomes])


@lru_cache(maxsize=1)
def audited(design: AuditDesign, replicates: int, seed: int) -> list[tuple[bool, bool, bool]]:
    """Simulate audits: whether a claim is false, and whether both planted facts are claimed."""
    random, outcomes = np.random.default_rng(seed), []
    for _ in range(replicates):
        audit = simulated_audit(design, random)
        claims, truth = claims_of(audit), audit.truth
        planted = [claim for claim in claims if claim.arm == design.arms[0] and claim.bound > 0]
        cells = {(c.metric, c.group, c.to_group, c.direction) for c in planted}
        outcomes.append(
            (
                not all(is_true(claim, truth) for claim in claims),
                ("shift", truth.groups[FROM], truth.groups[TO], "higher") in cells,
                ("retention", None, None, "unequal") in cells,
            )
        )
    return outcomes


def claims_of(audit: SimulatedAudit) -> list[Claim]:
    """Claims of the first screen of an audit."""
    findings = first_screen_of(audit.manifest, audit.samples)
    return [claim for finding in findings for claim in finding.claims]


def is_true(claim: Claim, truth: Truth) -> bool:
    """Whether a claim of a summary holds.

    Raises
    ------
    ValueError
        If the truth says nothing of the claim's quantity.
    """
    values = estimand(claim, claim.arm, truth)
    if claim.minus is not None:
        values = values - estimand(claim, claim.minus, truth)
    # the quantity itself, or over all groups the largest difference of two
    value = float(np.ptp(values)) if claim.group is None else float(values)
    if claim.direction in ("higher", "unequal"):
        return value >= claim.bound - TOLERANCE
    if claim.direction == "lower":
        return value <= claim.bound + TOLERANCE
    return abs(value) <= claim.bound + TOLERANCE


def estimand(claim: Claim, arm: str, truth: Truth) -> FloatArray:
    """Return the true value of a claim's quantity for one arm: () for a group, else (k,)."""
    k = len(truth.groups)
    is_corrected = claim.correction == "corrected"
    matrix = (truth.shift if is_corrected else truth.apparent)[arm]
    # labels are balanced, the true groups behind them need not be
    weights = truth.composition if is_corrected else np.full(k, 1 / k)
    if claim.metric == "retention":
        values = np.diag(matrix)
        if claim.group == ALL:
            return np.asarray(weights @ values)
    elif claim.metric == "shift" and claim.to_group is not None:
        values = matrix[:, truth.groups.index(claim.to_group)]
    elif claim.metric == "net_flow":
        # shares of all draws that turn from i into j, less those that turn from j into i
        turned = weights[:, None] * matrix
        flows = turned - turned.T
        if claim.to_group is None:
            values = flows.sum(axis=0)
        else:
            values = flows[:, truth.groups.index(claim.to_group)]
    else:
        raise ValueError(f"no truth of {claim.metric} ({claim.group} to {claim.to_group})")
    if claim.group is None:
        return values
    value = values[truth.groups.index(claim.group)]
    if claim.than_group is not None:
        value = value - values[truth.groups.index(claim.than_group)]
    return np.asarray(value)
