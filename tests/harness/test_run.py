"""A whole audit on small synthetic faces: rows, resume, replacement, odd image files."""

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pulse_audit import store
from pulse_audit.degrade.degradation import DegradationModel
from pulse_audit.harness import plan as plans
from pulse_audit.harness.plan import plan_audit, restore_plan
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.harness.unit import upsample
from pulse_audit.search.memory import PEAK, saved_bytes
from pulse_audit.search.upsampler import PulseUpsampler
from pulse_audit.types import Draw, InputError, Request, Status, Upsampled

pytestmark = pytest.mark.usefixtures("without_reports")

NOT_COMPARED = ["seconds"]
ReadPixels = Callable[[Path], np.ndarray]


def small(root: Path, **changes: object) -> dict[str, object]:
    """Spec of a small audit with an interpolating arm."""
    values: dict[str, object] = {
        "dataset": "fairface", "data_root": root, "arms": ["bicubic"], "scales": [4],
        "resolution": 32, "crop": "fairface-0.25", "per_group": 2, "draws": 2, "threads": 1,
        "device": "cpu", "metrics": ["psnr", "ssim"], "attributes": "none",
    }  # fmt: skip
    return values | changes


def run(root: Path, out: Path, **changes: object) -> store.Run:
    return run_audit(make_spec(small(root, **changes)), out)


def test_one_row_a_draw_and_the_seeds_of_the_contract(
    fairface_root: Path, tiny_generator: str, tmp_path: Path
) -> None:
    finished = run(fairface_root, tmp_path / "out", generators=[tiny_generator], scales=[4, 8])
    rows = finished.samples()
    assert len(rows) == 7 * 2 * 2 * 2 * 2  # groups x faces x draws x scales x arms
    key = ["face_id", "arm", "condition", "scale", "draw"]
    assert not rows.duplicated(key).any()
    for row in rows.itertuples():
        assert row.seed == Draw(row.face_id, row.condition, row.scale, row.draw).seed(0)
    assert set(rows.arm) == {"pulse:tiny", "bicubic"}
    assert rows.groupby("label_race").face_id.nunique().eq(2).all()


def test_the_same_command_without_a_scale_resumes(fairface_root: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    values = small(fairface_root)
    del values["scales"]
    for _ in range(2):
        finished = run_audit(make_spec(values), tmp_path / "out", announce=notes.append)
        assert set(finished.samples().scale) == {4}
    assert notes == []
    run_audit(make_spec(values | {"scales": [8]}), tmp_path / "small", announce=notes.append)
    assert len(notes) == 1 and "4 px" in notes[0]


def test_the_downscale_error_is_that_of_the_stored_image(
    fairface_root: Path, tiny_generator: str, tmp_path: Path, read_pixels: ReadPixels
) -> None:
    """Recomputed from the files by an independent route: block means in numpy."""
    finished = run(
        fairface_root, tmp_path / "out", generators=[tiny_generator], arms=[],
        kernel="area", keep_images="all",
    )  # fmt: skip
    for row in finished.samples().itertuples():
        output = read_pixels(finished.path / row.image) / 255
        lr_name = store.lr_path(row.face_id, row.condition, row.scale, row.draw)
        lr = read_pixels(finished.path / lr_name) / 255
        small_output = output.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
        error = ((small_output - lr) ** 2).mean()
        assert error == pytest.approx(row.downscale_error, rel=0.01, abs=2e-5)  # 8 bits
        assert row.feasible == (row.downscale_error <= 2e-3)
        assert row.status == ("ok" if row.feasible else "infeasible")


def test_arms_share_their_random_numbers(fairface_root: Path, tmp_path: Path) -> None:
    finished = run(
        fairface_root, tmp_path / "out", arms=["bicubic", "nearest"], conditions=["gaussian:25"]
    )
    by_arm = dict(list(finished.samples().groupby("arm")))
    columns = ["face_id", "draw", "seed"]
    assert (by_arm["bicubic"][columns].values == by_arm["nearest"][columns].values).all()


#: Runs each line of its input as a command line in a forked child that has everything imported,
#: so that the instants of a kill fall into the work and not into the imports.
FORKING = """
import os, shlex, sys
import pulse_audit.api, pulse_audit.harness.run, pulse_audit.search.upsampler
import pulse_audit.upsamplers.interpolate, torch._dynamo  # Adam loads it at its first step
from pulse_audit.cli import outcome
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a killed child leaves half a line
        os._exit(outcome(shlex.split(line)))
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_killed_run_resumes_to_the_same_samples(
    fairface_root: Path, tiny_generator: str, attribute_code: str, tmp_path: Path
) -> None:
    """SIGKILL at the first unit and at twenty random instants, resumed by the same command."""
    (tmp_path / "seen.py").write_text(attribute_code)
    out, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    command = (
        f"run --dataset fairface --data-root {fairface_root} --generator {tiny_generator} "
        "--arm pulse --arm bicubic --scale 4 --per-group 2 --draws 2 --batch 2 --threads 1 "
        "--device cpu --crop fairface-0.25 --metrics psnr "
        f"--attributes {tmp_path / 'seen.py'}:Model --json --quiet --out"
    )
    instants = random.Random(0)
    with forking_server() as run_killed:
        assert run_killed(f"{command} {undisturbed}", None) == 0
        # killed when the first unit is finished, then at random instants
        run_killed(f"{command} {out}", lambda: any((out / "samples").glob("*.parquet")))
        finished = [assert_whole(out)]
        for _ in range(20):
            instant = time.monotonic() + instants.uniform(0.1, 1.2)
            run_killed(f"{command} {out}", lambda instant=instant: time.monotonic() > instant)
            finished.append(assert_whole(out))
        assert run_killed(f"{command} {out}", None) == 0
    resumed, expected = store.open_run(out), store.open_run(undisturbed)
    assert 0 < finished[0] < len(expected.manifest.units)
    assert resumed.complete
    pd.testing.assert_frame_equal(
        resumed.samples().drop(columns=NOT_COMPARED),
        expected.samples().drop(columns=NOT_COMPARED),
    )
    (sr, hr), (whole_sr, whole_hr) = resumed.features(), expected.features()
    assert np.array_equal(sr, whole_sr)
    assert hr.keys() == whole_hr.keys()
    assert all(np.array_equal(hr[face], whole_hr[face]) for face in hr)
    assert (out / "summary.json").read_bytes() == (undisturbed / "summary.json").read_bytes()


@contextmanager
def forking_server() -> Iterator[Callable[[str, Callable[[], bool] | None], int]]:
    """Yield a function that runs a command, kills it once a condition holds, returns its status."""
    with subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as server:  # fmt: skip
        assert server.stdin and server.stdout
        read, write = server.stdout, server.stdin

        def run_killed(line: str, is_time: Callable[[], bool] | None) -> int:
            write.write(line + "\n")
            write.flush()
            child = int(read.readline())
            if is_time is not None:
                while not is_time():
                    time.sleep(0.002)
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            return int(read.readline())

        yield run_killed


def assert_whole(out: Path) -> int:
    """Whatever has its final name is whole: manifest, shards, images; returns finished units."""
    shards = sorted((out / "samples").glob("*.parquet"))
    if (out / "manifest.json").exists():
        stopped = store.open_run(out)
        assert all(stopped.is_finished(shard.stem) for shard in shards)
    for image in out.glob("images/**/[!.]*.png"):
        with Image.open(image) as picture:
            picture.load()
    return len(shards)


def test_a_damaged_shard_is_refused_by_readers_and_made_anew_by_run(
    fairface_root: Path, tmp_path: Path
) -> None:
    finished = run(fairface_root, tmp_path / "out")
    before = finished.samples().drop(columns=NOT_COMPARED)
    shard = next((tmp_path / "out" / "samples").glob("*.parquet"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(InputError, match="checksum"):
        finished.samples()
    again = run(fairface_root, tmp_path / "out").samples().drop(columns=NOT_COMPARED)
    pd.testing.assert_frame_equal(again, before)


def test_kept_images_are_checked_and_made_anew_by_run(fairface_root: Path, tmp_path: Path) -> None:
    finished = run(fairface_root, tmp_path / "out", per_group=1, draws=1)
    before = finished.samples().drop(columns=NOT_COMPARED)
    images = [
        tmp_path / "out" / before.image[0],
        next((tmp_path / "out" / "images" / "original").rglob("*.png")),
        next((tmp_path / "out" / "images" / "lr").rglob("*.png")),
    ]
    # One after another: every kind has to be missed by itself.
    for image, damage in itertools.product(images, ("cut", "gone")):
        data = image.read_bytes()
        image.unlink()
        if damage == "cut":
            image.write_bytes(data[:-40])
        again = run(fairface_root, tmp_path / "out", per_group=1, draws=1)
        assert image.read_bytes() == data, (image.name, damage)
        pd.testing.assert_frame_equal(again.samples().drop(columns=NOT_COMPARED), before)


def test_damaged_features_of_the_originals_are_made_anew_by_run(
    fairface_root: Path, tmp_path: Path
) -> None:
    changes = {"per_group": 1, "draws": 1, "attributes": None}
    run(fairface_root, tmp_path / "out", **changes)
    path = tmp_path / "out" / "features" / "originals.npz"
    before = np.load(path)["features"]
    path.write_bytes(path.read_bytes()[:-30])
    run(fairface_root, tmp_path / "out", **changes)
    assert np.array_equal(np.load(path)["features"], before)


def test_a_run_whose_memory_ran_out_says_where(
    fairface_root: Path, tiny_generator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"generators": [tiny_generator], "arms": ["pulse"], "per_group": 1, "batch": 4}
    whole = run(fairface_root, tmp_path / "whole", **changes)
    search = PulseUpsampler._search

    def limited(self, requests, degradation):  # type: ignore[no-untyped-def]
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return search(self, requests, degradation)

    monkeypatch.setattr(PulseUpsampler, "_search", limited)
    found = run(fairface_root, tmp_path / "out", **changes)
    # Found in the first unit, and kept from there on: one note.
    said = "pulse:tiny: memory ran out in work unit u00000; .* at most 2 images at once"
    (note,) = [note for note in found.manifest.notes if "memory" in note]
    assert re.match(said, note) and found.complete
    for name in ("downscale_error", "psnr"):
        a, b = (r.samples()[name].to_numpy() for r in (found, whole))
        assert a == pytest.approx(b, rel=1e-3)


def test_a_plan_searches_as_many_images_at_once_as_a_gpu_holds(
    fairface_root: Path, tiny_generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = make_spec(small(fairface_root, generators=[tiny_generator], batch=8))
    (arm,) = (a for a in plan_audit(spec).arms.values() if isinstance(a, PulseUpsampler))
    one = PEAK * saved_bytes(arm.generator, torch.device("cpu"))
    for images, at_once in ((100, None), (8, None), (3, 3), (0, 1)):
        monkeypatch.setattr(plans, "free_memory", lambda device, n=images: n * one + 5)
        plan = plan_audit(spec)
        assert getattr(plan.arms["pulse:tiny"], "at_once", 0) == at_once
        said = [note for note in plan.manifest.notes if "at once, as the memory of" in note]
        assert len(said) == (at_once is not None)
        # A worker comes to the same number.
        worker = restore_plan(spec, plan.manifest)
        assert getattr(worker.arms["pulse:tiny"], "at_once", 0) == at_once


def test_two_writers_are_one_too_many(fairface_root: Path, tmp_path: Path) -> None:
    with (
        store.locked(tmp_path / "out"),
        pytest.raises(InputError, match="another process"),
    ):
        run(fairface_root, tmp_path / "out")


def test_unreadable_photos_are_replaced_listed_and_counted(
    fairface_root: Path, tmp_path: Path
) -> None:
    whole = run(fairface_root, tmp_path / "whole")
    victim, other = [face.id for face in whole.manifest.faces][:2]
    (fairface_root / victim).write_bytes((fairface_root / victim).read_bytes()[:300])
    (fairface_root / other).write_bytes(b"not an image")
    finished = run(fairface_root, tmp_path / "out")
    skipped = {entry.id: entry for entry in finished.manifest.skipped}
    assert set(skipped) == {victim, other}
    assert all(entry.reason for entry in skipped.values())
    counts = finished.samples().groupby("label_race").face_id.nunique()
    assert counts.eq(2).all() and len(counts) == 7
    assert not {victim, other} & set(finished.samples().face_id)


def test_a_photo_that_is_there_again_is_audited_once_or_not_at_all(
    fairface_root: Path, tmp_path: Path
) -> None:
    whole = run(fairface_root, tmp_path / "whole")
    first, second = [f for f in whole.manifest.faces if f.labels["race"] == "Black"]
    # One photo again under another race, and one again under the same.
    rows = (fairface_root / "fairface_label_val.csv").read_text()
    for name, of, race in (("x", first, "White"), ("y", second, "Black")):
        (fairface_root / f"val/{name}.jpg").write_bytes((fairface_root / of.id).read_bytes())
        rows += f"val/{name}.jpg,20-29,Female,{race},True\n"
    (fairface_root / "fairface_label_val.csv").write_text(rows)
    finished = run(fairface_root, tmp_path / "out")
    kinds = {entry.id: entry.kind for entry in finished.manifest.skipped}
    kept = {face.id for face in finished.manifest.faces}
    assert kinds[first.id] == kinds["val/x.jpg"] == "contradictory"
    assert kinds["val/y.jpg"] == "duplicate" and second.id in kept
    assert not kept & set(kinds)
    assert any("faces left out as duplicate: 1 " in note for note in finished.manifest.notes)


def test_a_group_that_runs_out_of_readable_photos_is_named(
    fairface_root: Path, tmp_path: Path
) -> None:
    for number in (2, 9, 16):  # Black: photos 2, 9, 16, 23
        (fairface_root / f"val/{number}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="Black"):
        run(fairface_root, tmp_path / "out")


def save_as(path: Path, mode: str) -> None:
    """Write the same grey ramp in an image mode."""
    ramp = np.tile(np.linspace(40, 215, 48), (48, 1))
    if mode == "16-bit":
        Image.fromarray((ramp * 257).astype(np.uint16)).save(path, format="PNG")
    elif mode == "CMYK":
        Image.fromarray(ramp.astype(np.uint8)).convert("CMYK").save(path, format="JPEG", quality=99)
    else:
        Image.fromarray(ramp.astype(np.uint8)).convert(mode).save(path, format="PNG")


def test_odd_image_modes_are_the_same_picture(
    fairface_root: Path, tmp_path: Path, read_pixels: ReadPixels
) -> None:
    photos = sorted((fairface_root / "val").iterdir())
    for number, photo in enumerate(photos):
        save_as(photo, ("L", "RGBA", "16-bit", "CMYK", "RGB", "LA", "P")[number % 7])
        # Bytes after the picture, so that no photo is another's copy.
        photo.write_bytes(photo.read_bytes() + photo.name.encode())
    finished = run(fairface_root, tmp_path / "out", keep_images="all")
    pictures = [
        read_pixels(finished.path / store.original_path(face.id)).astype(float)
        for face in finished.manifest.faces
    ]
    for picture in pictures[1:]:
        assert np.abs(picture - pictures[0]).max() <= 3


def test_exif_rotation_is_applied(
    fairface_root: Path, tmp_path: Path, read_pixels: ReadPixels
) -> None:
    upright = np.zeros((48, 48, 3), np.uint8)
    upright[:24] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to view
    for photo in (fairface_root / "val").iterdir():
        Image.fromarray(np.rot90(upright).copy()).save(photo, quality=99, exif=exif)
        photo.write_bytes(photo.read_bytes() + photo.name.encode())
    finished = run(fairface_root, tmp_path / "out", keep_images="all")
    face_id = finished.manifest.faces[0].id
    seen = read_pixels(finished.path / store.original_path(face_id))
    assert seen[:12].mean() > 150 and seen[-12:].mean() < 50


def test_what_was_not_measured_says_why(fairface_root: Path, tmp_path: Path) -> None:
    finished = run(fairface_root, tmp_path / "out")
    rows, reasons = finished.samples(), finished.manifest.unavailable
    empty = {column for column in rows if rows[column].isna().all()}
    assert empty == set(reasons)
    assert all(reasons.values())


def test_an_arm_that_breaks_the_contract_is_an_error_in_the_rows(
    fairface_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(
        "import torch\nfrom pulse_audit.types import Status, Upsampled\n"
        "class Broken:\n"
        "    name, promises_feasibility, resolution = 'broken', False, None\n"
        "    def __call__(self, requests, degradation):\n"
        "        return [Upsampled(torch.full((3, 32, 32), float('nan')), 0.0, None, 0, 0.0,"
        " Status.OK) for _ in requests]\n"
        "    def describe(self):\n        return {'kind': 'broken'}\n"
    )
    finished = run(fairface_root, tmp_path / "out", arms=[f"{tmp_path / 'broken.py'}:Broken"])
    rows = finished.samples()
    assert set(rows.status) == {"error"}
    assert set(rows.reason) == {"output is not finite"}
    assert not rows.feasible.any()


@pytest.mark.parametrize("error", [float("nan"), float("inf")])
def test_an_arm_that_says_its_error_is_no_number_says_nothing(error: float) -> None:
    class Confused:
        name, promises_feasibility, resolution = "confused", False, None

        def __call__(self, requests: object, degradation: object) -> list[Upsampled]:
            image = torch.full((3, 8, 8), 0.5)
            return [Upsampled(image, error, None, 0, 0.0, Status.OK)]

        def describe(self) -> dict[str, object]:
            return {"kind": "confused"}

    request = Request(torch.zeros(3, 2, 2), "a.jpg", {}, 0)
    (result,) = upsample(Confused(), [request], DegradationModel("clean", 4))
    assert result.downscale_error is None and result.status == Status.OK
