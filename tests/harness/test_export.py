"""Inputs that are exported, outputs that are made elsewhere, and their audit."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, outcome
from pulse_audit.harness import export
from pulse_audit.harness import run as runs
from pulse_audit.harness.inputs import find_inputs
from pulse_audit.harness.spec import make_spec, read_spec, without_folders
from pulse_audit.types import Draw

pytestmark = pytest.mark.usefixtures("without_reports")

ENLARGE = """
import sys
from pathlib import Path
from PIL import Image

# One file, or all files of a folder into another.
source, target = Path(sys.argv[1]), Path(sys.argv[2])
for path in [source] if source.is_file() else sorted(source.rglob("*.png")):
    out = target if source.is_file() else target / path.relative_to(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as small:
        size = small.width * 4, small.height * 4
        small.resize(size, Image.Resampling.BICUBIC).save(out)
"""


@pytest.fixture
def spec(fairface_root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(
        f"dataset: fairface\ndata_root: {fairface_root}\narms: [bicubic, 'folder:outputs']\n"
        "scales: [4]\nresolution: 64\nper_group: 1\ndraws: 2\nconditions: [clean, 'gaussian:25']\n"
        "threads: 1\nbatch: 4\ndevice: cpu\nmetrics: [psnr]\nattributes: none\nkeep_images: all\n"
    )
    return path


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "enlarge.py"
    path.write_text(ENLARGE)
    return path


def index_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_inputs_are_those_of_the_run(
    spec: Path, tmp_path: Path, read_pixels: Callable[[Path], np.ndarray]
) -> None:
    out = tmp_path / "inputs"
    assert outcome(["export-inputs", str(spec), "--out", str(out), "--quiet"]) == DONE
    rows = index_of(out)
    assert len(rows) == 7 * 2 * 2
    # Draws of clean inputs share a file, those with noise have one each.
    assert len({row["input"] for row in rows}) == 7 + 14
    audit = make_spec({**read_spec(str(spec)), "arms": ["nearest"]})
    run = runs.run_audit(audit, tmp_path / "run")
    samples = run.samples().set_index(["face_id", "condition", "draw"])
    for row in rows:
        sample = samples.loc[row["face_id"], row["condition"], int(row["draw"])]
        draw = Draw(row["face_id"], row["condition"], 4, int(row["draw"]))
        assert int(row["seed"]) == sample["seed"] == draw.seed(0)
        # The run keeps its inputs at the same eight bits.
        kept = run.path / store.lr_path(draw.face_id, draw.condition, 4, draw.index)
        assert np.array_equal(read_pixels(out / row["input"]), read_pixels(kept))


def test_outputs_of_a_folder_and_of_a_command_are_those_of_the_method(
    spec: Path, program: Path, tmp_path: Path, fairface_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcome(["export-inputs", str(spec), "--out", "inputs", "--quiet"]) == DONE
    subprocess.run([sys.executable, str(program), "inputs", "outputs"], check=True)
    command = f"command:'{sys.executable}' '{program}' {{input}} {{output}}"
    values = read_spec("inputs/audit.yaml")
    values |= {"arms": ["bicubic", "folder:outputs", command], "data_root": fairface_root}
    run = runs.run_audit(make_spec(values), tmp_path / "run")
    rows = run.samples()
    assert set(rows.status) == {"ok"} and rows.feasible.notna().all()
    arms = {arm: rows[rows.arm == arm].reset_index(drop=True) for arm in rows.arm.unique()}
    assert list(run.manifest.arms) == ["bicubic", "folder:outputs", "command:enlarge"]
    same = ["face_id", "condition", "draw", "seed"]
    for arm in ("folder:outputs", "command:enlarge"):
        pd.testing.assert_frame_equal(arms[arm][same], arms["bicubic"][same])
        # Bicubic interpolation with and without 8 bits: equal within rounding, but at the edges,
        # and where noise makes Pillow clip what it has interpolated in one direction.
        clean = arms[arm].condition == "clean"
        pairs = (arms["bicubic"].image[clean], arms[arm].image[clean])
        for ours, theirs in zip(*pairs, strict=True):
            with Image.open(run.path / ours) as a, Image.open(run.path / theirs) as b:
                apart = np.abs(np.asarray(a, int) - np.asarray(b, int))
            assert apart[16:-16, 16:-16].max() <= 2
    pd.testing.assert_series_equal(
        arms["folder:outputs"].downscale_error, arms["command:enlarge"].downscale_error
    )
    for name in ("folder:outputs", "command:enlarge"):
        assert len(run.manifest.arms[name].as_dict()["file_sha256"]) == 64

    # Another output, or another program, is another audit.
    first = next(Path("outputs").rglob("*.png"))
    Image.new("RGB", (64, 64)).save(first)
    with pytest.raises(runs.InputError, match=r"an arm or its weights changed .*folder:outputs"):
        runs.run_audit(make_spec(values), tmp_path / "run")


def test_a_missing_output_is_a_row_with_the_reason(
    spec: Path, program: Path, tmp_path: Path, fairface_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert outcome(["export-inputs", str(spec), "--out", "inputs", "--quiet"]) == DONE
    subprocess.run([sys.executable, str(program), "inputs", "outputs"], check=True)
    gone = index_of(Path("inputs"))[0]
    Path("outputs", gone["input"]).unlink()
    values = {**read_spec("inputs/audit.yaml"), "data_root": fairface_root}
    run = runs.run_audit(make_spec({**values, "arms": ["folder:outputs"]}), tmp_path / "run")
    rows = run.samples().query("status == 'error'")
    assert set(rows.face_id) == {gone["face_id"]} and len(rows) == 2
    stem = gone["input"].removesuffix(".png")
    name = Path(stem).name
    assert set(rows.reason) == {
        f"no output: clean-x4/{name}.png or {name}_{k}.png is missing" for k in (1, 2)
    }


def test_an_interrupted_export_goes_on(spec: Path, tmp_path: Path) -> None:
    audit = without_folders(make_spec(read_spec(str(spec))))
    inputs = find_inputs(audit)

    def stop(done: int, total: int, restored: int) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.export_inputs(audit, tmp_path / "out", inputs, stop)
    assert not (tmp_path / "out" / "index.csv").exists()
    begun = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.png")}
    assert begun
    # One of the files was damaged since.
    damaged = min(begun)
    damaged.write_bytes(damaged.read_bytes()[:40])
    reports: list[tuple[int, int, int]] = []
    export.export_inputs(audit, tmp_path / "out", inputs, lambda *r: reports.append(r))
    export.export_inputs(audit, tmp_path / "whole", inputs)
    whole = {p.relative_to(tmp_path / "whole"): p.read_bytes()
             for p in (tmp_path / "whole").rglob("*") if p.is_file()}  # fmt: skip
    again = {p.relative_to(tmp_path / "out"): p.read_bytes()
             for p in (tmp_path / "out").rglob("*") if p.is_file()}  # fmt: skip
    assert again == whole
    assert reports[-1][:2] == (28, 28) and 0 < reports[-1][2] < 28
    assert all(p.stat().st_mtime_ns == t for p, t in begun.items() if p != damaged)


def test_a_folder_of_something_else_is_left_alone(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "inputs"
    arguments = ["export-inputs", str(spec), "--out", str(out), "--quiet"]
    assert outcome(arguments) == DONE
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert outcome([*arguments, "--seed", "1"]) == BAD_INPUT
    assert "holds something else than these inputs" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_inputs_of_people_who_may_withdraw_say_that_they_are_photos(
    spec: Path, tmp_path: Path, fairface_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(
        "consenting:\n  title: Consenting faces\n  layout: folder\n  licence: own\n  terms: own\n"
        "  revocable: true\n  may_publish_images: false\n  labels_from: people\n  crop: as-is\n"
        "  vocabulary: {race: [a, b]}\n  group_by: [race]\n  citation: none\n  obtain: ask\n"
    )
    faces = tmp_path / "faces"
    faces.mkdir()
    lines = ["file,race"]
    for number, photo in enumerate(sorted((fairface_root / "val").glob("*.jpg"))[:4]):
        (faces / photo.name).write_bytes(photo.read_bytes())
        lines.append(f"{photo.name},{'ab'[number % 2]}")
    (faces / "labels.csv").write_text("\n".join(lines) + "\n")
    arguments = [
        "export-inputs", "--dataset", "consenting", "--datasets", str(own), "--data-root",
        str(faces), "--arm", "bicubic", "--resolution", "32", "--per-group", "2",
        "--attributes", "none", "--quiet", "--out", str(tmp_path / "inputs"),
    ]  # fmt: skip
    code, said = outcome(arguments), capsys.readouterr()
    assert code == DONE, said.err
    assert "the inputs are photos too: people in Consenting faces may withdraw" in said.err
    assert "may withdraw" in (tmp_path / "inputs" / "audit.yaml").read_text()
