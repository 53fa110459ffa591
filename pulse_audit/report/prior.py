"""The prior table as text: Markdown for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_audit.fairness.prior import PRIORS, Movement, PriorRow, PriorSample, prior_table
from pulse_audit.summary.priors import prior_sentence
from pulse_audit.summary.schema import EstimateRow, Summary
from pulse_audit.types import Estimate

LIMITS = (
    "Groups are apparent, as an attribute model reads synthetic faces, most probable class, not "
    "corrected for its errors; the model reads all priors alike. Intervals are of 95 %, each for "
    "itself, but for the sentence, whose interval holds for the largest of all groups."
)


def tables(
    samples: Mapping[str, Mapping[str, PriorSample]], seed: int
) -> dict[str, list[PriorRow]]:
    """Return the prior table of every attribute."""
    return {attribute: prior_table(of, seed) for attribute, of in samples.items()}


def markdown(
    name: str,
    words: Mapping[str, Sequence[str]],
    samples: Mapping[str, Mapping[str, PriorSample]],
    unavailable: Mapping[str, str],
    rows: Mapping[str, Sequence[PriorRow]],
) -> str:
    """Write the tables of a generator, one an attribute, with their sentences."""
    parts = [f"## {name}"]
    for attribute, table in rows.items():
        groups = words[attribute]
        parts.append(f"### {attribute}")
        if said := prior_sentence(name, groups, samples[attribute]):
            parts.append(said)
        header = ["prior", *groups, "pixel variance", "moved from z", "moved by the last step"]
        lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for row in table:
            cells = [row.prior, *map(_interval, row.shares), _interval(row.variance, shares=False)]
            cells += [_moved(row.from_own), _moved(row.from_step)]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    lines = [f"- {prior}: unavailable, because {reason}" for prior, reason in unavailable.items()]
    if lines:
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def heading(n: int, model: str, seed: int) -> str:
    """Write what stands above the tables."""
    meanings = "\n".join(f"- *{name}*: {meaning}" for name, meaning in PRIORS.items())
    return (
        "# Whom a prior shows before any input\n\n"
        f"{n:,} samples of each prior, seed {seed}, read by {model}; shares in %, variance of a "
        f"pixel in [0, 1] at 32 px; moved: total variation in points, corrected for bias.\n\n"
        f"{meanings}\n\n{LIMITS}\n"
    )


def as_csv(tables_of: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    """Write one line a number; ``tables_of`` maps a generator to its words and its tables."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["generator", "attribute", "prior", "quantity", "group", "value", "low", "high", "n"]
    )
    for name, (words, rows) in tables_of.items():
        for attribute, table in rows.items():
            for row in table:
                key = [name, attribute, row.prior]
                for group, share in zip(words[attribute], row.shares, strict=True):
                    writer.writerow([*key, "share", group, *_numbers(share), row.n])
                writer.writerow([*key, "pixel_variance", "", *_numbers(row.variance), row.n])
                for quantity, moved in (("tv_from_z", row.from_own), ("tv_of_step", row.from_step)):
                    if moved is not None:
                        writer.writerow([*key, quantity, "", *_numbers(moved.estimate), row.n])
    return text.getvalue()


@dataclass(frozen=True)
class PriorView:
    """The prior table of an arm and attribute, as texts: a header, and one line a prior."""

    arm: str
    attribute: str
    header: list[str]
    lines: list[list[str]]


def views(summary: Summary) -> list[PriorView]:
    """Prior tables of a run with ``--sources``."""
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    variances: dict[tuple[str, str], str] = {}
    for row in summary.estimates:
        if not row.metric.startswith("start_") or row.value is None or row.detail is None:
            continue
        prior, of_pixels = str(row.detail["prior"]), "variance" in row.metric
        text = _interval(row, shares=not of_pixels)
        if of_pixels:
            variances[row.arm, prior] = text
            continue
        column = row.group if "share" in row.metric else "moved from z"
        found.setdefault((row.arm, row.group_by), {}).setdefault(prior, {})[column] = text
    tables = []
    for (arm, attribute), of_priors in found.items():
        groups = [group for group in next(iter(of_priors.values())) if group != "moved from z"]
        lines = [
            [prior, *(cells.get(group, "") for group in groups), variances.get((arm, prior), ""),
             cells.get("moved from z", "")]
            for prior, cells in of_priors.items()
        ]  # fmt: skip
        header = ["prior", *groups, "pixel variance", "moved from z"]
        tables.append(PriorView(arm, attribute, header, lines))
    return tables


def _numbers(estimate: Estimate) -> list[str]:
    return [f"{x:.5f}" for x in (estimate.value, estimate.low, estimate.high)]


def _interval(estimate: Estimate | EstimateRow, shares: bool = True) -> str:
    """Write a value with its interval: shares in per cent, variances as they are."""
    scale, form = (100, ".1f") if shares else (1, ".4f")
    value, low, high = (
        f"{math.nan if x is None else scale * x:{form}}"
        for x in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"


def _moved(moved: Movement | None) -> str:
    return "" if moved is None else _interval(moved.estimate)
