"""The shipped attribute model: a small residual network for apparent race, gender and age.

Its weights are safetensors beside a JSON card of the same name, with the SHA-256 of the weights,
the words of every attribute, the temperatures, and the confusion matrices of held-out faces at each
size of image they were measured at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from pulse_audit.faces.attributes import resized
from pulse_audit.files import card_path, check_belongs, fill_network, read_card, write_network
from pulse_audit.types import AttributeCard, Attributes, InputError

KIND = "attribute net"
#: Side in pixels of the images the network takes; others are resized to it.
RESOLUTION = 64


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, arXiv:1512.03385, figure 3)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm_first = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_second = nn.BatchNorm2d(outputs)
        self.shortcut = (
            nn.Identity()
            if inputs == outputs and stride == 1
            # Averaging before the 1x1 convolution drops no pixel (He et al. 2019, ResNet-D).
            else nn.Sequential(
                nn.AvgPool2d(stride),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h / stride, w / stride)."""
        inside = F.relu(self.norm_first(self.first(x)))
        return F.relu(self.shortcut(x) + self.norm_second(self.second(inside)))


class AttributeNet(nn.Module):
    """Residual network on images folded 2x2 into channels, one linear head for each attribute.

    Parameters
    ----------
    vocabulary : mapping of str to sequence of str
        Words of each attribute, in the order of its logits.
    widths : sequence of int
        Channels of the stages; the resolution halves from one to the next.
    blocks : sequence of int
        Blocks of each stage.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, Sequence[str]],
        widths: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (2, 2, 2, 2),
    ) -> None:
        super().__init__()
        self.vocabulary = {name: tuple(words) for name, words in vocabulary.items()}
        self.widths, self.blocks = tuple(widths), tuple(blocks)
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        stages: list[nn.Module] = []
        before = widths[0]
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for index in range(count):
                stages.append(Block(before, width, 2 if number and not index else 1))
                before = width
        self.stages = nn.Sequential(*stages)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(before, len(words)) for name, words in self.vocabulary.items()}
        )

    @property
    def feature_dim(self) -> int:
        """Length of the features."""
        return self.widths[-1]

    def trunk(self, images: Tensor) -> Tensor:
        """Features (n, feature_dim) of images (n, 3, R, R) in [0, 1], R a multiple of 16."""
        # Blocks of 2x2 pixels become channels: (n, 3, R, R) -> (n, 12, R / 2, R / 2).
        folded = F.pixel_unshuffle((images - 0.5) / 0.25, 2)
        x = F.relu(self.norm(self.stem(folded)))
        features: Tensor = self.stages(x).mean(dim=(2, 3))
        return features

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (n, k) of each attribute."""
        features = self.trunk(images)
        return {name: head(features) for name, head in self.heads.items()}


class ShippedAttributes:
    """An `AttributeNet` as an attribute model: resizing, both mirror images, temperatures.

    Parameters
    ----------
    network : AttributeNet
        Frozen here.
    card : AttributeCard
        Its card.
    temperatures : mapping of str to float
        By which the logits of each attribute are divided (Guo et al. 2017, arXiv:1706.04599).
    confusion_at : mapping of int to mapping
        Confusion counts at each size of image they were measured at, see `at_resolution`.
    """

    def __init__(
        self,
        network: AttributeNet,
        card: AttributeCard,
        temperatures: Mapping[str, float],
        confusion_at: Mapping[int, Mapping[str, tuple[tuple[int, ...], ...]]],
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.card = card
        self._temperatures = dict(temperatures)
        self._confusion_at = dict(confusion_at)

    def __call__(self, images: Tensor) -> Attributes:
        """Predict from (n, 3, R, R) in [0, 1]."""
        inputs = resized(images.float().clamp(0, 1), RESOLUTION)
        # Features (n, feature_dim), averaged over the image and its mirror image.
        features = (self.network.trunk(inputs) + self.network.trunk(inputs.flip(3))) / 2
        probabilities = {
            name: F.softmax(head(features) / self._temperatures[name], dim=1)
            for name, head in self.network.heads.items()
        }
        return Attributes(probabilities, features)

    def to(self, device: torch.device | str) -> Self:
        """Move to a device; returns the model itself."""
        self.network.to(device)
        return self

    def at_resolution(self, resolution: int) -> ShippedAttributes:
        """Return the same model with the confusion measured at the nearest size of image.

        The nearest is the largest that is not above ``resolution``, else the smallest there is.
        """
        if not self._confusion_at:
            return self
        sizes = self._confusion_at
        size = max((s for s in sizes if s <= resolution), default=min(sizes))
        card = replace(self.card, confusion=self._confusion_at[size], resolution=size)
        return ShippedAttributes(self.network, card, self._temperatures, self._confusion_at)


def save_attribute_net(network: AttributeNet, path: Path, card: Mapping[str, Any]) -> None:
    """Write ``path`` (``*.safetensors``, float16) and its card.

    Parameters
    ----------
    network : AttributeNet
    path : Path
        Where to write the weights; the card has the suffix ``.json``.
    card : mapping
        Plain JSON values: name, temperatures, held_out (size -> attribute -> counts), ...
    """
    content = {
        "vocabulary": {name: list(words) for name, words in network.vocabulary.items()},
        "widths": list(network.widths),
        "blocks": list(network.blocks),
        "card": dict(card),
    }
    write_network(network, path, KIND, content)


def load_attribute_net(path: Path) -> ShippedAttributes:
    """Load what `save_attribute_net` wrote.

    Raises
    ------
    InputError
        If weights or card are missing or damaged, or do not belong together.
    """
    content = read_card(path, KIND)
    check_belongs(path, content)
    try:
        # The network and its weights.
        network = AttributeNet(content["vocabulary"], content["widths"], content["blocks"])
        fill_network(network, path)

        # What was measured on held-out faces, by the size of their images.
        stored = content["card"]
        confusion_at = {
            int(size): {
                name: tuple(tuple(int(count) for count in row) for row in table)
                for name, table in tables.items()
            }
            for size, tables in stored["held_out"].items()
        }
        native = max(confusion_at, default=RESOLUTION)
        card = AttributeCard(
            name=str(stored["name"]),
            vocabulary=network.vocabulary,
            resolution=native,
            crop=str(stored["crop"]),
            feature_dim=network.feature_dim,
            training_data=stored.get("training_data"),
            licence=stored.get("licence"),
            sha256=str(content["sha256"]),
            confusion=confusion_at.get(native, {}),
            groupings={
                name: {group: tuple(map(str, words)) for group, words in groups.items()}
                for name, groups in stored.get("held_out_groups", {}).items()
            },
            notes=tuple(map(str, stored.get("notes", ()))),
        )
        temperatures = {name: float(stored["temperatures"][name]) for name in network.vocabulary}
    except (SafetensorError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path}: the weights do not fit their card ({line})") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{card_path(path)}: damaged card ({reason})") from error
    return ShippedAttributes(network, card, temperatures, confusion_at)
