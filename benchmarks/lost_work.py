"""Disturbs runs with workers, and holds their samples against those of an undisturbed run.

``python -m benchmarks.lost_work`` writes ``benchmarks/results/lost_work.md``. ``--ray-address
HOST:PORT`` takes a Ray cluster that is running, where a node of its own does not start in time.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from benchmarks.foreign_files import code_of_tests
from pulse_audit import store
from pulse_audit.harness import run as runs
from pulse_audit.harness import workers as pools
from pulse_audit.harness.executors import OWN_NODE, Workers
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.types import InputError, UnfinishedRun

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class World:
    """A small audit whose arm is disturbed by files in a folder, and its undisturbed samples."""

    folder: Path
    values: dict[str, Any]
    whole: pd.DataFrame
    faces: list[str]
    address: str

    def trap(self, number: int, kind: str) -> Path:
        """Make the arm end its worker, or fail, at one of the faces."""
        path = self.folder / "traps" / f"{self.faces[number].replace('/', '_')}.{kind}"
        path.touch()
        return path

    def run(self, workers: Workers | None = None, name: str = "out") -> store.Run:
        return run_audit(make_spec(self.values), self.folder / name, workers=workers)


def make_world(folder: Path, address: str) -> World:
    tests, traps = code_of_tests("conftest.py"), code_of_tests("harness/test_workers.py")
    from PIL import Image

    data, rows = folder / "data", ["file,age,gender,race,service_test"]
    (data / "val").mkdir(parents=True)
    for number in range(28):
        Image.fromarray(tests.paint_face(number, 32)).save(data / f"val/{number}.png")
        rows.append(f"val/{number}.png,20-29,Male,{tests.RACES[number % 7]},True")
    (data / "fairface_label_val.csv").write_text("\n".join(rows) + "\n")
    (folder / "trap.py").write_text(traps.TRAPS)
    (folder / "traps").mkdir()
    values = {
        "dataset": "fairface", "data_root": data, "arms": [f"{folder / 'trap.py'}:build"],
        "scales": [4], "resolution": 32, "crop": "fairface-0.25", "per_group": 2, "draws": 1,
        "batch": 2, "threads": 1, "device": "cpu", "metrics": ["psnr"], "attributes": "none",
    }  # fmt: skip
    run = run_audit(make_spec(values), folder / "whole")
    faces = [face.id for face in run.manifest.faces]
    return World(folder, values, rows_of(run), faces, address)


def rows_of(run: store.Run) -> pd.DataFrame:
    return run.samples().drop(columns="seconds")


# --- What happens to a run; each returns it and what was seen ---


def a_process_is_lost(world: World) -> tuple[store.Run, str]:
    trap = world.trap(2, "once")
    run = world.run(Workers(2))
    return run, "the unit was made again" if not trap.exists() else "NO WORKER WAS LOST"


def an_actor_is_lost(world: World) -> tuple[store.Run, str]:
    trap = world.trap(2, "once")
    try:
        run = world.run(Workers(2, ray=world.address))
    finally:
        lost = not trap.exists()
        trap.unlink(missing_ok=True)
    return run, "the unit was made again" if lost else "NO WORKER WAS LOST"


def memory_runs_out(world: World) -> tuple[store.Run, str]:
    trap = world.trap(5, "memory")
    run = world.run(Workers(2))
    said = "the arm raised torch.OutOfMemoryError once; the unit was made again, as large"
    return run, said if not trap.exists() else "NOTHING WAS RAISED"


def a_unit_always_fails(world: World) -> tuple[store.Run, str]:
    trap = world.trap(3, "always")
    try:
        world.run(Workers(2))
        said = "NOTHING WAS SAID"
    except UnfinishedRun:
        missing = store.open_run(world.folder / "out").missing_units
        said = f"{len(missing)} unit is named after three attempts, the others are made"
    trap.unlink()
    return world.run(), f"{said}; the same command made it"


def a_folder_goes_and_returns(world: World) -> tuple[store.Run, str]:
    """The photos are away for 15 s once the first unit is done, as on a network that is cut."""
    data, away = world.folder / "data", world.folder / "away"
    failures = list[pools.Failure]()

    def cut(done: int, total: int, restored: int) -> None:
        if done and not away.exists() and not failures:
            data.rename(away)
            threading.Timer(15, lambda: away.rename(data)).start()

    receive = pools.LocalPool.next

    def counted(pool: pools.LocalPool) -> tuple[int, pools.Reply]:
        place, reply = receive(pool)
        if isinstance(reply, pools.Failure):
            failures.append(reply)
        return place, reply

    with mock.patch.object(pools.LocalPool, "next", counted):
        try:
            run_audit(make_spec(world.values), world.folder / "out", cut, workers=Workers(2))
            ended = "the run went on"
        except (InputError, UnfinishedRun):
            ended = "the run ended, and the same command made the rest"
    while not data.exists():
        time.sleep(1)
    return world.run(), f"{len(failures)} attempts failed; {ended}"


def two_machines_write_one_run(world: World) -> tuple[store.Run, str]:
    """A second process starts the same command while the first holds the lock."""
    out, refused = world.folder / "out", list[str]()

    def again(done: int, total: int, restored: int) -> None:
        if done >= total // 2 and not refused:
            code = (
                "import sys; from pathlib import Path; from pulse_audit import store\n"
                "with store.locked(Path(sys.argv[1])): pass"
            )
            command = [sys.executable, "-c", code, str(out)]
            ended = subprocess.run(command, capture_output=True, text=True)
            refused.append(ended.stderr.strip().splitlines()[-1][-50:])

    run = run_audit(make_spec(world.values), out, again)
    return run, f"the second is refused ({refused[0] if refused else 'NOT TRIED'})"


def the_clock_goes_back(world: World) -> tuple[store.Run, str]:
    """Interrupted, the clock an hour back, resumed with workers."""

    def stop(done: int, total: int, restored: int) -> None:
        if done >= total // 2:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        run_audit(make_spec(world.values), world.folder / "out", stop)
    earlier = datetime.now(UTC) - timedelta(hours=1)
    with (
        mock.patch.object(runs, "_now", lambda: earlier.isoformat(timespec="seconds")),
        mock.patch.object(time, "time", earlier.timestamp),
    ):
        run = world.run(Workers(2))
    return run, f"it is resumed; {run.manifest.seconds:.0f} s of work recorded"


CASES: dict[str, Callable[[World], tuple[store.Run, str]]] = {
    "a process is killed in its unit": a_process_is_lost,
    "an actor of Ray is killed in its unit": an_actor_is_lost,
    "memory of the device runs out (simulated)": memory_runs_out,
    "a unit fails whenever it is tried": a_unit_always_fails,
    "the photos' folder goes and returns": a_folder_goes_and_returns,
    "two writers of one run directory": two_machines_write_one_run,
    "the clock goes back by an hour": the_clock_goes_back,
}


def table(world: World, cases: Sequence[str]) -> str:
    """Run the cases; one row each."""
    lines = [
        "# Lost work",
        "",
        f"`python -m benchmarks.lost_work`, {time.strftime('%Y-%m-%d')}, Python "
        f"{sys.version.split()[0]}, two workers, {len(world.whole)} draws. Each run is disturbed, "
        "and its samples are held against those of an undisturbed run in one process, exactly. "
        "Lost, doubled: draws of the plan that are missing or there twice. Others: rows that "
        "differ in any column but `seconds`.",
        "",
        "| what happens | what the run does | lost | doubled | others |",
        "|---|---|---|---|---|",
    ]
    keys = ["face_id", "arm", "condition", "scale", "draw"]
    for name in cases:
        disturb = CASES[name]
        shutil.rmtree(world.folder / "out", ignore_errors=True)
        try:
            run, said = disturb(world)
        except InputError as error:
            lines.append(f"| {name} | unavailable, because {str(error)[:160]} | | | |")
            continue
        rows = rows_of(run)
        doubled = int(rows.duplicated(keys).sum())
        joined = world.whole.merge(rows.drop_duplicates(keys), on=keys, how="left", indicator=True)
        lost = int((joined["_merge"] == "left_only").sum())
        ordered = [t.sort_values(keys).reset_index(drop=True) for t in (rows, world.whole)]
        others = "?"
        if not lost and not doubled:
            same = (ordered[0] == ordered[1]) | (ordered[0].isna() & ordered[1].isna())
            others = str(int((~same.all(axis=1)).sum()))
        lines.append(f"| {name} | {said} | {lost} | {doubled} | {others} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lost_work", description=__doc__)
    parser.add_argument("--ray-address", default=OWN_NODE)
    parser.add_argument("--case", choices=list(CASES), help="only this one; writes no table")
    arguments = parser.parse_args()
    runs.html.publish = lambda *_: None  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(prefix="lost-work-") as place:
        cases = [arguments.case] if arguments.case else list(CASES)
        text = table(make_world(Path(place), arguments.ray_address), cases)
    if arguments.case is None:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "lost_work.md").write_text(text)


if __name__ == "__main__":
    main()
