"""What becomes of a foreign method's output: it has the size that is due, or the draw is an error.

Nothing is resized: an output of another size is of another method, or of another input.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.types import Degradation, Request, Status, Upsampled

if TYPE_CHECKING:
    from torch import Tensor

#: From a folder and a file's name below it to the picture, (3, H, W) in [0, 1]; ValueError with a
#: short reason where it is none, or leads out of the folder.
ReadPicture = Callable[[Path, str], "Tensor"]


def wrong_size(image: Tensor, lr: Tensor, scale: int) -> str | None:
    """Say why a picture cannot be the output for an input; None if it can.

    Parameters
    ----------
    image : Tensor, (3, H, W)
    lr : Tensor, (3, h, w)
    scale : int
        Of the run: H and W have to be h and w times it.
    """
    (h, w), (height, width) = lr.shape[-2:], image.shape[-2:]
    if (height, width) == (h * scale, w * scale):
        return None
    return (
        f"the output is {width} x {height} px, where {w * scale} x {h * scale} are due: {scale} "
        f"times the input of {w} x {h}"
    )


def judged(image: Tensor, request: Request, degradation: Degradation, seconds: float) -> Upsampled:
    """Answer a request with an output (3, H, W) in [0, 1], its downscale error measured.

    The error is that against the input itself, which files hold at 8 bits.
    """
    if reason := wrong_size(image, request.lr, degradation.scale):
        return failed(reason, seconds)
    image = image.to(request.lr)
    small = degradation.downscale(image[None])[0]
    error = float((small - request.lr).double().square().mean())
    return Upsampled(image, error, None, 0, seconds, Status.OK)


def failed(reason: str, seconds: float = 0.0) -> Upsampled:
    """Answer a request for which there is no output."""
    return Upsampled(None, None, False, 0, seconds, Status.ERROR, reason)
