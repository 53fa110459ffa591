import json
import os
import sys
import types
from pathlib import Path

import pytest

from pulse_audit import options, store, summary
from pulse_audit.loggers import LOGGERS, log_run, metrics_of
from pulse_audit.options import TRACKERS, _installed
from pulse_audit.types import InputError

PUBLISHED = Path(__file__).parents[1] / "reports" / "default" / "data"


@pytest.fixture
def run():
    """What `log_run` reads of a run: its manifest."""
    manifest = store.check_manifest(json.loads((PUBLISHED / "manifest.json").read_text("utf-8")))
    return types.SimpleNamespace(manifest=manifest)


@pytest.fixture
def content():
    return summary.read(PUBLISHED)


def test_a_metric_is_named_after_what_was_estimated(content):
    metrics = metrics_of(content)
    (row,) = content.select("retention", "pulse:faces-balanced", "clean", 4)
    name = "retention/pulse-faces-balanced/clean x4/all"
    assert (metrics[name], metrics[f"{name} low"]) == (row.value, row.low)
    of_group = content.select("retention", "bicubic", "clean", 4, "race")[0]
    assert metrics[f"retention/bicubic/clean x4/race {of_group.group}"] == of_group.value
    # No two estimates have one name, and no name a character that MLflow refuses.
    plain = [r for r in content.estimates if r.to_group is None and r.statistic == "value"]
    ends = sum(v is not None for r in plain for v in (r.value, r.low, r.high))
    assert len(metrics) == ends
    assert all(set(name) <= set("/-. _") | set(filter(str.isalnum, name)) for name in metrics)


def test_an_unknown_tracker_and_one_that_is_missing_are_one_line(monkeypatch):
    assert set(TRACKERS) == set(LOGGERS)
    with pytest.raises(InputError, match="did you mean mlflow"):
        _installed(None, None, ("mlfow",))
    monkeypatch.setattr(options.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install wandb"):
        _installed(None, None, ("wandb",))


class Recorder(types.ModuleType):
    """A tracker in the interface of wandb and trackio, that keeps what it is told."""

    def __init__(self, name):
        super().__init__(name)
        self.told = {}

    def init(self, **settings):
        self.told |= settings
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.told["finished"] = True

    def log(self, metrics):
        self.told["metrics"] = metrics

    def finish(self):
        self.told["finished"] = True

    class Artifact:
        def __init__(self, name, type):
            self.name, self.files = name, []

        def add_dir(self, folder):
            self.files = sorted(os.listdir(folder))

    def log_artifact(self, artifact):
        self.told["files"] = artifact.files


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_is_told_numbers_and_settings_and_no_face(name, run, content, monkeypatch):
    tracker = Recorder(name)
    monkeypatch.setitem(sys.modules, name, tracker)
    log_run(name, run, content)
    told = tracker.told
    assert told["project"] == "pulse-audit" and told["finished"]
    assert told["metrics"] == metrics_of(content)
    assert told["config"]["seed"] == str(run.manifest.spec.seed)
    if name == "wandb":
        assert told["files"] == ["estimates.csv", "summary.json"]
    faces = {face.id for face in run.manifest.faces}
    assert not any(face in text for face in faces for text in told["config"].values())


def test_a_tracker_that_fails_costs_one_line(run, content, monkeypatch):
    tracker = Recorder("trackio")
    tracker.log = lambda metrics: 1 / 0
    monkeypatch.setitem(sys.modules, "trackio", tracker)
    with pytest.raises(InputError, match="division by zero .the run and its report are whole"):
        log_run("trackio", run, content)


def test_mlflow_keeps_metrics_parameters_and_files(run, content, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
        log_run("mlflow", run, content)
        (found,) = mlflow.search_runs(experiment_names=["pulse-audit"], output_format="list")
    assert found.data.metrics == pytest.approx(metrics_of(content))
    assert found.data.params["arm_0"] == next(iter(run.manifest.arms))
    artifacts = Path(found.info.artifact_uri.removeprefix("file://"))
    assert {path.name for path in artifacts.iterdir()} == {"estimates.csv", "summary.json"}
