"""Coarse-to-fine search: the first steps on a smaller picture, the last on the whole one.

    python -m benchmarks.coarse [--per-group 30] [--faces 4]

Real faces (FairFace's validation sample, one draw each) are searched by PULSE in three ways, from
the same starts: the official 100 steps; *coarse* searches, whose first steps render a smaller
picture and compare its DS with the input, and whose last steps render the whole; and *short*
searches, the official one with fewer steps, that cost no more than the coarse search they stand
beside. Feasibility is judged on whole pictures alone. A coarse search is worth an option if it
takes less time than the official one at equal feasibility and retention, and if fewer whole steps,
which need no option, are feasible less often in the same time. ``wins`` says when that is shown.

The shipped twins (32 px, inputs of 8 px) are cut off at 16 px, as the skip architecture defines it
(``StyleGAN2.at_resolution``). ``mobilestylegan-ffhq`` (1024 px, inputs of 32 px, the part of its
pictures that the photos show) has no smaller pictures: its are a linear readout of the features of
64 px, by ridge regression on 48 samples of the prior that the search starts from.

Times are CPU seconds of one process, the searches in turn on each batch; intervals of their ratios
are percentiles of 2,000 resamplings of the batches, those of shares are Tango's, paired by face.
Written to ``benchmarks/results/coarse.md``.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.__main__ import RESULTS, machine
from pulse_audit.datasets.balance import balanced_draw
from pulse_audit.datasets.images import decode
from pulse_audit.datasets.readers import read_faces
from pulse_audit.datasets.registry import load_registry
from pulse_audit.degrade.resample import cut_to_frame, downscale
from pulse_audit.faces.align import centre_square
from pulse_audit.faces.attributes import columns
from pulse_audit.faces.crops import frame_in_ffhq
from pulse_audit.generators.framed import FramedGenerator
from pulse_audit.models.attributes import load_attributes
from pulse_audit.models.generators import load_generator
from pulse_audit.search.config import PRESETS, SearchConfig
from pulse_audit.search.engine import BatchSearch
from pulse_audit.search.memory import keep_freed_memory
from pulse_audit.search.sphere import draw_start
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.types import Draw, InputError, Upsampled

FACES = Path(__file__).resolve().parents[2] / "shared" / "fairface-sample"
OFFICIAL = PRESETS["official"]
REPLICATES = 2_000
#: Share of faces by which feasibility and retention may be lower, at the end of their intervals.
MARGIN = 0.05
#: Draws of a face that no split was chosen by.
NEW = (1, 2, 3, 4)

#: From styles (n, L, D) and noise maps to small pictures (n, 3, r, r), nominally in [0, 1].
SmallPictures = Callable[[Tensor, Sequence[Tensor]], Tensor]


@dataclass(frozen=True)
class Way:
    """A way to search; ``short`` names the search of whole steps that takes no more time."""

    config: SearchConfig = OFFICIAL
    short: str | None = None
    #: Type of the network's features.
    dtype: torch.dtype = torch.float32

    def search(self, generator, lr: Tensor, seeds: Sequence[int]) -> Sequence[Upsampled]:
        """Search inputs (n, 3, h, h), each from its seed."""
        side, start = lr.shape[-1], draw_start(generator, seeds, self.config)
        # DS by the factor that the side of a picture asks for.
        return BatchSearch(
            generator, lr, start, lambda p: downscale(p, p.shape[-1] // side), self.config
        ).run()


class WithReadout(FramedGenerator):
    """A generator seen through a frame, whose smaller pictures are a readout of its features."""

    readout: SmallPictures

    def at_resolution(self, resolution: int) -> "WithReadout":
        small = copy.copy(self)
        small.card = replace(self.card, resolution=resolution)
        small.images = lambda styles, noise: cut_to_frame(
            self.readout(styles, noise), self.frame, resolution
        )
        return small


def features(network, styles: Tensor, resolution: int) -> Tensor:
    """Feature maps (n, c, r, r) of a MobileStyleGAN, at the end of the block of r px."""
    constant = network.syn.const[None].contiguous(memory_format=torch.channels_last)
    x = network.syn.conv1(constant, styles[:, 0])
    for index, block in enumerate(network.syn.layers):
        x = block(x, styles[:, 3 * index + 1 : 3 * index + 4])
        if x.shape[-1] == resolution:
            return x
    raise ValueError(f"no features of {resolution} px")


@torch.no_grad()
def fitted_readout(
    generator, resolution: int, fitted: int = 48, held_out: int = 16
) -> tuple[SmallPictures, str]:
    """Fit pictures of ``resolution`` px to the features of that size; and say how well it fits."""
    network, side = generator.network, generator.card.resolution

    def samples(seeds: Sequence[int]):
        for seed in seeds:
            styles = generator.styles(draw_start(generator, [seed], OFFICIAL).latents)
            yield styles, generator.images(styles, [])

    # The normal equations of a penalised regression over all pixels, summed in float64.
    gram = moments = torch.zeros((), dtype=torch.float64)
    for styles, picture in samples(range(fitted)):
        x = features(network, styles, resolution)[0].flatten(1)
        x = torch.cat([x, torch.ones_like(x[:1])]).double()
        gram = gram + x @ x.T
        moments = moments + x @ downscale(picture, side // resolution)[0].flatten(1).double().T
    penalty = 1e-4 * gram.diagonal().clone()
    penalty[-1] = 0  # that of the constant
    weight = torch.linalg.solve(gram + penalty.diag(), moments).float().T

    def pictures(styles: Tensor, noise: Sequence[Tensor]) -> Tensor:
        x = features(network, styles, resolution)
        return F.conv2d(x, weight[:, :-1, None, None], weight[:, -1])

    errors, at_32 = [], []
    for styles, picture in samples(range(fitted, fitted + held_out)):
        small = downscale(pictures(styles, []), resolution // 32)
        at_32.append(downscale(picture, side // 32))
        errors.append(float((small - at_32[-1]).square().mean()))
    together = torch.cat(at_32)
    variance = float((together - together.mean(0)).square().mean())
    return pictures, (
        f"At 32 px the readout misses the pictures of {held_out} further samples by a mean square "
        f"of {np.mean(errors):.4f} (median {np.median(errors):.4f}); their variance is "
        f"{variance:.4f}, the search's eps {OFFICIAL.eps}."
    )


def real_faces(generator, per_group: int, limit: int | None, scale: int, attributes):
    """Inputs (n, 3, h, h), labels (n,), ids and the column of race, of a balanced sample."""
    index = read_faces(load_registry(None).get("fairface"), FACES, "val")
    drawn = balanced_draw(index.faces, ["race"], per_group, 0, index.vocabulary).chosen
    # In turn from every group, so that a few faces are of as many groups.
    place = {face.id: sum(f.labels["race"] == face.labels["race"] for f in drawn[:i])
             for i, face in enumerate(drawn)}  # fmt: skip
    faces = sorted(drawn, key=lambda face: place[face.id])[:limit]
    vocabulary = attributes.card.vocabulary
    (column,) = (c for c in columns(vocabulary, index.vocabulary)[0] if c.name == "race")
    size = generator.card.resolution
    lr = torch.cat(
        [downscale(centre_square(decode(f.source.read()), size)[None], scale) for f in faces]
    )
    labels = np.array([column.words.index(face.labels["race"]) for face in faces])
    return lr.clamp(0, 1), labels, [face.id for face in faces], column


def compare(
    generator, ways: dict[str, Way], per_group: int, limit: int | None,
    scale: int, batch: int, draws: Sequence[int] = (0,),
    pictures: dict[str, list[Tensor]] | None = None,
) -> list[str]:  # fmt: skip
    """Search every face in every way, and return the table; ``pictures`` takes every output.

    Outputs are in batches: all faces, then all of them again for the next draw.
    """
    attributes = load_attributes("faces-attributes", "cpu")
    lr, labels, ids, column = real_faces(generator, per_group, limit, scale, attributes)
    faces = len(lr)
    # All faces, then all of them again for the next draw.
    seeds = [Draw(face, "clean", scale, draw).seed(0) for draw in draws for face in ids]
    lr, labels = lr.repeat(len(draws), 1, 1, 1), np.tile(labels, len(draws))
    results = {name: [] for name in ways}
    seconds = {name: [] for name in ways}
    for number, first in enumerate(range(0, len(lr), batch)):
        rows = slice(first, first + batch)
        # Another one begins in each batch.
        order = list(ways)
        turn = number % len(order)
        for name in order[turn:] + order[:turn]:
            generator.to("cpu", ways[name].dtype)
            # One thread, so CPU seconds are those of the search whatever else the machine does.
            began = time.process_time()
            found = ways[name].search(generator, lr[rows], seeds[rows])
            seconds[name].append(time.process_time() - began)
            images = torch.stack([result.image for result in found])
            if pictures is not None:
                pictures.setdefault(name, []).append(images)
            with torch.no_grad():
                shown = column.probabilities(attributes(images)).argmax(1).numpy()
            for result, seen, label in zip(found, shown, labels[rows], strict=True):
                results[name].append(
                    (result.feasible, seen == label, result.steps, result.downscale_error)
                )
        print(f"{generator.card.name}: {len(results[order[0]])} of {len(lr)} inputs", flush=True)

    random = np.random.default_rng(0)
    batches = len(next(iter(seconds.values())))
    again = random.integers(batches, size=(REPLICATES, batches))
    official = next(iter(ways))
    # Rows are faces: shares of their draws that are feasible and retained, steps, error.
    table = {
        name: np.array(rows, dtype=np.float64).reshape(len(draws), faces, 4).mean(0)
        for name, rows in results.items()
    }

    def ratios(name: str) -> np.ndarray:
        """Time of a way as a share of the official search's: its interval."""
        taken, base = (np.array(seconds[n])[again].sum(1) for n in (name, official))
        return np.quantile(taken / base, (0.025, 0.975))

    def wins(name: str, way: Way) -> bool:
        """Less time, nothing lost beyond the margin, and better than whole steps alone."""
        lows = [
            paired_proportions(table[name][:, column] - table[official][:, column]).low
            for column in (0, 1)
        ]
        over_short = paired_proportions(table[name][:, 0] - table[way.short][:, 0]).low
        return bool(ratios(name)[1] < 1 and min(lows) > -MARGIN and over_short > 0)

    lines = [
        f"{faces} faces, {len(draws)} draw(s) each (number {draws[0]} on), {batches} batches of "
        f"{batch}; the official search takes "
        f"{sum(seconds[official]) / len(lr) / OFFICIAL.steps:.4f} s a step and face.",
        "",
        "| search | time, official = 1 | steps | feasible, % | less official, points | retained, % "
        "| less official, points | median error | feasible less the short one, points |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, way in ways.items():
        taken, base = (np.array(seconds[n]) for n in (name, official))
        ratio = ratios(name)
        feasible, retained, steps, error = table[name].T
        beside = (
            f"{difference(feasible, table[way.short][:, 0])} ({way.short})" if way.short else ""
        )
        cells = [
            name,
            "1" if name == official
            else f"{taken.sum() / base.sum():.2f} [{ratio[0]:.2f}, {ratio[1]:.2f}]",
            f"{steps.mean():.0f}",
            f"{100 * feasible.mean():.0f}",
            "" if name == official else difference(feasible, table[official][:, 0]),
            f"{100 * retained.mean():.0f}",
            "" if name == official else difference(retained, table[official][:, 1]),
            f"{np.median(error):.5f}",
            beside,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    winners = [
        name
        for name, way in ways.items()
        if way.short and way.config.coarse_steps and wins(name, way)
    ]
    return [*lines, "", f"Shown to win: {', '.join(winners) or 'none'}.", ""]


def difference(one: np.ndarray, other: np.ndarray) -> str:
    """``-12 [-17, -8]``: the paired difference of two shares, in points."""
    estimate = paired_proportions(one - other)
    value, low, high = (100 * x for x in (estimate.value, estimate.low, estimate.high))
    return f"{value:+.0f} [{low:+.0f}, {high:+.0f}]"


def coarse(config: SearchConfig, steps: int, resolution: int) -> SearchConfig:
    return replace(config, coarse_steps=steps, coarse_resolution=resolution)


def ways_of(splits: Sequence[tuple[int, int]], side: int) -> dict[str, Way]:
    """The official search, and each split with the short search that costs no more."""
    ways = {"official, 100 whole": Way()}
    for first, whole in splits:
        short = f"{whole} whole"
        name = f"{first} at {side} px, {100 - first} whole"
        ways[name] = Way(coarse(OFFICIAL, first, side), short)
        ways[short] = Way(replace(OFFICIAL, steps=whole))
    return ways


def twins(per_group: int) -> list[str]:
    # A step of 16 px costs about .4 of one of 32 px: short searches as long as the coarse ones.
    ways = ways_of([(20, 87), (40, 75), (60, 62), (80, 50), (90, 44)], 16)
    fast = PRESETS["fast"]
    ways["fast, 20 at 16 px first"] = Way(coarse(fast, 20, 16), "fast")
    ways["fast"] = Way(fast)
    lines = []
    for name in ("faces-balanced", "faces-skewed"):
        generator = load_generator(name)
        lines += [f"## {name}, 32 px, inputs of 8 px", ""]
        lines += compare(generator, ways, per_group, None, 4, 14)
    return lines


def twins_again(per_group: int) -> list[str]:
    """The split that came nearest, on starts that had no part in choosing it."""
    ways = ways_of([(20, 87)], 16)
    lines = []
    for name in ("faces-balanced", "faces-skewed"):
        generator = load_generator(name)
        lines += [f"## {name} again: the split that came nearest, from new starts", ""]
        lines += compare(generator, ways, per_group, None, 4, 14, NEW)
    return lines


def mobilestylegan(faces: int) -> list[str]:
    whole = load_generator("mobilestylegan-ffhq")
    readout, how_well = fitted_readout(whole, 64)
    # What FairFace's photos show of FFHQ's crop.
    frame = frame_in_ffhq("fairface-0.25").seen_from(frame_in_ffhq("ffhq"))
    generator = WithReadout(whole, frame, 1024, "fairface-0.25", cut_to_frame)
    generator.readout = readout

    # A step of 64 px costs about .17 of one of 1024 px.
    ways = ways_of([(40, 66), (60, 50)], 64)
    lines = ["## mobilestylegan-ffhq, 1024 px, inputs of 32 px", "", how_well, ""]
    return lines + compare(generator, ways, 1, faces, 32, 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coarse", description=__doc__)
    parser.add_argument("--per-group", type=int, default=30, help="faces for the twins")
    parser.add_argument("--faces", type=int, default=4, help="faces for mobilestylegan-ffhq")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    began, facts = time.process_time(), machine()
    lines = twins(asked.per_group) + twins_again(asked.per_group)
    try:
        lines += mobilestylegan(asked.faces)
    except InputError as error:
        lines += [f"mobilestylegan-ffhq: unavailable, because {error}", ""]
    minutes = (time.process_time() - began) / 60
    head = [
        "# Coarse-to-fine search",
        "",
        f"`{' '.join(['python -m benchmarks.coarse', *sys.argv[1:]])}` on {facts['cpu']}, one "
        f"thread, Python {facts['python']}, torch {facts['torch']}: {minutes:.0f} CPU minutes. "
        "What is compared is said in `benchmarks/coarse.py`; differences are paired by face, with "
        "95 % intervals; the last column is against the search of whole steps, named in brackets, "
        "that takes no more time.",
        "",
    ]
    (RESULTS / "coarse.md").write_text("\n".join([*head, *lines]))


if __name__ == "__main__":
    main()
