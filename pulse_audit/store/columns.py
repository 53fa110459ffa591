"""Columns of the samples: one row a draw, failures included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

_FLOAT, _TEXT, _FLAG, _WHOLE = pa.float64(), pa.string(), pa.bool_(), pa.int64()
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
    "psnr": _FLOAT,
    "ssim": _FLOAT,
    "ms_ssim": _FLOAT,
    "lpips": _FLOAT,
    "niqe": _FLOAT,
    "sharpness": _FLOAT,
    "attribute_cosine": _FLOAT,
    "identity_cosine": _FLOAT,
    "verified": _FLAG,
    "hr_aligned": _FLAG,
    "hr_face_found": _FLAG,
    "sr_face_found": _FLAG,
    "hr_ita": _FLOAT,
    "sr_ita": _FLOAT,
    "hr_hue": _FLOAT,
    "sr_hue": _FLOAT,
    "hr_lightness": _FLOAT,
    "sr_lightness": _FLOAT,
    "hr_monk": _WHOLE,
    "sr_monk": _WHOLE,
    "reason": _TEXT,
}


#: Labels that attribute models predict from a face: their columns are there even where no model is.
PREDICTABLE = ("race", "gender", "age")


def sample_schema(
    labelled: Sequence[str], predicted: Sequence[str] | None = None, metrics: Sequence[str] = ()
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
    further = [(name, _FLOAT) for name in metrics if name not in COLUMNS]
    return pa.schema([*COLUMNS.items(), *further, *labels, *predictions])


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a shard the columns of this version: what an older one did not write is null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
