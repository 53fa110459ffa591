"""What a run measures with: settled when it is planned and recorded in its manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeAlias

import torch

from pulse_audit import store
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.faces import align, embed
from pulse_audit.faces.attribute_net import ShippedAttributes
from pulse_audit.faces.attributes import Column, columns
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.metrics import fidelity, identity, naturalness, perceptual
from pulse_audit.metrics.naturalness import SHARPNESS
from pulse_audit.models import shipped
from pulse_audit.models.attributes import attribute_names, load_attributes
from pulse_audit.models.published import fetched, get
from pulse_audit.plugins import load_metrics
from pulse_audit.store import Manifest
from pulse_audit.types import AttributeModel, InputError, Metric, Unavailable

#: Metrics that are computed from pairs of images alone.
IMAGE_METRICS: Mapping[str, Metric] = {m.name: m for m in (*fidelity.METRICS, SHARPNESS)}
#: LPIPS by the name of its scores -> the package's name of the trunk.
LPIPS: Mapping[str, str] = {trunk.metric: net for net, trunk in perceptual.TRUNKS.items()}
NIQE: Mapping[str, int] = {"niqe": naturalness.PATCH, "niqe_small": naturalness.SMALL_PATCH}
DETECTED = ("hr_face_found", "sr_face_found")
METRICS = (
    *IMAGE_METRICS, *LPIPS, *NIQE, "attribute_cosine", "identity_cosine", "verified", "face_found",
)  # fmt: skip
#: Measured only where they are named: one trunk under LPIPS is enough.
ON_REQUEST = ("lpips_vgg", "lpips_squeeze")
_PREFIXES = ("label_", "hr_", "sr_")

#: Settings of a metric as the manifest records them, or why it is not measured.
MetricConfig: TypeAlias = dict[str, Any] | Unavailable

NOT_ASKED = "not asked for (--metrics)"


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
    model, missing = attribute_model(spec.attributes, device, resolution)
    filled, foreign = columns_for(model, index)
    further = plugin_metrics(spec.metrics)
    asked = asked_metrics(spec.metrics, further)
    if earlier is not None:
        asked = [name for name in asked if name in earlier.metrics]
    images = {**IMAGE_METRICS, **{metric.name: metric for metric in further}}
    offered = {name: _of_images(metric, resolution) for name, metric in images.items()}
    offered |= {name: _lpips(net, resolution) for name, net in LPIPS.items()}
    offered |= {name: _niqe(name, patch, resolution) for name, patch in NIQE.items()}
    offered["attribute_cosine"] = _attribute_cosine(model, missing)
    offered["identity_cosine"] = _identity(resolution)
    offered["verified"] = _verified(resolution)
    offered["face_found"] = _detector(resolution)
    measured = {name: found for name in asked if isinstance(found := offered[name], dict)}
    unavailable = _missing_columns(offered, asked) | _unpredicted(index, filled, foreign, missing)
    compared = tuple(images[name] for name in measured if name in images)
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
    found = load_metrics(names, METRICS)
    for metric in found:
        if metric.name in store.COLUMNS or metric.name.startswith(_PREFIXES):
            raise InputError(f"metric {metric.name!r}: there is a column of that name; rename it")
    return found


def asked_metrics(names: Sequence[str] | None, further: Sequence[Metric]) -> list[str]:
    """Names of the metrics that are asked for; all of the package's where none is named."""
    if names is None:
        return [name for name in METRICS if name not in ON_REQUEST]
    return [*(name for name in METRICS if name in names), *(metric.name for metric in further)]


def _of_images(metric: Metric, resolution: int) -> MetricConfig:
    unavailable = metric.available(resolution)
    if unavailable is not None:
        return unavailable
    better = "higher" if metric.higher_is_better else "lower"
    return {"columns": [metric.name], "unit": metric.unit, "better": better}


def weights_of(name: str) -> dict[str, str] | Unavailable:
    """Name and SHA-256 of fetched weights, or why they are not there; nothing is loaded."""
    try:
        return {"weights": name, "sha256": fetched(get(name))[1]}
    except InputError as error:
        return Unavailable(str(error))


def _lpips(net: str, resolution: int) -> MetricConfig:
    trunk = perceptual.TRUNKS[net]
    if resolution < trunk.smallest:
        return Unavailable(f"needs images of at least {trunk.smallest} px, not {resolution}")
    weights = weights_of(trunk.weights)
    if isinstance(weights, Unavailable):
        return weights
    heads = f"lpips {version('lpips')}, version 0.1 of the heads"
    return {"columns": [trunk.metric], "better": "lower", "net": net, "heads": heads, **weights}


def _niqe(name: str, patch: int, resolution: int) -> MetricConfig:
    if resolution < 2 * patch:
        return Unavailable(f"needs images of at least {2 * patch} px, not {resolution}")
    if name == "niqe_small" and resolution >= 2 * NIQE["niqe"]:
        return Unavailable("niqe is measured, with the paper's patches")
    return {"columns": [name], "better": "lower", "patch": patch, "fitted_on": "the originals"}


def _identity(resolution: int) -> MetricConfig:
    too_small = embed.available(resolution)
    weights = weights_of(embed.WEIGHTS)
    if too_small is not None or isinstance(weights, Unavailable):
        return too_small or weights
    return {"columns": ["identity_cosine"], "better": "higher", **weights}


def _verified(resolution: int) -> MetricConfig:
    offer = _identity(resolution)
    if isinstance(offer, Unavailable):
        return offer
    return {**offer, "columns": ["verified"], "false_accept_rates": list(identity.RATES)}


def _attribute_cosine(model: AttributeModel | None, missing: str) -> MetricConfig:
    if model is None:
        return Unavailable(missing)
    if model.card.feature_dim is None:
        return Unavailable(f"attribute model {model.card.name} gives no features")
    network = {"network": model.card.name, "sha256": model.card.sha256}
    return {"columns": ["attribute_cosine"], "better": "higher", **network}


def _detector(resolution: int) -> MetricConfig:
    unavailable = align.available(resolution)
    if unavailable is not None:
        return unavailable
    package = f"facenet-pytorch {version('facenet-pytorch')}"
    return {"columns": list(DETECTED), "detector": "MTCNN", "weights": package}


def _missing_columns(offered: Mapping[str, MetricConfig], asked: Sequence[str]) -> dict[str, str]:
    """Columns of the metrics that are not measured, and why."""
    return {
        column: found.reason if isinstance(found, Unavailable) and name in asked else NOT_ASKED
        for name, found in offered.items()
        if isinstance(found, Unavailable) or name not in asked
        for column in (DETECTED if name == "face_found" else (name,))
    }


def requirements() -> dict[str, tuple[str, str, str]]:
    """Smallest size, what is needed and whether it is here, of each metric by name."""
    here, none = "yes", "-"
    found = {name: (str(metric.smallest), none, here) for name, metric in IMAGE_METRICS.items()}
    for name, net in LPIPS.items():
        trunk = perceptual.TRUNKS[net]
        found[name] = (str(trunk.smallest), trunk.weights, _here(trunk.weights))
    found |= {name: (str(2 * patch), "37 sharp patches", here) for name, patch in NIQE.items()}
    facenet = (str(embed.SMALLEST), embed.WEIGHTS, _here(embed.WEIGHTS))
    found |= {"identity_cosine": facenet, "verified": facenet}
    model = "an attribute model"
    loaded = here if shipped.ATTRIBUTES in attribute_names() else f"name {model}"
    found["attribute_cosine"] = ("1", f"{model} with features", loaded)
    found["face_found"] = (str(align.SMALLEST), "MTCNN", here)
    return found


def _here(weights: str) -> str:
    found = weights_of(weights)
    return f"pulse-audit fetch {weights}" if isinstance(found, Unavailable) else "yes"
