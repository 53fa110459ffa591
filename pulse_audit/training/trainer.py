"""One step of adversarial training, and the state of a run on disk.

Non-saturating logistic loss with the lazy gradient penalty R1 (Karras et al. 2020,
arXiv:1912.04958, section 3.1 and appendix B), averaged weights, adaptive augmentation. One set of
generated images serves both networks in a step, which saves a pass through the generator.

Both networks may grow once (Karras et al. 2018, arXiv:1710.10196, section 2): they begin at half
the resolution, without the generator's last block and the discriminator's first, which are then
faded in. In the generator of the skip architecture that is a factor on the colours of the block.
How far they have grown follows from the number of images seen.

Every random number of a step follows from the seed and the number of the step, so a resumed run
equals an undisturbed one without any random state being stored.

A state folder holds ``config.json``, ``images.npz`` (the packed photos), ``log.jsonl``,
``samples/`` and ``checkpoint-<steps>/`` with one safetensors file for each part of the state.
Nothing in it is executed on reading.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pulse_audit.documents import read_json
from pulse_audit.files import atomic_write
from pulse_audit.generators.mapping import mix_styles
from pulse_audit.generators.native_format import read_native
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.models.generators import find_generator
from pulse_audit.seeding import fingerprint
from pulse_audit.training.augment import AdaptiveStrength, augment
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import TrainingSet, load_set, save_set, to_range, training_set
from pulse_audit.training.discriminator import Discriminator, averaged
from pulse_audit.types import InputError

#: Every so many steps the strength of the augmentation is adapted.
ADA_INTERVAL = 4
NUMBERS = "state.json"


@dataclass(frozen=True)
class StepLosses:
    """Losses and mean logits of one step; r1 only where the penalty was taken.

    Tensors () on the device of the training: reading one waits for the device.
    """

    loss_d: Tensor
    loss_g: Tensor
    logit_real: Tensor
    logit_fake: Tensor
    sign_real: Tensor
    r1: Tensor | None


class GeneratorTrainer:
    """Both networks, their optimisers, the averaged generator, p, and the number of steps done.

    Parameters
    ----------
    config : GanConfig
        The run.
    training : TrainingSet
        Its photos.
    device : torch.device
        Where it computes.
    """

    def __init__(self, config: GanConfig, training: TrainingSet, device: torch.device):
        self.config, self.training, self.device, self.step = config, training, device, 0
        seeds = [fingerprint(config.seed, part) for part in ("generator", "discriminator")]
        precision = getattr(torch, config.precision)
        self.generator = StyleGAN2.fresh(config.generator_config(), seeds[0]).to(device, precision)
        if config.begin_with is not None:
            self.generator.load_state_dict(weights_of(config.begin_with, self.generator))
        grows = config.grow_kimg > 0
        self.discriminator = Discriminator(config.channels, seeds[1], grows).to(device)
        self.discriminator.dtype = precision
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        rate = config.learning_rate
        self.adam_g = _adam(self.generator, config.generator_rate or rate)
        self.adam_d = _adam(self.discriminator, rate)
        self.ada = AdaptiveStrength(
            config.ada_target, round(config.ada_kimg * 1000), config.ada_ceiling
        )
        # The photos stay on the device, (n, R, R, 3) uint8.
        self._photos = torch.from_numpy(training.images).to(device)
        # Mean signs of the real logits since p was last adapted.
        self._signs: list[Tensor] = []
        self._source = torch.Generator(device)

    @property
    def images_seen(self) -> int:
        """Real images shown so far."""
        return self.step * self.config.batch

    def advance(self) -> StepLosses:
        """Take one step of both networks."""
        config, n, p = self.config, self.config.batch, self.ada.p
        self.discriminator.fade = fade = config.fade(self.images_seen)
        self._source.manual_seed(fingerprint(config.seed, "step", self.step))
        # Real images (n, 3, R, R), each mirrored with probability one half; generated ones.
        rows = torch.from_numpy(self.training.rows(self.images_seen, n, config.seed))
        real = to_range(self._photos[rows.to(self.device, non_blocking=True)])
        real = averaged(real) if fade == 0 else real
        chance = torch.rand(n, generator=self._source, device=self.device)
        real = torch.where((chance < 0.5)[:, None, None, None], real.flip(3), real)
        # A generator that was trained before waits until the discriminator has learned.
        waits = self.images_seen < config.freeze_kimg * 1000
        with torch.set_grad_enabled(not waits):
            fake = self._generate()

        # The discriminator's step: softplus(-D(real)) + softplus(D(fake)), both augmented.
        images = augment(torch.cat([real, fake.detach()]), p, self._source)
        self.adam_d.zero_grad()
        r1 = None
        if self.step % config.r1_interval == 0:
            # With the penalty at this step only, its weight stands for the whole interval.
            r1 = gradient_penalty(self.discriminator, images[:n])
            torch.autograd.backward(r1 * (config.penalty_weight(fade) / 2 * config.r1_interval))
        logit_real, logit_fake = self.discriminator(images).split(n)
        loss_d = F.softplus(-logit_real).mean() + F.softplus(logit_fake).mean()
        torch.autograd.backward(loss_d)
        self.adam_d.step()

        # The generator's step: softplus(-D(fake)), with the discriminator as it is now.
        self.adam_g.zero_grad()
        self.discriminator.requires_grad_(False)
        loss_g = F.softplus(-self.discriminator(augment(fake, p, self._source))).mean()
        if not waits:
            torch.autograd.backward(loss_g)
            self.adam_g.step()
        self.discriminator.requires_grad_(True)

        self.step += 1
        update_average(self.average, self.generator, ema_decay(config, self.images_seen))
        # Every few steps the mean sign of the real logits, r_t, adapts p.
        sign = logit_real.detach().sign().mean()
        self._signs.append(sign)
        if self.step % ADA_INTERVAL == 0:
            r_t = float(torch.stack(self._signs).mean())
            self.ada.update(r_t, len(self._signs) * n)
            self._signs.clear()
        return StepLosses(
            loss_d=loss_d.detach(),
            loss_g=loss_g.detach(),
            logit_real=logit_real.detach().mean(),
            logit_fake=logit_fake.detach().mean(),
            sign_real=sign,
            r1=None if r1 is None else r1.detach(),
        )

    def grown(self, network: StyleGAN2) -> StyleGAN2:
        """Return a generator as far as it has grown by now, sharing its weights."""
        fade, side = self.config.fade(self.images_seen), self.config.resolution
        if fade == 0:
            return network.at_resolution(side // 2)
        network.syn.blocks[f"b{side}"].torgb.share = fade
        return network

    def _generate(self) -> Tensor:
        """Generate images (batch, 3, R, R), as far as the generator has grown, with their graph."""
        network, n = self.grown(self.generator), self.config.batch
        options: dict[str, Any] = {"generator": self._source, "device": self.device}
        z = torch.randn(2, n, network.z_dim, **options)
        coarse, fine = network.mapping(z.flatten(0, 1)).chunk(2)
        # Style mixing: some images take their later layers from a second latent.
        mixed = round(n * self.config.style_mixing)
        crossover = torch.randint(1, network.num_ws, (), **options)
        w = torch.cat([mix_styles(coarse[:mixed], fine[:mixed], crossover), coarse[mixed:]])
        noise = [torch.randn(n, 1, *shape, **options) for shape in network.noise_shapes]
        return network.synthesis(w, noise)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return everything that a step changes, in parts; see also `numbers`."""
        return {
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "adam_generator": _moments(self.generator, self.adam_g),
            "adam_discriminator": _moments(self.discriminator, self.adam_d),
        }

    def numbers(self) -> dict[str, float | int | list[float]]:
        """Return the state that is not tensors."""
        return {"step": self.step, "p": self.ada.p, "signs": [float(s) for s in self._signs]}

    def save(self, folder: Path) -> Path:
        """Write the state, keep the one before, and return the checkpoint's folder."""
        final = folder / f"checkpoint-{self.step:08d}"
        if final.exists():
            return final
        # Write under another name, so that a checkpoint is there whole or not at all.
        new = folder / f"new-{final.name}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        for part, tensors in self.tensors().items():
            stored = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(stored, new / f"{part}.safetensors")
        atomic_write(new / NUMBERS, json.dumps(self.numbers()).encode())
        os.replace(new, final)
        for old in _checkpoints(folder)[:-2]:
            shutil.rmtree(old)
        return final

    def resume(self, folder: Path) -> bool:
        """Restore the newest state in a folder; False if there is none, InputError if damaged."""
        if not _checkpoints(folder):
            return False
        checkpoint = newest_checkpoint(folder)
        try:
            numbers = read_numbers(checkpoint)
            step, p, signs = (numbers[key] for key in ("step", "p", "signs"))
            parts = {part: load_file(checkpoint / f"{part}.safetensors") for part in self.tensors()}
            self.generator.load_state_dict(parts["generator"])
            self.average.load_state_dict(parts["average"])
            self.discriminator.load_state_dict(parts["discriminator"])
            _set_moments(self.generator, self.adam_g, parts["adam_generator"], step)
            _set_moments(self.discriminator, self.adam_d, parts["adam_discriminator"], step)
            self.step, self.ada.p = step, p
            self._signs = [torch.tensor(sign, device=self.device) for sign in signs]
        except (InputError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            line = str(error).splitlines()[0]
            raise InputError(f"{checkpoint}: damaged ({line}); delete it to start again") from error
        return True


def weights_of(name: str, network: StyleGAN2) -> dict[str, Tensor]:
    """Return the weights of a shipped generator or of a file of our own, for fine-tuning.

    Raises InputError if there is no such generator, or its shapes are not those of ``network``.
    """
    found = read_native(find_generator(name).path).state_dict()
    shapes = {key: tuple(value.shape) for key, value in found.items()}
    if shapes != {key: tuple(value.shape) for key, value in network.state_dict().items()}:
        raise InputError(f"begin_with {name}: its network is not of the configuration's shape")
    return found


def gradient_penalty(network: nn.Module, images: Tensor) -> Tensor:
    """R1: the mean over images of the squared gradient of the logit (Mescheder et al. 2018).

    Taken at the images as the discriminator sees them, after augmentation; the graph is kept, so
    that its own gradient can be taken.
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def ema_decay(config: GanConfig, images_seen: int) -> float:
    """Factor of a step on the averaged weights: one half after ``ema_kimg`` thousand images.

    Early on the half-life is a share of the images seen, so that the average keeps up.
    """
    half_life = min(config.ema_kimg * 1000, images_seen * config.ema_rampup)
    return float(0.5 ** (config.batch / max(half_life, 1e-8)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """``average <- decay * average + (1 - decay) * network``, for every parameter."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def _adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(
        network.parameters(), lr=learning_rate, betas=(0.0, 0.99), eps=1e-8, foreach=True
    )


def _moments(network: nn.Module, adam: torch.optim.Adam) -> dict[str, Tensor]:
    """Second moments by parameter name, and the steps taken by each as ``<name>.step``.

    With beta1 = 0 nothing else is carried to the next step.
    """
    named = [(name, adam.state[p]) for name, p in network.named_parameters() if p in adam.state]
    steps = {f"{name}.step": state["step"] for name, state in named}
    return {name: state["exp_avg_sq"] for name, state in named} | steps


def _set_moments(
    network: nn.Module, adam: torch.optim.Adam, moments: Mapping[str, Tensor], step: int
) -> None:
    for name, parameter in network.named_parameters():
        if name in moments:
            adam.state[parameter] = {
                # States of earlier versions hold no steps: there all parameters took each step.
                "step": moments.get(f"{name}.step", torch.tensor(float(step))),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.empty_like(parameter).copy_(moments[name]),
            }


def _checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if (path / NUMBERS).exists())


def newest_checkpoint(folder: Path) -> Path:
    """Return the newest checkpoint of a state folder; InputError if there is none."""
    checkpoints = _checkpoints(folder)
    if not checkpoints:
        raise InputError(f"{folder}: holds no checkpoint of a training run")
    return checkpoints[-1]


def read_numbers(checkpoint: Path) -> dict[str, Any]:
    """Read the part of a state that is not tensors: step, p, signs."""
    numbers: dict[str, Any] = read_json(checkpoint / NUMBERS)
    return numbers


def prepare(config: GanConfig, folder: Path, data: Path) -> TrainingSet:
    """Bind a state folder to a configuration, and pack its photos on first use.

    Raises InputError if the folder belongs to another configuration (all but the budget has to be
    the same), or the photos cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # The configuration of the folder: written on first use, compared later.
    values = config.model_dump(mode="json", exclude={"budget_kimg"})
    path = folder / "config.json"
    if not path.exists():
        atomic_write(path, json.dumps(values, indent=1).encode())
    stored = read_json(path)
    if not isinstance(stored, dict):
        raise InputError(f"{path}: is no configuration of a training run")
    # A folder of an earlier version lacks later fields, and had what is now their default.
    defaults = {key: field.default for key, field in GanConfig.model_fields.items()}
    stored = defaults | stored
    different = ", ".join(sorted(key for key in values if stored[key] != values[key]))
    if different:
        raise InputError(f"{folder}: holds a run with another {different}; use another folder")
    # The photos, packed once.
    packed = folder / "images.npz"
    if not packed.exists():
        training = training_set(
            data, config.composition, config.resolution, config.held_out_per_cell, config.seed
        )
        save_set(training, folder / "new-images.npz")
        os.replace(folder / "new-images.npz", packed)
    return load_set(packed)
