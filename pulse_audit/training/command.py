"""Running the command lines of this room: what is wrong costs one line."""

from __future__ import annotations

import os
import sys

import click

from pulse_audit.types import InputError


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
