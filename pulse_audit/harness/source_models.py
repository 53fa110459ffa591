"""The attribute models of ``--sources``: the one that guides, and the one that checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pulse_audit.faces.attributes import Column, checked, is_differentiable
from pulse_audit.harness.plan import Plan
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import AttributeModel, InputError


@dataclass(frozen=True)
class SourceModels:
    """The models that guide and check.

    Attributes
    ----------
    guide : AttributeModel
    columns : tuple of Column
        Filled by the guide's predictions.
    guided_by : tuple of Column
        The labelled ones that searches are guided by.
    check : AttributeModel or None
    check_columns : tuple of Column
        Filled by the check's predictions: ``check_<name>``.
    unchecked : str or None
        Why there is no check.
    training : mapping
        Arm -> attribute -> word -> training faces, for generators whose card states them.
    """

    guide: AttributeModel
    columns: tuple[Column, ...]
    guided_by: tuple[Column, ...]
    check: AttributeModel | None
    check_columns: tuple[Column, ...]
    unchecked: str | None
    training: Mapping[str, Mapping[str, Mapping[str, int]]]

    def manifest_entry(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entry of the manifest, as plain JSON values."""
        training = {
            arm: {attribute: dict(counts) for attribute, counts in attributes.items()}
            for arm, attributes in self.training.items()
        }
        return {
            "guided_by": [column.name for column in self.guided_by],
            "guide": self.guide.card.name,
            "check": None if self.check is None else self.check.card.as_dict(),
            "unchecked": self.unchecked,
            "training": training,
            "settings": dict(settings),
        }

    def guiding_probabilities(self, images: Tensor) -> dict[str, Tensor]:
        """Probabilities (n, k) of the attributes that guide, differentiable in the images."""
        prediction = self.guide(images)
        return {column.name: column.probabilities(prediction) for column in self.guided_by}

    def predict(self, images: Tensor, side: str) -> list[dict[str, Any]]:
        """Columns ``<side>_<a>`` and ``<side>_<a>_p`` of each image, by the guide."""
        return predicted_columns(self.guide, self.columns, images, side)

    def predict_and_check(self, images: Tensor, side: str) -> list[dict[str, Any]]:
        """Columns ``<side>_<a>`` by the guide and ``check_<a>`` by the check, with their ``_p``."""
        rows = self.predict(images, side)
        if self.check is None:
            return rows
        checks = predicted_columns(self.check, self.check_columns, images, "check")
        return [{**row, **check} for row, check in zip(rows, checks, strict=True)]


@torch.no_grad()
def predicted_columns(
    model: AttributeModel, columns: Sequence[Column], images: Tensor, side: str
) -> list[dict[str, Any]]:
    """Predict the columns of each of (n, 3, R, R): ``<side>_<a>`` and ``<side>_<a>_p``."""
    prediction = checked(model, images)
    rows: list[dict[str, Any]] = [{} for _ in images]
    for column in columns:
        # (n, k) -> n vectors of k probabilities
        vectors = column.probabilities(prediction).double().tolist()
        for row, vector in zip(rows, vectors, strict=True):
            row |= column.entries(side, vector)
    return rows


def resolve_sources(plan: Plan) -> SourceModels:
    """Find the models that guide and check, before anything is searched.

    The run's attribute model guides, toward the labels of the first grouping of which it predicts
    every column; its second one checks.

    Raises
    ------
    InputError
        One line: no pulse arm, no attribute model, one that cannot guide, no grouping it could
        guide by.
    """
    guide, predicted = plan.suite.attributes, plan.suite.columns
    searched = {name: arm for name, arm in plan.arms.items() if isinstance(arm, PulseUpsampler)}
    if not searched:
        raise InputError("--sources: searches again with guidance; add a pulse arm")
    if guide is None:
        raise InputError("--sources: needs an attribute model; name one with --attributes")
    if not is_differentiable(guide):
        raise InputError(
            f"--sources: {guide.card.name} is not differentiable, so it cannot guide a search; "
            "name another with --attributes"
        )

    # Guidance goes by the first grouping whose columns are all labelled and predicted alike.
    labelled = {column.name: column for column in predicted if column.labelled}
    groupings = plan.manifest.spec.groupings
    grouping = next((names for names in groupings if set(names) <= set(labelled)), None)
    if grouping is None:
        raise InputError(
            "--sources: the attribute model predicts "
            f"{', '.join(labelled) or 'no label of the data'}, "
            "and no requested grouping consists of these; add --group-by"
        )
    guided_by = tuple(labelled[name] for name in grouping)
    for column in guided_by:
        for face in plan.manifest.faces:
            if face.labels.get(column.name) not in column.words:
                raise InputError(
                    f"--sources: {face.id} has the label {face.labels.get(column.name)!r} "
                    f"in {column.name}, which the attribute model does not know; group by another "
                    "column first"
                )

    # The second model, which has to predict the same attributes in the same words.
    check, check_columns = plan.suite.second, plan.suite.second_columns
    unchecked = plan.suite.unchecked
    unknown = {column.name for column in guided_by} - {column.name for column in check_columns}
    if check is not None and unknown:
        names = ", ".join(sorted(unknown))
        unchecked = f"{check.card.name} does not predict {names} in the same words"
        check, check_columns = None, ()

    # Training counts are over the words of one attribute; the card does not say of which.
    training = {}
    for name, arm in searched.items():
        counts = arm.generator.card.training_composition
        matching = [c.name for c in predicted if counts and set(counts) <= set(c.words)]
        if counts and matching:
            training[name] = {column_name: dict(counts) for column_name in matching}
    return SourceModels(
        guide, tuple(predicted), guided_by, check, check_columns, unchecked, training
    )
