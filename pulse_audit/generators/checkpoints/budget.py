"""What reading one foreign file may cost: bytes, objects, depth and seconds.

A file of a few kilobytes can ask for terabytes or for hours. Every reader of this package spends
from one budget per file, which the outermost reader opens, and the file is refused when it is used
up. The largest published snapshots take under a third of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Bytes read and made, instructions and entries, submodules inside each other, seconds of one core.
MAX_BYTES = 2**30
MAX_OBJECTS = 2_000_000
MAX_DEPTH = 64
MAX_SECONDS = 15.0
# The largest single piece: one member, one text of a pickle.
MAX_PIECE = 2**28
# So much work lies between two looks at the clock, which cost more than most objects: one for each
# object, since keys that collide make each of them slow, and one for every 4 KiB.
CLOCK_STEP = 256


class Damaged(Exception):
    """The file does not make sense; the message says where."""


class Budget:
    """What is left for one file."""

    def __init__(self) -> None:
        self.size = self.objects = 0
        self.work, self.next_look = 0, CLOCK_STEP
        # The time of this thread: a busy machine or a slow disk is not the file's fault.
        self.start = time.thread_time()

    def spend(self, objects: int, size: int, depth: int) -> None:
        """Take from the budget; Damaged when it is used up."""
        self.objects += objects
        self.size += size
        if self.size > MAX_BYTES:
            raise Damaged(f"reading it takes over {MAX_BYTES:,} bytes")
        if self.objects > MAX_OBJECTS:
            raise Damaged(f"it has over {MAX_OBJECTS:,} objects")
        if depth > MAX_DEPTH:
            raise Damaged(f"it is nested over {MAX_DEPTH} deep")
        self.work += 1 + objects + (size >> 12)
        if self.work >= self.next_look:
            self.next_look = self.work + CLOCK_STEP
            if time.thread_time() - self.start > MAX_SECONDS:
                raise Damaged(f"reading it takes over {MAX_SECONDS:.0f} seconds")


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


@contextmanager
def file_budget() -> Iterator[None]:
    """Open the budget of one file; inside another reader its budget goes on."""
    if _current.get() is not None:
        yield
        return
    token = _current.set(Budget())
    try:
        yield
    finally:
        _current.reset(token)


def spend(objects: int = 0, size: int = 0, depth: int = 0) -> None:
    """Take objects and bytes from the budget of the file that is being read.

    Raises
    ------
    Damaged
        If the budget is used up, or ``depth`` is above the limit.
    """
    current = _current.get()
    if current is not None:
        current.spend(objects, size, depth)
