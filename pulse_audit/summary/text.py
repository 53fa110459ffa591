"""Sentences made of estimates, in the words of a results section; every number has its interval.

Each function takes rows of one condition and scale (and, but for comparisons, of one arm) and
yields no sentence where the rows it needs are missing. Intervals describe one group each: that two
of them overlap does not show that groups are treated alike, and that two do not overlap is not a
test, least of all among many pairs. The sentences say so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from pulse_audit.summary.schema import ALL, EstimateRow

#: Names of attributes in a sentence; others go by their own name.
ATTRIBUTE_NAMES = {"skin_tone": "skin tone", "monk": "Monk class"}


def retention(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Retention of an arm, the composition of its outputs, and which groups gain or lose."""
    for row in _select(rows, "retention", ALL):
        # the whole sample is compared in the attribute of the first grouping
        attribute = str((row.detail or {}).get("attribute", grouping))
        name = ATTRIBUTE_NAMES.get(attribute, attribute).replace(",", " and ")
        sentence = (
            f"{row.arm} retained the apparent {name} in {_percent(row)} of draws "
            f"({row.n_faces:,} faces, {row.n_draws:,} draws)"
        )
        groups = _select(rows, "retention", grouping)
        if len(groups) > 1:
            lowest, highest = _extremes(groups)
            sentence += (
                f"; lowest for {lowest.group}, {_percent(lowest)}; "
                f"highest for {highest.group}, {_percent(highest)}"
            )
        yield f"{sentence}."

        # Composition of the outputs; what is missing to 100 % has no apparent group.
        shares = _select(rows, "output_share", attribute)
        if len(shares) > 1:
            ranked = sorted(shares, key=_value, reverse=True)
            listed = ", ".join(f"{_percent(share)} {share.group}" for share in ranked)
            rest = 1.0 - sum(map(_value, shares))
            unclassified = f"; {_points(rest)} % have no apparent group" if rest > 0.005 else ""
            yield f"Apparent {name} of its outputs: {listed}{unclassified}."

        # Of the groups whose interval excludes 0, the largest and the smallest gain.
        gains = [gain for gain in _select(rows, "net_flow", attribute) if _excludes_zero(gain)]
        if gains:
            ends = _extremes(gains)[::-1] if len(gains) > 1 else gains
            listed = "; ".join(f"{g.group} {100 * _value(g):+.0f} [{_ends(g)}]" for g in ends)
            yield f"Net gain by conversion, in percentage points of all outputs: {listed}."


def arm_differences(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Differences between arms on the same faces: in retention, and in a share of the outputs."""

    def differing(row: EstimateRow) -> str:
        ends = "no interval" if row.low is None else _ends(row)
        word = "more" if _value(row) >= 0 else "less"
        return f"{abs(100 * _value(row)):.0f} points {word} often [{ends}]"

    differences = [row for row in rows if row.statistic == "difference"]
    retained = [row for row in differences if row.metric == "retention"]
    for row in (row for row in retained if row.group_by == ALL):
        # Retention of the two arms, overall and for the group in which they differ most.
        other = (row.detail or {}).get("minus")
        pair = [
            r for r in differences if r.arm == row.arm and (r.detail or {}).get("minus") == other
        ]
        sentence = f"On the same faces, {row.arm} retained the group {differing(row)} than {other}"
        groups = [r for r in pair if (r.metric, r.group_by) == ("retention", grouping)]
        if groups:
            widest = max(groups, key=lambda r: abs(_value(r)))
            sentence += f"; the largest difference is for {widest.group}, {differing(widest)}"
        overall = (
            "The overall difference is significant at the 5 % level (one comparison)"
            if _excludes_zero(row)
            else "No overall difference is shown"
        )
        yield f"{sentence}. {overall}."

        # The apparent group in whose share of the outputs they differ most.
        shares = [r for r in pair if r.metric == "output_share" and r.low is not None]
        shares = [r for r in shares if r.value is not None]
        if shares:
            widest = max(shares, key=lambda r: abs(_value(r)))
            word = "higher" if _value(widest) >= 0 else "lower"
            yield (
                f"The share of outputs that appear {widest.group} is "
                f"{abs(100 * _value(widest)):.0f} points {word} with {row.arm} than with {other} "
                f"[{_ends(widest)}], the largest of {len(shares)} differences (95 % intervals, "
                "each for one comparison)."
            )


def retention_gap(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Largest gap of retention between groups: the corrected one where that can be trusted."""
    of_groups = [row for row in rows if (row.metric, row.group_by) == ("retention", grouping)]
    gaps = [row for row in of_groups if row.statistic == "max_gap"]
    # A correction of grade "weak" is shown and decides nothing.
    grades = {(r.detail or {}).get("grade") for r in of_groups if r.correction == "corrected"}
    corrected = [row for row in gaps if row.correction == "corrected" and "usable" in grades]
    how = ", corrected for the attribute model's errors," if corrected else ""
    for row in (corrected or [row for row in gaps if row.correction == "raw"])[:1]:
        detail = row.detail or {}
        ends = f"{detail.get('highest')} over {detail.get('lowest')}"
        gap = f"the largest gap of retention{how} is {_points(row.value)} points ({ends})"
        # the lower bound allows for every pair; 0 where no pair is shown to differ
        if row.low:
            yield (
                f"{row.arm} retained groups unequally: {gap}, at least {_points(row.low)} points "
                "after correcting for all pairwise comparisons."
            )
            continue
        sentence = f"Unequal retention by {row.arm} is neither shown nor ruled out: {gap}"
        if detail.get("at_equality") is not None:
            mean = _points(float(str(detail["at_equality"])))
            sentence += f", where equal groups would average {mean} points at this sample size"
        if row.high is not None:
            sentence += f"; gaps of up to {_points(row.high)} points are compatible with the data"
        yield f"{sentence}."


def sources(rows: Sequence[EstimateRow]) -> Iterator[str]:
    """Shares of draws lost to preference and to incapacity, and the group with most incapacity."""
    shares = [row for row in rows if row.metric.startswith("source_") and row.plain]
    whole = {row.metric: row for row in shares if row.group_by == ALL}
    preference, incapacity = whole.get("source_preference"), whole.get("source_incapacity")
    if preference is None or incapacity is None:
        return
    # No group is named where incapacity occurs in none.
    groups = [r for r in shares if r.metric == "source_incapacity" and r.group_by != ALL]
    highest = ""
    if groups and max(map(_value, groups)) > 0:
        worst = max(groups, key=_value)
        highest = f", highest for {worst.group}: {_percent(worst)}"
    yield (
        f"Of the draws of {preference.arm}, {_percent(preference)} were lost to preference (guided "
        "toward the face's own group, the search finds an image that fits) and "
        f"{_percent(incapacity)} to incapacity (the guided search finds none either; an upper "
        f"bound){highest}."
    )


def original_baseline(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Retention that a perfect upsampler would score with this attribute model."""
    baselines = [
        row
        for row in rows
        if (row.metric, row.group_by, row.correction, row.statistic)
        == ("retention", grouping, "original_baseline", "value")
        and row.value is not None
    ]
    # Labels made by the same model agree with it on every original.
    if baselines and all(row.value == 1.0 for row in baselines):
        yield (
            "The labels are the attribute model's own predictions of the originals, so that only "
            "the corrected numbers account for its errors."
        )
    elif baselines:
        lowest, highest = _extremes(baselines)
        yield (
            f"A perfect upsampler would score from {_points(lowest.value)} % ({lowest.group}) to "
            f"{_points(highest.value)} % ({highest.group}), the original baseline: the attribute "
            "model misclassifies originals too."
        )


def feasibility(rows: Sequence[EstimateRow], grouping: str, searches: bool) -> Iterator[str]:
    """Feasible rate of an arm, its lowest and highest group, and what their intervals show."""
    groups, by_group = _select(rows, "feasible_rate", grouping), ""
    if len(groups) > 1:
        lowest, highest = _extremes(groups)
        # pairs of groups whose intervals do not overlap
        pairs = list(combinations(groups, 2))
        apart = [
            (a, b)
            for a, b in pairs
            if a.low is not None and a.high is not None and b.low is not None and b.high is not None
            if a.low > b.high or b.low > a.high
        ]
        by_group = (
            f" It is {_points(lowest.value)} % in every group of {grouping}."
            if lowest.value == highest.value
            else f" Lowest for {lowest.group}, {_percent(lowest)}; "
            f"highest for {highest.group}, {_percent(highest)}."
        )
        if apart:
            widest = max(apart, key=lambda pair: abs(_value(pair[0]) - _value(pair[1])))
            names = " and ".join(row.group for row in sorted(widest, key=_value))
            count = f" ({len(apart)} pairs of {len(pairs)})" if len(apart) > 1 else ""
            by_group += (
                f" The intervals of {names} do not overlap{count}: an indication of a difference, "
                f"not a test, and without correction for {_count(len(pairs), 'comparison')}."
            )
        else:
            by_group += " All intervals overlap: this neither shows a difference nor rules one out."
    verb = "found a feasible image in" if searches else "gave an image that fits its input in"
    for row in _select(rows, "feasible_rate", ALL):
        sample = f"{_count(row.n_faces, 'face')}, {_count(row.n_draws, 'draw')}"
        yield f"{row.arm} {verb} {_percent(row)} of draws ({sample}).{by_group}"


def lightness(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Mean shift of lightness of an arm, and the group with the largest."""

    def signed(row: EstimateRow) -> str:
        if row.low is None or row.high is None:
            return f"{row.value:+.1f} (one face, no interval)"
        return f"{row.value:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"

    groups, by_group = _select(rows, "lightness_shift", grouping), ""
    if len(groups) > 1:
        largest = max(groups, key=lambda row: abs(_value(row)))
        above = sum((row.low or 0.0) > 0 for row in groups)
        below = sum((row.high or 0.0) < 0 for row in groups)
        by_group = (
            f" Largest for {largest.group}: {signed(largest)} L*; the interval lies above 0 in "
            f"{above} of {len(groups)} groups and below 0 in {below}."
        )
    for row in (row for row in _select(rows, "lightness_shift", ALL) if row.low is not None):
        if not _excludes_zero(row):
            mean = f"{row.arm} shifts lightness by {signed(row)} L* on average"
            yield f"{mean}: no direction is shown.{by_group}"
        else:
            word = "lighter" if _value(row) > 0 else "darker"
            comparison = f"Outputs of {row.arm} are {word} than their originals"
            yield f"{comparison}: {signed(row)} L* on average.{by_group}"


def errors(rows: Sequence[EstimateRow]) -> Iterator[str]:
    """Draws of an arm that failed, if any did."""
    for row in _select(rows, "error_rate", ALL):
        if row.value:
            yield (
                f"{round(row.value * row.n_draws)} of {row.n_draws} draws of {row.arm} ended in an "
                "error; they count as infeasible."
            )


def range_over_settings(rows: Sequence[EstimateRow]) -> Iterator[str]:
    """Lowest and highest feasible rate of an arm over all conditions and scales."""
    rates = _select(rows, "feasible_rate", ALL)
    if len(rates) > 1:
        ends = (f"{_percent(r)} ({r.condition}, scale {r.scale})" for r in _extremes(rates))
        yield (
            f"Over {len(rates)} settings, the feasible rate of {rates[0].arm} ranges from "
            f"{' to '.join(ends)}."
        )


def widest_interval(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Width of the widest interval of a group's feasible rate: what the sample cannot resolve."""
    # (width, row) of every group of every arm
    rates = [
        (row.high - row.low, row)
        for row in rows
        if row.plain and row.metric == "feasible_rate" and row.group_by == grouping != ALL
        if row.low is not None and row.high is not None
    ]
    if len(rates) > 1:
        width, row = max(rates, key=lambda pair: pair[0])
        yield (
            f"With {_count(row.n_faces, 'face')} in group {row.group}, the interval of its "
            f"feasible rate is {100 * width:.0f} points wide: smaller differences between groups "
            "cannot be distinguished from chance."
        )


def _select(rows: Sequence[EstimateRow], metric: str, group_by: str) -> list[EstimateRow]:
    """Raw values of one metric by the groups of a grouping, as far as there are values."""
    return [
        row
        for row in rows
        if row.plain and (row.metric, row.group_by) == (metric, group_by) and row.value is not None
    ]


def _value(row: EstimateRow) -> float:
    return row.value if row.value is not None else 0.0


def _extremes(rows: Sequence[EstimateRow]) -> tuple[EstimateRow, EstimateRow]:
    """Rows of the lowest and the highest value."""
    return min(rows, key=_value), max(rows, key=_value)


def _excludes_zero(row: EstimateRow) -> bool:
    return row.low is not None and row.high is not None and not row.low <= 0 <= row.high


def _points(share: float | None) -> str:
    """Per cent without the sign."""
    return "–" if share is None else f"{100 * share:.0f}"


def _percent(row: EstimateRow) -> str:
    """``98 % [95, 99]``."""
    return f"{_points(row.value)} % [{_points(row.low)}, {_points(row.high)}]"


def _ends(row: EstimateRow) -> str:
    """``+2, +17``: the interval of a difference of shares, in points."""
    return f"{100 * (row.low or 0.0):+.0f}, {100 * (row.high or 0.0):+.0f}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
