"""Rows and sentences on the priors of searches: whom they show before any input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pulse_audit.fairness.prior import (
    OWN,
    PULSE,
    LargestShift,
    PriorRow,
    PriorSample,
    largest_shift,
    prior_table,
)
from pulse_audit.store import Manifest
from pulse_audit.store.priors import PriorTable
from pulse_audit.summary.schema import ALL, EstimateRow, SubsetKey, make_row


def samples_of(table: PriorTable) -> dict[str, dict[str, PriorSample]]:
    """Return the samples of a table, by attribute and prior."""
    return {
        attribute: {
            prior: PriorSample(np.array(list(counts.values())), np.asarray(table.pairs[prior]))
            for prior, counts in of_priors.items()
        }
        for attribute, of_priors in table.counts.items()
    }


def words_of(table: PriorTable, attribute: str) -> list[str]:
    """Return the words that the samples of a table are counted by, in their order."""
    return list(next(iter(table.counts.get(attribute, {}).values()), {}))


def prior_rows(tables: Mapping[str, PriorTable], manifest: Manifest) -> Iterator[EstimateRow]:
    """Shares, pixel variance and movement of every prior, under the arm of its generator.

    ``start_share`` per group, ``start_variance`` and ``start_moved`` (total variation from the
    generator's own prior) for the whole; the prior is in ``detail``, and so in the method.
    """
    for arm, table in tables.items():
        # A prior belongs to no condition and no scale.
        key = SubsetKey(arm, ALL, 0)
        rows: list[PriorRow] = []
        for attribute, samples in samples_of(table).items():
            rows = prior_table(samples, manifest.spec.seed)
            for row in rows:
                name, detail = slug(row.prior), {"prior": row.prior}
                for word, share in zip(words_of(table, attribute), row.shares, strict=True):
                    yield make_row(
                        key, f"start_share_{name}", attribute, word, share, detail=detail
                    )
                if row.from_own is not None:
                    moved = row.from_own.estimate
                    yield make_row(key, f"start_moved_{name}", attribute, ALL, moved, detail=detail)
        # The variance of a pixel is that of the samples, whatever attribute they are counted by.
        for row in rows:
            metric = f"start_variance_{slug(row.prior)}"
            yield make_row(key, metric, ALL, ALL, row.variance, detail={"prior": row.prior})


def slug(prior: str) -> str:
    """Name a prior in a metric: ``diagonal_tied``."""
    return prior.replace(", ", "_").replace(" ", "_")


def prior_sentences(tables: Mapping[str, PriorTable], manifest: Manifest) -> Iterator[str]:
    """Say of every generator whom PULSE's own prior shows otherwise, in the run's first grouping.

    Where the attribute model predicts no attribute of that grouping there is nothing to say.
    """
    first = (manifest.spec.group_by or [""])[0].split(",")
    for arm, table in tables.items():
        attribute = next((name for name in first if name in table.counts), "")
        samples, words = samples_of(table).get(attribute, {}), words_of(table, attribute)
        if said := prior_sentence(arm.removeprefix("pulse:"), words, samples):
            yield said


def prior_sentence(
    name: str, words: Sequence[str], samples: Mapping[str, PriorSample], prior: str = PULSE
) -> str | None:
    """Say whom a prior shows more or less often than the generator's own; None if it has none.

    The interval holds for the largest difference of all groups.
    """
    if OWN not in samples or prior not in samples:
        return None
    found = largest_shift(words, samples[OWN].counts, samples[prior].counts)
    d, whose = found.difference, "PULSE's search" if prior == PULSE else f"a search with {prior}"
    if d.low <= 0 <= d.high:
        return f"{name}: no share under the prior of {whose} is shown to differ."
    more = "more" if d.value > 0 else "less"
    ends = sorted(abs(100 * end) for end in (d.low, d.high))
    return (
        f"{name}: before any input, the prior of {whose} shows {found.group} faces {more} often "
        f"than the generator does, {_percent(found)} (by {100 * abs(d.value):.0f} points "
        f"[{ends[0]:.0f}, {ends[1]:.0f}])."
    )


def _percent(found: LargestShift) -> str:
    return f"{100 * found.share:.0f} % against {100 * found.origin:.0f} %"
