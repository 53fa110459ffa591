"""What raters said, as tables: arms beside each other, and each arm against each other one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pulse_audit.metrics.definition import MetricDefinition
from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.report.tables import EstimateTable, TableCell, TableRow, display_name
from pulse_audit.summary.ratings import ORIGINAL
from pulse_audit.summary.schema import ALL, EstimateRow, Summary

#: What the columns of the table of agreement show.
TASKS = {"mos": "opinion scores", "group": "apparent groups", "choice": "choices"}


class PCell(TableCell):
    """A p-value; one that would be printed as 0 is printed as less than the last decimal."""

    @property
    def value(self) -> str:
        """The value, or a dash."""
        least = 10.0**-self.measure.decimals
        small = self.row is not None and self.row.value is not None and self.row.value < least
        return f"< {least:g}" if small else super().value


def rating_tables(
    summary: Summary, condition: str, scale: int, groupings: Sequence[Sequence[str]]
) -> Iterator[tuple[tuple[str, ...], EstimateTable]]:
    """Tables of what raters said under one condition and scale, each with words for its file.

    Mean opinion scores by group; differences between arms, with intervals over raters and faces;
    the rank tests of published work; preferences by group; agreement. None without ratings.
    """
    rows = [
        r
        for r in summary.estimates
        if (r.condition, r.scale) == (condition, scale)
        and r.metric in ("mos", "mos_p", "preference", "rater_alpha")
    ]
    setting = f"{condition}, scale {scale}"
    scores = [r for r in rows if r.metric == "mos" and r.statistic == "value"]
    for name in map(",".join, groupings):
        by = [r for r in scores if r.group_by in (name, ALL)]
        if any(r.group_by == name for r in by):
            caption = f"Mean opinion score by {display_name(name)}, {setting}, 1 (bad) to 5"
            yield ("mos", name), _table(by, caption, display_name(name), _place, _shown)

    differences = [r for r in rows if r.metric == "mos" and r.statistic == "difference"]
    caption = f"Differences of mean opinion scores, {setting}, same raters and faces"
    if differences:
        yield ("mos-differences",), _table(differences, caption, "arm", _arm, _less)
    tests = [r for r in rows if r.metric == "mos_p"]
    caption = (
        f"Rank tests of opinion scores, {setting}: p of Mann-Whitney, ties corrected, Holm. As in "
        "published work they take ratings as independent, which they are not: the differences with "
        "intervals over raters and faces are what is claimed"
    )
    if tests:
        yield ("mos-rank-tests",), _table(tests, caption, "arm", _arm, _against)
    chosen = [r for r in rows if r.metric == "preference"]
    for name in map(",".join, groupings):
        by = [r for r in chosen if r.group_by in (name, ALL)]
        if any(r.group_by == name for r in by):
            caption = f"Found closer to the original, by {display_name(name)}, {setting}"
            yield ("preference", name), _table(by, caption, display_name(name), _place, _pair)
    agreement = [r for r in rows if r.metric == "rater_alpha"]
    if agreement:
        caption = f"Krippendorff's alpha of the raters, {setting}, faces as clusters"
        yield ("agreement",), _table(agreement, caption, "arm", _arm, _task)


def _table(
    rows: Sequence[EstimateRow],
    caption: str,
    head: str,
    line: Callable[[EstimateRow], str],
    column: Callable[[EstimateRow], str],
) -> EstimateTable:
    """Lay rows out by the texts of their line and column, both in the order of the rows."""
    by_line: dict[str, dict[str, EstimateRow]] = {}
    for row in rows:
        by_line.setdefault(line(row), {}).setdefault(column(row), row)
    # the whole sample last, the originals first
    lines = sorted(by_line, key=lambda name: name == ALL)
    names = dict.fromkeys(map(column, rows))
    columns = sorted(names, key=lambda name: name.split()[-1] != ORIGINAL)
    metrics = [_titled(BY_NAME[rows[0].metric], name) for name in columns]
    cell = PCell if rows[0].metric == "mos_p" else TableCell
    return EstimateTable(
        caption,
        head,
        metrics,
        [
            TableRow(
                name,
                max(r.n_faces for r in by_line[name].values()),
                max(r.n_draws for r in by_line[name].values()),
                [cell(m, by_line[name].get(c)) for m, c in zip(metrics, columns, strict=True)],
                whole=name == ALL,
            )
            for name in lines
        ],
    )


def _titled(metric: MetricDefinition, title: str) -> MetricDefinition:
    """Make the column of a metric for one arm, pair or task."""
    return replace(metric, name=f"{metric.name} {title}", title=title)


def _place(row: EstimateRow) -> str:
    return ALL if row.group_by == ALL else row.group


def _shown(row: EstimateRow) -> str:
    return ORIGINAL if row.correction == "original_baseline" else row.arm


def _arm(row: EstimateRow) -> str:
    return row.arm


def _less(row: EstimateRow) -> str:
    return f"less {(row.detail or {})['minus']}"


def _against(row: EstimateRow) -> str:
    return f"against {(row.detail or {})['minus']}"


def _pair(row: EstimateRow) -> str:
    return f"{row.arm} over {(row.detail or {})['over']}"


def _task(row: EstimateRow) -> str:
    return TASKS[str((row.detail or {})["task"])]
