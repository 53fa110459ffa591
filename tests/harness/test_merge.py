"""An audit in shards: the same samples as in one process, joined, completed, or refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, INCOMPLETE, outcome
from pulse_audit.harness.merge import alike, merge_runs
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.types import InputError

pytestmark = pytest.mark.usefixtures("without_reports")

Capture = pytest.CaptureFixture[str]
SHARDS = 4


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, fairface_kept: Path, attribute_code: str
) -> tuple[dict[str, object], Path]:
    """The audit, and a folder with its run in one process and its shards."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "seen.py").write_text(attribute_code)
    values: dict[str, object] = {
        "dataset": "fairface", "data_root": fairface_kept, "arms": ["bicubic", "nearest"],
        "scales": [4], "resolution": 32, "crop": "fairface-0.25", "per_group": 2, "draws": 1,
        "batch": 2, "threads": 1, "device": "cpu", "metrics": ["psnr", "niqe_small"],
        "attributes": f"{folder / 'seen.py'}:Model", "second_attributes": "none",
        "conditions": ["gaussian:25"],
    }  # fmt: skip
    run_audit(make_spec(values), folder / "whole")
    for index in range(1, SHARDS + 1):
        run_audit(make_spec(values), folder / f"{index}", shard=(index, SHARDS))
    return values, folder


@pytest.fixture
def shards(world: tuple[dict[str, object], Path], tmp_path: Path) -> list[Path]:
    """Copies of the shards, to be changed."""
    for index in range(1, SHARDS + 1):
        shutil.copytree(world[1] / f"{index}", tmp_path / f"{index}")
    return [tmp_path / f"{index}" for index in range(1, SHARDS + 1)]


def rows(run: store.Run) -> pd.DataFrame:
    return run.samples().drop(columns="seconds")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_shards_share_the_units_out_and_are_unfinished(
    world: tuple[dict[str, object], Path],
) -> None:
    runs = [store.open_run(world[1] / f"{index}") for index in range(1, SHARDS + 1)]
    own = [{unit.id for unit in run.manifest.own_units} for run in runs]
    assert sum(map(len, own)) == len(set().union(*own)) == len(runs[0].manifest.units)
    for run, ids in zip(runs, own, strict=True):
        assert {u.id for u in run.manifest.units} - {*run.missing_units} == ids
        assert not run.complete and not (run.path / "summary.json").exists()
        # every arm, and the units of a face together
        assert set(run.samples().arm) == {"bicubic", "nearest"}
        assert set(run.originals()) == set(run.samples().face_id)
    faces = [set(run.samples().face_id) for run in runs]
    assert sum(map(len, faces)) == len(set().union(*faces))


def test_merged_shards_are_the_run_of_one_process(
    world: tuple[dict[str, object], Path], tmp_path: Path
) -> None:
    folder = world[1]
    merged = merge_runs([folder / f"{i}" for i in (3, 1, 4, 2)], tmp_path / "out")
    assert merged.problem is None
    run, whole = store.open_run(tmp_path / "out"), store.open_run(folder / "whole")
    assert run.complete
    pd.testing.assert_frame_equal(rows(run), rows(whole), check_exact=True)
    assert run.read_references() == whole.read_references() is not None
    features, expected = run.features(), whole.features()
    assert features is not None and expected is not None
    np.testing.assert_array_equal(features[0], expected[0])
    assert list(features[1]) == list(expected[1])
    for face_id, vector in expected[1].items():
        np.testing.assert_array_equal(features[1][face_id], vector)
    images, others = contents(run.path / "images"), contents(whole.path / "images")
    assert images == others and images
    # the plan is that of the whole run, and so is what was estimated
    for key in ("spec", "faces", "units", "arms", "metrics", "references", "unavailable", "notes"):
        assert getattr(run.manifest, key) == getattr(whole.manifest, key), key
    # once more: nothing changes
    before = contents(run.path / "samples")
    assert merge_runs([folder / "1", folder / "2"], run.path).problem is None
    assert contents(run.path / "samples") == before


def test_what_is_missing_is_listed_and_made_by_the_run_command(
    world: tuple[dict[str, object], Path], shards: list[Path], tmp_path: Path, capsys: Capture
) -> None:
    values, folder = world
    lost = store.open_run(shards[1]).manifest.own_units[0].id
    (shards[1] / "samples" / f"{lost}.parquet").write_bytes(b"damaged")
    out = tmp_path / "out"
    command = ["merge", *map(str, shards[:3]), "--out", str(out), "--quiet"]
    assert outcome(command) == INCOMPLETE
    error = capsys.readouterr().err
    last = [unit.id for unit in store.open_run(shards[3]).manifest.own_units]
    assert len(error.splitlines()) == 1
    assert f"{1 + len(last)} of 14 work units are missing" in error
    assert lost in error and last[0] in error and f"--out {out}" in error
    assert not store.open_run(out).complete
    # The last shard comes later; what no shard has is made in place.
    assert outcome([*command, str(shards[3])]) == INCOMPLETE
    assert "1 of 14 work units are missing" in capsys.readouterr().err
    finished = run_audit(make_spec(values), out)
    pd.testing.assert_frame_equal(rows(finished), rows(store.open_run(folder / "whole")))


def test_a_unit_that_is_there_twice(
    world: tuple[dict[str, object], Path], shards: list[Path], tmp_path: Path
) -> None:
    """Fine where the samples are the same, whatever time they took; else refused."""
    values, folder = world
    again = run_audit(make_spec(values), tmp_path / "again")
    assert merge_runs([*shards, again.path], tmp_path / "out").problem is None
    unit = again.manifest.units[3]
    table = again.rows_of(unit).to_pylist()
    table[0]["psnr"] += 1e-9
    block = np.load(again.path / "features" / f"{unit.id}.npz")["sr_features"]
    again.write_unit(unit.id, table, block)
    with pytest.raises(InputError, match=f"work unit {unit.id} holds other samples"):
        merge_runs([*shards, again.path], tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "specifications differ.*seed 0, 1"),
        ({"draws": 2}, "specifications differ.*draws 1, 2"),
        ({"threads": 2}, "threads"),
    ],
)
def test_runs_of_different_audits_are_refused(
    world: tuple[dict[str, object], Path], tmp_path: Path, change: dict[str, object], named: str
) -> None:
    values, folder = world
    run_audit(make_spec(values | {"limit": None} | change), tmp_path / "other", shard=(2, SHARDS))
    with pytest.raises(InputError, match=named) as error:
        merge_runs([folder / "1", tmp_path / "other"], tmp_path / "out")
    assert "\n" not in str(error.value) and str(tmp_path / "other") in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("versions", {"torch": "1.0"}, "versions differ.*torch"),
        ("execution", {"device": "cuda:1"}, "device.*'cpu', 'cuda'"),
        ("execution", {"precision": "bf16"}, "precision 'fp32', 'bf16'"),
        ("faces", [{"sha256": "0" * 64}], "the faces on disk differ"),
        ("arms", {"bicubic": {"kind": "nearest"}}, "an arm or its weights differ.*bicubic"),
        ("dataset", {"title": "another"}, "the data set or its labels differ.*another"),
    ],
)
def test_every_difference_is_named(
    world: tuple[dict[str, object], Path], shards: list[Path], tmp_path: Path, key: str,
    value: object, named: str,
) -> None:  # fmt: skip
    path = shards[1] / "manifest.json"
    manifest = json.loads(path.read_text())
    if isinstance(value, list):
        manifest[key][0] |= value[0]
    else:
        manifest[key] |= value
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=named):
        merge_runs(shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_references_that_were_fitted_otherwise_are_refused(
    world: tuple[dict[str, object], Path], shards: list[Path], tmp_path: Path
) -> None:
    path = shards[1] / "references.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"model": {"mean": [0.5]}}))
    with pytest.raises(InputError, match="references.json"):
        merge_runs(shards, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    # Machines that round otherwise fit the same model.
    model = {"mean": [0.5, -2.0], "patch": 8, "rule": "r", "none": None}
    assert alike(model, model | {"mean": [0.5 * (1 + 1e-12), -2.0]})
    for other in ({"mean": [0.51, -2.0]}, {"mean": [0.5]}, {"patch": 9}, {"more": 1}):
        assert not alike(model, model | other)


def test_command_line(
    world: tuple[dict[str, object], Path], tmp_path: Path, capsys: Capture
) -> None:
    values, folder = world
    command = [
        "run", "--dataset", "fairface", "--data-root", str(values["data_root"]), "--arm", "bicubic",
        "--scale", "4", "--resolution", "32", "--per-group", "1", "--draws", "1", "--attributes",
        "none", "--metrics", "psnr", "--threads", "1", "--quiet", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    for text in ("0/2", "3/2", "2", "1/x", "-1/2"):
        assert outcome([*command, "--shard", text]) == BAD_INPUT
        assert "wanted I/N" in capsys.readouterr().err
    assert outcome([*command, "--shard", "1/2", "--json"]) == DONE
    assert json.loads(capsys.readouterr().out)["shard"] == "1/2"
    # Another shard, or the whole, does not go into the same directory.
    assert outcome([*command, "--shard", "2/2"]) == BAD_INPUT
    assert "holds shard 1/2, not shard 2/2" in capsys.readouterr().err
    assert outcome(command) == BAD_INPUT
    assert "holds shard 1/2, not the whole audit" in capsys.readouterr().err
    assert not store.open_run(tmp_path / "out").complete
    shard = str(folder / "1")
    assert outcome(["merge", shard, "--out", shard]) == BAD_INPUT
    assert outcome(["merge", shard, str(folder / "2"), "--out", str(folder / "3")]) == BAD_INPUT
    assert "holds shard 3/4" in capsys.readouterr().err
    assert outcome(["merge", str(folder), "--out", str(tmp_path / "x")]) == BAD_INPUT


def test_default_folders_of_shards() -> None:
    spec = make_spec({"dataset": "fairface"})
    assert spec.default_out_of((2, 8)).name == f"{spec.default_out.name}-shard-2-of-8"
