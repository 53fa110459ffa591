"""The study's table and figure: calibration.csv, calibration.md and calibration.svg."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pulse_audit.calibration.before import before_and_after
from pulse_audit.calibration.scenarios import Scenario
from pulse_audit.calibration.study import FULL, ScenarioResult
from pulse_audit.files import atomic_write

#: Columns of calibration.csv, keys of the JSON output.
COLUMNS = (
    "study", "settings", "method", "measures", "value", "error", "low", "high", "verdict", "width",
    "replicates",
)  # fmt: skip
#: Columns of the table on the terminal.
OVERVIEW = ("study", "method", "measure", "scenarios", "estimate, %", "required, %", "met")
COLOURS = {"met": "#0173b2", "": "#949494", "unclear": "#de8f05", "missed": "#d55e00"}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pulse-audit", "svg.fonttype": "none", "font.size": 7, "axes.titlesize": 8,
    "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip


def publish(results: Sequence[ScenarioResult], out: Path) -> list[Path]:
    """Write table and figure of a study; equal results give equal bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row.values() for row in as_dicts(results))
    texts = {"csv": text.getvalue(), "md": as_markdown(results), "svg": as_svg(results)}
    paths = {out / f"calibration.{kind}": content for kind, content in texts.items()}
    for path, content in paths.items():
        atomic_write(path, content.encode())
    return list(paths)


def as_dicts(results: Sequence[ScenarioResult]) -> list[dict[str, Any]]:
    """Results as plain JSON values; keys are the columns of the table."""
    # five decimals are finer than any Monte Carlo error here
    rows = []
    for result in results:
        scenario, performance = result.scenario, result.performance
        width = None if performance.width is None else round(performance.width, 4)
        values = (
            scenario.study, settings(scenario), scenario.method, scenario.measure,
            round(performance.value, 5), round(performance.error, 5), scenario.low, scenario.high,
            result.verdict, width, result.replicates,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def settings(scenario: Scenario) -> str:
    """Return the settings in words."""
    return ", ".join(f"{name} {value}" for name, value in scenario.settings.items())


def requirement(scenario: Scenario) -> str:
    """Return what is required, in per cent; empty where nothing is."""
    if scenario.low is None:
        return "" if scenario.high is None else f"at most {100 * scenario.high:g}"
    low = f"{100 * scenario.low:g}"
    return f"at least {low}" if scenario.high is None else f"{low}-{100 * scenario.high:g}"


def by_study(results: Sequence[ScenarioResult]) -> dict[str, list[ScenarioResult]]:
    """Results of each study, wherever they stand, in the order in which studies first occur."""
    studies: dict[str, list[ScenarioResult]] = {}
    for result in results:
        studies.setdefault(result.scenario.study, []).append(result)
    return studies


def headline(results: Sequence[ScenarioResult]) -> str:
    """Return how many requirements are met, and the number of replicates behind it."""
    verdicts = [result.verdict for result in results]
    counts = {word: verdicts.count(word) for word in ("met", "unclear", "missed")}
    replicates = max((result.replicates for result in results), default=0)
    few = "" if replicates >= FULL else f" A quick look: the published table takes {FULL:,}."
    return (
        f"{counts['met']} of {sum(counts.values())} requirements met, {counts['missed']} missed, "
        f"{counts['unclear']} unclear at up to {replicates:,} replicates a scenario.{few}"
    )


def as_markdown(results: Sequence[ScenarioResult]) -> str:
    """One table a study, with what is required and the estimate."""
    parts = ["# Calibration of the audit's estimators\n", f"{headline(results)}\n"]
    if lines := before_and_after(results):
        parts += ["\n## Before and after\n", *lines]
    for study, members in by_study(results).items():
        parts.append(f"\n## {study[0].upper()}{study[1:]}\n")
        parts.append(
            "| scenario | method | measure | % (± error) | required | verdict | width | audits |"
        )
        parts.append("|---|---|---|---|---|---|---|---|")
        # value with its Monte Carlo error
        for result in members:
            scenario, performance = result.scenario, result.performance
            error = "exact" if scenario.exact else f"± {100 * performance.error:.1f}"
            width = "" if performance.width is None else f"{performance.width:.2f}"
            value = f"{100 * performance.value:.1f} ({error})"
            entries = (
                settings(scenario), scenario.method, scenario.measure, value, requirement(scenario),
                result.verdict, width, str(result.replicates or ""),
            )  # fmt: skip
            parts.append("| " + " | ".join(entries) + " |")
    return "\n".join(parts) + "\n"


def overview(results: Sequence[ScenarioResult]) -> list[list[str]]:
    """One line a study, method and requirement: the range of the estimates."""
    # group the scenarios that differ in their settings only
    kinds: dict[tuple[str, ...], list[ScenarioResult]] = {}
    for result in results:
        scenario = result.scenario
        kind = scenario.study, scenario.method, scenario.measure, requirement(scenario)
        kinds.setdefault(kind, []).append(result)
    lines = []
    for (study, method, measure, required), members in kinds.items():
        values = [100 * result.performance.value for result in members]
        low, high = f"{min(values):.1f}", f"{max(values):.1f}"
        span = low if low == high else f"{low} to {high}"
        verdicts = [result.verdict for result in members if result.verdict]
        met = f"{verdicts.count('met')} of {len(verdicts)}" if verdicts else "-"
        lines.append([study, method, measure, str(len(members)), span, required, met])
    return lines


def as_svg(results: Sequence[ScenarioResult]) -> str:
    """One panel a study: a dot a scenario with its Monte Carlo error, requirements shaded."""
    # the longer panels first, to the left and to the right in turn
    ordered = sorted(by_study(results).items(), key=lambda item: -len(item[1]))
    halves = [half for half in (ordered[0::2], ordered[1::2]) if half]
    tallest = max(sum(len(members) + 4 for _, members in half) for half in halves)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.5 * len(halves), 0.13 * tallest + 0.5), layout="constrained")
        parts = figure.subfigures(1, len(halves), squeeze=False)[0]
        for part, half in zip(parts, halves, strict=True):
            # a panel is as high as it has lines
            heights = [len(members) + 3 for _, members in half]
            axes = part.subplots(len(half), 1, squeeze=False, height_ratios=heights)
            for ax, (study, members) in zip(axes[:, 0], half, strict=True):
                _panel(ax, study, members)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _panel(ax: Axes, study: str, results: Sequence[ScenarioResult]) -> None:
    """Draw the scenarios of one study, a line each."""
    several = len({result.scenario.method for result in results}) > 1
    labels = []
    for place, result in enumerate(results):
        scenario, performance = result.scenario, result.performance
        # the accepted range as a shaded band
        if scenario.low is not None or scenario.high is not None:
            high = 1.0 if scenario.high is None else scenario.high
            span = 100 * (scenario.low or 0.0), 100 * high
            ax.fill_betweenx([place - 0.5, place + 0.5], *span, color="#dde7f0", linewidth=0)
        # two standard errors to either side
        reach = 200 * performance.error
        ax.errorbar(100 * performance.value, place, xerr=reach, fmt="o", markersize=3,
                    color=COLOURS[result.verdict], linewidth=0.8)  # fmt: skip
        labels.append(settings(scenario) + (f"; {scenario.method}" if several else ""))
    measures = ", ".join(dict.fromkeys(result.scenario.measure for result in results))
    ax.set_title(f"{study}: {measures}, %", loc="left")
    ax.set_yticks(range(len(results)), labels, fontsize=5.5)
    ax.set_ylim(len(results) - 0.5, -0.5)
    ax.tick_params(length=2)
