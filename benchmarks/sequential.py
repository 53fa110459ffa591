"""Sampling until decided: how often it is ever wrong, and how many faces it saves.

    python -m benchmarks.sequential [--repeats 2000] [--seed 0] [--out runs/sequential]

A rule is looked at after every face, up to a cap of 1.35 times the sample of fixed size that
decides a distance of ten points with 90 % power (normal approximation). Draws are correlated
within faces as in ``benchmarks.gate``. A repeat of the *nulls* counts where the rule is ever
decided wrongly, every true value lying on its limit: for a fail all groups, for a pass one of them
and the others far within. *Savings* are of one group; O'Brien and Fleming's schedule looks five
times, the last time at the cap.

Finished situations are kept in ``--out``. The tables are the last section of
``benchmarks/results/gate.md``.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.gate import arguments, write_section
from pulse_audit import terminal
from pulse_audit.files import as_json, atomic_write
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.sequential import levels_of_looks, log_capital, lower_at_level

TITLE = "## Sampling until decided"
ALPHA, POWER, CAP, ALLOWED, LOOKS = 0.05, 0.9, 1.35, 120, 5
GROUPS, DRAWS, ICC, CORRELATION = 7, 5, 0.5, 0.63
FloatArray = NDArray[np.float64]


def face_means(random: np.random.Generator, rate: float, usual: FloatArray) -> FloatArray:
    """Means of the draws of faces, (faces,), that have a number of their own each."""
    shape = (len(usual), DRAWS)
    has_usual = random.random(shape) < math.sqrt(ICC)
    return (np.where(has_usual, usual[:, None], random.random(shape)) < rate).mean(axis=1)


def values_of(random: np.random.Generator, kind: str, rate: float, faces: int) -> FloatArray:
    """Faces of one group in [0, 1]: means, or by how much they are better than before, rescaled.

    ``rate`` is the true mean; for ``paired`` the baseline's is .6 and the mean is of the rescaled
    differences.
    """
    usual = random.random(faces)
    if kind == "rate":
        return face_means(random, rate, usual)
    before, after = 0.6, 0.6 + 2 * rate - 1
    # chance that a face has one number on both sides, as in benchmarks.gate
    low, high = min(before, after), max(before, after)
    of_rates = low * (1 - high) / math.sqrt(low * (1 - low) * high * (1 - high))
    within = ICC * DRAWS / (1 + (DRAWS - 1) * ICC)
    is_shared = random.random(faces) < CORRELATION / (within * of_rates)
    theirs = np.where(is_shared, usual, random.random(faces))
    return (face_means(random, after, usual) - face_means(random, before, theirs) + 1) / 2


def deviation(kind: str, rate: float) -> float:
    """Return the standard deviation of one face."""

    def of_mean(p: float) -> float:
        return math.sqrt(p * (1 - p) * (1 + (DRAWS - 1) * ICC) / DRAWS)

    if kind == "rate":
        return of_mean(rate)
    before, after = of_mean(0.6), of_mean(0.6 + 2 * rate - 1)
    return math.sqrt(before**2 + after**2 - 2 * CORRELATION * before * after) / 2


def fixed_size(kind: str, rate: float, limit: float, alpha: float) -> int:
    """Faces of a sample of fixed size that shows a rate to be below a limit with 90 % power."""
    distance = float(ndtri(POWER) - ndtri(alpha)) * deviation(kind, rate) / (limit - rate)
    return math.ceil(distance**2)


def first_crossing(values: FloatArray, limit: float, alpha: float) -> int | None:
    """Face at which the mean is shown to be below the limit; None where it never is."""
    reached = log_capital(1 - values, 1 - limit, alpha, len(values)) >= math.log(1 / alpha)
    return int(reached.argmax()) + 1 if reached.any() else None


def first_look(values: FloatArray, limit: float, alpha: float) -> int | None:
    """As `first_crossing`, at a few looks (`pulse_audit.stats.sequential.FixedLooks`)."""
    parts = tuple(look / LOOKS for look in range(1, LOOKS + 1))
    for part, level in zip(parts, levels_of_looks(parts, alpha), strict=True):
        seen = values[: math.ceil(part * len(values))]
        # the upper bound is the lower one of what is turned round
        if -lower_at_level(-seen, level, -1.0, 0.0) < limit:
            return len(seen)
    return None


@dataclass(frozen=True)
class Situation:
    """A situation and what one repeat of it gives: a wrong decision, or faces at the decision."""

    name: str
    run: Callable[[np.random.Generator], Any]
    cells: tuple[str, ...] = ()
    fixed: int = 0


def nulls() -> list[Situation]:
    """Every true value lies on its limit."""
    every = []
    for kind, limit, rules, groups in (
        ("rate", 0.6, 1, 1),
        ("rate", 0.05, 1, 1),
        ("rate", 0.95, 1, 1),
        ("rate", 0.6, 1, GROUPS),
        ("rate", 0.6, 4, GROUPS),
        ("paired", 0.5, 1, GROUPS),
        ("paired", 0.5, 4, GROUPS),
    ):
        alpha = ALPHA / (rules * groups)
        # of ten points, as far as there are as many below the limit
        size = fixed_size(kind, limit - (0.05 if kind == "paired" else min(0.1, limit / 2)), limit,
                          alpha)  # fmt: skip
        faces = math.ceil(CAP * size)

        def ever_fails(random: np.random.Generator, k=kind, m=limit, n=faces, a=alpha,
                       each=rules * groups) -> list[bool]:  # fmt: skip
            samples = [values_of(random, k, m, n) for _ in range(each)]
            return [
                any(first(values, m, a) is not None for values in samples)
                for first in (first_crossing, first_look)
            ]

        what = f"rate of {limit:g}" if kind == "rate" else "difference of 0 from a baseline"
        every.append(Situation(f"{what}, rules {rules}, groups {groups}: ever fails", ever_fails,
                               (f"{faces:,}",)))  # fmt: skip

    def ever_passes(random: np.random.Generator) -> list[bool]:
        n = math.ceil(CAP * fixed_size("rate", 0.5, 0.6, ALPHA))
        samples = [values_of(random, "rate", rate, n) for rate in (0.6, *[0.3] * 6)]
        return [
            all(first(values, 0.6, ALPHA) is not None for values in samples)
            for first in (first_crossing, first_look)
        ]

    faces = math.ceil(CAP * fixed_size("rate", 0.5, 0.6, ALPHA))
    every.append(Situation("rate, one of 7 groups on the limit, 6 30 points within: ever passes",
                           ever_passes, (f"{faces:,}",)))  # fmt: skip
    return every


def savings() -> list[Situation]:
    """One group at some distance from its limit."""
    every = []
    for kind, limit in (("rate", 0.6), ("paired", 0.5)):
        for alpha, level in ((ALPHA, "5 %"), (ALPHA / 28, "5 % / 28")):
            unit = 0.1 if kind == "rate" else 0.05
            size = fixed_size(kind, limit - unit, limit, alpha)
            faces = math.ceil(CAP * size)
            for points in (0, 5, 10):
                rate = limit - unit * points / 10

                def stops(
                    random: np.random.Generator, k=kind, p=rate, m=limit, n=faces, a=alpha
                ) -> list[int | None]:
                    values = values_of(random, k, p, n)
                    return [first_crossing(values, m, a), first_look(values, m, a)]

                what = "a rate below .6" if kind == "rate" else "a drop from a baseline, paired"
                every.append(Situation(f"{what}, level {level}, {points} points", stops,
                                       (what, level, str(points), f"{size:,}", f"{faces:,}"),
                                       size))  # fmt: skip
    return every


def repeated(situation: Situation, repeats: int, seed: int, folder: Path) -> list[Any]:
    """Results of every repeat; a finished situation is read back."""
    path = folder / f"{fingerprint(situation.name, situation.cells, repeats, seed):016x}.json"
    if not path.exists():
        rows = [
            situation.run(np.random.default_rng(fingerprint(seed, situation.name, number)))
            for number in range(repeats)
        ]
        atomic_write(path, as_json({"name": situation.name, "rows": rows}))
    kept: list[Any] = json.loads(path.read_text())["rows"]
    return kept


def table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(each)} |" for each in (header, ["---"] * len(header), *rows))


def section(found: list[tuple[Situation, list[Any]]], repeats: int, seed: int) -> str:
    """Write the last section of the page."""
    wrong, saved = [], []
    for situation, rows in found:
        if not situation.fixed:
            counts = [sum(row[method] for row in rows) for method in range(2)]
            holds = "yes" if max(counts) <= ALLOWED * repeats / 2000 else "**no**"
            wrong.append([situation.name, *situation.cells, *map(str, counts), holds])
            continue
        cells, cap = [*situation.cells], math.ceil(CAP * situation.fixed)
        for method in range(2):
            faces = [row[method] for row in rows]
            mean = np.mean([cap if each is None else each for each in faces])
            decided = np.mean([each is not None for each in faces])
            change = 100 * (mean / situation.fixed - 1)
            cells += [f"{100 * decided:.0f} %", f"{change:+.0f} %"]
        saved.append(cells)
    return f"""
{TITLE}

`python -m benchmarks.sequential --repeats {repeats} --seed {seed}`: bounds that hold at every look (`pulse_audit.stats.sequential`), looked at after every face, or at {LOOKS} equal parts (O'Brien and Fleming, `--looks {LOOKS}`), up to 1.35 times the sample of fixed size that decides a distance of 10 points with 90 % power ({DRAWS} draws a face, ICC {ICC}; correlation {CORRELATION} with the baseline). Of {repeats:,} repeats with every true value on its limit, those that are ever decided wrongly; at most {ALLOWED} of 2,000 may be:

{table(["situation", "most faces a group", "ever wrong, betting", f"ever wrong, {LOOKS} looks", "holds"], wrong)}

Repeats decided, and the mean number of faces beside the sample of fixed size, by the distance from the limit. The betting bounds assume nothing but the range of a face's mean; the schedule of {LOOKS} looks assumes that the mean at a look is no more skewed than that of as many outcomes:

{table(["of one group", "level", "points", "fixed size", "cap", "decided, betting", "faces", "decided, 5 looks", "faces"], saved)}
"""  # noqa: E501


def main() -> None:
    asked = arguments(__doc__, 2000, "sequential")
    every, found = [*nulls(), *savings()], []
    with terminal.progress("sampling", "situations") as progress:
        for number, situation in enumerate(every, 1):
            found.append((situation, repeated(situation, asked.repeats, asked.seed, asked.out)))
            progress(number, len(every), 0)
    text = section(found, asked.repeats, asked.seed)
    write_section(asked.page, TITLE, text)
    print(text)
    sys.exit("**no**" in text)


if __name__ == "__main__":
    main()
