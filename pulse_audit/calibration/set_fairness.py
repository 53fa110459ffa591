"""Coverage of RDP, PR, CPR, SPE and UCPR, where an arm fulfils them and where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import product
from typing import Literal, TypeAlias

import numpy as np

from pulse_audit.calibration.corrected import diagonal, planted_matrix
from pulse_audit.calibration.scenarios import (
    Performance,
    Scenario,
    ScenarioSettings,
    categories,
    draws_of_faces,
    share,
)
from pulse_audit.fairness import sets
from pulse_audit.fairness.divergence import DIVERGENCES, Divergence, between
from pulse_audit.fairness.sets import Joint, SetEstimate, joint_shares
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.types import Unavailable

Arm: TypeAlias = Literal["fair", "planted"]
Measure: TypeAlias = Callable[[Joint, Divergence], SetEstimate | Unavailable]

STUDY = "set fairness"
METHOD = "test inversion by face"
DRAWS, ICC = 2, 0.5
#: Replicates of the bootstrap, as in a run.
RESAMPLES = 500
MEASURES: Mapping[str, Measure] = {"rdp": sets.rdp, "pr": sets.pr, "cpr": sets.cpr, "spe": sets.spe}
#: Measures of two estimated tables of all pairs of groups.
SPARSE = ("cpr", "spe")
#: What an input reveals of its group, in the fair arm: the group that it suggests has this share.
SUGGESTED = 0.7
#: Uninformative inputs, and the shares of a method that prefers one group on them.
INPUTS, DRAWS_OF_INPUT, PREFERRED = 10, 20, 0.4


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    arms: tuple[Arm, ...] = ("fair", "planted")
    divergences: tuple[Divergence, ...] = ("chi2", "tv")
    for name, divergence, arm in product(MEASURES, divergences, arms):
        # chi2 of two estimated 7 x 7 tables needs more faces: at 20 it is shown beside
        for faces in (20, 50) if divergence == "chi2" and name in SPARSE else (20,):
            settings: ScenarioSettings = {
                "of": f"{name.upper()} {divergence}", "arm": arm, "faces": faces, "draws": DRAWS,
            }  # fmt: skip
            simulate = partial(coverage, name=name, divergence=divergence, arm=arm, faces=faces)
            code = (f"pulse_audit.fairness.sets.{name}",)
            is_sparse = divergence == "chi2" and name in SPARSE and faces < 50
            low = None if is_sparse else 0.90
            yield Scenario(STUDY, METHOD, settings, "coverage", simulate, code, low, fraction=0.25)
    for divergence, arm in product(divergences, arms):
        settings = {
            "of": f"UCPR {divergence}", "arm": arm, "inputs": INPUTS, "draws": DRAWS_OF_INPUT,
        }  # fmt: skip
        simulate = partial(uninformative, divergence=divergence, arm=arm)
        code = ("pulse_audit.fairness.sets.ucpr",)
        yield Scenario(STUDY, METHOD, settings, "coverage", simulate, code, 0.90, fraction=0.25)


def coverage(
    random: np.random.Generator,
    replicates: int,
    *,
    name: str,
    divergence: Divergence,
    arm: Arm,
    faces: int,
) -> Performance:
    """Share of intervals that contain the true divergence."""
    truth, hits, widths = true_value(name, divergence, arm), [], []
    for _ in range(replicates):
        draws = draws_of(random, arm, faces)
        joint = joint_shares(draws, seed=int(random.integers(2**62)), replicates=RESAMPLES)
        result = MEASURES[name](joint, divergence)
        is_covered, width = coverage_of(result, truth)
        hits.append(is_covered)
        widths.append(width)
    return share(hits, widths)


def coverage_of(result: SetEstimate | Unavailable, truth: float) -> tuple[bool, float]:
    """Whether an interval contains the truth, and its width; ValueError if there is none."""
    if isinstance(result, Unavailable):
        raise ValueError(result.reason)
    low, high = result.estimate.low, result.estimate.high
    return low <= truth + 1e-9 and truth <= high + 1e-9, high - low


def draws_of(random: np.random.Generator, arm: Arm, faces: int) -> Draws:
    """Simulate an arm's draws of ``faces`` faces in each of seven groups."""
    k, suggestions = len(planted_matrix()), diagonal(SUGGESTED)
    if arm == "planted":
        outputs = draws_of_faces(random, planted_matrix(), faces, DRAWS, ICC)
    else:
        # the input suggests a group by the original's, and draws have one by what is suggested:
        # original and draws are exchangeable given the input
        hints = categories(random.random((k, faces)), suggestions[:, None])
        outputs = categories(random.random((k, faces, DRAWS)), suggestions[hints][:, :, None])
    owner, groups = np.repeat(np.arange(k * faces), DRAWS), np.repeat(np.arange(k), faces * DRAWS)
    return Draws(owner, groups, outputs.ravel(), k)


def true_value(name: str, divergence: Divergence, arm: Arm) -> float:
    """Return the divergence that the measure estimates; 0 for the fair arm."""
    if arm == "fair":
        return 0.0
    matrix = planted_matrix()
    k = len(matrix)
    uniform, recall, joint = np.full(k, 1 / k), matrix.diagonal(), matrix / k
    if name == "rdp":
        return float(DIVERGENCES[divergence](recall / recall.sum(), uniform))
    if name == "pr":
        return float(DIVERGENCES[divergence](joint.sum(axis=0), uniform))
    # side by side: (X, X') and its transpose, or (X'', X'), which is on the diagonal with
    # probability ICC, else two independent draws
    other = joint.T if name == "spe" else ICC * np.diag(joint.sum(axis=0))
    if name == "cpr":
        other = other + (1 - ICC) * matrix.T @ matrix / k
    return float(between(divergence)(np.concatenate([joint.ravel(), other.ravel()])))


def uninformative(
    random: np.random.Generator, replicates: int, *, divergence: Divergence, arm: Arm
) -> Performance:
    """Share of intervals that contain the true divergence of outputs of uninformative inputs."""
    k = len(planted_matrix())
    uniform = np.full(k, 1 / k)
    shares: FloatArray = uniform
    if arm == "planted":
        shares = np.array([PREFERRED, *[(1 - PREFERRED) / (k - 1)] * (k - 1)])
    truth = float(DIVERGENCES[divergence](shares, uniform))
    inputs = np.repeat(np.arange(INPUTS), DRAWS_OF_INPUT)
    hits, widths = [], []
    for _ in range(replicates):
        predicted = categories(random.random(len(inputs)), shares)
        seed = int(random.integers(2**62))
        result = sets.ucpr(inputs, predicted, uniform, divergence, seed=seed, replicates=RESAMPLES)
        is_covered, width = coverage_of(result, truth)
        hits.append(is_covered)
        widths.append(width)
    return share(hits, widths)
