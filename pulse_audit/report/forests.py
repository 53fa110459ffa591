"""Forest plots: estimates with their intervals, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.report.drawings import COLUMN, LINE, MARGIN
from pulse_audit.report.tables import SHOWN, display_name
from pulse_audit.store import Manifest
from pulse_audit.summary.findings import on_trial
from pulse_audit.summary.schema import ALL, EstimateRow, Summary

#: Series in a plot and lines in one, at most.
MAX_SERIES, MAX_LINES = 6, 30
#: Inches that a page leaves for a figure and its caption.
HEIGHT = 8.2


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
            series = [r.arm for _, r in labelled]
            plots += _forest(BY_NAME[metric], BY_NAME[metric].title, series, labelled)
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
    series = [r.arm for _, r in labelled]
    title = f"{BY_NAME['retention'].title} by {display_name(group_by)} and setting"
    return _forest(BY_NAME["retention"], title, series, labelled, most=80)


def of_priors(summary: Summary) -> list[Forest]:
    """Whom each prior shows before any input: one plot an arm and attribute, one series a prior."""
    found: dict[tuple[str, str], list[EstimateRow]] = {}
    for row in summary.estimates:
        if row.metric.startswith("start_share") and row.detail is not None:
            found.setdefault((row.arm, row.group_by), []).append(row)
    return [
        plot
        for (arm, attribute), rows in found.items()
        for plot in _forest(
            BY_NAME[rows[0].metric],
            f"{arm}: share of samples by {display_name(attribute)}",
            [str(row.detail["prior"]) for row in rows if row.detail is not None],
            [(row.group, row) for row in rows],
        )
    ]


def _forest(
    measure: MetricDefinition,
    title: str,
    series: Sequence[str],
    labelled: Sequence[tuple[str, EstimateRow]],
    most: int = MAX_LINES,
) -> list[Forest]:
    """Scale estimates to an axis; none where nothing was measured or there are too many lines.

    ``series`` names that of each of the ``labelled`` estimates.
    """
    scale, digits = measure.display_scale, measure.decimals
    known = [(name, *pair) for name, pair in zip(series, labelled, strict=True)
             if pair[1].value is not None]  # fmt: skip
    names = list(dict.fromkeys(name for name, *_ in known))[:MAX_SERIES]
    lines: dict[str, list[Point]] = {label: [] for _, label, _ in known}
    if not known or len(lines) > most:
        return []
    ends = [scale * x for _, _, r in known for x in (r.value, r.low, r.high) if x is not None]
    least, largest = min(ends), max(ends)
    if measure.unit == "%":
        least, largest = min(0.0, least), max(100.0, largest)
    width = (largest - least) or 1.0

    def place(value: float | None) -> float | None:
        return None if value is None else round((scale * value - least) / width, 4)

    for name, label, r in known:
        value = place(r.value)
        if name not in names or value is None or r.value is None:
            continue
        text = f"{name}, {label}: {scale * r.value:.{digits}f}"
        if r.low is not None and r.high is not None:
            text += f" [{scale * r.low:.{digits}f}, {scale * r.high:.{digits}f}]"
        point = Point(names.index(name), value, place(r.low), place(r.high), text)
        lines[label].append(point)
    decimals = 0 if width >= 10 else 1 if width >= 1 else 2 if width >= 0.1 else 4
    ticks = [(i / 4, f"{least + i * width / 4:.{decimals}f}") for i in range(5)]
    drawn = list(lines.items())
    return [Forest(title, measure.unit, measure.description, names, ticks, drawn)]


def pages(plots: Sequence[Forest], width: float) -> list[Sequence[Forest]]:
    """Split plots into those that one figure of a width, in inches, has room for."""
    if not plots:
        return []
    rows = max(1, int((HEIGHT - 0.5) / (LINE * line_heights(plots) + MARGIN)))
    most = rows * columns_at(width)
    return [plots[first : first + most] for first in range(0, len(plots), most)]


def columns_at(width: float) -> int:
    """Count the panels of a figure that stand side by side."""
    return 2 if width == COLUMN else 3


def line_heights(plots: Sequence[Forest]) -> float:
    """Heights of a line that a panel takes; series of one line stand below each other."""
    series = {name for plot in plots for name in plot.series}
    labels = {label for plot in plots for label, _ in plot.lines}
    return len(labels) * max(1.0, 0.3 + 0.35 * len(series))
