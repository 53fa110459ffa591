"""What a metric is: how it is shown, taken from the samples, and measured. No torch at import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pulse_audit.types import AttributeCard, Direction, Estimate, Metric, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import torch

FloatArray = NDArray[np.float64]
NOT_MEASURED = "no draw has a value"
ColumnType = Literal["float", "flag"]
Source = Literal[
    "images",
    "patches",
    "attribute features",
    "face embedding",
    "detector",
    "set features",
    "draws",
    "search",
]
#: From the sums of the values over resampled draws and the numbers of draws to the estimates.
Statistic: TypeAlias = Callable[[FloatArray, FloatArray], FloatArray]


@dataclass(frozen=True)
class RunConditions:
    """What decides whether a metric can be measured in a run."""

    #: Side in pixels at which outputs are compared.
    resolution: int
    #: From the name of published weights to what the manifest records of them (``weights``,
    #: ``sha256``), or why they are not here.
    weights: Callable[[str], Mapping[str, str] | Unavailable]
    #: Of the run's attribute model; None where there is none, and why.
    attributes: AttributeCard | None
    no_attributes: str = ""


@dataclass(frozen=True, kw_only=True)
class MetricDefinition:
    """One metric, and everything the package knows about it."""

    name: str
    title: str
    description: str
    #: Which values are better.
    direction: Direction
    #: ``proportion``: 0 or 1 a draw; ``mean``: a number a draw; ``derived``: of groups or sets of
    #: draws; ``column``: it fills columns that other metrics are taken from.
    kind: Literal["proportion", "mean", "derived", "column"]
    #: How it is shown; ``display_scale`` converts stored numbers to the unit (100 for per cent).
    unit: str = ""
    decimals: int = 1
    display_scale: float = 1.0

    #: Columns of the samples that it fills, with their types.
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    #: Whether every run has these columns, null where they are not measured; those of other
    #: metrics are there where they are measured.
    in_contract: bool = False
    #: Columns that a draw's number is taken from; default: those it fills.
    reads: tuple[str, ...] = ()
    #: From the samples to (draws,), NaN where not measured; default: the column of its name.
    from_samples: Callable[[pd.DataFrame], FloatArray] | None = None
    #: Why the columns it is taken from can be empty after a run that measured them.
    if_empty: str = NOT_MEASURED
    #: Estimate from sums and counts of draws; default: their mean.
    statistic: Statistic | None = None
    #: The least and the greatest value that the quantity can have.
    lower_bound: float = -np.inf
    upper_bound: float = np.inf

    #: What it is computed from where it is measured on images: ``images`` (outputs beside
    #: originals), ``patches`` (by a model fitted on those of the originals), the ``attribute
    #: features`` or ``face embedding`` of both, the ``detector``, the ``set features`` of all, all
    #: ``draws`` of a face, or what the ``search`` itself says.
    measured_from: Source | None = None
    #: ``module:function``, imported when it is first used: ``compute(sr, hr)`` as of
    #: `pulse_audit.types.Metric`; with ``weights`` a function of ``path``, ``device`` and
    #: ``arguments`` that returns an object with this method. The harness calls only those of
    #: ``images`` through `load`.
    computed_by: str = ""
    #: Arguments of ``computed_by``, and further settings; the manifest records both.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    settings: Callable[[], Mapping[str, Any]] = dict
    #: Name of the published weights it needs, and what else, for the listing.
    weights: str = ""
    needs: str = ""
    #: Side in pixels from which on it is defined.
    smallest: int = 1
    #: A metric that is measured in its place from a side in pixels on.
    replaced: tuple[str, int] | None = None
    #: Whether it is measured only where ``--metrics`` names it.
    on_request: bool = False

    #: Heading and decimals in the table that ends a run.
    terminal: tuple[str, int] | None = None
    #: Whether it has a column in the tables of the report.
    in_report: bool = False

    @property
    def in_every_run(self) -> bool:
        """Whether the samples of every run have the columns it is taken from."""
        return self.in_contract or not self.columns

    def values(self, samples: pd.DataFrame) -> FloatArray:
        """One number a draw, NaN where that draw was not measured."""
        return (self.from_samples or column(self.name))(samples)

    def bounded(self, estimate: Estimate) -> Estimate:
        """Clip an interval to the range of the quantity; where it was, the method says so."""
        low, high = max(estimate.low, self.lower_bound), min(estimate.high, self.upper_bound)
        if not (low > estimate.low or high < estimate.high):
            return estimate
        ends = (f"{end:g}" for end in (self.lower_bound, self.upper_bound) if np.isfinite(end))
        method = f"{estimate.method}; clipped at {' and '.join(ends)}"
        return replace(estimate, low=low, high=high, method=method)

    def missing(self, samples: pd.DataFrame, reasons: Mapping[str, str]) -> str | None:
        """Return why the metric cannot be taken from these samples, or None where it can."""
        for name in self.reads or self.columns:
            if name not in samples or samples[name].isna().all():
                return reasons.get(name, f"no draw has a value in column {name}")
        return None

    def available(self, side: int) -> Unavailable | None:
        """Why images of this many pixels a side cannot be measured, or None if they can."""
        if side >= self.smallest:
            return None
        return Unavailable(f"{self.name} needs images of at least {self.smallest} px, not {side}")

    def in_run(self, run: RunConditions) -> dict[str, Any] | Unavailable:
        """Return what the manifest of a run records of the metric, or why it is not measured."""
        # The reasons, in the order in which they are given: size, weights, attribute model.
        if too_small := self.available(run.resolution):
            return too_small
        if self.replaced and run.resolution >= self.replaced[1]:
            return Unavailable(f"{self.replaced[0]} is measured in place of {self.name}")
        record: dict[str, Any] = {"columns": list(self.columns)}
        # Runs are resumed by equal records: only metrics of images alone record a unit, and
        # sharpness, of which neither direction is better, is recorded as higher.
        if self.measured_from == "images" and not self.weights:
            record["unit"] = self.unit
        if self.kind != "column":
            record["better"] = "lower" if self.direction == "lower" else "higher"
        record |= {**self.arguments, **self.settings()}
        if self.weights:
            weights = run.weights(self.weights)
            if isinstance(weights, Unavailable):
                return weights
            record |= weights
        if self.measured_from == "attribute features":
            card = run.attributes
            if card is None:
                return Unavailable(run.no_attributes)
            if card.feature_dim is None:
                return Unavailable(f"attribute model {card.name} gives no features")
            record |= {"network": card.name, "sha256": card.sha256}
        return record

    def load(self, path: Path | None = None, device: torch.device | str = "cpu") -> Metric:
        """Import what computes the metric from images, with the file of its weights if any."""
        module, _, name = self.computed_by.partition(":")
        compute = getattr(import_module(module), name)
        if self.weights:
            compute = compute(path=path, device=device, **self.arguments).compute
        return self.computed_with(compute)

    def computed_with(self, compute: Callable[..., Any]) -> Metric:
        """Return the metric as a plug-in would define it."""
        return Metric(self.name, self.direction != "lower", compute, self.unit, self.smallest)


def column(name: str) -> Callable[[pd.DataFrame], FloatArray]:
    """Return the function that takes a column of the samples as floats, null as NaN."""
    return lambda samples: numbers(samples, name)


def numbers(samples: pd.DataFrame, name: str) -> FloatArray:
    """Return a column of the samples as floats, null as NaN."""
    return np.asarray(samples[name].astype("float64"), dtype=np.float64)


def share(
    name: str, title: str, description: str, direction: Direction, **more: Any
) -> MetricDefinition:
    """Define a share of draws, shown in per cent."""
    return MetricDefinition(
        name=name,
        title=title,
        description=description,
        direction=direction,
        **{"kind": "proportion", "unit": "%", "display_scale": 100.0, **more},
    )


def mean(
    name: str, title: str, description: str, direction: Direction, **more: Any
) -> MetricDefinition:
    """Define a mean over draws."""
    return MetricDefinition(
        name=name, title=title, description=description, direction=direction, kind="mean", **more
    )


def measured(
    name: str, title: str, description: str, direction: Direction, computed_by: str, **more: Any
) -> MetricDefinition:
    """Define a mean over draws of what is measured on images, in the column of its name."""
    defaults: dict[str, Any] = {
        "columns": {name: "float"},
        "measured_from": "images",
        "decimals": 3,
    }
    return mean(
        name, title, description, direction, computed_by=computed_by, **{**defaults, **more}
    )
