"""Finding a face and bringing it into a crop.

MTCNN (Zhang et al. 2016, as in facenet-pytorch, whose wheel carries the weights) gives five
landmarks: the eyes, the nose and the corners of the mouth. A crop is a square in the photo,
placed by those landmarks; the photo is sampled over it with antialiasing, and mirrored where the
square leaves the photo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.transform import warp
from torch import Tensor
from torch.nn import functional

from pulse_audit.names import nearest
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

Photo = NDArray[np.float32]
Points = NDArray[np.float64]

#: Mirrored margin around a photo before detection, as a share of its sides. Tight crops cut
#: foreheads and chins: on 210 photos of FairFace (margin 0.25) it finds a face in one more.
MARGIN = 0.25

#: Where the landmarks lie in FairFace's 224 px photos (margin 0.25), in units of the side: medians
#: over 206 photos of a balanced sample, made symmetrical (standard deviations 0.03 to 0.09).
#: FairFace placed its crops by dlib's five points (the corners of the eyes and the nose), which
#: MTCNN does not give; the medians are where its crops have the points that MTCNN does give.
FAIRFACE_025: Points = np.array(
    [[0.3194, 0.3012], [0.6806, 0.3012], [0.5, 0.5222], [0.3404, 0.6970], [0.6596, 0.6970]]
)

#: dlib scales a crop with padding p as (point + p) / (2 p + 1), so 0.25 and 1.25 give each other.
FAIRFACE_125: Points = (1.5 * FAIRFACE_025 + 1.0) / 3.5

#: Landmarks of CelebA's aligned images (178 x 218), in its 178 px centre square: the crop that
#: 32 and 64 px generators are usually trained on.
CELEBA: Points = (
    np.array([[69.6, 111.2], [107.6, 111.2], [88.0, 135.0], [72.0, 152.0], [105.0, 152.0]])
    - [0.0, 20.0]
) / 178.0


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


def ffhq_square(landmarks: Points) -> Square:
    """Crop of FFHQ (Karras et al. 2019): from the eyes and the mouth, the larger of two sizes."""
    left, right, _, mouth_left, mouth_right = landmarks
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across, down = right - left, mouth - eyes
    axis = across - np.array([-down[1], down[0]])
    axis /= np.hypot(*axis)
    half = max(2.0 * float(np.hypot(*across)), 1.8 * float(np.hypot(*down)))
    return Square(eyes + 0.1 * down, half * axis)


def template_square(template: Points) -> Callable[[Points], Square]:
    """Crop that puts the landmarks as close as it can to a template in the unit square.

    The similarity with the least squared error; with points as complex numbers, z -> a z + b.
    """

    def square(landmarks: Points) -> Square:
        unit, found = template @ [1, 1j], landmarks @ [1, 1j]
        spread = unit - unit.mean()
        turn = np.vdot(spread, found) / np.vdot(spread, spread)
        centre = found.mean() + turn * ((0.5 + 0.5j) - unit.mean())
        right = turn * 0.5
        return Square(np.array([centre.real, centre.imag]), np.array([right.real, right.imag]))

    return square


SQUARES: Mapping[str, Callable[[Points], Square]] = {
    "ffhq": ffhq_square,
    "fairface-0.25": template_square(FAIRFACE_025),
    "fairface-1.25": template_square(FAIRFACE_125),
    "celeba": template_square(CELEBA),
}

#: Crops that need a face to be found; ``as-is`` is the photo's own frame.
CROPS = tuple(SQUARES)


def centre_square(photo: Photo, size: int) -> Tensor:
    """Cut the largest centred square and resize it with antialiasing (bicubic).

    Parameters
    ----------
    photo : array, (H, W, 3)
        In [0, 1].
    size : int
        Pixels of the result.

    Returns
    -------
    Tensor, (3, size, size)
        In [0, 1].
    """
    height, width = photo.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = torch.from_numpy(np.ascontiguousarray(photo[top : top + side, left : left + side]))
    image = square.permute(2, 0, 1)[None]
    if side != size:
        image = functional.interpolate(image, (size, size), mode="bicubic", antialias=True)
    return image[0].clamp(0, 1).contiguous()


def cut(photo: Photo, square: Square, size: int) -> Tensor:
    """Sample a photo over a square: bilinear, several samples a pixel where it shrinks.

    Parameters
    ----------
    photo : array, (H, W, 3)
        In [0, 1]; mirrored beyond its edges.
    square : Square
    size : int
        Pixels of the result.

    Returns
    -------
    Tensor, (3, size, size)
        In [0, 1].
    """
    finer = max(1, ceil(square.side / size))
    pixels = size * finer
    corners = square.to_photo(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) - 0.5
    origin, across, down = corners[0], corners[1] - corners[0], corners[2] - corners[0]

    # From an output pixel (x, y) to the photo's: pixel centres lie half a pixel in.
    steps = np.stack([across, down], axis=1) / pixels
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = steps, origin + steps.sum(axis=1) / 2
    sampled = warp(photo, matrix, output_shape=(pixels, pixels), order=1, mode="symmetric")
    averaged = sampled.reshape(size, finer, size, finer, 3).mean(axis=(1, 3))
    return torch.from_numpy(averaged.astype(np.float32)).permute(2, 0, 1).clamp(0, 1).contiguous()


class FaceAligner:
    """Finds faces and cuts crops around them.

    Parameters
    ----------
    device : torch.device
        Where the detector runs.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)

    @cached_property
    def _detector(self) -> MTCNN:
        from facenet_pytorch import MTCNN

        return MTCNN(keep_all=True, device=self._device).eval()

    def landmarks(self, photo: Photo) -> Points | None:
        """Find the largest face.

        Parameters
        ----------
        photo : array, (H, W, 3)
            In [0, 1].

        Returns
        -------
        array, (5, 2), or None
            Eyes (left in the picture first), nose, corners of the mouth, in pixels (x, y);
            None where no face is found whose centre lies within the photo.
        """
        height, width = photo.shape[:2]
        pad_y, pad_x = ceil(MARGIN * height), ceil(MARGIN * width)
        padded = np.pad(photo, ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="symmetric")
        boxes, _, points = self._detect(padded)
        if boxes is None:
            return None
        offset = np.array([pad_x, pad_y])
        boxes = boxes.astype(np.float64)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - offset
        # The margin holds mirrored pieces of faces: only what is centred in the photo counts.
        inside = ((centres >= 0) & (centres <= [width, height])).all(axis=1)
        if not inside.any():
            return None
        areas = np.where(inside, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), -1.0)
        largest: Points = np.asarray(points[int(areas.argmax())], dtype=np.float64) - offset
        return largest

    def _detect(self, padded: Photo) -> tuple[Any, Any, Any]:
        pixels = (padded * 255).round().astype(np.uint8)
        with torch.no_grad():
            found: tuple[Any, Any, Any] = self._detector.detect(pixels, landmarks=True)
        return found

    def align(self, photo: Photo, crop: str, size: int) -> Tensor | None:
        """Cut a crop around the largest face.

        Parameters
        ----------
        photo : array, (H, W, 3)
            In [0, 1].
        crop : str
            One of `CROPS`.
        size : int
            Pixels of the result.

        Returns
        -------
        Tensor, (3, size, size), or None
            In [0, 1]; None where no face is found.

        Raises
        ------
        InputError
            If the crop is unknown.
        """
        if crop not in SQUARES:
            raise InputError(f"crop {crop!r} is unknown{nearest(crop, CROPS)}")
        landmarks = self.landmarks(photo)
        return None if landmarks is None else cut(photo, SQUARES[crop](landmarks), size)
