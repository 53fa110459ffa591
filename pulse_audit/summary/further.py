"""What a run adds to the contract: metrics of plug-ins, and the sources of a shift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from pulse_audit.fairness import sets
from pulse_audit.fairness import sources as fairness_sources
from pulse_audit.fairness.divergence import DIVERGENCES, reference_shares
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.store import Manifest
from pulse_audit.store.manifest import MetricEntry
from pulse_audit.summary.apparent import places
from pulse_audit.summary.cells import number
from pulse_audit.summary.described import numbers
from pulse_audit.summary.kinds import Better, SampleMeasure
from pulse_audit.summary.measures import BY_NAME
from pulse_audit.summary.schema import EstimateRow
from pulse_audit.types import Unavailable

_BETTER: Mapping[str, Better] = {"higher": "higher", "lower": "lower"}


def measures(manifest: Manifest) -> list[SampleMeasure]:
    """Means of the columns that plug-in metrics fill; the manifest names them."""
    return [
        _measure(column, settings)
        for settings in manifest.metrics.values()
        for column in settings.columns
        if column not in BY_NAME and not column.endswith("_face_found")
    ]


def _measure(column: str, settings: MetricEntry) -> SampleMeasure:
    return SampleMeasure(
        name=column,
        title=column,
        what="a metric of a plug-in",
        unit=settings.unit or "",
        better=_BETTER.get(str(settings.better), "neither"),
        decimals=3,
        kind="mean",
        columns=(column,),
        values=lambda samples: numbers(samples, column),
    )


def sources(
    tables: Mapping[str, pd.DataFrame],
    samples: pd.DataFrame,
    manifest: Manifest,
    seed: int,
) -> list[EstimateRow]:
    """Rows of ``sources/``: where each group's shift comes from, and UCPR.

    Raises
    ------
    InputError
        If the tables are not those of the samples.
    """
    made = fairness_sources.estimates(tables, samples, manifest.as_dict())
    rows = [EstimateRow.model_validate(row) for row in made]
    return rows + list(_ucpr(tables["uninformative"], samples, manifest, seed))


def _ucpr(
    table: pd.DataFrame, samples: pd.DataFrame, manifest: Manifest, seed: int
) -> Iterator[EstimateRow]:
    """UCPR of each kind of input (the row's group), from the composition of the faces."""
    vocabulary = {} if manifest.attributes is None else manifest.attributes.vocabulary
    faces = samples.drop_duplicates("face_id")
    known = {
        attribute: reference_shares([int((faces[f"label_{attribute}"] == w).sum()) for w in words])
        for attribute, words in vocabulary.items()
        if f"label_{attribute}" in faces and faces[f"label_{attribute}"].notna().any()
    }
    for _, drawn in table.groupby(["arm", "scale", "kind"], sort=False):
        for attribute, reference in known.items():
            if f"sr_{attribute}" in drawn:
                yield from _ucpr_rows(drawn, attribute, vocabulary[attribute], reference, seed)


def _ucpr_rows(
    drawn: pd.DataFrame, attribute: str, words: Sequence[str], reference: FloatArray, seed: int
) -> Iterator[EstimateRow]:
    arm, scale, kind = drawn[["arm", "scale", "kind"]].to_numpy()[0]
    predicted = places(drawn[f"sr_{attribute}"], words)
    key = fingerprint(seed, "ucpr", str(kind), attribute)
    for divergence in DIVERGENCES:
        found = sets.ucpr(drawn["input"].to_numpy(), predicted, reference, divergence, seed=key)
        if isinstance(found, Unavailable):
            continue
        made = found.estimate
        yield EstimateRow(
            arm=str(arm),
            condition="clean",
            scale=int(scale),
            metric=f"ucpr_{divergence}",
            group_by=attribute,
            group=str(kind),
            value=number(made.value),
            low=number(made.low),
            high=number(made.high),
            n_faces=made.n_faces,
            n_draws=made.n_draws,
            method=made.method,
            detail={"plug_in": number(found.plug_in)},
        )
