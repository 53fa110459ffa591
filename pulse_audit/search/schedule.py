"""How the learning rate runs over the search: the three schedules of PULSE."""

from __future__ import annotations

from pulse_audit.types import InputError

#: For each schedule, corners (progress, factor) joined by straight lines.
CORNERS = {
    "fixed": ((0.0, 1.0), (1.0, 1.0)),
    "linear1cycle": ((0.0, 0.1), (0.5, 1.0), (1.0, 0.1)),
    "linear1cycledrop": ((0.0, 0.1), (0.45, 1.0), (0.9, 0.1), (1.0, 0.001)),
}


def learning_rate_factor(schedule: str, step: int, steps: int) -> float:
    """Factor on the learning rate at one update.

    Parameters
    ----------
    schedule : {"fixed", "linear1cycle", "linear1cycledrop"}
        ``linear1cycle`` rises from 0.1 to 1 at half way and falls back; ``linear1cycledrop``
        (PULSE's default) does so within the first 90 % and then falls towards 0.001.
    step : int
        Number of updates already made, 0 <= step <= steps.
    steps : int
        Length of the whole search, at least 1.

    Raises
    ------
    InputError
        If the schedule is unknown.
    """
    if schedule not in CORNERS:
        raise InputError(f'schedule "{schedule}" is not known; use one of {", ".join(CORNERS)}')
    progress = step / steps
    corners = CORNERS[schedule]
    for (start, low), (end, high) in zip(corners, corners[1:], strict=False):
        if progress <= end:
            return low + (high - low) * (progress - start) / (end - start)
    return corners[-1][1]
