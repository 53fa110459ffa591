"""What a person sees in the terminal: progress on stderr, tables on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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
def progress(what: str, unit: str, quiet: bool = False) -> Iterator[Report]:
    """Show how far long work is, with rate and ETA: a bar on a terminal, else a line now and then.

    Yields
    ------
    callable
        ``report(done, total, restored)``; the rate counts only what this process did.
    """
    if quiet:
        yield lambda done, total, restored: None
    elif sys.stderr.isatty():
        with _bar(what, unit) as report:
            yield report
    else:
        yield _lines(what, unit)


def pace(done: int, total: int, restored: int, seconds: float) -> tuple[str, str]:
    """Rate and time left as text; both unknown until something is done."""
    if done <= restored or seconds <= 0:
        return "-", "-"
    rate = (done - restored) / seconds
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}", duration((total - done) / rate)


def _lines(what: str, unit: str) -> Report:
    started, last = time.monotonic(), [float("-inf")]

    def report(done: int, total: int, restored: int) -> None:
        now = time.monotonic()
        if now - last[0] < LINE_EVERY and done < total:
            return
        last[0] = now
        rate, left = pace(done, total, restored, now - started)
        share = done / total if total else 1
        say(f"{what}: {done}/{total} {unit} ({share:.0%}), {rate} {unit}/s, ETA {left}")

    return report


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, pace="")

        def report(done: int, total: int, restored: int) -> None:
            rate, left = pace(done, total, restored, time.monotonic() - started)
            text = f"{unit}, {rate}/s, ETA {left}"
            bar.update(task, completed=done, total=total, pace=text)

        yield report


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; the first column is left-aligned, the others are figures."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(title), box=SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, name in enumerate(header):
        grid.add_column(Text(name), justify="left" if number == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width).print(grid)


def interval(estimate: Mapping[str, Any], scale: float = 1, digits: int = 2) -> str:
    """``value [low, high]`` of an estimate of a summary, or a dash."""
    if estimate.get("value") is None:
        return "-"
    value, low, high = (
        "?" if estimate[key] is None else f"{scale * estimate[key]:.{digits}f}"
        for key in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"
