"""Where a shift comes from: the generator, its training data, the evaluation faces, the search.

A draw is lost if its output does not show the group of its face. Draws of faces whose original the
attribute model misreads are counted and left aside: of them it cannot say what the generator lost.
Every other lost draw is searched again from its own start, toward the face's group and, as a
placebo, without guidance; both choose the iterate that shows the group most clearly. The draws of
faces that are read right then split into

retained
    the output shows the group;
chance
    the placebo finds an image that fits the input and shows the group, though nothing guided it;
preference
    the share that guidance finds, less the share that the placebo finds: the generator can produce
    the group, and searching without guidance does not;
adversarial
    guidance finds one, but a second attribute model, which did not guide, does not see the group;
incapacity
    guidance finds none: no image that fits the input at all, or none of the group.

Preference is a difference of two shares: it is 0 on average, and may be negative, where guidance
has no effect. It does not show that the sampler is unfair: one that draws from the posterior, which
is fair in the sense of CPR, loses draws that guidance could have kept. Incapacity is what this
search did not find: an upper bound of what the generator cannot show. Searches toward a wrong
group, one that neither the face nor the output shows, tell how easily guidance makes any face read
as any group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from pulse_audit.stats.intervals import (
    IntArray,
    cluster_totals,
    intraclass_correlation,
    proportion_interval,
    wilson,
)
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.types import Estimate

Flags: TypeAlias = NDArray[np.bool_]
#: ``original_baseline``: of the originals themselves.
Correction: TypeAlias = Literal["raw", "original_baseline"]

#: Shares that add up to 1 over the draws of faces that are read right.
PARTS = ("retained", "chance", "preference", "adversarial", "incapacity")


@dataclass(frozen=True, eq=False)
class Searches:
    """Searches of one kind, one row a draw, (n,) each; False where a draw was not searched.

    Attributes
    ----------
    made, feasible, shown : array of bool
        Whether the draw was searched, whether an image fits the input, whether one of these shows
        the wanted group.
    confirmed : array of bool or None
        Whether a second model sees the group in it; None without a second model.
    """

    made: Flags
    feasible: Flags
    shown: Flags
    confirmed: Flags | None

    @property
    def believed(self) -> Flags:
        """Whether the wanted group is shown, by both models where there are two."""
        return self.shown if self.confirmed is None else self.shown & self.confirmed

    def subset(self, rows: Flags) -> Searches:
        """Return the searches of some draws."""
        confirmed = None if self.confirmed is None else self.confirmed[rows]
        return Searches(self.made[rows], self.feasible[rows], self.shown[rows], confirmed)


@dataclass(frozen=True, eq=False)
class AttributedDraws:
    """All draws of one arm, condition and scale.

    Attributes
    ----------
    faces, groups : array of int64, (n,)
        Number of the face, and of its group.
    read : array of bool, (n,)
        Whether the attribute model reads the original as its labelled group.
    retained : array of bool, (n,)
        Whether it reads the output so.
    checked : array of bool, (n,), or None
        Whether the second model reads the original so.
    own, placebo, wrong : Searches
        Made for lost draws of faces that are read right.
    """

    faces: IntArray
    groups: IntArray
    read: Flags
    retained: Flags
    checked: Flags | None
    own: Searches
    placebo: Searches
    wrong: Searches

    def subset(self, rows: Flags) -> AttributedDraws:
        """Return some of the draws."""
        return AttributedDraws(
            faces=self.faces[rows],
            groups=self.groups[rows],
            read=self.read[rows],
            retained=self.retained[rows],
            checked=None if self.checked is None else self.checked[rows],
            own=self.own.subset(rows),
            placebo=self.placebo.subset(rows),
            wrong=self.wrong.subset(rows),
        )

    def outcomes(self) -> dict[str, tuple[Flags, Flags]]:
        """Return by metric the draws it is a share of, and those that count, (n,) each."""
        own, placebo, wrong = self.own, self.placebo, self.wrong
        everything = np.ones_like(self.read)
        outcomes = {
            # of all draws
            "source_misread": (everything, ~self.read),
            "source_misread_lost": (everything, ~self.read & ~self.retained),
            # of draws whose original is read right
            "source_retained": (self.read, self.retained),
            "source_found": (self.read, own.believed),
            "source_chance": (self.read, placebo.believed),
            "source_incapacity": (self.read, own.made & ~own.shown),
            "source_incapacity_infeasible": (self.read, own.made & ~own.feasible),
            # of the searches
            "guided_shown": (own.made, own.shown),
            "placebo_shown": (placebo.made, placebo.shown),
            "wrong_shown": (wrong.made, wrong.shown),
        }
        if own.confirmed is not None:
            outcomes["source_adversarial"] = (self.read, own.shown & ~own.believed)
            outcomes["guided_confirmed"] = (own.shown, own.believed)
            outcomes["wrong_confirmed"] = (wrong.shown, wrong.believed)
        return outcomes

    def correlations(self) -> dict[str, float | None]:
        """Return the within-face correlation of every metric, pooled over groups."""
        return {
            metric: intraclass_correlation(counts[among], self.faces[among], self.groups[among])
            for metric, (among, counts) in self.outcomes().items()
            if among.any()
        }


def split_estimates(
    draws: AttributedDraws, confidence: float, pooled: Mapping[str, float | None]
) -> dict[tuple[str, Correction], Estimate]:
    """Estimate every metric of searched draws, by (metric, correction).

    Shares with Wilson intervals at the effective sample size; ``source_preference``, a difference
    of two, with the score interval of `paired_proportions`. Of all draws: ``source_misread``, and
    ``source_misread_lost``, those that are not retained either. Of draws of faces that are read
    right: ``source_<part>`` (``adversarial`` only with a second model), which sum to 1;
    ``source_found``, what guidance finds, chance included; ``source_incapacity_infeasible``, the
    part of incapacity in which not even the input was fitted. Of the searches: ``guided_shown``,
    ``placebo_shown`` and ``wrong_shown``, those that show the wanted group, and of these
    ``guided_confirmed`` and ``wrong_confirmed``, in which the second model sees it too; their
    ``original_baseline`` is the share it sees of the originals that the first model reads right.
    ``source_incapacity_faces`` is the share of faces that are read right and of which no draw and
    no search toward the group shows it.

    Parameters
    ----------
    draws : AttributedDraws
    confidence : float
    pooled : mapping of str to float or None
        Within-face correlation by metric, pooled over groups.
    """
    # What has no draws has no share.
    estimates: dict[tuple[str, Correction], Estimate] = {}
    for name, (among, counts) in draws.outcomes().items():
        if among.any():
            estimates[name, "raw"] = proportion_interval(
                counts[among], draws.faces[among], pooled.get(name), confidence
            )
    read, faces = draws.read, draws.faces
    if read.any():
        # Guided less placebo, by face: both are of the same draws.
        excess = draws.own.believed.astype(np.float64) - draws.placebo.believed
        sums, sizes = cluster_totals(excess[read], faces[read])
        beyond = paired_proportions(sums / sizes, confidence)
        estimates["source_preference", "raw"] = replace(beyond, n_draws=int(read.sum()))
        # One yes or no per face: no draw of it, guided or not, shows the group.
        shows = draws.retained | draws.own.believed | draws.placebo.believed
        ever = pd.Series(shows[read]).groupby(faces[read]).any()
        never = proportion_interval(~ever.to_numpy(np.bool_), ever.index, None, confidence)
        estimates["source_incapacity_faces", "raw"] = Estimate(
            never.value, never.low, never.high, len(ever), int(read.sum()),
            f"{never.method} over faces", confidence,
        )  # fmt: skip

    # What the second model says of the originals that the first reads right, one a face.
    if draws.checked is not None and read.any():
        _, first = np.unique(faces, return_index=True)
        originals = read & np.isin(np.arange(len(faces)), first)
        baseline = proportion_interval(draws.checked[originals], faces[originals], None, confidence)
        for name in ("guided_confirmed", "wrong_confirmed"):
            if (name, "raw") in estimates:
                estimates[name, "original_baseline"] = baseline
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
