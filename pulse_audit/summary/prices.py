"""What an arm costs, for the comparison of two: distances of sets, time, variety of its draws.

These have no pairs of faces, so each side has its own estimate and interval, and no difference.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pulse_audit.seeding import fingerprint
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import proportion_interval
from pulse_audit.store import Run
from pulse_audit.summary.attributes import Grouping
from pulse_audit.summary.estimates import DISTANCES
from pulse_audit.summary.groups import NONE, Subset
from pulse_audit.summary.schema import ALL, SubsetKey, read
from pulse_audit.types import Estimate, InputError

#: What is no metric: its title, unit, factor of display and decimals.
OTHER_PRICES = {
    "seconds": ("Seconds of a draw", "s", 1.0, 3),
    "pairs_apart": ("Pairs of draws of other groups", "%", 100.0, 1),
}


@dataclass(frozen=True)
class Price:
    """One price on either side.

    ``name`` is a metric of the registry or one of `OTHER_PRICES`: ``pairs_apart`` is the share of
    pairs of draws of a face that show different apparent groups of ``group_by``.
    """

    arm: str
    other: str
    condition: str
    scale: int
    name: str
    group_by: str
    first: Estimate
    second: Estimate

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        sides = {
            side: {
                **{
                    key: number if np.isfinite(number) else None
                    for key, number in (("value", e.value), ("low", e.low), ("high", e.high))
                },
                "n_faces": e.n_faces,
                "method": e.method,
            }
            for side, e in (("first", self.first), ("second", self.second))
        }
        return {
            "arm": self.arm,
            "minus": self.other,
            "condition": self.condition,
            "scale": self.scale,
            "name": self.name,
            "group_by": self.group_by,
            **sides,
        }


Costs = Mapping[tuple[str, str], Estimate]


def costs(run: Run, subset: Subset | None, groupings: Mapping[str, Grouping]) -> Costs:
    """Return what one arm costs in one setting, by name and grouping.

    Distances are those of the whole run, as its summary has them; all else is of ``subset``.
    """
    return {} if subset is None else dict(_costs(run, subset, groupings))


def _costs(
    run: Run, subset: Subset, groupings: Mapping[str, Grouping]
) -> Iterator[tuple[tuple[str, str], Estimate]]:
    try:
        rows = read(run.path).estimates
    except InputError:
        # Without a summary the distances are left out.
        rows = []
    for row in rows:
        own = SubsetKey(row.arm, row.condition, row.scale) == subset.key and row.group_by == ALL
        if own and row.metric in DISTANCES and row.value is not None:
            low, high = (np.nan if end is None else end for end in (row.low, row.high))
            yield (
                (row.metric, ALL),
                Estimate(row.value, low, high, row.n_faces, row.n_draws, row.method),
            )
    # The time of a draw, with faces as clusters.
    seconds = subset.samples["seconds"].to_numpy(dtype=np.float64)
    known = np.isfinite(seconds)
    if known.any():
        seed = fingerprint(run.manifest.spec.seed, "compare", "seconds", *subset.key)
        yield ("seconds", ALL), cluster_bca(seconds[known], subset.faces[known], seed=seed)
    # Pairs of draws of a face whose outputs have different apparent groups.
    for grouping in groupings.values():
        if grouping.labels is None:
            continue
        shown = pd.Series(grouping.labels.output[subset.rows], index=subset.faces)
        pairs = [
            (face, float(first != second))
            for face, draws in shown[shown != NONE].groupby(level=0)
            for first, second in itertools.combinations(draws.tolist(), 2)
        ]
        if pairs:
            faces, apart = zip(*pairs, strict=True)
            yield ("pairs_apart", grouping.name), proportion_interval(apart, faces)


def prices(
    sides: Sequence[Costs], arm: str, other: str, condition: str, scale: int
) -> Iterator[Price]:
    """Put the costs of two sides beside each other, those that both have."""
    first, second = sides
    for name, group_by in (key for key in first if key in second):
        key = name, group_by
        yield Price(arm, other, condition, scale, name, group_by, first[key], second[key])
