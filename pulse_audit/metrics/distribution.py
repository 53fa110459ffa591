"""The Inception network whose features FID is defined by, for distances between sets of images.

A distance depends on the network whose features it compares: values of two networks must not be
compared, so every row names its network. The distances are in `pulse_audit.stats.distances`.

References
----------
C. Szegedy et al. (2016), CVPR (Inception v3). M. Heusel et al. (2017), NeurIPS (FID; pool3 of the
Inception of 2015-12-05). G. Parmar, R. Zhang and J.-Y. Zhu (2022), CVPR (resizing).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pulse_audit.files import read_state
from pulse_audit.types import InputError

INCEPTION = "inception-2015-12-05 pool3"

#: Side of Inception's input, length of its features, classes of the weights (1,000 and 8 unused).
SIDE = 299
POOL3 = 2048
CLASSES = 1008

#: In the network of 2015, the 3 x 3 average of these blocks leaves the padding out of the mean,
#: unlike torchvision's; in the last block it is a maximum.
AVERAGE = (
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b"),
)
MAXIMUM = ("Mixed_7c",)


@dataclass(frozen=True)
class FeatureNetwork:
    """A named map from images (n, 3, h, w) in [0, 1] to features (n, ``dimension``)."""

    name: str
    dimension: int
    features: Callable[[Tensor], Tensor]

    def of(self, images: Tensor, batch: int = 32) -> NDArray[np.float32]:
        """Features of any number of images, as an array.

        An image's features are independent of its batch mates, to float32's rounding; features of
        originals are worth keeping, they serve every arm.

        Parameters
        ----------
        images : Tensor, (n, 3, h, w)
            In [0, 1].
        batch : int
            Images at a time.

        Returns
        -------
        array, (n, dimension)
            float32.
        """
        vectors = np.empty((len(images), self.dimension), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(images), batch):
                part = self.features(images[start : start + batch])
                vectors[start : start + batch] = part.float().cpu().numpy()
        return vectors


def inception(path: Path, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Read pytorch-fid's file of weights; only tensors are read, no code in it is run.

    Images are resized to 299 px, bilinear, with antialiasing where they shrink (Parmar et al. 2022;
    pytorch-fid has none: for images of up to 299 px that is the same), and scaled to [-1, 1].

    Raises
    ------
    InputError
        If the file cannot be read, or holds something else.
    """
    from torchvision.models import inception_v3

    state = read_state(path)

    # torchvision's architecture; on "meta" no random weights are drawn only to be replaced.
    with torch.device("meta"):
        network: Any = inception_v3(
            weights=None, num_classes=CLASSES, aux_logits=False, init_weights=False
        )
    try:
        network.load_state_dict(state, assign=True)
    except (RuntimeError, TypeError, AttributeError):
        message = "is not FID's Inception (names or shapes of tensors differ)"
        raise InputError(f"{path}: {message}") from None

    # The pooling layers of 2015, and no classifier: what is left ends in pool3.
    average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    maximum = nn.MaxPool2d(3, stride=1, padding=1)
    for names, pool in ((AVERAGE, average), (MAXIMUM, maximum)):
        for name in names:
            setattr(network, name, PooledBlock(getattr(network, name), pool))
    network.fc = nn.Identity()
    module: nn.Module = network.eval().requires_grad_(False).to(device)

    def features(images: Tensor) -> Tensor:
        # TF32 would round away three decimals, and pick algorithms by the size of the batch.
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            # (n, 3, h, w) -> (n, 2048)
            vectors: Tensor = module(prepared(images.to(device)))
        return vectors

    return FeatureNetwork(INCEPTION, POOL3, features)


def prepared(images: Tensor) -> Tensor:
    """Resize images in [0, 1] to 299 px and scale them to [-1, 1]."""
    if images.shape[-2:] != (SIDE, SIDE):
        images = functional.interpolate(
            images, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
    return 2 * images.clamp(0, 1) - 1


class PooledBlock(nn.Module):
    """A block of torchvision's Inception v3 with another pooling in its last branch."""

    def __init__(self, block: Any, pool: nn.Module) -> None:
        super().__init__()
        self.block, self.pool = block, pool

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block, its last branch with the other pooling."""
        # The branches as a list; the last is torchvision's pooling, which is done anew.
        branches = self.block._forward(x)[:-1]
        return torch.cat([*branches, self.block.branch_pool(self.pool(x))], 1)
