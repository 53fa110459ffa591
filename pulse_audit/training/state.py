"""The state of a training run on disk: written whole or not at all, read as data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from pulse_audit.types import InputError

STATE = "state.pt"


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a state, which holds its configuration as ``config``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), folder / f"new-{STATE}")
    os.replace(folder / f"new-{STATE}", folder / STATE)


def restore_state(
    path: Path,
    device: torch.device,
    use: Callable[[dict[str, Any]], object],
    config: Mapping[str, Any] | None = None,
) -> None:
    """Read a state and use it.

    Parameters
    ----------
    path : Path
    device : torch.device
    use : callable
        Called with the state.
    config : mapping, optional
        The configuration that it has to be of.

    Raises
    ------
    InputError
        If it is damaged, does not fit, or is of another configuration.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        fits = config is None or state["config"] == config
        if fits:
            use(state)
    # Unpickling and loading a damaged file raise errors of many kinds.
    except Exception as error:
        raise InputError(f"{path}: damaged state ({type(error).__name__})") from error
    if not fits:
        raise InputError(f"{path}: the state of another configuration; choose another --state")
