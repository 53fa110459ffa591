"""A run copied to a URL as it is made, begun again from there, and merged from there."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, outcome
from pulse_audit.harness.merge import merge_runs
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.harness.storage import Copy, begin_copy, brought
from pulse_audit.types import InputError

pytestmark = pytest.mark.usefixtures("without_reports")

Capture = pytest.CaptureFixture[str]
URL = "memory://bucket/run"


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """A file system in memory, which is empty before and after."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def values(
    tmp_path_factory: pytest.TempPathFactory, fairface_kept: Path, attribute_code: str
) -> dict[str, object]:
    code = tmp_path_factory.mktemp("storage") / "seen.py"
    code.write_text(attribute_code)
    return {
        "dataset": "fairface", "data_root": fairface_kept, "arms": ["bicubic", "nearest"],
        "scales": [4], "resolution": 32, "crop": "fairface-0.25", "per_group": 1, "draws": 1,
        "batch": 2, "threads": 1, "device": "cpu", "metrics": ["psnr"], "keep_images": "all",
        "attributes": f"{code}:Model", "second_attributes": "none",
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(values: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> store.Run:
    """The run without a copy."""
    return run_audit(make_spec(values), tmp_path_factory.mktemp("whole") / "out")


def rows(run: store.Run) -> pd.DataFrame:
    return run.samples().drop(columns="seconds")


def names(files: fsspec.AbstractFileSystem) -> set[str]:
    return {path.removeprefix("/bucket/run/") for path in files.find("/bucket/run")}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


class Fault(Exception):
    """Of a client of a storage."""


def failing(files: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the storage refuse so many files of samples."""
    left, write = [times], files.pipe_file

    def pipe_file(path: str, data: bytes, **options: object) -> None:
        if left[0] and path.endswith(".parquet"):
            left[0] -= 1
            raise Fault("the bucket\ndoes not answer")
        write(path, data, **options)

    monkeypatch.setattr(files, "pipe_file", pipe_file)


def test_a_copy_holds_what_the_run_holds(
    values: dict[str, object], bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    copy = Copy(URL)
    run = run_audit(make_spec(values), tmp_path / "out", copy=copy)
    assert copy.problem is None
    made = contents(run.path)
    made.pop(".lock", None)
    assert {name: bucket.cat(f"/bucket/run/{name}") for name in names(bucket)} == made
    # The samples of a unit are written after its images and features.
    written = sorted(made, key=lambda name: bucket.created(f"/bucket/run/{name}"))
    unit = run.manifest.units[0]
    of_unit = [*run.images_of(unit), *run.names_of(unit.id)]
    assert max(of_unit, key=written.index) == f"samples/{unit.id}.parquet"


def test_another_machine_goes_on_from_the_copy(
    values: dict[str, object],
    whole: store.Run,
    bucket: fsspec.AbstractFileSystem,
    tmp_path: Path,
) -> None:
    def stop(done: int, total: int, restored: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_audit(make_spec(values), tmp_path / "first", stop, copy=Copy(URL))
    shutil.rmtree(tmp_path / "first")
    copied = sum(name.endswith(".parquet") for name in names(bucket))
    assert 2 <= copied < len(whole.manifest.units)

    copy, calls = begin_copy(URL, tmp_path / "second"), []
    run = run_audit(
        make_spec(values), tmp_path / "second", lambda *now: calls.append(now), copy=copy
    )
    assert calls[0][0] == calls[0][2] > 0  # restored
    pd.testing.assert_frame_equal(rows(run), rows(whole))
    assert set(run.originals()) == set(whole.originals())
    assert names(bucket) == contents(run.path).keys() - {".lock"}


def test_shards_are_merged_from_their_urls(
    values: dict[str, object],
    whole: store.Run,
    bucket: fsspec.AbstractFileSystem,
    tmp_path: Path,
) -> None:
    urls = [f"memory://bucket/{index}" for index in (1, 2)]
    for index, url in enumerate(urls, 1):
        out = tmp_path / f"{index}"
        run_audit(make_spec(values), out, shard=(index, 2), copy=Copy(url))
    # One from its folder.
    with brought([urls[0], tmp_path / "2"]) as places:
        merged = merge_runs(places, tmp_path / "joined")
        assert not places[0].is_relative_to(tmp_path) and places[1] == tmp_path / "2"
    assert merged.problem is None and not places[0].exists()
    pd.testing.assert_frame_equal(rows(merged.run), rows(whole))


def test_what_could_not_be_copied_is_copied_later(
    values: dict[str, object],
    bucket: fsspec.AbstractFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(bucket, monkeypatch, times=2)
    copy = Copy(URL)
    run = run_audit(make_spec(values), tmp_path / "out", copy=copy)
    assert copy.problem is None and names(bucket) == contents(run.path).keys() - {".lock"}


def test_a_storage_that_never_answers_costs_no_sample(
    values: dict[str, object],
    whole: store.Run,
    bucket: fsspec.AbstractFileSystem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing(bucket, monkeypatch, times=1000)
    copy = Copy(URL)
    run = run_audit(make_spec(values), tmp_path / "out", copy=copy)
    pd.testing.assert_frame_equal(rows(run), rows(whole))
    assert copy.problem is not None and "\n" not in copy.problem
    assert copy.problem.endswith(f"not copied to {URL} (the bucket does not answer)")
    # The same command, once it answers.
    monkeypatch.undo()
    copy = Copy(URL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pulse_audit.report.html.publish", lambda *_: None)
        run_audit(make_spec(values), tmp_path / "out", copy=copy)
    assert copy.problem is None and names(bucket) == contents(run.path).keys() - {".lock"}


def test_a_damaged_copy_is_made_again(
    values: dict[str, object],
    whole: store.Run,
    bucket: fsspec.AbstractFileSystem,
    tmp_path: Path,
) -> None:
    run_audit(make_spec(values), tmp_path / "out", copy=Copy(URL))
    first = whole.manifest.units[0].id
    bucket.pipe_file(f"/bucket/run/samples/{first}.parquet", b"nothing")
    bucket.pipe_file("/bucket/run/samples/../../escaped.parquet", b"nothing")
    bucket.pipe_file("/bucket/run/more.txt", b"not of the plan")
    copy = begin_copy(URL, tmp_path / "again")
    brought_back = store.open_run(tmp_path / "again")
    assert not brought_back.is_finished(first)
    assert not (tmp_path / "again" / "more.txt").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "again"}
    run = run_audit(make_spec(values), tmp_path / "again", copy=copy)
    pd.testing.assert_frame_equal(rows(run), rows(whole))
    # There, too.
    pd.testing.assert_frame_equal(rows(Copy(URL).bring(tmp_path / "third")), rows(whole))


def test_what_is_damaged_here_is_made_again_and_copied(
    values: dict[str, object],
    whole: store.Run,
    bucket: fsspec.AbstractFileSystem,
    tmp_path: Path,
) -> None:
    run = run_audit(make_spec(values), tmp_path / "out")
    path = run.path / "samples" / f"{run.manifest.units[1].id}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    run = run_audit(make_spec(values), tmp_path / "out", copy=Copy(URL))
    assert names(bucket) == contents(run.path).keys() - {".lock"}
    pd.testing.assert_frame_equal(rows(Copy(URL).bring(tmp_path / "back")), rows(whole))


def test_a_folder_of_others_is_refused(
    values: dict[str, object], bucket: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    run_audit(make_spec(values), tmp_path / "out", copy=Copy(URL))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not a run directory and not empty"):
        begin_copy(URL, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("manifest", [b"{", b'{"schema": 1}', b"[]"])
def test_a_manifest_that_is_none_is_refused_and_nothing_is_left(
    bucket: fsspec.AbstractFileSystem, tmp_path: Path, manifest: bytes
) -> None:
    bucket.pipe_file("/bucket/run/manifest.json", manifest)
    with pytest.raises(InputError, match=URL) as error:
        begin_copy(URL, tmp_path / "out")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_urls_that_cannot_be_used_are_one_line(tmp_path: Path, capsys: Capture) -> None:
    with pytest.raises(InputError, match="URL with a password .of host."):
        Copy("sftp://me:secret@host/run")
    with pytest.raises(InputError, match="nowhere://x.*Protocol not known"):
        Copy("nowhere://x")
    for given in (["run", "--copy-to", "bucket/run"], ["merge", "nowhere://x", "--out", "y"]):
        assert outcome(given) == BAD_INPUT
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "secret" not in error


def test_without_its_package_a_url_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['s3fs'] = None\n"
        "from pulse_audit.harness.storage import Copy\n"
        "Copy('s3://bucket/run')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'pulse-audit[s3]'" in ended.stderr.splitlines()[-1]


def test_by_the_command_line(
    values: dict[str, object], fairface_kept: Path, tmp_path: Path, capsys: Capture
) -> None:
    url = (tmp_path / "copy").as_uri()
    command = [
        "run", "--dataset", "fairface", "--data-root", str(fairface_kept), "--arm", "nearest",
        "--scale", "4", "--resolution", "32", "--crop", "fairface-0.25", "--per-group", "1",
        "--draws", "1", "--metrics", "psnr", "--attributes", "none", "--device", "cpu",
        "--threads", "1", "--quiet", "--shard", "1/1", "--copy-to", url,
    ]  # fmt: skip
    assert outcome([*command, "--out", str(tmp_path / "out")]) == DONE
    assert contents(tmp_path / "copy").keys() == contents(tmp_path / "out").keys() - {".lock"}
