"""What is estimated: one entry a metric, from columns of the samples to one number a draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from pulse_audit.stats import bootstrap
from pulse_audit.stats.intervals import Floats
from pulse_audit.types import Status

Better = Literal["higher", "lower", "nearer 0", "neither"]

#: PSNR of identical images is infinite; a mean needs a number, so it is counted as this many dB.
PSNR_CEILING = 100.0


@dataclass(frozen=True)
class Measure:
    """How one metric is taken from the samples, and how it is shown.

    ``values`` maps samples to one float a draw, NaN where that draw was not measured. Proportions
    are 0 or 1; ``least`` is the least value the quantity can have. ``shown_times`` converts the
    stored number to the unit shown (100 for per cent).
    """

    name: str
    title: str
    what: str
    unit: str
    better: Better
    kind: Literal["proportion", "mean"]
    columns: tuple[str, ...]
    values: Callable[[pd.DataFrame], Floats]
    decimals: int = 1
    shown_times: float = 1.0
    statistic: bootstrap.Statistic = bootstrap.mean
    least: float = -np.inf

    def missing(self, samples: pd.DataFrame, reasons: Mapping[str, str]) -> str | None:
        """Return why the metric cannot be taken from these samples, or None where it can."""
        for column in self.columns:
            if column not in samples or samples[column].isna().all():
                return reasons.get(column, f"no draw has a value in column {column}")
        return None


def numbers(samples: pd.DataFrame, column: str) -> Floats:
    """Return a column as floats, null as NaN."""
    return np.asarray(samples[column].astype("float64"), dtype=np.float64)


def has_status(samples: pd.DataFrame, status: Status) -> Floats:
    """1 for draws of this status, else 0."""
    return np.asarray(samples["status"] == str(status), dtype=np.float64)


def feasible(samples: pd.DataFrame) -> Floats:
    """1 for draws that gave an image which fits its input; errors and missing values count as 0."""
    failed = samples["status"].isin([str(Status.ERROR), str(Status.NO_FACE)])
    return np.asarray(samples["feasible"].eq(True) & ~failed, dtype=np.float64)


def shift(samples: pd.DataFrame, name: str) -> Floats:
    """Output minus original."""
    return numbers(samples, f"sr_{name}") - numbers(samples, f"hr_{name}")


def wrapped(degrees: Floats) -> Floats:
    """Wrap angles to [-180, 180)."""
    return (degrees + 180.0) % 360.0 - 180.0


def root_mean_square_levels(sums: Floats, counts: Floats) -> Floats:
    """Mean squared errors on the [0, 1] scale to one RMSE in levels of 255."""
    return 255.0 * np.sqrt(np.maximum(sums, 0.0) / counts)


def _status_rate(status: Status, title: str, what: str, *more: str) -> Measure:
    return Measure(
        name=f"{status}_rate",
        title=title,
        what=what,
        unit="%",
        better="lower",
        kind="proportion",
        columns=("status", *more),
        values=lambda samples: has_status(samples, status),
        shown_times=100.0,
    )


def _column(
    column: str,
    title: str,
    what: str,
    unit: str,
    better: Better,
    decimals: int,
    least: float = -np.inf,
) -> Measure:
    return Measure(
        name=column,
        title=title,
        what=what,
        unit=unit,
        better=better,
        kind="mean",
        columns=(column,),
        values=lambda samples: numbers(samples, column),
        decimals=decimals,
        least=least,
    )


def _level(side: str, quantity: str, title: str, unit: str) -> Measure:
    return Measure(
        name=f"{side}_{quantity}",
        title=title,
        what="mean over the draws of which original and output were both measured",
        unit=unit,
        better="neither",
        kind="mean",
        columns=(f"hr_{quantity}", f"sr_{quantity}"),
        # a draw without both has no shift: adding 0 times the shift leaves it out here as well
        values=lambda samples: (
            numbers(samples, f"{side}_{quantity}") + 0.0 * shift(samples, quantity)
        ),
    )


def _shift(quantity: str, title: str, unit: str) -> Measure:
    return Measure(
        name=f"{quantity}_shift",
        title=title,
        what="output minus original",
        unit=unit,
        better="nearer 0",
        kind="mean",
        columns=(f"hr_{quantity}", f"sr_{quantity}"),
        values=lambda samples: shift(samples, quantity),
    )


METRICS: tuple[Measure, ...] = (
    Measure(
        name="feasible_rate",
        title="Feasible",
        what="share of all draws whose output downscales to the input within the search's limit "
        "(MSE 2e-3 official, 1e-3 paper); errors count as infeasible",
        unit="%",
        better="higher",
        kind="proportion",
        columns=("feasible",),
        values=feasible,
        shown_times=100.0,
    ),
    _status_rate(
        Status.INFEASIBLE,
        "Status infeasible",
        "share of all draws given up; only arms that promise feasibility have this status",
    ),
    _status_rate(Status.ERROR, "Errors", "share of all draws that failed"),
    _status_rate(
        Status.NO_FACE,
        "No face",
        "share of all draws without a face in the output",
        "sr_face_found",
    ),
    _column(
        "downscale_error",
        "Downscale error",
        "mean squared error between the downscaled output and the input",
        "[0, 1]²",
        "lower",
        5,
        least=0.0,
    ),
    Measure(
        name="downscale_rmse",
        title="Downscale RMSE",
        what="square root of the mean downscale error, in 8-bit levels",
        unit="/ 255",
        better="lower",
        kind="mean",
        columns=("downscale_error",),
        values=lambda samples: numbers(samples, "downscale_error"),
        decimals=2,
        statistic=root_mean_square_levels,
        least=0.0,
    ),
    Measure(
        name="psnr",
        title="PSNR",
        what=f"against the original; identical images (infinite) count as {PSNR_CEILING:.0f} dB",
        unit="dB",
        better="higher",
        kind="mean",
        columns=("psnr",),
        values=lambda samples: np.minimum(numbers(samples, "psnr"), PSNR_CEILING),
    ),
    _column("ssim", "SSIM", "structural similarity to the original", "", "higher", 3),
    _level("hr", "lightness", "Lightness of originals", "L*"),
    _level("sr", "lightness", "Lightness of outputs", "L*"),
    _shift("lightness", "Lightness shift", "L*"),
    _level("hr", "ita", "ITA of originals", "°"),
    _level("sr", "ita", "ITA of outputs", "°"),
    _shift("ita", "ITA shift", "°"),
    Measure(
        name="hue_shift",
        title="Hue shift",
        what="output minus original, the shorter way round the circle",
        unit="°",
        better="nearer 0",
        kind="mean",
        columns=("hr_hue", "sr_hue"),
        values=lambda samples: wrapped(shift(samples, "hue")),
    ),
    Measure(
        name="monk_shift",
        title="Monk shift",
        what="absolute difference of the Monk skin tone class, of ten",
        unit="steps",
        better="lower",
        kind="mean",
        columns=("hr_monk", "sr_monk"),
        values=lambda samples: np.abs(shift(samples, "monk")),
        decimals=2,
        least=0.0,
    ),
    _column("steps", "Search steps", "optimisation steps taken", "", "neither", 0, least=0.0),
)
BY_NAME: Mapping[str, Measure] = {metric.name: metric for metric in METRICS}
