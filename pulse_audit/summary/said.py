"""Sentences about apparent groups: who is kept, who becomes whom, and how arms differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pulse_audit.summary.schema import EstimateRow

#: How the attribute tested is called; others by their own name.
CALLED = {"skin_tone": "skin tone", "monk": "Monk class"}


def about_groups(arm: str, here: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Retention of an arm in one setting, whom its outputs look like, and who gains from whom."""
    mine = [r for r in here if r.arm == arm]
    kept = _pick(mine, "retention", "all")
    for row in kept:
        attribute = str((row.detail or {}).get("attribute", grouping))
        yield _retention(row, attribute, _pick(mine, "retention", grouping))
        yield from _shares(mine, attribute)
        yield from _flow(mine, attribute)


def _shares(mine: Sequence[EstimateRow], attribute: str) -> Iterator[str]:
    """Say whom the outputs look like."""
    shares = _pick(mine, "output_share", attribute)
    if len(shares) < 2:
        return
    ranked = sorted(shares, key=value_of, reverse=True)
    said = ", ".join(f"{percent(r)} {r.group}" for r in ranked)
    rest = 1.0 - sum(value_of(r) for r in shares)
    none = f"; {points(rest)} % have no apparent group" if rest > 0.005 else ""
    yield f"Of its outputs, {said}{none}."


def between_arms(here: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Differences of retention between arms on the same faces: overall, and the largest group's."""
    rows = [r for r in here if r.metric == "retention" and r.statistic == "difference"]
    for row in (r for r in rows if r.group_by == "all"):
        other = str((row.detail or {}).get("minus"))
        same = [
            r
            for r in rows
            if r.arm == row.arm
            and (r.detail or {}).get("minus") == other
            and r.group_by == grouping
        ]
        said = f"On the same faces, {row.arm} keeps the group {_signed(row)} than {other}"
        if same:
            widest = max(same, key=lambda r: abs(r.value or 0.0))
            said += f"; most different for {widest.group}: {_signed(widest)}"
        yield f"{said}. {_shown(row)}"
        yield from _share_difference(here, row.arm, other)


def _share_difference(here: Sequence[EstimateRow], arm: str, other: str) -> Iterator[str]:
    """Name the apparent group in whose share of the outputs two arms differ most."""
    rows = [
        r
        for r in here
        if (r.metric, r.statistic, r.arm) == ("output_share", "difference", arm)
        and (r.detail or {}).get("minus") == other
        and r.value is not None
        and r.low is not None
    ]
    if not rows:
        return
    widest = max(rows, key=lambda r: abs(value_of(r)))
    size, word = abs(100 * value_of(widest)), "more" if value_of(widest) >= 0 else "fewer"
    yield (
        f"{widest.group} outputs are {size:.0f} points {word} of all with {arm} than with {other} "
        f"[{_ends(widest)}], the widest of {len(rows)} differences (each interval 95 % by itself)."
    )


def about_sources(arm: str, here: Sequence[EstimateRow]) -> Iterator[str]:
    """Say where an arm's draws were lost, over all groups, and the group with most incapacity."""
    mine = [r for r in here if r.arm == arm and r.metric.startswith("source_") and r.plain]
    whole = {r.metric: r for r in mine if r.group_by == "all"}
    preference, incapacity = whole.get("source_preference"), whole.get("source_incapacity")
    if preference is None or incapacity is None:
        return
    yield (
        f"Of the draws of {arm}, {percent(preference)} were lost to preference (guided toward the "
        f"face's own group, the search finds one that fits) and {percent(incapacity)} to "
        f"incapacity (even so it finds none; an upper bound){_most_incapable(mine)}."
    )


def _most_incapable(mine: Sequence[EstimateRow]) -> str:
    groups = [r for r in mine if r.metric == "source_incapacity" and r.group_by != "all"]
    if not groups or max(map(value_of, groups)) == 0:
        return ""
    worst = max(groups, key=value_of)
    return f", most for {worst.group}: {percent(worst)}"


def points(share: float | None) -> str:
    """Per cent without the sign."""
    return "–" if share is None else f"{100 * share:.0f}"


def percent(row: EstimateRow) -> str:
    """``98 % [95, 99]``."""
    return f"{points(row.value)} % [{points(row.low)}, {points(row.high)}]"


def value_of(row: EstimateRow) -> float:
    """Value of a row, 0 where there is none."""
    return row.value if row.value is not None else 0.0


def _pick(rows: Sequence[EstimateRow], metric: str, by: str) -> list[EstimateRow]:
    return [
        r
        for r in rows
        if r.plain and r.metric == metric and r.group_by == by and r.value is not None
    ]


def _retention(row: EstimateRow, attribute: str, groups: Sequence[EstimateRow]) -> str:
    called = CALLED.get(attribute, attribute)
    said = (
        f"{row.arm} kept the apparent {called} in {percent(row)} of draws "
        f"({row.n_faces:,} faces, {row.n_draws:,} draws)"
    )
    if len(groups) < 2:
        return f"{said}."
    worst, best = (choose(groups, key=value_of) for choose in (min, max))
    return (
        f"{said}: worst for {worst.group}, {percent(worst)}; best for {best.group}, "
        f"{percent(best)}."
    )


def about_gap(arm: str, here: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Say what the largest gap of retention shows: corrected where that can be trusted."""
    mine = [r for r in here if r.arm == arm and (r.metric, r.group_by) == ("retention", grouping)]
    gaps = [r for r in mine if r.statistic == "max_gap"]
    graded = {(r.detail or {}).get("grade") for r in mine if r.correction == "corrected"}
    trusted = [r for r in gaps if r.correction == "corrected" and "usable" in graded]
    for row in (trusted or [r for r in gaps if r.correction == "raw"])[:1]:
        yield _judged(row, ", corrected for the attribute model's errors," if trusted else "")


def _judged(row: EstimateRow, how: str) -> str:
    said = row.detail or {}
    gap = f"{points(row.value)} points ({said.get('highest')} over {said.get('lowest')})"
    if row.low:
        return (
            f"{row.arm} keeps groups unequally: the largest gap of retention{how} is {gap}, shown "
            f"to be at least {points(row.low)}, all pairs allowed for."
        )
    chance = said.get("at_equality")
    equal = (
        f", where equal groups would show {points(float(chance))} on average at this size"
        if chance is not None
        else ""
    )
    high = f"; it may be as large as {points(row.high)}" if row.high is not None else ""
    return (
        f"That {row.arm} keeps groups unequally is neither shown nor ruled out: the largest gap of "
        f"retention{how} is {gap}{equal}{high}."
    )


def instrument(here: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Say what a perfect upsampler would score with this attribute model."""
    floors = [
        r
        for r in here
        if (r.metric, r.group_by, r.correction, r.statistic)
        == ("retention", grouping, "original_baseline", "value")
        and r.value is not None
    ]
    if floors and all(r.value == 1.0 for r in floors):
        yield (
            "The labels are what the attribute model says of the originals, so only the corrected "
            "numbers take its errors into account."
        )
    elif floors:
        worst, best = (choose(floors, key=value_of) for choose in (min, max))
        yield (
            f"A perfect upsampler would score from {points(worst.value)} % ({worst.group}) to "
            f"{points(best.value)} % ({best.group}): the attribute model errs on the originals too."
        )


def _flow(mine: Sequence[EstimateRow], attribute: str) -> Iterator[str]:
    """Gains and losses whose interval leaves out 0."""
    gains = [r for r in _pick(mine, "net_flow", attribute) if r.low is not None]
    sure = [r for r in gains if (r.low or 0.0) > 0 or (r.high or 0.0) < 0]
    if not sure:
        return
    parts = [f"{r.group} {100 * value_of(r):+.0f} [{_ends(r)}]" for r in _largest(sure)]
    yield f"Of all outputs, groups gain or lose by conversion, in points: {'; '.join(parts)}."


def _largest(rows: Sequence[EstimateRow]) -> list[EstimateRow]:
    most, least = (choose(rows, key=value_of) for choose in (max, min))
    return [most, least] if len(rows) > 1 else [most]


def _ends(row: EstimateRow) -> str:
    return f"{100 * (row.low or 0.0):+.0f}, {100 * (row.high or 0.0):+.0f}"


def _signed(row: EstimateRow) -> str:
    size, word = abs(100 * value_of(row)), "more" if value_of(row) >= 0 else "less"
    ends = "no interval" if row.low is None else _ends(row)
    return f"{size:.0f} points {word} often [{ends}]"


def _shown(row: EstimateRow) -> str:
    if row.low is None or row.high is None or row.low <= 0 <= row.high:
        return "Overall this shows no difference."
    return "Overall the difference is shown (95 %, one comparison)."
