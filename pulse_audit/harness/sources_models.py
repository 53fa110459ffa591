"""The attribute models of ``--sources``: the one that guides, and the one that checks it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pulse_audit.faces.attributes import Column, checked, columns, is_differentiable
from pulse_audit.harness.plan import Plan
from pulse_audit.models import shipped
from pulse_audit.models.attributes import load_attributes
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.store.manifest import FaceEntry, Manifest
from pulse_audit.types import AttributeModel, InputError

NOBODY = "none"


@dataclass(frozen=True)
class SourceModels:
    """Who guides and who checks.

    Attributes
    ----------
    guide : AttributeModel
    columns : tuple of Column
        What the guide's predictions fill.
    guided_by : tuple of Column
        The labelled ones that guidance goes by.
    check : AttributeModel or None
    check_columns : tuple of Column
        What the check's predictions fill: ``check_<name>``.
    unchecked : str or None
        Why there is no check.
    training : mapping
        Arm -> attribute -> word -> faces, of generators whose card knows whom they saw.
    """

    guide: AttributeModel
    columns: tuple[Column, ...]
    guided_by: tuple[Column, ...]
    check: AttributeModel | None
    check_columns: tuple[Column, ...]
    unchecked: str | None
    training: Mapping[str, Mapping[str, Mapping[str, int]]]

    def entries(self, **more: Any) -> dict[str, Any]:
        """Entry of the manifest, as plain JSON values."""
        return {
            "guided_by": [column.name for column in self.guided_by],
            "guide": self.guide.card.name,
            "check": None if self.check is None else self.check.card.as_dict(),
            "unchecked": self.unchecked,
            "training": {arm: {a: dict(c) for a, c in of.items()} for arm, of in
                         self.training.items()},
            **more,
        }  # fmt: skip

    def guiding(self, images: Tensor) -> dict[str, Tensor]:
        """Probabilities of the attributes that guide, differentiable in the images."""
        answer = self.guide(images)
        return {column.name: column.probabilities(answer) for column in self.guided_by}

    def look_once(self, images: Tensor) -> list[dict[str, Any]]:
        """Columns ``sr_<a>`` and ``sr_<a>_p`` of each image, by the guide."""
        return predicted(self.guide, self.columns, images, "sr")

    def measure(self, images: Tensor, side: str) -> list[dict[str, Any]]:
        """Columns ``<side>_<a>`` by the guide and ``check_<a>`` by the check, with their ``_p``."""
        seen = predicted(self.guide, self.columns, images, side)
        if self.check is None:
            return seen
        second = predicted(self.check, self.check_columns, images, "check")
        return [{**one, **two} for one, two in zip(seen, second, strict=True)]


@torch.no_grad()
def predicted(
    model: AttributeModel, columns: Sequence[Column], images: Tensor, side: str
) -> list[dict[str, Any]]:
    """Predict the columns of each of (n, 3, R, R): ``<side>_<a>`` and ``<side>_<a>_p``."""
    answer = checked(model, images)
    rows: list[dict[str, Any]] = [{} for _ in images]
    for column in columns:
        for row, vector in zip(rows, column.probabilities(answer).double().tolist(), strict=True):
            row |= column.entries(side, vector)
    return rows


def settle_sources(plan: Plan, second: str | None) -> SourceModels:
    """Settle who guides and who checks, before anything is searched.

    The run's attribute model guides, toward the labels of the first grouping of which it predicts
    every column.

    Parameters
    ----------
    plan : Plan
    second : str or None
        The model that checks, see `load_attributes`; None means the shipped one where
        it is there, ``none`` means nobody.

    Raises
    ------
    InputError
        One line: no pulse arm, no attribute model, one that cannot guide, no grouping it could
        guide by, or a second model that cannot be used.
    """
    manifest, guide = plan.manifest, plan.instruments.attributes
    found = plan.instruments.columns
    searched = {name: arm for name, arm in plan.arms.items() if isinstance(arm, PulseUpsampler)}
    if not searched:
        raise InputError("--sources: asks what searches could have found; add a pulse arm")
    if guide is None:
        raise InputError("--sources: needs an attribute model; name one with --attributes")
    if not is_differentiable(guide):
        raise InputError(
            f"--sources: {guide.card.name} is not differentiable, so it cannot guide a search; "
            "name another with --attributes"
        )
    guided_by = _guided_by(found, manifest)
    check, why = _check(second, guide, torch.device(manifest.execution.device))
    seen_by_check = _check_columns(check, guide, found)
    missing = {column.name for column in guided_by} - {column.name for column in seen_by_check}
    if check is not None and missing:
        why = f"{check.card.name} does not predict {', '.join(sorted(missing))} in the same words"
        check, seen_by_check = None, ()
    training = {
        name: known
        for name, arm in searched.items()
        if (known := _training(arm.generator.card.training_composition, found))
    }
    return SourceModels(guide, tuple(found), guided_by, check, seen_by_check, why, training)


def _guided_by(found: Sequence[Column], manifest: Manifest) -> tuple[Column, ...]:
    """Labelled columns of the first grouping all of whose columns are predicted."""
    labelled = {column.name: column for column in found if column.labelled}
    for names in manifest.spec.groupings:
        if all(name in labelled for name in names):
            _check_labels([labelled[name] for name in names], manifest.faces)
            return tuple(labelled[name] for name in names)
    raise InputError(
        f"--sources: the attribute model predicts {', '.join(labelled) or 'no label of the data'}, "
        f"and no grouping asked for is made of those; add --group-by"
    )


def _check_labels(guided_by: Sequence[Column], faces: Sequence[FaceEntry]) -> None:
    for column in guided_by:
        for face in faces:
            if face.labels.get(column.name) not in column.words:
                raise InputError(
                    f"--sources: {face.id} has the label {face.labels.get(column.name)!r} "
                    f"in {column.name}, which the attribute model does not know"
                )


def _check(
    reference: str | None, guide: AttributeModel, device: torch.device
) -> tuple[AttributeModel | None, str | None]:
    """Load the model that checks; or say why there is none."""
    if reference == NOBODY:
        return None, "not asked for (--second-attributes none)"
    try:
        check = load_attributes(reference or shipped.CHECK, device)
    except InputError as error:
        if reference is not None:
            raise
        return None, str(error)
    # One file may define several models, each with a name of its own.
    if (check.card.sha256, check.card.name) == (guide.card.sha256, guide.card.name):
        if reference is not None:
            raise InputError(f"--second-attributes {reference}: it is the model that guides")
        return None, f"{check.card.name} is the model that guides"
    return check, None


def _check_columns(
    check: AttributeModel | None, guide: AttributeModel, found: Sequence[Column]
) -> tuple[Column, ...]:
    """Columns the check fills, in the guide's words."""
    if check is None:
        return ()
    if dict(check.card.vocabulary) == dict(guide.card.vocabulary):
        return tuple(found)
    words = {column.name: column.words for column in found if not column.derived}
    made, _ = columns(check.card.vocabulary, words)
    return tuple(c for c in made if c.name in words and set(c.words) == set(words[c.name]))


def _training(
    counted: Mapping[str, int] | None, found: Sequence[Column]
) -> dict[str, dict[str, int]]:
    """Training faces by attribute and word, for the columns whose words they are."""
    if not counted:
        return {}
    return {c.name: dict(counted) for c in found if set(counted) <= set(c.words)}
