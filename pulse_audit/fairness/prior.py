"""What the prior of a search shows before any input: shares of groups, and how alike its faces are.

PULSE does not search the generator's own prior. It draws each layer's latent from a Gaussian of
independent entries fitted to the mapped latents, so the shares of groups move twice: by the fit,
and by a latent for each layer. Five priors, compared in steps, say how much is whose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from pulse_audit.fairness.divergence import between, corrected
from pulse_audit.stats.intervals import FloatArray, IntArray, wilson
from pulse_audit.stats.score import difference_interval
from pulse_audit.types import Estimate

#: Names and meanings; the third is PULSE's own.
OWN, PULSE = "z", "diagonal, per layer"
PRIORS: Mapping[str, str] = {
    OWN: "the generator's own",
    "diagonal, tied": "PULSE's fit of independent entries, one latent for all layers",
    PULSE: "PULSE's: the same fit, one latent a layer",
    "full, tied": "fit of the full covariance, one latent for all layers",
    "full, per layer": "fit of the full covariance, one latent a layer",
}
#: The prior that each is one step away from: the fit is the first step, a latent a layer the next.
STEPS: Mapping[str, str] = {
    "diagonal, tied": OWN,
    PULSE: "diagonal, tied",
    "full, tied": OWN,
    "full, per layer": "full, tied",
}
REPLICATES = 1000


@dataclass(frozen=True)
class PriorSample:
    """Samples of one prior.

    ``counts`` (k,) are predicted groups. ``pairs`` (n / 2,) holds, for the first and second sample,
    the third and fourth, ..., half their mean squared difference over pixels and channels, values
    in [0, 1]: independent, and each an unbiased estimate of the variance of a pixel, averaged over
    the picture.
    """

    counts: IntArray
    pairs: FloatArray


@dataclass(frozen=True)
class Movement:
    """How far the shares of one prior lie from those of another, as total variation in [0, 1].

    ``estimate`` is corrected for bias; ``floor`` is what two samples of one prior would give on
    average, uncorrected.
    """

    origin: str
    estimate: Estimate
    floor: float


@dataclass(frozen=True)
class PriorRow:
    """One prior: shares of the groups (k,), pixel variance, and its movements."""

    prior: str
    n: int
    shares: tuple[Estimate, ...]
    variance: Estimate
    from_own: Movement | None
    from_step: Movement | None


@dataclass(frozen=True)
class LargestShift:
    """The group whose share differs most between two priors, with an interval for the most of k."""

    group: str
    origin: float
    share: float
    difference: Estimate


def prior_table(
    samples: Mapping[str, PriorSample], seed: int, confidence: float = 0.95
) -> list[PriorRow]:
    """Estimate shares, pixel variance and movements of every prior that was sampled.

    Parameters
    ----------
    samples : mapping of str to PriorSample
        By names of `PRIORS`; missing ones have no row, and movements from them are None.
    seed : int
        Of the resampled counts behind the movements.
    confidence : float
        Two-sided, of every interval alone.
    """
    rows = []
    for prior in (name for name in PRIORS if name in samples):
        counts = samples[prior].counts
        n = int(counts.sum())
        # How far from the generator's own prior, and how far from the prior one step away.
        step = STEPS.get(prior, "")
        moved = {
            origin: movement(origin, samples[origin].counts, counts, seed, confidence)
            for origin in {OWN, step} & samples.keys() - {prior}
        }
        shares = tuple(share(int(count), n, confidence) for count in counts)
        variance = pixel_variance(samples[prior].pairs, confidence)
        rows.append(PriorRow(prior, n, shares, variance, moved.get(OWN), moved.get(step)))
    return rows


def share(count: int, n: int, confidence: float = 0.95) -> Estimate:
    """Share of independent samples, with Wilson's interval."""
    low, high = wilson(count, n, confidence)
    return Estimate(count / n, low, high, n, n, "Wilson", confidence)


def pixel_variance(pairs: FloatArray, confidence: float = 0.95) -> Estimate:
    """Mean of independent unbiased estimates, with Student's t."""
    m, value = len(pairs), float(np.mean(pairs))
    error = float(np.std(pairs, ddof=1)) / np.sqrt(m) if m > 1 else np.inf
    half = float(stdtrit(max(m - 1, 1), 0.5 + confidence / 2) * error)
    method = "Student's t over disjoint pairs"
    return Estimate(value, max(0.0, value - half), value + half, 2 * m, 2 * m, method, confidence)


def movement(
    origin: str, before: IntArray, after: IntArray, seed: int, confidence: float = 0.95
) -> Movement:
    """Total variation between two independent samples of counts (k,)."""
    rng = np.random.default_rng(seed)
    sizes = int(before.sum()), int(after.sum())
    p, q, k = before / sizes[0], after / sizes[1], len(before)

    def noise(first: FloatArray, second: FloatArray) -> FloatArray:
        drawn = [
            rng.multinomial(size, shares, size=REPLICATES) / size - shares
            for size, shares in zip(sizes, (first, second), strict=True)
        ]
        return np.concatenate(drawn, axis=1)

    # Equal shares are the null: both are then the pooled ones.
    pooled = (before + after) / sum(sizes)
    statistic = between("tv")
    point, null = np.concatenate([p, q]), np.concatenate([pooled, pooled])
    found = corrected(statistic, point, null, noise(p, q), confidence)
    floor = float(statistic(null + noise(pooled, pooled)).mean())
    n = min(sizes)
    method = f"bias-corrected, bootstrap test inversion over {k} groups"
    estimate = Estimate(found.value, found.low, found.high, n, n, method, confidence)
    return Movement(origin, estimate, floor)


def largest_shift(
    groups: Sequence[str], before: IntArray, after: IntArray, confidence: float = 0.95
) -> LargestShift:
    """Find the group whose share differs most; score intervals, Bonferroni over the groups."""
    sizes = int(before.sum()), int(after.sum())
    p, q = before / sizes[0], after / sizes[1]
    critical = float(ndtri(1 - (1 - confidence) / (2 * len(groups))))
    low, high = difference_interval(q, sizes[1], p, sizes[0], critical)
    most = int(np.abs(q - p).argmax())
    n = min(sizes)
    method = f"score interval, Bonferroni over {len(groups)} groups"
    difference = Estimate(
        float(q[most] - p[most]), float(low[most]), float(high[most]), n, n, method, confidence
    )
    return LargestShift(groups[most], float(p[most]), float(q[most]), difference)
