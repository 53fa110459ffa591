"""The search: Adam on the latent spheres of a generator, each image judged on its own.

Menon et al. 2020, sections 3.1 to 3.3. Success, the best iterate and eps are per image, so batch
mates do not matter; the best feasible iterate is handed out with its own error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pulse_audit.search.config import PRESETS, SearchConfig
from pulse_audit.search.losses import loss_terms, negative_log_prior, parse_loss
from pulse_audit.search.schedule import learning_rate_factor
from pulse_audit.search.sphere import SphericalOptimizer
from pulse_audit.search.start import Start, draw_start
from pulse_audit.types import Generator, InputError, Status

Downscale = Callable[[Tensor], Tensor]
#: From images (n, 3, R, R), not clamped, and latents (n, L, D) to a loss (n,).
ExtraLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Frame:
    """The best iterate so far of one search, and its low-resolution version."""

    step: int
    image: Tensor
    downscaled: Tensor
    downscale_error: float


@dataclass(frozen=True)
class Found:
    """The outcome of one search.

    Attributes
    ----------
    image : Tensor or None
        (3, R, R) in [0, 1]: the best feasible iterate, or where there is none the one nearest to
        the input; None after an error.
    downscale_error : float or None
        MSE between DS(image) and the input, on the [0, 1] scale, of this very image.
    steps : int
        Images rendered; ``best_step`` is the one handed out, counted from 0.
    loss : float or None
        The search's loss at ``best_step``.
    """

    image: Tensor | None
    downscale_error: float | None
    feasible: bool
    status: Status
    steps: int
    best_step: int | None
    loss: float | None
    seconds: float
    reason: str | None = None
    frames: tuple[Frame, ...] = field(default=(), repr=False)


class Best:
    """The best iterate of each image so far: feasible before infeasible, then by merit.

    Among feasible iterates the one of least loss is best, among others the one nearest to its
    input.
    """

    def __init__(self, n: int) -> None:
        self.images: Tensor | None = None
        self.errors = torch.full((n,), torch.inf, dtype=torch.float64)
        self.losses = torch.full((n,), torch.inf, dtype=torch.float64)
        self.feasible = torch.zeros(n, dtype=torch.bool)
        self.step = torch.full((n,), -1)

    def update(
        self, rows: Tensor, images: Tensor, errors: Tensor, losses: Tensor, eps: float, step: int
    ) -> None:
        """Take the iterates of the images at ``rows`` that beat what is held."""
        feasible = errors <= eps
        merit = torch.where(feasible, losses, errors)
        held = torch.where(self.feasible[rows], self.losses[rows], self.errors[rows])
        better = (feasible & ~self.feasible[rows]) | (
            (feasible == self.feasible[rows]) & (merit < held)
        )
        taken = rows[better]
        if self.images is None:
            self.images = images.new_zeros((len(self.errors), *images.shape[1:]))
        self.images[taken.to(images.device)] = images[better.to(images.device)]
        self.errors[taken], self.losses[taken] = errors[better], losses[better]
        self.feasible[taken], self.step[taken] = feasible[better], step


class Pulse:
    """PULSE on one generator.

    Parameters
    ----------
    generator : Generator
        On the device and in the floating-point type to search in.
    config : SearchConfig or str
        Settings, or the name of a preset: ``official``, ``paper``, ``fast``.
    downscale : callable
        The operator DS: (n, 3, R, R) to (n, 3, r, r), differentiable.
    extra : sequence of callables
        Further loss terms ``term(images, latents) -> (n,)``, added to the loss.
    """

    def __init__(
        self,
        generator: Generator,
        config: SearchConfig | str = "official",
        *,
        downscale: Downscale,
        extra: Sequence[ExtraLoss] = (),
    ) -> None:
        self.generator = generator
        self.config = PRESETS[config] if isinstance(config, str) else config
        self.downscale, self.extra = downscale, tuple(extra)
        self._terms = parse_loss(self.config.loss)

    def search(
        self,
        lr: Tensor,
        seeds: Sequence[int],
        *,
        start: Start | None = None,
        frames_every: int = 0,
    ) -> list[Found]:
        """Search an image for each input.

        Parameters
        ----------
        lr : Tensor
            (n, 3, r, r) in [0, 1]; its device and type are those of the search.
        seeds : sequence of int
            One an input.
        start : Start, optional
            Latents and noise to start from; default: drawn from the seeds.
        frames_every : int
            Keep the best so far every so many steps; 0 keeps none.

        Returns
        -------
        list of Found
            In the order of the inputs.

        Raises
        ------
        InputError
            If shapes do not fit, or the generator renders nothing finite from any start.
        """
        begun = time.perf_counter()
        if lr.ndim != 4 or len(seeds) != len(lr):
            raise InputError(f"search: {len(seeds)} seeds do not fit inputs {tuple(lr.shape)}")
        given = start or draw_start(self.generator, seeds, self.config)
        given.check(self.generator, len(lr), self.config)
        state = _State(self, lr, given.to(lr.device, lr.dtype), frames_every)
        while state.active.numel() and state.step < self.config.steps:
            state.advance()
        return state.outcomes((time.perf_counter() - begun) / len(lr))


class _State:
    """One batch of searches under way; images leave it when they fail or are done."""

    def __init__(self, pulse: Pulse, lr: Tensor, start: Start, frames_every: int) -> None:
        self.pulse, self.config, self.lr = pulse, pulse.config, lr
        n = len(lr)
        self.active = torch.arange(n)
        self.best = Best(n)
        self.steps = torch.zeros(n, dtype=torch.long)
        self.failed: dict[int, str] = {}
        self.frames: list[list[Frame]] = [[] for _ in range(n)]
        self.frames_every = frames_every
        self.step = 0
        self.latents = start.latents.requires_grad_()
        self.noise = list(start.noise)
        silenced = self.config.silenced_layers()
        for layer in silenced & set(range(len(self.noise))):
            self.noise[layer] = torch.zeros_like(self.noise[layer])
        optimised = self._trainable(silenced)
        for tensor in optimised:
            tensor.requires_grad_()
        self.optimizer = SphericalOptimizer(
            [self.latents, *optimised], self.config.optimizer, self.config.prior == "sphere"
        )
        self.fixed = [m for m in self.noise if not m.requires_grad]

    def _trainable(self, silenced: frozenset[int]) -> list[Tensor]:
        if self.config.noise != "trainable":
            return []
        layers = range(min(self.config.trainable_noise_layers, len(self.noise)))
        return [self.noise[layer] for layer in layers if layer not in silenced]

    def advance(self) -> None:
        """Render, judge, and take one step down the gradient."""
        generator = self.pulse.generator
        latents = self.latents.expand(-1, generator.card.n_latents, -1)
        styles = generator.styles(latents)
        images = generator.images(styles, self.noise)
        losses = self._losses(images, styles, latents)
        self.steps[self.active] += 1
        stay = self._judge(images.detach(), losses.detach().double().cpu())
        last = self.step + 1 == self.config.steps
        if not last and bool(stay.any()):
            rate = self.config.learning_rate * learning_rate_factor(
                self.config.schedule, self.step, self.config.steps
            )
            self.optimizer.step(losses[stay.to(losses.device)].sum(), rate)
        if not bool(stay.all()):
            self._drop(stay)
        self.step += 1

    def _losses(self, images: Tensor, styles: Tensor, latents: Tensor) -> Tensor:
        """Loss of each active image, on the unclamped render as in the official search."""
        lr = self.lr[self.active.to(self.lr.device)]
        downscaled = self.pulse.downscale(images)
        if downscaled.shape != lr.shape:
            raise InputError(
                f"search: {self.pulse.generator.card.name} downscales to "
                f"{tuple(downscaled.shape[-2:])}, the input is {tuple(lr.shape[-2:])}"
            )
        values = loss_terms(self.pulse._terms, downscaled, lr, styles, self.config.eps)
        total = sum(
            (term.weight * values[term.name] for term in self.pulse._terms), lr.new_zeros(len(lr))
        )
        for extra in self.pulse.extra:
            total = total + extra(images, latents)
        if self.config.prior == "nll":
            total = total + self.config.nll_weight * negative_log_prior(self.optimizer.tensors)
        return total

    @torch.no_grad()
    def _judge(self, images: Tensor, losses: Tensor) -> Tensor:
        """Update the best iterates; return which active images go on."""
        shown = images.clamp(0, 1)
        difference = self.pulse.downscale(shown) - self.lr[self.active.to(self.lr.device)]
        errors = difference.double().square().mean(dim=(1, 2, 3)).cpu()
        finite = torch.isfinite(images).flatten(1).all(1).cpu() & torch.isfinite(losses)
        for row in self.active[~finite].tolist():
            self.failed[row] = f"the search left the finite numbers at step {self.step}"
        whole = finite.nonzero()[:, 0]
        self.best.update(
            self.active[whole], shown[whole.to(shown.device)], errors[whole], losses[whole],
            self.config.eps, self.step,
        )  # fmt: skip
        self._frame()
        if self.config.stop_at_feasibility:
            finite &= ~self.best.feasible[self.active]
        return finite

    def _frame(self) -> None:
        if not self.frames_every or self.step % self.frames_every or self.best.images is None:
            return
        for row in self.active.tolist():
            if row in self.failed:
                continue
            image = self.best.images[row].clone()
            small = self.pulse.downscale(image[None])[0]
            self.frames[row].append(Frame(self.step, image, small, float(self.best.errors[row])))

    def _drop(self, stay: Tensor) -> None:
        """Take images out of the batch, with their moments."""
        rows = stay.nonzero()[:, 0]
        self.active = self.active[rows]
        rows = rows.to(self.latents.device)
        self.optimizer.keep(rows)
        for tensor in self.fixed:
            tensor.data = tensor.data[rows]

    def outcomes(self, seconds: float) -> list[Found]:
        """What became of each image."""
        if len(self.failed) == len(self.steps) and bool((self.steps == 1).all()):
            name = self.pulse.generator.card.name
            raise InputError(f"{name} renders nothing finite: its weights do not fit its network")
        return [self._outcome(row, seconds) for row in range(len(self.steps))]

    def _outcome(self, row: int, seconds: float) -> Found:
        steps, frames = int(self.steps[row]), tuple(self.frames[row])
        if row in self.failed or self.best.images is None:
            reason = self.failed.get(row)
            return Found(
                None, None, False, Status.ERROR, steps, None, None, seconds, reason, frames
            )
        feasible = bool(self.best.feasible[row])
        return Found(
            image=self.best.images[row].clone(),
            downscale_error=float(self.best.errors[row]),
            feasible=feasible,
            status=Status.OK if feasible else Status.INFEASIBLE,
            steps=steps,
            best_step=int(self.best.step[row]),
            loss=float(self.best.losses[row]),
            seconds=seconds,
            reason=None if feasible else f"no iterate came within eps {self.config.eps:g}",
            frames=frames,
        )
