"""How long the command line takes to answer, beside the interpreter's own start."""

import subprocess
import sys
from collections.abc import Callable


def call(*arguments: str) -> Callable[[], None]:
    def run() -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    return run


def variants() -> dict[str, Callable[[], None]]:
    return {
        "python -c pass": call("-c", "pass"),
        "pulse-audit --help": call("-m", "pulse_audit.cli", "--help"),
        "pulse-audit list datasets": call("-m", "pulse_audit.cli", "list", "datasets"),
        "import torch": call("-c", "import torch"),
    }
