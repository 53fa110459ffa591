"""The part of a crop that lies within a photo."""

import numpy as np
import pytest

from pulse_audit.faces.crops import (
    FAIRFACE_025,
    SQUARES,
    Square,
    frame_in_ffhq,
    largest_square,
    visible_frame,
)
from pulse_audit.frames import WHOLE, Frame, common_square

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def random_case(seed: int) -> tuple[Square, int, int]:
    """FFHQ's square around a face anywhere in a photo, its landmarks far from regular."""
    random = np.random.default_rng(seed)
    height, width = (int(side) for side in random.integers(60, 400, 2))
    size = random.uniform(0.1, 1.5) * min(height, width)
    angle = random.uniform(-0.6, 0.6)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shape = (FAIRFACE_025 - 0.5 + random.normal(0, 0.03, (5, 2))) @ turn
    return (
        SQUARES["ffhq"](random.uniform(0.2, 0.8, 2) * [width, height] + size * shape),
        height,
        width,
    )


def lies_within(square: Square, frame: Frame, height: int, width: int, slack: float) -> bool:
    corners = square.part(frame).to_photo(CORNERS)
    return bool(((corners >= -slack) & (corners <= np.array([width, height]) + slack)).all())


@pytest.mark.parametrize("seed", range(60))
def test_the_frame_lies_in_the_photo_and_in_the_crop_and_none_is_larger(seed: int) -> None:
    square, height, width = random_case(seed)
    frame = visible_frame(square, height, width)
    assert frame is not None and WHOLE.contains(frame)
    assert lies_within(square, frame, height, width, 1e-6 * max(height, width))
    # No square of a fine grid that is larger by more than the price of centring fits.
    side = frame.side * 1.003
    if side > 1:
        return
    places = np.linspace(0, 1 - side, 41)
    assert not any(
        lies_within(square, Frame(left, top, side), height, width, 0.0)
        for left in places
        for top in places
    )


def test_a_crop_within_the_photo_is_whole() -> None:
    square = Square(np.array([60.0, 50.0]), np.array([30.0, 10.0]))
    assert visible_frame(square, 100, 120) == WHOLE


def test_a_fairface_photo_is_the_frame_of_the_pair() -> None:
    """Landmarks where FairFace's photos have them give the fixed frame, all of the photo."""
    frame, fixed = (
        visible_frame(SQUARES["ffhq"](224 * FAIRFACE_025), 224, 224),
        frame_in_ffhq("fairface-0.25"),
    )
    assert frame is not None
    assert (frame.left, frame.top, frame.side) == pytest.approx((fixed.left, fixed.top, fixed.side))


@pytest.mark.parametrize("seed", range(10))
def test_an_upright_crop_has_the_common_square_of_crop_and_photo(seed: int) -> None:
    random = np.random.default_rng(seed)
    centre, half = random.uniform(30, 90, 2), random.uniform(20, 100)
    found = visible_frame(Square(centre, np.array([half, 0.0])), 120, 120)
    photo = Frame(*(0.5 - centre / (2 * half)), 120 / (2 * half))
    expected = common_square([WHOLE, photo])
    assert found is not None and expected is not None
    assert found.side == pytest.approx(expected.side, rel=2e-3)
    assert (found.left, found.top) == pytest.approx((expected.left, expected.top), abs=2e-3)


def test_a_crop_beside_the_photo_has_no_frame() -> None:
    assert visible_frame(Square(np.array([300.0, 50.0]), np.array([20.0, 0.0])), 100, 100) is None


def test_a_part_of_a_square_lies_where_its_frame_says() -> None:
    square = Square(np.array([50.0, 40.0]), np.array([20.0, 5.0]))
    frame = Frame(0.2, 0.5, 0.3)
    within = np.array([0.2, 0.5]) + 0.3 * CORNERS
    np.testing.assert_allclose(square.part(frame).to_photo(CORNERS), square.to_photo(within))


def test_a_square_maps_there_and_back() -> None:
    square, _, _ = random_case(3)
    points = np.random.default_rng(3).uniform(-1, 2, (20, 2))
    np.testing.assert_allclose(square.to_unit(square.to_photo(points)), points, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (41, 60), (60, 41)])
def test_the_largest_square_lies_on_whole_pixels_of_the_photo(height: int, width: int) -> None:
    square = largest_square(height, width)
    corners = square.to_photo(CORNERS)
    assert square.side == min(height, width) and (corners == corners.round()).all()
    assert lies_within(square, WHOLE, height, width, 0)
