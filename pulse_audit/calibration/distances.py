"""Coverage of kernel distances, false gaps of them between equal groups, and the Frechet bias."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from pulse_audit.calibration.scenarios import Performance, Scenario, ScenarioSettings, share
from pulse_audit.stats.distances import (
    KernelDistance,
    frechet_distance,
    kernel_distance,
    widest_gap,
)
from pulse_audit.stats.intervals import FloatArray
from pulse_audit.types import Unavailable

STUDY = "distances"
GROUPS, DRAWS, FEATURES = 7, 3, 16
#: Shift of the outputs' mean, in every feature, and their spread relative to the originals'.
ARMS = {"alike": (0.0, 1.0), "less spread": (0.0, 0.6), "apart": (1.0, 1.0)}
CODE = "pulse_audit.stats.distances"


def scenarios() -> Iterator[Scenario]:
    """Scenarios of the study, in order."""
    for arm, faces in product(ARMS, (10, 30)):
        settings: ScenarioSettings = {"faces": faces, "draws": DRAWS, "outputs": arm}
        simulate = partial(coverage, arm=arm, faces=faces)
        # at a distance of 0 the jackknife is conservative
        high = None if arm == "alike" else 0.99
        yield Scenario(STUDY, "KID, jackknife by face", settings, "coverage", simulate,
                       (f"{CODE}.kernel_distance",), 0.92, high)  # fmt: skip
    settings = {"faces": 20, "draws": DRAWS, "groups": "equal"}
    for arm in ("alike", "apart"):
        simulate = partial(false_gap, arm=arm, faces=20)
        settings = {**settings, "outputs": arm}
        yield Scenario(STUDY, "widest gap of KID, Bonferroni", settings, "size", simulate,
                       (f"{CODE}.widest_gap",), None, 0.06, fraction=0.5)  # fmt: skip
    settings = {"images": 400, "features": FEATURES, "outputs": "alike"}
    yield Scenario(STUDY, "FID less its stated bias", settings, "bias", frechet_bias,
                   (f"{CODE}.frechet_distance",), -0.03, 0.03, fraction=0.25)  # fmt: skip


def coverage(random: np.random.Generator, replicates: int, *, arm: str, faces: int) -> Performance:
    """Share of 95 % intervals that contain the true kernel distance."""
    shift, scale = ARMS[arm]
    spread = np.diag(variances())
    mean, ones = np.full(FEATURES, 1 + shift), np.ones(FEATURES)
    truth = true_distance(mean, scale**2 * spread, ones, spread)
    hits, widths = [], []
    for _ in range(replicates):
        estimate = simulated(random, arm, faces).estimate
        hits.append(estimate.low <= truth <= estimate.high)
        widths.append(estimate.high - estimate.low)
    return share(hits, widths)


def false_gap(random: np.random.Generator, replicates: int, *, arm: str, faces: int) -> Performance:
    """Share of audits whose widest gap between equal groups has an interval that excludes 0."""
    hits = []
    for _ in range(replicates):
        gap = widest_gap({str(g): simulated(random, arm, faces) for g in range(GROUPS)})
        if isinstance(gap, Unavailable):
            raise ValueError(gap.reason)
        hits.append(gap[2].low > 0)
    return share(hits)


def frechet_bias(random: np.random.Generator, replicates: int) -> Performance:
    """Mean of the distance of equal sets less the bias stated with it, relative to that bias."""
    spread, excess = np.sqrt(variances()), []
    for _ in range(replicates):
        first, second = (random.standard_normal((400, FEATURES)) * spread for _ in range(2))
        distance = frechet_distance(first, second)
        if isinstance(distance, Unavailable):
            raise ValueError(distance.reason)
        excess.append(distance.value / distance.if_equal - 1)
    return share(excess)


def simulated(random: np.random.Generator, arm: str, faces: int) -> KernelDistance:
    """Kernel distance of outputs and originals of the same faces.

    Originals are Gaussian; the outputs of a face resemble its original (half of their spread) and
    each other (half of the rest).
    """
    spread, (shift, scale) = np.sqrt(variances()), ARMS[arm]
    shapes = ((faces, 1, FEATURES), (faces, 1, FEATURES), (faces, DRAWS, FEATURES))
    face, common, own = (random.standard_normal(shape) * spread for shape in shapes)
    outputs = 1 + shift + scale * (0.5 * face + np.sqrt(0.375) * (common + own))
    numbers = np.arange(faces)
    distance = kernel_distance(
        outputs.reshape(-1, FEATURES), 1 + face[:, 0], np.repeat(numbers, DRAWS), numbers
    )
    if isinstance(distance, Unavailable):
        raise ValueError(distance.reason)
    return distance


def variances() -> FloatArray:
    """Variances of the features, (16,)."""
    return np.linspace(1, 0.1, FEATURES)


def true_distance(m: FloatArray, s: FloatArray, n: FloatArray, t: FloatArray) -> float:
    """Kernel distance between N(m, s) and N(n, t): means (d,), covariances (d, d)."""
    within = expected_kernel(m, s, m, s) + expected_kernel(n, t, n, t)
    return within - 2 * expected_kernel(m, s, n, t)


def expected_kernel(m: FloatArray, s: FloatArray, n: FloatArray, t: FloatArray) -> float:
    """E (x.y / d + 1)^3 of independent x ~ N(m, s) and y ~ N(n, t)."""
    d = len(m)
    c, v = 1 + m @ n / d, n @ s @ n / d**2
    quadratic = c * (np.trace(t @ s) + m @ t @ m) + 2 * n @ s @ t @ m / d
    return float(c**3 + 3 * c * v + 3 * quadratic / d**2)
