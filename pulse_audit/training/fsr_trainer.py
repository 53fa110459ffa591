"""One step of training FSRNet or FSRGAN, its losses, and the state of a run on disk.

The losses are those of Chen et al. 2018, sections 3.2 and 3.3: squared errors of coarse image,
image and prior; FSRGAN adds the logistic loss of a discriminator that sees the enlarged input
beside the image (as in pix2pix, Isola et al. 2017, arXiv:1611.07004), and a squared error of
features. Every random number of a step follows from the seed and the number of the step, so a
resumed run equals an undisturbed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from facenet_pytorch.models.mtcnn import ONet
from numpy.typing import NDArray
from torch import Tensor, nn

from pulse_audit.degrade.resample import downscale, resize
from pulse_audit.faces.crops import FAIRFACE_025
from pulse_audit.seeding import fingerprint
from pulse_audit.training.config import FSRConfig
from pulse_audit.training.data import TrainingSet, to_unit
from pulse_audit.training.face_maps import LANDMARKS, REGIONS, heatmaps, parsing_maps
from pulse_audit.training.state import STATE, restore_state, write_state
from pulse_audit.upsamplers.fsrnet import FSRNet, FSRNetConfig, FSRNetOutput

#: What the state of a run holds beside configuration and step.
PARTS = ("network", "adam", "discriminator", "adam_d")
#: MTCNN's order of the landmarks in a mirrored photo: the eyes and the corners change places.
MIRRORED = [1, 0, 2, 4, 3]

#: Landmarks of a frontal face, (5, 2).
FRONTAL = torch.from_numpy(FAIRFACE_025).float()


@dataclass(frozen=True)
class FaceTargets:
    """What the network is to give: ``image`` (n, 3, R, R) and maps of half its side, in [0, 1].

    ``known`` (n,) says of which faces the landmarks were found; the maps of others count nothing.
    """

    image: Tensor
    heatmaps: Tensor
    parsing: Tensor
    known: Tensor


def reconstruction_losses(output: FSRNetOutput, target: FaceTargets) -> dict[str, Tensor]:
    """Mean squared errors of FSRNet: image, coarse, heatmaps, parsing.

    Images count in [-1, 1], maps in [0, 1]. The means of the maps are over the faces whose
    landmarks are known; 0 where there are none.
    """
    losses = {
        "image": 4 * (output.image - target.image).square().mean(),
        "coarse": 4 * (output.coarse - target.image).square().mean(),
    }
    faces = target.known.sum().clamp(min=1)
    for name in ("heatmaps", "parsing"):
        error = (getattr(output, name) - getattr(target, name)).square().mean(dim=(1, 2, 3))
        losses[name] = (error * target.known).sum() / faces
    return losses


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Logistic loss of the discriminator's logits: -log s(real) - log(1 - s(fake)), mean."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """Non-saturating logistic loss of the network: -log s(fake), mean."""
    return F.softplus(-fake).mean()


class PatchDiscriminator(nn.Module):
    """Judges patches of an image beside its enlarged input: three strides of 2, one logit each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(6, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for before in (width, 2 * width):
            layers += [
                nn.Conv2d(before, 2 * before, 4, 2, 1, bias=False),
                nn.BatchNorm2d(2 * before),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, images: Tensor, enlarged: Tensor) -> Tensor:
        """Logits (n, 1, R / 8, R / 8) of images (n, 3, R, R) made from enlarged inputs."""
        logits: Tensor = self.layers(torch.cat([images, enlarged], dim=1) * 2 - 1)
        return logits


class FaceFeatures(nn.Module):
    """Features of faces: the first three convolutions of MTCNN's O-Net, which ships its weights.

    They stand in for VGG-16's, which no package carries.
    """

    def __init__(self) -> None:
        super().__init__()
        self.network = ONet().eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (n, 64, h, w) of images (n, 3, R, R) in [0, 1]."""
        o = self.network
        x = o.pool1(o.prelu1(o.conv1((images * 255 - 127.5) / 128)))
        x = o.pool2(o.prelu2(o.conv2(x)))
        features: Tensor = o.prelu3(o.conv3(x))
        return features


def enlarged_inputs(images: Tensor, scale: int) -> Tensor:
    """Downscale faces (n, 3, R, R) by PULSE's operator, and enlarge them by bicubic interpolation.

    What a run's arm gets, and what it makes the network's input of: both in [0, 1].
    """
    small = downscale(images, scale).clamp(0, 1)
    return resize(small, images.shape[-1], "bicubic").clamp(0, 1)


class FSRTrainer:
    """The network, its optimiser, the discriminator with its own, and the number of steps done.

    Parameters
    ----------
    config : FSRConfig
    training : TrainingSet
        Its photos.
    landmarks : array, (n, 5, 2)
        Of the photos, as shares of the side; NaN where none were found.
    device : torch.device
    """

    def __init__(
        self,
        config: FSRConfig,
        training: TrainingSet,
        landmarks: NDArray[np.float32],
        device: torch.device,
    ) -> None:
        self.config, self.training, self.device, self.step = config, training, device, 0
        self.landmarks = torch.from_numpy(landmarks)
        shape = FSRNetConfig(
            scale=config.scale,
            resolution=config.resolution,
            heatmaps=LANDMARKS,
            parsing_maps=len(REGIONS),
            width=config.width,
            depth=config.depth,
        )
        with torch.random.fork_rng([]):
            torch.manual_seed(fingerprint(config.seed, "weights") % 2**31)
            network, discriminator = FSRNet(shape), PatchDiscriminator(2 * config.width)
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.adam = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.discriminator = discriminator.to(device).to(memory_format=torch.channels_last).train()
        self.adam_d = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.discriminator_rate, betas=(0.5, 0.999)
        )
        self.features = FaceFeatures().to(device) if config.perceptual else None

    def batch(self) -> FaceTargets:
        """Faces of this step, each mirrored with probability one half, with their maps."""
        config = self.config
        rows = self.training.rows(self.step * config.batch, config.batch, config.seed)
        images, landmarks = to_unit(self.training.images[rows]), self.landmarks[rows]
        source = torch.Generator().manual_seed(fingerprint(config.seed, "step", self.step))
        mirrored = torch.rand(config.batch, generator=source) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        other = torch.stack([1 - landmarks[..., 0], landmarks[..., 1]], dim=2)[:, MIRRORED]
        landmarks = torch.where(mirrored[:, None, None], other, landmarks)
        # Faces without landmarks get those of a frontal face, and their maps no weight.
        known = landmarks.isfinite().all(dim=2).all(dim=1)
        landmarks = torch.where(known[:, None, None], landmarks, FRONTAL)
        side = config.resolution // 2
        maps = heatmaps(landmarks, side), parsing_maps(landmarks, side)
        targets = (images, *maps, known.float())
        return FaceTargets(*(target.to(self.device) for target in targets))

    def advance(self) -> dict[str, float]:
        """Take one step, of the discriminator first in FSRGAN; return the losses."""
        config, target = self.config, self.batch()
        enlarged = enlarged_inputs(target.image, config.scale)
        enlarged = enlarged.contiguous(memory_format=torch.channels_last)
        for group in self.adam.param_groups:
            group["lr"] = config.rate(self.step)

        # Predict; losses are taken in float32.
        with self._autocast():
            output = self.network(enlarged)
        output = FSRNetOutput(*(getattr(output, f).float() for f in output.__dataclass_fields__))
        losses = reconstruction_losses(output, target)
        weights = {"image": 1.0, "coarse": config.coarse}
        weights |= {"heatmaps": config.heatmaps, "parsing": config.parsing}

        # FSRGAN: the discriminator's step, then its judgement and the features' as losses.
        if config.adversarial:
            losses["discriminator"] = self._advance_discriminator(output.image, target, enlarged)
            self.discriminator.requires_grad_(False)
            with self._autocast():
                judged = self.discriminator(output.image, enlarged)
            losses["adversarial"] = adversarial_loss(judged.float())
            weights["adversarial"] = config.adversarial
        if self.features is not None:
            seen, due = self.features(output.image), self.features(target.image)
            losses["perceptual"] = (seen - due).square().mean()
            weights["perceptual"] = config.perceptual

        # The network's step.
        self.adam.zero_grad()
        torch.autograd.backward(torch.stack([w * losses[n] for n, w in weights.items()]).sum())
        self.adam.step()
        self.discriminator.requires_grad_(True)
        self.step += 1
        return {name: float(loss.detach()) for name, loss in losses.items()}

    def _advance_discriminator(
        self, image: Tensor, target: FaceTargets, enlarged: Tensor
    ) -> Tensor:
        """Take the discriminator's step on a batch; return its loss."""
        with self._autocast():
            real = self.discriminator(target.image, enlarged)
            fake = self.discriminator(image.detach(), enlarged)
        loss = discriminator_loss(real.float(), fake.float())
        self.adam_d.zero_grad()
        torch.autograd.backward(loss)
        self.adam_d.step()
        return loss

    def _autocast(self) -> torch.autocast:
        half = self.config.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def start_from(self, path: Path) -> None:
        """Take the network of another run's state: FSRGAN begins with FSRNet's.

        Raises
        ------
        InputError
            If the state cannot be read, or is of a network of another shape.
        """
        restore_state(
            path, self.device, lambda state: self.network.load_state_dict(state["network"])
        )

    def save(self, folder: Path) -> None:
        """Write the state whole or not at all."""
        state = {part: getattr(self, part).state_dict() for part in PARTS}
        config = self.config.model_dump(mode="json")
        write_state(folder, {"config": config, "step": self.step, **state})

    def resume(self, folder: Path) -> bool:
        """Restore a stored state; False where there is none.

        Raises
        ------
        InputError
            If it is damaged, or of another configuration.
        """
        path = folder / STATE
        if not path.exists():
            return False

        def use(state: dict[str, Any]) -> None:
            for part in PARTS:
                getattr(self, part).load_state_dict(state[part])
            self.step = int(state["step"])

        restore_state(path, self.device, use, self.config.model_dump(mode="json"))
        return True
