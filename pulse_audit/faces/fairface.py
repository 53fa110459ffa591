"""FairFace's own classifier: a ResNet-34 for apparent race, gender and age.

Two files were published, both with 18 outputs. Those of the seven-race file are race (7), gender
(2) and age (9). Of the four-race file the authors' predict.py reads only the first four, as race;
the meaning of the others is stated nowhere (github.com/dchen236/FairFace, issue 19), so they are
not read here either.

References
----------
K. Karkkainen and J. Joo (2021), FairFace, WACV, arXiv:1908.04913; predict.py of
github.com/dchen236/FairFace for the order of the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.faces.attributes import normalised, resized
from pulse_audit.files import file_sha256, read_state
from pulse_audit.types import AttributeCard, Attributes, InputError

RESOLUTION = 224
CROP = "fairface-0.25"
FEATURE_DIM = 512
OUTPUTS = 18

#: Of ImageNet, as in predict.py.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

RACES = (
    "White", "Black", "Latino_Hispanic", "East Asian", "Southeast Asian", "Indian",
    "Middle Eastern",
)  # fmt: skip
GENDERS = ("Male", "Female")
#: The last is ``70+`` in predict.py; these are the words of the data set.
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")

#: Measured on the 207 of 210 photos of a balanced FairFace sample in which MTCNN finds a face: the
#: square that its landmarks give, against the photo's own frame, which dlib placed.
ALIGNMENT = (
    "made for faces that dlib's get_face_chips (five landmarks, padding 0.25) cuts; here MTCNN's "
    "five landmarks are put where FairFace's photos have them (crop fairface-0.25), which moves "
    "the corners of a crop by 6 % of its side (median over 207 photos; 19 % in one of ten), and "
    "its size by a factor of 0.90 to 1.22 (nine of ten photos)"
)


@dataclass(frozen=True)
class Layout:
    """Which outputs of a file mean what: attribute -> (its words, index of the first output)."""

    attributes: Mapping[str, tuple[tuple[str, ...], int]]
    notes: tuple[str, ...]


#: By the name of the weights. The four races are an attribute of their own: most data sets call
#: other words ``race``.
LAYOUTS: Mapping[str, Layout] = {
    "fairface-race7": Layout(
        {"race": (RACES, 0), "gender": (GENDERS, 7), "age": (AGES, 9)}, (ALIGNMENT,)
    ),
    "fairface-race4": Layout(
        {"race4": (("White", "Black", "Asian", "Indian"), 0)},
        (
            ALIGNMENT,
            "of its 18 outputs the first four are read, as its authors do; how they made four "
            "races of seven is not stated",
        ),
    ),
}


class FairFace:
    """FairFace's ResNet-34 as an attribute model; features are its average pool, (n, 512).

    Parameters
    ----------
    network : torchvision.models.ResNet
        With 18 outputs; frozen here.
    layout : Layout
        What the outputs mean.
    card : AttributeCard
    """

    differentiable = True

    def __init__(self, network: nn.Module, layout: Layout, card: AttributeCard) -> None:
        self.card = card
        self._layout = layout
        self._head = network.get_submodule("fc")
        network.set_submodule("fc", nn.Identity())
        self._trunk = network.eval().requires_grad_(False)
        self._head.requires_grad_(False)

    def __call__(self, images: Tensor) -> Attributes:
        """Predict from (n, 3, R, R) in [0, 1]; those that are not 224 px are resized."""
        inputs = resized(images.float().clamp(0, 1), RESOLUTION)
        features = self._trunk(normalised(inputs, MEAN, STD))
        # (n, 512) -> (n, 18), of which every attribute has its own columns.
        outputs = self._head(features)
        probabilities = {
            attribute: F.softmax(outputs[:, first : first + len(words)], dim=1)
            for attribute, (words, first) in self._layout.attributes.items()
        }
        return Attributes(probabilities, features)

    def to(self, device: torch.device | str) -> Self:
        """Move to a device; returns the model itself."""
        self._trunk.to(device)
        self._head.to(device)
        return self


def load_fairface(
    path: Path,
    name: str,
    *,
    training_data: str | None = None,
    licence: str | None = None,
) -> FairFace:
    """Load a file of FairFace's authors; nothing in it is executed.

    Parameters
    ----------
    path : Path
        The ``.pt`` file: a state dict of torchvision's resnet34 with 18 outputs.
    name : str
        Which of the two it is, one of `LAYOUTS`: the files differ in their weights alone.
    training_data, licence : str, optional
        For the card.

    Raises
    ------
    InputError
        If the file cannot be read, or holds something else.
    """
    from torchvision.models import resnet34

    state = read_state(path)
    with torch.device("meta"):  # no random weights that are thrown away
        network: nn.Module = resnet34(num_classes=OUTPUTS)
    # Keys and shapes have to be those of the network, but for the counters of batches: evaluation
    # does not read them, and files before PyTorch 0.4.1 lack them.
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    weights = {key: value for key, value in state.items() if key not in counters}
    refusal = f"{path}: is no resnet34 with {OUTPUTS} outputs, as FairFace's are"
    for key in (key for key in shapes if key not in counters):
        if not isinstance(weights.get(key), Tensor):
            raise InputError(f"{refusal}: {key!r} is missing")
        if tuple(weights[key].shape) != shapes[key]:
            raise InputError(f"{refusal}: {key!r} has shape {tuple(weights[key].shape)}")
        if not bool(torch.isfinite(weights[key]).all()):
            raise InputError(f"{path}: {key!r} holds numbers that are not finite")
    unknown = next((key for key in weights if key not in shapes), None)
    if unknown is not None:
        raise InputError(f"{refusal}: it also holds {str(unknown)[:60]!r}")
    tensors = {key: value.float() for key, value in weights.items()}
    zero = torch.zeros((), dtype=torch.long)
    network.load_state_dict({**tensors, **dict.fromkeys(counters, zero)}, assign=True)

    layout = LAYOUTS[name]
    card = AttributeCard(
        name=name,
        vocabulary={attribute: words for attribute, (words, _) in layout.attributes.items()},
        resolution=RESOLUTION,
        crop=CROP,
        feature_dim=FEATURE_DIM,
        training_data=training_data,
        licence=licence,
        sha256=file_sha256(path),
        notes=layout.notes,
    )
    return FairFace(network, layout, card)
