"""Face detection and alignment to a crop.

MTCNN (Zhang et al. 2016, as in facenet-pytorch, whose wheel carries the weights) gives five
landmarks: the eyes, the nose and the corners of the mouth. A crop is a square in the photo,
placed by those landmarks; the photo is sampled over it with antialiasing, and mirrored where the
square leaves the photo. `paste` is the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
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

from pulse_audit.faces.crops import CROPS, SQUARES, Points, Square
from pulse_audit.frames import WHOLE, Frame
from pulse_audit.names import nearest
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from facenet_pytorch import MTCNN

Photo = NDArray[Any]

#: Smallest face looked for, as a share of the photo's shorter side: first a face that fills its
#: picture; when none is found and a crop is to be cut, a small one. Looking for small faces at once
#: finds faces in the texture of large ones, and costs ten times as much at 1120 px.
LARGE_FACE = 1 / 6
SMALL_FACE = 1 / 24

#: Least probability, by the detector, of a face beside the first of a photo.
FURTHER_FACE = 0.95

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

#: Soft edge of a pasted picture, as a share of half its side.
EDGE = 0.3

#: Smallest face looked for in prepared faces, by crop: their place in the frame is known.
SMALLEST_PREPARED = {"fairface-1.25": LARGE_FACE, "as-is": LARGE_FACE}


@dataclass(frozen=True)
class FoundFace:
    """A detected face, in pixels of its photo (x, y).

    ``landmarks`` (5, 2) are the eyes (left in the picture first), the nose and the corners of the
    mouth; ``box`` (4,) is left, top, right, bottom, and may leave the photo. ``probability`` is
    the detector's.
    """

    landmarks: Points
    box: Points
    probability: float

    @property
    def centre(self) -> Points:
        """The middle of the box, (x, y)."""
        return (self.box[:2] + self.box[2:]) / 2

    def meets(self, other: FoundFace) -> bool:
        """Whether the centre of one of two faces lies in the box of the other."""
        pairs = ((self, other.centre), (other, self.centre))
        return any(((f.box[:2] <= c) & (c <= f.box[2:])).all() for f, c in pairs)


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


def paste(photo: Photo, faces: Sequence[tuple[Square, Photo]]) -> Photo:
    """Set pictures into a photo, each over its square; the inverse of `cut`, with soft edges.

    With x and y from -1 to 1 in a square, a pixel at r = (x^4 + y^4)^(1/4) shows the picture up to
    r = 1 - `EDGE`, the photo from r = 1, and a mixture between. Where squares overlap, the
    picture whose 1 - r is larger prevails, by its fourth power.

    Parameters
    ----------
    photo : array, (H, W, 3)
        float in [0, 1], or uint8.
    faces : sequence of (Square, array)
        Square pictures (n, n, 3), float in [0, 1] or uint8, and where they belong in the photo.

    Returns
    -------
    array, (H, W, 3)
        float32 in [0, 1]; the photo's own values outside the squares.
    """
    photo = _as_float(photo)
    height, width = photo.shape[:2]
    cover, weight = np.zeros((2, height, width, 1), np.float32)
    colour = np.zeros_like(photo)
    for square, picture in faces:
        # The photo's pixels around the square.
        corners = square.to_photo(np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]))
        left, top = np.floor(corners.min(0)).clip(0).astype(int)
        right, bottom = np.ceil(corners.max(0)).clip(0, (width, height)).astype(int)
        if right <= left or bottom <= top:
            continue

        # From one of these pixels to the picture's, several samples a pixel where it shrinks.
        size = len(picture)
        finer = max(1, ceil(size / square.side))
        points = np.array([left, top]) + (np.array([[0, 0], [1, 0], [0, 1]]) + 0.5) / finer
        start, across, down = size * square.to_unit(points) - 0.5
        matrix = np.eye(3)
        matrix[:2] = np.stack([across - start, down - start, start], axis=1)
        shape = (bottom - top, right - left)
        fine = (shape[0] * finer, shape[1] * finer)
        sampled = warp(_as_float(picture), matrix, output_shape=fine, order=3, mode="edge")
        pixels = sampled.reshape(shape[0], finer, shape[1], finer, 3).mean(axis=(1, 3))

        # How far from the square's centre each pixel lies: (h, w, 1).
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        unit = square.to_unit(np.stack([x.ravel(), y.ravel()], axis=1))
        radius = ((2 * unit - 1) ** 4).sum(axis=1) ** 0.25
        inside = (1 - radius).clip(0).reshape(*shape, 1)
        edge = (inside / EDGE).clip(0, 1)
        place = np.s_[top:bottom, left:right]
        cover[place] = np.maximum(cover[place], edge * edge * (3 - 2 * edge))
        weight[place] += inside**4
        colour[place] += inside**4 * pixels
    mixed = colour / np.maximum(weight, np.finfo(np.float32).tiny)
    pasted: Photo = np.where(weight > 0, photo + cover * (mixed - photo), photo).clip(0, 1)
    return pasted


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
        return [faces[0] if faces else None for faces in self._detect(images, smallest)]

    def find_every(self, photo: Photo) -> list[FoundFace]:
        """Find all faces of a photo, from left to right: the one of `square`, and others apart.

        Another face is none that `FoundFace.meets` one found before, and has a probability of at
        least `FURTHER_FACE`. Small ones are looked for beside large ones.
        """
        pixels = np.ascontiguousarray(_as_float(photo).transpose(2, 0, 1))
        found: list[FoundFace] = []
        for smallest in (LARGE_FACE, SMALL_FACE):
            for face in self._detect(torch.from_numpy(pixels)[None], smallest)[0]:
                apart = not any(face.meets(other) for other in found)
                if not found or (apart and face.probability >= FURTHER_FACE):
                    found.append(face)
        return sorted(found, key=lambda face: float(face.centre[0]))

    def _detect(self, images: Tensor, smallest: float) -> list[list[FoundFace]]:
        """Find the faces of each image whose centre lies within it, the largest first."""
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
            detected = self._detector.detect(pixels, landmarks=True)
        found: list[list[FoundFace]] = []
        for boxes, probabilities, landmarks in zip(*detected, strict=True):
            faces: list[FoundFace] = []
            if boxes is not None:
                # Back to pixels of the image.
                boxes = (np.asarray(boxes, np.float64) - margin) / scale
                landmarks = (np.asarray(landmarks, np.float64) - margin) / scale
                each = zip(landmarks, boxes, probabilities, strict=True)
                faces = [FoundFace(*face) for face in each]
            within = [f for f in faces if ((f.centre >= 0) & (f.centre <= (width, height))).all()]
            found.append(sorted(within, key=lambda f: -float(np.prod(f.box[2:] - f.box[:2]))))
        return found

    def find_prepared(self, images: Tensor, crop: str) -> list[FoundFace | None]:
        """Find the face of each prepared image (n, 3, R, R): an original or an output in a crop."""
        return self.find_all(images, SMALLEST_PREPARED.get(crop, 1 / 4))

    def square(self, photo: Photo, crop: str) -> Square | None:
        """Place a crop around the largest face.

        Parameters
        ----------
        photo : array, (H, W, 3)
            float in [0, 1], or uint8.
        crop : str
            One of `CROPS`.

        Returns
        -------
        Square or None
            It may leave the photo; None where no face is found.

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
        return None if landmarks is None else SQUARES[crop](landmarks)

    def squares(self, photo: Photo, crop: str) -> list[Square]:
        """Place a crop, one of `CROPS`, around every face; see `find_every`."""
        return [SQUARES[crop](face.landmarks) for face in self.find_every(photo)]

    def align(self, photo: Photo, crop: str, size: int) -> Tensor | None:
        """Cut a crop around the largest face, see `square`: (3, size, size), None without a face.

        The photo is mirrored where the crop leaves it.
        """
        square = self.square(photo, crop)
        return None if square is None else cut(photo, square, size)


def _as_float(photo: NDArray[Any]) -> Photo:
    pixels: Photo = photo.astype(np.float32)
    return pixels / 255 if photo.dtype == np.uint8 else pixels
