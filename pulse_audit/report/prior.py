"""The prior table as text: Markdown for people, CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from pulse_audit.fairness.prior import (
    OWN,
    PRIORS,
    PULSE,
    LargestShift,
    Movement,
    PriorRow,
    PriorSample,
    largest_shift,
    prior_table,
)
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


def sentence(
    name: str, words: Sequence[str], samples: Mapping[str, PriorSample], prior: str = PULSE
) -> str | None:
    """Say whom a prior shows more or less often than the generator's own; None if it has none."""
    if OWN not in samples or prior not in samples:
        return None
    found = largest_shift(words, samples[OWN].counts, samples[prior].counts)
    d = found.difference
    if d.low <= 0 <= d.high:
        return f"{name}: no share under the prior of {described(prior)} is shown to differ."
    more = "more" if d.value > 0 else "less"
    ends = sorted(abs(100 * end) for end in (d.low, d.high))
    return (
        f"{name}: before any input, the prior of {described(prior)} shows {found.group} faces "
        f"{more} often than the generator does, {_percent(found)} "
        f"(by {100 * abs(d.value):.0f} points [{ends[0]:.0f}, {ends[1]:.0f}])."
    )


def described(prior: str) -> str:
    """Name a prior in a sentence."""
    return "PULSE's search" if prior == PULSE else f"a search with {prior.replace(',', ' and')}"


def _percent(found: LargestShift) -> str:
    return f"{100 * found.share:.0f} % against {100 * found.origin:.0f} %"


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
        if said := sentence(name, groups, samples[attribute]):
            parts.append(said)
        header = ["prior", *groups, "pixel variance", "moved from z", "moved by the last step"]
        lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
        for row in table:
            shares = [_share(share) for share in row.shares]
            cells = [row.prior, *shares, _variance(row.variance)]
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


def _numbers(estimate: Estimate) -> list[str]:
    return [f"{x:.5f}" for x in (estimate.value, estimate.low, estimate.high)]


def _share(share: Estimate) -> str:
    return f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def _variance(variance: Estimate) -> str:
    return f"{variance.value:.4f} [{variance.low:.4f}, {variance.high:.4f}]"


def _moved(moved: Movement | None) -> str:
    if moved is None:
        return ""
    e = moved.estimate
    return f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"
