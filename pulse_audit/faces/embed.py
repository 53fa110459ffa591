"""FaceNet embeddings of faces, to measure whether two images show the same person.

The network is facenet-pytorch's Inception-ResNet v1 with weights trained on VGGFace2; the weights
come as a file, nothing is downloaded here. A face is cut as facenet-pytorch cuts it: MTCNN's box
with the margin of the package's own evaluation on LFW, not rotated, squeezed to a 160 px square.

Small faces are enlarged to 160 px with bilinear interpolation. They are blurred, so embeddings of
different people lie closer together: compare cosines at one resolution only, and take the
threshold of a verification from originals of that resolution
(`pulse_audit.metrics.identity.impostor_threshold`).

References
----------
F. Schroff, D. Kalenichenko and J. Philbin (2015), FaceNet, CVPR. Q. Cao et al. (2018), VGGFace2,
IEEE FG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from pulse_audit.faces.crops import Points
from pulse_audit.files import read_state
from pulse_audit.types import InputError

if TYPE_CHECKING:
    from facenet_pytorch import InceptionResnetV1

#: Name of the published weights.
WEIGHTS = "facenet-vggface2"

#: Side of the faces the network was made for, and the margin around MTCNN's box, in its pixels.
SIDE = 160
MARGIN = 14

#: Length of an embedding.
DIMENSION = 512

#: Smaller images are enlarged by a whole factor before a face is cut at whole pixels; at 32 px the
#: rounding of the box would otherwise move it by 5 % of the face.
_FINE = 256
_BATCH = 32


class FaceNet:
    """FaceNet's embedding of faces as unit vectors.

    Deterministic, and an image's embedding is independent of its batch mates (to float32's
    rounding).

    Parameters
    ----------
    network : facenet_pytorch.InceptionResnetV1
        With ``classify=False``.
    device : torch.device or str
        Where it runs.
    """

    def __init__(self, network: InceptionResnetV1, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self.device)

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> FaceNet:
        """Read the weights of a file that facenet-pytorch publishes.

        Only tensors are read, no code in the file is run. The classifier's last layer is left out.

        Raises
        ------
        InputError
            If the file cannot be read, or holds something else.
        """
        from facenet_pytorch import InceptionResnetV1

        content = read_state(path)
        tensors = {k: v for k, v in content.items() if not str(k).startswith("logits.")}
        with torch.device("meta"):  # no random weights are drawn only to be replaced
            network = InceptionResnetV1(pretrained=None)
        try:
            network.load_state_dict(tensors, assign=True)
        except (RuntimeError, TypeError, AttributeError):
            message = "is not FaceNet's Inception-ResNet v1 (names or shapes of tensors differ)"
            raise InputError(f"{path}: {message}") from None
        return cls(network, device)

    @torch.no_grad()
    def embed(self, images: Tensor, boxes: Sequence[Points | None] | None = None) -> Tensor:
        """Embed faces.

        Parameters
        ----------
        images : Tensor, (n, 3, h, w)
            In [0, 1].
        boxes : sequence of array (4,) or None, optional
            Left, top, right and bottom of each face (`pulse_audit.faces.align.FoundFace.box`), None
            where there is no face. Without boxes, the images are cut faces already, and are resized
            only.

        Returns
        -------
        Tensor, (n, 512)
            float32 unit vectors, on the network's device; NaN where there is no face.
        """
        result = torch.full((len(images), DIMENSION), math.nan, device=self.device)
        rows = [k for k in range(len(images)) if boxes is None or boxes[k] is not None]
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            faces = []
            for k in batch:
                box = None if boxes is None else boxes[k]
                faces.append(
                    _resized(images[k], SIDE, SIDE) if box is None else cut_face(images[k], box)
                )
            # The network expects (255 x - 127.5) / 128 of values in [0, 1].
            inputs = (255.0 * torch.stack(faces).to(self.device).clamp(0, 1) - 127.5) / 128.0
            # TF32 would round away three decimals, and pick algorithms by the size of the batch.
            with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
                result[batch] = self._network(inputs)
        return result


def cut_face(image: Tensor, box: Points) -> Tensor:
    """Cut a face as facenet-pytorch does: box and margin within the image, squeezed to a square.

    Parameters
    ----------
    image : Tensor, (3, h, w)
        In [0, 1]; enlarged by a whole factor first where a side has fewer than 256 px.
    box : array, (4,)
        Left, top, right, bottom in pixels; what leaves the image is cut off.

    Returns
    -------
    Tensor, (3, 160, 160)
        In [0, 1].
    """
    finer = max(1, math.ceil(_FINE / min(image.shape[-2:])))
    image = _resized(image, finer * image.shape[-2], finer * image.shape[-1])
    # The margin makes up MARGIN of the SIDE pixels of the result.
    left, top, right, bottom = (finer * float(edge) for edge in box)
    wider = (right - left) * MARGIN / (SIDE - MARGIN) / 2
    higher = (bottom - top) * MARGIN / (SIDE - MARGIN) / 2
    x, width = _within(left - wider, right + wider, image.shape[-1])
    y, height = _within(top - higher, bottom + higher, image.shape[-2])
    return _resized(image[:, y : y + height, x : x + width], SIDE, SIDE)


def _within(low: float, high: float, size: int) -> tuple[int, int]:
    """First whole pixel of a range within [0, size), and how many: at least one."""
    first = min(int(max(low, 0)), size - 1)
    return first, max(1, int(min(high, size)) - first)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    if image.shape[-2:] == (height, width):
        return image
    size = (height, width)
    return functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
