"""How often the shipped tests reject what is true, where that is hardest for them.

Nulls are chosen against each test: rates near 0, faces whose draws all agree, groups that differ
in everything but what is tested, skewed differences, unequal group sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from pulse_audit.calibration.cells import Cell, Measured, Setting, Simulation, share
from pulse_audit.calibration.draws import paired_outcomes, successes
from pulse_audit.stats.equivalence import (
    equivalence_paired,
    equivalence_unpaired,
    noninferiority_paired,
    noninferiority_unpaired,
)
from pulse_audit.stats.goodness import goodness_of_fit
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.stats.tests import equal_proportions, homogeneity, mcnemar, paired_permutation

ALPHA = 0.05
DRAWS = 5
#: Of a permutation test; a run takes more. At 199 the level is exactly 10 of 200.
PERMUTATIONS = 199
MARGIN = 0.05


def cells() -> Iterator[Cell]:
    """Cells of the study, in order."""
    yield from _paired_cells()
    yield from _group_cells()
    yield from _reference_cells()
    yield from _margin_cells()


def _size(method: str, module: str, settings: dict[str, Setting], simulate: Simulation) -> Cell:
    code = (f"pulse_audit.stats.{module}", "pulse_audit.stats.intervals")
    return Cell("size of tests", method, settings, "size", simulate, code, None, 0.06)


def _paired_cells() -> Iterator[Cell]:
    for faces, rate, draws in ((50, 0.05, 1), (50, 0.5, 1), (20, 0.05, 5), (50, 0.5, 5)):
        settings: dict[str, Setting] = {"faces": faces, "draws": draws, "rate": rate, "icc": 0.5}
        simulate = partial(two_arms, faces=faces, draws=draws, rate=rate)
        yield _size("McNemar by face", "tests", settings, simulate)
    for faces in (20, 50):
        for shape in ("normal", "heavy tails"):
            settings = {"faces": faces, "draws": 1, "differences": shape}
            simulate = partial(differences, faces=faces, heavy=shape != "normal")
            yield _size("paired permutation", "tests", settings, simulate)


def _group_cells() -> Iterator[Cell]:
    for faces, rate in ((20, 0.05), (20, 0.5), (50, 0.95)):
        settings: dict[str, Setting] = {
            "faces": f"{faces}-{2 * faces}", "draws": DRAWS, "rate": rate, "icc": "0.1-0.9",
        }  # fmt: skip
        simulate = partial(equal_groups, faces=faces, rate=rate)
        yield _size("equal proportions", "tests", settings, simulate)
    for faces in (20, 50):
        settings = {"faces": f"{faces}-{2 * faces}", "draws": 1, "deviations": "1-4"}
        simulate = partial(equal_means, faces=faces)
        yield _size("homogeneity of means", "tests", settings, simulate)


def _reference_cells() -> Iterator[Cell]:
    for faces, draws in ((25, 5), (100, 5), (100, 1)):
        for shape, shares in (("even", [1 / 7] * 7), ("skewed", [0.7] + [0.05] * 6)):
            settings: dict[str, Setting] = {
                "faces": faces, "draws": draws, "icc": 0.5, "reference": shape,
            }  # fmt: skip
            simulate = partial(
                reference, faces=faces, draws=draws, shares=np.array(shares), icc=0.5
            )
            yield _size("goodness of fit", "goodness", settings, simulate)


def _margin_cells() -> Iterator[Cell]:
    """Yield situations whose true difference is exactly the margin."""
    for faces, rate in ((25, 0.95), (50, 0.6), (100, 0.95)):
        settings: dict[str, Setting] = {
            "faces": faces, "draws": DRAWS, "rate": rate, "icc": 0.5, "margin": MARGIN,
        }  # fmt: skip
        for name, is_paired, is_equivalence in (
            ("non-inferiority, paired", True, False),
            ("non-inferiority, unpaired", False, False),
            ("equivalence, paired", True, True),
            ("equivalence, unpaired", False, True),
        ):
            simulate = partial(
                at_the_margin,
                faces=faces,
                rate=rate,
                is_paired=is_paired,
                is_equivalence=is_equivalence,
            )
            yield _size(name, "equivalence", settings, simulate)


def two_arms(
    random: np.random.Generator, replicates: int, *, faces: int, draws: int, rate: float
) -> Measured:
    """Two arms equally good on the same faces, half of which they treat alike."""
    owner = np.repeat(np.arange(faces), draws)
    p = np.empty(replicates)
    for i in range(replicates):
        first, second = paired_outcomes(random, faces, draws, rate, rate, 0.5, 0.5)
        p[i] = mcnemar(owner, first.ravel(), second.ravel()).p
    return share(p <= ALPHA)


def differences(
    random: np.random.Generator, replicates: int, *, faces: int, heavy: bool
) -> Measured:
    """Differences between two arms that might as well be swapped, if heavy as Student's with 2 df.

    Swapping is what the test is about: arms of one mean that are skewed against each other are
    outside its hypothesis (lognormal differences less their mean: size .14 at 20 faces).
    """
    nothing = np.zeros(faces)
    owner = np.arange(faces)
    p = np.empty(replicates)
    for i in range(replicates):
        values = random.standard_t(2, faces) if heavy else random.standard_normal(faces)
        p[i] = paired_permutation(owner, values, nothing, seed=i, replicates=PERMUTATIONS).p
    return share(p <= ALPHA)


def equal_groups(
    random: np.random.Generator, replicates: int, *, faces: int, rate: float
) -> Measured:
    """Seven groups of one rate, that differ in size and in within-face correlation."""
    sizes = _sizes(faces)
    iccs = [0.9, 0.1, 0.5, 0.1, 0.9, 0.5, 0.1]
    group = np.repeat(np.arange(7), np.array(sizes) * DRAWS)
    owner = np.repeat(np.arange(sum(sizes)), DRAWS)
    p = np.empty(replicates)
    for i in range(replicates):
        kept = [successes(random, n, rate, c, DRAWS) for n, c in zip(sizes, iccs, strict=True)]
        values = _as_draws(np.concatenate(kept), DRAWS)
        p[i] = equal_proportions(values, owner, group).p
    return share(p <= ALPHA)


def equal_means(random: np.random.Generator, replicates: int, *, faces: int) -> Measured:
    """Seven groups of one mean, small ones with four times the deviation of large ones."""
    sizes = _sizes(faces)
    group = np.repeat(np.arange(7), sizes)
    deviation = np.where(group % 2 == 0, 4.0, 1.0)
    p = np.empty(replicates)
    for i in range(replicates):
        values = random.standard_normal(len(group)) * deviation
        given = values, np.arange(len(group)), group
        p[i] = homogeneity(*given, seed=i, replicates=PERMUTATIONS).p
    return share(p <= ALPHA)


def _sizes(faces: int) -> list[int]:
    """Faces of seven groups, every other one twice as large."""
    return [faces, 2 * faces, faces, 2 * faces, faces, 2 * faces, faces]


def reference(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    draws: int,
    shares: FloatArray,
    icc: float,
) -> Measured:
    """Draw outputs of the reference's composition, a face's draws alike with probability ICC."""
    owner = np.repeat(np.arange(faces), draws)
    p = np.empty(replicates)
    for i in range(replicates):
        own = random.choice(len(shares), size=(faces, draws), p=shares)
        together = random.random(faces) < icc
        drawn = np.where(together[:, None], own[:, :1], own).ravel()
        p[i] = goodness_of_fit(owner, drawn, shares, seed=i, replicates=PERMUTATIONS).p
    return share(p <= ALPHA)


def at_the_margin(
    random: np.random.Generator,
    replicates: int,
    *,
    faces: int,
    rate: float,
    is_paired: bool,
    is_equivalence: bool,
) -> Measured:
    """Trial exactly MARGIN below the baseline: calling it as good is an error."""
    owner = np.repeat(np.arange(faces), DRAWS)
    of_pairs = equivalence_paired if is_equivalence else noninferiority_paired
    of_samples = equivalence_unpaired if is_equivalence else noninferiority_unpaired
    p = np.empty(replicates)
    for i in range(replicates):
        alike = 0.5 if is_paired else 0.0
        drawn = paired_outcomes(random, faces, DRAWS, rate - MARGIN, rate, 0.5, alike)
        trial, baseline = (part.ravel() for part in drawn)
        if is_paired:
            p[i] = of_pairs(owner, trial, baseline, MARGIN, proportion=True).p
        else:
            p[i] = of_samples((trial, owner), (baseline, owner), MARGIN, proportion=True).p
    return share(p <= ALPHA)


def _as_draws(sums: FloatArray, draws: int) -> FloatArray:
    """Successes of each face as 0 and 1 a draw, (faces * draws,)."""
    return (np.arange(draws) < sums[:, None]).astype(np.float64).ravel()
