"""What a run measures with: decided when it is planned, and recorded in its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from pulse_audit import store
from pulse_audit.datasets.readers import FaceIndex
from pulse_audit.faces.attribute_net import ShippedAttributes
from pulse_audit.faces.attributes import Column
from pulse_audit.faces.attributes import columns as predicted_columns
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.metrics.definition import NOT_MEASURED, RunConditions
from pulse_audit.metrics.distribution import POOL3
from pulse_audit.metrics.registry import BY_NAME, MEASURED
from pulse_audit.models import shipped
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.published import fetched, get
from pulse_audit.plugins import load_metrics
from pulse_audit.store import Manifest
from pulse_audit.types import AttributeModel, InputError, Metric, Unavailable

NOT_REQUESTED = "not requested (--metrics)"


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
    second : AttributeModel or None
        The attribute model that checks the first.
    second_columns : tuple of Column
        Those of the first model's that the second predicts in the same words.
    unchecked : str or None
        Why there is no second model.
    """

    attributes: AttributeModel | None
    columns: tuple[Column, ...]
    metrics: Mapping[str, Mapping[str, Any]]
    images: tuple[Metric, ...]
    unavailable: Mapping[str, str]
    second: AttributeModel | None = None
    second_columns: tuple[Column, ...] = ()
    unchecked: str | None = None

    def entries(self, labels_from: str) -> dict[str, Any]:
        """Entries of the manifest."""
        card = None if self.attributes is None else self.attributes.card
        attributes = model_entry(self.attributes, self.columns, labels_from)
        second = model_entry(self.second, self.second_columns, labels_from)
        # Features for distances between sets: Inception's where fid is requested. Where its
        # weights are missing there are none: another network's would be taken for Inception's.
        features: dict[str, Any]
        if "fid" in self.metrics:
            network = self.metrics["fid"]["network"]
            features = {"network": network, "dim": POOL3, "why": None}
        elif "fid" in self.unavailable:
            features = {"network": None, "dim": None, "why": self.unavailable["fid"]}
        elif card is None:
            features = {"network": None, "dim": None, "why": "no attribute model"}
        else:
            why = None if card.feature_dim else f"attribute model {card.name} gives no features"
            features = {"network": card.name, "dim": card.feature_dim, "why": why}
        return {
            "attributes": attributes,
            "second_attributes": second,
            "features": features,
            "metrics": {name: dict(record) for name, record in self.metrics.items()},
            "unavailable": dict(self.unavailable),
        }

    def notes(self, crop: str) -> list[str]:
        """Say where the attribute model is applied to other crops than it was trained on."""
        card = None if self.attributes is None else self.attributes.card
        if card is None or card.crop in ("as-is", crop) or crop == "as-is":
            return []
        return [
            f"attribute model {card.name} was made for crop {card.crop} and sees {crop} here: it "
            f"errs more than its card says (--crop {card.crop} compares faces in its own)"
        ]


def resolve_metrics(
    spec: AuditSpec,
    index: FaceIndex,
    resolution: int,
    device: torch.device,
    earlier: Manifest | None = None,
) -> MetricSuite:
    """Decide what a run measures with.

    A run that is resumed (``earlier`` is its manifest) continues with the metrics it began with,
    whatever has been fetched since. ``index`` gives the words of the data set.

    Raises
    ------
    InputError
        If a named model or metric is unknown or cannot be used.
    """
    model, no_model = attribute_model(spec.attributes, device, resolution)

    # The metrics that are requested: by name, or all but those measured on request only.
    plugins = {metric.name: metric for metric in load_metrics(spec.metrics)}
    for name in plugins:
        if name in {*store.COLUMNS, *BY_NAME} or name.startswith(("label_", "hr_", "sr_")):
            raise InputError(f"metric {name!r}: there is a column of that name; rename it")
    if spec.metrics is None:
        requested = [name for name, metric in MEASURED.items() if not metric.on_request]
    else:
        requested = [*(name for name in MEASURED if name in spec.metrics), *plugins]
    if earlier is not None:
        requested = [name for name in requested if name in earlier.metrics]

    # What the manifest records of each metric, or why it is not measured.
    run = RunConditions(resolution, weights_of, None if model is None else model.card, no_model)
    records = {name: metric.in_run(run) for name, metric in MEASURED.items()}
    for name, plugin in plugins.items():
        better = "higher" if plugin.higher_is_better else "lower"
        record = {"columns": [name], "unit": plugin.unit, "better": better}
        records[name] = plugin.available(resolution) or record
    measured = {name: r for name in requested if not isinstance(r := records[name], Unavailable)}

    # Columns without values and why: a metric was not requested, or cannot be measured here.
    unavailable: dict[str, str] = {}
    for name, answer in records.items():
        columns = MEASURED[name].columns if name in MEASURED else (name,)
        if name not in requested:
            unavailable |= dict.fromkeys(columns, NOT_REQUESTED)
        elif isinstance(answer, Unavailable):
            unavailable |= dict.fromkeys(columns or (name,), answer.reason)

    # Metrics that need no weights are ready; networks are loaded when the work begins.
    images = [
        plugins.get(name) or MEASURED[name].load()
        for name in measured
        if name in plugins
        or (MEASURED[name].measured_from == "images" and not MEASURED[name].weights)
    ]
    # Columns of predictions: the attributes of the model in the words of the data set.
    predicted, foreign = (
        predicted_columns(
            model.card.vocabulary, index.vocabulary, index.derived, index.card.model_words
        )
        if model is not None
        else ([], {})
    )
    unavailable |= unpredicted(index, predicted, foreign, no_model)
    second, second_columns, unchecked = second_model(
        spec.second_attributes, model, predicted, device, resolution
    )
    return MetricSuite(
        model,
        tuple(predicted),
        measured,
        tuple(images),
        unavailable,
        second,
        second_columns,
        unchecked,
    )


def model_entry(
    model: AttributeModel | None, filled: Sequence[Column], labels_from: str
) -> dict[str, Any] | None:
    """Entry of an attribute model in the manifest, with the columns it fills."""
    if model is None:
        return None
    return {
        "name": model.card.name,
        "card": model.card.as_dict(),
        "vocabulary": {column.name: list(column.words) for column in filled},
        "predicted_as": {column.name: column.attribute for column in filled},
        "confusion": {
            column.name: counts.tolist()
            for column in filled
            if (counts := column.confusion(model.card)) is not None
        },
        "labels_from": labels_from,
    }


def attribute_model(
    reference: str | None, device: torch.device, resolution: int
) -> tuple[AttributeModel | None, str]:
    """Load the requested attribute model; None and the reason where there is none.

    A model that was named and cannot be used is an `InputError`; without the shipped one a run
    goes on.
    """
    if reference == "none":
        return None, "no attribute model was requested (--attributes none)"
    try:
        model = load_attributes(reference, device)
    except InputError as error:
        if reference is not None:
            raise
        return None, f"no attribute model: {error}"
    # Models that were measured at several image sizes give the card of the run's size.
    return (model.at_resolution(resolution) if isinstance(model, ShippedAttributes) else model), ""


def second_model(
    reference: str | None,
    first: AttributeModel | None,
    predicted: Sequence[Column],
    device: torch.device,
    resolution: int,
) -> tuple[AttributeModel | None, tuple[Column, ...], str | None]:
    """Load the model that checks the first, with the columns it fills, or why there is none.

    A model that was named and cannot be used is an `InputError`; without the shipped one there is
    no check.
    """
    if reference == "none":
        return None, (), "not requested (--second-attributes none)"
    if first is None:
        return None, (), "there is no attribute model to check"
    try:
        second = load_attributes(reference or shipped.CHECK, device)
    except InputError as error:
        if reference is not None:
            raise
        return None, (), str(error)
    if isinstance(second, ShippedAttributes):
        second = second.at_resolution(resolution)
    # One file may define several models, each with its own name.
    if (second.card.sha256, second.card.name) == (first.card.sha256, first.card.name):
        if reference is not None:
            raise InputError(f"--second-attributes {reference}: it is the first model")
        return None, (), f"{second.card.name} is the first model"
    if dict(second.card.vocabulary) == dict(first.card.vocabulary):
        return second, tuple(predicted), None
    # Another vocabulary: the columns that both predict in the same words.
    words = {column.name: column.words for column in predicted if not column.derived}
    common, _ = predicted_columns(second.card.vocabulary, words)
    same = tuple(c for c in common if c.name in words and set(c.words) == set(words[c.name]))
    if not same:
        names = ", ".join(words) or "anything"
        return None, (), f"{second.card.name} does not predict {names} in the same words"
    return second, same, None


def unpredicted(
    index: FaceIndex, predicted: Sequence[Column], foreign: Mapping[str, str], no_model: str
) -> dict[str, str]:
    """Why columns of predictions are empty that a model could have filled.

    ``foreign`` says why a model's words do not fit the data set, by attribute.
    """
    why = no_model or "the attribute model does not predict it"
    reasons = {**dict.fromkeys(store.PREDICTABLE, why), **foreign}
    # An attribute may be predicted in the words of another label column.
    reasons |= {
        column.attribute: f"the attribute model predicts it in the words of {column.name}"
        for column in reversed(predicted)
        if column.labelled and column.attribute in index.vocabulary
    }
    names = {column.name for column in predicted}
    return {
        f"{side}_{attribute}{suffix}": reason
        for attribute, reason in reasons.items()
        if attribute in index.vocabulary and attribute not in names
        for side in ("hr", "sr")
        for suffix in ("", "_p")
    }


def reasons_of_run(samples: pd.DataFrame, manifest: Manifest) -> dict[str, str]:
    """Say, after a run, why each column without a single value has none."""
    planned = manifest.unavailable
    # What was known at planning, then what fitting on the originals showed, then what is usual.
    fitted = {} if manifest.references is None else manifest.references.unavailable
    reasons = {**store.IF_EMPTY, **planned, **fitted}
    empty = [column for column in map(str, samples) if samples[column].isna().all()]
    # Requested metrics that have no column at all.
    absent = {c: why for c, why in planned.items() if c not in samples and why != NOT_REQUESTED}
    return {**{column: reasons.get(column, NOT_MEASURED) for column in empty}, **absent}


def weights_of(name: str) -> dict[str, str] | Unavailable:
    """Name and SHA-256 of fetched weights, or why they are not there; nothing is loaded."""
    try:
        return {"weights": name, "sha256": fetched(get(name))[1]}
    except InputError as error:
        return Unavailable(str(error))
