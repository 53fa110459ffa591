"""Two runs on the same faces: differences of their arms per group, and what changed between them.

Draws are paired by face: the mean over a face's draws in the first run less that in the second.
Within a metric all pairs of arms, settings and groups are one family (Bonferroni), so that all its
intervals hold together at 95 %. The largest gap of retention between groups is no mean over faces:
its difference has the bounds of both gaps, each with half of the error. What has no pairs, such as
distances of sets, is shown for either side by itself (`prices`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.fairness import parity
from pulse_audit.names import nearest
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.store import Manifest, Run
from pulse_audit.summary.attributes import Grouping, make_groupings, retention_columns
from pulse_audit.summary.comparisons import MEANS, differences_by_face
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.groups import DRAW_KEYS, Subset, make_subsets
from pulse_audit.summary.joint import ALPHA
from pulse_audit.summary.prices import Price, costs, prices
from pulse_audit.summary.schema import ALL, SubsetKey
from pulse_audit.types import Estimate, InputError

#: Entries of a manifest that describe no choice and differ between any two runs.
_ALWAYS_NEW = ("started", "finished", "seconds", "units", "faces", "fingerprint", "platform")


@dataclass(frozen=True)
class Difference:
    """First run less second in one metric and group: a mean over faces that both share.

    With the statistic ``max_gap``: the largest gap of the first between groups less that of the
    second, whose ``group`` is ``all``.
    """

    arm: str
    other: str
    condition: str
    scale: int
    metric: str
    group_by: str
    group: str
    estimate: Estimate
    statistic: str = "value"

    @property
    def shown(self) -> bool:
        """Whether the interval, which holds with all others of its metric, leaves out 0."""
        return self.estimate.low > 0 or self.estimate.high < 0


@dataclass(frozen=True)
class RunComparison:
    """Differences of two runs, the faces they share, and what changed: (entry, first, second)."""

    faces: int
    only_first: int
    only_second: int
    differences: Sequence[Difference]
    changes: Sequence[tuple[str, str, str]]
    prices: Sequence[Price] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "faces": {
                "shared": self.faces,
                "only_first": self.only_first,
                "only_second": self.only_second,
            },
            "differences": [
                {
                    "arm": d.arm,
                    "minus": d.other,
                    "condition": d.condition,
                    "scale": d.scale,
                    "metric": d.metric,
                    "group_by": d.group_by,
                    "group": d.group,
                    "statistic": d.statistic,
                    "value": _finite(d.estimate.value),
                    "low": _finite(d.estimate.low),
                    "high": _finite(d.estimate.high),
                    "n_faces": d.estimate.n_faces,
                    "shown": d.shown,
                    "method": d.estimate.method,
                }
                for d in self.differences
            ],
            "prices": [price.as_json() for price in self.prices],
            "changes": [list(change) for change in self.changes],
        }


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None


def compare_runs(
    first: Run, second: Run, arm: str | None = None, baseline_arm: str | None = None
) -> RunComparison:
    """Compare two runs on the faces, conditions and scales that they share.

    Arms pair by name; where no arm on trial has the same name, and each run has exactly one, those
    two are compared. With ``arm`` that one of the first run is compared alone, with the arm of the
    same name or ``baseline_arm`` of the second, which may be the first run again.

    Raises
    ------
    InputError
        If they share no face, no condition and scale, no grouping or no arm, or lack a named arm.
    """
    # Faces are the same where name and bytes are.
    keys = [{(f.id, f.sha256) for f in run.manifest.faces} for run in (first, second)]
    shared = {face_id for face_id, _ in keys[0] & keys[1]}
    where = f"{first.path} and {second.path}"
    if not shared:
        raise InputError(f"{where} share no face: they cannot be compared in pairs")
    pairs = paired_arms(first.manifest, second.manifest)
    if arm is not None or baseline_arm is not None:
        pairs = [named_arms(first, second, arm, baseline_arm)]
    if not pairs:
        raise InputError(f"{where} share no arm, and have more than one on trial each")

    # Each run is grouped by its own model; only its shared faces count, numbered alike.
    sides = [_side(run, shared) for run in (first, second)]
    settings = sides[0].settings & sides[1].settings
    if not settings:
        raise InputError(f"{where} share no condition and scale")
    raw: list[tuple[tuple[str, str, str, int, str, str, str], FloatArray, IntArray]] = []
    for one, other in pairs:
        for condition, scale in sorted(settings):
            raw += _raw(sides[0], sides[1], one, other, condition, scale)
    if not raw:
        raise InputError(f"{where} share no grouping with a metric that both measured")

    # One family a metric; the largest gaps of all pairs and settings are another.
    family = pd.Series([key[4] for key, *_ in raw]).value_counts()
    differences = []
    for key, values, faces in raw:
        confidence = 1 - ALPHA / int(family[key[4]])
        differences.append(
            Difference(
                *key, _estimate(key[4], values, faces, confidence, first.manifest.spec.seed, key)
            )
        )
    gaps = dict.fromkeys((*key[:4], key[5]) for key, *_ in raw if key[4] == "retention")
    for one, other, condition, scale, name in gaps:
        found = _gap_difference(sides, (one, other), condition, scale, name, ALPHA / len(gaps))
        if found is not None:
            setting = (one, other, condition, scale, "retention", name, ALL)
            differences.append(Difference(*setting, found, "max_gap"))
    return RunComparison(
        len(shared),
        len(keys[0]) - len(shared),
        len(keys[1]) - len(shared),
        differences,
        list(changes(first.manifest, second.manifest)),
        [
            price
            for one, other in pairs
            for condition, scale in sorted(settings)
            for price in prices(
                [
                    costs(run, side.subsets.get(SubsetKey(arm, condition, scale)), side.groupings)
                    for run, side, arm in zip((first, second), sides, (one, other), strict=True)
                ],
                one,
                other,
                condition,
                scale,
            )
        ],
    )


def named_arms(
    first: Run, second: Run, arm: str | None, baseline_arm: str | None
) -> tuple[str, str]:
    """Return the two arms to compare by their names; InputError where a run has none of it."""
    named = (arm or baseline_arm or "", baseline_arm or arm or "")
    for run, name in zip((first, second), named, strict=True):
        if name not in run.manifest.arms:
            known = nearest(name, [*run.manifest.arms])
            raise InputError(f"{run.path}: has no arm {name!r}{known}")
    return named


@dataclass(frozen=True)
class _Side:
    """One run, of the shared faces."""

    subsets: Mapping[SubsetKey, Subset]
    groupings: Mapping[str, Grouping]

    @property
    def settings(self) -> set[tuple[str, int]]:
        return {(condition, scale) for _, condition, scale in self.subsets}


def _side(run: Run, shared: set[str]) -> _Side:
    samples = run.samples()
    frame = samples[samples["face_id"].isin(shared)]
    frame = frame.sort_values(DRAW_KEYS, kind="stable", ignore_index=True)
    subsets = {subset.key: subset for subset in make_subsets(run.manifest, frame)}
    groupings = {grouping.name: grouping for grouping in make_groupings(run.manifest, frame)}
    return _Side(subsets, groupings)


def _raw(
    first: _Side, second: _Side, one: str, other: str, condition: str, scale: int
) -> Iterator[tuple[tuple[str, str, str, int, str, str, str], FloatArray, IntArray]]:
    """Differences of each face by metric and group, of two arms in one setting."""
    of_one = first.subsets.get(SubsetKey(one, condition, scale))
    of_other = second.subsets.get(SubsetKey(other, condition, scale))
    if of_one is None or of_other is None:
        return
    ids = [subset.samples["face_id"].unique().tolist() for subset in (of_one, of_other)]
    both = sorted(set(ids[0]) & set(ids[1]))
    for name, grouping in first.groupings.items():
        if name not in second.groupings:
            continue
        # A face that the runs put into different groups is in none.
        for metric, group, values in differences_by_face(
            of_one, of_other, both, grouping, second.groupings[name]
        ):
            kept = np.isfinite(values)
            faces = np.flatnonzero(kept).astype(np.int64)
            yield (one, other, condition, scale, metric, name, group), values[kept], faces


def _estimate(
    metric: str,
    values: FloatArray,
    faces: IntArray,
    confidence: float,
    seed: int,
    key: tuple[Any, ...],
) -> Estimate:
    if metric in MEANS:
        return cluster_bca(
            values, faces, seed=fingerprint(seed, "compare", *key), confidence=confidence
        )
    return paired_proportions(values, confidence)


def _gap_difference(
    sides: Sequence[_Side],
    arms: tuple[str, str],
    condition: str,
    scale: int,
    name: str,
    alpha: float,
) -> Estimate | None:
    """Largest gap of retention on the first side less that on the second; None without two groups.

    Of either gap both bounds hold at 1 - alpha / 2, so the difference of opposite ends holds at
    1 - alpha, whatever the two have in common.
    """
    found = []
    for side, arm in zip(sides, arms, strict=True):
        subset, grouping = side.subsets[SubsetKey(arm, condition, scale)], side.groupings[name]
        if grouping.labels is None:
            return None
        compared = parity.compare(
            retention_columns(subset, grouping.labels)["retention"],
            subset.faces,
            grouping.of_draw[subset.rows],
            proportion=True,
            better="higher",
            seed=0,
            confidence=1 - alpha / 2,
        )
        if "max_gap" not in compared:
            return None
        found.append(compared["max_gap"].estimate)
    one, two = found
    return Estimate(
        one.value - two.value,
        one.low - two.high,
        one.high - two.low,
        min(one.n_faces, two.n_faces),
        min(one.n_draws, two.n_draws),
        "difference of two largest gaps, by the bounds of each (Bonferroni)",
        1 - alpha,
    )


def paired_arms(first: Manifest, second: Manifest) -> list[tuple[str, str]]:
    """Arms to compare: those of the same name, or the only one on trial of each run."""
    ones, others = (on_trial(m, list(m.arms)) for m in (first, second))
    same = [(arm, arm) for arm in ones if arm in others]
    if not same and len(ones) == len(others) == 1:
        return [(ones[0], others[0])]
    return same


def changes(first: Manifest, second: Manifest) -> Iterator[tuple[str, str, str]]:
    """List what two manifests record differently, in spec, data, weights and software, by entry."""
    before, after = (_flat(m.as_dict()) for m in (first, second))
    for name in dict.fromkeys([*before, *after]):
        if name.split(".")[0] in _ALWAYS_NEW:
            continue
        if before.get(name) != after.get(name):
            yield name, before.get(name, "not recorded"), after.get(name, "not recorded")
    # Photos of the same name whose bytes differ.
    digests = {face.id: face.sha256 for face in first.faces}
    altered = sum(digests.get(face.id, face.sha256) != face.sha256 for face in second.faces)
    if altered:
        yield "faces", "", f"{altered} photos have other bytes under the same name"


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """Nested values as texts by dotted name; long lists of values are one."""
    if isinstance(value, Mapping):
        return {
            key: text
            for inner, each in value.items()
            for key, text in _flat(each, f"{name}.{inner}" if name else str(inner)).items()
        }
    text = str(value)
    return {
        name: text if len(text) <= 200 else f"{text[:180]}... (fingerprint {fingerprint(text)})"
    }
