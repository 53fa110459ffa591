"""Work shared out among processes: the samples of one process, whatever happens to the workers."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pulse_audit import store
from pulse_audit.harness import run as runs
from pulse_audit.harness import workers as pools
from pulse_audit.harness.executors import OWN_NODE, Workers
from pulse_audit.harness.merge import merge_runs
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.harness.workers import Answer, Failure, Job, Reply, Worker, carry_out
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.types import InputError, UnfinishedRun

pytestmark = pytest.mark.usefixtures("without_reports")


#: An arm that ends its worker, or fails, at the faces that files in a folder name.
TRAPS = """
import os
from pathlib import Path
import torch
from pulse_audit.types import Status, Upsampled

FOLDER = Path(__file__).parent / "traps"


class Trap:
    name = "trap"
    crop = "as-is"
    resolution = 32
    caveats = ()

    def __call__(self, requests, degradation):
        for request in requests:
            face = request.face_id.replace("/", "_")
            if (FOLDER / f"{face}.once").exists():
                (FOLDER / f"{face}.once").unlink()
                os._exit(9)
            if (FOLDER / f"{face}.memory").exists():
                (FOLDER / f"{face}.memory").unlink()
                raise torch.OutOfMemoryError("CUDA out of memory")
            if (FOLDER / f"{face}.always").exists():
                raise RuntimeError("always")
        grey = [torch.full((3, 32, 32), float(r.lr.mean())) for r in requests]
        return [Upsampled(g, 0.0, None, 0, 0.0, Status.OK, None) for g in grey]

    def describe(self):
        return {"kind": "custom"}


def build():
    return Trap()
"""


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, fairface_kept: Path, attribute_code: str
) -> tuple[dict[str, object], store.Run]:
    """The audit, and its run in this process."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "seen.py").write_text(attribute_code)
    (folder / "trap.py").write_text(TRAPS)
    (folder / "traps").mkdir()
    values: dict[str, object] = {
        "dataset": "fairface", "data_root": fairface_kept,
        "arms": ["bicubic", f"{folder / 'trap.py'}:build"], "scales": [4], "resolution": 32,
        "crop": "fairface-0.25", "per_group": 1, "draws": 1, "batch": 2, "threads": 1,
        "device": "cpu", "metrics": ["psnr", "niqe_small"], "conditions": ["gaussian:25"],
        "attributes": f"{folder / 'seen.py'}:Model", "second_attributes": "none",
    }  # fmt: skip
    return values, run_audit(make_spec(values), folder / "whole")


def trap(values: Mapping[str, object], face: str, kind: str) -> Path:
    arms: Any = values["arms"]
    path = Path(arms[1].partition(":")[0]).parent / "traps" / f"{face.replace('/', '_')}.{kind}"
    path.touch()
    return path


def assert_same(run: store.Run, whole: store.Run) -> None:
    first, second = (r.samples().drop(columns="seconds") for r in (run, whole))
    pd.testing.assert_frame_equal(first, second, check_exact=True)
    features, expected = run.features(), whole.features()
    assert features is not None and expected is not None
    np.testing.assert_array_equal(features[0], expected[0])
    assert list(features[1]) == list(expected[1])
    for face_id, vector in expected[1].items():
        np.testing.assert_array_equal(features[1][face_id], vector)
    images = [
        {p.relative_to(r.path): p.read_bytes() for p in (r.path / "images").rglob("*.png")}
        for r in (run, whole)
    ]
    assert images[0] == images[1] and images[0]


@pytest.mark.slow
def test_two_processes_give_the_samples_of_one_and_a_lost_one_is_replaced(
    world: tuple[dict[str, object], store.Run], tmp_path: Path
) -> None:
    values, whole = world
    lost = trap(values, whole.manifest.faces[2].id, "once")
    run = run_audit(make_spec(values), tmp_path / "out", workers=Workers(2))
    assert not lost.exists() and run.complete
    assert_same(run, whole)


@pytest.mark.slow
def test_two_actors_of_ray_give_the_samples_of_one_process_and_a_lost_one_is_replaced(
    world: tuple[dict[str, object], store.Run], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    values, whole = world
    lost = trap(values, whole.manifest.faces[2].id, "once")
    try:
        run = run_audit(make_spec(values), tmp_path / "out", workers=Workers(2, ray=OWN_NODE))
    except InputError as error:
        lost.unlink()
        if "no node started" not in str(error):
            raise
        pytest.skip(f"no node of Ray starts here in time: {str(error)[-300:]}")
    assert not lost.exists() and run.complete
    assert_same(run, whole)


def test_four_shards_give_the_samples_of_one_process(
    world: tuple[dict[str, object], store.Run], tmp_path: Path
) -> None:
    values, whole = world
    shards = [tmp_path / f"shard-{index}" for index in range(1, 5)]
    for index, shard in enumerate(shards, 1):
        run_audit(make_spec(values), shard, shard=(index, 4))
    merged = merge_runs(shards, tmp_path / "joined")
    assert merged.problem is None
    assert_same(merged.run, whole)


def test_a_worker_with_other_versions_cannot_work(
    world: tuple[dict[str, object], store.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine: its samples would differ, and nothing would say so."""
    values, whole = world
    monkeypatch.setattr(pools, "versions", lambda: whole.manifest.versions | {"torch": "2.0.0"})
    job = Job(make_spec(values), whole.manifest.as_dict() | {"units": []}, {})
    reply = Worker(job).answer(whole.manifest.units[0].as_dict())
    there = whole.manifest.versions["torch"]
    said = f"torch 2.0.0 is installed there, {there} where the run is"
    assert reply == Failure(said, refused=True)


class Here:
    """Workers in this process, one after the other."""

    def __init__(self, job: Job, number: int) -> None:
        self._workers = {place: Worker(job) for place in range(number)}
        self._given: dict[int, Mapping[str, Any]] = {}

    def send(self, place: int, unit: Mapping[str, Any]) -> None:
        self._given[place] = unit

    def next(self) -> tuple[int, Reply]:
        place = max(self._given)
        return place, self._workers[place].answer(self._given.pop(place))

    def close(self) -> None:
        pass


def test_a_unit_that_always_fails_is_reported_and_the_others_go_on(
    world: tuple[dict[str, object], store.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another runs out of memory once: it is tried again whole, with the same samples."""
    monkeypatch.setattr(runs, "make_pool", lambda workers, job: Here(job, workers.number))
    values, whole = world
    bad = next(u for u in whole.manifest.units if u.arm != "bicubic" and len(u.draws) == 1)
    always = trap(values, bad.draws[0][0], "always")
    memory = trap(values, whole.manifest.faces[0].id, "memory")
    try:
        with pytest.raises(UnfinishedRun, match=rf"1 of 8 work units failed \({bad.id}; .*always"):
            run_audit(make_spec(values), tmp_path / "out", workers=Workers(3))
    finally:
        always.unlink()
    assert not memory.exists()
    assert store.open_run(tmp_path / "out").missing_units == [bad.id]
    # The same command, with or without workers, makes the rest.
    assert_same(run_audit(make_spec(values), tmp_path / "out"), whole)


# --- Scheduling, without processes ---


class Scripted:
    """A pool whose replies follow a rule; it checks that no worker has two units."""

    def __init__(self, reply: Any) -> None:
        self.reply, self.given, self.most = reply, dict[int, str](), 0
        self.tried: list[str] = []

    def send(self, place: int, unit: Mapping[str, Any]) -> None:
        assert place not in self.given
        self.given[place] = unit["id"]
        self.most = max(self.most, len(self.given))

    def next(self) -> tuple[int, Reply]:
        place = max(self.given)
        unit = self.given.pop(place)
        self.tried.append(unit)
        return place, self.reply(unit, self.tried.count(unit))

    def close(self) -> None:
        pass


UNITS = [WorkUnit(id=f"u{number}", arm="a", draws=[("f", number)]) for number in range(20)]
DONE: Any = Answer(result=None, images={}, originals={})  # type: ignore[arg-type]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(pools.time, "sleep", waited.append)
    return waited


def scheduled(pool: Scripted, number: int = 3) -> tuple[list[str], dict[str, str]]:
    failed: dict[str, str] = {}
    return [unit.id for unit, _ in carry_out(UNITS, pool, number, failed)], failed


def test_every_unit_is_answered_once_and_never_more_are_in_flight_than_workers(
    pauses: list[float],
) -> None:
    pool = Scripted(lambda unit, attempt: DONE)
    done, failed = scheduled(pool)
    assert sorted(done) == sorted(u.id for u in UNITS) and not failed
    assert pool.most == 3 and not pauses


def test_a_failure_is_tried_again_later_and_three_times_at_most(pauses: list[float]) -> None:
    def reply(unit: str, attempt: int) -> Reply:
        return Failure("gone") if unit == "u4" or (unit == "u7" and attempt < 3) else DONE

    pool = Scripted(reply)
    done, failed = scheduled(pool)
    assert failed == {"u4": "gone"}
    assert sorted(done) == sorted(u.id for u in UNITS if u.id != "u4")
    assert pool.tried.count("u4") == pool.tried.count("u7") == pools.ATTEMPTS
    first = pool.tried.index("u4")
    assert pool.tried[first + 1] != "u4"  # the others come first


def test_where_nothing_works_there_are_pauses_and_an_end(pauses: list[float]) -> None:
    """A shared folder that is gone: it may come back, but not for ever."""
    done, failed = scheduled(Scripted(lambda unit, attempt: Failure("no such folder")))
    assert not done and failed == dict.fromkeys((u.id for u in UNITS), "no such folder")
    assert pauses == sorted(pauses) and pauses[-1] == pools.LONGEST_PAUSE
    assert len(pauses) == pools.IN_A_ROW
    # One that returns within that time costs nothing but the time.
    left = iter([Failure("no such folder")] * 9)
    done, failed = scheduled(Scripted(lambda unit, attempt: next(left, DONE)))
    assert sorted(done) == sorted(u.id for u in UNITS) and not failed


def test_a_worker_that_cannot_work_ends_the_run_at_once() -> None:
    refuse = Scripted(lambda unit, attempt: Failure("--data-root: no such folder", refused=True))
    with pytest.raises(InputError, match="a worker cannot work: --data-root"):
        scheduled(refuse)


def test_processes_end_with_the_pool() -> None:
    pool = pools.LocalPool(pools.Job(make_spec({"dataset": "x"}), {}, {}), 1, [None])
    pool.send(0, {})
    (process, _) = pool._processes[0]
    pool.close()
    assert not process.is_alive() and process.exitcode == -signal.SIGTERM


def test_gpus_are_given_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    job = pools.Job(make_spec({"dataset": "x"}), {"execution": {"device": "cuda"}}, {})
    monkeypatch.setitem(os.environ, "CUDA_VISIBLE_DEVICES", "2,5")
    for gpus, expected in ((1, "2525"), (0.5, "2255"), (0.25, "2222")):
        pool = pools.make_pool(Workers(4, gpus), job)
        assert isinstance(pool, pools.LocalPool)
        assert pool.gpus == list(expected)
