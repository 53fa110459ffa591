"""Output of the commands: progress on stderr, tables on stdout."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pulse_audit
from pulse_audit.files import cache_folder
from pulse_audit.metrics.group_metrics import OUTCOME_METRICS
from pulse_audit.metrics.registry import DRAW_METRICS

Report = Callable[[int, int, int], None]

#: Characters that a table of figures may take.
WIDTH = 100
#: Seconds between progress lines where stderr is not a terminal.
LINE_EVERY = 10.0


def say(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print what must be known before the work begins, on stderr."""
    say(f"note: {text}")


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03 or 2:03."""
    # 3723.4 -> 1:02:03
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
    # The clock starts with the first report.
    clock = functools.cache(Clock)
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        text = TextColumn("{task.description}"), TextColumn("{task.fields[pace]}")
        columns = (text[0], BarColumn(), MofNCompleteColumn(), text[1])
        bar = Progress(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(activity, total=None, pace="")

        def update_bar(done: int, total: int, restored: int) -> None:
            rate, left = pace(done, total, restored, clock().seconds(done))
            shown = f"{unit}, {rate}/s, ETA {left}"
            bar.update(task, completed=done, total=total, pace=shown)
            # A bar that is full makes room for the next.
            (bar.start if done < total else bar.stop)()

        try:
            yield update_bar
        finally:
            bar.stop()
        return

    # Without a terminal: the first report, one every ten seconds, and the last, once.
    last_line, shown = float("-inf"), (-1, -1)

    def print_line(done: int, total: int, restored: int) -> None:
        nonlocal last_line, shown
        now, spent = time.monotonic(), clock().seconds(done)
        if (done, total) == shown or (now - last_line < LINE_EVERY and done < total):
            return
        last_line, shown = now, (done, total)
        rate, left = pace(done, total, restored, spent)
        share = done / total if total else 1
        say(f"{activity}: {done}/{total} {unit} ({share:.0%}), {rate} {unit}/s, ETA {left}")

    yield print_line


def pace(done: int, total: int, restored: int, seconds: float) -> tuple[str, str]:
    """Rate and time left as text; both unknown until something is done."""
    # What an earlier process did took none of these seconds.
    if done <= restored or seconds <= 0:
        return "-", "-"
    rate = (done - restored) / seconds
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}", duration((total - done) / rate)


class Clock:
    """Seconds since work began; starts again when a report shows less done than the one before."""

    def __init__(self) -> None:
        self._started, self._done = time.monotonic(), 0

    def seconds(self, done: int) -> float:
        """Seconds of the current stage of the work, of which ``done`` is done."""
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
        whole = figures or number == 0
        overflow: Literal["ellipsis", "fold"] = "ellipsis" if whole else "fold"
        grid.add_column(Text(name), justify=justify, no_wrap=whole, overflow=overflow)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    # In a file or a pipe, lines are 120 characters wide, those of a table of figures 100.
    width = None if sys.stdout.isatty() else WIDTH if figures else 120
    Console(width=width).print(grid)


def show_upsampled(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what became of every face of photos by hand, and of every draw."""
    cells = []
    for row in rows:
        error, written = row["downscale_error"], row["image"] or row["reason"]
        number = {key: "-" if row[key] is None else str(row[key]) for key in ("face", "seed")}
        error = "-" if error is None else f"{error:.2e}"
        steps = str(row["steps"])
        cells.append([row["photo"], *number.values(), row["status"], error, steps, written or "-"])
    table(
        "PULSE: generated faces that downscale to the input; none is the person in the photo",
        ("photo", "face", "seed", "status", "downscale error", "steps", "written"),
        cells,
    )


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


#: Retention never stands without the no-face rate beside it.
RETENTION = ("retention", "no_face_rate")
#: Columns of the tables that end a run: metric, heading, factor to the unit shown, decimals.
COLUMNS = tuple(
    (metric.name, metric.terminal[0], metric.display_scale, metric.terminal[1])
    for metric in sorted(
        (*OUTCOME_METRICS, *DRAW_METRICS), key=lambda metric: metric.name not in RETENTION
    )
    if metric.terminal
)


def show_summary(summary: Mapping[str, Any], verbose: bool = False) -> None:
    """Print a run's summary: the first findings, the arms side by side, retention by group.

    With ``verbose``, each arm by group with all metrics that fit, in every setting.
    """
    first = [finding for finding in summary["findings"] if finding["screen"] == "first"]
    for finding in first:
        print(f"- {finding['text']}")
    if any(finding["claims"] for finding in first):
        print("  (all of these statements hold together with 95 % confidence)")
    # of the others, those that claim something
    more = [finding for finding in summary["findings"] if finding["screen"] == "more"]
    claiming = [finding for finding in more if finding["claims"]]
    for finding in claiming:
        print(f"- {finding['text']}")
    if rest := len(more) - len(claiming):
        print(f"  (the report has {rest} more)")
    print()
    # A group's own uncorrected values: no differences, no flows between groups.
    metrics = {metric for metric, _, _, _ in COLUMNS}
    rows = [
        row
        for row in summary["estimates"]
        if row["metric"] in metrics
        and (row["correction"], row["to_group"], row["statistic"]) == ("raw", None, "value")
    ]
    settings = _split(rows, "condition", "scale")
    for number, ((condition, scale), estimates) in enumerate(settings.items()):
        # All arms on the whole sample.
        faces = max(row["n_faces"] for row in estimates if row["group_by"] == "all")
        setting = f"x{scale}, {condition}, {faces} faces, 95 % intervals"
        _show_estimates(
            f"all arms: {setting}", "arm", [row for row in estimates if row["group_by"] == "all"]
        )
        # The groups of the first grouping: of each arm, or side by side in the first setting.
        groupings = _split([row for row in estimates if row["group_by"] != "all"], "group_by")
        for (grouping,), of_grouping in list(groupings.items())[:1]:
            if verbose:
                for (arm,), of_arm in _split(of_grouping, "arm").items():
                    _show_estimates(f"{arm} by {grouping}: {setting}", "group", of_arm, grouping)
            elif number == 0:
                _show_groups(grouping, setting, of_grouping)


def _show_groups(grouping: str, setting: str, estimates: Sequence[Mapping[str, Any]]) -> None:
    """Print the share of draws retained with one line for each group and one column an arm."""
    retained = [row for row in estimates if row["metric"] == RETENTION[0]]
    arms = _split(retained, "arm")
    if not arms:
        return
    # Long names of arms take two lines.
    groups = list(dict.fromkeys(row["group"] for row in retained))
    columns = []
    for (arm,), of_arm in arms.items():
        shown = {row["group"]: interval(row, 100, 0) for row in of_arm}
        columns.append((arm.replace(":", ":\n", 1), [shown.get(group, "-") for group in groups]))
    _show_fitting(f"retained % by {grouping}: {setting}", (grouping, groups), columns, least=1)


def closing_line(
    statuses: Sequence[str], seconds: float, report: Path, reasons: Sequence[str] = ()
) -> str:
    """Say what became of the draws of a run, how long it took, and where the report is.

    ``statuses`` has one entry a draw, ``reasons`` one an error; ``seconds`` are 0 while the run is
    unfinished.
    """
    counts, draws = Counter(statuses), len(statuses)
    parts = [f"{counts['no_face']:,} without a face", f"{counts['infeasible']:,} infeasible"]
    if errors := counts["error"]:
        # Reasons are text of others, shortened and without codes for the terminal.
        often = "".join(
            c for (r, _) in Counter(reasons).most_common(1) for c in r if c.isprintable()
        )
        often = f" (most often: {often[:160]})" if often else ""
        parts.append(f"{errors:,} error{'s' if errors > 1 else ''}{often}")
    took = f"; {duration(seconds)}" if seconds else ""
    drawn = f"{draws:,} draw{'' if draws == 1 else 's'}"
    return f"{drawn}: {', '.join(parts)}{took}; report: {report}"


def _split(
    rows: Sequence[Mapping[str, Any]], *keys: str
) -> dict[tuple[Any, ...], list[Mapping[str, Any]]]:
    """Split rows by the values of some keys, in order of appearance."""
    parts: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(tuple(row[key] for key in keys), []).append(row)
    return parts


def _show_estimates(
    title: str, key: str, estimates: Sequence[Mapping[str, Any]], heading: str | None = None
) -> None:
    """Print a table with one line for each value of ``key`` and one column for each metric."""
    # Which attribute retention compares, where that is not the grouping.
    details = [row.get("detail") or {} for row in estimates if row["metric"] == "retention"]
    compared = {str(detail["attribute"]) for detail in details if "attribute" in detail}
    title += "".join(f", retention of {name}" for name in sorted(compared - {heading}))
    # Value of the key -> metric -> estimate; metrics without any estimate get no column.
    lines = [
        (name, {row["metric"]: row for row in rows})
        for (name,), rows in _split(estimates, key).items()
    ]
    measured = {metric for _, by in lines for metric in by}
    if measured & {*RETENTION}:
        measured |= {*RETENTION}
    columns = [column for column in COLUMNS if column[0] in measured]
    names = [name for name, _ in lines]
    values = [
        (title_of, [interval(by.get(metric, {}), factor, digits) for _, by in lines])
        for metric, title_of, factor, digits in columns
    ]
    _show_fitting(title, (heading or key, names), values, least=len(RETENTION))


def _show_fitting(
    title: str,
    first: tuple[str, Sequence[str]],
    columns: Sequence[tuple[str, Sequence[str]]],
    least: int,
) -> None:
    """Print a table of (heading, cells) columns, as many as fit but at least so many.

    The others are in the report; an interval is never broken.
    """
    shown = [first]
    used = max(map(len, [first[0], *first[1]]))
    for heading, cells in columns:
        used += 3 + max(map(len, [*heading.split("\n"), *cells]))
        if used > WIDTH - 2 and len(shown) > least:
            break
        shown.append((heading, cells))
    rows = list(zip(*(cells for _, cells in shown), strict=True))
    table(title, [heading for heading, _ in shown], rows, figures=True)


def show_verdicts(result: Mapping[str, Any]) -> None:
    """Print the verdicts of ``check``: a table, the reason of each, and what to know beside it."""
    verdicts = result["verdicts"]
    rows = []
    for verdict in verdicts:
        arm = verdict["arm"] + (f" against {verdict['minus']}" if verdict["minus"] else "")
        numbers = [
            "-" if verdict[key] is None else f"{verdict[key]:.3g}"
            for key in ("value", "fail_bound", "pass_bound", "limit")
        ]
        setting = f"{verdict['condition']}, x{verdict['scale']}"
        rows.append([verdict["outcome"], str(verdict["rule"]), arm, setting, *numbers])
    header = ("outcome", "rule", "arm", "setting", "value", "fail bound", "pass bound", "limit")
    alpha = f"{100 * result['alpha']:g} %"
    table(f"false verdicts of either kind: at most {alpha}, all together", header, rows)
    for verdict in verdicts:
        print(f"- rule {verdict['rule']}, {verdict['text']}; {verdict['arm']}: {verdict['reason']}")
    for text in result["notes"]:
        print(f"note: {text}")
    print(f"gate: {result['outcome']}")


def show_validation(result: Mapping[str, Any]) -> None:
    """Print the result of ``validate``: counts, notes, and one line for each defect."""
    # Columns of many words, such as numbers, are left out.
    for column, counts in result["counts"].items():
        if len(counts) <= 20:
            print(f"{column}: " + ", ".join(f"{word} {count}" for word, count in counts.items()))
    for kind in ("repaired", "notes", "warnings"):
        for line in result[kind]:
            print(f"{kind.removesuffix('s')}: {line}")
    # What makes the command fail comes last.
    for defect in result["defects"]:
        print(f"DEFECT {defect['kind']}: {defect['where']}: {defect['what_to_do']}")
    size = f"{result['n_faces']} faces, {len(result['defects'])} defects"
    print(f"{result['dataset']}, split {result['split']}: {size}")


def crash_line(error: Exception, arguments: Sequence[str] | None) -> str:
    """Write an unexpected error to a crash file, and return the line that asks to report it."""
    import platform
    import shlex
    import tempfile
    import traceback

    command = sys.argv[1:] if arguments is None else arguments
    system = f"{platform.platform()}, Python {platform.python_version()}"
    trace = "".join(traceback.format_exception(error))
    text = f"pulse-audit {pulse_audit.__version__}, {system}\n{shlex.join(command)}\n\n{trace}"
    summary = f"unexpected {type(error).__name__}: {str(error)[:200] or 'no message'}"
    # Into the cache folder, or the temporary one where that cannot be written.
    for folder in (cache_folder() / "crashes", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="crash-", suffix=".txt", dir=folder)
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return f"{summary}; please report it with the file {name}"
        except OSError:
            continue
    return f"{summary}; please report it (no crash file could be written)"
