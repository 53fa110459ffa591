"""Fewer and cheaper steps for the same answer, measured on the shipped twins.

``python -m benchmarks.fewer_steps`` searches a balanced sample of FairFace (``../shared``), two
draws a face, and holds every way against the official search: time, feasibility, retention (as
`benchmarks.coarse` does, paired by face), and diversity, the mean absolute difference of the two
draws of a face, with a paired t interval. The ways:

- fast: an image leaves the batch at its first feasible iterate;
- best of K: the start whose picture fits best among K from the prior, chosen without a gradient;
- coarse: the first 20 steps at 16 px (``--coarse 20@16``);
- L-BFGS: 25 iterations on one image at a time, noise as drawn, spheres kept by normalising;
- bfloat16, official and fast.

Written to ``benchmarks/results/fewer_steps.md``.
"""

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from benchmarks.__main__ import RESULTS, machine
from benchmarks.coarse import OFFICIAL, Way, coarse, compare
from pulse_audit.degrade.resample import downscale
from pulse_audit.models.generators import load_generator
from pulse_audit.search.config import PRESETS
from pulse_audit.search.engine import BatchSearch
from pulse_audit.search.losses import geocross
from pulse_audit.search.memory import keep_freed_memory
from pulse_audit.search.sphere import Start, draw_start
from pulse_audit.types import Status, Upsampled

FAST = PRESETS["fast"]
DRAWS = (0, 1)
TWINS = ("faces-balanced", "faces-skewed")


@dataclass(frozen=True)
class BestOf(Way):
    """Starts from the best of ``count`` draws of the prior."""

    count: int = 8

    def search(self, generator, lr: Tensor, seeds: Sequence[int]) -> Sequence[Upsampled]:
        side, starts, errors = lr.shape[-1], [], []
        for number in range(self.count):
            # The first is the start of the other ways.
            start = draw_start(generator, [seed + number for seed in seeds], self.config)
            with torch.no_grad():
                picture = generator.synthesize(start.latents, start.noise)
                shown = downscale(picture, picture.shape[-1] // side)
            starts.append(start)
            errors.append((shown - lr).square().mean((1, 2, 3)))
        best = torch.stack(errors).argmin(0).tolist()

        def chosen(tensors: Sequence[Tensor]) -> Tensor:
            return torch.stack([tensors[k][i] for i, k in enumerate(best)])

        start = Start(
            chosen([s.latents for s in starts]),
            tuple(chosen(maps) for maps in zip(*(s.noise for s in starts), strict=True)),
        )
        return BatchSearch(
            generator, lr, start, lambda p: downscale(p, p.shape[-1] // side), self.config
        ).run()


@dataclass(frozen=True)
class Lbfgs(Way):
    """Newton-like steps on one image at a time."""

    iterations: int = 25

    def search(self, generator, lr: Tensor, seeds: Sequence[int]) -> Sequence[Upsampled]:
        return [self.one(generator, x[None], seed) for x, seed in zip(lr, seeds, strict=True)]

    def one(self, generator, lr: Tensor, seed: int) -> Upsampled:
        start, began = draw_start(generator, [seed], self.config), time.perf_counter()
        radius, free = start.latents.norm(dim=-1, keepdim=True), start.latents.clone()
        free.requires_grad_()
        optimiser = torch.optim.LBFGS(
            [free], max_iter=self.iterations, history_size=10, line_search_fn="strong_wolfe"
        )
        best: tuple[float, Tensor] = (math.inf, lr)
        evaluations = 0

        def loss() -> Tensor:
            nonlocal best, evaluations
            optimiser.zero_grad()
            styles = generator.styles(free / free.norm(dim=-1, keepdim=True) * radius)
            picture = generator.images(styles, start.noise)
            factor = picture.shape[-1] // lr.shape[-1]
            clamped = picture.detach().clamp(0, 1)
            error = float((downscale(clamped, factor) - lr).square().mean())
            if error < best[0]:
                best = error, clamped[0]
            total = 100 * (downscale(picture, factor) - lr).square().mean()
            total = total + 0.05 * geocross(styles).sum()
            total.backward()
            evaluations += 1
            return total

        optimiser.step(loss)
        feasible = best[0] <= self.config.eps
        status = Status.OK if feasible else Status.INFEASIBLE
        seconds = time.perf_counter() - began
        return Upsampled(best[1], best[0], feasible, evaluations, seconds, status)


WAYS: dict[str, Way] = {
    "official, 100 whole": Way(),
    "fast": Way(FAST),
    "fast, best of 8 starts": BestOf(FAST),
    "official, 20 at 16 px first": Way(coarse(OFFICIAL, 20, 16)),
    "L-BFGS, 25 iterations": Lbfgs(),
    "official, bfloat16": Way(dtype=torch.bfloat16),
    "fast, bfloat16": Way(FAST, dtype=torch.bfloat16),
}


def diversity(pictures: dict[str, list[Tensor]]) -> list[str]:
    """Table how far the two draws of a face differ, and whether that is less than officially."""
    spread = {}
    for name, batches in pictures.items():
        first, second = torch.cat(batches).chunk(2)
        spread[name] = (first - second).abs().mean((1, 2, 3)).double().numpy()
    official = next(iter(spread.values()))
    rows = ["| search | difference of two draws | less official |", "|---|---|---|"]
    for name, values in spread.items():
        gap = values - official
        half = stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
        beside = f"{gap.mean():+.4f} [{gap.mean() - half:+.4f}, {gap.mean() + half:+.4f}]"
        is_official = values is official
        rows.append(f"| {name} | {values.mean():.4f} | {'' if is_official else beside} |")
    return [*rows, ""]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fewer_steps", description=__doc__)
    parser.add_argument("--per-group", type=int, default=10)
    parser.add_argument("--twin", action="append", choices=TWINS, help="default: both")
    parser.add_argument("--way", action="append", choices=WAYS, help="default: all")
    asked = parser.parse_args()
    ways = {name: WAYS[name] for name in asked.way or WAYS}
    torch.set_num_threads(1)
    keep_freed_memory()
    facts, began = machine(), time.process_time()
    lines: list[str] = []
    for name in asked.twin or TWINS:
        pictures: dict[str, list[Tensor]] = {}
        lines += [f"## {name}, 32 px, inputs of 8 px", ""]
        lines += compare(load_generator(name), ways, asked.per_group, None, 4, 14, DRAWS, pictures)[
            :-2
        ]
        lines += diversity(pictures)
        head = [
            "# Fewer steps for the same answer",
            "",
            f"`python -m benchmarks.fewer_steps --per-group {asked.per_group}` on {facts['cpu']}, "
            f"one thread, torch {facts['torch']}: {(time.process_time() - began) / 60:.0f} CPU "
            "minutes. What is compared is said in `benchmarks/fewer_steps.py`.",
            "",
        ]
        (RESULTS / "fewer_steps.md").write_text("\n".join([*head, *lines]).rstrip() + "\n")


if __name__ == "__main__":
    main()
