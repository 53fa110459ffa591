"""Sentences that describe estimates, in the words of a results section.

Each function takes rows of one condition and scale (and, but for comparisons, of one arm) and
yields no sentence where the rows it needs are missing. An interval belongs to one number and to no
comparison; what may be claimed is the matter of `pulse_audit.summary.claims`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pulse_audit.summary.schema import ALL, EstimateRow

#: Names of attributes in a sentence; others go by their own name.
ATTRIBUTE_NAMES = {"skin_tone": "skin tone", "monk": "Monk class"}


def retention(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Retention of an arm as classified, its range over groups, the composition of its outputs."""
    for row in _select(rows, "retention", ALL):
        # the whole sample is compared in the attribute of the first grouping
        attribute = str((row.detail or {}).get("attribute", grouping))
        name = ATTRIBUTE_NAMES.get(attribute, attribute).replace(",", " and ")
        # where a model gave the labels this is no retention of what people see
        verb = f"retained the apparent {name}"
        if (row.detail or {}).get("estimand"):
            verb = f"has the model's {name} label of the original"
        sentence = (
            f"As classified, {row.arm} {verb} in {_percent(row)} of draws "
            f"({row.n_faces:,} faces, {row.n_draws:,} draws)"
        )
        groups = _select(rows, "retention", grouping)
        if len(groups) > 1:
            lowest, highest = _extremes(groups)
            sentence += (
                f", from {_points(lowest.value)} % ({lowest.group}) to "
                f"{_points(highest.value)} % ({highest.group})"
            )
            gaps = [r for r in rows if (r.metric, r.group_by) == ("retention", grouping)]
            gaps = [r for r in gaps if (r.correction, r.statistic) == ("raw", "max_gap")]
            for gap in (g for g in gaps if (g.detail or {}).get("at_equality") is not None):
                at_equality = float(str((gap.detail or {})["at_equality"]))
                # The expected range of normal errors; no two shares are further apart than 100.
                spread = _points(min(at_equality, 1.0))
                sentence += f"; equal groups would spread over {spread} points by chance"
        yield f"{sentence}."

        # Composition of the outputs; what is missing to 100 % has no apparent group.
        shares = _select(rows, "output_share", attribute)
        if len(shares) > 1:
            ranked = sorted(shares, key=_value, reverse=True)
            listed = ", ".join(f"{_percent(share)} {share.group}" for share in ranked)
            rest = 1.0 - sum(map(_value, shares))
            unclassified = f"; {_points(rest)} % have no apparent group" if rest > 0.005 else ""
            yield f"Apparent {name} of its outputs, as classified: {listed}{unclassified}."


def planted(rows: Sequence[EstimateRow], grouping: str) -> Iterator[str]:
    """Largest corrected conversion of a planted arm, beside the truth that it realised."""
    truth = {(row.group, row.to_group): row for row in rows if row.metric == "planted_shift"}
    conversions = [
        row
        for row in rows
        if (row.metric, row.correction, row.group_by) == ("shift", "corrected", grouping)
        and row.group != row.to_group
        and row.value is not None
        and (row.group, row.to_group) in truth
    ]
    if conversions:
        largest = max(conversions, key=_value)
        realised = truth[largest.group, largest.to_group]
        told = float(str((realised.detail or {})["planted"]))
        yield (
            f"The largest corrected conversion of {largest.arm} is from {largest.group} to "
            f"{largest.to_group}, {_percent(largest)} (the largest of {len(conversions)}, with the "
            f"interval of one); in truth {_points(realised.value)} % of the photos it returned "
            f"there are labelled {largest.to_group}, and it was told {_points(told)} %."
        )


def arm_differences(rows: Sequence[EstimateRow]) -> Iterator[str]:
    """Differences of retention between arms on the same faces, as classified."""
    for row in rows:
        if (row.statistic, row.metric, row.group_by) == ("difference", "retention", ALL):
            ends = "no interval" if row.low is None else _ends(row)
            word = "more" if _value(row) >= 0 else "less"
            yield (
                f"On the same faces, as classified, {row.arm} retained the group "
                f"{abs(100 * _value(row)):.0f} points {word} often [{ends}] than "
                f"{(row.detail or {}).get('minus')}."
            )


def sources(rows: Sequence[EstimateRow]) -> Iterator[str]:
    """Share of draws lost to preference, beyond what chance explains, and to incapacity."""
    shares = [row for row in rows if row.plain and row.group_by == ALL]
    whole = {row.metric: row for row in shares if row.value is not None}
    names = ("preference", "found", "chance", "incapacity")
    if not all(f"source_{name}" in whole for name in names):
        return
    preference, found, chance, incapacity = (whole[f"source_{name}"] for name in names)
    # Only what exceeds the search without guidance is preference.
    explained = "" if (preference.low or 0.0) > 0 else ", which chance can explain: it is not shown"
    yield (
        f"Of {preference.n_draws:,} draws of {preference.arm} whose original is read as its group, "
        f"{_percent(found)} were lost although guidance toward the group finds an image that fits; "
        f"without guidance the same search finds {_percent(chance)}. Preference is what exceeds "
        f"that: {100 * _value(preference):+.0f} points [{_ends(preference)}]{explained}. "
        f"Incapacity (guidance finds none; an upper bound): {_percent(incapacity)}."
    )
    # How easily guidance makes a face read as any group.
    shown, wrong = whole.get("guided_shown"), whole.get("wrong_shown")
    if shown is not None and wrong is not None:
        yield (
            f"Of the lost draws of {preference.arm}, guidance shows the face's own group in "
            f"{_percent(shown)}, and in {_percent(wrong)} a wrong one, which neither the face nor "
            "the output shows."
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
            "The labels are the attribute model's own predictions of the originals: numbers as "
            "classified are agreement with these, and account for no error of the model."
        )
    elif baselines:
        lowest, highest = _extremes(baselines)
        yield (
            f"A perfect upsampler would score from {_points(lowest.value)} % ({lowest.group}) to "
            f"{_points(highest.value)} % ({highest.group}), the original baseline: the attribute "
            "model misclassifies originals too."
        )


def feasibility(rows: Sequence[EstimateRow], grouping: str, searches: bool) -> Iterator[str]:
    """Feasible rate of an arm, and its range over groups."""
    groups, by_group = _select(rows, "feasible_rate", grouping), ""
    if len(groups) > 1:
        lowest, highest = _extremes(groups)
        by_group = (
            f"; {_points(lowest.value)} % in every group of {grouping}"
            if lowest.value == highest.value
            else f", from {_points(lowest.value)} % ({lowest.group}) to "
            f"{_points(highest.value)} % ({highest.group}), of which chance explains a part"
        )
    verb = "found a feasible image in" if searches else "gave an image that fits its input in"
    for row in _select(rows, "feasible_rate", ALL):
        sample = f"{_count(row.n_faces, 'face')}, {_count(row.n_draws, 'draw')}"
        yield f"{row.arm} {verb} {_percent(row)} of draws ({sample}){by_group}."


def lightness(rows: Sequence[EstimateRow]) -> Iterator[str]:
    """Mean shift of lightness of an arm."""
    for row in _select(rows, "lightness_shift", ALL):
        if row.low is not None and row.high is not None:
            yield (
                f"Mean lightness of {row.arm}'s outputs less their originals': "
                f"{row.value:+.1f} [{row.low:+.1f}, {row.high:+.1f}] L*."
            )


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
