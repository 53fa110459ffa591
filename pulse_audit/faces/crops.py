"""Crops: how a face lies in its picture, by five landmarks.

A crop is a square in a photo, placed by the eyes, the nose and the corners of the mouth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from pulse_audit.frames import WHOLE, Frame

Points = NDArray[np.float64]

#: A square that is as large as can be may lie off the crop's centre; how much of its side is given
#: up to lie nearer.
CENTRING = 1e-3

#: Where the landmarks lie in FairFace's 224 px photos (margin 0.25), in units of the side: medians
#: over 617 photos of a balanced sample, made symmetrical (spread, 1.48 times the median absolute
#: deviation: eyes 0.02, nose 0.06 and 0.03, mouth 0.04; profiles lie far outside).
#: FairFace placed its crops by dlib's five points (the corners of the eyes and the nose), which
#: MTCNN does not give; the medians are where its crops have the points that MTCNN does give.
FAIRFACE_025: Points = np.array(
    [[0.3189, 0.3009], [0.6811, 0.3009], [0.5, 0.5195], [0.3417, 0.6972], [0.6583, 0.6972]]
)

#: dlib scales a crop with padding p as (point + p) / (2 p + 1), so 0.25 and 1.25 give each other.
FAIRFACE_125: Points = (1.5 * FAIRFACE_025 + 1.0) / 3.5

#: Landmarks of CelebA's aligned images (178 x 218), in pixels.
_CELEBA: Points = np.array(
    [[69.6, 111.2], [107.6, 111.2], [88.0, 135.0], [72.0, 152.0], [105.0, 152.0]]
)

#: In their centre squares of 178 and 108 px: the crops that small generators are trained on.
CELEBA: Points = (_CELEBA - [0.0, 20.0]) / 178.0
CELEBA_108: Points = (_CELEBA - [35.0, 55.0]) / 108.0

TEMPLATES: Mapping[str, Points] = {
    "fairface-0.25": FAIRFACE_025,
    "fairface-1.25": FAIRFACE_125,
    "celeba": CELEBA,
    "celeba-108": CELEBA_108,
}


@dataclass(frozen=True)
class Square:
    """A square in a photo: its centre, and the vector from there to the middle of its right side.

    Pixel coordinates, x to the right and y down, (0, 0) at the photo's upper left corner.
    """

    centre: Points
    right: Points

    @property
    def side(self) -> float:
        """Length of a side in pixels."""
        return 2 * float(np.hypot(*self.right))

    def to_photo(self, unit: Points) -> Points:
        """Map points (n, 2) of the unit square to the photo."""
        down = np.array([-self.right[1], self.right[0]])
        offsets = 2 * unit - 1
        points: Points = self.centre + offsets[:, :1] * self.right + offsets[:, 1:] * down
        return points

    def to_unit(self, points: Points) -> Points:
        """Map points (n, 2) of the photo to the unit square; the inverse of `to_photo`."""
        down = np.array([-self.right[1], self.right[0]])
        axes = np.stack([self.right, down], axis=1) / np.dot(self.right, self.right)
        unit: Points = ((points - self.centre) @ axes + 1) / 2
        return unit

    def part(self, frame: Frame) -> Square:
        """Return a part of the square."""
        middle = np.array([[frame.left, frame.top]]) + frame.side / 2
        return Square(self.to_photo(middle)[0], frame.side * self.right)


def largest_square(height: int, width: int) -> Square:
    """Return the centred square of a photo, on whole pixels."""
    side = min(height, width)
    corner = np.array([(width - side) // 2, (height - side) // 2], float)
    return Square(corner + side / 2, np.array([side / 2, 0.0]))


def ffhq_square(landmarks: Points) -> Square:
    """Crop of FFHQ (Karras et al. 2019): from the eyes and the mouth, the larger of two sizes."""
    left, right, _, mouth_left, mouth_right = landmarks
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across, down = right - left, mouth - eyes
    # Between the line of the eyes and the perpendicular to the line from eyes to mouth.
    axis = across - np.array([-down[1], down[0]])
    axis /= np.hypot(*axis)
    half = max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down)))
    return Square(eyes + 0.1 * down, half * axis)


def template_square(template: Points) -> Callable[[Points], Square]:
    """Crop that puts the landmarks as close as it can to a template in the unit square.

    The similarity with the least squared error; with points as complex numbers, z -> a z + b.
    """

    def square(landmarks: Points) -> Square:
        unit, points = template @ [1, 1j], landmarks @ [1, 1j]
        spread = unit - unit.mean()
        # a = <spread, points> / <spread, spread>, and b from the means of both.
        turn = np.vdot(spread, points) / np.vdot(spread, spread)
        centre = points.mean() + turn * ((0.5 + 0.5j) - unit.mean())
        right = turn * 0.5
        return Square(np.array([centre.real, centre.imag]), np.array([right.real, right.imag]))

    return square


SQUARES: Mapping[str, Callable[[Points], Square]] = {
    "ffhq": ffhq_square,
    **{crop: template_square(template) for crop, template in TEMPLATES.items()},
}

#: Crops that need a face to be found; ``as-is`` is the photo's own frame.
CROPS = tuple(SQUARES)


def frame_in_ffhq(crop: str) -> Frame:
    """Return where the pictures of a crop lie in FFHQ's, of a face with the template's landmarks.

    One fixed square for a crop, so that all faces of a run share it. FairFace's photos (margin
    0.25) show columns 15 to 85 % and rows 27 to 96 % of FFHQ's square: side 0.690 at (0.155,
    0.265). By the landmarks of each photo it is 0.664 at (0.170, 0.274) (medians over 617 photos;
    spread, 1.48 times the median absolute deviation, 0.046, 0.024 and 0.018). The crop fitted to
    120 pictures of a published FFHQ generator (MobileStyleGAN) is 0.673 at (0.168, 0.266).

    Parameters
    ----------
    crop : str
        One of `CROPS`.
    """
    if crop == "ffhq":
        return WHOLE
    # FFHQ's square in the picture, turned inside out.
    square = ffhq_square(TEMPLATES[crop])
    left, top = (square.centre - square.side / 2).tolist()
    return WHOLE.seen_from(Frame(left, top, square.side))


def visible_frame(square: Square, height: int, width: int) -> Frame | None:
    """Return the largest part of a square in a photo that lies within the photo.

    It stands upright in the square, not in the photo. With its corner (l, t) and side s in units
    of the square, "all four corners lie in the photo" is linear in (l, t, s), so the largest is the
    solution of a linear programme; of several, the one nearest to the square's centre.

    Parameters
    ----------
    square : Square
    height, width : int
        Of the photo in pixels.

    Returns
    -------
    Frame or None
        In units of the square, within it; `WHOLE` where all of it lies in the photo. None where
        the photo has no part of it.
    """
    right, down = square.right, np.array([-square.right[1], square.right[0]])
    corner = square.centre - right - down
    rows, limits = [], []
    # A pixel coordinate of the square's points: corner + 2 x right + 2 y down, between 0 and end.
    for axis, end in ((0, width), (1, height)):
        across, along = 2 * right[axis], 2 * down[axis]
        most, least = (sum(f(step, 0.0) for step in (across, along)) for f in (max, min))
        rows += [[across, along, most, 0, 0], [-across, -along, -least, 0, 0]]
        limits += [end - corner[axis], corner[axis]]
    # It lies in the square, and its centre is at most (u, v) from the square's.
    rows += [[1, 0, 1, 0, 0], [0, 1, 1, 0, 0]]
    rows += [[1, 0, 0.5, -1, 0], [-1, 0, -0.5, -1, 0], [0, 1, 0.5, 0, -1], [0, -1, -0.5, 0, -1]]
    limits += [1, 1, 0.5, -0.5, 0.5, -0.5]
    found = linprog([0, 0, -1, CENTRING, CENTRING], A_ub=rows, b_ub=limits)
    if not found.success or found.x[2] <= 0:
        return None
    left, top, side = (float(value) for value in found.x[:3])
    return WHOLE if side > 1 - 1e-9 else Frame(left, top, side)
