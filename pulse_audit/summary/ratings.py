"""What raters say of outputs: opinion scores, preferences, agreement, and labels by majority.

Raters and faces are both samples, so that the interval of a mean or a share is over raters and
faces crossed (`pulse_audit.stats.crossed`). Rank tests over all ratings are given as published
work gives them; they take ratings as independent, which they are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from pulse_audit.stats.agreement import Level, krippendorff_alpha
from pulse_audit.stats.crossed import crossed_mean, crossed_share
from pulse_audit.stats.ranks import holm, mann_whitney
from pulse_audit.store import Manifest, Ratings
from pulse_audit.store.ratings import CANNOT_TELL, SIDES, Task
from pulse_audit.summary.attributes import Grouping
from pulse_audit.summary.claims import joined
from pulse_audit.summary.groups import face_numbers
from pulse_audit.summary.schema import (
    ALL,
    Correction,
    Detail,
    EstimateRow,
    Finding,
    SubsetKey,
    make_row,
)
from pulse_audit.types import Estimate

#: Word for the originals, which are rated among the outputs.
ORIGINAL = "original"
#: The least and the greatest grade.
GRADES = (1.0, 5.0)
#: What differs between two answers of a task.
LEVELS: Mapping[Task, Level] = {"mos": "ordinal", "group": "nominal", "choice": "nominal"}


@dataclass(frozen=True, eq=False)
class RatingTable:
    """Answers beside what was shown, one row an answer.

    ``frame`` has ``rater``, ``item``, ``task``, ``answer``, ``condition``, ``scale``, ``face`` (its
    number), ``output`` (number of the face and draw), ``row`` (in the samples, of any arm where the
    original was shown), ``arm`` (the left one of two; ``""``: the original) and ``other``.
    ``attribute`` is that of the groups, ``arms`` those of the run in its order.
    """

    frame: pd.DataFrame
    attribute: str | None
    arms: Sequence[str]

    def of(self, task: Task, setting: tuple[str, int]) -> pd.DataFrame:
        """Answers of a task under a condition and scale."""
        frame = self.frame
        chosen = (frame["task"] == task) & (frame["condition"] == setting[0])
        return frame[chosen & (frame["scale"] == setting[1])]

    def arms_of(self, frame: pd.DataFrame) -> list[str]:
        """Arms that were shown, in the order of the run; originals are none."""
        shown = {*frame["arm"], *frame["other"]}
        return [arm for arm in self.arms if arm in shown]

    def settings(self) -> list[tuple[str, int]]:
        """Conditions and scales with an answer, in the order of the kit."""
        pairs = zip(self.frame["condition"], self.frame["scale"], strict=True)
        return list(dict.fromkeys((str(c), int(s)) for c, s in pairs))


def rating_table(ratings: Ratings, samples: pd.DataFrame, arms: Sequence[str]) -> RatingTable:
    """Join answers to the draws that they are about; those of no finished draw are left out."""
    key = ["condition", "scale", "face_id", "draw"]
    rows = {
        (arm, *rest): row
        for row, (arm, *rest) in enumerate(
            samples[["arm", *key]].itertuples(index=False, name=None)
        )
    }
    # the original of a face is rated whatever the arm
    rows |= {("", *rest): row for (_, *rest), row in rows.items()}
    numbers = face_numbers(samples)
    shown = {}
    for item in ratings.key.items:
        draw = item.condition, item.scale, item.face, item.draw
        left, *_, right = [*item.arms, *item.arms] or ["", ""]
        if (left, *draw) in rows and (right, *draw) in rows:
            row = rows[left, *draw]
            shown[item.id] = {
                "task": item.task, "condition": item.condition, "scale": item.scale,
                "face": numbers[row], "output": f"{item.face} {item.draw}", "row": row,
                "arm": left, "other": right,
            }  # fmt: skip
    lines = [
        {"rater": a.rater, "item": a.item, "answer": a.answer, **shown[a.item]}
        for a in ratings.answers
        if a.item in shown
    ]
    names = ["rater", "item", "answer", "task", "condition", "scale", "face", "output", "row"]
    frame = pd.DataFrame(lines, columns=[*names, "arm", "other"])
    return RatingTable(frame, ratings.key.attribute, arms)


def majority(table: RatingTable, samples: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Label every output with the group that most of its raters saw; none where that is a tie.

    Returns
    -------
    dict
        Image -> attribute -> word, as labels that people gave otherwise.
    """
    frame = table.frame[table.frame["task"] == "group"]
    images, labels = samples["image"].tolist(), dict[str, dict[str, str]]()
    for row in frame["row"].unique():
        votes = frame.loc[frame["row"] == row, "answer"].value_counts()
        first = votes.index[votes == votes.max()]
        if len(first) == 1 and first[0] != CANNOT_TELL and isinstance(images[row], str):
            labels[images[row]] = {str(table.attribute): str(first[0])}
    return labels


def judgements(
    ratings: Ratings,
    manifest: Manifest,
    samples: pd.DataFrame,
    groupings: Sequence[Grouping],
    setting: tuple[str, int] | None,
) -> tuple[list[EstimateRow], list[Finding], dict[str, dict[str, str]]]:
    """Summarise ratings: rows, sentences on one condition and scale, and labels by majority."""
    table, words = rating_table(ratings, samples, list(manifest.arms)), ratings.key.words
    rows = rating_rows(table, groupings, words)
    said = rating_sentences(table, rows, setting, words) if setting else ()
    return rows, [Finding(text=each) for each in said], majority(table, samples)


def rating_rows(
    table: RatingTable, groupings: Sequence[Grouping], words: Sequence[str]
) -> list[EstimateRow]:
    """All rows that come of ratings, by condition and scale; ``words`` are those of the groups."""
    rows: list[EstimateRow] = []
    for setting in table.settings():
        rows += _opinion_rows(table, setting, groupings)
        rows += _rank_rows(table, setting)
        rows += _preference_rows(table, setting, groupings)
        rows += _agreement_rows(table, setting, words)
    return rows


def _opinion_rows(
    table: RatingTable, setting: tuple[str, int], groupings: Sequence[Grouping]
) -> Iterator[EstimateRow]:
    """Mean opinion scores by arm and group, of originals too, and differences between arms."""
    scores = table.of("mos", setting)
    arms = table.arms_of(scores)
    for arm in arms:
        key = SubsetKey(arm, *setting)
        of_arm: list[tuple[str, Correction]] = [(arm, "raw"), ("", "original_baseline")]
        for grouping, group, inside in _parts(scores, groupings):
            for shown, correction in of_arm:
                part = inside[inside["arm"] == shown]
                if len(part):
                    estimate, detail = _mean(part, part["answer"].astype(float).to_numpy())
                    yield make_row(
                        key, "mos", grouping, group, estimate, correction=correction, detail=detail
                    )
    # the same rater on two outputs of a face
    wide = scores.assign(score=scores["answer"].astype(float)).pivot_table(
        index=["rater", "output"], columns="arm", values="score", aggfunc="first"
    )
    faces = scores.groupby("output")["face"].first()
    for arm, other in [*combinations(arms, 2), *((arm, "") for arm in arms if "" in wide)]:
        both = wide[[arm, other]].dropna().reset_index()
        if not len(both):
            continue
        both["face"] = faces[both["output"]].to_numpy()
        differences = np.asarray(both[arm] - both[other], dtype=np.float64)
        estimate, detail = _mean(both, differences, (-4.0, 4.0))
        detail["minus"] = other or ORIGINAL
        yield make_row(
            SubsetKey(arm, *setting), "mos", ALL, ALL, estimate,
            statistic="difference", detail=detail,
        )  # fmt: skip


def _rank_rows(table: RatingTable, setting: tuple[str, int]) -> Iterator[EstimateRow]:
    """Mann-Whitney tests of every pair of arms, originals among them; p adjusted by Holm."""
    scores = table.of("mos", setting)
    of_arm = {arm: part["answer"].astype(float) for arm, part in scores.groupby("arm")}
    arms = [arm for arm in (*table.arms_of(scores), "") if arm in of_arm]
    pairs = list(combinations(arms, 2))
    found = [mann_whitney(of_arm[a], of_arm[b]) for a, b in pairs]
    for (a, b), test, p in zip(pairs, found, holm([t.p for t in found]), strict=True):
        part = scores[scores["arm"].isin((a, b))]
        numbers = part["face"].nunique(), part[["arm", "output"]].drop_duplicates().shape[0]
        method = (
            f"Mann-Whitney U of {len(of_arm[a])} and {len(of_arm[b])} ratings as if independent, "
            f"ties corrected, p adjusted for {len(pairs)} pairs (Holm)"
        )
        yield make_row(
            SubsetKey(a, *setting),
            "mos_p",
            ALL,
            ALL,
            Estimate(float(p), np.nan, np.nan, *numbers, method),
            statistic="difference",
            detail={
                "minus": b or ORIGINAL,
                "u": test.u,
                "p_unadjusted": test.p,
                "superiority": test.superiority,
            },
        )


def _preference_rows(
    table: RatingTable, setting: tuple[str, int], groupings: Sequence[Grouping]
) -> Iterator[EstimateRow]:
    """Share of answers that one arm's output is closer to the original than another's."""
    choices = table.of("choice", setting)
    pairs = {frozenset(p) for p in zip(choices["arm"], choices["other"], strict=True)}
    for one, two in combinations(table.arms_of(choices), 2):
        if {one, two} not in pairs:
            continue
        here = choices[choices["arm"].isin((one, two)) & choices["other"].isin((one, two))]
        for grouping, group, part in _parts(here, groupings):
            left = (part["answer"] == "left").to_numpy()
            prefers = (left == (part["arm"] == one).to_numpy()).astype(float)
            estimate = crossed_share(prefers, part["rater"], part["face"])
            estimate, detail = _counted(part, estimate)
            detail["over"] = two
            yield make_row(
                SubsetKey(one, *setting), "preference", grouping, group, estimate, detail=detail
            )


def _agreement_rows(
    table: RatingTable, setting: tuple[str, int], words: Sequence[str]
) -> Iterator[EstimateRow]:
    """Krippendorff's alpha of every task on the items that show an arm."""
    for task in LEVELS:
        frame = table.of(task, setting)
        for arm in table.arms_of(frame):
            part = frame[(frame["arm"] == arm) | (frame["other"] == arm)]
            estimate = agreement(part, task, words)
            if estimate is not None:
                estimate, detail = _counted(part, estimate)
                detail["task"] = task
                key = SubsetKey(arm, *setting)
                yield make_row(key, "rater_alpha", ALL, ALL, estimate, detail=detail)


def agreement(answers: pd.DataFrame, task: Task, words: Sequence[str]) -> Estimate | None:
    """Krippendorff's alpha of answers to a task; None where no item has two."""
    known = {"mos": list("12345"), "group": [*words, CANNOT_TELL], "choice": list(SIDES)}[task]
    unit = pd.factorize(answers["item"], sort=True)[0].astype(np.int64)
    if not len(unit) or np.bincount(unit).max() < 2:
        return None
    code = np.array([known.index(each) for each in answers["answer"]], dtype=np.int64)
    faces = answers["face"].to_numpy(np.int64)
    return krippendorff_alpha(unit, code, len(known), LEVELS[task], faces)


def rating_sentences(
    table: RatingTable, rows: Sequence[EstimateRow], setting: tuple[str, int], words: Sequence[str]
) -> Iterator[str]:
    """Describe what raters said under one condition and scale."""
    frame = table.frame[
        (table.frame["condition"] == setting[0]) & (table.frame["scale"] == setting[1])
    ]
    here = [r for r in rows if (r.condition, r.scale, r.group_by) == (*setting, ALL)]
    if not len(frame):
        return
    people = frame["rater"].nunique()
    whom = f"{people} {'raters' if people > 1 else 'rater'}"
    scores = [r for r in here if r.metric == "mos" and r.statistic == "value"]
    if scores:
        originals = [r for r in scores if r.correction == "original_baseline"][:1]
        arms = [r for r in scores if r.correction == "raw"]
        parts = [f"{_number(r)} for {ORIGINAL}s" for r in originals]
        parts += [f"{_number(r)} for {r.arm}" for r in arms]
        yield (
            f"Mean opinion score of {whom} who did not know the arms, 1 (bad) to 5 (excellent): "
            f"{joined(parts)}; intervals are over raters and faces."
        )
    for row in here:
        if row.metric == "preference" and row.detail:
            yield (
                f"Raters found outputs of {row.arm} closer to the original than those of "
                f"{row.detail['over']} in {_number(row, 100, 0)} % of {row.detail['ratings']:,} "
                "answers."
            )
    # agreement over the items of all arms
    names: dict[Task, str] = {
        "mos": "opinion scores",
        "group": "apparent groups",
        "choice": "choices",
    }
    found = [
        f"{alpha.value:.2f} for {name}"
        for task, name in names.items()
        if (alpha := agreement(frame[frame["task"] == task], task, words)) is not None
        and math.isfinite(alpha.value)
    ]
    if found:
        yield f"Krippendorff's alpha of the raters is {joined(found)} (1: they agree; 0: chance)."


def _number(row: EstimateRow, scale: float = 1, decimals: int = 2) -> str:
    """Value and interval as text, in display units."""
    value, low, high = (
        "none" if x is None else f"{scale * x:.{decimals}f}" for x in (row.value, row.low, row.high)
    )
    return f"{value} [{low}, {high}]" if row.low is not None else f"{value} (no interval)"


def _parts(
    frame: pd.DataFrame, groupings: Sequence[Grouping]
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Split answers by grouping and group, of every group of which some output was rated."""
    for grouping in groupings:
        number = grouping.of_draw[frame["row"].to_numpy(np.int64)]
        for place, group in enumerate(grouping.groups):
            if (number == place).any():
                yield grouping.name, group, frame[number == place]


def _mean(
    part: pd.DataFrame, values: ArrayLike, bounds: tuple[float, float] = GRADES
) -> tuple[Estimate, Detail]:
    """Mean over raters and faces, its numbers counted in outputs, and in ratings in the detail."""
    return _counted(part, crossed_mean(values, part["rater"], part["face"], bounds))


def _counted(part: pd.DataFrame, estimate: Estimate) -> tuple[Estimate, Detail]:
    """Count outputs as draws; raters and answers are in the detail."""
    faces, outputs = part["face"].nunique(), part["output"].nunique()
    detail: Detail = {
        "raters": int(part["rater"].nunique()),
        "ratings": len(part),
    }
    return replace(estimate, n_faces=faces, n_draws=outputs), detail
