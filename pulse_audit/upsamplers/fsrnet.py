"""FSRNet and FSRGAN: the arms ``fsrnet`` and ``fsrgan`` (Chen et al. 2018, arXiv:1711.10703).

Face super-resolution through an estimate of the face's geometry. The input is enlarged by bicubic
interpolation to the size of the output, x; four networks then give

- ``y_c``, a coarse image of the face (coarse SR network),
- ``f``, features of the coarse image (fine SR encoder),
- ``p``, landmark heatmaps and parsing maps, estimated from the coarse image (prior estimation
  network: two stacked hourglasses, Newell et al. 2016, arXiv:1603.06937),
- ``y``, the image made from ``f`` and ``p`` side by side (fine SR decoder).

FSRGAN is the same network, trained with an adversarial and a perceptual loss besides. Every
residual block has weights of its own, and the decoder is fed the maps ``p``, not the features that
they are read from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from pulse_audit.files import card_path, check_belongs, fill_network, read_card, write_network
from pulse_audit.types import Degradation, InputError, Request, Status, Upsampled
from pulse_audit.upsamplers.interpolate import Resize
from pulse_audit.upsamplers.outputs import failed

KIND = "face super-resolution net"


@dataclass(frozen=True)
class FSRNetConfig:
    """Shape of the network; the defaults are the paper's, for 128 px from 16 px.

    Attributes
    ----------
    scale : int
        Side of the output over that of the input.
    resolution : int
        Side of the output in pixels; ``2 ** (depth + 1)`` divides it.
    heatmaps, parsing_maps : int
        Landmark heatmaps and parsing maps of the prior; 194 and 11 are those of Helen.
    width : int
        Channels of the coarse network, the encoder and the decoder; even. The hourglasses have
        twice as many.
    coarse_blocks, encoder_blocks, prior_blocks, decoder_blocks : int
        Residual blocks of each part.
    hourglasses : int
        How many are stacked.
    depth : int
        How often an hourglass halves its maps.
    """

    scale: int = 8
    resolution: int = 128
    heatmaps: int = 194
    parsing_maps: int = 11
    width: int = 64
    coarse_blocks: int = 3
    encoder_blocks: int = 12
    prior_blocks: int = 3
    decoder_blocks: int = 3
    hourglasses: int = 2
    depth: int = 4

    def __post_init__(self) -> None:
        """Raise InputError where the sizes do not fit together."""
        values = asdict(self)
        wrong = [name for name, value in values.items() if type(value) is not int or value < 1]
        if wrong:
            raise InputError(f"FSRNet: {wrong[0]} has to be a whole number above 0")
        if self.width % 2:
            raise InputError(f"FSRNet: a width of {self.width} is odd")
        if self.resolution % self.scale or self.resolution % 2 ** (self.depth + 1):
            raise InputError(
                f"FSRNet: {self.resolution} px are no multiple of the scale, {self.scale}, and of "
                f"2 ^ (depth + 1), {2 ** (self.depth + 1)}"
            )

    @property
    def lr_size(self) -> int:
        """Side of the input in pixels."""
        return self.resolution // self.scale


@dataclass(frozen=True)
class FSRNetOutput:
    """What the network gives for n inputs.

    ``coarse`` and ``image`` are (n, 3, R, R), nominally in [0, 1] and not clamped; ``heatmaps``
    (n, landmarks, R / 2, R / 2) and ``parsing`` (n, regions, R / 2, R / 2) are estimates of maps in
    [0, 1], not clamped either.
    """

    coarse: Tensor
    heatmaps: Tensor
    parsing: Tensor
    image: Tensor


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps the side, but for its stride."""
    return nn.Conv2d(inputs, outputs, size, stride, size // 2)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation beside the identity, ReLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width, h, w) to the same shape."""
        out: Tensor = x + self.body(x)
        return out


class Bottleneck(nn.Module):
    """The hourglass's residual module: normalised first, 1x1, 3x3 and 1x1, half as wide inside."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inside = outputs // 2
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, inside, 1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, inside, 3, padding=1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, outputs, 1),
        )
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, inputs, h, w) to (n, outputs, h, w)."""
        out: Tensor = self.shortcut(x) + self.body(x)
        return out


class Hourglass(nn.Module):
    """Halves its maps ``depth`` times and doubles them again, with a branch beside each level."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.beside = Bottleneck(width, width)
        self.down = nn.Sequential(nn.MaxPool2d(2), Bottleneck(width, width))
        self.within: nn.Module = (
            Hourglass(width, depth - 1) if depth > 1 else Bottleneck(width, width)
        )
        self.up = nn.Sequential(Bottleneck(width, width), nn.Upsample(scale_factor=2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, width, h, w) to the same shape; ``2 ** depth`` divides h and w."""
        out: Tensor = self.beside(x) + self.up(self.within(self.down(x)))
        return out


class PriorEstimation(nn.Module):
    """Landmark heatmaps and parsing maps of a coarse face.

    The tasks share everything but the last layer, a 1x1 convolution each. Between the hourglasses
    go features alone: the maps are estimated once, from the last one.
    """

    def __init__(self, config: FSRNetConfig) -> None:
        super().__init__()
        width = 2 * config.width
        self.stem = nn.Sequential(
            convolution(3, config.width, 7, 2),
            nn.BatchNorm2d(config.width),
            nn.ReLU(),
            Bottleneck(config.width, width),
            *(Bottleneck(width, width) for _ in range(config.prior_blocks - 1)),
        )
        self.hourglasses = nn.ModuleList(
            nn.Sequential(
                Hourglass(width, config.depth),
                convolution(width, width, 1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for _ in range(config.hourglasses)
        )
        self.landmarks = convolution(width, config.heatmaps, 1)
        self.parsing = convolution(width, config.parsing_maps, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps (n, landmarks, h / 2, w / 2) and parsing maps (n, regions, h / 2, w / 2)."""
        features = self.stem(image)
        # Every hourglass corrects the features before it, but for the last one's.
        for hourglass in self.hourglasses[:-1]:
            features = features + hourglass(features)
        features = self.hourglasses[-1](features)
        return self.landmarks(features), self.parsing(features)


class FSRNet(nn.Module):
    """The network of FSRNet and FSRGAN.

    Parameters
    ----------
    config : FSRNetConfig
        Its shape; the default is the paper's.
    """

    def __init__(self, config: FSRNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FSRNetConfig()
        width = config.width
        self.coarse = nn.Sequential(
            convolution(3, width),
            nn.ReLU(),
            *(ResidualBlock(width) for _ in range(config.coarse_blocks)),
            convolution(width, 3),
        )
        self.encoder = nn.Sequential(
            convolution(3, width, stride=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(ResidualBlock(width) for _ in range(config.encoder_blocks)),
            convolution(width, width),
        )
        self.prior = PriorEstimation(config)
        self.decoder = nn.Sequential(
            convolution(width + config.heatmaps + config.parsing_maps, width),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            *(ResidualBlock(width) for _ in range(config.decoder_blocks)),
            convolution(width, 3),
        )

    def forward(self, enlarged: Tensor) -> FSRNetOutput:
        """Sharpen inputs that were enlarged to (n, 3, R, R) by bicubic interpolation, in [0, 1]."""
        # Inside, images are in [-1, 1].
        coarse = self.coarse(enlarged * 2 - 1)
        features = self.encoder(coarse)
        heatmaps, parsing = self.prior(coarse)
        image = self.decoder(torch.cat([features, heatmaps, parsing], dim=1))
        return FSRNetOutput((coarse + 1) / 2, heatmaps, parsing, (image + 1) / 2)


class FSRNetUpsampler:
    """FSRNet or FSRGAN as an arm; every draw of a face is the same.

    Parameters
    ----------
    name : str
        Of the arm.
    network : FSRNet
        Frozen here.
    card : mapping of str to Any
        Plain JSON values about the weights, at least ``crop`` and ``caveats``; enters the manifest.
    sha256 : str
        Of the weights.
    resize : callable
        As that of an `Interpolator`.
    device : torch.device
    """

    promises_feasibility = False

    def __init__(
        self,
        name: str,
        network: FSRNet,
        card: Mapping[str, Any],
        sha256: str,
        resize: Resize,
        device: torch.device,
    ) -> None:
        self.name, self._card, self._sha256, self._resize = name, dict(card), sha256, resize
        self._network = network.to(device).eval().requires_grad_(False)
        self.resolution: int | None = network.config.resolution
        self.crop = str(card["crop"])
        self.caveats = tuple(map(str, card["caveats"]))

    def check_scale(self, scale: int, lr_size: int) -> None:
        """Check that the network takes the inputs of a run.

        Parameters
        ----------
        scale, lr_size : int
            Of the run: the downscaling factor, and the side of its inputs in pixels.

        Raises
        ------
        InputError
            If they have another side than the weights were trained on.
        """
        due = self._network.config.lr_size
        if lr_size != due:
            raise InputError(
                f"{self.name}: takes inputs of {due} px, and those of the run are {lr_size} px; "
                f"choose --scale {max(1, scale * lr_size // due)}, or leave the arm out"
            )

    @torch.no_grad()
    def __call__(self, requests: Sequence[Request], degradation: Degradation) -> list[Upsampled]:
        """Enlarge every request by the network's own factor, whatever the degradation's is."""
        started = time.perf_counter()
        config = self._network.config
        lr = torch.stack([request.lr for request in requests])
        if lr.shape[-2:] != (config.lr_size, config.lr_size):
            height, width = lr.shape[-2:]
            reason = f"the input is {width} x {height} px; the weights take {config.lr_size} px"
            return [failed(reason) for _ in requests]
        # One image at a time in fixed precision: an answer does not depend on its batch mates.
        enlarged = self._resize(lr, config.resolution, "bicubic").clamp(0, 1)
        images = torch.cat([self._network(one[None]).image for one in enlarged]).clamp(0, 1)
        # MSE between DS of each output and its input, (n,), at the network's own factor.
        small = degradation.downscale(images, config.scale)
        errors = (small - lr).double().square().mean(dim=(1, 2, 3))
        seconds = (time.perf_counter() - started) / len(requests)
        return [
            Upsampled(image, float(error), None, 0, seconds, Status.OK)
            for image, error in zip(images, errors, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Return the shape of the network, its weights' SHA-256 and their card."""
        return {
            "kind": "network",
            "sha256": self._sha256,
            "network": asdict(self._network.config),
            "card": self._card,
        }


def save_fsrnet(network: FSRNet, path: Path, card: Mapping[str, Any]) -> None:
    """Write ``path`` (``*.safetensors``, float16) and its card.

    Parameters
    ----------
    network : FSRNet
    path : Path
        Where to write the weights; the card has the suffix ``.json``.
    card : mapping
        Plain JSON values, see `FSRNetUpsampler`.
    """
    write_network(network, path, KIND, {"network": asdict(network.config), "card": dict(card)})


def load_fsrnet(path: Path) -> tuple[FSRNet, dict[str, Any], str]:
    """Load what `save_fsrnet` wrote: the network, its card, and the weights' SHA-256.

    Raises
    ------
    InputError
        If weights or card are missing or damaged, or do not belong together.
    """
    content = read_card(path, KIND)
    check_belongs(path, content)
    try:
        network = FSRNet(FSRNetConfig(**content["network"]))
        fill_network(network, path)
        card = dict(content["card"])
        card["crop"], card["caveats"] = str(card["crop"]), [str(line) for line in card["caveats"]]
    except (SafetensorError, RuntimeError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"{path}: the weights do not fit their card ({line})") from error
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{card_path(path)}: damaged card ({reason})") from error
    return network, card, str(content["sha256"])
