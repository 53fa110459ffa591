"""What a calibration consists of: cells, each a simulated situation with a known truth."""

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

Setting: TypeAlias = str | int | float
Measures: TypeAlias = Literal["coverage", "size", "power", "false pass", "false fail", "bias"]


@dataclass(frozen=True)
class Measured:
    """What a cell found.

    ``value`` is the share that the cell measures (for ``bias`` a mean), ``error`` its Monte Carlo
    standard error (0 where it was computed exactly), ``width`` the median width of the intervals
    where there are some.
    """

    value: float
    error: float
    width: float | None = None


#: (random numbers, replicates) -> what was found.
Simulation: TypeAlias = Callable[[np.random.Generator, int], Measured]


@dataclass(frozen=True)
class Cell:
    """One situation and what is asked of it.

    Parameters
    ----------
    study, method : str
        What the situation is about, and which estimator or test is on trial.
    settings : mapping
        The situation, as the table shows it.
    measures : str
        What ``simulate`` returns.
    simulate : callable
    code : tuple of str
        Modules on trial: what was measured of other code is measured again.
    low, high : float or None
        The least and largest value that is accepted; None and None where nothing is promised and
        the number is for the reader.
    exact : bool
        Whether it is computed by enumeration, so that replicates do not matter.
    """

    study: str
    method: str
    settings: Mapping[str, Setting]
    measures: Measures
    simulate: Simulation
    code: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    exact: bool = False

    @property
    def key(self) -> str:
        """Name of the cell among all: what it is and the code it tries."""
        code = tuple(_digest(module) for module in (*self.code, self.simulate_module))
        return hexdigest(self.study, self.method, dict(self.settings), self.measures, code)[:16]

    @property
    def simulate_module(self) -> str:
        """Module that simulates."""
        function = getattr(self.simulate, "func", self.simulate)
        return str(function.__module__)

    def seed(self, run_seed: int) -> int:
        """Seed of its random numbers; no method in it, so that methods see the same data."""
        return fingerprint(run_seed, "calibration", self.study, dict(self.settings))

    def accepts(self, value: float) -> bool | None:
        """Whether a value is what was promised; None where nothing was."""
        if self.low is None and self.high is None:
            return None
        above = self.low is None or value >= self.low
        return above and (self.high is None or value <= self.high)


@cache
def _digest(module: str) -> str:
    found = find_spec(module)
    return sha256(Path(str(found.origin)).read_bytes()) if found else ""


def share(hits: ArrayLike, widths: ArrayLike | None = None) -> Measured:
    """Share of hits over replicates, (replicates,) or (replicates, groups of one replicate).

    The error is taken over replicates: groups of one replicate share their pooled estimates.
    """
    each = np.asarray(hits, dtype=np.float64)
    of_replicate = each.mean(axis=1) if each.ndim > 1 else each
    n = len(of_replicate)
    # where nothing varies the error is unknown, not 0
    error = max(float(of_replicate.std(ddof=1) / math.sqrt(n)), 1 / n)
    width = None if widths is None else float(np.median(np.asarray(widths)))
    return Measured(float(of_replicate.mean()), error, width)
