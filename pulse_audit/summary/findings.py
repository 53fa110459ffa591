"""The findings of a run: which sentences are made of its estimates, and in what order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.stats.contrasts import proportion_pairs
from pulse_audit.stats.intervals import FloatArray, by_group, proportion_interval
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.store import Manifest
from pulse_audit.summary import claims, text
from pulse_audit.summary.attributes import AttributeLabels, Grouping
from pulse_audit.summary.claims import Evidence
from pulse_audit.summary.comparisons import share_differences
from pulse_audit.summary.groups import NONE, TONES, Subset
from pulse_audit.summary.hand import Drift, against_drift, drift_sentences
from pulse_audit.summary.joint import ALPHA, Interval
from pulse_audit.summary.schema import ALL, Claim, EstimateRow, Finding, SubsetKey
from pulse_audit.summary.second import check_findings
from pulse_audit.types import Unavailable

#: Corrected shifts by subset and attribute.
Corrections = Mapping[tuple[SubsetKey, str], CorrectedShift]


def findings(
    manifest: Manifest,
    rows: Sequence[EstimateRow],
    subsets: Sequence[Subset] = (),
    groupings: Sequence[Grouping] = (),
    corrections: Corrections | None = None,
    second: Corrections | None = None,
    found: Sequence[Drift] = (),
) -> list[Finding]:
    """Sentences of the report's first screen, and those behind "more".

    Parameters
    ----------
    manifest : Manifest
        The run's manifest.
    rows : sequence of EstimateRow
    subsets, groupings, corrections, second, found
        As `pulse_audit.summary.summarise` makes them.

    Returns
    -------
    list of Finding
        Under the first condition and scale, in the attribute of the first grouping: the claims of
        `pulse_audit.summary.claims`; then, of every arm on trial, retention as classified, the
        composition of its outputs, caveats, sources of the shift, feasibility, lightness and
        errors.
    """
    if not rows:
        return [
            Finding(text="No draw is finished yet: there is nothing to report.", screen="first")
        ]
    first = first_screen(manifest, subsets, groupings, corrections or {}, second)
    more = compared_outputs(manifest, subsets, groupings)
    described = descriptions(manifest, rows)
    # Claims are held against the drift that people's labels of outputs allow.
    if found:
        setting = subsets[0].key[1:]
        labels, _ = on_first_screen(manifest, subsets, groupings)
        if labels is not None:
            first = against_drift(first, found, labels.attribute, setting)
        described = [*drift_sentences(found, setting), *described]
    return [*first, *more, *(Finding(text=each) for each in described)]


def first_screen(
    manifest: Manifest,
    subsets: Sequence[Subset],
    groupings: Sequence[Grouping],
    corrections: Corrections,
    second: Corrections | None = None,
) -> list[Finding]:
    """Make the first screen of the first setting and the first grouping by an attribute.

    Its claims are checked by the corrections under the ``second`` attribute model.
    """
    missing = list(not_measured(manifest, groupings))
    labels, here = on_first_screen(manifest, subsets, groupings)
    if labels is None:
        return missing
    chosen = {subset.key.arm: subset for subset in here}
    shifts, second_shifts = (
        {
            arm: shift
            for arm, subset in chosen.items()
            if (shift := found.get((subset.key, labels.attribute))) is not None
        }
        for found in (corrections, second or {})
    )
    evidence = make_evidence(manifest, chosen, labels, shifts)
    screen = claims.first_screen(evidence)
    return missing + check_findings(screen, labels, second_shifts)


def on_first_screen(
    manifest: Manifest, subsets: Sequence[Subset], groupings: Sequence[Grouping]
) -> tuple[AttributeLabels | None, list[Subset]]:
    """Labels of the first grouping by an attribute, and the first setting's arms on trial."""
    compared = next((grouping for grouping in groupings if grouping.by_attribute), None)
    if not subsets or compared is None:
        return None, []
    here = [subset for subset in subsets if subset.key[1:] == subsets[0].key[1:]]
    arms = on_trial(manifest, [subset.key.arm for subset in here])
    return compared.labels, [subset for subset in here if subset.key.arm in arms]


def compared_outputs(
    manifest: Manifest, subsets: Sequence[Subset], groupings: Sequence[Grouping]
) -> Iterator[Finding]:
    """Apparent groups that outputs of one arm show more often than another's, as classified.

    Arms that make the same faces are classified alike, so that a difference between arms needs no
    correction to be shown; its size in true groups is another. All groups and pairs of arms are one
    family (Bonferroni).
    """
    labels, here = on_first_screen(manifest, subsets, groupings)
    if labels is None:
        return
    pairs = list(combinations(here, 2))
    level = ALPHA / max(1, len(pairs) * len(labels.groups))
    for first, second in pairs:
        faces = np.asarray(np.intersect1d(first.faces, second.faces), dtype=np.int64)
        shown: list[tuple[float, str, str, str]] = []
        for group, differences in zip(
            labels.groups, share_differences(first, second, faces, labels), strict=True
        ):
            # bounds of the difference in the direction in which it is shown, if it is
            share = paired_proportions(differences, 1 - level)
            shown.append((share.low, first.key.arm, second.key.arm, group))
            shown.append((-share.high, second.key.arm, first.key.arm, group))
        bound, arm, minus, group = max(shown)
        if bound < claims.LEAST_DIFFERENCE:
            continue
        least = claims.floor(bound)
        sentence = (
            f"As classified, outputs of {arm} appear {group} at least {claims.points(least)} more "
            f"often than those of {minus}, the largest of {len(labels.groups)} differences."
        )
        claim = Claim(
            metric="output_share",
            correction="raw",
            arm=arm,
            minus=minus,
            group_by=labels.attribute,
            group=group,
            direction="higher",
            bound=least / 100,
        )
        yield Finding(text=sentence, claims=[claim])


def planted_matrices(
    manifest: Manifest, arms: Iterable[str], groups: Sequence[str]
) -> dict[str, FloatArray]:
    """Look up true shift matrices of planted arms over these groups, (k, k); of other arms none."""
    matrices = {}
    for arm in arms:
        truth = manifest.arms[arm].truth
        if truth is not None and sorted(truth.groups) == sorted(groups):
            order = [truth.groups.index(group) for group in groups]
            matrices[arm] = np.array(truth.matrix, dtype=np.float64)[np.ix_(order, order)]
    return matrices


def make_evidence(
    manifest: Manifest,
    subsets: Mapping[str, Subset],
    labels: AttributeLabels,
    shifts: Mapping[str, CorrectedShift],
) -> Evidence:
    """Gather what the first screen needs: corrections, and agreement with the labels by arm."""
    agreement, raw_gaps, fewest = {}, {}, []
    for arm, subset in subsets.items():
        draws = labels.draws(subset.rows, subset.faces)
        if draws is None:
            continue
        agrees = (draws.truth == draws.predicted).astype(np.float64)
        share = proportion_interval(agrees, draws.faces, confidence=1 - ALPHA / len(subsets))
        agreement[arm] = Interval(share.low, share.value, share.high)
        # the same by group: an inequality of agreement that is shown for some pair
        present = np.unique(draws.truth, return_inverse=True)[1]
        sample = by_group(agrees, draws.faces, present)
        fewest.append(int(sample.n_faces.min()))
        raw_gaps[arm] = 0.0
        if len(sample.sums) > 1:
            bounds = proportion_pairs(sample, ALPHA)
            raw_gaps[arm] = max(0.0, float(np.maximum(bounds.all_low, -bounds.all_high).max()))

    # originals: agreement of the model with people's labels
    faces, originals = next(iter(subsets.values())), None
    seen = (labels.truth[faces.rows] != NONE) & (labels.original[faces.rows] != NONE)
    if labels.labels_from == "people" and labels.attribute not in TONES and seen.any():
        chosen = faces.rows[seen][np.unique(faces.faces[seen], return_index=True)[1]]
        originals = float((labels.truth[chosen] == labels.original[chosen]).mean())
    why = labels.confusion.reason if isinstance(labels.confusion, Unavailable) else ""
    return Evidence(
        attribute=labels.attribute,
        name=text.ATTRIBUTE_NAMES.get(labels.attribute, labels.attribute),
        groups=labels.groups,
        labels_from=labels.labels_from,
        shifts={arm: shift for arm, shift in shifts.items() if shift.grade == "usable"},
        agreement=agreement,
        originals=originals,
        raw_gaps=raw_gaps,
        planted=planted_matrices(manifest, subsets, labels.groups),
        faces=min(fewest, default=0),
        reason=why,
    )


def not_measured(manifest: Manifest, groupings: Sequence[Grouping]) -> Iterator[Finding]:
    """Say of which columns and groups of the first grouping no output has a group, and why."""
    columns = next(iter(manifest.spec.groupings), [])
    for column in columns if groupings else ():
        if column in TONES:
            continue
        if any(
            grouping.labels is not None and column in grouping.labels.attribute.split(",")
            for grouping in groupings
        ):
            # Groups of the data set that are no word of the model, such as "Others".
            known = manifest.attributes.vocabulary.get(column) if manifest.attributes else None
            labelled = {face.labels.get(column) for face in manifest.faces}
            groups = [
                word for word in manifest.dataset.vocabulary.get(column, []) if word in labelled
            ]
            if unknown := [word for word in groups if word not in (known or groups)]:
                names = claims.joined(unknown)
                why = f"the attribute model has no such group of {column}"
                yield Finding(text=f"Retention of {names} was not measured: {why}.", screen="first")
            continue
        why = manifest.unavailable.get(f"sr_{column}", "the attribute model does not predict it")
        name = text.ATTRIBUTE_NAMES.get(column, column)
        yield Finding(text=f"Retention of {name} was not measured: {why}.", screen="first")


def descriptions(manifest: Manifest, rows: Sequence[EstimateRow]) -> list[str]:
    """Sentences behind "more": they describe, with an interval for one number each."""
    # Sentences are about the first condition and scale, and the first grouping.
    setting = (rows[0].condition, rows[0].scale)
    grouping = next((",".join(columns) for columns in manifest.spec.groupings), ALL)
    here = [row for row in rows if (row.condition, row.scale) == setting]
    arms = on_trial(manifest, [row.arm for row in rows if row.plain])
    by_arm = {arm: [row for row in here if row.arm == arm] for arm in arms}
    sentences: list[str] = []
    if len({(row.condition, row.scale) for row in rows if row.plain and row.scale}) > 1:
        condition, scale = setting
        sentences.append(
            f"Unless stated otherwise, numbers are for condition {condition} at scale {scale}."
        )
    # What the outputs look like, as classified, and what the originals score.
    for of_arm in by_arm.values():
        sentences += text.retention(of_arm, grouping)
        sentences += text.planted(of_arm, grouping)
    sentences += text.original_baseline(here, grouping)
    sentences += text.arm_differences(here)

    # A caveat is written once for all arms that share it.
    arms_of: dict[str, list[str]] = {}
    for arm in arms:
        for caveat in manifest.arms[arm].caveats or ():
            arms_of.setdefault(str(caveat), []).append(arm)
    sentences += [f"{' and '.join(names)}: {caveat}." for caveat, names in arms_of.items()]

    # Where draws were lost; then whether outputs fit their inputs, their lightness, and failures.
    for of_arm in by_arm.values():
        sentences += text.sources(of_arm)
    for arm, of_arm in by_arm.items():
        searches = promises_feasibility(manifest, arm)
        sentences += text.feasibility(of_arm, grouping, searches)
        sentences += text.lightness(of_arm)
        sentences += text.errors(of_arm)
        sentences += text.range_over_settings([row for row in rows if row.arm == arm])
    return sentences


def on_trial(manifest: Manifest, arms: Sequence[str]) -> list[str]:
    """Of these arms, in order, all but plain interpolation, unless nothing else ran."""
    arms = list(dict.fromkeys(arms))
    kinds = {name: arm.kind for name, arm in manifest.arms.items()}
    return [arm for arm in arms if kinds.get(arm) != "interpolation"] or arms


def promises_feasibility(manifest: Manifest, arm: str) -> bool:
    """Whether the arm searches for an image that downscales to its input."""
    entry = manifest.arms[arm]
    promised = entry.promises_feasibility
    return entry.kind == "pulse" if promised is None else promised
