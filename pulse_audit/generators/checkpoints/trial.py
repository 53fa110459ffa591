"""The first run of a foreign program: in a process of its own, with limits on memory and time.

The operators of a program are on a closed list, but one of them may still crash on arguments that
nobody tried, or fill the memory. Then only that process ends, and the file is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

import pulse_audit
from pulse_audit.generators.checkpoints.budget import Damaged
from pulse_audit.types import InputError

# Address space beyond what PyTorch takes itself and the file's own size, and seconds of processor
# time: a StyleGAN 2 of 1024 px needs about half of both.
MEMORY = 3 * 2**29
SECONDS = 30
# A machine under load takes longer than that, but not for ever.
TIMEOUT = 300
# Exit codes of the process: no decoder, and no program that runs.
NO_DECODER, FAILED = 3, 4

_passed = set[bytes]()


def try_program(data: bytes) -> None:
    """Load and run a program once in another process.

    Raises
    ------
    Damaged
        If it crashes, fails, or takes more memory or time than the limits.
    InputError
        If it runs but is no decoder of latents.
    """
    digest = hashlib.sha256(data).digest()
    if digest in _passed:
        return
    # The same package, and no module from the working directory (-P).
    root = str(Path(pulse_audit.__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", f"import {__name__} as trial; trial.main()"]
    try:
        # PyTorch's own warnings and logs (standard error) are not for the user.
        trial = subprocess.run(
            command,
            input=data,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise Damaged(f"its first run takes over {TIMEOUT} seconds") from None
    if trial.returncode == 0:
        _passed.add(digest)
        return
    reason = trial.stdout.decode(errors="replace").strip()
    if trial.returncode == NO_DECODER:
        raise InputError(reason)
    if trial.returncode == -signal.SIGXCPU:
        raise Damaged(f"its first run takes over {SECONDS} seconds of processor time")
    if trial.returncode == FAILED and reason:
        raise Damaged(reason)
    raise Damaged(f"its first run crashed (exit code {trial.returncode})")


def main() -> None:
    """Run the program on standard input on zeros; end with an exit code and print the reason."""
    code = _run()
    sys.stdout.flush()
    # Without the clean-up of the interpreter, which may crash after a program that misbehaved.
    os._exit(code)


def _run() -> int:
    # What loading a program imports is no cost of this one.
    importlib.import_module("torch._export.serde.serialize")
    from pulse_audit.generators.checkpoints.programs import read_program

    data = sys.stdin.buffer.read()
    # The limits count from here: PyTorch is imported, and the program is not yet touched.
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = int(time.process_time()) + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    # A program for a GPU needs the driver's address space, which has no useful bound.
    gpu = torch.cuda.is_available() and b'"cuda"' in data
    if sys.platform.startswith("linux") and not gpu:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + MEMORY + 2 * len(data)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    step = "torch.export cannot load it"
    try:
        decoder = read_program(data)
        step = "its first run fails"
        weights = [*decoder.parameters(), *decoder.buffers()]
        device = weights[0].device if weights else torch.device("cpu")
        with torch.no_grad():
            decoder(torch.zeros(decoder.batch or 1, decoder.latent_dim, device=device))
    except InputError as error:
        print(error)
        return NO_DECODER
    except Exception as error:  # whatever a broken graph provokes in PyTorch
        text = str(error).strip() or type(error).__name__
        print(text[:2000] if isinstance(error, Damaged) else f"{step}: {text[:2000]}")
        return FAILED
    return 0
