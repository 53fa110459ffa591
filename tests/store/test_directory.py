"""Two writers that reach for a new run directory at once."""

import fcntl
import os
from pathlib import Path

import pytest

from pulse_audit import store
from pulse_audit.types import InputError


def test_a_writer_that_comes_second_leaves_the_new_directory_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither saw the directory; the first has locked it and written nothing yet."""
    opened, first = os.open, []

    def open_after_the_first(path: str, flags: int, mode: int = 0o777) -> int:
        first.append(opened(path, flags, mode))
        fcntl.flock(first[0], fcntl.LOCK_EX)
        return opened(path, flags, mode)

    monkeypatch.setattr(os, "open", open_after_the_first)
    run = tmp_path / "run"
    with pytest.raises(InputError, match="another process is writing"), store.locked(run):
        pass
    assert (run / ".lock").exists()
    os.close(first[0])
