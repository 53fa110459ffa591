"""The run directory: whole files, checksums, one writer, nothing trusted."""

import json
from pathlib import Path
from typing import Any

import pytest

from pulse_audit import store
from pulse_audit.files import atomic_write
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schema": store.SCHEMA_VERSION,
        "status": "planned",
        "spec": {},
        "dataset": {"vocabulary": {"race": ["White", "Black"]}},
        "arms": {},
        "faces": [],
        "units": [{"id": "u00000"}, {"id": "u00001"}],
        **changes,
    }


@pytest.fixture
def run(tmp_path: Path) -> store.Run:
    (tmp_path / "run").mkdir()
    return store.create_run(tmp_path / "run", store.check_manifest(manifest()))


def row(**values: Any) -> dict[str, Any]:
    return {"face_id": "val/1.jpg", "arm": "bicubic", "scale": 8, "draw": 0, **values}


def test_rows_come_back_as_they_were_written(run: store.Run) -> None:
    run.write_unit("u00001", [row(draw=1, feasible=False, hr_ita=-12.5, label_race="Black")])
    run.write_unit("u00000", [row(feasible=True, sr_race_p=[0.25, 0.75], reason=None)])
    rows = store.open_run(run.path).samples()
    assert rows.draw.tolist() == [0, 1]  # in the order of the plan
    assert rows.feasible.tolist() == [True, False]
    assert rows.hr_ita[1] == -12.5
    assert rows.sr_race_p[0].tolist() == [0.25, 0.75]
    assert rows.psnr.isna().all()


def test_every_column_of_the_contract_is_there(run: store.Run) -> None:
    expected = {*store.COLUMNS, "label_race", "hr_race", "hr_race_p", "sr_race", "sr_race_p"}
    assert set(run.samples().columns) == expected


def test_a_column_that_is_not_in_the_contract_is_not_stored(run: store.Run) -> None:
    run.write_unit("u00000", [row(invented=1)])
    assert "invented" not in run.samples()


def test_the_checksum_file_is_in_the_form_sha256sum_reads(run: store.Run) -> None:
    run.write_unit("u00000", [row()])
    digest, name = (run.path / "samples" / "u00000.sha256").read_text().split("  ")
    assert name == "u00000.parquet\n"
    assert digest == sha256((run.path / "samples" / "u00000.parquet").read_bytes())


@pytest.mark.parametrize("damage", ["shard", "checksum", "no checksum", "no shard"])
def test_a_damaged_unit_is_not_finished(run: store.Run, damage: str) -> None:
    run.write_unit("u00000", [row()])
    shard, checksum = (run.path / "samples" / f"u00000.{end}" for end in ("parquet", "sha256"))
    if damage == "shard":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "checksum":
        checksum.write_text("0" * 64)
    else:
        (shard if damage == "no shard" else checksum).unlink()
    assert not run.is_finished("u00000")


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atomic_write(tmp_path / "file", b"old")

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        atomic_write(tmp_path / "file", b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_not_a_number_is_refused_not_written(run: store.Run) -> None:
    with pytest.raises(ValueError, match="JSON"):
        run.write_json("summary.json", {"value": float("nan")})
    assert not (run.path / "summary.json").exists()


def test_leftovers_of_a_killed_writer_are_swept(run: store.Run) -> None:
    (run.path / "samples").mkdir()
    leftover = run.path / "samples" / ".abc.tmp"
    leftover.write_bytes(b"half")
    with store.locked(run.path):
        assert not leftover.exists()


def test_a_directory_made_for_nothing_is_taken_away(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bad"), store.locked(tmp_path / "a" / "run"):
        raise InputError("bad")
    assert not (tmp_path / "a" / "run").exists()


def test_a_directory_that_was_there_or_was_written_to_stays(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with store.locked(tmp_path / "empty"):
        pass
    with pytest.raises(InputError, match="bad"), store.locked(tmp_path / "begun"):
        (tmp_path / "begun" / "manifest.json").write_text("{}")
        raise InputError("bad")
    assert (tmp_path / "empty").is_dir()
    assert (tmp_path / "begun" / "manifest.json").read_text() == "{}"


def test_a_second_writer_is_refused(run: store.Run) -> None:
    with (
        store.locked(run.path),
        pytest.raises(InputError, match="another process"),
        store.locked(run.path),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "unreadable"),
        ("[]", "not a manifest"),
        ('{"schema": 99}', "schema 99"),
        (json.dumps(manifest(units=[{"id": "../../etc/passwd"}])), "not one of ours"),
        (json.dumps(manifest(dataset={})), "vocabulary"),
        (json.dumps(manifest(faces="x")), "faces"),
    ],
)
def test_a_foreign_manifest_costs_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=said):
        store.open_run(tmp_path)


@pytest.mark.parametrize("face_id", ["../../etc/passwd", "/etc/passwd", "a\\b", "<img>", ".", ""])
def test_no_id_makes_a_path_that_leaves_the_run(face_id: str) -> None:
    for path in (
        store.original_path(face_id),
        store.lr_path(face_id, "gaussian:25", 8, 0),
        store.output_path("pulse:../x", face_id, "clean", 8, 0),
    ):
        assert ".." not in Path(path).parts
        assert Path(path).parts[0] == "images"
        assert not set(path) & set('<>:"\\|?* ')


def test_ids_that_differ_have_paths_that_differ() -> None:
    assert store.original_path("val/1.jpg") != store.original_path("val_1.jpg")
