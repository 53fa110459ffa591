"""The comparison of two runs as tables for the terminal and as a page of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup

from pulse_audit.files import atomic_write, refuse_links
from pulse_audit.metrics.registry import BY_NAME
from pulse_audit.report.content import Stems, templates
from pulse_audit.report.tables import MINUS, display_name
from pulse_audit.store import Run
from pulse_audit.summary.compare import Difference, RunComparison
from pulse_audit.summary.prices import OTHER_PRICES, Price

HEADER = ("group", "metric", "arm", "setting", "difference", "faces", "shown")
PRICED = ("price", "arms", "setting")
#: Columns that name the arms of a row.
ARMS = ("arm", "arms")
CHANGED = ("entry", "RUN_A", "RUN_B")

Table = tuple[str, tuple[str, ...], list[list[str]]]


def comparison_rows(found: RunComparison) -> list[Table]:
    """Tables of a comparison: (title, header, rows), differences, prices and what changed."""
    # Where all rows are of two arms, these are named once, in place of the runs.
    pairs = {(d.arm, d.other) for d in found.differences}
    first, second = next(iter(pairs)) if len(pairs) == 1 else ("", "")
    two_arms = first != second
    sides = (first, second) if two_arms else ("RUN_A", "RUN_B")
    alone = f" ({found.only_first} and {found.only_second} are in one run alone)"
    title = (
        f"{sides[0]} less {sides[1]} on {found.faces} shared faces"
        f"{alone if found.only_first or found.only_second else ''}; intervals hold together at "
        "95 % in each metric"
    )
    differences = [_row(each) for each in found.differences]
    prices = [_price(each) for each in found.prices]
    priced = "What has no pairs, each side by itself (distances are of all faces of a run)"
    changed = "What changed in specification, data, weights and software"
    rows = [list(change) for change in found.changes] or [["nothing that a run records", "", ""]]
    tables = [
        (title, HEADER, differences),
        *([(priced, (*PRICED, *sides), prices)] if prices else []),
    ]
    if two_arms:
        tables = [(text, *_without(ARMS, header, rows)) for text, header, rows in tables]
    return [*tables, (changed, CHANGED, rows)]


def _without(
    columns: tuple[str, ...], header: tuple[str, ...], rows: list[list[str]]
) -> tuple[tuple[str, ...], list[list[str]]]:
    """Leave columns out of a table."""
    kept = [place for place, name in enumerate(header) if name not in columns]
    return tuple(header[place] for place in kept), [[row[place] for place in kept] for row in rows]


def _row(d: Difference) -> list[str]:
    """One difference as text, in display units."""
    metric = BY_NAME[d.metric]
    numbers = [
        f"{metric.display_scale * n:+.{metric.decimals}f}".replace("-", MINUS)
        if np.isfinite(n)
        else "none"
        for n in (d.estimate.value, d.estimate.low, d.estimate.high)
    ]
    unit = "points" if metric.unit == "%" else metric.unit
    arm = d.arm if d.arm == d.other else f"{d.arm} less {d.other}"
    group = "all" if d.group_by == "all" else f"{display_name(d.group_by)}: {d.group}"
    if d.statistic == "max_gap":
        group = f"{display_name(d.group_by)}: largest gap"
    interval = f"[{numbers[1]}, {numbers[2]}]" if numbers[1] != "none" else "(one face)"
    return [
        group,
        metric.title,
        arm,
        f"{d.condition}, {d.scale}x",
        f"{numbers[0]} {interval} {unit}".strip(),
        str(d.estimate.n_faces),
        "yes" if d.shown else "no",
    ]


def _price(p: Price) -> list[str]:
    """One price of both sides as text, in display units."""
    if p.name in OTHER_PRICES:
        title, unit, factor, decimals = OTHER_PRICES[p.name]
    else:
        metric = BY_NAME[p.name]
        title, unit, factor, decimals = (
            metric.title, metric.unit, metric.display_scale, metric.decimals,
        )  # fmt: skip
    cells = []
    for side in (p.first, p.second):
        value, low, high = (f"{factor * n:.{decimals}f}" for n in (side.value, side.low, side.high))
        known = np.isfinite(side.low)
        cells.append(f"{value} {f'[{low}, {high}]' if known else ''} {unit}".replace("  ", " "))
    arms = p.arm if p.arm == p.other else f"{p.arm} and {p.other}"
    title = title if p.group_by == "all" else f"{title} ({display_name(p.group_by)})"
    texts = [cell.strip().replace("-", MINUS) for cell in cells]
    return [title, arms, f"{p.condition}, {p.scale}x", *texts]


def write_page(first: Run, second: Run, found: RunComparison, out: Path | None = None) -> Path:
    """Write the page of a comparison, whole or not at all, and return its path.

    Default: ``report/compare_<name of the second run>.html`` in the first run.
    """
    if out is None:
        folder = first.path / "report"
        refuse_links(folder, (".",))
        out = folder / f"{Stems().make('compare', second.path.resolve().name)}.html"
    environment = templates()
    text = environment.get_template("compare.html.j2").render(
        style=Markup(environment.get_template("style.css").render()),
        first=first,
        second=second,
        tables=comparison_rows(found),
    )
    atomic_write(out, text.encode())
    return out
