"""What a person sees in the terminal: progress on stderr, tables on stdout."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

Report = Callable[[int, int, int], None]

#: Seconds between progress lines where stderr is not a terminal.
LINE_EVERY = 10.0


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def progress(activity: str, unit: str, quiet: bool = False) -> Iterator[Report]:
    """Show how far long work is, with rate and ETA: a bar on a terminal, else a line now and then.

    Nothing is shown before the first report.

    Yields
    ------
    callable
        ``report(done, total, restored)``; the rate counts only what this process did.
    """
    if quiet:
        yield lambda done, total, restored: None
        return
    clock = functools.cache(Clock)  # starts with the first report
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        text = TextColumn("{task.description}"), TextColumn("{task.fields[pace]}")
        columns = (text[0], BarColumn(), MofNCompleteColumn(), text[1])
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(activity, total=None, pace="")

        def update_bar(done: int, total: int, restored: int) -> None:
            bar.start()
            rate, left = pace(done, total, restored, clock().seconds(done))
            shown = f"{unit}, {rate}/s, ETA {left}"
            bar.update(task, completed=done, total=total, pace=shown)

        try:
            yield update_bar
        finally:
            bar.stop()
        return

    last_line = float("-inf")

    def print_line(done: int, total: int, restored: int) -> None:
        nonlocal last_line
        now, spent = time.monotonic(), clock().seconds(done)
        if now - last_line < LINE_EVERY and done < total:
            return
        last_line = now
        rate, left = pace(done, total, restored, spent)
        share = done / total if total else 1
        say(f"{activity}: {done}/{total} {unit} ({share:.0%}), {rate} {unit}/s, ETA {left}")

    yield print_line


def pace(done: int, total: int, restored: int, seconds: float) -> tuple[str, str]:
    """Rate and time left as text; both unknown until something is done."""
    if done <= restored or seconds <= 0:
        return "-", "-"
    rate = (done - restored) / seconds
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}", duration((total - done) / rate)


class Clock:
    """Seconds since work began; it begins anew where another stage of it is reported."""

    def __init__(self) -> None:
        self._started, self._done = time.monotonic(), 0

    def seconds(self, done: int) -> float:
        """Seconds of the stage in which so much is done."""
        if done < self._done:
            self._started = time.monotonic()
        self._done = done
        return time.monotonic() - self._started


def table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], figures: bool = False
) -> None:
    """Print a table on stdout; with ``figures``, all columns but the first are right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, name in enumerate(header):
        # The first column names the rows: other columns give way to it.
        justify: Literal["left", "right"] = "right" if figures and number else "left"
        grid.add_column(Text(name), justify=justify, no_wrap=number == 0)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width).print(grid)


def listing(title: str, rows: Sequence[Mapping[str, str]], without: Sequence[str] = ()) -> None:
    """Print rows that share their keys as a table."""
    shown = [name for name in rows[0] if name not in without]
    table(title, shown, [[row[name] for name in shown] for row in rows])


def cards(rows: Sequence[Mapping[str, str]]) -> None:
    """Print each row as a block, one line a key."""
    for row in rows:
        width = max(map(len, row))
        print("\n".join(f"{key:{width}}  {value}" for key, value in row.items()), end="\n\n")


def interval(estimate: Mapping[str, Any], scale: float = 1, digits: int = 2) -> str:
    """``value [low, high]`` of an estimate of a summary, or a dash."""
    if estimate.get("value") is None:
        return "-"
    value, low, high = (
        None if estimate[key] is None else f"{scale * estimate[key]:.{digits}f}"
        for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]" if low is not None else f"{value} (one face)"


#: Columns of the table that ends a run: metric, heading, factor to the unit shown, decimals.
SHOWN = (
    ("retention", "retained %", 100.0, 0),
    ("feasible_rate", "feasible %", 100.0, 0),
    ("downscale_rmse", "DS error /255", 1.0, 1),
    ("psnr", "PSNR dB", 1.0, 1),
    ("ssim", "SSIM", 1.0, 3),
    ("lightness_shift", "L* shift", 1.0, 1),
)
SHOWN_NAMES = tuple(metric for metric, _, _, _ in SHOWN)


def show_summary(summary: Mapping[str, Any]) -> None:
    """Print what a run found: the findings, the arms side by side, then each arm by group."""
    for sentence in summary["findings"]:
        print(f"- {sentence}")
    print()
    rows = [row for row in summary["estimates"] if row["metric"] in SHOWN_NAMES and _plain(row)]
    for (condition, scale), here in _split(rows, "condition", "scale").items():
        whole = [row for row in here if row["group_by"] == "all"]
        faces = max(row["n_faces"] for row in whole)
        of = f"x{scale}, {condition}, {faces} faces, 95 % intervals"
        _show_rows(f"all arms: {of}", "arm", _split(whole, "arm"))
        for (arm,), of_arm in _split(here, "arm").items():
            grouped = _split([r for r in of_arm if r["group_by"] != "all"], "group_by")
            for (by,), rows_by in list(grouped.items())[:1]:
                _show_rows(f"{arm} by {by}: {of}", by, _split(rows_by, "group"))


def _plain(row: Mapping[str, Any]) -> bool:
    """Whether a row is a group's own value, neither corrected nor a comparison."""
    return row["correction"] == "raw" and row["to_group"] is None and row["statistic"] == "value"


def _split(
    rows: Sequence[Mapping[str, Any]], *keys: str
) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    parts: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(tuple(row[key] for key in keys), []).append(row)
    return parts


def _show_rows(
    title: str, first: str, lines: Mapping[tuple[Any, ...], Sequence[Mapping[str, Any]]]
) -> None:
    cells = [(name, {row["metric"]: row for row in rows}) for (name,), rows in lines.items()]
    shown = [column for column in SHOWN if any(column[0] in row for _, row in cells)]
    table(
        title,
        (first, *(heading for _, heading, _, _ in shown)),
        [
            [name, *(interval(row.get(m, {}), factor, digits) for m, _, factor, digits in shown)]
            for name, row in cells
        ],
        figures=True,
    )


def show_validation(found: Mapping[str, Any]) -> None:
    """Print what ``validate`` found: counts, notes, and one line a defect."""
    for column, counts in found["counts"].items():
        if len(counts) <= 20:
            print(f"{column}: " + ", ".join(f"{word} {count}" for word, count in counts.items()))
    for kind in ("repaired", "notes", "warnings"):
        for line in found[kind]:
            print(f"{kind.removesuffix('s')}: {line}")
    for defect in found["defects"]:
        print(f"DEFECT {defect['kind']}: {defect['where']}: {defect['what_to_do']}")
    print(f"{found['dataset']}, split {found['split']}: {found['n_faces']} faces, "
          f"{len(found['defects'])} defects")  # fmt: skip
