"""The search of PULSE over one batch, in which every image is searched as if alone.

Success, the best iterate and the floor of the loss are each image's own. The loss sees the image
as rendered, as in PULSE; the verdict on an iterate sees it clamped to [0, 1], as it is handed out,
so DS of the image returned has the error that is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_audit.search.config import SearchConfig
from pulse_audit.search.losses import loss_terms, negative_log_prior, parse_loss
from pulse_audit.search.result import Candidates, Frame, Iterate, SearchResult
from pulse_audit.search.schedule import learning_rate_factor
from pulse_audit.search.sphere import SphericalOptimizer
from pulse_audit.search.start import Start
from pulse_audit.types import Generator, InputError, Status

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
    should_stop : callable, optional
        Asked of every `Iterate` which of its images may leave the search: (m,) of bool. Unlike
        ``stop_at_feasibility`` it may want more than feasibility, or something else.

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
        self._terms = parse_loss(config.loss)
        self._extra_losses, self._observe, self._should_stop = extra_losses, observe, should_stop
        self._frames_every = frames_every
        start = start.to(lr.device, lr.dtype)
        self._lr, self._latents, self._noise = lr, start.latents, list(start.noise)
        self._active = list(range(len(lr)))
        self._rows = torch.tensor(self._active, device=lr.device)
        self._optimizer = self._prepare()
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
            self._step(step)
            for row in active:
                self._seconds[row] += (time.perf_counter() - began) / len(active)
            if not self._active:
                break
        return [self._result(row) for row in range(len(self._steps))]

    def _prepare(self) -> SphericalOptimizer:
        """Silence the bad noise layers and make leaves of what is optimised."""
        config, silenced = self._config, self._config.silenced_layers()
        for i, noise_map in enumerate(self._noise):
            if config.noise == "zero" or i in silenced:
                noise_map.zero_()
            elif config.noise == "trainable" and i < config.trainable_noise_layers:
                noise_map.requires_grad_()
        trainable = [m for m in self._noise if m.requires_grad]
        leaves = [self._latents.requires_grad_(), *trainable]
        return SphericalOptimizer(leaves, config.optimizer, config.prior == "sphere")

    @torch.enable_grad()
    def _step(self, step: int) -> None:
        """Render, judge, drop what is finished, and update the rest."""
        rendered = self._render()
        candidates = self._judge(rendered)
        staying = self._record(step, candidates)
        if self._observe is not None or self._should_stop is not None:
            staying = self._show(rendered.shown(step, self._rows, candidates), staying)
        if step + 1 < self._config.steps and staying:
            factor = learning_rate_factor(self._config.schedule, step, self._config.steps)
            self._optimizer.step(rendered.total.sum(), self._config.learning_rate * factor)
        if len(staying) < len(self._active):
            self._compact(staying)

    def _render(self) -> _Rendered:
        config = self._config
        latents = self._latents.expand(-1, self._generator.card.n_latents, -1)
        styles = self._generator.styles(latents)
        images = self._generator.images(styles, self._noise)
        downscaled = self._downscale(images)
        if downscaled.shape != self._lr.shape:
            raise InputError(
                f"downscaling gives {tuple(downscaled.shape[1:])} but the input is "
                f"{tuple(self._lr.shape[1:])}: the scale does not fit this generator"
            )
        if not downscaled.requires_grad:
            raise InputError(
                f"{self._generator.card.name}: its images have no gradient to search by"
            )
        terms = loss_terms(self._terms, downscaled, self._lr, styles, config.eps)
        total = torch.stack([t.weight * terms[t.name] for t in self._terms]).sum(0)
        if config.prior == "nll":
            total = total + config.nll_weight * negative_log_prior(self._optimizer.tensors)
        for extra in self._extra_losses:
            total = total + _one_an_image(extra(images, latents), total)
        return _Rendered(latents, styles, images, terms, total)

    @torch.no_grad()
    def _judge(self, rendered: _Rendered) -> Candidates:
        images = rendered.images.clamp(0, 1)
        lr = self._downscale(images)
        error = (lr - self._lr).double().square().mean(dim=(1, 2, 3))
        feasible = error <= self._config.eps
        # A copy, because the optimiser moves its leaves in place.
        latents = rendered.latents.detach().clone()
        return Candidates(images, lr, latents, rendered.total.detach(), error, feasible)

    @torch.no_grad()
    def _record(self, step: int, candidates: Candidates) -> list[int]:
        """Keep what improved; return which of the present rows go on."""
        finite = candidates.finite()
        first = self._best is None
        best = self._best = candidates if self._best is None else self._best
        better = torch.zeros_like(finite) if first else candidates.better_than(best, self._rows)
        # One transfer a step: on a GPU each is a wait.
        flags = torch.stack([better, finite, candidates.feasible]).tolist()
        improved = [i for i, flag in enumerate(flags[0]) if flag]
        if improved:
            places = torch.tensor(improved, device=self._rows.device)
            best.overwrite(self._rows[places], candidates.at(places))
        if first and not any(flags[1]):
            raise InputError(
                f"{self._generator.card.name}: no image is finite at the first step (NaN or "
                "infinity); check the weights, the precision and the input"
            )
        self._keep_frames(step, best)
        return self._staying(step, flags[1], flags[2])

    def _staying(self, step: int, finite: list[bool], feasible: list[bool]) -> list[int]:
        staying = []
        for place, row in enumerate(self._active):
            self._steps[row] = step + 1
            if not finite[place]:
                self._failed.add(row)
            elif not (feasible[place] and self._config.stop_at_feasibility):
                staying.append(place)
        return staying

    def _show(self, iterate: Iterate, staying: list[int]) -> list[int]:
        """Show an iterate to whoever asked for it; return which of the present rows go on."""
        if self._observe is not None:
            self._observe(iterate)
        if self._should_stop is None:
            return staying
        finished = self._should_stop(iterate).tolist()
        return [place for place in staying if not finished[place]]

    def _keep_frames(self, step: int, best: Candidates) -> None:
        if self._frames_every and (step + 1) % self._frames_every == 0:
            for row in self._active:
                # Copies, because a later best takes the same place.
                image, lr = best.images[row].clone().float(), best.lr[row].clone().float()
                self._frames[row].append(Frame(step + 1, image, lr))

    @torch.no_grad()
    def _compact(self, staying: list[int]) -> None:
        """Go on with some of the images only."""
        places = torch.tensor(staying, dtype=torch.long, device=self._rows.device)
        self._active = [self._active[place] for place in staying]
        self._rows, self._lr = self._rows[places], self._lr[places]
        trainable = {id(tensor) for tensor in self._optimizer.tensors}
        self._optimizer.keep(places)
        self._noise = [m if id(m) in trainable else m[places] for m in self._noise]

    def _result(self, row: int) -> SearchResult:
        steps, seconds, frames = self._steps[row], self._seconds[row], tuple(self._frames[row])
        if row in self._failed or self._best is None:
            reason = f"the search became non-finite (NaN or infinity) at step {steps}"
            return SearchResult(
                None, None, False, steps, seconds, Status.ERROR, reason, frames=frames
            )
        best, feasible = self._best, bool(self._best.feasible[row])
        return SearchResult(
            # Copies, so that one image does not keep the whole batch in memory.
            image=best.images[row].clone().float(),
            downscale_error=float(best.error[row]),
            feasible=feasible,
            steps=steps,
            seconds=seconds,
            status=Status.OK if feasible else Status.INFEASIBLE,
            reason=None if feasible else f"no iterate reached eps {self._config.eps:g}",
            latents=best.latents[row].clone(),
            loss=float(best.total[row]),
            frames=frames,
        )


@dataclass(frozen=True)
class _Rendered:
    """One rendering of the present rows, with gradients."""

    latents: Tensor
    styles: Tensor
    images: Tensor
    terms: dict[str, Tensor]
    total: Tensor

    def shown(self, step: int, rows: Tensor, candidates: Candidates) -> Iterate:
        """Return what an observer sees of it; copies, because the best so far is overwritten."""
        return Iterate(
            step=step,
            rows=rows,
            latents=candidates.latents.clone(),
            styles=self.styles.detach(),
            images=self.images.detach(),
            terms={name: term.detach() for name, term in self.terms.items()},
            total=candidates.total.clone(),
            downscale_error=candidates.error.clone(),
        )


def _one_an_image(value: Tensor, total: Tensor) -> Tensor:
    if value.shape != total.shape:
        raise InputError(
            f"an extra loss gives shape {tuple(value.shape)}, wanted {tuple(total.shape)}: one "
            "value an image"
        )
    return value
