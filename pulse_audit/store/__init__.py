"""The run directory: manifest, shards, checksums, resume.

A run directory holds ``manifest.json`` (what was planned, with what, and how it ended),
``samples/<unit>.parquet`` (one shard a work unit, each beside its ``.sha256``),
``features/<unit>.npz`` and ``features/originals.npz`` where an attribute model gives features,
``images/``, ``hand_labels.json`` and ``ratings.json`` (people's labels and ratings of outputs, with
their checksum), ``rating/`` (kits for raters, with their keys), and what is rendered from them.
Every file is written whole or not at all: to a temporary name first, flushed to disk, then renamed.
"""

from pulse_audit.store.columns import (
    COLUMNS,
    FRAME_COLUMNS,
    IF_EMPTY,
    PREDICTABLE,
    SEARCHES,
    SOURCE_COLUMNS,
    sample_schema,
    source_schema,
)
from pulse_audit.store.directory import create_run, locked, open_run
from pulse_audit.store.features import Features
from pulse_audit.store.hand_labels import HandLabels
from pulse_audit.store.images import lr_path, original_path, output_path
from pulse_audit.store.manifest import SCHEMA_VERSION, Manifest, check_manifest
from pulse_audit.store.ratings import Answer, RatingItem, RatingKey, Ratings
from pulse_audit.store.run import Run
from pulse_audit.store.shards import as_parquet
from pulse_audit.store.withdraw import read_ids, withdrawn

__all__ = [
    "COLUMNS",
    "FRAME_COLUMNS",
    "IF_EMPTY",
    "PREDICTABLE",
    "SCHEMA_VERSION",
    "SEARCHES",
    "SOURCE_COLUMNS",
    "Answer",
    "Features",
    "HandLabels",
    "Manifest",
    "RatingItem",
    "RatingKey",
    "Ratings",
    "Run",
    "as_parquet",
    "check_manifest",
    "create_run",
    "locked",
    "lr_path",
    "open_run",
    "original_path",
    "output_path",
    "read_ids",
    "sample_schema",
    "source_schema",
    "withdrawn",
]
