"""What the bounds are made of: totals of faces by group, apparent groups, corrected estimates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pulse_audit.fairness.confusion import NONE
from pulse_audit.fairness.correction import CorrectedShift
from pulse_audit.fairness.shift import Draws, most_entropy
from pulse_audit.gate.case import Case
from pulse_audit.gate.record import (
    AttributeRecord,
    FaceValues,
    GroupingRecord,
    Outputs,
    Pairing,
    Record,
)
from pulse_audit.gate.rules import FACE_RATES, Rule
from pulse_audit.stats.against import Sampled
from pulse_audit.stats.intervals import FloatArray, Groups, IntArray, correlation_of_totals
from pulse_audit.stats.power import DropDesign
from pulse_audit.summary.schema import ALL
from pulse_audit.types import InputError, Unavailable

#: The drop of a rate that sample sizes are given for.
DROP = 0.10


@dataclass(frozen=True, eq=False)
class Sides:
    """Totals of the faces of both sides by group, and faces left out for want of a value."""

    trial: Groups
    left_out: int
    baseline: Groups | None = None

    def missing(self, names: Sequence[str]) -> Unavailable | None:
        """Why groups cannot be compared: one of them has no measured face, or there is none."""
        for side, where in ((self.trial, ""), (self.baseline, " in the baseline")):
            if side is None:
                continue
            for name, faces in zip(names, side.n_faces.tolist(), strict=True):
                if faces == 0:
                    return Unavailable(f"no face of {name} has a value{where}")
        return Unavailable("no face has a group") if not names else None

    @property
    def identical(self) -> bool:
        """Whether paired values are the same on every face."""
        if self.baseline is None:
            return False
        return all(
            len(t) == len(b) and np.array_equal(t / n, b / m)
            for t, n, b, m in zip(
                self.trial.sums,
                self.trial.counts,
                self.baseline.sums,
                self.baseline.counts,
                strict=True,
            )
        )


def chosen_groups(rule: Rule, grouping: GroupingRecord) -> tuple[list[str], IntArray]:
    """Names of the groups that a rule compares, and the number of each face's, -1 for none."""
    of_face = np.array(grouping.of_face, dtype=np.int64)
    if rule.group is not None:
        inside = of_face == grouping.groups.index(rule.group)
        return [rule.group], np.where(inside, 0, NONE)
    if rule.statistic == "mean":
        return [ALL], np.zeros_like(of_face)
    present = [number for number in range(len(grouping.groups)) if (of_face == number).any()]
    place = np.full(len(grouping.groups) + 1, NONE)
    place[present] = np.arange(len(present))
    return [grouping.groups[number] for number in present], place[of_face]


def renumbered(rule: Rule, grouping: GroupingRecord, names: Sequence[str]) -> IntArray:
    """Return the groups of a baseline's faces, by the numbers of the trial's groups."""
    of_face = np.array(grouping.of_face, dtype=np.int64)
    if names == [ALL]:
        return np.zeros_like(of_face)
    place = np.full(len(grouping.groups) + 1, NONE)
    for number, group in enumerate(grouping.groups):
        place[number] = names.index(group) if group in names else NONE
    return place[of_face]


def most_diverse(sides: Iterable[Outputs | None]) -> float:
    """Return the largest entropy that the classified draws of some face can give, in nats."""
    draws = [sum(n >= 0 for n in face) for side in sides if side for face in side.predicted]
    return most_entropy(max([*draws, 2]))


def parts_of(values: FaceValues | None, most: float) -> FaceValues | None:
    """Divide the numbers of faces by the most that they can be."""
    if values is None or most == 1.0:
        return values
    return values.model_copy(update={"sums": [each / most for each in values.sums]})


def totals(
    values: FaceValues, of_face: IntArray, positions: IntArray, k: int, proportion: bool
) -> tuple[Groups, int]:
    """Sort totals of the faces at some positions by group; the second is how many have no value."""
    sums, counts = (np.asarray(each)[positions] for each in values.arrays())
    groups = of_face[positions]
    # a number of a whole face lies between 0 and 1; of draws, whole outcomes are counted
    damaged = (sums < 0) | (sums > counts + 1e-9)
    if values.metric not in FACE_RATES:
        damaged |= sums != np.round(sums)
    if proportion and damaged.any():
        raise InputError(f"{values.metric}: a face has more outcomes than draws: damaged baseline")
    inside = [(groups == group) & (counts > 0) for group in range(k)]
    left_out = int(((groups >= 0) & (counts == 0)).sum())
    parts = [sums[each] for each in inside], [counts[each].astype(np.float64) for each in inside]
    n_faces = np.array([each.sum() for each in inside], dtype=np.int64)
    n_draws = np.array([counts[each].sum() for each in inside], dtype=np.int64)
    return Groups(*parts, n_faces, n_draws), left_out


def both_sides(
    trial: tuple[FaceValues, IntArray],
    baseline: tuple[FaceValues, IntArray],
    pairing: Pairing,
    k: int,
    proportion: bool,
) -> Sides:
    """Totals of both sides; where paired, of faces that both measured and put into one group."""
    positions = [pairing.trial, pairing.baseline]
    groups = [of_face for _, of_face in (trial, baseline)]
    if pairing.paired:
        measured = [
            values.arrays()[1][place] > 0
            for (values, _), place in zip((trial, baseline), positions, strict=True)
        ]
        kept = measured[0] & measured[1] & (groups[0][positions[0]] == groups[1][positions[1]])
        left = int((~kept & (groups[0][positions[0]] >= 0)).sum())
        positions = [place[kept] for place in positions]
    (one, no_value), (other, _) = (
        totals(values, of_face, place, k, proportion)
        for (values, of_face), place in zip((trial, baseline), positions, strict=True)
    )
    return Sides(one, left if pairing.paired else no_value, other)


def draws_of(sample: Groups, proportion: bool) -> tuple[FloatArray, IntArray, IntArray]:
    """Values, faces and groups of draws with these totals of faces."""
    sums, counts = np.concatenate(sample.sums), np.concatenate(sample.counts).astype(np.int64)
    of_face = np.repeat(np.arange(len(sample.sums)), sample.n_faces)
    faces = np.repeat(np.arange(len(sums)), counts)
    if proportion and (counts > 1).any():
        # the first draws of a face are its outcomes
        place = np.arange(len(faces)) - np.repeat(np.cumsum(counts) - counts, counts)
        return (place < sums[faces]).astype(np.float64), faces, of_face[faces]
    return (sums / counts)[faces], faces, of_face[faces]


def shares_of(outputs: Outputs, positions: IntArray, k: int) -> Groups:
    """Totals by apparent group: of every face, how many of its draws show it."""
    predicted = [outputs.predicted[face] for face in positions.tolist() if outputs.predicted[face]]
    counts = np.array([len(each) for each in predicted], dtype=np.float64)
    sums = [
        np.array([each.count(group) for each in predicted], dtype=np.float64) for group in range(k)
    ]
    n, draws = np.full(k, len(counts)), np.full(k, int(counts.sum()))
    return Groups(sums, [counts] * k, n, draws)


def draws_by_face(
    shown: Outputs, truth: Sequence[int], used: IntArray, names: IntArray, k: int
) -> Draws | None:
    """Draws of the faces that are used and have a group."""
    faces, labels, predicted = [], [], []
    for face, name in zip(used.tolist(), names.tolist(), strict=True):
        if truth[face] != NONE:
            answers = shown.predicted[face]
            faces += [name] * len(answers)
            labels += [truth[face]] * len(answers)
            predicted += answers
    if not faces:
        return None
    return Draws(np.array(faces), np.array(labels), np.array(predicted), k)


def draws_of_sides(
    case: Case,
    trial: Record,
    baseline: Record | None,
    pairing: Pairing | None,
    labels: AttributeRecord,
) -> list[Draws] | Unavailable:
    """Draws of the trial and of the baseline, if any, by the labels of an attribute."""
    sides = [(trial, case.key)]
    if case.baseline is not None and baseline is not None:
        sides.append((baseline, case.baseline))
    draws = []
    for number, (side, key) in enumerate(sides):
        theirs, shown = side.attribute(labels.name), side.outputs(key, labels.name)
        if theirs is None or shown is None or theirs.groups != labels.groups:
            raise InputError(
                f"the baseline holds no outputs by {labels.name} in these groups; write it "
                "again with these rules"
            )
        used = numbers = np.arange(len(side.faces))
        if pairing is not None and baseline is not None:
            used, numbers = _numbered(number, len(trial.faces), baseline, pairing, labels)
        each = draws_by_face(shown, theirs.truth, used, numbers, len(labels.groups))
        if each is None:
            return Unavailable(f"no face has a group of {labels.name}")
        draws.append(each)
    return draws


def _numbered(
    number: int, n: int, baseline: Record, pairing: Pairing, labels: AttributeRecord
) -> tuple[IntArray, IntArray]:
    """Faces of a side that are used, and their numbers: shared faces have one number."""
    positions = pairing.trial, pairing.baseline
    if pairing.paired:
        # faces that both sides label alike
        theirs = baseline.attribute(labels.name)
        truth = np.array(labels.truth)[positions[0]]
        is_alike = truth == np.array(theirs.truth if theirs else labels.truth)[positions[1]]
        return positions[number][is_alike], positions[0][is_alike]
    if number == 0:
        return positions[0], positions[0]
    return positions[1], n + positions[1]


def corrected_sample(shift: CorrectedShift, present: IntArray, whole: bool) -> Sampled:
    """Corrected retention of groups, or of the whole sample, with replicates.

    Where a model gave the labels, retention may come out above 1 and is clipped first. A standard
    error is at least that of a share which one face of n + 2 does not have.
    """
    size = shift.faces[present]
    reach = np.ptp(np.linalg.inv(shift.confusion.shares), axis=0)[present]
    least = np.sqrt((size + 1.0) / size) / (size + 2.0) * reach
    if whole:
        weights = shift.draws[present] / shift.draws[present].sum()
        value = shift.joint[present, present].sum()
        drawn = shift.joint_replicates[:, present, present].sum(axis=1)
        numbers = np.array([size.sum()]), np.array([shift.draws[present].sum()])
        error = np.array([np.linalg.norm(weights * least)])
        return Sampled(np.array([value]), drawn[:, None], error, *numbers)
    values = shift.values[present, present]
    if shift.labels_from == "model":
        values = np.minimum(values, 1.0)
    drawn = shift.replicates[:, present, present]
    return Sampled(values, drawn, least, size, shift.draws[present])


def drop_design(
    sides: Sides, paired: bool, better: bool, verdicts: int, margin: float, alpha: float
) -> DropDesign:
    """Describe the comparison as the table of sample sizes does, from the data of both sides."""
    assert sides.baseline is not None
    draws = int(round(sides.trial.n_draws.sum() / sides.trial.n_faces.sum()))
    pairs = list(zip(sides.baseline.sums, sides.baseline.counts, strict=True))
    icc = correlation_of_totals(pairs)
    # of the group in which a drop of ten points is the hardest to show: it varies the most
    rates = sides.baseline.means() if better else 1 - sides.baseline.means()
    hardest = rates[np.abs(rates - (1 + DROP) / 2).argmin()]
    base = min(max(float(hardest), 0.02), 0.98)
    correlation = None
    if paired:
        # of both sides' means of a face, within groups
        means = [
            np.concatenate([s / n - (s / n).mean() for s, n in zip(g.sums, g.counts, strict=True)])
            for g in (sides.trial, sides.baseline)
        ]
        spread = math.sqrt(float((means[0] ** 2).sum() * (means[1] ** 2).sum()))
        shared = float((means[0] * means[1]).sum()) / spread if spread > 0 else 0.0
        correlation = min(max(shared, 0.0), 0.99)
    return DropDesign(
        base,
        max(draws, 1),
        1.0 if icc is None else icc,
        correlation,
        len(sides.trial.sums),
        verdicts,
        margin,
        alpha,
    )
