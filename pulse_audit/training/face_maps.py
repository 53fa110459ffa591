"""Landmark heatmaps and parsing maps by recipe, for data sets that have neither.

FSRNet (Chen et al. 2018) learns from 194 landmarks and 11 regions that were labelled by people, or
by networks trained on their labels. Here five landmarks come from O-Net, the last stage of MTCNN
(Zhang et al. 2016, as in facenet-pytorch, whose wheel carries the weights), and the regions are
ellipses placed by them. Hair is no region, and lips are one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from facenet_pytorch.models.mtcnn import ONet
from torch import Tensor

#: Maps in the order of `parsing_maps`; left and right as in the picture.
REGIONS = (
    "background",
    "skin",
    "left brow",
    "right brow",
    "left eye",
    "right eye",
    "nose",
    "mouth",
)
LANDMARKS = 5
#: Standard deviation of a landmark's Gaussian, as a share of the side: one pixel of 32.
SPREAD = 1 / 32
#: Distance of the eyes over that from the eyes to the mouth, in a frontal face (FairFace's median).
ASPECT = 0.914
#: O-Net's input in pixels, where the face is looked for first (centre and side, as shares of the
#: side of a photo with FairFace's margin of 0.25), and how often its own box is looked at again.
ONET_PIXELS, FIRST_BOX, LOOKS = 48, (0.5, 0.5, 0.8), 2
#: Least probability of a face, by O-Net; below it there are no landmarks.
LEAST_FACE = 0.6


@torch.no_grad()
def find_landmarks(network: ONet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Find the landmarks of faces that fill their photos as FairFace's do.

    MTCNN's first two stages propose boxes; here the box is known, within what O-Net corrects. It
    looks at the square of `FIRST_BOX`, then at the box that it finds there.

    Parameters
    ----------
    network : ONet
        See `facenet_pytorch`.
    images : Tensor, (n, 3, R, R)
        In [0, 1].

    Returns
    -------
    landmarks : Tensor, (n, 5, 2)
        Eyes (left in the picture first), nose, corners of the mouth: x and y as shares of the
        side, from the upper left corner.
    found : Tensor, (n,)
        Whether O-Net sees a face there.
    """
    box = torch.tensor(FIRST_BOX).repeat(len(images), 1)
    for _ in range(LOOKS):
        # Sample each box, centre and side, on O-Net's grid: (n, 3, 48, 48) in [-1, 1].
        offsets = (torch.arange(ONET_PIXELS) + 0.5) / ONET_PIXELS - 0.5
        x = box[:, :1] + box[:, 2:] * offsets
        y = box[:, 1:2] + box[:, 2:] * offsets
        grid = torch.stack(
            [
                x[:, None, :].expand(-1, ONET_PIXELS, -1),
                y[:, :, None].expand(-1, -1, ONET_PIXELS),
            ],
            dim=3,
        )
        crops = F.grid_sample(images, 2 * grid - 1, padding_mode="border", align_corners=False)
        # With channels last, O-Net takes a third of the time on a CPU.
        crops = crops.contiguous(memory_format=torch.channels_last)
        shift, points, chances = network((crops * 255 - 127.5) / 128)
        # Points come as five x and five y, from the upper left corner of the box.
        corner = box[:, :2] - box[:, 2:] / 2
        landmarks = corner[:, None] + box[:, None, 2:] * points.view(-1, 2, 5).transpose(1, 2)
        # The corrected box, as a square around its centre.
        upper, lower = corner + box[:, 2:] * shift[:, :2], corner + box[:, 2:] * (1 + shift[:, 2:])
        side = (lower - upper).amax(1, keepdim=True).clamp(0.4, 1.2)
        box = torch.cat([((upper + lower) / 2).clamp(0.25, 0.75), side], dim=1)
    return landmarks, chances[:, 1] >= LEAST_FACE


def _pixel_centres(side: int) -> Tensor:
    """Centres of the pixels of a square, (side, side, 2): x and y as shares of the side."""
    places = (torch.arange(side) + 0.5) / side
    return torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=2)


def heatmaps(landmarks: Tensor, side: int) -> Tensor:
    """Draw a Gaussian of height 1 at each landmark.

    Parameters
    ----------
    landmarks : Tensor, (n, k, 2)
        x and y as shares of the side.
    side : int
        Of the maps, in pixels.

    Returns
    -------
    Tensor, (n, k, side, side)
    """
    offsets = _pixel_centres(side) - landmarks[:, :, None, None]
    return torch.exp(-offsets.square().sum(-1) / (2 * SPREAD**2))


def parsing_maps(landmarks: Tensor, side: int) -> Tensor:
    """Draw the regions of `REGIONS`.

    Each but background and skin is an ellipse along the axes of the face, whose unit is the
    distance of the eyes, or `ASPECT` times that from the eyes to the mouth where this is longer (a
    turned head). Skin is an ellipse around the face without these; background is the rest.

    Parameters
    ----------
    landmarks : Tensor, (n, 5, 2)
        As by `find_landmarks`.
    side : int
        Of the maps, in pixels.

    Returns
    -------
    Tensor, (n, 8, side, side)
        Shares of each pixel in [0, 1]; edges are one pixel soft.
    """
    left, right, nose, mouth_left, mouth_right = landmarks.unbind(1)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across, down = right - left, mouth - eyes
    # The axis of the face to its side: across, and perpendicular to down (as FFHQ's crop has it).
    axis = F.normalize(across + torch.stack([down[:, 1], -down[:, 0]], dim=1), dim=1)
    upright = torch.stack([-axis[:, 1], axis[:, 0]], dim=1)
    unit = torch.maximum(across.norm(dim=1), ASPECT * down.norm(dim=1))[:, None]
    pixels = _pixel_centres(side)

    def ellipse(centre: Tensor, half_width: Tensor | float, half_height: float) -> Tensor:
        """Share of each pixel within an ellipse; half axes in units of the face."""
        offsets = (pixels - centre[:, None, None]) / unit[:, None, None]
        x = (offsets * axis[:, None, None]).sum(-1) / half_width
        y = (offsets * upright[:, None, None]).sum(-1) / half_height
        radius = torch.sqrt(x.square() + y.square())
        # Across an edge along the smaller half axis the share falls from 1 to 0 within a pixel.
        return ((1 - radius) * half_height * unit[:, None] * side + 0.5).clamp(0, 1)

    lips = (mouth_right - mouth_left).norm(dim=1, keepdim=True) / (2 * unit) + 0.05
    parts = torch.stack(
        [
            ellipse(left - 0.32 * unit * upright, 0.30, 0.09),
            ellipse(right - 0.32 * unit * upright, 0.30, 0.09),
            ellipse(left, 0.24, 0.13),
            ellipse(right, 0.24, 0.13),
            ellipse(0.35 * eyes + 0.65 * nose, 0.25, 0.42),
            ellipse(mouth, lips[:, None], 0.20),
        ],
        dim=1,
    )
    face = ellipse((eyes + mouth) / 2, 1.0, 1.35)
    skin = face * (1 - parts.amax(1))
    return torch.cat([(1 - face)[:, None], skin[:, None], parts], dim=1)
