"""The models of ``summary.json``: making rows, reading, writing, and their JSON Schema."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pulse_audit.documents import read_json
from pulse_audit.types import Estimate, InputError, Unavailable

SCHEMA_VERSION: Literal[3] = 3
NAME = "summary.json"
#: Group and grouping of the whole sample; also the condition of rows that belong to none.
ALL = "all"
#: Suffix by which `Summary.select` is asked for the corrected estimates of a metric.
CORRECTED = "_corrected"

Correction: TypeAlias = Literal["raw", "corrected", "original_baseline"]
StatisticName: TypeAlias = Literal[
    "value", "max_gap", "min_ratio", "worst_group", "max_abs", "difference"
]
Detail: TypeAlias = dict[str, str | int | float | None]


class SubsetKey(NamedTuple):
    """One arm under one condition and scale."""

    arm: str
    condition: str
    scale: int


class EstimateRow(BaseModel):
    """One estimate of one metric on one group under one arm, condition and scale.

    ``group_by`` is ``all`` for the whole sample, else the columns of the grouping joined by
    commas; metrics of the set as a whole (``rdp_chi2``, ``pr_tv``) have the group ``all`` of the
    grouping they compare. Rows that belong to no setting (compositions of a generator's prior)
    have condition ``all`` and scale 0. ``value``, ``low`` and ``high`` are null where nothing was
    measured, ``low`` and ``high`` also where no interval exists; ``method`` then says why.

    ``to_group`` is the apparent group of the output in the metrics ``shift`` (the last one may be
    ``not classified``) and ``net_flow`` (null there: a group's gain from all others), and the
    labelled group of the face returned in ``planted_shift``.

    ``correction``: ``corrected`` for the errors of the attribute model; ``original_baseline`` is
    what the originals themselves, as perfect outputs, would score.

    ``statistic`` other than ``value`` compares the groups of ``group_by``: ``max_gap`` (largest
    minus smallest), ``min_ratio`` (smallest over largest), ``worst_group``, ``max_abs``; the ends
    of the row's interval are then two bounds (see `pulse_audit.fairness.parity`). ``difference``
    compares arms on the same faces: the row's arm minus the one named ``minus`` in ``detail``.

    ``detail`` qualifies the number: the ``attribute`` compared, the ``excluded`` share of draws,
    the ``estimand`` where the labels are a model's, the ``plug_in`` value before bias correction,
    the ``grade`` of a correction, the ``half_width`` to which retention is known with it, whose
    ``confusion`` it inverts (``run``, ``card``, ``run and card``), its ``em`` point estimate, the
    ``shrunk`` share of partial pooling, the ``detectable`` difference (``detectable_as`` a
    fall, a rise or either) and ``faces_needed``, the names of the groups compared,
    the ``planted`` probability of a cell, the second model that checks (``attributes``); of what
    people say the numbers of ``raters`` and ``ratings``, the arm ``over`` which another is
    preferred, the ``task`` that raters agree on, and of a rank test ``u``, ``p_unadjusted`` and
    ``superiority``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    arm: str
    condition: str
    scale: int
    metric: str
    group_by: str
    group: str
    to_group: str | None = None
    correction: Correction = "raw"
    value: float | None
    low: float | None
    high: float | None
    n_faces: int = Field(ge=0)
    n_draws: int = Field(ge=0)
    method: str
    statistic: StatisticName = "value"
    detail: Detail | None = None

    @property
    def plain(self) -> bool:
        """Whether this is the raw value of a group: no cell of a matrix and no comparison."""
        return self.correction == "raw" and self.to_group is None and self.statistic == "value"

    @property
    def column(self) -> str:
        """Name of the metric in tables: ``retention_corrected`` for corrected estimates."""
        return self.metric + (CORRECTED if self.correction == "corrected" else "")


def make_row(
    key: SubsetKey,
    metric: str,
    group_by: str,
    group: str,
    estimate: Estimate | Unavailable,
    *,
    to_group: str | None = None,
    correction: Correction = "raw",
    statistic: StatisticName = "value",
    detail: Mapping[str, str | int | float | None] | None = None,
) -> EstimateRow:
    """Make the row of an estimate; where it is unavailable, of the reason without numbers."""
    # not-a-number becomes null in the row
    if isinstance(estimate, Unavailable):
        estimate = Estimate(math.nan, math.nan, math.nan, 0, 0, estimate.reason)
    return EstimateRow(
        arm=key.arm,
        condition=key.condition,
        scale=key.scale,
        metric=metric,
        group_by=group_by,
        group=group,
        to_group=to_group,
        correction=correction,
        value=_rounded(estimate.value),
        low=_rounded(estimate.low),
        high=_rounded(estimate.high),
        n_faces=estimate.n_faces,
        n_draws=estimate.n_draws,
        method=estimate.method,
        statistic=statistic,
        detail={
            name: _rounded(value) if isinstance(value, float) else value
            for name, value in detail.items()
        }
        if detail
        else None,
    )


def _rounded(value: float) -> float | None:
    """Ten significant digits, so that rounding noise between machines does not reach the file."""
    return float(f"{value:.10g}") if math.isfinite(value) else None


class Claim(BaseModel):
    """A statement about a true quantity, which the data support at the level of its screen.

    ``metric``, ``correction``, ``group_by``, ``group`` and ``to_group`` name the quantity as in
    `EstimateRow`; ``minus`` is the arm, ``than_group`` the group, whose quantity is subtracted.
    ``direction``: ``higher`` (at least ``bound``), ``lower`` (at most ``bound``), ``unequal``
    (largest less smallest over the groups is at least ``bound``), ``equivalent`` (the quantity, or
    with ``group`` None that largest difference, is at most ``bound`` in size).

    ``tipping_point``: the smallest drift of the attribute model's accuracy on outputs, as a share,
    that would undo the claim (see `pulse_audit.fairness.drift`); None where it was not computed.
    ``checked``: whether the second attribute model supports the claim; None where there is none or
    its errors cannot be corrected.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: str
    correction: Correction
    arm: str
    minus: str | None = None
    group_by: str
    group: str | None = None
    than_group: str | None = None
    to_group: str | None = None
    direction: Literal["higher", "lower", "unequal", "equivalent"]
    bound: float
    tipping_point: float | None = None
    checked: Literal["confirmed", "not confirmed"] | None = None


class Finding(BaseModel):
    """A sentence and the claims it makes; a sentence that claims nothing has none.

    All claims of one ``screen`` hold together with 95 % confidence. ``first`` is what a reader
    sees at once, ``more`` is shown on demand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    text: str
    screen: Literal["first", "more"] = "more"
    claims: list[Claim] = []


class Summary(BaseModel):
    """All estimates of a run, and the sentences made of them.

    ``unavailable`` maps a metric or a column of the samples to why it was not measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    schema_version: Literal[3] = Field(SCHEMA_VERSION, alias="schema")
    estimates: list[EstimateRow]
    unavailable: dict[str, str]
    findings: list[Finding]

    @property
    def settings(self) -> list[tuple[str, int]]:
        """Conditions and scales that were measured, in order.

        Rows of scale 0 belong to none: compositions of a generator's prior or of a data set.
        """
        return list(dict.fromkeys((r.condition, r.scale) for r in self.estimates if r.scale))

    @property
    def headline(self) -> list[Finding]:
        """At most four sentences: those of the first screen, then others that claim something."""
        first = [finding for finding in self.findings if finding.screen == "first"]
        more = [f for f in self.findings if f.screen == "more" and f.claims]
        return [*first, *more][:4]

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
        """Select one metric of an arm under a condition and scale: one row a group, in order.

        Raw estimates; ``<metric>_corrected``, as in ``retention_corrected``, gives corrected ones.
        """
        if metric.endswith(CORRECTED):
            metric, correction = metric.removesuffix(CORRECTED), "corrected"
        # cells of matrices and comparisons of groups or arms have rows of the same metric
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
    """The method of `pulse_audit.store.Run` that `write` needs."""

    def write_json(self, name: str, content: Any) -> Path:
        """Write a JSON file of the run, whole or not at all."""
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
        return Summary.model_validate(read_json(path))
    except FileNotFoundError:
        raise InputError(f"{path}: cannot be read (No such file or directory)") from None
    except ValidationError as error:
        # one line: the first entry at fault
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(
            f"{path}: not a summary of this version ({where}: {first['msg']})"
        ) from None


def json_schema() -> str:
    """Return the JSON Schema of ``summary.json``; the package holds it in ``assets/``."""
    # sorted, so that equal models give equal files
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Summary.model_json_schema(by_alias=True, mode="serialization"),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
