"""The search of PULSE over one batch, in which every image is searched as if alone.

Success, the best iterate and the floor of the loss are each image's own. The loss is that of the
image as rendered, as in PULSE; feasibility is that of the image clamped to [0, 1], as it is
returned, so DS of the returned image has the reported error. Where the settings ask for coarse
steps, these come first and only move the latents; all else begins with the first whole picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pulse_audit.search.config import SearchConfig, learning_rate_factor
from pulse_audit.search.losses import loss_terms, negative_log_prior, parse_loss
from pulse_audit.search.sphere import SphericalOptimizer, Start, latent_radius
from pulse_audit.types import Generator, InputError, Status, Upsampled, smaller


@dataclass(frozen=True)
class Iterate:
    """One step of a batch, before its update; handed to observers, without gradients."""

    #: Number of updates made before.
    step: int
    #: Which images these are (m,); images that have left the search are missing.
    rows: Tensor
    #: (m, L, D) both.
    latents: Tensor
    styles: Tensor
    #: (m, 3, R, R), not clamped.
    images: Tensor
    #: Unweighted loss terms, (m,) each, and the loss (m,).
    terms: Mapping[str, Tensor]
    total: Tensor
    #: MSE between DS of the clamped image and the input, (m,), float64.
    downscale_error: Tensor


@dataclass(frozen=True)
class Frame:
    """The best of one image after ``steps`` iterates: ``image`` (3, R, R), DS of it ``lr``."""

    steps: int
    image: Tensor
    lr: Tensor


@dataclass(frozen=True)
class SearchResult(Upsampled):
    """An `Upsampled` with its latents (L, D), its total loss, and the frames requested."""

    latents: Tensor | None = None
    loss: float | None = None
    frames: tuple[Frame, ...] = ()


class Candidates(NamedTuple):
    """The clamped images of an iterate, DS of them, and how good they are, all (m, ...)."""

    images: Tensor
    lr: Tensor
    latents: Tensor
    total: Tensor
    error: Tensor
    feasible: Tensor

    def better_than(self, best: Candidates, rows: Tensor) -> Tensor:
        """Which of them beat ``rows`` of the best so far (m,).

        A feasible image beats an infeasible one; among feasible ones the lower loss wins, among
        infeasible ones the lower downscale error.
        """
        was_feasible = best.feasible[rows]
        first = self.feasible & ~was_feasible
        loss = self.feasible & was_feasible & (self.total < best.total[rows])
        error = ~self.feasible & ~was_feasible & (self.error < best.error[rows])
        return first | loss | error


Downscale = Callable[[Tensor], Tensor]
ExtraLoss = Callable[[Tensor, Tensor], Tensor]
Observer = Callable[[Iterate], None]
ShouldStop = Callable[[Iterate], Tensor]


class BatchSearch:
    """One batch of searches; build it and call `run` once.

    Parameters
    ----------
    generator : Generator
        On the device of ``lr``.
    lr : Tensor
        Inputs (n, 3, h, w) in [0, 1]; their device and floating-point type are the search's.
    start : Start
        Where each of the n searches begins.
    downscale : callable
        DS: (m, 3, R, R) -> (m, 3, h, w), differentiable; with coarse steps also of their pictures,
        (m, 3, r, r) -> (m, 3, h, w).
    config : SearchConfig
        Settings.
    extra_losses : sequence of callable
        ``term(images (m, 3, R, R), latents (m, L, D)) -> (m,)``, added to the loss. Rows leave
        the batch as images finish, so a term has to treat every image alike.
    frames_every : int, optional
        Number of iterates between two frames that are kept of the best so far of every image.
    observe : callable, optional
        Called with every `Iterate`; coarse steps have none.
    should_stop : callable, optional
        Called with every `Iterate`; says which of its images leave the search: (m,) of bool. It
        adds to ``stop_at_feasibility``.

    Raises
    ------
    InputError
        If ``start`` does not fit the generator, or ``frames_every`` is below 1.
    """

    def __init__(
        self,
        generator: Generator,
        lr: Tensor,
        start: Start,
        downscale: Downscale,
        config: SearchConfig,
        *,
        extra_losses: Sequence[ExtraLoss] = (),
        frames_every: int | None = None,
        observe: Observer | None = None,
        should_stop: ShouldStop | None = None,
    ) -> None:
        start.check(generator, len(lr), config)
        if frames_every is not None and frames_every < 1:
            raise InputError(f"frames_every is {frames_every}, it must be at least 1")
        self._generator, self._downscale, self._config = generator, downscale, config
        self._coarse = smaller(generator, config.coarse_resolution) if config.coarse_steps else None
        self._terms = parse_loss(config.loss)
        self._extra_losses, self._observe, self._should_stop = extra_losses, observe, should_stop
        self._frames_every = frames_every
        start = start.to(lr.device, lr.dtype)
        self._lr, self._latents, self._noise = lr, start.latents, list(start.noise)

        # Silence the bad noise layers; the latents and the trainable maps become leaves.
        silenced = config.silenced_layers()
        for i, noise_map in enumerate(self._noise):
            if config.noise == "zero" or i in silenced:
                noise_map.zero_()
            elif config.noise == "trainable" and i < config.trainable_noise_layers:
                noise_map.requires_grad_()
        trainable = [m for m in self._noise if m.requires_grad]
        leaves = [self._latents.requires_grad_(), *trainable]
        self._optimizer = SphericalOptimizer(leaves, config.optimizer, config.prior == "sphere")

        # The images still searched, by their row of the batch, on the host and on the device.
        self._active = list(range(len(lr)))
        self._rows = torch.tensor(self._active, device=lr.device)
        self._best: Candidates | None = None
        self._steps = [0] * len(lr)
        self._seconds = [0.0] * len(lr)
        self._failed: set[int] = set()
        self._frames: list[list[Frame]] = [[] for _ in range(len(lr))]

    def run(self) -> list[SearchResult]:
        """Search and return one result an image, in order.

        Raises
        ------
        InputError
            If DS does not give images of the input's size, an extra loss is not one value an
            image, the images have no gradient, or none is finite at the first step.
        """
        for step in range(self._config.steps):
            began, active = time.perf_counter(), self._active
            if self._coarse is not None and step < self._config.coarse_steps:
                self._coarse_step(self._coarse, step)
            else:
                self._step(step)
            # The wall time of a step is shared among the images in it.
            for row in active:
                self._seconds[row] += (time.perf_counter() - began) / len(active)
            if not self._active:
                break

        results, best = [], self._best
        for row, (steps, seconds) in enumerate(zip(self._steps, self._seconds, strict=True)):
            frames = tuple(self._frames[row])
            if row in self._failed or best is None:
                reason = f"the search became non-finite (NaN or infinity) at step {steps}"
                results.append(
                    SearchResult(
                        None, None, False, steps, seconds, Status.ERROR, reason, frames=frames
                    )
                )
                continue
            feasible = bool(best.feasible[row])
            results.append(
                SearchResult(
                    # Copies, so that one image does not keep the whole batch in memory.
                    image=best.images[row].clone().float(),
                    downscale_error=float(best.error[row]),
                    feasible=feasible,
                    steps=steps,
                    seconds=seconds,
                    status=Status.OK if feasible else Status.INFEASIBLE,
                    reason=None if feasible else f"no iterate reached eps {self._config.eps:g}",
                    latents=best.latents[row].clone(),
                    latent_radius=latent_radius(best.latents[row]),
                    loss=float(best.total[row]),
                    frames=frames,
                )
            )
        return results

    @torch.enable_grad()
    def _coarse_step(self, coarse: Generator, step: int) -> None:
        """Update latents and noise by a smaller picture, which is neither judged nor kept."""
        config = self._config
        latents = self._latents.expand(-1, self._generator.card.n_latents, -1)
        styles = self._generator.styles(latents)
        # The first of the styles and of the noise maps; GEOCROSS acts on all styles.
        noise = self._noise[: len(coarse.noise_shapes)]
        images = coarse.images(styles[:, : coarse.card.n_latents], noise)
        _, total = self._loss(latents, styles, images)
        factor = learning_rate_factor(config.schedule, step, config.steps)
        self._optimizer.step(total.sum(), config.learning_rate * factor)

    @torch.enable_grad()
    def _step(self, step: int) -> None:
        """Render, judge, keep the best, stop what is finished, and update the rest."""
        config = self._config
        # Render: latents (m, L or 1, D) -> the network's styles (m, L, D) -> (m, 3, R, R).
        latents = self._latents.expand(-1, self._generator.card.n_latents, -1)
        styles = self._generator.styles(latents)
        images = self._generator.images(styles, self._noise)
        terms, total = self._loss(latents, styles, images)

        # Judge the images as they would be returned, clamped to [0, 1].
        with torch.no_grad():
            clamped = images.clamp(0, 1)
            lr = self._downscale(clamped)
            error = (lr - self._lr).double().square().mean(dim=(1, 2, 3))
            # The latents are copied, because the optimiser moves its leaves in place.
            candidates = Candidates(
                clamped, lr, latents.detach().clone(), total.detach(), error, error <= config.eps
            )
            finite, feasible = self._keep_best(step, candidates)

        # Stop the searches that failed and, where the settings say so, the feasible ones.
        staying = []
        for place, row in enumerate(self._active):
            self._steps[row] = step + 1
            if not finite[place]:
                self._failed.add(row)
            elif not (feasible[place] and config.stop_at_feasibility):
                staying.append(place)

        # Show the iterate to the caller, who may stop more of them.
        if self._observe is not None or self._should_stop is not None:
            # Copies of what the first iterate shares with the best so far, which is overwritten.
            iterate = Iterate(
                step=step,
                rows=self._rows,
                latents=candidates.latents.clone(),
                styles=styles.detach(),
                images=images.detach(),
                terms={name: term.detach() for name, term in terms.items()},
                total=candidates.total.clone(),
                downscale_error=error.clone(),
            )
            if self._observe is not None:
                self._observe(iterate)
            if self._should_stop is not None:
                finished = self._should_stop(iterate).tolist()
                staying = [place for place in staying if not finished[place]]

        # Update the latents and the noise; the last iterate needs no update.
        if step + 1 < config.steps and staying:
            factor = learning_rate_factor(config.schedule, step, config.steps)
            self._optimizer.step(total.sum(), config.learning_rate * factor)

        # Go on with the remaining images only.
        if len(staying) < len(self._active):
            with torch.no_grad():
                places = torch.tensor(staying, dtype=torch.long, device=self._rows.device)
                self._active = [self._active[place] for place in staying]
                self._rows, self._lr = self._rows[places], self._lr[places]
                # The optimiser cuts its own tensors in place.
                trainable = {id(tensor) for tensor in self._optimizer.tensors}
                self._optimizer.keep(places)
                self._noise = [m if id(m) in trainable else m[places] for m in self._noise]

    def _loss(
        self, latents: Tensor, styles: Tensor, images: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Evaluate the unweighted terms, (m,) each, and the total loss (m,)."""
        downscaled = self._downscale(images)
        if downscaled.shape != self._lr.shape:
            raise InputError(
                f"downscaling gives {tuple(downscaled.shape[1:])} but the input is "
                f"{tuple(self._lr.shape[1:])}: the scale does not fit this generator"
            )
        if not downscaled.requires_grad:
            raise InputError(
                f"{self._generator.card.name}: its images have no gradient, which the search needs"
            )
        terms = loss_terms(self._terms, downscaled, self._lr, styles, self._config.eps)
        total = torch.stack([t.weight * terms[t.name] for t in self._terms]).sum(0)
        if self._config.prior == "nll":
            total = total + self._config.nll_weight * negative_log_prior(self._optimizer.tensors)
        for extra_loss in self._extra_losses:
            extra = extra_loss(images, latents)
            if extra.shape != total.shape:
                raise InputError(
                    f"an extra loss gives shape {tuple(extra.shape)}, wanted "
                    f"{tuple(total.shape)}: one value an image"
                )
            total = total + extra
        return terms, total

    def _keep_best(self, step: int, candidates: Candidates) -> tuple[list[bool], list[bool]]:
        """Keep the candidates that improve; return which are finite and which are feasible."""
        finite = torch.isfinite(candidates.total) & torch.isfinite(candidates.error)
        if self._best is None:
            best = self._best = candidates
            improves = torch.zeros_like(finite)
        else:
            best = self._best
            improves = finite & candidates.better_than(best, self._rows)
        # One transfer a step: on a GPU each is a wait.
        flags = torch.stack([improves, finite, candidates.feasible]).tolist()
        improved = [place for place, flag in enumerate(flags[0]) if flag]
        if improved:
            places = torch.tensor(improved, device=self._rows.device)
            for field, new in zip(best, candidates, strict=True):
                field.index_copy_(0, self._rows[places], new[places])
        if best is candidates and not any(flags[1]):
            raise InputError(
                f"{self._generator.card.name}: no image is finite at the first step (NaN or "
                "infinity); check the weights, the precision and the input"
            )
        if self._frames_every and (step + 1) % self._frames_every == 0:
            for row in self._active:
                # Copies, because a later best takes the same place.
                image, lr = best.images[row].clone().float(), best.lr[row].clone().float()
                self._frames[row].append(Frame(step + 1, image, lr))
        return flags[1], flags[2]
