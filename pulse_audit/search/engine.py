"""The search of PULSE over one batch, in which every image is searched as if alone.

Success, the best iterate and the floor of the loss are each image's own. The loss sees the image
as rendered, as in PULSE; the verdict on an iterate sees it clamped to [0, 1], as it is handed out,
so DS of the image returned has the error that is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pulse_audit.search.config import SearchConfig
from pulse_audit.search.losses import loss_terms, negative_log_prior, parse_loss
from pulse_audit.search.result import Candidates, Frame, Iterate, SearchResult
from pulse_audit.search.schedule import learning_rate_factor
from pulse_audit.search.sphere import SphericalOptimizer
from pulse_audit.search.start import Start
from pulse_audit.types import Generator, InputError

Downscale = Callable[[Tensor], Tensor]
ExtraLoss = Callable[[Tensor, Tensor], Tensor]
Observer = Callable[[Iterate], None]


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
        DS: (m, 3, R, R) -> (m, 3, h, w), differentiable.
    config : SearchConfig
        Settings.
    extra_losses : sequence of callable
        ``term(images (m, 3, R, R), latents (m, L, D)) -> (m,)``, added to the loss. Rows leave
        the batch as images finish, so a term has to treat every image alike.
    frames_every : int, optional
        Keep the best so far of every image each time so many iterates have been judged.
    observe : callable, optional
        Called with every `Iterate`.

    Raises
    ------
    InputError
        If ``start`` does not fit the generator.
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
    ) -> None:
        start.check(generator, len(lr), config)
        self._generator, self._downscale, self._config = generator, downscale, config
        self._terms = parse_loss(config.loss)
        self._extra_losses, self._observe = extra_losses, observe
        self._frames_every = frames_every
        start = start.to(lr.device, lr.dtype)
        self._lr, self._latents, self._noise = lr, start.latents, list(start.noise)
        self._rows = torch.arange(len(lr), device=lr.device)
        self._optimizer = self._prepare()
        self._best: Candidates | None = None
        self._steps = [0] * len(lr)
        self._seconds = [0.0] * len(lr)
        self._failed_at: dict[int, int] = {}
        self._frames: list[list[Frame]] = [[] for _ in range(len(lr))]

    def run(self) -> list[SearchResult]:
        """Search and return one result an image, in order.

        Raises
        ------
        InputError
            If DS does not give images of the input's size, an extra loss is not one value an
            image, or the first iterate is not finite for any image.
        """
        for step in range(self._config.steps):
            began, rows = time.perf_counter(), self._rows.tolist()
            self._step(step)
            for row in rows:
                self._seconds[row] += (time.perf_counter() - began) / len(rows)
            if not len(self._rows):
                break
        return [self._result(row) for row in range(len(self._steps))]

    def _prepare(self) -> SphericalOptimizer:
        """Silence the bad noise layers and make leaves of what is optimised."""
        config, silenced = self._config, self._config.silenced_layers()
        for i in range(len(self._noise)):
            if config.noise == "zero" or i in silenced:
                self._noise[i].zero_()
            elif config.noise == "trainable" and i < config.trainable_noise_layers:
                self._noise[i].requires_grad_()
        trainable = [m for m in self._noise if m.requires_grad]
        leaves = [self._latents.requires_grad_(), *trainable]
        return SphericalOptimizer(leaves, config.optimizer, config.prior == "sphere")

    @torch.enable_grad()
    def _step(self, step: int) -> None:
        """Render, judge, drop what is finished, and update the rest."""
        iterate = self._render(step)
        candidates = self._judge(iterate)
        staying = self._record(step, candidates)
        if self._observe is not None:
            self._observe(_detached(iterate, candidates))
        if step + 1 == self._config.steps or not staying:
            self._rows = self._rows[:0]
            return
        factor = learning_rate_factor(self._config.schedule, step, self._config.steps)
        self._optimizer.step(iterate.total.sum(), self._config.learning_rate * factor)
        if len(staying) < len(self._rows):
            self._compact(torch.tensor(staying, device=self._rows.device))

    def _render(self, step: int) -> Iterate:
        config = self._config
        latents = self._latents.expand(-1, self._generator.card.n_latents, -1)
        styles = self._generator.styles(latents)
        images = self._generator.images(styles, self._noise)
        downscaled, lr = self._downscale(images), self._lr[self._rows]
        if downscaled.shape != lr.shape:
            raise InputError(
                f"downscaling gives {tuple(downscaled.shape[1:])} but the input is "
                f"{tuple(lr.shape[1:])}: the scale does not fit this generator"
            )
        terms = loss_terms(self._terms, downscaled, lr, styles, config.eps)
        total = torch.stack([t.weight * terms[t.name] for t in self._terms]).sum(0)
        if config.prior == "nll":
            total = total + config.nll_weight * negative_log_prior(self._optimizer.tensors)
        for extra in self._extra_losses:
            total = total + _one_an_image(extra(images, latents), total)
        return Iterate(step, self._rows, latents, styles, images, terms, total, total)

    @torch.no_grad()
    def _judge(self, iterate: Iterate) -> Candidates:
        images = iterate.images.clamp(0, 1)
        lr = self._downscale(images)
        error = (lr - self._lr[self._rows]).double().square().mean(dim=(1, 2, 3))
        feasible = error <= self._config.eps
        # The optimiser moves its leaf in place, so the latents have to be a copy.
        latents = iterate.latents.detach().clone()
        return Candidates(images, lr, latents, iterate.total.detach(), error, feasible)

    def _record(self, step: int, candidates: Candidates) -> list[int]:
        """Keep what improved; return which of the present rows go on."""
        finite = candidates.finite()
        if self._best is None:
            self._best, better = candidates, torch.zeros_like(finite)
        else:
            better = finite & candidates.better_than(self._best.at_metrics(self._rows))
        # One transfer a step: on a GPU each is a wait.
        flags = torch.stack([better, finite, candidates.feasible]).tolist()
        improved = [i for i, flag in enumerate(flags[0]) if flag]
        if improved:
            places = torch.tensor(improved, device=self._rows.device)
            self._best.overwrite(self._rows[places], candidates.at(places))
        if step == 0 and not any(flags[1]):
            raise InputError(
                f"{self._generator.card.name}: no image or loss of the first step is finite "
                "(NaN or infinity); check the weights, the precision and the input"
            )
        return self._staying(step, *flags[1:])
