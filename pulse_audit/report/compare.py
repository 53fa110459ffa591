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

HEADER = ("group", "metric", "arm", "setting", "difference", "faces", "shown")
CHANGED = ("entry", "RUN_A", "RUN_B")

Table = tuple[str, tuple[str, ...], list[list[str]]]


def comparison_rows(found: RunComparison) -> list[Table]:
    """Tables of a comparison: (title, header, rows), the differences and what changed."""
    title = (
        f"RUN_A less RUN_B on {found.faces} shared faces ({found.only_first} and "
        f"{found.only_second} are in one run alone); intervals hold together at 95 % in each metric"
    )
    changed = "What changed in specification, data, weights and software"
    rows = [list(change) for change in found.changes] or [["nothing that a run records", "", ""]]
    return [
        (title, HEADER, [_row(each) for each in found.differences]),
        (changed, CHANGED, rows),
    ]


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
