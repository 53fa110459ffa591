"""Measuring networks whose weights are fetched by name: there, or unavailable and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pulse_audit.types import InputError, Unavailable

if TYPE_CHECKING:
    import torch

    from pulse_audit.faces.embed import FaceNet

FACENET = "facenet-vggface2"


def face_embedder(device: torch.device | str = "cpu") -> FaceNet | Unavailable:
    """Load FaceNet from the fetched weights.

    Returns
    -------
    FaceNet or Unavailable
        Unavailable where the weights are not fetched; the reason names the command that does.

    Raises
    ------
    InputError
        If the fetched file holds something else.
    """
    from pulse_audit.faces.embed import FaceNet

    path = _fetched(FACENET, "identity_cosine and verified")
    return path if isinstance(path, Unavailable) else FaceNet.load(path, device)


def _fetched(name: str, measures: str) -> Path | Unavailable:
    from pulse_audit.catalogue import fetched
    from pulse_audit.weights.registry import get

    try:
        return fetched(get(name))[0]
    except InputError as error:
        return Unavailable(f"{measures}: {error}")
