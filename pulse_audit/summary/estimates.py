"""Samples -> estimates with intervals, for every group of every arm, condition and scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.metrics.definition import MetricDefinition, numbers
from pulse_audit.metrics.group_metrics import OUTCOME_METRICS
from pulse_audit.metrics.registry import PSNR_CEILING, metrics_of_run
from pulse_audit.stats import bootstrap
from pulse_audit.stats.distances import (
    KernelDistance,
    frechet_distance,
    kernel_distance,
    widest_gap,
)
from pulse_audit.stats.intervals import (
    FloatArray,
    IntArray,
    intraclass_correlation,
    proportion_interval,
)
from pulse_audit.store import Manifest, Ratings, Run
from pulse_audit.store.priors import PriorTable
from pulse_audit.summary import comparisons, corrected, shift
from pulse_audit.summary.attributes import (
    AttributeLabels,
    Grouping,
    make_groupings,
    retention_columns,
)
from pulse_audit.summary.findings import findings, first_screen, on_trial
from pulse_audit.summary.groups import DRAW_KEYS, Subset, face_numbers, make_subsets
from pulse_audit.summary.hand import Drift, HandLabels, drift_rows, drifts
from pulse_audit.summary.priors import prior_rows, prior_sentences
from pulse_audit.summary.ratings import judgements
from pulse_audit.summary.schema import (
    ALL,
    SCHEMA_VERSION,
    Detail,
    EstimateRow,
    Finding,
    SubsetKey,
    Summary,
    make_row,
)
from pulse_audit.summary.second import agreement_rows, as_second_sees, second_rows
from pulse_audit.summary.sources import source_rows, unavailable_sources
from pulse_audit.types import Estimate, Unavailable

Array: TypeAlias = NDArray[np.floating[Any]]

#: Metrics of apparent groups, which no grouping can have without predictions.
APPARENT = (
    *(metric.name for metric in OUTCOME_METRICS),
    *("retention_corrected", "shift", "shift_pooled", "net_flow", "flip_rate", "entropy"),
)
#: Distances between features of outputs and of originals.
DISTANCES = ("kid", "fid", "gpi_kid")


def summarise_run(run: Run, samples: pd.DataFrame | None = None) -> Summary:
    """Summarise all that a run directory holds: samples, features, ``sources/``, people's labels.

    Raises
    ------
    InputError
        If something stored cannot be read, or does not fit the manifest.
    """
    frame = run.samples() if samples is None else samples
    stored = run.read_hand_labels()
    hand_labels = None if stored is None else stored.labels
    return summarise(
        run.manifest,
        frame,
        run.features(),
        run.source_tables(),
        hand_labels,
        run.read_priors(),
        run.read_ratings(),
    )


def summarise(
    manifest: Manifest,
    samples: pd.DataFrame,
    features: tuple[Array, Mapping[str, Array]] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
    hand_labels: HandLabels | None = None,
    priors: Mapping[str, PriorTable] | None = None,
    ratings: Ratings | None = None,
) -> Summary:
    """Estimate every metric for every group under every arm, condition and scale.

    Proportions are over all draws and get Wilson intervals at the effective sample size; other
    metrics are means over the draws that were measured and get face-cluster BCa intervals. The
    same samples in any order give the same summary.

    Parameters
    ----------
    manifest : Manifest
        The run's manifest.
    samples : DataFrame
        One row a draw, columns as in the samples of a run.
    features : tuple, optional
        As `pulse_audit.store.Run.features` returns them, aligned with ``samples``.
    tables : mapping of str to DataFrame, optional
        Of ``sources/``, as `pulse_audit.store.Run.source_tables` returns them.
    hand_labels : mapping of str to mapping, optional
        Words that people gave to outputs, by image and attribute.
    priors : mapping of str to PriorTable, optional
        Samples of the priors of searches, as `pulse_audit.store.Run.read_priors` returns them.

    ratings : Ratings, optional
        What raters answered. The group that most of them saw labels an output that
        ``hand_labels`` do not.

    Raises
    ------
    InputError
        If a grouping names a column the samples do not have.
    """
    # Samples in the order of draws; the index of by_draw says where each row was.
    # Probabilities, of which nothing here is made, are most of a large run's bytes.
    kept = samples.drop(columns=[name for name in samples if name in probabilities(manifest)])
    by_draw = kept.reset_index(drop=True).sort_values(DRAW_KEYS, kind="stable")
    frame = by_draw.reset_index(drop=True)
    seed, reasons = manifest.spec.seed, manifest.unavailable

    # Metrics of which a column is missing or empty are listed with the reason, not estimated.
    metrics = metrics_of_run(manifest.metrics)
    missing = {m.name: reason for m in metrics if (reason := m.missing(frame, reasons))}
    metrics = [metric for metric in metrics if metric.name not in missing]
    unavailable = {**reasons, **missing}

    # Apparent groups need predictions, and corrections the model's errors.
    groupings = make_groupings(manifest, frame)
    labels = groupings[0].labels
    if len(frame) and all(grouping.labels is None for grouping in groupings):
        recorded = [reasons.get(f"sr_{grouping.name}") for grouping in groupings]
        reason = next(filter(None, recorded), "no grouping of this run has predicted groups")
        unavailable |= dict.fromkeys(APPARENT, reason)
    elif labels is not None and isinstance(labels.confusion, Unavailable):
        unavailable["retention_corrected"] = labels.confusion.reason
    for grouping in groupings[1:]:
        other = grouping.labels
        if other is not None and other is not labels and isinstance(other.confusion, Unavailable):
            unavailable[f"retention_corrected by {grouping.name}"] = other.confusion.reason

    # Distances need features of the outputs and of the originals.
    aligned = align_features(manifest, features, by_draw)
    if isinstance(aligned, Unavailable):
        unavailable |= dict.fromkeys(DISTANCES, aligned.reason)

    subsets, rows = list(make_subsets(manifest, frame)), list[EstimateRow]()
    corrections = corrected.corrections(subsets, groupings, seed)
    for subset in subsets:
        rows += subset_rows(subset, metrics, groupings, corrections, seed)
        arm = manifest.arms.get(subset.key.arm)
        if arm is not None and arm.truth is not None and len(groupings) > 1:
            rows += shift.planted_rows(subset, groupings[1], arm.truth)
        if not isinstance(aligned, Unavailable):
            rows += [
                row for grouping in groupings for row in distance_rows(subset, grouping, aligned)
            ]
    # The same images under the second attribute model.
    second_groupings, second = under_second_model(manifest, frame, subsets)
    if second_groupings and manifest.second_attributes is not None:
        name = manifest.second_attributes.name
        for subset in subsets:
            rows += second_rows(subset, second_groupings, second, name)
            rows += agreement_rows(subset, groupings, second_groupings, name)
    # What raters say, and the groups that most of them saw.
    said: list[Finding] = []
    if ratings is not None:
        setting = subsets[0].key[1:] if subsets else None
        judged, said, seen = judgements(ratings, manifest, frame, groupings, setting)
        rows += judged
        hand_labels = {**seen, **(hand_labels or {})} or None
    # The attribute model's accuracy on outputs, where people labelled some.
    found: list[Drift] = []
    if hand_labels is not None:
        found, without = drifts(manifest, frame, subsets, groupings, hand_labels)
        rows += drift_rows(found)
        unavailable |= without
    # Arms are compared on the whole sample and in the first grouping of the run alone.
    arms = on_trial(manifest, [subset.key.arm for subset in subsets])
    rows += comparisons.arm_comparisons(subsets, groupings[:2], arms, seed)
    if tables is not None:
        rows += source_rows(tables, frame, manifest)
    if priors is not None:
        rows += prior_rows(priors, manifest)
        unavailable |= unavailable_sources(rows, manifest)
    return Summary(
        schema=SCHEMA_VERSION,
        estimates=rows,
        unavailable=dict(sorted(unavailable.items())),
        findings=[
            *findings(manifest, rows, subsets, groupings, corrections, second, found),
            *said,
            *(Finding(text=each) for each in prior_sentences(priors or {}, manifest)),
        ],
    )


def probabilities(manifest: Manifest) -> set[str]:
    """Columns that hold a number for each word of an attribute."""
    predicted = [] if manifest.attributes is None else manifest.attributes.vocabulary
    return {f"{side}_{name}_p" for name in predicted for side in ("hr", "sr")}


def under_second_model(
    manifest: Manifest, frame: pd.DataFrame, subsets: Sequence[Subset]
) -> tuple[list[Grouping], dict[tuple[SubsetKey, str], CorrectedShift]]:
    """Make groupings and corrections by the second attribute model; both empty without one."""
    seen = as_second_sees(manifest, frame)
    if seen is None:
        return [], {}
    groupings = make_groupings(*seen)
    return groupings, corrected.corrections(subsets, groupings, manifest.spec.seed)


def first_screen_of(manifest: Manifest, samples: pd.DataFrame) -> list[Finding]:
    """Make the findings of the first screen, as `summarise` does, and no other estimate.

    Parameters and errors as in `summarise`.
    """
    frame = samples.sort_values(DRAW_KEYS, kind="stable", ignore_index=True)
    groupings, subsets = make_groupings(manifest, frame), list(make_subsets(manifest, frame))
    corrections = corrected.corrections(subsets, groupings, manifest.spec.seed)
    _, second = under_second_model(manifest, frame, subsets)
    return first_screen(manifest, subsets, groupings, corrections, second)


def subset_rows(
    subset: Subset,
    metrics: Sequence[MetricDefinition],
    groupings: Sequence[Grouping],
    corrections: Mapping[tuple[SubsetKey, str], CorrectedShift],
    seed: int,
) -> Iterator[EstimateRow]:
    """All rows of an arm under a condition and scale but for distances; the order is the file's."""
    for metric in metrics:
        values = metric.values(subset.samples)
        for place, grouping in enumerate(groupings):
            yield from metric_rows(subset, metric, values, grouping, seed)
            # bootstrapped comparisons of means are for the run's first grouping alone
            if metric.kind == "proportion" or place == 1:
                yield from comparisons.group_comparisons(subset, metric, values, grouping, seed)
    # What the outputs show, in the attribute that each grouping compares.
    for grouping in groupings:
        yield from shift.no_face_of_originals(subset, grouping)
        labels = grouping.labels
        if labels is None:
            continue
        yield from retention_rows(subset, grouping, labels, seed)
        draws = labels.draws(subset.rows, subset.faces)
        if draws is None:
            continue
        yield from shift.diversity_rows(subset, grouping, labels, seed)
        yield from shift.retention_of_originals(subset, grouping, labels)
        yield from shift.pooled_retention(subset, grouping, labels)
        # from group to group: only where outputs have the groups of the grouping themselves
        correction = corrections.get((subset.key, labels.attribute))
        if grouping.by_attribute:
            yield from shift.matrix_rows(subset, labels, draws)
            yield from shift.pooled_matrix_rows(subset, labels, draws, seed)
            yield from shift.net_flow_rows(subset, labels, draws, correction)
            yield from shift.output_share_rows(subset, labels, draws, correction)
        if grouping.by_attribute or grouping.name == ALL:
            yield from corrected.corrected_rows(subset, grouping, labels, draws, correction)
        if grouping.by_attribute:
            yield from shift.set_fairness_rows(subset, labels, draws, seed)


def metric_rows(
    subset: Subset, metric: MetricDefinition, values: FloatArray, grouping: Grouping, seed: int
) -> Iterator[EstimateRow]:
    """Estimate one metric, with one number a draw (NaN: not measured), in every group."""
    of_draw, measured = grouping.of_draw[subset.rows], ~np.isnan(values)
    # The within-face correlation of rates is pooled over groups: small groups cannot tell it.
    icc = None
    if metric.kind == "proportion" and measured.any():
        icc = intraclass_correlation(values[measured], subset.faces[measured], of_draw[measured])
    for number, group in enumerate(grouping.groups):
        inside = of_draw == number
        if not inside.any():
            continue
        numbers_inside, faces = values[inside & measured], subset.faces[inside & measured]
        estimate: Estimate | Unavailable
        if not len(numbers_inside):
            estimate = Unavailable(f"not measured: none of {inside.sum()} draws has a value")
        elif metric.kind == "proportion":
            estimate = proportion_interval(numbers_inside, faces, icc)
        else:
            key = subset.seed(seed, metric.name, grouping.name, group)
            estimate = bootstrap.cluster_bca(
                numbers_inside, faces, seed=key, statistic=metric.statistic or bootstrap.mean
            )
            # Student's interval of a few faces may reach beyond the range of the quantity.
            estimate = metric.bounded(estimate)
            if metric.name == "psnr":
                identical = int(np.isposinf(numbers(subset.samples, "psnr")[inside]).sum())
                caveat = f"; {identical} identical images counted as {PSNR_CEILING:.0f} dB"
                estimate = replace(estimate, method=estimate.method + caveat * (identical > 0))
        yield make_row(subset.key, metric.name, grouping.name, group, estimate)


def retention_rows(
    subset: Subset, grouping: Grouping, labels: AttributeLabels, seed: int
) -> Iterator[EstimateRow]:
    """Retention and conversion by group, and the comparisons of groups in them."""
    columns = retention_columns(subset, labels)
    of_draw, labelled = grouping.of_draw[subset.rows], columns["retention"].notna().to_numpy()
    for metric in OUTCOME_METRICS:
        values = metric.values(columns)
        for row in metric_rows(subset, metric, values, grouping, seed):
            # the share of the group's draws that a conditional rate leaves out
            draws = int(labelled[of_draw == grouping.groups.index(row.group)].sum())
            excluded = 1 - row.n_draws / draws if draws else 0.0
            detail = labels.detail
            if excluded:
                detail["excluded"] = round(excluded, 10)
            yield row.model_copy(update={"detail": detail})
        yield from comparisons.group_comparisons(subset, metric, values, grouping, seed)


@dataclass(frozen=True, eq=False)
class AlignedFeatures:
    """Features by one network.

    Parameters
    ----------
    network : str
    outputs : ndarray, (rows, d)
        Aligned with the samples; NaN where a draw has no output.
    originals : ndarray, (faces, d)
        By face number; NaN where a face has none.
    """

    network: str
    outputs: Array
    originals: Array


def align_features(
    manifest: Manifest,
    features: tuple[Array, Mapping[str, Array]] | None,
    by_draw: pd.DataFrame,
) -> AlignedFeatures | Unavailable:
    """Bring features into the order of sorted samples, whose index says where each row was."""
    if features is None:
        return Unavailable(manifest.features.why or "this run keeps no features of outputs")
    outputs, originals = features
    if not originals or not len(by_draw):
        return Unavailable("features of the originals come with a finished run")
    faces = face_numbers(by_draw)
    # (faces, d), NaN where the original has no features
    by_face = np.full((int(faces.max()) + 1, outputs.shape[1]), np.nan)
    for face, name in dict(zip(faces.tolist(), by_draw["face_id"], strict=True)).items():
        if name in originals:
            by_face[face] = originals[name]
    network = manifest.features.network or "unnamed network"
    return AlignedFeatures(network, outputs[by_draw.index.to_numpy()], by_face)


def feature_sets(
    subset: Subset, inside: NDArray[np.bool_], features: AlignedFeatures
) -> tuple[Array, Array, IntArray, IntArray] | None:
    """Features of the outputs of some draws and of their originals, and the faces of both.

    Returns
    -------
    outputs, originals : ndarray, (draws, d) and (faces, d)
        Each original counts once, however many draws it has.
    output_faces, faces : ndarray, (draws,) and (faces,)

    None where no draw has features of the output and of the original.
    """
    measured = inside & np.isfinite(features.outputs[subset.rows]).all(axis=1)
    measured &= np.isfinite(features.originals[subset.faces]).all(axis=1)
    if not measured.any():
        return None
    faces = np.unique(subset.faces[measured])
    outputs = features.outputs[subset.rows[measured]]
    return outputs, features.originals[faces], subset.faces[measured], faces


def distance_rows(
    subset: Subset, grouping: Grouping, features: AlignedFeatures
) -> Iterator[EstimateRow]:
    """KID per group, the widest gap between groups (GPI), and FID of the whole sample."""
    of_draw = grouping.of_draw[subset.rows]
    detail: Detail = {"network": features.network}
    kernel: dict[str, KernelDistance | Unavailable] = {}
    for number, group in enumerate(grouping.groups):
        sets = feature_sets(subset, of_draw == number, features)
        if sets is None:
            continue
        kid = kernel[group] = kernel_distance(*sets)
        estimate = kid if isinstance(kid, Unavailable) else kid.estimate
        yield make_row(subset.key, "kid", grouping.name, group, estimate, detail=detail)
        # FID is too biased at the size of a group; its bias of the whole sample is stated
        if grouping.name == ALL:
            fid = frechet_distance(*sets[:2])
            if isinstance(fid, Unavailable):
                estimate = fid
            else:
                method = f"biased upwards: equal distributions would score {fid.if_equal:.4g}"
                method, counts = f"{method}; no interval", (fid.n_second, fid.n_first)
                estimate = Estimate(fid.value, math.nan, math.nan, *counts, method)
            yield make_row(subset.key, "fid", grouping.name, group, estimate, detail=detail)
    if len(kernel) > 1:
        widest = widest_gap(kernel)
        gap: Estimate | Unavailable
        if isinstance(widest, Unavailable):
            gap = widest
        else:
            largest, smallest, gap = widest
            detail = {**detail, "largest": largest, "smallest": smallest}
        yield make_row(subset.key, "gpi_kid", grouping.name, ALL, gap, detail=detail)
