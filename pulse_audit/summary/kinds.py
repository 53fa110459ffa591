"""What a metric is: its description, and for those taken from the samples how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pulse_audit.stats import bootstrap
from pulse_audit.stats.intervals import FloatArray

Better = Literal["higher", "lower", "nearer 0", "neither"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A metric, and how it is shown.

    ``display_scale`` converts the stored number to the unit shown (100 for per cent).
    """

    name: str
    title: str
    what: str
    unit: str
    better: Better
    decimals: int = 1
    display_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SampleMeasure(Measure):
    """A metric with one number a draw, and how it is taken from the samples.

    ``values`` maps samples to one float a draw, NaN where that draw was not measured. Proportions
    are 0 or 1; ``least`` is the least value the quantity can have.
    """

    kind: Literal["proportion", "mean"]
    columns: tuple[str, ...]
    values: Callable[[pd.DataFrame], FloatArray]
    statistic: bootstrap.Statistic = bootstrap.mean
    least: float = -np.inf

    def missing(self, samples: pd.DataFrame, reasons: Mapping[str, str]) -> str | None:
        """Return why the metric cannot be taken from these samples, or None where it can."""
        for column in self.columns:
            if column not in samples or samples[column].isna().all():
                return reasons.get(column, f"no draw has a value in column {column}")
        return None
