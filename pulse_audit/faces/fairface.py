"""FairFace's own classifier: a ResNet-34 for apparent race, gender and age.

Two files were published, both with 18 outputs. Of the seven-race one they are race (7), gender (2)
and age (9). Of the four-race one the authors' predict.py reads the first four alone, as race; what
the other fourteen hold is stated nowhere (github.com/dchen236/FairFace, issue 19), so they are not
read here either, although third parties read gender and age where the seven-race file has them.

References
----------
K. Karkkainen and J. Joo (2021), FairFace, WACV, arXiv:1908.04913; predict.py of
github.com/dchen236/FairFace for the order of the outputs.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.faces.attributes import resized
from pulse_audit.seeding import sha256
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
#: The last is ``70+`` in predict.py, and in the data set what it is here.
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
        mean, std = (inputs.new_tensor(three).view(1, 3, 1, 1) for three in (MEAN, STD))
        features = self._trunk((inputs - mean) / std)
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
    layout = LAYOUTS[name]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    card = AttributeCard(
        name=name,
        vocabulary={attribute: words for attribute, (words, _) in layout.attributes.items()},
        resolution=RESOLUTION,
        crop=CROP,
        feature_dim=FEATURE_DIM,
        training_data=training_data,
        licence=licence,
        sha256=sha256(data),
        notes=layout.notes,
    )
    return FairFace(_network(path, _read(path, data)), layout, card)


def _read(path: Path, data: bytes) -> Mapping[str, Any]:
    """Return the state dict in a file; ``weights_only`` runs nothing of what is in it."""
    try:
        with warnings.catch_warnings():
            # Of other pickle protocols than 2, which are refused or read just the same.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        LookupError,
        ValueError,
        TypeError,
    ) as e:
        reason = " ".join(str(e).split())[:120]
        raise InputError(f"{path}: holds no plain weights ({reason}); nothing was run") from None
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: holds a {type(state).__name__}, not FairFace's weights")
    return state


def _network(path: Path, state: Mapping[str, Any]) -> nn.Module:
    """Build the network and fill it; keys and shapes have to be those of a resnet34."""
    from torchvision.models import resnet34

    with torch.device("meta"):  # no random weights that are thrown away
        network: nn.Module = resnet34(num_classes=OUTPUTS)
    expected = network.state_dict()
    # Counters that evaluation does not read; files before PyTorch 0.4.1 lack them.
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    found = {key: value for key, value in state.items() if key not in counters}
    _check_state(path, found, {k: tuple(v.shape) for k, v in expected.items() if k not in counters})
    weights = {key: value.float() for key, value in found.items()}
    zero = torch.zeros((), dtype=torch.long)
    network.load_state_dict({**weights, **dict.fromkeys(counters, zero)}, assign=True)
    return network


def _check_state(
    path: Path, state: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise InputError unless the tensors are the expected ones, and finite."""
    what = f"{path}: is no resnet34 with {OUTPUTS} outputs, as FairFace's are"
    for key in expected:
        if not isinstance(state.get(key), Tensor):
            raise InputError(f"{what}: {key!r} is missing")
        if tuple(state[key].shape) != expected[key]:
            raise InputError(f"{what}: {key!r} has shape {tuple(state[key].shape)}")
        if not bool(torch.isfinite(state[key]).all()):
            raise InputError(f"{path}: {key!r} holds numbers that are not finite")
    further = next((key for key in state if key not in expected), None)
    if further is not None:
        raise InputError(f"{what}: it also holds {str(further)[:60]!r}")
