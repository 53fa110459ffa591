"""What the command lines of this package share: options, errors in one line, stopping on a signal.

A run is ended by the budget or by SIGTERM; either way its state is saved and can be resumed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch

from pulse_audit.types import InputError

SAVE_SECONDS = 300.0
LOG_SECONDS = 20.0

config_option = click.option(
    "--config", "name", required=True, help="Name of a shipped configuration, or a file."
)
state_option = click.option("--state", type=Path, required=True, help="Folder of the run's state.")
data_option = click.option("--data", type=Path, required=True, help="Parquet table of faces.")
device_option = click.option(
    "--device", default="cuda" if torch.cuda.is_available() else "cpu", show_default=True
)
assets_option = click.option(
    "--assets", type=Path, required=True, help="Folder of the shipped models."
)
generators_option = click.option(
    "--generator", "names", multiple=True, required=True, help="Name; repeatable."
)
attributes_option = click.option("--attributes", default="faces-attributes", show_default=True)


def run(command: click.Command) -> None:
    """Run a command on the words of the command line, and end the process where it fails."""
    try:
        command(standalone_mode=False)
    except InputError as error:
        sys.exit(f"error: {error}")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(os.EX_TEMPFAIL)


def steps(unfinished: Callable[[], bool], save: Callable[[], object]) -> Iterator[None]:
    """Yield once for every training step, until the run is finished or a signal asks to stop.

    The state is saved every five minutes and at the end. SIGTERM and SIGINT end the run after the
    step in progress instead of ending the process. ``unfinished`` says whether another step is to
    be taken.
    """
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    saved = time.monotonic()
    try:
        while unfinished() and not stopped:
            yield
            if time.monotonic() - saved > SAVE_SECONDS:
                save()
                saved = time.monotonic()
        save()
    finally:
        # Give the signals back to whoever handled them before.
        for number, handler in handlers.items():
            signal.signal(number, handler)
