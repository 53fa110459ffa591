"""Where a shift comes from: the generator, its training data, the evaluation faces, the search.

An output that does not show its face's group is put down to one of four sources:

classifier
    the original itself is not read as its labelled group, so that a perfect upsampler would not
    be either;
preference
    the same search from the same seed, guided toward the group, finds an image that fits the input
    and shows the group: the generator could have, and did not;
adversarial
    it finds one, but a second attribute model, which did not guide, does not see the group;
incapacity
    even the guided search finds none: no image that fits the input at all, or none of the group.

Incapacity is what this search did not find. It is an upper bound of what the generator cannot
show: a longer search, or more draws, can only move draws from incapacity to preference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pulse_audit.fairness import compositions
from pulse_audit.fairness.compositions import Row, row
from pulse_audit.stats.intervals import IntArray, intraclass_correlation, proportion_interval
from pulse_audit.types import Estimate, InputError

Flags: TypeAlias = NDArray[np.bool_]

#: What becomes of a draw, one of these; indices of `parts`.
PARTS = ("retained", "classifier", "preference", "adversarial", "incapacity")
RETAINED, CLASSIFIER, PREFERENCE, FOOLED, INCAPACITY = range(5)

#: Tables of ``sources/``.
TABLES = ("originals", "prior", "guided", "uninformative")
JOIN = " × "
KEYS = ["arm", "condition", "scale", "face_id", "draw"]


def read_tables(run: Path) -> dict[str, pd.DataFrame] | None:
    """Read ``sources/*.parquet`` of a run directory; None where ``--sources`` was not finished.

    Raises
    ------
    InputError
        If a table cannot be read.
    """
    paths = {name: run / "sources" / f"{name}.parquet" for name in TABLES}
    if not all(path.is_file() for path in paths.values()):
        return None
    tables = {}
    for name, path in paths.items():
        try:
            tables[name] = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read ({error})") from None
    return tables


def parts(
    retained: Flags, misread: Flags, shown: Flags, confirmed: Flags | None = None
) -> IntArray:
    """Put every draw down to one of `PARTS`.

    Parameters
    ----------
    retained : array of bool, (n,)
        The unguided output shows the labelled group.
    misread : array of bool, (n,)
        The original is not read as its labelled group.
    shown : array of bool, (n,)
        The guided search found an image that fits the input and shows the group.
    confirmed : array of bool, (n,), optional
        A second model sees the group in that image; None where there is no second model.

    Returns
    -------
    array of int64, (n,)
        Retained before the classifier's part before the generator's.
    """
    believed = np.ones_like(shown) if confirmed is None else confirmed
    return np.select(
        [retained, misread, shown & believed, shown],
        [RETAINED, CLASSIFIER, PREFERENCE, FOOLED],
        INCAPACITY,
    ).astype(np.int64)


@dataclass(frozen=True, eq=False)
class GuidedDraws:
    """Draws of one arm, condition and scale, guided and not, row by row.

    Attributes
    ----------
    faces : array of int64, (n,)
        Face number.
    part : array of int64, (n,)
        Index into `PARTS`.
    retained, feasible, shown : array of bool, (n,)
        Of the search without guidance; of the guided one.
    confirmed : array of bool, (n,), or None
        Where ``shown``, whether the second model sees the group.
    checked : array of bool, (n,), or None
        Whether the second model reads the original as its group; False where ``read`` is.
    read : array of bool, (n,)
        Whether the first model does.
    """

    faces: IntArray
    part: IntArray
    retained: Flags
    feasible: Flags
    shown: Flags
    confirmed: Flags | None
    checked: Flags | None
    read: Flags

    def of(self, rows: Flags) -> GuidedDraws:
        """Return some of the draws."""
        return GuidedDraws(
            faces=self.faces[rows],
            part=self.part[rows],
            retained=self.retained[rows],
            feasible=self.feasible[rows],
            shown=self.shown[rows],
            confirmed=None if self.confirmed is None else self.confirmed[rows],
            checked=None if self.checked is None else self.checked[rows],
            read=self.read[rows],
        )


def estimates(
    tables: Mapping[str, pd.DataFrame],
    samples: pd.DataFrame,
    manifest: Mapping[str, Any],
    confidence: float = 0.95,
) -> list[Row]:
    """Sum up ``sources/``: rows with the fields of `summary.schema.EstimateRow`.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        From `read_tables`.
    samples : DataFrame
        Of the run, with ``label_<a>`` and ``sr_<a>`` of the guided attributes.
    manifest : mapping
        Of the run; its entry ``sources`` says which attributes guided and what is known of the
        generators' training sets.
    confidence : float
        Of every interval.

    Returns
    -------
    list of dict
        Per arm, condition, scale and group (``group_by`` is the guided attributes joined by
        commas; also ``group`` ``all`` under ``group_by`` ``all``), shares of all draws:

        ``source_retained``, ``source_classifier``, ``source_preference``, ``source_adversarial``
        (only with a second model) and ``source_incapacity``, which sum to 1;
        ``source_incapacity_infeasible``, the part of the last in which not even the input was
        fitted; ``source_incapacity_faces``, the share of faces of which no draw, guided or not,
        shows the group; ``guided_shown``, the share of guided searches that show it; and of these
        ``guided_confirmed``, the share in which the second model sees it too, with its
        ``original_baseline``: the same share of the originals that the first model reads right.

        Per arm, with condition ``all`` and scale 0, for every group of every labelled attribute:
        ``prior_share`` (also ``corrected`` by the model card's confusion, where it has one),
        ``training_share``, ``evaluation_share``, and the differences ``prior_minus_training``,
        ``prior_minus_evaluation`` and ``training_minus_evaluation``; under ``group_by`` ``all``,
        ``prior_lightness`` and ``prior_ita``.

        Per arm, condition ``clean`` and scale, for every group: ``ucpr_share_group_mean``,
        ``ucpr_share_noisy_mean``, ``ucpr_share_grey``: shares of predicted groups among outputs
        of inputs that say little or nothing of a group.

        Training and evaluation shares are counts of known sets: their intervals have no width.

    Raises
    ------
    InputError
        If the guided draws are not those of the samples.
    """
    return [
        *_split_rows(tables, samples, manifest, confidence),
        *compositions.rows(tables["prior"], manifest, confidence),
        *compositions.uninformative_rows(tables["uninformative"], manifest, confidence),
    ]


def split_estimates(
    draws: GuidedDraws, confidence: float, pooled: Mapping[str, float | None]
) -> dict[tuple[str, str], Estimate]:
    """Every metric of `estimates` that comes from guided draws, by (name, correction)."""
    made: dict[tuple[str, str], Estimate] = {}
    for name, outcomes in _outcomes(draws).items():
        made[name, "raw"] = proportion_interval(outcomes, draws.faces, pooled.get(name), confidence)
    made["source_incapacity_faces", "raw"] = _never_shown(draws, confidence)
    for correction, among, seen in _confirmations(draws):
        if among.any():
            made["guided_confirmed", correction] = proportion_interval(
                seen[among], draws.faces[among], None, confidence
            )
    return made


def _outcomes(draws: GuidedDraws) -> dict[str, Flags]:
    """Yes or no of every draw, by metric."""
    lost = draws.part == INCAPACITY
    outcomes = {
        f"source_{name}": draws.part == number
        for number, name in enumerate(PARTS)
        if number != FOOLED or draws.confirmed is not None
    }
    return {
        **outcomes,
        "source_incapacity_infeasible": lost & ~draws.feasible,
        "guided_shown": draws.shown,
    }


def _never_shown(draws: GuidedDraws, confidence: float) -> Estimate:
    """Share of faces of which no draw shows the group: one yes or no a face."""
    believed = draws.shown if draws.confirmed is None else draws.shown & draws.confirmed
    ever = pd.Series(draws.retained | believed).groupby(draws.faces).any()
    estimate = proportion_interval(~ever.to_numpy(np.bool_), ever.index, None, confidence)
    return Estimate(
        estimate.value, estimate.low, estimate.high, len(ever), len(draws.faces),
        f"{estimate.method} over faces", confidence,
    )  # fmt: skip


def _confirmations(draws: GuidedDraws) -> Iterator[tuple[str, Flags, Flags]]:
    """Correction, the draws asked about, and what the second model says of them."""
    if draws.confirmed is not None and draws.checked is not None:
        yield "raw", draws.shown, draws.confirmed
        _, first = np.unique(draws.faces, return_index=True)
        once = np.isin(np.arange(len(draws.faces)), first)
        yield "original_baseline", draws.read & once, draws.checked


def _split_rows(
    tables: Mapping[str, pd.DataFrame],
    samples: pd.DataFrame,
    manifest: Mapping[str, Any],
    confidence: float,
) -> Iterator[Row]:
    guided_by: list[str] = manifest["sources"]["guided_by"]
    joined = _joined(tables["guided"], tables["originals"], samples, guided_by)
    order = _order(joined["group"], guided_by, manifest)
    for _, cell in joined.groupby(["arm", "condition", "scale"], sort=False):
        draws, groups = _draws(cell), cell["group"].to_numpy()
        arm, condition, scale = cell[["arm", "condition", "scale"]].to_numpy()[0]
        key = {"arm": arm, "condition": condition, "scale": int(scale)}
        pooled = {
            name: intraclass_correlation(outcomes, draws.faces, groups)
            for name, outcomes in _outcomes(draws).items()
        }
        yield from _named(
            split_estimates(draws, confidence, {}), {**key, "group_by": "all", "group": "all"}
        )
        for group in order:
            inside = groups == group
            if inside.any():
                yield from _named(
                    split_estimates(draws.of(inside), confidence, pooled),
                    {**key, "group_by": ",".join(guided_by), "group": group},
                )


def _named(made: Mapping[tuple[str, str], Estimate], key: Mapping[str, Any]) -> Iterator[Row]:
    for (metric, correction), estimate in made.items():
        yield row(metric, estimate, correction, **key)


def _joined(
    guided: pd.DataFrame, originals: pd.DataFrame, samples: pd.DataFrame, guided_by: Sequence[str]
) -> pd.DataFrame:
    """Join each guided draw to the unguided one of the same seed, and to its original."""
    labels = [f"label_{a}" for a in guided_by]
    checks = [f"check_{a}" for a in guided_by if f"check_{a}" in guided]
    plain = samples[[*KEYS, "status", *labels, *(f"sr_{a}" for a in guided_by)]]
    rows = plain.merge(guided[[*KEYS, "feasible", "shown", *checks]], on=KEYS, validate="1:1")
    faces = originals[["face_id", *(f"hr_{a}" for a in guided_by), *checks]]
    rows = rows.merge(faces, on="face_id", validate="m:1", suffixes=("", "_hr"))
    if len(rows) != len(guided):
        raise InputError(
            f"sources/guided.parquet: {len(guided) - len(rows)} of its {len(guided)} draws are "
            "not in the samples; run the same command again"
        )
    lost = rows["status"].isin(["error", "no_face"])
    rows["group"] = rows[labels].astype(str).agg(JOIN.join, axis=1)
    rows["retained"] = _all_equal(rows, labels, [f"sr_{a}" for a in guided_by]) & ~lost
    rows["read"] = _all_equal(rows, labels, [f"hr_{a}" for a in guided_by])
    if checks:
        rows["confirmed"] = _all_equal(rows, labels, checks)
        rows["checked"] = _all_equal(rows, labels, [f"{c}_hr" for c in checks])
    return rows.sort_values(KEYS, kind="stable")


def _all_equal(rows: pd.DataFrame, left: Sequence[str], right: Sequence[str]) -> pd.Series[bool]:
    """Whether two lists of columns agree in each row; what is missing agrees with nothing."""
    equal = [rows[a].eq(rows[b]) & rows[a].notna() for a, b in zip(left, right, strict=True)]
    return pd.concat(equal, axis=1).all(axis=1)


def _order(
    groups: pd.Series[str], guided_by: Sequence[str], manifest: Mapping[str, Any]
) -> list[str]:
    """Return the groups that occur, in the order of the data set's words."""
    words = manifest["dataset"]["vocabulary"]
    ranks = [{word: i for i, word in enumerate(words.get(a, []))} for a in guided_by]

    def key(group: str) -> list[tuple[int, str]]:
        each = group.split(JOIN) if len(ranks) > 1 else [group]
        return [(r.get(w, len(r)), w) for r, w in zip(ranks, each, strict=False)]

    return sorted(groups.unique(), key=key)


def _draws(cell: pd.DataFrame) -> GuidedDraws:
    """Arrays of the draws of one cell."""

    def flags(name: str) -> Flags:
        return np.asarray(cell[name].to_numpy(np.bool_))

    second = "confirmed" in cell
    confirmed = flags("confirmed") if second else None
    return GuidedDraws(
        faces=pd.factorize(cell["face_id"], sort=True)[0].astype(np.int64),
        part=parts(flags("retained"), ~flags("read"), flags("shown"), confirmed),
        retained=flags("retained"),
        feasible=flags("feasible"),
        shown=flags("shown"),
        confirmed=confirmed,
        checked=flags("checked") if second else None,
        read=flags("read"),
    )
