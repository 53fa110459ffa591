"""Where a shift comes from: the generator, its training data, the evaluation faces, the search.

An output that does not show its face's group is attributed to one of four sources:

classifier
    the original itself is not classified as its labelled group, so that a perfect upsampler would
    not be either;
preference
    the same search from the same seed, guided toward the group, finds an image that fits the input
    and shows the group: the generator can produce one, and the unguided search did not;
adversarial
    it finds one, but a second attribute model, which did not guide, does not see the group;
incapacity
    even the guided search finds none: no image that fits the input at all, or none of the group.

Incapacity is what this search did not find. It is an upper bound of what the generator cannot
show: a longer search, or more draws, can only move draws from incapacity to preference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from pulse_audit.stats.intervals import IntArray, proportion_interval, wilson
from pulse_audit.types import Estimate

Flags: TypeAlias = NDArray[np.bool_]
#: ``original_baseline``: of the originals themselves.
Correction: TypeAlias = Literal["raw", "original_baseline"]

#: What becomes of a draw, one of these; `parts` returns their indices.
PARTS = ("retained", "classifier", "preference", "adversarial", "incapacity")
RETAINED, CLASSIFIER, PREFERENCE, ADVERSARIAL, INCAPACITY = range(5)


def parts(
    retained: Flags, misread: Flags, shown: Flags, confirmed: Flags | None = None
) -> IntArray:
    """Attribute every draw to one of `PARTS`.

    Parameters
    ----------
    retained : array of bool, (n,)
        The unguided output shows the labelled group.
    misread : array of bool, (n,)
        The original is not classified as its labelled group.
    shown : array of bool, (n,)
        The guided search found an image that fits the input and shows the group.
    confirmed : array of bool, (n,), optional
        A second model sees the group in that image; None where there is no second model.

    Returns
    -------
    array of int64, (n,)
        Retained takes precedence over the classifier's part, and that over the generator's.
    """
    # the first condition that holds names the part
    believed = np.ones_like(shown) if confirmed is None else confirmed
    return np.select(
        [retained, misread, shown & believed, shown],
        [RETAINED, CLASSIFIER, PREFERENCE, ADVERSARIAL],
        INCAPACITY,
    ).astype(np.int64)


@dataclass(frozen=True, eq=False)
class GuidedDraws:
    """Draws of one arm, condition and scale, guided and not, row by row.

    Attributes
    ----------
    faces : array of int64, (n,)
        Face number.
    part : array of int64, (n,)
        Index into `PARTS`.
    retained, feasible, shown : array of bool, (n,)
        The first of the search without guidance; the others of the guided one.
    confirmed : array of bool, (n,), or None
        Where ``shown``, whether the second model sees the group.
    checked : array of bool, (n,), or None
        Whether the second model classifies the original as its group.
    read : array of bool, (n,)
        Whether the first model does.
    """

    faces: IntArray
    part: IntArray
    retained: Flags
    feasible: Flags
    shown: Flags
    confirmed: Flags | None
    checked: Flags | None
    read: Flags

    def subset(self, rows: Flags) -> GuidedDraws:
        """Return some of the draws."""
        return GuidedDraws(
            faces=self.faces[rows],
            part=self.part[rows],
            retained=self.retained[rows],
            feasible=self.feasible[rows],
            shown=self.shown[rows],
            confirmed=None if self.confirmed is None else self.confirmed[rows],
            checked=None if self.checked is None else self.checked[rows],
            read=self.read[rows],
        )

    def outcomes(self) -> dict[str, Flags]:
        """Yes or no of every draw, by metric; each array is (n,)."""
        outcomes = {
            f"source_{name}": self.part == number
            for number, name in enumerate(PARTS)
            if number != ADVERSARIAL or self.confirmed is not None
        }
        outcomes["source_incapacity_infeasible"] = (self.part == INCAPACITY) & ~self.feasible
        outcomes["guided_shown"] = self.shown
        return outcomes


def split_estimates(
    draws: GuidedDraws, confidence: float, pooled: Mapping[str, float | None]
) -> dict[tuple[str, Correction], Estimate]:
    """Estimate every metric of guided draws, by (metric, correction).

    Shares of all draws, with Wilson intervals at the effective sample size:

    ``source_<part>`` (``adversarial`` only with a second model), which sum to 1;
    ``source_incapacity_infeasible``, the part of incapacity in which not even the input was
    fitted; ``guided_shown``, guided searches that show the group. ``source_incapacity_faces`` is
    the share of faces of which no draw, guided or not, shows the group. ``guided_confirmed`` is
    the share of shown draws in which the second model sees the group too; its
    ``original_baseline`` is the same share of the originals that the first model reads right.

    Parameters
    ----------
    draws : GuidedDraws
    confidence : float
    pooled : mapping of str to float or None
        Within-face correlation by metric, pooled over groups.
    """
    # Shares of all draws, as the one search without guidance and the guided one leave them.
    estimates: dict[tuple[str, Correction], Estimate] = {}
    for name, outcomes in draws.outcomes().items():
        icc = pooled.get(name)
        estimates[name, "raw"] = proportion_interval(outcomes, draws.faces, icc, confidence)

    # One yes or no per face: no draw of it, guided or not, shows the group.
    believed = draws.shown if draws.confirmed is None else draws.shown & draws.confirmed
    ever = pd.Series(draws.retained | believed).groupby(draws.faces).any()
    never = proportion_interval(~ever.to_numpy(np.bool_), ever.index, None, confidence)
    estimates["source_incapacity_faces", "raw"] = Estimate(
        never.value, never.low, never.high, len(ever), len(draws.faces),
        f"{never.method} over faces", confidence,
    )  # fmt: skip

    # What the second model says of the images shown, and of the originals, one a face.
    if draws.confirmed is not None and draws.checked is not None:
        _, first = np.unique(draws.faces, return_index=True)
        # True at the first draw of each face whose original the first model reads right
        originals = draws.read & np.isin(np.arange(len(draws.faces)), first)
        checks: dict[Correction, tuple[Flags, Flags]] = {
            "raw": (draws.shown, draws.confirmed),
            "original_baseline": (originals, draws.checked),
        }
        for correction, (among, agrees) in checks.items():
            if among.any():
                estimates["guided_confirmed", correction] = proportion_interval(
                    agrees[among], draws.faces[among], None, confidence
                )
    return estimates


def composition(counts: Sequence[int], confidence: float = 0.95) -> list[Estimate]:
    """Shares of a multinomial sample, with simultaneous intervals.

    Goodman (1965, Technometrics 7:247): Wilson's interval at the level that k comparisons leave
    each class.

    Parameters
    ----------
    counts : sequence of int
        One a class.
    confidence : float
        That all shares lie in their intervals.

    Raises
    ------
    ValueError
        If nothing was counted.
    """
    # level of each interval so that all k hold together
    total = int(sum(counts))
    each = 1 - (1 - confidence) / len(counts)
    method = f"Goodman's simultaneous Wilson intervals, {len(counts)} classes"
    return [
        Estimate(c / total, *wilson(c, total, each), total, total, method, confidence)
        for c in counts
    ]


def census(count: int, total: int, confidence: float = 0.95) -> Estimate:
    """Share in a set that was counted in full: the interval has no width."""
    share = count / total
    return Estimate(share, share, share, total, total, "count of a known set", confidence)


def less_known(share: Estimate, known: Estimate) -> Estimate:
    """Difference of a share from one without error, which moves its interval."""
    return Estimate(
        share.value - known.value,
        share.low - known.value,
        share.high - known.value,
        share.n_faces,
        share.n_draws,
        f"{share.method}, less a known share",
        share.confidence,
    )


def independent_mean(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean of two or more independent samples, with a normal interval."""
    sample = np.asarray(values, dtype=np.float64)
    # half the width: z s / sqrt(n)
    n = len(sample)
    half = float(ndtri(0.5 + confidence / 2)) * float(sample.std(ddof=1)) / math.sqrt(n)
    mean, method = float(sample.mean()), "normal, independent samples"
    return Estimate(mean, mean - half, mean + half, n, n, method, confidence)
