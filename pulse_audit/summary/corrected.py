"""Rows corrected for the attribute model's errors: retention and the shift matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from pulse_audit.fairness.correction import CorrectedShift, corrected_shifts
from pulse_audit.fairness.shift import Draws
from pulse_audit.summary import comparisons
from pulse_audit.summary.attributes import AttributeLabels, Grouping
from pulse_audit.summary.groups import Subset
from pulse_audit.summary.schema import ALL, Detail, EstimateRow, SubsetKey, make_row
from pulse_audit.types import Estimate, Unavailable

#: Replicates of the sampling errors of a correction.
CORRECTION_REPLICATES = 1000


def graded(correction: CorrectedShift | None) -> Detail:
    """Grade of a correction, whose faces its errors were counted on, and how precise it is."""
    if correction is None:
        return {}
    detail: Detail = {"grade": correction.grade, "confusion": correction.confusion.source}
    if math.isfinite(correction.half_width):
        detail["half_width"] = correction.half_width
    return detail


def corrections(
    subsets: Sequence[Subset], groupings: Sequence[Grouping], seed: int
) -> dict[tuple[SubsetKey, str], CorrectedShift]:
    """Corrected shift of every arm in every attribute, by subset and attribute.

    The arms of a condition and scale are corrected together: a bootstrap replicate has the same
    faces in all of them.
    """
    settings: dict[tuple[str, int], list[Subset]] = {}
    for subset in subsets:
        settings.setdefault((subset.key.condition, subset.key.scale), []).append(subset)
    every = {g.labels.attribute: g.labels for g in groupings if g.labels is not None}
    corrected: dict[tuple[SubsetKey, str], CorrectedShift] = {}
    for attribute, labels in every.items():
        if isinstance(labels.confusion, Unavailable):
            continue
        for of_setting in settings.values():
            # draws of the arms that have faces with a group
            pairs = [(s.key, labels.draws(s.rows, s.faces)) for s in of_setting]
            arms = {key: draws for key, draws in pairs if draws is not None}
            shifts = corrected_shifts(
                list(arms.values()),
                labels.confusion,
                labels_from=labels.labels_from,
                replicates=CORRECTION_REPLICATES,
                seed=of_setting[0].seed(seed, "correction", attribute),
            )
            for key, correction in zip(arms, shifts, strict=True):
                corrected[key, attribute] = correction
    return corrected


def corrected_rows(
    subset: Subset,
    grouping: Grouping,
    labels: AttributeLabels,
    draws: Draws,
    correction: CorrectedShift | None,
) -> Iterator[EstimateRow]:
    """Retention and the shift matrix corrected for the attribute model's errors.

    The whole sample has its retention alone. Retention that cannot be corrected is null, with the
    reason; nothing where the model's errors are not known.
    """
    if correction is None:
        return

    def retention(group: str, share: Estimate | None, em: float = math.nan) -> EstimateRow:
        return make_row(
            subset.key,
            "retention",
            grouping.name,
            group,
            share or Unavailable(correction.reason or "no draw of this group"),
            correction="corrected",
            detail={
                "attribute": labels.attribute,
                **graded(correction),
                **({} if math.isnan(em) else {"em": em}),
            },
        )

    if grouping.name == ALL:
        # sum of the groups' retention, each weighted by its share of the faces
        yield retention(ALL, correction.combination(np.eye(draws.k), 0.0, 1.0, joint=True))
        return
    yield from comparisons.corrected_gap(subset, labels, draws, correction)
    for number, group in enumerate(labels.groups):
        if draws.composition[number] == 0:
            continue
        estimates = correction.estimates[number]
        yield retention(group, estimates[number], float(correction.em[number, number]))
        for to_group, share in zip(labels.groups, estimates, strict=True):
            if share is not None:
                yield make_row(
                    subset.key,
                    "shift",
                    labels.attribute,
                    group,
                    share,
                    to_group=to_group,
                    correction="corrected",
                    detail=graded(correction),
                )
