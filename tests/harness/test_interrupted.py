"""Between the end of a run and the same command again: other data, another clock, two machines."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from pulse_audit import store
from pulse_audit.cli import BAD_INPUT, DONE, INCOMPLETE
from pulse_audit.harness import run as runs
from pulse_audit.harness.spec import make_spec
from pulse_audit.types import InputError

pytestmark = pytest.mark.usefixtures("without_reports")

LABELS = "fairface_label_val.csv"


def audit(root: Path, out: Path, stop_after: int | None = None, device: str = "cpu") -> store.Run:
    """A small audit, or its beginning: interrupted once so many draws are done."""

    def progress(done: int, total: int, restored: int) -> None:
        if stop_after is not None and done >= stop_after:
            raise KeyboardInterrupt

    values = {
        "dataset": "fairface", "data_root": root, "arms": ["bicubic", "nearest"], "scales": [4],
        "resolution": 32, "crop": "fairface-0.25", "per_group": 2, "draws": 1, "batch": 2,
        "threads": 1, "device": device, "metrics": ["psnr"], "attributes": "none",
    }  # fmt: skip
    return runs.run_audit(make_spec(values), out, progress)


@pytest.fixture
def begun(fairface_root: Path, tmp_path: Path) -> store.Run:
    """A run of 28 draws of which a part is done."""
    with pytest.raises(KeyboardInterrupt):
        audit(fairface_root, tmp_path / "out", stop_after=10)
    run = store.open_run(tmp_path / "out")
    assert 10 <= len(run.samples()) < 28
    return run


def test_a_run_whose_gpu_is_gone_goes_on_on_the_cpu_and_says_so(
    fairface_root: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out", audit(fairface_root, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        audit(fairface_root, out, stop_after=10, device="auto")
    begun = store.open_run(out)
    gone = begun.manifest.execution.model_copy(update={"device": "cuda:97"})
    begun.write_manifest(execution=gone)
    done = len(begun.manifest.units) - len(begun.missing_units)
    run = audit(fairface_root, out, device="auto")
    assert run.manifest.execution.device == "cpu"
    assert f"{done} of 14 work units were made on cuda:97" in run.manifest.notes[-1]
    pd.testing.assert_frame_equal(rows(run), rows(whole))
    # Of a finished run nothing is left to move.
    run.write_manifest(execution=gone)
    assert len(audit(fairface_root, out, device="auto").manifest.notes) == len(run.manifest.notes)


def test_a_device_that_was_asked_for_has_to_be_there(fairface_root: Path, begun: store.Run) -> None:
    gone = begun.manifest.execution.model_copy(update={"device": "cuda:97"})
    begun.write_manifest(execution=gone)
    with pytest.raises(InputError, match="--device cuda:97: not available here"):
        audit(fairface_root, begun.path)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(run: store.Run) -> pd.DataFrame:
    return run.samples().drop(columns="seconds")


# --- The data set ---


def replace_photo(root: Path, drawn: str) -> None:
    Image.new("RGB", (48, 48), "tan").save(root / drawn)


def remove_photo(root: Path, drawn: str) -> None:
    (root / drawn).unlink()


def swap_photos(root: Path, drawn: str) -> None:
    other = next(p for p in sorted((root / "val").iterdir()) if p != root / drawn)
    first, second = (root / drawn).read_bytes(), other.read_bytes()
    (root / drawn).write_bytes(second)
    other.write_bytes(first)


def remove_row(root: Path, drawn: str) -> None:
    lines = (root / LABELS).read_text().splitlines()
    (root / LABELS).write_text("\n".join(x for x in lines if not x.startswith(f"{drawn},")) + "\n")


def change_word(column: int, *words: str) -> Callable[[Path, str], None]:
    """Give the drawn face another word in a column of its row."""

    def change(root: Path, drawn: str) -> None:
        lines = (root / LABELS).read_text().splitlines()
        number = next(n for n, line in enumerate(lines) if line.startswith(f"{drawn},"))
        cells = lines[number].split(",")
        cells[column] = next(word for word in words if word != cells[column])
        lines[number] = ",".join(cells)
        (root / LABELS).write_text("\n".join(lines) + "\n")

    return change


@pytest.mark.parametrize(
    "change",
    [
        replace_photo,
        remove_photo,
        swap_photos,
        remove_row,
        change_word(1, "30-39"),
        change_word(2, "Male", "Female"),
        change_word(3, "White", "Black"),
    ],
    ids=["photo replaced", "photo gone", "photos swapped", "row gone", "age", "gender", "race"],
)
def test_data_that_changed_are_refused_and_what_is_done_stays(
    fairface_root: Path, begun: store.Run, change: Callable[[Path, str], None]
) -> None:
    """Of a face that the run uses; samples of two versions of a data set are never mixed."""
    before, drawn = contents(begun.path), begun.manifest.faces[0].id
    change(fairface_root, drawn)
    given = contents(fairface_root)
    with pytest.raises(InputError, match=r"faces.* changed since this run was planned") as error:
        audit(fairface_root, begun.path)
    assert "\n" not in str(error.value)
    assert contents(begun.path) == before and contents(fairface_root) == given


def test_a_change_of_faces_that_the_run_does_not_use_changes_nothing(
    fairface_root: Path, begun: store.Run, tmp_path: Path
) -> None:
    expected = rows(audit(fairface_root, tmp_path / "undisturbed"))
    used = {face.id for face in begun.manifest.faces}
    other = next(p for p in (fairface_root / "val").iterdir() if f"val/{p.name}" not in used)
    replace_photo(fairface_root, f"val/{other.name}")
    # A further photo of a group joins it at a place that its name alone decides.
    added = 0
    for number in range(100, 103):
        shutil.copy(other, fairface_root / f"val/{number}.jpg")
        with (fairface_root / LABELS).open("a") as file:
            file.write(f"val/{number}.jpg,20-29,Male,White,True\n")
        try:
            finished = audit(fairface_root, begun.path)
        except InputError as error:
            assert re.search("faces.* changed", str(error))  # it would have been drawn
            break
        added += 1
        pd.testing.assert_frame_equal(rows(finished), expected)
    assert added > 0


# --- The clock ---


@pytest.mark.parametrize("years", [-30, 30])
def test_a_clock_that_jumps_changes_nothing(
    fairface_root: Path, begun: store.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    years: int,
) -> None:  # fmt: skip
    """The machine's clock was set between the two calls; times of files are of another year."""
    expected = rows(audit(fairface_root, tmp_path / "undisturbed"))

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):  # type: ignore[no-untyped-def]
            return datetime.now(tz) + timedelta(days=365 * years)

    for path in begun.path.rglob("*"):
        os.utime(path, (path.stat().st_mtime - years * 3e7,) * 2)
    monkeypatch.setattr(runs, "datetime", Clock)
    started = begun.manifest.started
    finished = audit(fairface_root, begun.path)
    pd.testing.assert_frame_equal(rows(finished), expected)
    manifest = store.open_run(begun.path).manifest
    assert manifest.complete and manifest.started == started
    assert 0 < manifest.seconds < 60
    # The same command once more changes nothing at all.
    before = contents(begun.path / "samples")
    audit(fairface_root, begun.path)
    assert contents(begun.path / "samples") == before


# --- Two machines on one shared folder ---

#: A process of another machine: another name, and where ``shared`` is 0 locks that no other sees,
#: as folders mounted with local locks have.
OTHER_MACHINE = """
import fcntl, os, socket, sys, time
name, shared, *command = sys.argv[1:]
socket.gethostname = lambda: name
os.uname = lambda real=os.uname(): type(real)((real[0], name, *real[2:]))
if shared == "0":
    fcntl.flock = lambda handle, way: None
from pulse_audit.cli import outcome
from pulse_audit import summary
from pulse_audit.harness import run
# A summary without pages, which take longer than the run.
run.html.publish = lambda run, samples: summary.write(run, summary.summarise_run(run, samples))
print("ready", flush=True)
sys.stdin.readline()
sys.exit(outcome(command))
"""


def on_machines(names: str, root: Path, out: Path, shared: bool = True) -> list[tuple[int, str]]:
    """Start `audit` on machines at once; exit codes, and what they printed as errors."""
    command = [
        "run", "--dataset", "fairface", "--data-root", str(root), "--arm", "bicubic",
        "--arm", "nearest", "--scale", "4", "--resolution", "32", "--per-group", "2",
        "--draws", "1", "--batch", "2",
        "--metrics", "psnr", "--attributes", "none", "--device", "cpu", "--threads", "1",
        "--crop", "fairface-0.25", "--quiet", "--out", str(out),
    ]  # fmt: skip
    machines = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER_MACHINE, name, str(int(shared)), *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for name in names.split()
    ]  # fmt: skip
    for machine in machines:
        assert machine.stdout and machine.stdout.readline() == "ready\n"
    for machine in machines:
        assert machine.stdin
        machine.stdin.write("\n")
        machine.stdin.flush()
    ends = [machine.communicate() for machine in machines]
    return [(m.returncode, error) for m, (_, error) in zip(machines, ends, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["locks are shared", "locks are not shared"])
def test_two_machines_lose_nothing(fairface_kept: Path, tmp_path: Path, shared: bool) -> None:
    """One writes and the other is refused; where locks do not reach, both may write the same."""
    out = tmp_path / "out"
    ends = on_machines("node1 node2", fairface_kept, out, shared)
    for code, error in ends:
        assert code in (DONE, BAD_INPUT, INCOMPLETE)
        assert len(error.splitlines()) == (code != DONE), error
        assert "report it" not in error
    if shared:
        assert sorted(code for code, _ in ends) == [DONE, BAD_INPUT]
        assert "another process" in "".join(error for _, error in ends)
    # Whatever happened, the same audit ends with the samples of an undisturbed run.
    pd.testing.assert_frame_equal(
        rows(audit(fairface_kept, out)), rows(audit(fairface_kept, tmp_path / "undisturbed"))
    )
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp"]
