"""The run directory: whole files, checksums, one writer, nothing trusted."""

import errno
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pulse_audit import store
from pulse_audit.files import atomic_write
from pulse_audit.seeding import sha256
from pulse_audit.types import InputError


def unit(number: int, *faces: str) -> dict[str, Any]:
    draws = [[face_id, 0] for face_id in faces or (f"val/{number}.jpg",)]
    place = {"arm": "bicubic", "condition": "clean", "scale": 8}
    return {"id": f"u{number:05d}", **place, "draws": draws}


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "schema": store.SCHEMA_VERSION,
        "status": "planned",
        "spec": {"scales": [8], "conditions": ["clean"]},
        "dataset": {"vocabulary": {"race": ["White", "Black"]}},
        "arms": {"bicubic": {}},
        "faces": [{"id": f"val/{number}.jpg"} for number in range(3)],
        "units": [unit(0), unit(1)],
        **changes,
    }


def model(**card: Any) -> dict[str, Any]:
    """The manifest's entry of an attribute model with a card."""
    return {"vocabulary": {"race": ["White", "Black"]}, "card": card}


@pytest.fixture
def run(tmp_path: Path) -> store.Run:
    (tmp_path / "run").mkdir()
    return store.create_run(tmp_path / "run", store.check_manifest(manifest()))


def row(**values: Any) -> dict[str, Any]:
    place = {"arm": "bicubic", "condition": "clean", "scale": 8, "draw": 0}
    return {"face_id": "val/0.jpg", **place, "status": "ok", **values}


def test_rows_come_back_as_they_were_written(run: store.Run) -> None:
    second = row(face_id="val/1.jpg", feasible=False, hr_ita=-12.5, label_race="Black")
    run.write_unit("u00001", [second])
    run.write_unit("u00000", [row(feasible=True, sr_race_p=[0.25, 0.75], reason=None)])
    rows = store.open_run(run.path).samples()
    assert rows.face_id.tolist() == ["val/0.jpg", "val/1.jpg"]  # in the order of the plan
    assert rows.feasible.tolist() == [True, False]
    assert rows.hr_ita[1] == -12.5
    assert list(rows.sr_race_p[0]) == [0.25, 0.75]
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


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_modes_that_the_umask_leaves(tmp_path: Path, mask: int) -> None:
    """In a process of its own, as the mask is read when the program starts."""
    code = (
        "import json, sys; from pathlib import Path; from pulse_audit import store\n"
        "out = Path(sys.argv[1])\n"
        "with store.locked(out):\n"
        "    run = store.create_run(out, store.check_manifest(json.loads(sys.argv[2])))\n"
        "    run.write_unit('u00000', []); run.write_image('images/a.png', b'')\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out"), json.dumps(manifest())]
    subprocess.run(command, check=True, umask=mask)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~mask}


def test_not_a_number_is_refused_not_written(run: store.Run) -> None:
    with pytest.raises(ValueError, match="JSON"):
        run.write_json("summary.json", {"value": float("nan")})
    assert not (run.path / "summary.json").exists()


def test_leftovers_of_a_killed_writer_are_swept(run: store.Run) -> None:
    (run.path / "samples").mkdir()
    leftover = run.path / "samples" / ".pulse-audit-a1b2c3d4.tmp"
    leftover.write_bytes(b"half")
    with store.locked(run.path):
        assert not leftover.exists()


def test_files_of_others_are_never_swept(run: store.Run, tmp_path: Path) -> None:
    """Names that we do not make, folders, links, and what lies behind links stay."""
    name = ".pulse-audit-a1b2c3d4.tmp"
    outside = tmp_path / "outside"
    outside.mkdir()
    for path in (outside / name, run.path / ".notes.tmp", tmp_path / "mine.txt"):
        path.write_text("mine")
    (run.path / "images").symlink_to(outside)
    (run.path / name).symlink_to(tmp_path / "mine.txt")
    (run.path / ".pulse-audit-ffffffff.tmp").mkdir()
    with store.locked(run.path):
        pass
    assert (outside / name).read_text() == "mine"
    assert (run.path / ".notes.tmp").read_text() == "mine"
    assert (run.path / name).is_symlink() and (tmp_path / "mine.txt").read_text() == "mine"
    assert (run.path / ".pulse-audit-ffffffff.tmp").is_dir()


def test_nothing_is_written_to_a_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    files = {
        tmp_path / "photos" / name for name in ("a.jpg", ".b.tmp", ".pulse-audit-00000000.tmp")
    }
    for path in files:
        path.write_text("mine")
    with (
        pytest.raises(InputError, match="not a run directory"),
        store.locked(tmp_path / "photos"),
    ):
        pass
    assert set((tmp_path / "photos").iterdir()) == files


@pytest.mark.parametrize("name", [".lock", "samples", "features", "sources", "report"])
def test_a_run_whose_parts_are_links_is_refused(run: store.Run, tmp_path: Path, name: str) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    (run.path / name).symlink_to(target)
    for use in (store.open_run, lambda path: store.locked(path).__enter__()):
        with pytest.raises(InputError, match="is a link"):
            use(run.path)
    assert target.read_text() == "mine"


def test_images_are_not_written_through_links(run: store.Run, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (run.path / "images").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="is a link"):
        run.write_image("images/original/a.png", b"png")
    assert not list((tmp_path / "outside").iterdir())


def test_a_pipe_in_the_place_of_an_image_is_no_image(run: store.Run) -> None:
    run.write_unit("u00000", [row(image="images/x.png")])
    run.manifest.spec.keep_images = "all"
    pipe = run.path / store.original_path("val/0.jpg")
    pipe.parent.mkdir(parents=True)
    os.mkfifo(pipe)
    assert not run.has_images(run.manifest.units[0], {})
    assert not pipe.exists()


def test_a_run_that_lost_a_shard_is_not_complete(run: store.Run) -> None:
    for name in ("u00000", "u00001"):
        run.write_unit(name, [row()])
    run.write_manifest(status="complete")
    assert store.open_run(run.path).complete
    (run.path / "samples" / "u00001.parquet").unlink()
    lost = store.open_run(run.path)
    assert not lost.complete and lost.missing_units == ["u00001"]


def test_after_a_full_disk_the_same_run_goes_on(
    run: store.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"No space left on device.*u00000"):
        run.write_unit("u00000", [row()])
    monkeypatch.undo()
    assert not [p for p in run.path.rglob("*") if p.name.endswith(".tmp")]
    run.write_unit("u00000", [row()])
    assert len(store.open_run(run.path).samples()) == 1


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
        ("[" * 100_000, "32 deep"),
        (json.dumps(manifest(seconds=float("nan"))), "not a number"),
        (json.dumps(manifest(units=[unit(0), unit(0)])), "unit twice"),
        (json.dumps(manifest(faces=[{"id": "a"}, {"id": "a"}])), "face twice"),
        (json.dumps(manifest(units=[unit(0, "val/9.jpg")])), "u00000.*a face"),
        (json.dumps(manifest(units=[unit(0), unit(1, "val/0.jpg")])), "u00001.*draw twice"),
        (json.dumps(manifest(arms={})), "u00000.*arm"),
        (json.dumps(manifest(spec={"scales": [4], "conditions": ["clean"]})), "u00000.*scale"),
        (json.dumps(manifest(execution={"threads": 10**6})), "threads"),
        (json.dumps(manifest(execution={"precision": "fp8"})), "precision"),
        (json.dumps(manifest(features={"dim": 10**12})), "dim"),
        (json.dumps(manifest(attributes=model(confusion={"race": "x"}))), "card.confusion.race"),
        (json.dumps(manifest(attributes=model(confusion={"race": [[-1]]}))), "card.confusion"),
        (json.dumps(manifest(attributes=model(vocabulary=[["a"]]))), "card.vocabulary"),
        (json.dumps(manifest(attributes=model(notes="once"))), "card.notes"),
        (json.dumps(manifest(attributes={"vocabulary": {}, "card": []})), "attributes.card"),
        (json.dumps(manifest(references=["niqe"])), "references"),
        (json.dumps(manifest(references={"unavailable": {"niqe": 3}})), "references.unavailable"),
        (json.dumps(manifest(sources={"guided_by": [], "training": {"a": 3}})), "sources.training"),
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


def with_shard(run: store.Run, table: pa.Table) -> store.Run:
    """The run with a shard of anyone's making, and a checksum that matches it."""
    run.write_unit("u00000", [row()])
    shard = run.path / "samples" / "u00000.parquet"
    pq.write_table(table, shard)
    shard.with_suffix(".sha256").write_text(f"{sha256(shard.read_bytes())}  u00000.parquet\n")
    return store.open_run(run.path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"psnr": pa.array(["high"])}, "psnr"),
        ({"psnr": pa.array(["12.5"])}, "psnr"),
        ({"seconds": pa.array([float("inf")])}, "seconds.*infinite"),
        ({"seconds": pa.array([-1e308])}, "seconds.*huge"),
        ({"psnr": pa.array([1e308])}, "psnr.*huge"),
        ({"sr_race_p": pa.array([[0.5, float("-inf")]])}, "sr_race_p.*infinite"),
        ({"face_id": pa.array([None], pa.string())}, "face_id"),
        ({"face_id": pa.array(["val/2.jpg"])}, "face_id"),
        ({"draw": pa.array([1])}, "draw"),
        ({"arm": pa.array(["pulse"])}, "arm"),
        ({"scale": pa.array([4])}, "scale"),
        ({"status": pa.array(["fine"])}, "status"),
        ({"status": pa.array([None], pa.string())}, "status"),
        ({"label_race": pa.array(["<b>"])}, "label_race"),
    ],
)
def test_a_foreign_shard_costs_one_line(
    run: store.Run, changes: dict[str, pa.Array], problem: str
) -> None:
    table = pa.Table.from_pylist([row()], schema=run.schema)
    for name, column in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    with pytest.raises(InputError, match=rf"u00000\.parquet: .*{problem}") as error:
        with_shard(run, table).samples()
    assert "\n" not in str(error.value)


def test_repeated_and_missing_rows_cost_one_line(run: store.Run) -> None:
    for rows in ([row(), row()], []):
        table = pa.Table.from_pylist(rows, schema=run.schema)
        with pytest.raises(InputError, match=r"u00000\.parquet: .*rows"):
            with_shard(run, table).samples()


def test_a_shard_that_is_no_parquet_costs_one_line(run: store.Run) -> None:
    run.write_unit("u00000", [row()])
    shard = run.path / "samples" / "u00000.parquet"
    shard.write_bytes(b"PAR1" * 9)
    shard.with_suffix(".sha256").write_text(f"{sha256(shard.read_bytes())}  u00000.parquet\n")
    with pytest.raises(InputError, match=r"u00000\.parquet: cannot be read"):
        run.samples()


def test_identical_images_have_infinite_psnr(run: store.Run) -> None:
    run.write_unit("u00000", [row(psnr=float("inf"))])
    assert np.isinf(run.samples().psnr[0])


@pytest.fixture
def featured(tmp_path: Path) -> store.Run:
    (tmp_path / "featured").mkdir()
    content = manifest(features={"network": "x", "dim": 3})
    return store.create_run(tmp_path / "featured", store.check_manifest(content))


def test_features_are_one_vector_for_each_draw(featured: store.Run) -> None:
    featured.write_unit("u00000", [row()], np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match=r"u00000\.npz: 2 vectors for 1 draws"):
        featured.features()


def test_features_that_unpack_to_more_than_is_read_are_refused(
    featured: store.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    featured.write_originals({"val/0.jpg": np.zeros(3, np.float32)})
    monkeypatch.setattr("pulse_audit.store.features.MAX_FEATURES", 100)
    with pytest.raises(InputError, match=r"originals\.npz: .*unpacks to more than 100 bytes"):
        featured.originals()


@pytest.mark.parametrize(
    "damage", ["cut", "text", "header", "bytes", "ids", "other faces", "infinite", "gone"]
)
def test_damaged_features_of_the_originals_are_named(featured: store.Run, damage: str) -> None:
    path = featured.path / "features" / "originals.npz"
    vectors = {face.id: np.zeros(3, np.float32) for face in featured.manifest.faces}
    featured.write_originals({"val/0.jpg": vectors["val/0.jpg"]})
    assert not featured.has_originals  # the other faces are missing
    featured.write_originals(vectors)
    assert featured.has_originals
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "text":
        path.write_bytes(b"no archive")
    elif damage in ("header", "bytes"):
        header = b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4', (" if damage == "header" else b"text"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("features.npy", header)
    elif damage == "ids":
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("face_ids.npy", b"text")
    elif damage == "other faces":
        featured.write_originals({"val/9.jpg": np.zeros(3, np.float32)})
    elif damage == "infinite":
        featured.write_originals({"val/0.jpg": np.full(3, np.inf, np.float32)})
    else:
        path.unlink()
    assert not featured.has_originals
    if damage != "gone":
        with pytest.raises(InputError, match=r"originals\.npz.*makes it again"):
            featured.features()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(sorted(store.Manifest.model_fields)), VALUES)
def test_any_manifest_opens_or_costs_one_line(tmp_path: Path, entry: str, value: Any) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest(**{entry: value})))
    try:
        assert store.open_run(tmp_path).samples().empty
    except InputError as error:
        assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)


PLANTED = {"kind": "planted", "groups": ["White", "Black"], "matrix": [[0.5, 0.5], [0, 1]]}


def test_the_donor_of_a_planted_output_is_stored(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    content = manifest(arms={"bicubic": PLANTED})
    run = store.create_run(tmp_path / "run", store.check_manifest(content))
    run.write_unit("u00000", [row(planted_from="val/9.jpg", planted_group="Black")])
    assert store.open_run(run.path).samples().planted_from.tolist() == ["val/9.jpg"]


@pytest.mark.parametrize(
    ("arm", "donor", "group", "problem"),
    [
        (PLANTED, "val/1.jpg", "Black", "planted_from.*of the run itself"),
        (PLANTED, "val/9.jpg", "Indian", "planted_group"),
        (PLANTED, "val/9.jpg", None, "planted_group"),
        ({"kind": "interpolation"}, "val/9.jpg", "Black", "planted_group"),
        (PLANTED | {"matrix": [[1]]}, "val/9.jpg", "Black", "planted_group"),
    ],
)
def test_a_donor_that_no_planted_arm_can_have_costs_one_line(
    tmp_path: Path, arm: dict[str, Any], donor: str, group: str | None, problem: str
) -> None:
    (tmp_path / "run").mkdir()
    run = store.create_run(tmp_path / "run", store.check_manifest(manifest(arms={"bicubic": arm})))
    run.write_unit("u00000", [row(planted_from=donor, planted_group=group)])
    with pytest.raises(InputError, match=problem):
        store.open_run(run.path).samples()
