"""What a run measures with: settled when it is planned and recorded in its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pulse_audit import store
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.faces.attribute_net import ShippedAttributes
from pulse_audit.faces.attributes import Column, columns
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.metrics.definition import RunConditions
from pulse_audit.metrics.registry import BY_NAME, MEASURED
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.published import fetched, get
from pulse_audit.plugins import load_metrics
from pulse_audit.store import Manifest
from pulse_audit.types import AttributeModel, InputError, Metric, Unavailable

_PREFIXES = ("label_", "hr_", "sr_")

NOT_REQUESTED = "not asked for (--metrics)"


@dataclass(frozen=True)
class MetricSuite:
    """What a run measures with.

    Attributes
    ----------
    attributes : AttributeModel or None
    columns : tuple of Column
        What its predictions fill.
    metrics : mapping of str to mapping
        The metrics that are measured, each with the settings the manifest records.
    images : tuple of Metric
        Those of the metrics that compare an output with its original.
    unavailable : mapping of str to str
        Columns that cannot be filled, and why.
    """

    attributes: AttributeModel | None
    columns: tuple[Column, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    images: tuple[Metric, ...]
    unavailable: Mapping[str, str]

    def entries(self, labels_from: str) -> dict[str, Any]:
        """Entries of the manifest."""
        return {
            "attributes": self._attributes(labels_from),
            "features": self._features(),
            "metrics": {name: dict(settings) for name, settings in self.metrics.items()},
            "unavailable": dict(self.unavailable),
        }

    def notes(self, crop: str) -> list[str]:
        """Say where the attribute model sees other crops than it was made for."""
        card = None if self.attributes is None else self.attributes.card
        if card is None or card.crop in ("as-is", crop) or crop == "as-is":
            return []
        return [
            f"attribute model {card.name} was made for crop {card.crop} and sees {crop} here: it "
            f"errs more than its card says (--crop {card.crop} compares faces in its own)"
        ]

    def _attributes(self, labels_from: str) -> dict[str, Any] | None:
        if self.attributes is None:
            return None
        card = self.attributes.card
        return {
            "name": card.name,
            "card": json.loads(json.dumps(card.as_dict())),  # as the manifest will hold it
            "vocabulary": {column.name: list(column.words) for column in self.columns},
            "predicted_as": {column.name: column.attribute for column in self.columns},
            "labels_from": labels_from,
        }

    def _features(self) -> dict[str, Any]:
        if self.attributes is None:
            return {"network": None, "dim": None, "why": "no attribute model"}
        card = self.attributes.card
        why = None if card.feature_dim else f"attribute model {card.name} gives no features"
        return {"network": card.name, "dim": card.feature_dim, "why": why}


def resolve_metrics(
    spec: AuditSpec,
    index: FaceIndex,
    resolution: int,
    device: torch.device,
    earlier: Manifest | None = None,
) -> MetricSuite:
    """Settle what a run measures with.

    Parameters
    ----------
    spec : AuditSpec
    index : FaceIndex
        The data set's faces, for its words.
    resolution : int
        Of the run.
    device : torch.device
    earlier : Manifest, optional
        Manifest of a run to resume: it goes on with the metrics it began with, whatever has been
        fetched since.

    Raises
    ------
    InputError
        If a named model or metric is unknown or cannot be used.
    """
    model, no_model = attribute_model(spec.attributes, device, resolution)
    filled, foreign = columns_for(model, index)
    plugins = {metric.name: metric for metric in plugin_metrics(spec.metrics)}
    requested = [
        *(
            name
            for name, metric in MEASURED.items()
            if (not metric.on_request if spec.metrics is None else name in spec.metrics)
        ),
        *plugins,
    ]
    if earlier is not None:
        requested = [name for name in requested if name in earlier.metrics]
    # What the manifest records of each metric, or why it is not measured.
    card = None if model is None else model.card
    run = RunConditions(resolution, weights_of, card, no_model)
    offered = {name: metric.in_run(run) for name, metric in MEASURED.items()}
    for name, metric in plugins.items():
        better = "higher" if metric.higher_is_better else "lower"
        record = {"columns": [name], "unit": metric.unit, "better": better}
        offered[name] = metric.available(resolution) or record
    measured = {name: found for name in requested if isinstance(found := offered[name], dict)}
    unavailable = {
        column: found.reason
        if isinstance(found, Unavailable) and name in requested
        else NOT_REQUESTED
        for name, found in offered.items()
        if name not in measured
        for column in (MEASURED[name].columns if name in MEASURED else (name,))
    }
    # Image metrics without weights are ready; networks are loaded when work begins.
    compared = tuple(
        plugins[name] if name in plugins else MEASURED[name].load()
        for name in measured
        if name in plugins
        or (MEASURED[name].measured_from == "images" and not MEASURED[name].weights)
    )
    unavailable |= _unpredicted(index, filled, foreign, no_model)
    return MetricSuite(model, filled, measured, compared, unavailable)


def attribute_model(
    reference: str | None, device: torch.device, resolution: int
) -> tuple[AttributeModel | None, str]:
    """Load the attribute model that is asked for; None and the reason where there is none.

    Models that were measured at several sizes of image give the card of the run's size.

    Raises
    ------
    InputError
        If a model was named and cannot be used; without the shipped one a run goes on.
    """
    if reference == "none":
        return None, "no attribute model was asked for (--attributes none)"
    try:
        model = load_attributes(reference, device)
    except InputError as error:
        if reference is not None:
            raise
        return None, f"no attribute model: {error}"
    return (model.at_resolution(resolution) if isinstance(model, ShippedAttributes) else model), ""


def columns_for(
    model: AttributeModel | None, index: FaceIndex
) -> tuple[tuple[Column, ...], dict[str, str]]:
    """Columns that a model fills for a data set, and why others stay empty."""
    if model is None:
        return (), {}
    filled, foreign = columns(model.card.vocabulary, index.vocabulary, index.derived)
    return tuple(filled), foreign


def _unpredicted(
    index: FaceIndex, filled: Sequence[Column], foreign: Mapping[str, str], missing: str
) -> dict[str, str]:
    """Why columns of predictions are empty that a model could have filled."""
    names = {column.name for column in filled}
    reasons = {a: missing or "the attribute model does not predict it" for a in store.PREDICTABLE}
    lacking = {a: why for a, why in {**reasons, **foreign}.items() if a not in names}
    return {
        f"{side}_{attribute}{suffix}": why
        for attribute, why in lacking.items()
        if attribute in index.vocabulary
        for side in ("hr", "sr")
        for suffix in ("", "_p")
    }


def plugin_metrics(names: Sequence[str] | None) -> list[Metric]:
    """Metrics that do not come with the package.

    Raises
    ------
    InputError
        If a name is unknown, or a metric cannot be loaded or has the name of another column.
    """
    metrics = load_metrics(names)
    for metric in metrics:
        if metric.name in {*store.COLUMNS, *BY_NAME} or metric.name.startswith(_PREFIXES):
            raise InputError(f"metric {metric.name!r}: there is a column of that name; rename it")
    return metrics


def weights_of(name: str) -> dict[str, str] | Unavailable:
    """Name and SHA-256 of fetched weights, or why they are not there; nothing is loaded."""
    try:
        return {"weights": name, "sha256": fetched(get(name))[1]}
    except InputError as error:
        return Unavailable(str(error))
