"""What ``summary.json`` holds: models, their JSON Schema, reading and writing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pulse_audit.types import InputError

SCHEMA_VERSION: Literal[3] = 3
NAME = "summary.json"
#: Suffix by which the corrected estimates of a metric are asked for.
CORRECTED = "_corrected"


Detail: TypeAlias = dict[str, str | int | float | None]


class EstimateRow(BaseModel):
    """One estimate of one metric on one group under one arm, condition and scale.

    ``group_by`` is ``all`` for the whole sample, else the columns of the grouping joined by
    commas; metrics of the set as a whole (``rdp_chi2``, ``pr_tv``) have the group ``all`` of the
    grouping they compare. Rows that belong to no setting (compositions of a generator's prior)
    have condition ``all`` and scale 0. ``value``, ``low`` and ``high`` are null where nothing was
    measured, ``low`` and ``high`` also where no interval exists; ``method`` then says why.

    ``to_group`` is the apparent group of the output in the metrics ``shift`` (the last one may be
    ``not classified``) and ``net_flow`` (null there: a group's gain from all others).

    ``correction``: ``corrected`` for the errors of the attribute model; ``original_baseline`` is
    what the originals themselves, as perfect outputs, would score.

    ``statistic`` other than ``value`` compares the groups of ``group_by``: ``max_gap`` (largest
    less smallest), ``min_ratio`` (smallest over largest), ``worst_group``, ``max_abs``; the row's
    interval then joins two bounds (see `pulse_audit.fairness.parity`). ``difference`` compares
    arms on the same faces: the row's arm less the one that ``detail`` names as ``minus``.

    ``detail`` holds what a number cannot say alone: ``attribute`` that was tested, ``excluded``
    share of draws, ``plug_in`` value before bias correction, ``trust`` and ``grade`` of a
    correction, ``em`` point estimate, ``shrunk`` share of partial pooling, ``detectable``
    difference and ``faces_needed``, names of groups compared.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    arm: str
    condition: str
    scale: int
    metric: str
    group_by: str
    group: str
    to_group: str | None = None
    correction: Literal["raw", "corrected", "original_baseline"] = "raw"
    value: float | None
    low: float | None
    high: float | None
    n_faces: int = Field(ge=0)
    n_draws: int = Field(ge=0)
    method: str
    statistic: Literal["value", "max_gap", "min_ratio", "worst_group", "max_abs", "difference"] = (
        "value"
    )
    detail: Detail | None = None

    @property
    def plain(self) -> bool:
        """Whether this is a group's own value, raw: no cell of a matrix and no comparison."""
        return self.correction == "raw" and self.to_group is None and self.statistic == "value"


class Summary(BaseModel):
    """Everything a run says in numbers.

    ``unavailable`` maps a metric or a column of the samples to the reason it could not be taken.
    ``findings`` are plain sentences computed from the estimates.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[3] = Field(SCHEMA_VERSION, alias="schema")
    estimates: list[EstimateRow]
    unavailable: dict[str, str]
    findings: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return plain JSON values; not-a-number cannot occur in them."""
        return self.model_dump(mode="json", by_alias=True)

    def select(
        self,
        metric: str,
        arm: str,
        condition: str,
        scale: int,
        group_by: str = "all",
        correction: str = "raw",
    ) -> list[EstimateRow]:
        """Estimates of one metric in one cell of the audit, one row a group, in order.

        Raw ones; ``<metric>_corrected``, such as ``retention_corrected``, are the corrected ones.
        """
        if metric.endswith(CORRECTED):
            metric, correction = metric.removesuffix(CORRECTED), "corrected"
        wanted = (metric, arm, condition, scale, group_by, correction)
        return [
            row
            for row in self.estimates
            if (row.metric, row.arm, row.condition, row.scale, row.group_by, row.correction)
            == wanted
            and row.to_group is None
            and row.statistic == "value"
        ]


class Writable(Protocol):
    """The part of `pulse_audit.store.Run` that writing needs."""

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run whole or not at all."""
        ...


def write(run: Writable, summary: Summary) -> Path:
    """Write ``summary.json`` into a run, whole or not at all; equal summaries, equal bytes."""
    return run.write_json(NAME, summary.as_json())


def read(path: Path | str) -> Summary:
    """Read a ``summary.json``, or the one of a run directory.

    Raises
    ------
    InputError
        If it is missing, unreadable, or does not match the schema.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    try:
        return Summary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(
            f"{path}: not a summary of this version ({where}: {first['msg']})"
        ) from None


def json_schema() -> str:
    """Return the JSON Schema of ``summary.json``; the package holds it in ``assets/``."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Summary.model_json_schema(by_alias=True, mode="serialization"),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
