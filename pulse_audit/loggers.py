"""Hand the numbers of a run to an experiment tracker that is installed: ``--log NAME``.

Estimates become metrics, the specification becomes parameters, and the report's files without a
face become artifacts. The page, the face viewer and the images of a run show people and are never
handed over. Where the records go is the tracker's own setting (``MLFLOW_TRACKING_URI``,
``WANDB_MODE``, ...).
"""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_audit.files import as_json
from pulse_audit.report.content import flattened
from pulse_audit.report.tables import estimates_csv
from pulse_audit.store import Run
from pulse_audit.summary import Summary
from pulse_audit.types import InputError

PROJECT = "pulse-audit"


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told: a name, texts, numbers, and a folder of files."""

    name: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    files: Path


def log_run(name: str, run: Run, summary: Summary) -> None:
    """Hand a run to a tracker.

    Parameters
    ----------
    name : str
        One of `LOGGERS`; its package is installed.
    run : Run
    summary : Summary
        Of this run.

    Raises
    ------
    InputError
        If the tracker fails, whatever its reason; the run and its report are whole.
    """
    spec = run.manifest.as_dict()["spec"]
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        (files / "summary.json").write_bytes(as_json(summary.as_json()))
        (files / "estimates.csv").write_text(estimates_csv(summary), "utf-8")
        record = TrackedRun(
            name=f"{run.manifest.dataset.name}-{run.manifest.fingerprint[:8]}",
            parameters={
                "pulse_audit": run.manifest.package_version,
                **{f"arm_{i}": arm for i, arm in enumerate(run.manifest.arms)},
                **dict(flattened(spec)),
            },
            metrics=metrics_of(summary),
            files=files,
        )
        try:
            LOGGERS[name](record)
        except Exception as error:
            # Trackers raise exceptions of their own, which are not imported here.
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"--log {name}: {reason} (the run and its report are whole; `pulse-audit report "
                f"RUN --log {name}` tries again)"
            ) from error


def metrics_of(summary: Summary) -> dict[str, float]:
    """Name values of groups and their ends: ``retention/bicubic/clean x4/race Black low``.

    Matrices and comparisons are in the files alone: they would be thousands of metrics.
    """
    found = {}
    for row in summary.estimates:
        if row.to_group is not None or row.statistic != "value":
            continue
        group = "all" if row.group_by == "all" else f"{row.group_by} {row.group}"
        group += f" {row.correction}" if row.correction != "raw" else ""
        words = (row.metric, row.arm, f"{row.condition} x{row.scale}", group)
        # MLflow allows few characters in a name, and makes a folder of what a slash follows.
        name = "/".join(re.sub(r"[^\w .-]+", "-", word) for word in words)
        for end, value in (("", row.value), (" low", row.low), (" high", row.high)):
            if value is not None:
                found[name + end] = value
    return found


def _mlflow(record: TrackedRun) -> None:
    """Make a run of the experiment `PROJECT`, where ``MLFLOW_TRACKING_URI`` says."""
    mlflow = importlib.import_module("mlflow")
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=record.name):
        # Values are cut at what a server takes.
        parameters = {name: text[:500] for name, text in record.parameters.items()}
        for part in _parts(parameters, 100):
            mlflow.log_params(part)
        for part in _parts(record.metrics, 1000):
            mlflow.log_metrics(part)
        mlflow.log_artifacts(str(record.files))


def _wandb(record: TrackedRun) -> None:
    """Make a run of the project `PROJECT`, with its files as an artifact."""
    wandb = importlib.import_module("wandb")
    with wandb.init(project=PROJECT, name=record.name, config=dict(record.parameters)) as logged:
        logged.log(dict(record.metrics))
        artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "-", record.name), type="audit")
        artifact.add_dir(str(record.files))
        logged.log_artifact(artifact)


def _trackio(record: TrackedRun) -> None:
    """Make a run of the project `PROJECT`; it keeps no files."""
    trackio = importlib.import_module("trackio")
    trackio.init(project=PROJECT, name=record.name, config=dict(record.parameters))
    trackio.log(dict(record.metrics))
    trackio.finish()


def _parts(mapping: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
    """Split a mapping into pieces."""
    items = list(mapping.items())
    return [dict(items[i : i + size]) for i in range(0, len(items), size)]


#: By the name of the package, as in `pulse_audit.options.TRACKERS`.
LOGGERS: Mapping[str, Callable[[TrackedRun], None]] = {
    "mlflow": _mlflow,
    "trackio": _trackio,
    "wandb": _wandb,
}
