"""Rows of apparent groups: shift matrix, flows, shares, diversity, corrections, set fairness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np

from pulse_audit.fairness import sets, shift
from pulse_audit.fairness.cleam import cleam
from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.fairness.divergence import DIVERGENCES, Divergence
from pulse_audit.fairness.hierarchical import hierarchical_shift
from pulse_audit.fairness.pooling import partial_pooling
from pulse_audit.fairness.published_tests import published_p_values
from pulse_audit.fairness.sets import Joint, joint_shares
from pulse_audit.fairness.shift import Draws
from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.stats.intervals import IntArray, proportion_interval
from pulse_audit.store.manifest import PlantedTruth
from pulse_audit.summary.attributes import AttributeLabels, Grouping, group_numbers
from pulse_audit.summary.corrected import graded
from pulse_audit.summary.groups import JOIN, NONE, Subset
from pulse_audit.summary.schema import ALL, Correction, Detail, EstimateRow, make_row
from pulse_audit.types import Estimate, Unavailable

#: Column of the shift matrix for outputs without an apparent group.
NOT_CLASSIFIED = "not classified"
#: Method of shares that are known.
COUNTED = "counted from the labels of the faces returned: no interval"
#: Bootstrap replicates of set fairness.
SET_REPLICATES = 500

#: What a cell of a matrix holds.
Cell = TypeVar("Cell")
Property: TypeAlias = Callable[[Joint, Divergence], sets.SetEstimate | Unavailable]
#: RDP and PR start from the labelled groups, CPR and SPE from the apparent ones of the originals.
FROM_LABELS: Mapping[str, Property] = {"rdp": sets.rdp, "pr": sets.pr}
FROM_ORIGINALS: Mapping[str, Property] = {"cpr": sets.cpr, "spe": sets.spe}


def no_face_of_originals(subset: Subset, grouping: Grouping) -> Iterator[EstimateRow]:
    """Share of originals in which the detector finds no face: the baseline of outputs."""
    if "hr_face_found" not in subset.samples or subset.samples["hr_face_found"].isna().all():
        return
    # one row per face: every draw of a face repeats what was found on its original
    faces, first = np.unique(subset.faces, return_index=True)
    detected = subset.samples["hr_face_found"].astype("float64").to_numpy()[first]
    groups = grouping.of_draw[subset.rows[first]]
    shares = shift.shares(1.0 - detected, faces, groups, len(grouping.groups))
    for group, share in zip(grouping.groups, shares, strict=True):
        if share is not None:
            yield make_row(
                subset.key,
                "no_face_rate",
                grouping.name,
                group,
                share,
                correction="original_baseline",
            )


def retention_of_originals(
    subset: Subset, grouping: Grouping, labels: AttributeLabels
) -> Iterator[EstimateRow]:
    """Retention of the originals, which a perfect upsampler would score, in any grouping."""
    faces, first = np.unique(subset.faces, return_index=True)
    rows = subset.rows[first]
    if not labels.has_baseline(rows):
        return
    # (faces,): 1 where the original is classified as labelled, NaN where one of both is missing
    classified = (labels.truth[rows] != NONE) & (labels.original[rows] != NONE)
    hits = np.where(classified, labels.original[rows] == labels.truth[rows], np.nan)
    shares = shift.shares(
        hits.astype(np.float64), faces, grouping.of_draw[rows], len(grouping.groups)
    )
    for group, share in zip(grouping.groups, shares, strict=True):
        if share is not None:
            yield make_row(
                subset.key,
                "retention",
                grouping.name,
                group,
                share,
                correction="original_baseline",
                detail=labels.detail,
            )


def diversity_rows(
    subset: Subset, grouping: Grouping, labels: AttributeLabels, seed: int
) -> Iterator[EstimateRow]:
    """Flip rate and entropy of the apparent group over the draws of a face, in any grouping."""
    of_draw = grouping.of_draw[subset.rows]
    for number, group in enumerate(grouping.groups):
        inside = of_draw == number
        draws = labels.draws(subset.rows[inside], subset.faces[inside])
        if draws is None:
            continue
        # both need two draws of a face; entropy is bootstrapped over faces, flip rate is not
        key = subset.seed(seed, "entropy", grouping.name, group)
        entropy = shift.entropy(draws, seed=key)
        if isinstance(entropy, Estimate):
            # no more than that of even groups, but for what the estimator adds on few draws
            most = max(math.log(draws.k), entropy.value)
            entropy = replace(BY_NAME["entropy"], upper_bound=most).bounded(entropy)
        estimates = {"flip_rate": shift.flip_rate(draws), "entropy": entropy}
        for metric, estimate in estimates.items():
            detail: Detail = {"attribute": labels.attribute}
            yield make_row(subset.key, metric, grouping.name, group, estimate, detail=detail)


def pooled_retention(
    subset: Subset, grouping: Grouping, labels: AttributeLabels
) -> Iterator[EstimateRow]:
    """Retention of the cells of an intersection, shrunk toward an additive model of its parts."""
    # "Black × Female" -> ["Black", "Female"]
    parts = [group.split(JOIN) for group in grouping.groups]
    if "," not in grouping.name or len(parts) < 3:
        return
    labelled = labels.truth[subset.rows] != NONE
    rows = subset.rows[labelled]
    retained = labels.truth[rows] == labels.output[rows]
    cells = grouping.of_draw[rows]
    pooled = partial_pooling(retained, subset.faces[labelled], cells, parts)
    for number, cell in enumerate(pooled):
        # a cell without draws would have the prediction of the others alone
        if (cells == number).any():
            yield make_row(
                subset.key,
                "retention_pooled",
                grouping.name,
                grouping.groups[number],
                cell.estimate,
                detail={**labels.detail, "shrunk": cell.shrunk},
            )


def pooled_matrix_rows(
    subset: Subset, labels: AttributeLabels, draws: Draws, seed: int
) -> Iterator[EstimateRow]:
    """Cells of the shift matrix under the hierarchical model; nothing with fewer than 3 groups."""
    if np.count_nonzero(draws.composition) < 3:
        return
    cells = hierarchical_shift(draws, seed=subset.seed(seed, "hierarchical", labels.attribute))
    for group, to_group, cell in occupied_cells(labels, draws, cells):
        yield make_row(
            subset.key,
            "shift_pooled",
            labels.attribute,
            group,
            cell.estimate,
            to_group=to_group,
            detail={"shrunk": cell.shrunk},
        )


def matrix_rows(subset: Subset, labels: AttributeLabels, draws: Draws) -> Iterator[EstimateRow]:
    """Cells of the shift matrix, of the outputs and of the originals themselves."""
    matrices: dict[Correction, Draws | None] = {
        "raw": draws,
        "original_baseline": _original_draws(subset, labels),
    }
    for correction, of_matrix in matrices.items():
        if of_matrix is None:
            continue
        cells = shift.shift_matrix(of_matrix)
        for group, to_group, share in occupied_cells(labels, of_matrix, cells):
            yield make_row(
                subset.key,
                "shift",
                labels.attribute,
                group,
                share,
                to_group=to_group,
                correction=correction,
            )


def occupied_cells(
    labels: AttributeLabels, draws: Draws, cells: Sequence[Sequence[Cell | None]]
) -> Iterator[tuple[str, str, Cell]]:
    """Group, apparent group and content of every cell of a (k, k + 1) matrix that has one.

    The column "not classified" is there only where such draws are.
    """
    columns = [*labels.groups, NOT_CLASSIFIED]
    unclassified = bool((draws.predicted == shift.UNCLASSIFIED).any())
    for group, row in zip(labels.groups, cells, strict=True):
        for to_group, cell in zip(columns, row, strict=True):
            if cell is not None and (to_group != NOT_CLASSIFIED or unclassified):
                yield group, to_group, cell


def _original_draws(subset: Subset, labels: AttributeLabels) -> Draws | None:
    """Take the originals as draws, one a face; None where they have no predictions."""
    labelled = labels.truth[subset.rows] != NONE
    rows = subset.rows[labelled]
    if not labels.has_baseline(rows):
        return None
    return shift.original_baseline(
        subset.faces[labelled], labels.truth[rows], labels.original[rows], len(labels.groups)
    )


def planted_rows(subset: Subset, grouping: Grouping, truth: PlantedTruth) -> Iterator[EstimateRow]:
    """Matrix that a planted arm realised, counted from the labels of the faces it returned.

    ``grouping`` is the run's first, over whose groups the matrix was planted; the probabilities
    that the arm was given are in the detail ``planted``.
    """
    if "planted_group" not in subset.samples:
        return
    returned = group_numbers(subset.samples["planted_group"], truth.groups)
    of_draw = grouping.of_draw[subset.rows]
    for number, group in enumerate(grouping.groups):
        inside = (of_draw == number) & (returned != NONE)
        if group not in truth.groups or not inside.any():
            continue
        planted = truth.matrix[truth.groups.index(group)]
        n_faces, n_draws = len(np.unique(subset.faces[inside])), int(inside.sum())
        counts = np.bincount(returned[inside], minlength=len(truth.groups))
        for to_group, count, probability in zip(truth.groups, counts, planted, strict=True):
            share = Estimate(count / n_draws, math.nan, math.nan, n_faces, n_draws, COUNTED)
            yield make_row(
                subset.key,
                "planted_shift",
                grouping.name,
                group,
                share,
                to_group=to_group,
                detail={"planted": probability},
            )


def net_flow_rows(
    subset: Subset, labels: AttributeLabels, draws: Draws, correction: CorrectedShift | None
) -> Iterator[EstimateRow]:
    """Net flow between every two groups that have faces, and each group's from all others.

    Raw, of the originals as outputs, and corrected. A gain is the share of all draws whose output
    is of a group less the share whose output is classified and whose face is of it: draws without
    an apparent group are neither gained nor lost, so it is not output share less input share.
    """
    # flows[i][j]: share of all draws that turn from i into j, less those that turn from j into i
    sides: list[tuple[Correction, list[list[Estimate | None]], list[Estimate | None]]] = [
        ("raw", shift.net_flows(draws), shift.net_gains(draws))
    ]
    if (originals := _original_draws(subset, labels)) is not None:
        baseline = shift.net_flows(originals), shift.net_gains(originals)
        sides.append(("original_baseline", *baseline))
    if correction is not None:
        sides.append(("corrected", correction.net_flows(), correction.net_gains()))
    for side, flows, gains in sides:
        for group, gain, of_group in zip(labels.groups, gains, flows, strict=True):
            for to_group, flow in zip([None, *labels.groups], [gain, *of_group], strict=True):
                if flow is not None:
                    yield make_row(
                        subset.key,
                        "net_flow",
                        labels.attribute,
                        group,
                        flow,
                        to_group=to_group,
                        correction=side,
                        detail=graded(correction) if side == "corrected" else None,
                    )


def output_share_rows(
    subset: Subset, labels: AttributeLabels, draws: Draws, correction: CorrectedShift | None
) -> Iterator[EstimateRow]:
    """Share of each apparent group among all draws, and among the originals; corrected, and CLEAM.

    CLEAM takes the attribute model's accuracy as known; its row stands beside the corrected share
    wherever there is one.
    """
    _, first = np.unique(subset.faces, return_index=True)
    sides: tuple[tuple[Correction, IntArray, IntArray], ...] = (
        ("raw", labels.output[subset.rows], subset.faces),
        ("original_baseline", labels.original[subset.rows[first]], subset.faces[first]),
    )
    for correction_of, predicted, faces in sides:
        # originals have no apparent groups where they were not classified
        if not (predicted != NONE).any():
            continue
        for number, group in enumerate(labels.groups):
            share = proportion_interval((predicted == number).astype(np.float64), faces)
            yield make_row(
                subset.key, "output_share", labels.attribute, group, share, correction=correction_of
            )
    if correction is None or correction.grade == "unavailable":
        return
    published = cleam(draws.faces, draws.predicted, correction.confusion.shares)
    for metric, shares in (
        ("output_share", correction.output_shares()),
        ("output_share_cleam", published),
    ):
        for group, corrected in zip(labels.groups, shares, strict=True):
            if corrected is not None:
                yield make_row(
                    subset.key,
                    metric,
                    labels.attribute,
                    group,
                    corrected,
                    correction="corrected",
                    detail=graded(correction),
                )


def mirrored_draws(subset: Subset, labels: AttributeLabels) -> tuple[Draws, IntArray] | None:
    """Draws whose input group is the apparent one of the original, for CPR and SPE.

    With the labelled groups, within which faces are still resampled: the set fixes those. None
    where no original has an apparent group.
    """
    classified = labels.original[subset.rows] != NONE
    classified &= labels.truth[subset.rows] != NONE
    if not classified.any():
        return None
    rows, k = subset.rows[classified], len(labels.groups)
    draws = Draws(subset.faces[classified], labels.original[rows], labels.output[rows], k)
    return draws, labels.truth[rows]


def set_fairness_rows(
    subset: Subset, labels: AttributeLabels, draws: Draws, seed: int
) -> Iterator[EstimateRow]:
    """RDP, PR, CPR and SPE in every divergence.

    RDP and PR start from the labelled groups, as published, and so have a baseline: the originals
    as outputs. CPR and SPE start from the apparent groups of the originals, so that errors of the
    model fall on both sides alike.
    """
    key = subset.seed(seed, "sets", labels.attribute)
    # properties, correction, draws, and the groups in which faces are resampled (default: truth)
    parts: list[tuple[Mapping[str, Property], Correction, Draws, IntArray | None]] = [
        (FROM_LABELS, "raw", draws, None)
    ]
    if (originals := _original_draws(subset, labels)) is not None:
        parts.append((FROM_LABELS, "original_baseline", originals, None))
    if (mirrored := mirrored_draws(subset, labels)) is not None:
        parts.append((FROM_ORIGINALS, "raw", *mirrored))
    for properties, correction, chosen, strata in parts:
        # the tests of an earlier suite start from the labels too
        for name, p_value in published_p_values(chosen).items() if strata is None else ():
            yield make_row(subset.key, name, labels.attribute, ALL, p_value, correction=correction)
        # one set of resamples serves every property and divergence
        joint = joint_shares(chosen, seed=key, strata=strata, replicates=SET_REPLICATES)
        for name, measure in properties.items():
            for divergence in DIVERGENCES:
                result = measure(joint, divergence)
                yield make_row(
                    subset.key,
                    f"{name}_{divergence}",
                    labels.attribute,
                    ALL,
                    result if isinstance(result, Unavailable) else result.estimate,
                    correction=correction,
                    detail=None if isinstance(result, Unavailable) else {"plug_in": result.plug_in},
                )
