"""The findings of a run: which sentences are made of its estimates, and in what order."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_audit.store import Manifest
from pulse_audit.summary import text
from pulse_audit.summary.schema import ALL, EstimateRow, Finding


def findings(manifest: Manifest, rows: Sequence[EstimateRow]) -> list[Finding]:
    """Sentences for the first screen of the report.

    Parameters
    ----------
    manifest : Manifest
        The run's manifest.
    rows : sequence of EstimateRow

    Returns
    -------
    list of Finding
        Under the first condition and scale: for every arm on trial its retention, the composition
        of its outputs and the net gains of groups; differences between arms on the same faces;
        caveats of arms; gaps between groups, sources of the shift, the original baseline; then
        feasibility, lightness, errors and the range over settings of every arm, and the width of
        the intervals.
    """
    if not rows:
        return [
            Finding(text="No draw is finished yet: there is nothing to report.", screen="first")
        ]
    # Sentences are about the first condition and scale, and the first grouping.
    setting = (rows[0].condition, rows[0].scale)
    grouping = next((",".join(columns) for columns in manifest.spec.groupings), ALL)
    here = [row for row in rows if (row.condition, row.scale) == setting]
    arms = on_trial(manifest, [row for row in rows if row.plain])
    by_arm = {arm: [row for row in here if row.arm == arm] for arm in arms}
    sentences: list[str] = []
    if len({(row.condition, row.scale) for row in rows if row.plain and row.scale}) > 1:
        condition, scale = setting
        sentences.append(
            f"Unless stated otherwise, numbers are for condition {condition} at scale {scale}."
        )
    # What the outputs look like comes first: within each arm, then between arms.
    for of_arm in by_arm.values():
        sentences += text.retention(of_arm, grouping)
    sentences += text.arm_differences(here, grouping)

    # A caveat is written once for all arms that share it.
    arms_of: dict[str, list[str]] = {}
    for arm in arms:
        for caveat in manifest.arms[arm].caveats or ():
            arms_of.setdefault(str(caveat), []).append(arm)
    sentences += [f"{' and '.join(names)}: {caveat}." for caveat, names in arms_of.items()]

    # What a gap between groups shows, where draws were lost, and what the originals score.
    for of_arm in by_arm.values():
        sentences += text.retention_gap(of_arm, grouping)
    for of_arm in by_arm.values():
        sentences += text.sources(of_arm)
    sentences += text.original_baseline(here, grouping)
    # Then whether outputs fit their inputs, their lightness, and failures.
    for arm, of_arm in by_arm.items():
        searches = promises_feasibility(manifest, arm)
        sentences += text.feasibility(of_arm, grouping, searches)
        sentences += text.lightness(of_arm, grouping)
        sentences += text.errors(of_arm)
        sentences += text.range_over_settings([row for row in rows if row.arm == arm])
    sentences += text.widest_interval(here, grouping)
    return [Finding(text=sentence) for sentence in sentences]


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
