"""Feature networks for distances between sets of images (FID, KID), each under its own name.

A distance is a statement about one network's features: FID's Inception, trained on ImageNet, or
an attribute model, which knows faces and little else. Values of two networks are never compared,
and every value is printed with its network's name. The distances themselves are in
`pulse_audit.stats.distances`.

References
----------
C. Szegedy et al. (2016), CVPR (Inception v3). M. Heusel et al. (2017), NeurIPS (FID; pool3 of the
Inception of 2015-12-05). G. Parmar, R. Zhang and J.-Y. Zhu (2022), CVPR (resizing).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pulse_audit.types import InputError

INCEPTION = "inception-2015-12-05 pool3"

#: Side of what Inception sees, its features, and the classes of the weights (1,000 and 8 unused).
SIDE = 299
POOL3 = 2048
_CLASSES = 1008

#: Blocks whose branch of a 3 x 3 average leaves the padding out of the mean, unlike torchvision's,
#: and the last one, where it is a maximum: so in the network of 2015 that FID is defined by.
_AVERAGE = (
    *("Mixed_5b", "Mixed_5c", "Mixed_5d"),
    *("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7b"),
)
_MAXIMUM = ("Mixed_7c",)


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
        found = np.empty((len(images), self.dimension), dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(images), batch):
                part = self.features(images[start : start + batch])
                found[start : start + batch] = part.float().cpu().numpy()
        return found


def inception(path: Path, device: torch.device | str = "cpu") -> FeatureNetwork:
    """Read pytorch-fid's file of weights; only tensors are read, no code in it is run.

    Images are resized to 299 px, bilinear, with antialiasing where they shrink (Parmar et al. 2022;
    pytorch-fid has none: for images of up to 299 px that is the same), and scaled to [-1, 1].

    Raises
    ------
    InputError
        If the file cannot be read, or holds something else.
    """
    network = _architecture()
    try:
        network.load_state_dict(_tensors(path), assign=True)
    except (RuntimeError, TypeError, AttributeError):
        message = "is not FID's Inception (names or shapes of tensors differ)"
        raise InputError(f"{path}: {message}") from None
    module = _as_of_2015(network).eval().requires_grad_(False).to(device)

    def features(images: Tensor) -> Tensor:
        # TF32 would round away three decimals, and pick algorithms by the size of the batch.
        with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
            found: Tensor = module(prepared(images.to(device)))
        return found

    return FeatureNetwork(INCEPTION, POOL3, features)


def prepared(images: Tensor) -> Tensor:
    """Resize images in [0, 1] to 299 px and scale them to [-1, 1]."""
    if images.shape[-2:] != (SIDE, SIDE):
        images = functional.interpolate(
            images, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
        )
    return 2 * images.clamp(0, 1) - 1


class _Block(nn.Module):
    """A block of torchvision's Inception v3 with another pooling in its last branch."""

    def __init__(self, block: Any, pool: nn.Module) -> None:
        super().__init__()
        self.block, self.pool = block, pool

    def forward(self, x: Tensor) -> Tensor:
        # The branches as a list; the last is torchvision's pooling, which is done anew.
        branches = self.block._forward(x)[:-1]
        return torch.cat([*branches, self.block.branch_pool(self.pool(x))], 1)


def _architecture() -> Any:
    from torchvision.models import inception_v3

    with torch.device("meta"):  # no random weights are drawn only to be replaced
        return inception_v3(
            weights=None, num_classes=_CLASSES, aux_logits=False, init_weights=False
        )


def _as_of_2015(network: Any) -> nn.Module:
    """Put in the poolings of 2015, and take the classifier off."""
    average = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    maximum = nn.MaxPool2d(3, stride=1, padding=1)
    for names, pool in ((_AVERAGE, average), (_MAXIMUM, maximum)):
        for name in names:
            setattr(network, name, _Block(getattr(network, name), pool))
    network.fc = nn.Identity()
    module: nn.Module = network
    return module


def _tensors(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError):
        raise InputError(f"{path}: is not a file of PyTorch tensors") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds {type(content).__name__}, not tensors by name")
    return content
