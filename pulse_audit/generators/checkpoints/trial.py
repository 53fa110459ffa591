"""The first run of a foreign program: in a process of its own, with limits on memory and time.

The operators of a program are on a closed list, but one of them may still crash on arguments that
nobody tried, or fill the memory. Then only that process ends, and the file is refused.

The process is a fork of this one where that is safe, since importing what torch.export needs takes
a new interpreter some seconds. A fork has no threads but its own, and may wait for ever for a lock
that another thread held. So it is made only where Python has one thread and no GPU is in use; a
fork that a signal ends decides nothing, and the program is run again in a new interpreter.
"""

from __future__ import annotations

import faulthandler
import hashlib
import importlib
import os
import signal
import sys
import threading
import warnings

import torch

from pulse_audit.generators.checkpoints.budget import Damaged
from pulse_audit.sandbox import limit_process, run_module
from pulse_audit.types import InputError

# Address space beyond what PyTorch takes itself and the file's own size, and seconds of processor
# time: a StyleGAN 2 of 1024 px needs about half of both.
MEMORY = 3 * 2**29
SECONDS = 30
# A machine under load takes longer than that, but not for ever: a fork, and a new interpreter.
FORK_TIMEOUT, TIMEOUT = 60, 300
# Exit codes of the process: no decoder, and no program that runs.
NO_DECODER, FAILED = 3, 4
LONGEST_REASON = 2000

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
    # The driver of a GPU does not work in a fork.
    gpu = torch.cuda.is_initialized() or _uses_gpu(data)  # type: ignore[no-untyped-call]
    one_thread = sys.platform.startswith("linux") and threading.active_count() == 1
    verdict = _forked_run(data) if one_thread and not gpu else None
    verdict = verdict or run_module(__name__, data, TIMEOUT)
    if verdict is None:
        raise Damaged(f"its first run takes over {TIMEOUT} seconds")
    code, reason = verdict
    if code == 0:
        _passed.add(digest)
        return
    if code == NO_DECODER:
        raise InputError(reason)
    if code == -signal.SIGXCPU:
        raise Damaged(f"its first run takes over {SECONDS} seconds of processor time")
    if code == FAILED and reason:
        raise Damaged(reason)
    raise Damaged(f"its first run crashed (exit code {code})")


def _forked_run(data: bytes) -> tuple[int, str] | None:
    """Run the program in a fork; return an exit code and the reason, or None without a verdict."""
    # Not by every fork: reading the program in this process needs these too.
    _import_reader()
    answer, sender = os.pipe()
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of threads in C as well; those of PyTorch and numpy are idle here.
            warnings.simplefilter("ignore", DeprecationWarning)
            fork = os.fork()
    except OSError:  # no process or no memory left
        os.close(answer)
        os.close(sender)
        return None
    if fork == 0:
        # Whatever happens, nothing of this process's own work goes on in the fork.
        code = FAILED
        try:
            faulthandler.disable()
            for caught in (signal.SIGINT, signal.SIGTERM):
                signal.signal(caught, signal.SIG_DFL)
            signal.alarm(FORK_TIMEOUT)
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in range(3):
                os.dup2(silence, stream)
            code, reason = _run(data)
            os.write(sender, reason.encode(errors="replace"))
        finally:
            os._exit(code)
    os.close(sender)
    try:
        with open(answer, "rb") as pipe:
            reason = pipe.read().decode(errors="replace")
    except BaseException:  # Ctrl-C
        os.kill(fork, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(fork, 0)
    # On a machine with a GPU a failure may be the driver's, of which the fork has only half.
    code = os.waitstatus_to_exitcode(status)
    final = code == FAILED and not torch.cuda.is_available()
    return (code, reason) if final or code in (0, NO_DECODER, -signal.SIGXCPU) else None


def main() -> None:
    """Run the program on standard input; end with an exit code and print the reason."""
    _import_reader()
    code, reason = _run(sys.stdin.buffer.read())
    print(reason, flush=True)
    # Without the clean-up of the interpreter, which may crash after a program that misbehaved.
    os._exit(code)


def _import_reader() -> None:
    """Import what PyTorch imports when it reads its first program: no cost of the program's."""
    for module in ("torch._export.serde.serialize", "torch.export._trace"):
        importlib.import_module(module)


def _uses_gpu(data: bytes) -> bool:
    return torch.cuda.is_available() and b'"cuda"' in data


def _run(data: bytes) -> tuple[int, str]:
    """Run a program on zeros within the limits; return an exit code and the reason."""
    from pulse_audit.generators.checkpoints.programs import read_program

    # The limits count from here: PyTorch is imported, and the program is not yet touched.
    torch.set_num_threads(1)
    # A program for a GPU needs the driver's address space, which has no useful bound.
    limit_process(SECONDS, None if _uses_gpu(data) else MEMORY + 2 * len(data))
    step = "torch.export cannot load it"
    try:
        decoder = read_program(data)
        step = "its first run fails"
        weights = [*decoder.parameters(), *decoder.buffers()]
        device = weights[0].device if weights else torch.device("cpu")
        with torch.no_grad():
            decoder(torch.zeros(decoder.batch or 1, decoder.latent_dim, device=device))
    except InputError as error:
        return NO_DECODER, str(error)
    except Exception as error:  # whatever a broken graph provokes in PyTorch
        text = (str(error).strip() or type(error).__name__)[:LONGEST_REASON]
        return FAILED, text if isinstance(error, Damaged) else f"{step}: {text}"
    return 0, ""
