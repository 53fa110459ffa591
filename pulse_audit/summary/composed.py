"""Rows of set-level fairness: RDP, PR, CPR, SPE, raw and for the originals themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from pulse_audit.fairness import sets
from pulse_audit.fairness.divergence import DIVERGENCES, Divergence
from pulse_audit.fairness.sets import Joint, joint_shares
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import IntArray
from pulse_audit.summary.apparent import NONE, AttributeLabels
from pulse_audit.summary.cells import ALL, Cell, Correction, Grouping, make_row
from pulse_audit.summary.schema import EstimateRow
from pulse_audit.summary.shifts import floor_draws, none
from pulse_audit.types import Unavailable

REPLICATES = 500
Property: TypeAlias = Callable[[Joint, Divergence], sets.SetEstimate | Unavailable]
LABELLED: Mapping[str, Property] = {"rdp": sets.rdp, "pr": sets.pr}
APPARENT: Mapping[str, Property] = {"cpr": sets.cpr, "spe": sets.spe}


def rows(
    cell: Cell, grouping: Grouping, tests: AttributeLabels, seed: int
) -> Iterator[EstimateRow]:
    """Rows of one cell for a grouping by the attribute tested.

    RDP and PR start from labelled groups, as published, and so have a floor. CPR and SPE start
    from the apparent groups of the originals: errors of the model then fall on both sides alike.
    """
    draws = tests.draws(cell.rows, cell.faces)
    if draws is None:
        return
    key = cell.seed(seed, "sets", tests.attribute)
    joint = joint_shares(draws, seed=key, replicates=REPLICATES)
    yield from _estimates(cell, tests, LABELLED, joint, "raw")
    if (floor := floor_draws(cell, tests)) is not None:
        made = joint_shares(floor, seed=key, replicates=REPLICATES)
        yield from _estimates(cell, tests, LABELLED, made, "original_baseline")
    if (mirrored := _apparent(cell, tests)) is not None:
        origin, strata = mirrored
        made = joint_shares(origin, seed=key, strata=strata, replicates=REPLICATES)
        yield from _estimates(cell, tests, APPARENT, made, "raw")


def _apparent(cell: Cell, tests: AttributeLabels) -> tuple[Draws, IntArray] | None:
    """Draws that start from the apparent group of the original, and their labelled groups."""
    known = (tests.original[cell.rows] != NONE) & (tests.truth[cell.rows] != NONE)
    rows = cell.rows[known]
    if not len(rows):
        return None
    draws = Draws(cell.faces[known], tests.original[rows], tests.output[rows], len(tests.words))
    return draws, tests.truth[rows]


def _estimates(
    cell: Cell,
    tests: AttributeLabels,
    properties: Mapping[str, Property],
    joint: Joint,
    correction: Correction,
) -> Iterator[EstimateRow]:
    for name, measure in properties.items():
        for divergence in DIVERGENCES:
            found = measure(joint, divergence)
            yield make_row(
                cell,
                f"{name}_{divergence}",
                tests.attribute,
                ALL,
                none(found.reason) if isinstance(found, Unavailable) else found.estimate,
                correction=correction,
                detail=None if isinstance(found, Unavailable) else {"plug_in": found.plug_in},
            )
