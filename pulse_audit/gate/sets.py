"""Rules on one number of a whole set of draws: divergences (RDP, PR, CPR, SPE) and distances (KID).

RDP and PR start from the labels, so that errors of the attribute model would look like those of the
arm: they are taken of the corrected shift matrix. CPR and SPE compare the apparent groups of
originals and outputs. Errors fall on both and hide part of a divergence, and CPR is a lower bound
to begin with: they can show that a limit is broken, never that it is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from pulse_audit.fairness import sets
from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.fairness.divergence import DIVERGENCES, reference_shares, within
from pulse_audit.fairness.sets import Joint, joint_shares
from pulse_audit.gate.case import Case, Evidence
from pulse_audit.gate.record import GroupingRecord
from pulse_audit.gate.rules import DIVERGENCE_OF, Rule
from pulse_audit.gate.sides import chosen_groups
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.distances import KernelDistance, kernel_distance, kernel_distance_gap
from pulse_audit.stats.gaps import Gap
from pulse_audit.summary.attributes import Grouping
from pulse_audit.summary.estimates import AlignedFeatures, feature_sets
from pulse_audit.summary.groups import Subset
from pulse_audit.summary.schema import ALL, SubsetKey
from pulse_audit.summary.shift import mirrored_draws
from pulse_audit.types import Estimate, Unavailable

#: Resamples of set fairness, at least and at most: 20 lie beyond a bound, as far as it goes.
REPLICATES, MOST_REPLICATES = 2000, 20_000
#: Why CPR and SPE show no pass.
HIDDEN = {
    "cpr": "CPR is a lower bound, of apparent groups: it cannot show that the limit is kept",
    "spe": "errors of the attribute model hide part of the asymmetry of apparent groups",
}


@dataclass(frozen=True, eq=False)
class SetDraws:
    """Draws of a run, the groupings of its rules, and features where a rule needs them."""

    subsets: Mapping[SubsetKey, Subset]
    groupings: Mapping[str, Grouping]
    features: AlignedFeatures | Unavailable

    def apparent(self, case: Case, level: float) -> Joint | Unavailable:
        """Joint shares of the apparent groups of originals and outputs, resampled for a level."""
        labels = self.groupings[case.rule.group_by or ALL].labels
        found = None if labels is None else mirrored_draws(self.subsets[case.key], labels)
        if found is None or labels is None:
            return Unavailable("no original and output have an apparent group both")
        seed = fingerprint("gate", "sets", case.key.condition, case.key.scale, labels.attribute)
        return joint_shares(
            found[0],
            seed=seed % 2**32,
            strata=found[1],
            replicates=min(max(REPLICATES, math.ceil(20 / level)), MOST_REPLICATES),
        )

    def distances(
        self, case: Case, grouping: GroupingRecord, level: float
    ) -> Evidence | Unavailable:
        """Evidence on the kernel distance of outputs and originals."""
        if isinstance(self.features, Unavailable):
            return self.features
        if case.rule.metric == "fid":
            return Unavailable(
                "FID has no interval, and a bias that depends on the number of images: use kid"
            )
        subset, found = self.subsets[case.key], list[KernelDistance]()
        names, of_face = chosen_groups(case.rule, grouping)
        for number, name in enumerate(names):
            inside = of_face[subset.faces] == number
            of_group = feature_sets(subset, inside, self.features)
            if of_group is None:
                return Unavailable(f"no draw of {name} has features on both sides")
            distance = kernel_distance(*of_group)
            if isinstance(distance, Unavailable):
                return Unavailable(f"{name}: {distance.reason}")
            found.append(distance)
        if len(found) < (2 if case.rule.statistic == "max_gap" else 1):
            return Unavailable("there are too few groups to compare")
        gap, compared = of_distances(case.rule, found, level)
        fewest = min(each.estimate.n_faces for each in found)
        groups = tuple(names[place] for place in gap.groups)
        return Evidence(gap, case.rule.metric, groups, fewest, compared)


def of_distances(rule: Rule, found: Sequence[KernelDistance], level: float) -> tuple[Gap, int]:
    """Bounds of the distances of groups, or of their largest difference, and how many there are.

    For a pass each is within its own bound; a fail holds for all simultaneously (Bonferroni).
    """

    def at(level: float) -> list[Estimate]:
        confidence = 1 - 2 * level
        if rule.statistic == "max_gap":
            return [
                kernel_distance_gap(one, other, confidence=confidence)
                for one, other in permutations(found, 2)
            ]
        return [each.at(confidence) for each in found]

    alone = at(level)
    together = at(level / len(alone))
    places = [*permutations(range(len(found)), 2)] if rule.statistic == "max_gap" else None
    numbers = (
        sum(each.estimate.n_faces for each in found),
        sum(each.estimate.n_draws for each in found),
        alone[0].method,
    )
    # at_least is a limit of the mean alone, of one number
    if rule.at_least is not None:
        each = alone[0]
        ends = each.value, each.low, each.high
        return Gap("worst_group", *ends, False, (0,), None, *numbers), 1
    worst = max(range(len(alone)), key=lambda place: alone[place].value)
    return Gap(
        "max_gap" if places else "worst_group",
        alone[worst].value,
        max(each.high for each in alone),
        max(each.low for each in together),
        True,
        places[worst] if places else (worst,),
        None,
        *numbers,
    ), len(alone)


def of_corrected(rule: Rule, shift: CorrectedShift) -> Evidence | Unavailable:
    """Evidence on RDP or PR of a corrected shift matrix, by intervals that hold together.

    The intervals of all groups, at the shift's confidence, contain the truth simultaneously
    (Bonferroni), so that the least and the greatest divergence between their ends are bounds.
    """
    name, kind = DIVERGENCE_OF[rule.metric]
    present = np.flatnonzero(shift.faces)
    if name == "rdp":
        found = [shift.estimates[group][group] for group in present]
    else:
        found = shift.output_shares()
    shares = [each for each in found if each is not None]
    if len(shares) < max(len(found), 2):
        return Unavailable("a single group" if len(found) < 2 else "a group has no corrected share")
    value, low, high = (
        np.array([getattr(each, end) for each in shares]) for end in ("value", "low", "high")
    )
    if not np.isfinite([low, high]).all() or value.sum() <= 0:
        return Unavailable("a group has no interval")
    # as parts of their sum: least where all others are greatest
    others = [end.sum() - end for end in (high, low)]
    low, high = low / np.maximum(low + others[0], 1e-9), high / np.maximum(high + others[1], 1e-9)
    reference = np.full(len(shares), 1 / len(shares))
    if name == "pr":
        reference = reference_shares(shift.draws)
    least, greatest = within(low, np.minimum(high, 1.0), reference, kind)
    observed = float(DIVERGENCES[kind](value / value.sum(), reference))
    method = "corrected for the attribute model's errors; between intervals that hold together"
    n_faces, n_draws = int(shift.faces.sum()), int(shift.draws.sum())
    is_most = rule.at_least is None
    ends = (greatest, least) if is_most else (least, greatest)
    gap = Gap("worst_group", observed, *ends, is_most, (), None, n_faces, n_draws, method)
    return Evidence(gap, rule.metric, (), n_faces)


def of_apparent(rule: Rule, joint: Joint, level: float) -> Evidence | Unavailable:
    """Evidence on CPR or SPE; `HIDDEN` says what it cannot show."""
    name, kind = DIVERGENCE_OF[rule.metric]
    assert kind in ("tv", "chebyshev")
    found = sets.bounds(name, kind, joint, level)
    if isinstance(found, Unavailable):
        return found
    is_most = rule.at_least is None
    ends = (found.high, found.low) if is_most else (found.low, found.high)
    method = "the estimate less and plus the length of its error, resampled by face"
    gap = Gap(
        "worst_group", found.value, *ends, is_most, (), None, joint.n_faces, joint.n_draws, method
    )
    no_pass, no_fail = (HIDDEN[name], "") if is_most else ("", HIDDEN[name])
    return Evidence(gap, rule.metric, (), joint.n_faces, no_pass=no_pass, no_fail=no_fail)
