"""A drop of one group's rate against a baseline: power of the gate, and the table of faces.

    python -m benchmarks.drop [--repeats 500] [--checks 500] [--seed 0] [--out runs/drop]

``worst_group`` with ``no_worse_than_baseline_by: 0`` at the tabulated number of faces, which is
that of the base rate at which a drop of ten points is the hardest to show (55 %, where the variance
of both sides is largest). At every base rate the seven groups have that rate, and one of them drops
by ten points: the bounds are those of `pulse_audit.stats.against.largest_drop`. At the hardest rate
whole checks are simulated too (``--checks``), as in ``benchmarks.gate``. At least 437 of 500 have
to fail.

Finished parts are kept in ``--out``. The section is the second of ``benchmarks/results/gate.md``.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.__main__ import RESULTS
from benchmarks.gate import BASES, K, Sample, drop_of_one_group, markdown, numbers, write_section
from pulse_audit import terminal
from pulse_audit.files import as_json, atomic_write
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.intervals import Groups
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.stats.power import DropDesign, detectable_drop, faces_for_drop
from pulse_audit.stats.score import difference_interval

TITLE = "## A drop of ten points"
DROP, WORST, WANTED, RULES = 0.10, 0.55, 437, 4
RATES = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
PAIRINGS = (0.63, None)
FloatArray = NDArray[np.float64]


def fails_at(random: np.random.Generator, sample: Sample, rate: float) -> bool:
    """Whether a bound as of `largest_drop` shows that one of seven groups of this rate dropped."""
    rates, drops = np.full(K, rate), np.zeros(K)
    drops[0] = DROP
    usual = random.random((K, sample.faces))
    is_shared = random.random(usual.shape) < sample.share(rates, rates - drops)
    theirs = np.where(is_shared, usual, random.random(usual.shape))
    trial, base = (
        totals(numbers(random, sample, own) < limit[:, None, None])
        for own, limit in ((usual, rates - drops), (theirs, rates))
    )
    # Sidak's level of every group
    level = 1 - (1 - 0.05 / RULES) ** (1 / K)
    if sample.correlation is not None:
        lost = ((b - t) / sample.draws for t, b in zip(trial.sums, base.sums, strict=True))
        return any(paired_proportions(each, 1 - 2 * level).low > 0 for each in lost)
    sides = base.means(), base.effective_sizes(), trial.means(), trial.effective_sizes()
    lows, _ = difference_interval(*sides, np.array([-float(ndtri(level))]))
    return bool((lows > 0).any())


def totals(outcomes: NDArray[np.bool_]) -> Groups:
    """Totals of faces of outcomes (groups, faces, draws)."""
    k, n, draws = outcomes.shape
    sums = list(outcomes.sum(axis=2).astype(np.float64))
    counts = [np.full(n, float(draws))] * k
    return Groups(sums, counts, np.full(k, n), np.full(k, n * draws))


def check_fails(random: np.random.Generator, sample: Sample, rate: float) -> bool:
    """Whether a whole check of four rules fails, where the group that drops has this rate."""
    bases = (rate, *BASES[1:])
    (verdict,) = drop_of_one_group(random, sample, 0, DROP, 0.0, RULES, bases)
    return verdict.outcome == "fail"


def counted(what: str, rate: float, sample: Sample, repeats: int, seed: int, folder: Path) -> int:
    """Count the repeats that fail; those of an earlier process are read back."""
    path = folder / f"{fingerprint(what, rate, sample.faces, sample.correlation, seed):016x}.json"
    rows: list[bool] = json.loads(path.read_text()) if path.exists() else []
    fails = check_fails if what == "checks" else fails_at
    for repeat in range(len(rows), repeats):
        random = np.random.default_rng(fingerprint(seed, what, rate, sample.correlation, repeat))
        rows.append(fails(random, sample, rate))
        if repeat % 25 == 24 or repeat == repeats - 1:
            atomic_write(path, as_json(rows))
    return sum(rows[:repeats])


def section(
    bounds: Sequence[Sequence[int]], checks: Sequence[int], repeats: int, whole: int, seed: int
) -> str:
    """Write the section of the page."""
    sizes = [faces_for_drop(DROP, DropDesign(correlation=c)) for c in PAIRINGS]
    rows = [
        [f"{100 * rate:.0f} %", *(str(each[place]) for each in bounds)]
        for place, rate in enumerate(RATES)
    ]
    least = min(min(each) for each in bounds)
    shown = "; ".join(
        f"{count} of {whole} with {size} faces a group and "
        + ("other faces" if c is None else f"a correlation of {c}")
        for count, size, c in zip(checks, sizes, PAIRINGS, strict=True)
    )
    if whole:
        shown = (
            "Whole checks where the group that drops has the rate at which that is the hardest to "
            f"show, {100 * WORST:.0f} %: {shown}."
        )
    return f"""{TITLE}

`python -m benchmarks.drop --repeats {repeats} --checks {whole} --seed {seed}`: `worst_group` with `no_worse_than_baseline_by: 0`, four verdicts, seven groups, 5 draws a face, ICC .5, at the tabulated number of faces; at least {WANTED} of 500 have to fail. {shown if whole else ""}

Bounds that fail, of {repeats}, by the rate of the seven groups, one of which drops (least: {least}):

{markdown(["rate before", *(f"{size} faces, " + ("other faces" if c is None else f"correlation {c}") for size, c in zip(sizes, PAIRINGS, strict=True))], rows)}
## Faces in each group

Such that a drop of one group's rate by 10 points fails `worst_group` with 90 % power, at the base rate at which it takes the most faces ({100 * WORST:.0f} %; by base rate in the first table). Reference cells (5 draws, ICC .5, 4 rules, 7 groups): 521 with other faces, 194 at a correlation of .63. The correlation is that of a face's means on both sides, as a check measures it: with m draws it is at most m ICC / (1 + (m - 1) ICC).

{faces_tables()}"""  # noqa: E501


def faces_tables() -> str:
    """Faces in each group for a drop of ten points beyond the margin's own."""
    parts, pairings = [], (None, 0.38, 0.63, 0.77)
    names = ["other faces", *(f"correlation {c}" for c in pairings[1:])]
    rows = [
        [f"{100 * base:.0f} %"]
        + [f"{faces_for_drop(DROP, DropDesign(base, correlation=c)):,}" for c in pairings]
        for base in (0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9)
    ]
    parts.append("Margin 0, 5 draws, ICC .5, 4 verdicts, 7 groups, by the rate before the drop:\n")
    parts.append(markdown(["rate", *names], rows))
    for margin in (0.0, 0.05):
        rows = [
            [str(draws), f"{icc:g}"]
            + [
                f"{faces_for_drop(DROP, DropDesign(WORST, draws, icc, c, 7, 4, margin)):,}"
                for c in pairings
            ]
            for draws in (1, 2, 5, 10)
            for icc in ((0.5,) if draws == 1 else (0.1, 0.5, 0.9))
        ]
        parts.append(f"Margin {margin:g}, 4 verdicts, 7 groups, by draws a face and ICC:\n")
        parts.append(markdown(["draws", "ICC", *names], rows))
    rows = [
        [str(rules), str(groups)]
        + [
            f"{faces_for_drop(DROP, DropDesign(WORST, 5, 0.5, c, groups, rules, 0.0)):,}"
            for c in pairings
        ]
        for rules in (1, 4, 10, 40)
        for groups in (2, 4, 7, 14)
    ]
    parts.append("Margin 0, 5 draws, ICC .5, by verdicts of the family and groups:\n")
    parts.append(markdown(["verdicts", "groups", *names], rows))
    rows = []
    for faces in (10, 20, 25, 50, 100, 200, 500):
        drops = [detectable_drop(faces, DropDesign(correlation=c)) for c in pairings]
        rows.append([str(faces), *("-" if d is None else f"{100 * d:.0f}" for d in drops)])
    parts.append("Detectable drop in points (margin 0, 5 draws, ICC .5, 4 verdicts, 7 groups):\n")
    parts.append(markdown(["faces a group", *names], rows))
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=500)
    parser.add_argument("--checks", type=int, default=500, help="whole checks of a pairing")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/drop"))
    parser.add_argument("--page", type=Path, default=RESULTS / "gate.md")
    asked = parser.parse_args()
    bounds, checks, total = [], [], len(PAIRINGS) * (len(RATES) + 1)
    with terminal.progress("dropping", "situations") as progress:
        for correlation in PAIRINGS:
            n = faces_for_drop(DROP, DropDesign(correlation=correlation))
            sample, found = Sample(n, 5, 0.5, correlation), list[int]()
            for rate in RATES:
                found.append(counted("bounds", rate, sample, asked.repeats, asked.seed, asked.out))
                progress(len(bounds) * (len(RATES) + 1) + len(found), total, 0)
            checks.append(counted("checks", WORST, sample, asked.checks, asked.seed, asked.out))
            bounds.append(found)
    write_section(
        asked.page, TITLE, section(bounds, checks, asked.repeats, asked.checks, asked.seed)
    )
    enough = min(*(min(each) for each in bounds)) >= WANTED * asked.repeats / 500
    sys.exit(0 if enough and min(checks) >= WANTED * asked.checks / 500 else 1)


if __name__ == "__main__":
    main()
