"""What the numbers say, in sentences: computed, with intervals, and claiming no more than they do.

Intervals describe one group each. That two of them overlap does not show that groups are treated
alike, and that two do not overlap is no test among many pairs; the sentences say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

from pulse_audit.store import Manifest
from pulse_audit.summary.said import (
    about_gap,
    about_groups,
    about_sources,
    between_arms,
    instrument,
    percent,
    points,
    value_of,
)
from pulse_audit.summary.schema import EstimateRow

Setting = tuple[str, int]


def findings(manifest: Manifest, rows: Sequence[EstimateRow]) -> list[str]:
    """Sentences for the first screen of the report.

    Parameters
    ----------
    manifest : Manifest
        The run's manifest.
    rows : sequence of EstimateRow

    Returns
    -------
    list of str
        Under the first condition and scale: for every arm on trial how often groups are kept, whom
        the outputs look like and who gains from whom; how the arms differ on the same faces; what
        is to be known of them; the gaps between groups, where draws were lost, what a perfect arm
        would score; then feasibility, lightness, errors, how the settings differ, and how much the
        sample can tell.
    """
    if not rows:
        return ["No draw is finished yet: there is nothing to report."]
    setting = (rows[0].condition, rows[0].scale)
    grouping = next((",".join(columns) for columns in manifest.spec.groupings), "all")
    everything = [row for row in rows if (row.condition, row.scale) == setting]
    here, rows = [row for row in everything if row.plain], [row for row in rows if row.plain]
    trial = on_trial(manifest, rows)
    groups = [said for arm in trial for said in about_groups(arm, everything, grouping)]
    groups += [*between_arms(everything, grouping), *_caveats(manifest, trial)]
    groups += [said for arm in trial for said in about_gap(arm, everything, grouping)]
    groups += [said for arm in trial for said in about_sources(arm, everything)]
    groups += instrument(everything, grouping)
    sentences = [
        sentence
        for arm in trial
        for sentence in _about(manifest, arm, [r for r in here if r.arm == arm], rows, grouping)
    ]
    sentences.extend(_precision([row for row in here if row.group_by == grouping]))
    several = len({(row.condition, row.scale) for row in rows if row.scale}) > 1
    return [*([_where(setting)] if several else []), *groups, *sentences]


def _caveats(manifest: Manifest, arms: Sequence[str]) -> Iterator[str]:
    """Say what is to be known of arms before anything is read into their numbers."""
    said: dict[str, list[str]] = {}
    for arm in arms:
        for caveat in manifest.arms[arm].caveats or ():
            said.setdefault(str(caveat), []).append(arm)
    for caveat, arms_of in said.items():
        yield f"{' and '.join(arms_of)}: {caveat}."


def on_trial(manifest: Manifest, rows: Sequence[EstimateRow]) -> list[str]:
    """Arms that were measured, without plain interpolation unless nothing else ran."""
    arms = list(dict.fromkeys(row.arm for row in rows))
    kinds = {name: arm.kind for name, arm in manifest.arms.items()}
    return [arm for arm in arms if kinds.get(arm) != "interpolation"] or arms


def promises_feasibility(manifest: Manifest, arm: str) -> bool:
    """Whether the arm searches for an image that downscales to its input."""
    entry = manifest.arms[arm]
    promised = entry.promises_feasibility
    return entry.kind == "pulse" if promised is None else promised


def signed(row: EstimateRow) -> str:
    """``+3.1 [+2.0, +4.2]``; the value alone where no interval exists."""
    if row.low is None or row.high is None:
        return f"{row.value:+.1f} (one face, no interval)"
    return f"{row.value:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"


def _where(setting: Setting) -> str:
    condition, scale = setting
    return f"Where not said otherwise, numbers are for condition {condition} at scale {scale}."


def _about(
    manifest: Manifest,
    arm: str,
    here: Sequence[EstimateRow],
    rows: Sequence[EstimateRow],
    grouping: str,
) -> Iterator[str]:
    def pick(metric: str, by: str) -> list[EstimateRow]:
        return [r for r in here if r.metric == metric and r.group_by == by and r.value is not None]

    found = promises_feasibility(manifest, arm)
    for row in pick("feasible_rate", "all"):
        yield _feasibility(row, found) + _between(pick("feasible_rate", grouping), grouping)
    for row in (r for r in pick("lightness_shift", "all") if r.low is not None):
        yield _lightness(row) + _lightness_groups(pick("lightness_shift", grouping))
    for row in pick("error_rate", "all"):
        if row.value:
            yield (
                f"{round(row.value * row.n_draws)} of {row.n_draws} draws of {arm} ended in an "
                "error; they count as infeasible."
            )
    yield from _settings(arm, [r for r in rows if r.arm == arm and r.metric == "feasible_rate"])


def _feasibility(row: EstimateRow, found: bool) -> str:
    said = "found a feasible image in" if found else "gave an image that fits its input in"
    sample = f"{_count(row.n_faces, 'face')}, {_count(row.n_draws, 'draw')}"
    return f"{row.arm} {said} {percent(row)} of draws ({sample})."


def _between(groups: Sequence[EstimateRow], grouping: str) -> str:
    """Lowest and highest group, and what the intervals do and do not show."""
    if len(groups) < 2:
        return ""
    lowest, highest = min(groups, key=value_of), max(groups, key=value_of)
    if value_of(lowest) == value_of(highest):
        spread = f" It is {points(lowest.value)} % in every group of {grouping}."
    else:
        spread = (
            f" Lowest for {lowest.group}, {percent(lowest)}; "
            f"highest for {highest.group}, {percent(highest)}."
        )
    return spread + _overlap(groups)


def _overlap(groups: Sequence[EstimateRow]) -> str:
    pairs = list(combinations(groups, 2))
    apart = [(a, b) for a, b in pairs if not _overlapping(a, b)]
    if not apart:
        return " All their intervals overlap: this neither shows a difference nor rules one out."
    worst = max(apart, key=lambda pair: abs(value_of(pair[0]) - value_of(pair[1])))
    names = " and ".join(row.group for row in sorted(worst, key=value_of))
    others = f" ({_count(len(apart), 'pair')} of {len(pairs)})" if len(apart) > 1 else ""
    return (
        f" The intervals of {names} do not overlap{others}: a sign of a difference, not a test; "
        f"nothing here is corrected for {_count(len(pairs), 'comparison')}."
    )


def _overlapping(a: EstimateRow, b: EstimateRow) -> bool:
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return True
    return a.low <= b.high and b.low <= a.high


def _lightness(row: EstimateRow) -> str:
    if row.low is None or row.high is None or row.low <= 0 <= row.high:
        return f"{row.arm} shifts lightness by {signed(row)} L* on average: no direction is shown."
    word = "lighter" if value_of(row) > 0 else "darker"
    return f"Outputs of {row.arm} are {word} than their originals: {signed(row)} L* on average."


def _lightness_groups(groups: Sequence[EstimateRow]) -> str:
    if len(groups) < 2:
        return ""
    furthest = max(groups, key=lambda row: abs(value_of(row)))
    return f" Furthest for {furthest.group}: {signed(furthest)} L*;{_leaving_out_zero(groups)}."


def _leaving_out_zero(groups: Sequence[EstimateRow]) -> str:
    def count(sign: Callable[[EstimateRow], bool]) -> int:
        return sum(sign(row) for row in groups if row.low is not None and row.high is not None)

    above, below = count(lambda r: (r.low or 0.0) > 0), count(lambda r: (r.high or 0.0) < 0)
    return f" of {len(groups)} groups, the interval lies above 0 in {above} and below 0 in {below}"


def _settings(arm: str, rates: Sequence[EstimateRow]) -> Iterator[str]:
    whole = [row for row in rates if row.group_by == "all" and row.value is not None]
    if len(whole) < 2:
        return
    lowest, highest = min(whole, key=value_of), max(whole, key=value_of)
    yield (
        f"Over {len(whole)} settings the feasible rate of {arm} runs from {percent(lowest)} "
        f"({_named(lowest)}) to {percent(highest)} ({_named(highest)})."
    )


def _precision(rows: Sequence[EstimateRow]) -> Iterator[str]:
    """Width of the widest interval of a group's feasible rate: what the sample cannot see."""
    rates = [
        (row.high - row.low, row)
        for row in rows
        if row.metric == "feasible_rate" and row.low is not None and row.high is not None
        if row.group_by != "all"
    ]
    if len(rates) < 2:
        return
    width, row = max(rates, key=lambda pair: pair[0])
    yield (
        f"With {_count(row.n_faces, 'face')} in group {row.group}, its feasible rate is only "
        f"known to within an interval {100 * width:.0f} points wide: smaller differences "
        "between groups cannot be told from chance here."
    )


def _named(row: EstimateRow) -> str:
    return f"{row.condition}, scale {row.scale}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
