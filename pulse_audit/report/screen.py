"""The first screen and the plots that the page draws itself, as plain data for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.report.tables import SHOWN, display_name
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.schema import ALL, EstimateRow, Summary

#: Arms whose matrices stand on the first screen, arms in a plot, groups in one, at most.
MAX_MATRICES, MAX_ARMS, MAX_LINES = 2, 6, 30


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


@dataclass(frozen=True)
class Point:
    """An estimate within a plot: places along the axis, 0 to 1, and its text."""

    series: int
    value: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Forest:
    """Estimates with intervals: one line a group or setting, one series an arm."""

    title: str
    unit: str
    description: str
    series: Sequence[str]
    ticks: Sequence[tuple[float, str]]
    lines: Sequence[tuple[str, Sequence[Point]]]


def matrices(
    manifest: Manifest, summary: Summary, setting: tuple[str, int], group_by: str
) -> list[Matrix]:
    """Shift matrices of the arms on trial, corrected where that is possible, and the originals'."""
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
        if corrected:
            made.append(_matrix(arm, "corrected", corrected))
        else:
            raw = [r for r in of_arm if r.correction == "raw"]
            made.append(_matrix(arm, "as classified; the errors cannot be corrected here", raw))
    if arms:
        key = (arms[0], "original_baseline")
        originals = [r for r in rows if (r.arm, r.correction) == key]
        note = "as classified: the original baseline"
        made += [_matrix("originals", note, originals)] if originals else []
    return made


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


def forests(summary: Summary, setting: tuple[str, int], group_by: str) -> list[Forest]:
    """Every metric of the tables by the groups of a grouping, one series an arm."""
    plots = []
    for metric in SHOWN:
        rows = [
            r
            for r in summary.estimates
            if r.plain
            and (r.metric, r.condition, r.scale) == (metric, *setting)
            and r.group_by in (group_by, ALL)
        ]
        if any(r.group_by == group_by for r in rows):
            # All faces come last.
            rows = sorted(rows, key=lambda r: r.group_by == ALL)
            labelled = [(r.group if r.group_by != ALL else "all faces", r) for r in rows]
            plots += _forest(metric, labelled)
    return plots


def across_settings(manifest: Manifest, summary: Summary, group_by: str) -> list[Forest]:
    """Retention under every condition and scale: of all faces, and of each group."""
    if len(summary.settings) < 2:
        return []
    rows = [r for r in summary.estimates if r.plain and r.metric == "retention" and r.scale]
    arms = on_trial(manifest, [r.arm for r in rows])
    labelled = [
        (f"{'all faces' if r.group_by == ALL else r.group}, {r.condition} ×{r.scale}", r)
        for r in rows
        if r.arm in arms and r.group_by in (ALL, group_by)
    ]
    # The settings of a group stand together, all faces first.
    groups = list(dict.fromkeys(r.group for _, r in labelled if r.group_by != ALL))
    rank = {group: place for place, group in enumerate([ALL, *groups])}
    labelled.sort(key=lambda pair: (rank.get(pair[1].group, 0), pair[1].group_by != ALL))
    return _forest("retention", labelled, f"by {display_name(group_by)} and setting", 80)


def _forest(
    metric: str,
    labelled: Sequence[tuple[str, EstimateRow]],
    suffix: str = "",
    most: int = MAX_LINES,
) -> list[Forest]:
    """Scale estimates to an axis; none where nothing was measured or there are too many lines."""
    measure = BY_NAME[metric]
    scale, digits = measure.display_scale, measure.decimals
    known = [(label, r) for label, r in labelled if r.value is not None]
    arms = list(dict.fromkeys(r.arm for _, r in known))[:MAX_ARMS]
    lines: dict[str, list[Point]] = {label: [] for label, _ in known}
    if not known or len(lines) > most:
        return []
    ends = [scale * x for _, r in known for x in (r.value, r.low, r.high) if x is not None]
    least, largest = min(ends), max(ends)
    if measure.unit == "%":
        least, largest = min(0.0, least), max(100.0, largest)
    width = (largest - least) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round((scale * value - least) / width, 4)

    for label, r in known:
        value = place(r.value)
        if r.arm not in arms or value is None or r.value is None:
            continue
        text = f"{r.arm}, {label}: {scale * r.value:.{digits}f}"
        if r.low is not None and r.high is not None:
            text += f" [{scale * r.low:.{digits}f}, {scale * r.high:.{digits}f}]"
        point = Point(arms.index(r.arm), value, place(r.low), place(r.high), text)
        lines[label].append(point)
    decimals = 0 if width >= 10 else 1 if width >= 1 else 2 if width >= 0.1 else 4
    ticks = [(i / 4, f"{least + i * width / 4:.{decimals}f}") for i in range(5)]
    title = f"{measure.title} {suffix}".strip()
    drawn = list(lines.items())
    return [Forest(title, measure.unit, measure.description, arms, ticks, drawn)]
