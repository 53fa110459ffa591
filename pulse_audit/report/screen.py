"""The shift matrices that the page draws itself, as plain data for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.groups import TONES
from pulse_audit.summary.schema import EstimateRow, Summary

#: Arms whose matrices stand on the first screen, at most.
MAX_MATRICES = 2


@dataclass(frozen=True)
class Matrix:
    """A shift matrix in per cent: rows the groups of faces, columns the apparent ones of outputs.

    ``note`` says whether it is corrected for the attribute model's errors.
    """

    title: str
    note: str
    groups: Sequence[str]
    to_groups: Sequence[str]
    cells: Sequence[Sequence[float | None]]


def matrices(
    manifest: Manifest, summary: Summary, setting: tuple[str, int], group_by: str
) -> list[Matrix]:
    """Shift matrices of the arms on trial and of the originals; corrected where that is usable."""
    rows = [
        r
        for r in summary.estimates
        if (r.metric, r.condition, r.scale, r.group_by) == ("shift", *setting, group_by)
    ]
    made = []
    arms = on_trial(manifest, [r.arm for r in rows])
    for arm in arms[:MAX_MATRICES]:
        of_arm = [r for r in rows if r.arm == arm]
        corrected = [r for r in of_arm if r.correction == "corrected" and r.value is not None]
        # A weak correction supports no claim, and its matrix would be read as one.
        if corrected and all((r.detail or {}).get("grade") == "usable" for r in corrected):
            note = "corrected, each cell for itself: rows need not sum to 100"
            made.append(_matrix(arm, note, corrected))
        else:
            raw = [r for r in of_arm if r.correction == "raw"]
            made.append(_matrix(arm, _uncorrected(group_by, bool(corrected)), raw))
    if arms:
        key = (arms[0], "original_baseline")
        originals = [r for r in rows if (r.arm, r.correction) == key]
        note = "as classified: the original baseline"
        made += [_matrix("originals", note, originals)] if originals else []
    return made


def _uncorrected(group_by: str, is_weak: bool) -> str:
    """Say what the cells of a matrix are that is not corrected."""
    if {*group_by.split(",")} <= {*TONES}:
        return "as measured on the pixels"
    if is_weak:
        return "as classified: too few faces to correct the classifier's errors"
    return "as classified: the classifier's errors cannot be corrected here"


def _matrix(title: str, note: str, rows: Sequence[EstimateRow]) -> Matrix:
    """Arrange the cells; ``not classified`` has a column only where a draw is in it."""
    values = {(r.group, str(r.to_group)): r.value for r in rows}
    groups = list(dict.fromkeys(r.group for r in rows))
    columns = list(dict.fromkeys(str(r.to_group) for r in rows))
    used = [c for c in columns if c in groups or any(values.get((g, c)) for g in groups)]
    cells = [
        [None if (v := values.get((g, c))) is None else round(100 * v) for c in used]
        for g in groups
    ]
    return Matrix(title, note, groups, used, cells)
