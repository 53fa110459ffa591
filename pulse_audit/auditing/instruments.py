"""What a run measures with: settled when it is planned and recorded in its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeAlias

import torch

from pulse_audit import catalogue, store
from pulse_audit.auditing.spec import AuditSpec
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.faces import align
from pulse_audit.faces.attributes import Column, columns
from pulse_audit.metrics import fidelity
from pulse_audit.plugins import load_metrics
from pulse_audit.types import AttributeModel, InputError, Metric, Unavailable

#: Metrics that are computed from pairs of images alone.
IMAGE_METRICS: Mapping[str, Metric] = {metric.name: metric for metric in fidelity.METRICS}
DETECTED = ("hr_face_found", "sr_face_found")
METRICS = (*IMAGE_METRICS, "attribute_cosine", "face_found")
_PREFIXES = ("label_", "hr_", "sr_")

#: Settings of a metric as the manifest records them, or why it is not measured.
Offer: TypeAlias = dict[str, Any] | Unavailable

NOT_ASKED = "not asked for (--metrics)"


@dataclass(frozen=True)
class Instruments:
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

    def _attributes(self, labels_from: str) -> dict[str, Any] | None:
        if self.attributes is None:
            return None
        card = self.attributes.card
        return {
            "name": card.name,
            "card": card.as_dict(),
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


def settle(
    spec: AuditSpec,
    index: FaceIndex,
    resolution: int,
    device: torch.device,
    earlier: Mapping[str, Any] | None = None,
) -> Instruments:
    """Settle what a run measures with.

    Parameters
    ----------
    spec : AuditSpec
    index : FaceIndex
        The data set's faces, for its words.
    resolution : int
        Of the run.
    device : torch.device
    earlier : mapping, optional
        Manifest of a run to resume: it goes on with the metrics it began with, whatever has been
        fetched since.

    Raises
    ------
    InputError
        If a named model or metric is unknown or cannot be used.
    """
    model, missing = load_attributes(spec.attributes, device)
    filled, foreign = columns_for(model, index)
    further = further_metrics(spec.metrics)
    asked = asked_metrics(spec.metrics, further)
    if earlier is not None:
        asked = [name for name in asked if name in earlier["metrics"]]
    images = {**IMAGE_METRICS, **{metric.name: metric for metric in further}}
    offered = {name: _of_images(metric, resolution) for name, metric in images.items()}
    offered["attribute_cosine"] = _attribute_cosine(model, missing)
    offered["face_found"] = _detector(resolution)
    measured = {name: found for name in asked if isinstance(found := offered[name], dict)}
    unavailable = _missing_columns(offered, asked) | _unpredicted(index, filled, foreign, missing)
    compared = tuple(images[name] for name in measured if name in images)
    return Instruments(model, filled, measured, compared, unavailable)


def load_attributes(
    reference: str | None, device: torch.device
) -> tuple[AttributeModel | None, str]:
    """Load the attribute model that is asked for; None and the reason where there is none.

    Raises
    ------
    InputError
        If a model was named and cannot be used; without the shipped one a run goes on.
    """
    if reference == "none":
        return None, "no attribute model was asked for (--attributes none)"
    try:
        return catalogue.load_attributes(reference, device), ""
    except InputError as error:
        if reference is not None:
            raise
        return None, f"no attribute model: {error}"


def columns_for(
    model: AttributeModel | None, index: FaceIndex
) -> tuple[tuple[Column, ...], dict[str, str]]:
    """Columns that a model fills for a data set, and why others stay empty."""
    if model is None:
        return (), {}
    filled, foreign = columns(model.card.vocabulary, index.vocabulary)
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


def further_metrics(names: Sequence[str] | None) -> list[Metric]:
    """Metrics that do not come with the package.

    Raises
    ------
    InputError
        If a name is unknown, or a metric cannot be loaded or has the name of another column.
    """
    found = load_metrics(names, METRICS)
    for metric in found:
        if metric.name in store.COLUMNS or metric.name.startswith(_PREFIXES):
            raise InputError(f"metric {metric.name!r}: there is a column of that name; rename it")
    return found


def asked_metrics(names: Sequence[str] | None, further: Sequence[Metric]) -> list[str]:
    """Names of the metrics that are asked for; all of the package's where none is named."""
    if names is None:
        return list(METRICS)
    return [*(name for name in METRICS if name in names), *(metric.name for metric in further)]


def _of_images(metric: Metric, resolution: int) -> Offer:
    unavailable = metric.available(resolution)
    if unavailable is not None:
        return unavailable
    better = "higher" if metric.higher_is_better else "lower"
    return {"columns": [metric.name], "unit": metric.unit, "better": better}


def _attribute_cosine(model: AttributeModel | None, missing: str) -> Offer:
    if model is None:
        return Unavailable(missing)
    if model.card.feature_dim is None:
        return Unavailable(f"attribute model {model.card.name} gives no features")
    network = {"network": model.card.name, "sha256": model.card.sha256}
    return {"columns": ["attribute_cosine"], "better": "higher", **network}


def _detector(resolution: int) -> Offer:
    unavailable = align.judged(resolution)
    if unavailable is not None:
        return unavailable
    package = f"facenet-pytorch {version('facenet-pytorch')}"
    return {"columns": list(DETECTED), "detector": "MTCNN", "weights": package}


def _missing_columns(offered: Mapping[str, Offer], asked: Sequence[str]) -> dict[str, str]:
    """Columns of the metrics that are not measured, and why."""
    return {
        column: found.reason if isinstance(found, Unavailable) else NOT_ASKED
        for name, found in offered.items()
        if isinstance(found, Unavailable) or name not in asked
        for column in (DETECTED if name == "face_found" else (name,))
    }
