"""Columns of the samples, one row a draw, failures included; columns of the tables of sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pulse_audit.metrics.registry import FILLED_BY, METRICS

_FLOAT, _TEXT, _FLAG, _WHOLE = pa.float64(), pa.string(), pa.bool_(), pa.int64()
_TYPES = {"float": _FLOAT, "flag": _FLAG}
#: Columns that the metrics of every run fill, by whether they are of one image by itself.
_METRICS, _SIDES = (
    {
        column: _TYPES[kind]
        for metric in METRICS
        if metric.in_contract
        for column, kind in metric.columns.items()
        if column.startswith(("hr_", "sr_")) == of_one_image
    }
    for of_one_image in (False, True)
)
COLUMNS: Mapping[str, pa.DataType] = {
    "face_id": _TEXT,
    "dataset": _TEXT,
    "arm": _TEXT,
    "condition": _TEXT,
    "scale": _WHOLE,
    "draw": _WHOLE,
    "seed": _WHOLE,
    "status": _TEXT,
    "feasible": _FLAG,
    "downscale_error": _FLOAT,
    "steps": _WHOLE,
    "seconds": _FLOAT,
    "image": _TEXT,
    **_METRICS,
    "hr_aligned": _FLAG,
    **_SIDES,
    "hr_ita": _FLOAT,
    "sr_ita": _FLOAT,
    "hr_hue": _FLOAT,
    "sr_hue": _FLOAT,
    "hr_lightness": _FLOAT,
    "sr_lightness": _FLOAT,
    "hr_monk": _WHOLE,
    "sr_monk": _WHOLE,
    "hr_apparent_lightness": _FLOAT,
    "sr_apparent_lightness": _FLOAT,
    "hr_apparent_hue": _FLOAT,
    "sr_apparent_hue": _FLOAT,
    "reason": _TEXT,
    "planted_from": _TEXT,
    "planted_group": _TEXT,
}
#: The part of the run's crop that an original shows, in units of the crop's side.
FRAME_COLUMNS = ("hr_frame_left", "hr_frame_top", "hr_frame_side")
#: Why a column can be empty after a run: as its metrics say, and for columns of no metric.
IF_EMPTY: Mapping[str, str] = {
    **{column: m.if_empty for m in METRICS for column in m.reads or m.columns},
    "hr_aligned": "the faces came in the run's crop, so none was aligned",
    "image": "images were not kept (--keep-images none)",
    "reason": "no draw needed one",
    **dict.fromkeys(("planted_from", "planted_group"), "only planted arms return another face"),
}

_TONE = {"lightness": _FLOAT, "ita": _FLOAT}
_SEARCH = {
    "arm": _TEXT, "condition": _TEXT, "scale": _WHOLE, "draw": _WHOLE, "seed": _WHOLE,
    "feasible": _FLAG, "downscale_error": _FLOAT,
}  # fmt: skip
#: Columns of the tables in ``sources/``, before those of the attribute models.
SOURCE_COLUMNS: Mapping[str, Mapping[str, pa.DataType]] = {
    "originals": {"face_id": _TEXT},
    "prior": {"arm": _TEXT, "index": _WHOLE, "seed": _WHOLE, "drawn": _TEXT, **_TONE},
    "guided": {
        "face_id": _TEXT, **_SEARCH, "search": _TEXT, "toward": _TEXT, "weight": _FLOAT,
        "shown": _FLAG, "steps": _WHOLE, "seconds": _FLOAT, "image": _TEXT,
    },
    "uninformative": {
        **_SEARCH, "kind": _TEXT, "about": _TEXT, "input": _TEXT, "status": _TEXT, **_TONE,
    },
}  # fmt: skip
#: Searches of a lost draw in the table ``guided``: see `pulse_audit.harness.sources`.
SEARCHES = ("own", "placebo", "wrong")

#: Labels that attribute models predict from a face: their columns are there even where no model is.
PREDICTABLE = ("race", "gender", "age")


def sample_schema(
    labelled: Sequence[str],
    predicted: Sequence[str] | None = None,
    metrics: Sequence[str] = (),
    checked: Sequence[str] = (),
    framed: bool = False,
) -> pa.Schema:
    """Columns of a shard (docs: one row a draw).

    Parameters
    ----------
    labelled : sequence of str
        Label columns of the data set.
    predicted : sequence of str, optional
        What the run's attribute model predicts; None: no model, so empty columns for those of
        the labels that a model could predict.
    metrics : sequence of str
        Metrics beside those of the contract.
    checked : sequence of str
        What the run's second attribute model predicts: ``hr_<name>_check``, ``sr_<name>_check``.
    framed : bool
        Whether every photo has a frame of its own: `FRAME_COLUMNS`.
    """
    if predicted is None:
        predicted = [a for a in PREDICTABLE if a in labelled]
    labels = [(f"label_{a}", _TEXT) for a in labelled]
    predictions = [
        (f"{side}_{a}{suffix}", kind)
        for a in predicted
        for side in ("hr", "sr")
        for suffix, kind in (("", _TEXT), ("_p", pa.list_(pa.float64())))
    ]
    beside = [
        (name, _TYPES[FILLED_BY[name].columns[name]] if name in FILLED_BY else _FLOAT)
        for name in metrics
        if name not in COLUMNS
    ]
    checks = [(f"{side}_{name}_check", _TEXT) for name in checked for side in ("hr", "sr")]
    frame = [(name, _FLOAT) for name in FRAME_COLUMNS if framed]
    return pa.schema([*COLUMNS.items(), *frame, *beside, *labels, *predictions, *checks])


def source_schema(table: str, guide: Sequence[str], check: Sequence[str]) -> pa.Schema:
    """Columns of a table in ``sources/``.

    Parameters
    ----------
    table : str
        A key of `SOURCE_COLUMNS`.
    guide, check : sequence of str
        Attributes that the model predicts which guides, and the one which checks.
    """
    # The guide predicts originals and outputs; the check all but priors and uninformative inputs.
    predicted = [f"{'hr' if table == 'originals' else 'sr'}_{name}" for name in guide]
    if table in ("originals", "guided"):
        predicted += [f"check_{name}" for name in check]
    columns = {**SOURCE_COLUMNS[table], **dict.fromkeys(predicted, _TEXT)}
    return pa.schema([*(columns | {f"{c}_p": pa.list_(_FLOAT) for c in predicted}).items()])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a shard the columns of this version: what an older one did not write is null."""
    found = dict(zip(table.column_names, table.columns, strict=True))
    columns = [
        pa.nulls(len(table), field.type)
        if (column := found.get(field.name)) is None
        else column
        if column.type == field.type
        else column.cast(field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
