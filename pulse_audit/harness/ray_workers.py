"""Workers as actors of Ray, on this machine or a cluster: one model an actor, one unit at a time.

How often units are tried, and what is written, is decided where that of processes is:
`harness.workers.carry_out` and the process that holds the run's lock.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pulse_audit.harness.executors import OWN_NODE, Workers
from pulse_audit.harness.workers import Failure, Job, Reply, Worker
from pulse_audit.types import InputError

#: Read by Ray when it is imported: no usage statistics, no line of its own on stdout when a worker
#: dies (the results may go there as JSON), the interpreter of this process for its workers, and no
#: GPU hidden from workers that asked for none.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
#: Bytes of shared memory of a node of one's own: answers lie there until they are written.
OBJECT_STORE = 256 << 20


class RayWorker(Worker):
    """A worker in a process that Ray started, which has another folder and environment."""

    def __init__(self, job: Job, folder: str, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        # On other machines it may be missing, where no path of the specification is relative.
        with suppress(OSError):
            os.chdir(folder)
        super().__init__(job)


class RayPool:
    """Actors by place, each started with its first unit.

    Raises
    ------
    InputError
        If no node can be started or joined, or the workers do not fit on it.
    """

    def __init__(self, job: Job, workers: Workers) -> None:
        execution = job.manifest["execution"]
        threads, device = execution["threads"], execution["device"]
        gpus = workers.gpus if device.startswith("cuda") else 0
        if device not in ("cpu", "cuda"):
            raise InputError(f"--device {device}: Ray gives out the GPUs; use --device cuda")
        connect(workers, threads, gpus)
        import ray

        self._ray = ray
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call, unused-ignore]
        if (room := count_places(nodes, threads, gpus)) < workers.number:
            ray.shutdown()
            of_gpus = f" and {gpus:g} GPUs" if gpus else ""
            raise InputError(
                f"--workers {workers.number}: Ray has room for {room} of {threads} CPUs{of_gpus}; "
                "lower --workers, --threads or --gpus-per-worker, or start more machines"
            )
        environment = {k: v for k, v in os.environ.items() if k.startswith("PULSE_AUDIT_")}
        self._arguments = (ray.put(job), os.getcwd(), environment)
        self._actor_class = ray.remote(num_cpus=threads, num_gpus=gpus)(RayWorker)
        #: Actors by place, and the places of answers that are awaited.
        self._actors, self._places = dict[int, Any](), dict[Any, int]()

    def send(self, place: int, unit: Mapping[str, Any]) -> None:
        """Give a unit to an actor, which is started where there is none."""
        if place not in self._actors:
            self._actors[place] = self._actor_class.remote(*self._arguments)
        self._places[self._actors[place].answer.remote(unit)] = place

    def next(self) -> tuple[int, Reply]:
        """Wait for an actor."""
        # Who has no unit now gets none: others may be waiting for its place in the cluster.
        for place in self._actors.keys() - set(self._places.values()):
            self._end(place)
        answers, _ = self._ray.wait(list(self._places))
        place = self._places.pop(answers[0])
        try:
            reply: Reply = self._ray.get(answers[0])
        except self._ray.exceptions.RayError as error:
            self._end(place)
            return place, failure_of(error)
        return place, reply

    def close(self) -> None:
        """End all actors, and the node where it was started for them."""
        for place in list(self._actors):
            self._end(place)
        self._ray.shutdown()

    def _end(self, place: int) -> None:
        """End an actor, dead or alive."""
        self._ray.kill(self._actors.pop(place))


def connect(workers: Workers, threads: int, gpus: float) -> None:
    """Start a node of one's own, or join a cluster.

    Raises
    ------
    InputError
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    # What goes wrong is said once, below.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    settings: dict[str, Any] = {
        "log_to_driver": False, "configure_logging": False, "include_dashboard": False,
    }  # fmt: skip
    if workers.ray == OWN_NODE:
        settings |= {
            "num_cpus": workers.number * threads, "object_store_memory": OBJECT_STORE,
            "num_gpus": None if gpus else 0,
        }  # fmt: skip
    # Ray takes SIGTERM for itself, which ends a run in order.
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=workers.ray, **settings)
        return
    except Exception as error:  # of any class: Ray's own, of sockets, of memory
        reason = " ".join(str(error).split())[:300]
        ray.shutdown()
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, handler)
    # Ray waits 15 seconds for each part of a node, which cannot be changed (its issue 65983).
    if workers.ray == OWN_NODE:
        raise InputError(
            "--executor ray: no node started here in time, as happens on a busy machine; try "
            "again, join one that runs (ray start --head, then --ray-address auto), or leave "
            "--executor out, since --workers alone needs none (Ray says: "
            f"{reason} Logs: {tempfile.gettempdir()}/ray/session_latest/logs)"
        )
    raise InputError(
        f"--ray-address {workers.ray}: cannot be joined ({reason}); a cluster with a token needs "
        "it here too (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH)"
    )


def count_places(nodes: list[dict[str, Any]], threads: int, gpus: float) -> int:
    """Count the workers that fit on the machines of a cluster, whoever else uses them."""
    places = 0
    for node in nodes:
        resources = node["Resources"] if node["Alive"] else {}
        fitting = [int(resources.get("CPU", 0) / threads)]
        if gpus:
            fitting.append(int(resources.get("GPU", 0) / gpus + 1e-6))
        places += min(fitting)
    return places


def failure_of(error: Exception) -> Failure:
    """Say in one line why an actor gave no answer."""
    text = " ".join(str(error).split())
    # It could not even be made, as where the package is not installed: none will be.
    if getattr(error, "actor_init_failed", False):
        return Failure(f"{text[-300:]}", refused=True)
    detail = text.partition("Worker exit detail: ")[2].partition(". ")[0]
    return Failure(f"its worker ended ({detail or text[:200]})")
