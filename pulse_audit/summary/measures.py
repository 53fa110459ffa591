"""What is taken from the samples: one entry a metric, from columns to one number a draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pulse_audit.stats.intervals import FloatArray
from pulse_audit.summary.described import DERIVED, TESTED, numbers
from pulse_audit.summary.kinds import Better, Measure, SampleMeasure
from pulse_audit.types import Status

#: PSNR of identical images is infinite; a mean needs a number, so it is counted as this many dB.
PSNR_CEILING = 100.0


def has_status(samples: pd.DataFrame, status: Status) -> FloatArray:
    """1 for draws of this status, else 0."""
    return np.asarray(samples["status"] == str(status), dtype=np.float64)


def feasible(samples: pd.DataFrame) -> FloatArray:
    """1 for draws that gave an image which fits its input; errors and missing values count as 0.

    An output in which no face is found may fit its input all the same.
    """
    failed = samples["status"] == str(Status.ERROR)
    return np.asarray(samples["feasible"].eq(True) & ~failed, dtype=np.float64)


def shift(samples: pd.DataFrame, name: str) -> FloatArray:
    """Output minus original."""
    return numbers(samples, f"sr_{name}") - numbers(samples, f"hr_{name}")


def wrapped(degrees: FloatArray) -> FloatArray:
    """Wrap angles to [-180, 180)."""
    return (degrees + 180.0) % 360.0 - 180.0


def root_mean_square_levels(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Mean squared errors on the [0, 1] scale to one RMSE in levels of 255."""
    return 255.0 * np.sqrt(np.maximum(sums, 0.0) / counts)


def _status_rate(status: Status, title: str, what: str, *more: str) -> SampleMeasure:
    return SampleMeasure(
        name=f"{status}_rate",
        title=title,
        what=what,
        unit="%",
        better="lower",
        kind="proportion",
        columns=("status", *more),
        values=lambda samples: has_status(samples, status),
        display_scale=100.0,
    )


def _column(
    column: str,
    title: str,
    what: str,
    unit: str,
    better: Better,
    decimals: int,
    least: float = -np.inf,
) -> SampleMeasure:
    return SampleMeasure(
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


def _level(side: str, quantity: str, title: str, unit: str) -> SampleMeasure:
    return SampleMeasure(
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


def _shift(quantity: str, title: str, unit: str) -> SampleMeasure:
    return SampleMeasure(
        name=f"{quantity}_shift",
        title=title,
        what="output minus original",
        unit=unit,
        better="nearer 0",
        kind="mean",
        columns=(f"hr_{quantity}", f"sr_{quantity}"),
        values=lambda samples: shift(samples, quantity),
    )


SAMPLED: tuple[SampleMeasure, ...] = (
    SampleMeasure(
        name="feasible_rate",
        title="Feasible",
        what="share of all draws whose output downscales to the input within the search's limit "
        "(MSE 2e-3 official, 1e-3 paper); errors count as infeasible",
        unit="%",
        better="higher",
        kind="proportion",
        columns=("feasible",),
        values=feasible,
        display_scale=100.0,
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
    SampleMeasure(
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
    SampleMeasure(
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
    _column(
        "ms_ssim", "MS-SSIM", "structural similarity over five scales, from 161 px", "", "higher", 3
    ),
    _column("lpips", "LPIPS", "learned perceptual distance to the original", "", "lower", 3),
    _column("niqe", "NIQE", "naturalness of the output alone", "", "lower", 2),
    _column("sharpness", "Sharpness", "variance of the Laplacian of the output", "", "neither", 4),
    _column(
        "attribute_cosine",
        "Attribute cosine",
        "similarity of output and original in the attribute model's features",
        "",
        "higher",
        3,
    ),
    _column(
        "identity_cosine",
        "Identity cosine",
        "similarity of output and original in a face recognition network",
        "",
        "higher",
        3,
    ),
    SampleMeasure(
        name="verified",
        title="Verified",
        what="share of draws that the face recognition network takes for the same person",
        unit="%",
        better="higher",
        kind="proportion",
        columns=("verified",),
        values=lambda samples: numbers(samples, "verified"),
        display_scale=100.0,
    ),
    _level("hr", "lightness", "Lightness of originals", "L*"),
    _level("sr", "lightness", "Lightness of outputs", "L*"),
    _shift("lightness", "Lightness shift", "L*"),
    _level("hr", "ita", "ITA of originals", "°"),
    _level("sr", "ita", "ITA of outputs", "°"),
    _shift("ita", "ITA shift", "°"),
    SampleMeasure(
        name="hue_shift",
        title="Hue shift",
        what="output minus original, the shorter way round the circle",
        unit="°",
        better="nearer 0",
        kind="mean",
        columns=("hr_hue", "sr_hue"),
        values=lambda samples: wrapped(shift(samples, "hue")),
    ),
    SampleMeasure(
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
#: Every metric of a summary, in the order of lists.
METRICS: tuple[Measure, ...] = (*SAMPLED, *TESTED, *DERIVED)
BY_NAME: Mapping[str, Measure] = {metric.name: metric for metric in METRICS}
