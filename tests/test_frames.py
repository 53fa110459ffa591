"""Squares in pictures."""

import numpy as np
import pytest

from pulse_audit.frames import WHOLE, Frame, common_square


def random_frame(random: np.random.Generator) -> Frame:
    return Frame(*random.uniform(-0.5, 0.5, 2), random.uniform(0.2, 1.5))


@pytest.mark.parametrize("seed", range(5))
def test_a_square_seen_from_another_and_back(seed: int) -> None:
    random = np.random.default_rng(seed)
    inner, outer = random_frame(random), random_frame(random)
    seen, back = inner.seen_from(outer), WHOLE.seen_from(outer)
    # What is seen from a square, seen from the picture as that square sees it, is itself again.
    again = seen.seen_from(back)
    assert [again.left, again.top, again.side] == pytest.approx([inner.left, inner.top, inner.side])
    assert seen.side * outer.side == pytest.approx(inner.side)


def test_a_square_in_words() -> None:
    frame = Frame(0.1549, 0.265, 0.6902)
    assert str(frame) == "69 % of the side (columns 15 to 85 %, rows 26 to 96 %)"


@pytest.mark.parametrize("seed", range(20))
def test_the_common_square_is_the_largest_within_all(seed: int) -> None:
    """Against a search of every square on a grid."""
    random = np.random.default_rng(seed)
    frames = [WHOLE, *(random_frame(random) for _ in range(2))]
    found = common_square(frames)
    grid = np.arange(-0.5, 1.5, 0.05)
    fitting = [
        side
        for side in np.arange(0.05, 1.01, 0.05)
        if any(
            all(frame.contains(Frame(left, top, side)) for frame in frames)
            for left in grid
            for top in grid
        )
    ]
    if found is None:
        assert not fitting
        return
    assert all(frame.contains(found) for frame in frames)
    assert max(fitting, default=0) <= found.side + 1e-9


def test_a_common_part_that_is_no_square_is_cut_nearest_to_the_centre() -> None:
    # All columns and the rows above 0.4, and the columns above 0.7 of the same rows.
    low = Frame(-1.0, -1.6, 2.0)
    for left, expected in ((-1.0, 0.3), (0.55, 0.55), (-1.4, 0.2)):
        found = common_square([WHOLE, Frame(left, -1.0, 2.0), low])
        assert found is not None
        assert (found.left, found.top, found.side) == pytest.approx((expected, 0.0, 0.4))


def test_squares_apart_have_nothing_in_common() -> None:
    assert common_square([WHOLE, Frame(1.1, 0, 1)]) is None
