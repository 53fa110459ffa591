"""Work units carried out by several processes, of this machine or of a cluster.

A worker makes the objects of the plan anew and answers every unit with its result; the one process
that holds the run's lock writes all of them. A worker has one unit at a time: so many are in
flight, and whose unit it was is known when a worker dies.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeAlias

import torch

from pulse_audit import store
from pulse_audit.harness.arms import prepare_arms
from pulse_audit.harness.executors import Workers
from pulse_audit.harness.measure import read_references
from pulse_audit.harness.plan import restore_plan, versions
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.harness.unit import UnitResult, UnitRunner
from pulse_audit.search.memory import keep_freed_memory
from pulse_audit.store.manifest import WorkUnit
from pulse_audit.types import InputError

#: How often a unit is tried before it is left out, and after how many failures of all workers
#: without a success between them nothing more is tried.
ATTEMPTS, IN_A_ROW = 3, 8
#: Longest pause after failures without a success, in seconds: a folder may come back.
LONGEST_PAUSE = 60


@dataclass(frozen=True)
class Job:
    """What a worker needs to know of a run, as plain values."""

    spec: AuditSpec
    manifest: Mapping[str, Any]
    references: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """The result of a unit, with the images that it keeps and features of its originals."""

    result: UnitResult
    images: Mapping[str, bytes]
    originals: Mapping[str, store.Features]


@dataclass(frozen=True)
class Failure:
    """Why there is no result; ``refused`` where the worker cannot work at all."""

    reason: str
    refused: bool = False


Reply: TypeAlias = Answer | Failure


class Memory:
    """Images of a unit, until they are sent; those that units share are sent once."""

    def __init__(self) -> None:
        self._known, self._images = set[str](), dict[str, bytes]()

    def has_image(self, relative: str) -> bool:
        """Whether an image was kept before."""
        return relative in self._known

    def write_image(self, relative: str, png: bytes) -> None:
        """Keep an image."""
        self._known.add(relative)
        self._images[relative] = png

    def forget(self) -> None:
        """Drop what was kept since then: the unit failed, and may be tried elsewhere."""
        self._known -= self._images.keys()
        self._images = {}

    def take(self) -> dict[str, bytes]:
        """Return the images kept since the last call."""
        images, self._images = self._images, {}
        return images


class Worker:
    """Carries out units; the models are loaded before the first one."""

    def __init__(self, job: Job) -> None:
        self._job, self._images = job, Memory()
        self._runner: UnitRunner | None = None

    def answer(self, unit: Mapping[str, Any]) -> Reply:
        """Carry out a unit; whatever goes wrong becomes a failure with one line."""
        try:
            if self._runner is None:
                self._runner = self._load()
        except InputError as error:
            return Failure(str(error), refused=True)
        work = WorkUnit.model_validate(unit)
        try:
            result = self._runner.run(work)
        except Exception as error:  # of a model, of the data's folder, of the device's memory
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            self._images.forget()
            return Failure(" ".join(f"{type(error).__name__}: {error}".split())[:300])
        known = self._runner.original_features
        faces = {face_id for face_id, _ in work.draws}
        originals = {face_id: known[face_id] for face_id in faces if face_id in known}
        return Answer(result, self._images.take(), originals)

    def _load(self) -> UnitRunner:
        """Load what the plan names, and start from the references of the run."""
        manifest = store.check_manifest(dict(self._job.manifest))
        # On another machine other versions may be installed, whose samples would differ.
        for name, here in versions().items():
            if here != (there := manifest.versions.get(name)):
                raise InputError(f"{name} {here} is installed there, {there} where the run is")
        plan = restore_plan(self._job.spec, manifest)
        prepare_arms(plan.arms, manifest, lambda *_: None)
        keep_freed_memory()
        return UnitRunner(plan, None, read_references(self._job.references), self._images)


class Pool(Protocol):
    """Workers by place; each has one unit at a time."""

    def send(self, place: int, unit: Mapping[str, Any]) -> None:
        """Give a unit to a worker that has none."""

    def next(self) -> tuple[int, Reply]:
        """Wait for a worker: its reply, or the failure that it is gone; another takes its place."""

    def close(self) -> None:
        """End all workers."""


def carry_out(
    units: Sequence[WorkUnit], pool: Pool, number: int, failed: dict[str, str]
) -> Iterator[tuple[WorkUnit, Answer]]:
    """Yield units with their answers, as they come.

    A unit that fails, or whose worker dies, is tried again after the others; after `ATTEMPTS` it is
    in ``failed`` with the reason. Failures without a success between them are followed by pauses,
    and, where they do not end, by an end: then the units that were not tried are in ``failed`` too.

    Raises
    ------
    InputError
        If a worker cannot work: data, weights or a device are missing there.
    """
    waiting, places = deque(units), dict[int, WorkUnit]()
    attempts, in_a_row, reason = Counter[str](), 0, ""
    while waiting or places:
        for place in range(number):
            if place not in places and waiting:
                places[place] = waiting.popleft()
                pool.send(place, places[place].as_dict())
        place, reply = pool.next()
        unit = places.pop(place)
        if isinstance(reply, Answer):
            in_a_row = 0
            yield unit, reply
            continue
        if reply.refused:
            raise InputError(f"a worker cannot work: {reply.reason}")
        reason, in_a_row = reply.reason, in_a_row + 1
        attempts[unit.id] += 1
        if attempts[unit.id] < ATTEMPTS:
            waiting.append(unit)
        else:
            failed[unit.id] = reason
        if in_a_row > number + IN_A_ROW:
            failed |= {other.id: reason for other in (*waiting, *places.values())}
            return
        if in_a_row > number and waiting:
            time.sleep(min(LONGEST_PAUSE, 2 ** (in_a_row - number)))


# --- Processes ---


def serve(connection: Connection, job: Job, gpu: str | None) -> None:
    """Answer units until the other end is closed: what a process of `LocalPool` does."""
    # Ctrl-C is for the process that writes; it ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    worker = Worker(job)
    with suppress(EOFError, BrokenPipeError):
        while True:
            connection.send(worker.answer(connection.recv()))


@dataclass
class LocalPool:
    """Processes of this machine, started anew (no fork: torch has threads)."""

    job: Job
    number: int
    gpus: Sequence[str | None]
    _processes: dict[int, tuple[BaseProcess, Connection]] = field(default_factory=dict)

    def send(self, place: int, unit: Mapping[str, Any]) -> None:
        """Give a unit to a process, which is started where there is none."""
        if place not in self._processes:
            context = multiprocessing.get_context("spawn")
            ours, theirs = context.Pipe()
            arguments = (theirs, self.job, self.gpus[place])
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._processes[place] = process, ours
        with suppress(BrokenPipeError):  # a process that died is found by `next`
            self._processes[place][1].send(unit)

    def next(self) -> tuple[int, Reply]:
        """Wait for a process."""
        places = {connection: place for place, (_, connection) in self._processes.items()}
        ready = wait(list(places))[0]
        assert isinstance(ready, Connection)
        place = places[ready]
        try:
            reply: Reply = ready.recv()
        except (EOFError, OSError):
            process, _ = self._processes.pop(place)
            process.join()
            ready.close()
            return place, Failure(f"its worker ended (exit code {process.exitcode})")
        return place, reply

    def close(self) -> None:
        """End all processes."""
        for process, connection in self._processes.values():
            process.terminate()
            process.join()
            connection.close()
        self._processes.clear()


def make_pool(workers: Workers, job: Job) -> Pool:
    """Make the workers of a run."""
    if workers.ray is not None:
        from pulse_audit.harness.ray_workers import RayPool

        return RayPool(job, workers)
    execution = job.manifest["execution"]
    on_gpus = execution["device"].startswith("cuda")
    gpus: list[str | None] = [None] * workers.number
    if on_gpus and execution["device"] == "cuda":
        # In turn, where each has a part of one: the first 1 / gpus workers have the first GPU.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
        gpus = [names[int(place * workers.gpus) % len(names)] for place in range(workers.number)]
    return LocalPool(job, workers.number, gpus)
