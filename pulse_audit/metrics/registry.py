"""Every metric, one entry each. No torch at import.

From here come the columns of the samples, what ``--metrics`` takes, ``pulse-audit list metrics``,
the measures of a summary and the tables of terminal and report. To add a metric of images, write
``compute(sr, hr)`` in a file beside this one and add one entry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pulse_audit.metrics.definition import (
    FloatArray,
    MetricDefinition,
    mean,
    measured,
    numbers,
    share,
)
from pulse_audit.metrics.group_metrics import DERIVED_METRICS, OUTCOME_METRICS
from pulse_audit.metrics.tone_metrics import TONE_METRICS
from pulse_audit.types import Direction, Status

if TYPE_CHECKING:
    import pandas as pd

#: PSNR of identical images is infinite; a mean needs a number, so it is counted as this many dB.
PSNR_CEILING = 100.0


def feasible(samples: pd.DataFrame) -> FloatArray:
    """1 for draws that gave an image which fits its input; errors and missing values count as 0.

    An output in which no face is found may fit its input all the same.
    """
    failed = samples["status"] == str(Status.ERROR)
    return np.asarray(samples["feasible"].eq(True) & ~failed, dtype=np.float64)


def root_mean_square_levels(sums: FloatArray, counts: FloatArray) -> FloatArray:
    """Mean squared errors on the [0, 1] scale to one RMSE in levels of 255."""
    return 255.0 * np.sqrt(np.maximum(sums, 0.0) / counts)


def _rate_of(
    status: Status, title: str, description: str, *more: str, **settings: Any
) -> MetricDefinition:
    """Share of the draws of one status; missing where a column of ``more`` is."""
    return share(
        f"{status}_rate",
        title,
        description,
        "lower",
        reads=("status", *more),
        from_samples=lambda samples: np.asarray(samples["status"] == str(status), np.float64),
        in_report=status != Status.INFEASIBLE,
        **settings,
    )


def _lpips(
    name: str, title: str, net: str, weights: str, smallest: int, **more: Any
) -> MetricDefinition:
    """LPIPS with one trunk (see `pulse_audit.metrics.perceptual`)."""
    return measured(
        name,
        title,
        "learned perceptual distance to the original",
        "lower",
        "pulse_audit.metrics.perceptual:load",
        arguments={"net": net},
        settings=lambda: {"heads": f"lpips {version('lpips')}, version 0.1 of the heads"},
        weights=weights,
        smallest=smallest,
        lower_bound=0.0,
        **more,
    )


def _niqe(name: str, title: str, patch: int, **more: Any) -> MetricDefinition:
    """NIQE with patches of one size (see `pulse_audit.metrics.naturalness`)."""
    return measured(
        name,
        title,
        f"naturalness of the output alone, in patches of {patch} px",
        "lower",
        "pulse_audit.metrics.naturalness:NiqeModel",
        decimals=2,
        measured_from="patches",
        arguments={"patch": patch},
        settings=lambda: {"fitted_on": "the originals"},
        needs="37 sharp patches",
        smallest=2 * patch,
        lower_bound=0.0,
        **more,
    )


#: A face that fills half of a smaller image would have fewer than the 20 px that MTCNN asks for.
_FACENET: Mapping[str, Any] = {
    "measured_from": "face embedding",
    "weights": "facenet-vggface2",
    "smallest": 40,
    "in_contract": True,
    "in_report": True,
}

#: Metrics with one number a draw, in the order of the samples' columns and of a summary's rows; a
#: new one goes to the end.
DRAW_METRICS: Sequence[MetricDefinition] = (
    # What became of the draws, and how well outputs fit their inputs.
    share(
        "feasible_rate",
        "Feasible",
        "share of all draws whose output downscales to the input within the search's limit "
        "(MSE 2e-3 official, 1e-3 paper); errors count as infeasible",
        "higher",
        reads=("feasible",),
        from_samples=feasible,
        terminal=("feasible %", 0),
        in_report=True,
    ),
    _rate_of(
        Status.INFEASIBLE,
        "Status infeasible",
        "share of all draws given up; only arms that promise feasibility have this status",
    ),
    _rate_of(Status.ERROR, "Errors", "share of all draws that failed"),
    _rate_of(
        Status.NO_FACE,
        "No face",
        "share of all draws without a face in the output",
        "sr_face_found",
        terminal=("no face %", 0),
    ),
    mean(
        "downscale_error",
        "Downscale error",
        "mean squared error between the downscaled output and the input",
        "lower",
        unit="[0, 1]²",
        decimals=5,
        reads=("downscale_error",),
        lower_bound=0.0,
    ),
    mean(
        "downscale_rmse",
        "Downscale RMSE",
        "square root of the mean downscale error, in 8-bit levels",
        "lower",
        unit="/ 255",
        decimals=2,
        reads=("downscale_error",),
        from_samples=lambda samples: numbers(samples, "downscale_error"),
        statistic=root_mean_square_levels,
        lower_bound=0.0,
        in_report=True,
    ),
    # Outputs beside their originals, and the naturalness of outputs alone.
    measured(
        "psnr",
        "PSNR",
        f"against the original; identical images (infinite) count as {PSNR_CEILING:.0f} dB",
        "higher",
        "pulse_audit.metrics.fidelity:psnr",
        unit="dB",
        decimals=1,
        in_contract=True,
        from_samples=lambda samples: np.minimum(numbers(samples, "psnr"), PSNR_CEILING),
        lower_bound=0.0,
        upper_bound=PSNR_CEILING,
        terminal=("PSNR dB", 1),
        in_report=True,
    ),
    measured(
        "ssim",
        "SSIM",
        "structural similarity to the original",
        "higher",
        "pulse_audit.metrics.fidelity:ssim",
        in_contract=True,
        smallest=11,
        lower_bound=-1.0,
        upper_bound=1.0,
        terminal=("SSIM", 2),
        in_report=True,
    ),
    measured(
        "ms_ssim",
        "MS-SSIM",
        "structural similarity over five scales, from 161 px",
        "higher",
        "pulse_audit.metrics.fidelity:ms_ssim",
        in_contract=True,
        smallest=161,
        lower_bound=0.0,
        upper_bound=1.0,
        in_report=True,
    ),
    _lpips("lpips", "LPIPS", "alex", "lpips-alexnet", 31, in_contract=True, in_report=True),
    _niqe("niqe", "NIQE", 96, in_contract=True, in_report=True),
    measured(
        "sharpness",
        "Sharpness",
        "variance of the Laplacian of the output",
        "neither",
        "pulse_audit.metrics.naturalness:sharpness",
        unit="(8-bit levels)²",
        decimals=4,
        in_contract=True,
        smallest=3,
        lower_bound=0.0,
    ),
    # Whether the output still shows the person.
    measured(
        "attribute_cosine",
        "Attribute cosine",
        "similarity of output and original in the attribute model's features",
        "higher",
        "pulse_audit.metrics.identity:cosines",
        in_contract=True,
        measured_from="attribute features",
        needs="an attribute model with features",
        lower_bound=-1.0,
        upper_bound=1.0,
        in_report=True,
    ),
    measured(
        "identity_cosine",
        "Identity cosine",
        "similarity of output and original in a face recognition network",
        "higher",
        "pulse_audit.metrics.identity:cosines",
        lower_bound=-1.0,
        upper_bound=1.0,
        **_FACENET,
    ),
    share(
        "verified",
        "Verified",
        "share of draws that the face recognition network takes for the same person",
        "higher",
        columns={"verified": "flag"},
        computed_by="pulse_audit.metrics.identity:verified",
        settings=lambda: {"false_accept_rates": [1e-3, 1e-2]},
        **_FACENET,
    ),
    # Skin tone: levels of originals and outputs, and their differences.
    *TONE_METRICS,
    # The cost of the search.
    mean(
        "steps",
        "Search steps",
        "optimisation steps taken",
        "neither",
        decimals=0,
        reads=("steps",),
        lower_bound=0.0,
        in_report=True,
    ),
    # Columns that are there only where they are measured.
    _lpips("lpips_vgg", "LPIPS, VGG", "vgg", "lpips-vgg16", 16, on_request=True),
    _lpips(
        "lpips_squeeze", "LPIPS, SqueezeNet", "squeeze", "lpips-squeezenet", 17, on_request=True
    ),
    _niqe("niqe_small", "NIQE, small patches", 32, replaced=("niqe", 192)),
    measured(
        "spread",
        "Spread of draws",
        "root mean square difference of a pixel between two feasible draws of one face",
        "neither",
        "pulse_audit.metrics.fidelity:spread",
        unit="/ 255",
        decimals=1,
        measured_from="draws",
        on_request=True,
        if_empty="no face has two feasible draws",
        lower_bound=0.0,
        upper_bound=255.0,
    ),
    measured(
        "latent_radius",
        "Latent radius",
        "mean norm of the latent vectors of an output over the square root of their length: 1 is "
        "the sphere on which PULSE searches",
        "neither",
        "pulse_audit.search.sphere:latent_radius",
        measured_from="search",
        on_request=True,
        if_empty="no arm searches latents",
        lower_bound=0.0,
    ),
)

#: Fills the columns that ``no_face_rate`` is taken from.
FACE_FOUND = MetricDefinition(
    name="face_found",
    title="Face found",
    description="whether the detector finds a face in the original and in the output",
    direction="neither",
    kind="column",
    columns={"hr_face_found": "flag", "sr_face_found": "flag"},
    in_contract=True,
    measured_from="detector",
    computed_by="pulse_audit.faces.align:FaceAligner",
    settings=lambda: {
        "detector": "MTCNN",
        "weights": f"facenet-pytorch {version('facenet-pytorch')}",
    },
    needs="MTCNN",
    # At 32 px a face is found in 95 to 99 % of 103 prepared photos of FairFace, by crop; at 24 px
    # in 90 to 96 %, and in only 75 % of those of one group (Black).
    smallest=32,
)

METRICS: Sequence[MetricDefinition] = (
    *DRAW_METRICS,
    *OUTCOME_METRICS,
    *DERIVED_METRICS,
    FACE_FOUND,
)
BY_NAME: Mapping[str, MetricDefinition] = {m.name: m for m in METRICS}
#: Metric that fills a column, in the order of the samples.
FILLED_BY: Mapping[str, MetricDefinition] = {c: m for m in METRICS for c in m.columns}
#: What ``--metrics`` takes.
MEASURED: Mapping[str, MetricDefinition] = {m.name: m for m in METRICS if m.measured_from}


#: Metrics that a summary takes from the samples of any run, missing values with their reason.
SAMPLE_METRICS: Sequence[MetricDefinition] = [m for m in DRAW_METRICS if m.in_every_run]


class RecordedMetric(Protocol):
    """What the manifest records of a metric."""

    columns: list[str]
    unit: str | None
    better: str | None


def metrics_of_run(recorded: Mapping[str, RecordedMetric]) -> list[MetricDefinition]:
    """Metrics that a summary takes from the samples of a run: the contract's, then its own.

    Parameters
    ----------
    recorded : mapping
        The manifest's metrics by name; those of plug-ins become means of their columns.
    """
    own = [
        FILLED_BY.get(name) or BY_NAME.get(name) or of_plugin(name, metric)
        for metric in recorded.values()
        for name in metric.columns
    ]
    return [*SAMPLE_METRICS, *(m for m in own if not m.in_every_run)]


def of_plugin(name: str, recorded: RecordedMetric) -> MetricDefinition:
    """Define the metric of a column that a plug-in fills."""
    directions: Mapping[str, Direction] = {"higher": "higher", "lower": "lower"}
    return mean(
        name,
        name,
        "a metric of a plug-in",
        directions.get(str(recorded.better), "neither"),
        unit=recorded.unit or "",
        decimals=3,
        columns={name: "float"},
    )
