"""The frame: the square part of a generator's picture that a photo shows as well.

A photo that does not fill the crop a generator was trained on is not padded; the generator's
pictures are cut to what the photo shows, before DS and before every metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Frame:
    """An upright square in a picture, in units of the picture's side; it may leave the picture.

    ``left`` and ``top`` are its upper left corner, x to the right and y down; ``side`` is positive.
    """

    left: float
    top: float
    side: float

    def __str__(self) -> str:
        """Say which part of a picture this is."""
        columns, rows = (
            f"{100 * start:.0f} to {100 * (start + self.side):.0f} %"
            for start in (self.left, self.top)
        )
        return f"{100 * self.side:.0f} % of the side (columns {columns}, rows {rows})"

    def as_dict(self) -> dict[str, float]:
        """Return plain JSON values."""
        return asdict(self)

    def seen_from(self, outer: Frame) -> Frame:
        """Return the same square in units of another one of the same picture."""
        return Frame(
            (self.left - outer.left) / outer.side,
            (self.top - outer.top) / outer.side,
            self.side / outer.side,
        )

    def seen_within(self, outer: Frame) -> Frame:
        """Return a square given in units of another one in units of the picture."""
        left, top = outer.left + self.left * outer.side, outer.top + self.top * outer.side
        return Frame(left, top, self.side * outer.side)

    def contains(self, other: Frame, slack: float = 1e-9) -> bool:
        """Whether another square lies within this one, up to ``slack`` of the picture's side."""
        return all(
            a - slack <= b and b + other.side <= a + self.side + slack
            for a, b in ((self.left, other.left), (self.top, other.top))
        )


#: The picture itself.
WHOLE = Frame(0.0, 0.0, 1.0)


def common_square(frames: Sequence[Frame]) -> Frame | None:
    """Return the largest square within all frames of one picture; None where they have none.

    Where their common part is no square, it lies as near to the picture's centre as it can.
    """
    starts, ends = [], []
    for axis in ("left", "top"):
        starts.append(max(getattr(frame, axis) for frame in frames))
        ends.append(min(getattr(frame, axis) + frame.side for frame in frames))
    side = min(end - start for start, end in zip(starts, ends, strict=True))
    if side <= 0:
        return None
    left, top = (
        min(max(start, 0.5 - side / 2), end - side) for start, end in zip(starts, ends, strict=True)
    )
    return Frame(left, top, side)
