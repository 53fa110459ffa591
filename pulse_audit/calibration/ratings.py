"""Ratings by people: coverage over raters and faces, agreement, and the rank tests of others.

A grade is the sum of how mild its rater is, how well the face came out, and what neither explains;
raters and faces are both new in every panel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
from scipy.special import ndtr

from pulse_audit.calibration.scenarios import Performance, Scenario, share
from pulse_audit.stats.agreement import krippendorff_alpha
from pulse_audit.stats.crossed import crossed_mean, crossed_share
from pulse_audit.stats.intervals import FloatArray, IntArray
from pulse_audit.stats.ranks import holm, mann_whitney

#: Standard deviations of raters, of faces, and of what neither explains.
MIXTURES = ((0.6, 0.6, 0.6), (1.0, 0.3, 0.3), (0.2, 1.0, 0.3), (0.0, 0.0, 1.0))
#: Mean of grades before they are rounded to whole steps from 1 to 5.
GRADE = 2.6
#: Share of the answers that are missing.
MISSING = 0.05
#: Classes that raters choose from, and the share of answers that are not by chance.
CLASSES, KNOWN = 4, 0.8
#: Arms of the rank tests.
ARMS = 3
CROSSED = "t, raters and faces"


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    settings: dict[str, str | int | float]
    code: tuple[str, ...]
    for raters, faces, mixture in product((3, 5, 20), (7, 40), MIXTURES):
        settings = {"of": "grades", "raters": raters, "faces": faces, **_named(mixture)}
        simulate = partial(graded, raters=raters, faces=faces, mixture=mixture)
        code = ("pulse_audit.stats.crossed.crossed_mean",)
        low = 0.92 if raters > 3 else 0.90
        yield Scenario("ratings", CROSSED, settings, "coverage", simulate, code, low)
        if raters == 5:
            simulate = partial(simulate, independent=True)
            yield Scenario(
                "ratings", "z, ratings as independent", settings, "coverage", simulate, ()
            )
    for raters, faces, mixture, mean in product((3, 10), (7, 40), MIXTURES, (0.0, 0.8)):
        truth = round(float(ndtr(mean / math.hypot(*mixture))), 3)
        settings = {"of": "choices", "raters": raters, "faces": faces, "share": truth}
        simulate = partial(chosen, raters=raters, faces=faces, mixture=mixture, mean=mean)
        code = ("pulse_audit.stats.crossed.crossed_share",)
        method = "Wilson, raters and faces"
        settings |= _named(mixture)
        yield Scenario("ratings", method, settings, "coverage", simulate, code, 0.92)
    for raters, faces in product((3, 10), (15, 60)):
        settings = {"of": "alpha", "raters": raters, "faces": faces, "classes": CLASSES}
        simulate = partial(agreed, raters=raters, faces=faces)
        code = ("pulse_audit.stats.agreement.krippendorff_alpha",)
        method = "jackknife over faces"
        yield Scenario("ratings", method, settings, "coverage", simulate, code, 0.92)
    # arms that differ in nothing: how well a face comes out is alike in all arms, or in none
    for shared, effect in ((0.6, "alike in all arms"), (0.0, "in each arm for itself")):
        settings = {"raters": 10, "faces": 20, "arms": ARMS, "faces vary": effect}
        simulate = partial(ranked, raters=10, faces=20, shared=shared)
        both = ("pulse_audit.stats.ranks.mann_whitney", "pulse_audit.stats.ranks.holm")
        yield Scenario(
            "rank tests of grades", "Mann-Whitney, Holm", settings, "size", simulate, both
        )


def _named(mixture: tuple[float, float, float]) -> dict[str, float]:
    """Deviations of a mixture by the names that the table shows."""
    return dict(zip(("sd of raters", "of faces", "of the rest"), mixture, strict=True))


def panel(
    random: np.random.Generator, raters: int, faces: int, mixture: tuple[float, float, float]
) -> tuple[FloatArray, IntArray, IntArray]:
    """Grades around 0 with their raters and faces, (ratings,) each; some are missing."""
    of_rater, of_face, rest = mixture
    grades = of_rater * random.standard_normal((raters, 1))
    grades = grades + of_face * random.standard_normal((1, faces))
    grades = grades + rest * random.standard_normal((raters, faces))
    given = random.random(grades.shape) >= MISSING
    rater, face = np.nonzero(given)
    return grades[given], rater, face


def graded(
    random: np.random.Generator,
    replicates: int,
    *,
    raters: int,
    faces: int,
    mixture: tuple[float, float, float],
    independent: bool = False,
) -> Performance:
    """Coverage of the expected grade; ``independent``: as if no rater or face had two ratings."""
    # expectation of a rounded and clipped normal: 1 and one more for every step that is passed
    steps = np.arange(1, 5) + 0.5
    truth = 1 + float(ndtr((GRADE - steps) / math.hypot(*mixture)).sum())
    hits, widths = [], []
    for _ in range(replicates):
        values, rater, face = panel(random, raters, faces, mixture)
        values = np.clip(np.round(GRADE + values), 1, 5)
        if independent:
            half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
            low, high = float(values.mean()) - half, float(values.mean()) + half
        else:
            found = crossed_mean(values, rater, face, (1, 5))
            low, high = found.low, found.high
        hits.append(low <= truth <= high)
        widths.append(high - low)
    return share(hits, widths)


def chosen(
    random: np.random.Generator,
    replicates: int,
    *,
    raters: int,
    faces: int,
    mixture: tuple[float, float, float],
    mean: float,
) -> Performance:
    """Coverage of the share of answers in which one of two outputs is the better."""
    truth = float(ndtr(mean / math.hypot(*mixture)))
    hits, widths = [], []
    for _ in range(replicates):
        values, rater, face = panel(random, raters, faces, mixture)
        found = crossed_share(values + mean > 0, rater, face)
        hits.append(found.low <= truth <= found.high)
        widths.append(found.high - found.low)
    return share(hits, widths)


def agreed(random: np.random.Generator, replicates: int, *, raters: int, faces: int) -> Performance:
    """Coverage of alpha: a rater sees the true class with probability `KNOWN`, else any."""
    # two raters agree beyond chance where both see it
    truth, hits, widths = KNOWN**2, [], []
    for _ in range(replicates):
        classes = random.integers(0, CLASSES, (faces, 1))
        seen = random.random((faces, raters)) < KNOWN
        answers = np.where(seen, classes, random.integers(0, CLASSES, (faces, raters)))
        units = np.repeat(np.arange(faces), raters)
        found = krippendorff_alpha(units, answers.ravel(), CLASSES, "nominal")
        hits.append(found.low <= truth <= found.high)
        widths.append(found.high - found.low)
    return share(hits, widths)


def ranked(
    random: np.random.Generator, replicates: int, *, raters: int, faces: int, shared: float
) -> Performance:
    """Share of panels in which arms that do not differ are told apart at 5 %.

    Faces come out better or worse: alike in all arms (``shared``), or in each arm for itself.
    """
    own, hits = math.sqrt(0.6**2 - shared**2), []
    for _ in range(replicates):
        grades = 0.6 * random.standard_normal((1, raters, 1))
        grades = grades + shared * random.standard_normal((1, 1, faces))
        grades = grades + own * random.standard_normal((ARMS, 1, faces))
        grades = grades + 0.6 * random.standard_normal((ARMS, raters, faces))
        ratings = np.clip(np.round(GRADE + grades), 1, 5).reshape(ARMS, -1)
        pairs = [(a, b) for a in range(ARMS) for b in range(a + 1, ARMS)]
        p_values = [mann_whitney(ratings[a], ratings[b]).p for a, b in pairs]
        hits.append(bool((holm(p_values) < 0.05).any()))
    return share(hits)
