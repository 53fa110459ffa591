"""One step of adversarial training, and the state that it carries on.

Non-saturating logistic loss with the lazy gradient penalty R1 (Karras et al. 2020,
arXiv:1912.04958, section 3.1 and appendix B), averaged weights, adaptive augmentation. One set of
generated images serves both networks in a step, which saves a pass through the generator.

Every random number of a step follows from the seed and the number of the step, so a resumed run
is the undisturbed one without any random state being stored.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pulse_audit.generators.mapping import mix_styles
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.seeding import fingerprint
from pulse_audit.training.augment import AdaptiveStrength, augment
from pulse_audit.training.config import GanConfig
from pulse_audit.training.data import TrainingSet, to_range
from pulse_audit.training.discriminator import Discriminator

ADA_INTERVAL = 4


@dataclass(frozen=True)
class Measured:
    """What one step showed: losses and mean logits, r1 only where the penalty was taken."""

    loss_d: float
    loss_g: float
    logit_real: float
    logit_fake: float
    sign_real: float
    r1: float | None


class Trainer:
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
        self.discriminator = Discriminator(config.channels, seeds[1]).to(device)
        self.discriminator.dtype = precision
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.adam_g = _adam(self.generator, config)
        self.adam_d = _adam(self.discriminator, config)
        self.ada = AdaptiveStrength(
            config.ada_target, round(config.ada_kimg * 1000), config.ada_ceiling
        )
        self._signs: list[Tensor] = []
        self._source = torch.Generator(device)

    @property
    def images_seen(self) -> int:
        """Real images shown so far."""
        return self.step * self.config.batch

    def advance(self) -> Measured:
        """Take one step of both networks."""
        self._source.manual_seed(fingerprint(self.config.seed, "step", self.step))
        real, fake = self._real(), self._generated()
        strength = self.ada.p
        loss_d, logit_real, logit_fake, r1 = self._improve_discriminator(real, fake, strength)
        loss_g = self._improve_generator(fake, strength)
        self.step += 1
        update_average(self.average, self.generator, ema_decay(self.config, self.images_seen))
        sign = logit_real.sign().mean()
        self._adapt(sign)
        return Measured(
            loss_d=float(loss_d),
            loss_g=float(loss_g),
            logit_real=float(logit_real.mean()),
            logit_fake=float(logit_fake.mean()),
            sign_real=float(sign),
            r1=None if r1 is None else float(r1.detach()),
        )

    def _real(self) -> Tensor:
        """Take the next photos (batch, 3, R, R), each mirrored with probability one half."""
        config = self.config
        photos = self.training.batch(self.images_seen, config.batch, config.seed)
        images = to_range(photos, self.device)
        chance = torch.rand(len(images), generator=self._source, device=self.device)
        return torch.where((chance < 0.5)[:, None, None, None], images.flip(3), images)

    def _generated(self) -> Tensor:
        """Generate images (batch, 3, R, R) with a graph back to the generator's weights."""
        network, n = self.generator, self.config.batch
        z = self._normal(2, n, network.z_dim)
        coarse, fine = network.mapping(z.flatten(0, 1)).chunk(2)
        mixed = round(n * self.config.style_mixing)
        crossover = self._crossover()
        w = torch.cat([mix_styles(coarse[:mixed], fine[:mixed], crossover), coarse[mixed:]])
        noise = [self._normal(n, 1, *shape) for shape in network.noise_shapes]
        return network.synthesis(w, noise)

    def _crossover(self) -> int:
        """Draw the layer from which on the mixed images take their second style."""
        count = self.generator.num_ws
        return int(torch.randint(1, count, (), generator=self._source, device=self.device))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._source, device=self.device)

    def _improve_discriminator(
        self, real: Tensor, fake: Tensor, p: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        config, network, n = self.config, self.discriminator, self.config.batch
        shown = augment(torch.cat([real, fake.detach()]), p, self._source)
        self.adam_d.zero_grad()
        r1 = None
        if self.step % config.r1_interval == 0:
            # With the penalty at this step only, its weight stands for the whole interval.
            r1 = gradient_penalty(network, shown[:n])
            torch.autograd.backward(r1 * (config.r1_gamma / 2 * config.r1_interval))
        logit_real, logit_fake = network(shown).split(n)
        loss = F.softplus(-logit_real).mean() + F.softplus(logit_fake).mean()
        torch.autograd.backward(loss)
        self.adam_d.step()
        return loss.detach(), logit_real.detach(), logit_fake.detach(), r1

    def _improve_generator(self, fake: Tensor, p: float) -> Tensor:
        self.adam_g.zero_grad()
        self.discriminator.requires_grad_(False)
        logits = self.discriminator(augment(fake, p, self._source))
        loss = F.softplus(-logits).mean()
        torch.autograd.backward(loss)
        self.discriminator.requires_grad_(True)
        self.adam_g.step()
        return loss.detach()

    def _adapt(self, sign: Tensor) -> None:
        """Every few steps let the mean sign of the real logits move p."""
        self._signs.append(sign)
        if self.step % ADA_INTERVAL == 0:
            r_t = float(torch.stack(self._signs).mean())
            self.ada.update(r_t, len(self._signs) * self.config.batch)
            self._signs.clear()

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

    def restore(
        self, tensors: Mapping[str, Mapping[str, Tensor]], step: int, p: float, signs: list[float]
    ) -> None:
        """Take up the state that `tensors` and `numbers` described."""
        self.generator.load_state_dict(tensors["generator"])
        self.average.load_state_dict(tensors["average"])
        self.discriminator.load_state_dict(tensors["discriminator"])
        _set_moments(self.generator, self.adam_g, tensors["adam_generator"], step)
        _set_moments(self.discriminator, self.adam_d, tensors["adam_discriminator"], step)
        self.step, self.ada.p = step, p
        self._signs = [torch.tensor(sign, device=self.device) for sign in signs]


def gradient_penalty(network: nn.Module, images: Tensor) -> Tensor:
    """R1: the mean over images of the squared gradient of the logit (Mescheder et al. 2018).

    Taken at the images as the discriminator sees them, after augmentation; the graph is kept, so
    that its own gradient can be taken.
    """
    images = images.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(images).sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def ema_decay(config: GanConfig, images_seen: int) -> float:
    """Factor a step leaves on the averaged weights: half after ``ema_kimg`` thousand images.

    Early on the half-life is a share of the images seen, so that the average keeps up.
    """
    half_life = min(config.ema_kimg * 1000, images_seen * config.ema_rampup)
    return float(0.5 ** (config.batch / max(half_life, 1e-8)))


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """``average <- decay * average + (1 - decay) * network``, for every parameter."""
    for old, new in zip(average.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def _adam(network: nn.Module, config: GanConfig) -> torch.optim.Adam:
    return torch.optim.Adam(
        network.parameters(), lr=config.learning_rate, betas=(0.0, 0.99), eps=1e-8, foreach=True
    )


def _moments(network: nn.Module, adam: torch.optim.Adam) -> dict[str, Tensor]:
    """Second moments by parameter name; with beta1 = 0 nothing else outlives a step."""
    named = network.named_parameters()
    return {name: adam.state[p]["exp_avg_sq"] for name, p in named if p in adam.state}


def _set_moments(
    network: nn.Module, adam: torch.optim.Adam, moments: Mapping[str, Tensor], step: int
) -> None:
    for name, parameter in network.named_parameters():
        if name in moments:
            second = torch.empty_like(parameter).copy_(moments[name])
            adam.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": second,
            }
