"""Face detection and alignment to a crop.

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

from pulse_audit.frames import WHOLE, Frame
from pulse_audit.names import nearest
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

Photo = NDArray[Any]
Points = NDArray[np.float64]

#: Smallest face looked for, as a share of the photo's shorter side: first a face that fills its
#: picture; when none is found and a crop is to be cut, a small one. Looking for small faces at once
#: finds faces in the texture of large ones, and costs ten times as much at 1120 px.
LARGE_FACE = 1 / 6
SMALL_FACE = 1 / 24

#: The photo is resized so that the smallest face looked for has this many pixels: MTCNN rounds its
#: boxes to whole pixels, which in a 32 px photo moves all landmarks by 1 % of the side.
FACE_PIXELS = 43

#: Longest side of what the detector sees, and least size of a face in it, for photos of extreme
#: proportions.
LONGEST_SIDE = 2048
LEAST_PIXELS = 20

#: Margin of the photo's mean colour around it, as a share of the shorter side: MTCNN misses some
#: faces that leave the picture, and misplaces their landmarks. Of 630 photos of FairFace (margin
#: 0.25) a face is found in 617; with a mirrored margin in 614, with stretched edges in 607, without
#: a margin in 605.
MARGIN = 0.5

#: Smallest face looked for in prepared faces, by crop: their place in the frame is known.
SMALLEST_PREPARED = {"fairface-1.25": LARGE_FACE, "as-is": LARGE_FACE}

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


@dataclass(frozen=True)
class FoundFace:
    """A detected face, in pixels of its photo (x, y).

    ``landmarks`` (5, 2) are the eyes (left in the picture first), the nose and the corners of the
    mouth; ``box`` (4,) is left, top, right, bottom, and may leave the photo.
    """

    landmarks: Points
    box: Points


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


def centre_square(photo: Photo, size: int, frame: Frame = WHOLE) -> Tensor:
    """Cut the largest centred square and resize it, or a frame of it, with antialiasing.

    Parameters
    ----------
    photo : array, (H, W, 3)
        float in [0, 1], or uint8.
    size : int
        Pixels of the result.
    frame : Frame
        A part of the square, sampled as by `cut`; the whole is resized by bicubic interpolation.

    Returns
    -------
    Tensor, (3, size, size)
        In [0, 1].
    """
    photo = _as_float(photo)
    height, width = photo.shape[:2]
    side = min(height, width)
    if frame != WHOLE:
        corner = np.array([(width - side) / 2, (height - side) / 2])
        centre = np.array([frame.left, frame.top]) + frame.side / 2
        half = np.array([side * frame.side / 2, 0.0])
        return cut(photo, Square(corner + side * centre, half), size)
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
        float in [0, 1], or uint8; mirrored beyond its edges.
    square : Square
    size : int
        Pixels of the result.

    Returns
    -------
    Tensor, (3, size, size)
        In [0, 1].
    """
    photo = _as_float(photo)
    finer = max(1, ceil(square.side / size))
    pixels = size * finer
    corners = square.to_photo(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])) - 0.5
    origin, across, down = corners[0], corners[1] - corners[0], corners[2] - corners[0]

    # From an output pixel (x, y) to the photo's: pixel centres lie half a pixel in.
    steps = np.stack([across, down], axis=1) / pixels
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = steps, origin + steps.sum(axis=1) / 2
    sampled = warp(photo, matrix, output_shape=(pixels, pixels), order=1, mode="symmetric")
    # Average blocks of finer pixels: (size * finer, size * finer, 3) -> (size, size, 3).
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

    def landmarks(self, photo: Photo, smallest: float = LARGE_FACE) -> Points | None:
        """Find the landmarks (5, 2) of the largest face; see `find`."""
        face = self.find(photo, smallest)
        return None if face is None else face.landmarks

    def find(self, photo: Photo, smallest: float = LARGE_FACE) -> FoundFace | None:
        """Find the largest face.

        Parameters
        ----------
        photo : array, (H, W, 3)
            float in [0, 1], or uint8.
        smallest : float
            Side of the smallest face looked for, as a share of the photo's shorter side.

        Returns
        -------
        FoundFace or None
            None where no face is found whose centre lies within the photo.
        """
        pixels = np.ascontiguousarray(_as_float(photo).transpose(2, 0, 1))
        return self.find_all(torch.from_numpy(pixels)[None], smallest)[0]

    def find_all(self, images: Tensor, smallest: float = LARGE_FACE) -> list[FoundFace | None]:
        """Find the largest face of each image of a batch.

        Parameters
        ----------
        images : Tensor, (n, 3, H, W)
            In [0, 1].
        smallest : float
            As for `find`.
        """
        height, width = images.shape[-2:]
        shorter, longer = sorted((height, width))
        # Resize, so that the smallest face looked for has enough pixels for the detector.
        side = min(FACE_PIXELS / smallest, max(shorter, FACE_PIXELS / LARGE_FACE))
        scale = min(side / shorter, LONGEST_SIDE / longer)
        size = [max(1, round(scale * pixels)) for pixels in (height, width)]
        resized = functional.interpolate(
            images.float().cpu(), size, mode="bilinear", antialias=True
        )
        # Set each image in a margin of its mean colour: (n, 3, h, w) -> (n, 3, H, W).
        margin = ceil(MARGIN * min(size))
        canvas = resized.mean((2, 3))[:, :, None, None].repeat(
            1, 1, *(pixels + 2 * margin for pixels in size)
        )
        canvas[..., margin : margin + size[0], margin : margin + size[1]] = resized
        pixels = 255 * canvas.permute(0, 2, 3, 1).numpy()

        # Detect: boxes (m, 4) and landmarks (m, 5, 2) of each image, None where there is no face.
        self._detector.min_face_size = max(LEAST_PIXELS, smallest * shorter * scale)
        with torch.no_grad():
            all_boxes, _, all_landmarks = self._detector.detect(pixels, landmarks=True)
        faces: list[FoundFace | None] = []
        for boxes, landmarks in zip(all_boxes, all_landmarks, strict=True):
            if boxes is None:
                faces.append(None)
                continue
            # Back to pixels of the image.
            boxes = (np.asarray(boxes, np.float64) - margin) / scale
            landmarks = (np.asarray(landmarks, np.float64) - margin) / scale
            # The largest face whose centre lies within the image.
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = ((centres >= 0) & (centres <= (width, height))).all(axis=1)
            areas = np.where(inside, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), -1.0)
            largest = int(areas.argmax())
            faces.append(FoundFace(landmarks[largest], boxes[largest]) if inside.any() else None)
        return faces

    def find_prepared(self, images: Tensor, crop: str) -> list[FoundFace | None]:
        """Find the face of each prepared image (n, 3, R, R): an original or an output in a crop."""
        return self.find_all(images, SMALLEST_PREPARED.get(crop, 1 / 4))

    def align(self, photo: Photo, crop: str, size: int) -> Tensor | None:
        """Cut a crop around the largest face.

        Parameters
        ----------
        photo : array, (H, W, 3)
            float in [0, 1], or uint8.
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
        if landmarks is None:  # a face that does not fill the photo
            landmarks = self.landmarks(photo, SMALL_FACE)
        return None if landmarks is None else cut(photo, SQUARES[crop](landmarks), size)


def _as_float(photo: NDArray[Any]) -> Photo:
    pixels: Photo = photo.astype(np.float32)
    return pixels / 255 if photo.dtype == np.uint8 else pixels
