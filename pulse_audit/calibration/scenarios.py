"""Scenarios of the calibration: simulated audits with known truth, and the draws they consist of.

Terms follow T. P. Morris, I. R. White and M. J. Crowther (2019), Statistics in Medicine 38:2074.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from pulse_audit.seeding import fingerprint, hexdigest, sha256
from pulse_audit.stats.intervals import FloatArray, IntArray

PerformanceMeasure: TypeAlias = Literal[
    "coverage", "size", "power", "false pass", "false fail", "false claim", "bias", "frequency"
]


PACKAGE = Path(__file__).resolve().parents[1]


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
        Functions evaluated, as dotted names; none where the method is another suite's. After a
        change in their modules, or in one that these import, the scenario is simulated again.
    low, high : float or None
        Smallest and largest acceptable value; None and None where nothing is required and the
        number is for the reader.
    exact : bool
        Whether it is computed by enumeration, so that replicates do not matter.
    fraction : float
        Its replicates as a fraction of the study's: whole audits are slow to simulate.
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
    fraction: float = 1.0

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

    def times(self, replicates: int) -> int:
        """Return how often it is simulated in a study of so many replicates; 0 where exact."""
        return 0 if self.exact else max(2, round(self.fraction * replicates))

    def accepts(self, value: float) -> bool | None:
        """Whether a value meets the requirement; None where there is none."""
        if self.low is None and self.high is None:
            return None
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)


@cache
def _digest(name: str) -> str:
    """Hash of the module of a dotted name, and of all modules of the package that it imports."""
    texts, waiting = dict[Path, str](), [name]
    while waiting:
        # a.b.c is a module, a package, or a function of the module a.b
        module = PACKAGE.parent.joinpath(*waiting.pop().split("."))
        for path in (
            module.with_suffix(".py"),
            module / "__init__.py",
            module.parent.with_suffix(".py"),
        ):
            if path not in texts and path.is_file():
                texts[path] = path.read_text()
                for node in ast.walk(ast.parse(texts[path])):
                    if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
                        PACKAGE.name
                    ):
                        waiting += [f"{node.module}.{alias.name}" for alias in node.names]
    return sha256("".join(texts[path] for path in sorted(texts)).encode())


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


def worst(
    hits: ArrayLike, widths: ArrayLike | None = None, kinds: ArrayLike | None = None
) -> Performance:
    """Share of hits where it is lowest: of the estimates in columns, (replicates, estimates).

    ``kinds`` numbers the kinds of estimates, (estimates,); those of one kind, such as groups with
    the same truth, count together. By default each is a kind of its own.
    """
    each = np.asarray(hits, dtype=np.float64)
    numbers = np.arange(each.shape[1]) if kinds is None else np.asarray(kinds)
    members = [np.flatnonzero(numbers == number) for number in np.unique(numbers)]
    spans = None if widths is None else np.asarray(widths)
    of_kinds = [share(each[:, m], None if spans is None else spans[:, m]) for m in members]
    return min(of_kinds, key=lambda performance: performance.value)


def categories(numbers: FloatArray, shares: FloatArray) -> IntArray:
    """Category of each uniform number, (...), by rows of probabilities (..., k) that sum to 1."""
    # how many cumulative probabilities the number exceeds
    below = np.cumsum(shares, axis=-1)[..., :-1]
    chosen: IntArray = (numbers[..., None] >= below).sum(axis=-1)
    return chosen


def draws_of_faces(
    random: np.random.Generator, matrix: FloatArray, faces: int, draws: int, icc: float
) -> IntArray:
    """Category of every draw of the faces of each row of a matrix, (rows, faces, draws).

    With probability ``icc`` all draws of a face have one category, otherwise each its own: this is
    the correlation of draws in any category.
    """
    shape = len(matrix), faces, 1
    alike = random.random(shape) < icc
    numbers = np.where(alike, random.random(shape), random.random((len(matrix), faces, draws)))
    return categories(numbers, matrix[:, None, None])


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
    successes: FloatArray = random.binomial(draws, rates).astype(np.float64)
    return successes
