"""Photo -> prepared face: aligned where the run's crop asks for it, and resized."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pulse_audit.faces.align import FaceAligner, centre_square


def prepared(
    photo: NDArray[np.float32], aligner: FaceAligner | None, crop: str, resolution: int
) -> tuple[Tensor, bool | None]:
    """Prepare a decoded photo (H, W, 3) as an original (3, R, R), and say if a face was found.

    A photo without a findable face is taken unaligned: dropping it would drop the groups on which
    the detector fails. Without an aligner no detector runs, and the answer is None.
    """
    aligned, found = None, None
    if aligner is not None:
        aligned = aligner.align(photo, crop, resolution)
        found = aligned is not None
    return centre_square(photo, resolution) if aligned is None else aligned, found
