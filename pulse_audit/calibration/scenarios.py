"""Scenarios of the calibration: simulated audits with known truth, and the draws they consist of.

Terms follow T. P. Morris, I. R. White and M. J. Crowther (2019), Statistics in Medicine 38:2074.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.seeding import fingerprint, hexdigest, sha256
from pulse_audit.stats.intervals import FloatArray

PerformanceMeasure: TypeAlias = Literal[
    "coverage", "size", "power", "false pass", "false fail", "bias"
]


@dataclass(frozen=True)
class Performance:
    """Estimated performance of a method in one scenario.

    ``value`` is a share of replicates (for ``bias`` a mean), ``error`` its Monte Carlo standard
    error (0 where it was computed exactly), ``width`` the median width of the intervals, if any.
    """

    value: float
    error: float
    width: float | None = None


#: Parameters of a situation by name.
ScenarioSettings: TypeAlias = Mapping[str, str | int | float]
#: (random numbers, replicates) -> performance.
Simulation: TypeAlias = Callable[[np.random.Generator, int], Performance]


@dataclass(frozen=True)
class Scenario:
    """One data-generating situation, a method, and what is required of the method there.

    Parameters
    ----------
    study, method : str
        The topic of the table, and the estimator or test that is evaluated.
    settings : mapping
        Parameters of the situation, as the table shows them.
    measure : str
        What ``simulate`` estimates.
    simulate : callable
    code : tuple of str
        Modules evaluated: after a change in one of them the scenario is simulated again.
    low, high : float or None
        Smallest and largest acceptable value; None and None where nothing is required and the
        number is for the reader.
    exact : bool
        Whether it is computed by enumeration, so that replicates do not matter.
    """

    study: str
    method: str
    settings: ScenarioSettings
    measure: PerformanceMeasure
    simulate: Simulation
    code: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    exact: bool = False

    @property
    def key(self) -> str:
        """Identifier: a hash of the scenario and of the code that it evaluates."""
        simulation = getattr(self.simulate, "func", self.simulate)  # the function of a partial
        # a change of the code evaluated, or of the simulation, gives another key
        code = tuple(_digest(module) for module in (*self.code, str(simulation.__module__)))
        return hexdigest(self.study, self.method, dict(self.settings), self.measure, code)[:16]

    def seed(self, run_seed: int) -> int:
        """Seed of its random numbers; without the method, so that methods get the same data."""
        return fingerprint(run_seed, "calibration", self.study, dict(self.settings))

    def accepts(self, value: float) -> bool | None:
        """Whether a value meets the requirement; None where there is none."""
        if self.low is None and self.high is None:
            return None
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)


@cache
def _digest(module: str) -> str:
    spec = find_spec(module)
    return sha256(Path(str(spec.origin)).read_bytes()) if spec else ""


def share(hits: ArrayLike, widths: ArrayLike | None = None) -> Performance:
    """Share of hits over replicates, (replicates,) or (replicates, groups of one replicate).

    The error is taken over replicates: groups of one replicate share their pooled estimates.
    """
    # (replicates, groups) -> (replicates,)
    each = np.asarray(hits, dtype=np.float64)
    of_replicate = each.mean(axis=1) if each.ndim > 1 else each
    n = len(of_replicate)
    # where nothing varies the error is unknown, not 0
    error = max(float(of_replicate.std(ddof=1) / math.sqrt(n)), 1 / n)
    width = None if widths is None else float(np.median(np.asarray(widths)))
    return Performance(float(of_replicate.mean()), error, width)


def successes(
    random: np.random.Generator, faces: int, rate: float, icc: float, draws: int
) -> FloatArray:
    """Successes of each face among its draws, (faces,): beta-binomial (Skellam 1948).

    The rate of a face is Beta distributed with mean ``rate``, such that draws of a face have
    correlation ``icc``. At an ICC of 0 all faces have the same rate, at 1 every face has 0 or 1.
    """
    if icc == 0 or rate in (0.0, 1.0):
        rates = np.full(faces, rate)
    elif icc == 1:
        rates = (random.random(faces) < rate).astype(np.float64)
    else:
        # Beta(a, b) has ICC 1 / (a + b + 1)
        weight = (1 - icc) / icc
        rates = random.beta(rate * weight, (1 - rate) * weight, faces)
    return random.binomial(draws, rates).astype(np.float64)
