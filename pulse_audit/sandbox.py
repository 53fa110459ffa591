"""A process with limits, for the first run of a file from outside that may crash or fill memory."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pulse_audit


def run_module(
    module: str, data: bytes, timeout: float, arguments: Sequence[str] = ()
) -> tuple[int, str] | None:
    """Call ``main()`` of a module of ours in a new interpreter.

    Parameters
    ----------
    module : str
    data : bytes
        Its standard input.
    timeout : float
        Seconds on the wall.
    arguments : sequence of str
        Its ``sys.argv[1:]``.

    Returns
    -------
    (int, str) or None
        Its exit code, negative for a signal, and what it printed; None where it took too long.
        Standard error, where libraries log, is dropped.
    """
    # The same package, and no module from the working directory (-P).
    root = str(Path(pulse_audit.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    code = f"import {module} as trial; trial.main()"
    try:
        finished = subprocess.run(
            [sys.executable, "-P", "-c", code, *arguments],
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return None
    return finished.returncode, finished.stdout.decode(errors="replace").strip()


def limit_process(seconds: int, memory: int | None) -> None:
    """Limit this process to seconds of processor time and bytes of memory, both from now on.

    Beyond the seconds it is ended by SIGXCPU; ``memory`` is address space, on Linux alone.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    last = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (last, last + 2))
    if memory is not None and sys.platform.startswith("linux"):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
