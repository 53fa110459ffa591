"""A program that reads an image file and writes one: ``command:"PROG {input} {output}"``.

The program is started directly, never by a shell, once for every draw: with the input as an 8-bit
PNG in a folder of its own that only this user can enter, an empty standard input, and a limit on
its time. It is code that the user chose to run, and does what it likes; its output is not trusted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pulse_audit.names import PLACEHOLDER
from pulse_audit.types import Degradation, Request, Upsampled
from pulse_audit.upsamplers.outputs import ReadPicture, failed, judged

#: Seconds that a program may take for one input, unless a run says otherwise.
TIME_LIMIT = 600
#: Bytes at the end of standard error among which its last line is looked for, and its length.
STDERR_END, LINE = 4096, 200


class Command:
    """Runs a program for every draw.

    A program that fails, takes too long or writes no image of the size that is due costs its draw
    (status ``error``, with the reason), not the run.

    Parameters
    ----------
    name : str
        Of the arm.
    words : sequence of str
        The program and its arguments. In them ``{input}`` and ``{output}`` become the files of a
        draw, ``{scale}`` the factor and ``{seed}`` the draw's seed, modulo 2^32.
    files : mapping of str to str
        SHA-256 of the program and of the files that the words name.
    read : callable
    time_limit : float
        Seconds for one draw.
    """

    promises_feasibility = False
    resolution: int | None = None

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        files: Mapping[str, str],
        read: ReadPicture,
        time_limit: float = TIME_LIMIT,
    ) -> None:
        self.name = name
        self._words, self._files, self._read = list(words), dict(files), read
        self._time_limit = time_limit

    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Run the program for one request after the other."""
        return [self._answer(request, degradation) for request in requests]

    def _answer(self, request: Request, degradation: Degradation) -> Upsampled:
        started = time.perf_counter()
        # mkdtemp lets nobody else in.
        with tempfile.TemporaryDirectory(
            prefix="pulse-audit-", ignore_cleanup_errors=True
        ) as private:
            folder = Path(private)
            pixels = (request.lr.detach().clamp(0, 1) * 255).round().byte()
            picture = Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())
            picture.save(folder / "input.png")
            values = {
                "input": str(folder / "input.png"),
                "output": str(folder / "output.png"),
                "scale": str(degradation.scale),
                "seed": str(request.seed % 2**32),
            }
            words = [PLACEHOLDER.sub(lambda m: values[m[1]], word) for word in self._words]
            problem = run_program(words, folder / "stderr", self._time_limit)
            seconds = time.perf_counter() - started
            if problem is not None:
                return failed(problem, seconds)
            try:
                image = self._read(folder, "output.png")
            except ValueError as error:
                return failed(f"the program ended well, but its output: {error}", seconds)
        return judged(image, request, degradation, seconds)

    def describe(self) -> dict[str, Any]:
        """Return the command and the SHA-256 of the files in it."""
        return {
            "kind": "command",
            "command": self._words,
            "files": self._files,
            "time_limit": self._time_limit,
            "input": "8-bit PNG",
        }


def run_program(words: Sequence[str], stderr: Path, time_limit: float) -> str | None:
    """Run a program to its end; return why it failed, or None.

    Parameters
    ----------
    words : sequence of str
        Program and arguments, passed on as they are.
    stderr : Path
        File for its standard error, whose last line is in the reason. Its standard output is
        dropped.
    time_limit : float
        Seconds, after which it is ended with all processes that it started and that stayed in its
        group; the same where this process is interrupted.
    """
    with stderr.open("wb") as log:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot be started ({error.strerror})"
        try:
            code = process.wait(time_limit)
        except subprocess.TimeoutExpired:
            return f"took over {time_limit:g} seconds and was ended{_last_line(stderr)}"
        finally:
            # Whatever is left of its group, the program itself if it has not ended.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        return None
    how = f"exit code {code}" if code > 0 else f"ended by {_signal_name(-code)}"
    return how + _last_line(stderr)


def _last_line(stderr: Path) -> str:
    """Return the last line of standard error that is not blank, after a colon."""
    with stderr.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - STDERR_END))
        lines = log.read().decode(errors="replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    shown = "".join(c for c in " ".join(last.split()) if c.isprintable())[:LINE]
    return f": {shown}" if shown else ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
