"""Whether an output still shows the person: identity cosine, and verification.

Arrays in, arrays out: embeddings are computed once per image elsewhere
(`pulse_audit.faces.embed.FaceNet`).

A threshold for "the same person" is a claim about strangers. It is taken from this run's own
originals, at the run's own resolution: all pairs of different faces are impostors, and at most the
stated share of them may lie above it. Strangers of one group look more alike to a face network than
strangers of two groups do (Grother et al. 2019), so with one threshold for all the false-accept
rate differs between groups, and ``verified`` flatters the groups where it is high:
`group_false_accepts` belongs beside every comparison of groups.

References
----------
F. Schroff, D. Kalenichenko and J. Philbin (2015), FaceNet, CVPR, sections 4 and 5.6. P. Grother,
M. Ngan and K. Hanaoka (2019), NISTIR 8280. A. J. Lee (1990), U-Statistics, section 5.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from pulse_audit.metrics.definition import FloatArray
from pulse_audit.types import Estimate, Unavailable

#: False-accept rates, the strictest first; a run uses the first that its pairs can carry.
RATES = (1e-3, 1e-2)

#: Pairs that a rate must let through on average: with fewer, the threshold is one pair's whim.
FEWEST_ACCEPTED = 10

METHOD = "all pairs of faces, jackknife over faces, Student t"


@dataclass(frozen=True)
class Threshold:
    """Cosine above which two faces count as one person.

    Attributes
    ----------
    cosine : float
        The threshold.
    rate : float
        The false-accept rate asked for.
    n_pairs, n_faces : int
        The impostor pairs it was taken from, and their faces.
    """

    cosine: float
    rate: float
    n_pairs: int
    n_faces: int

    def describe(self) -> str:
        """One sentence for the report."""
        return (
            f"same person above cosine {self.cosine:.4f}: at most {self.rate:g} of "
            f"{self.n_pairs:,} pairs of different originals ({self.n_faces:,} faces) lie above it"
        )


def cosines(first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Cosine of the angle between the rows of two sets of vectors.

    ``identity_cosine`` with FaceNet's embeddings, ``attribute_cosine`` with the attribute model's
    features.

    Parameters
    ----------
    first, second : array_like, (n, d)
        Any lengths of vectors.

    Returns
    -------
    array, (n,)
        float64 in [-1, 1]; NaN where a vector has a NaN or is zero.
    """
    x, y = (np.asarray(vectors, dtype=np.float64) for vectors in (first, second))
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"vectors {x.shape} and {y.shape} must be two sets of one shape, (n, d)")
    # (n, d), (n, d) -> (n,)
    products = np.einsum("nd,nd->n", x, y)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        values: FloatArray = np.clip(products / lengths, -1, 1)
    return values


def impostor_threshold(
    embeddings: ArrayLike,
    rates: Sequence[float] = RATES,
) -> Threshold | Unavailable:
    """Take the threshold from pairs of different originals.

    Parameters
    ----------
    embeddings : array_like, (faces, d)
        Of the originals, one row a face; rows with NaN (no face found) are left out.
    rates : sequence of float
        False-accept rates in the order of preference; the first that lets at least
        `FEWEST_ACCEPTED` pairs through is used.

    Returns
    -------
    Threshold or Unavailable
        Cosines greater than the threshold are accepted; of the impostor pairs at most the rate's
        share. Unavailable where there are too few pairs for every rate.
    """
    # Each pair once, the most alike first.
    similarity, strangers = _pairs(embeddings)
    values = np.sort(similarity[np.triu(strangers)])[::-1]
    for rate in rates:
        # The threshold lies between the last accepted pair and the next one.
        accepted = math.floor(rate * len(values) + 1e-9)
        if accepted >= FEWEST_ACCEPTED:
            between = values[accepted - 1 : accepted + 1].mean()
            return Threshold(float(between), rate, len(values), len(similarity))
    needed = math.ceil(FEWEST_ACCEPTED / max(rates))
    return Unavailable(
        f"verified needs {needed:,} pairs of different originals for a false-accept rate of "
        f"{max(rates):g}, not {len(values):,} ({len(similarity):,} faces)"
    )


def verified(
    identity_cosines: ArrayLike, threshold: Threshold | float, found: ArrayLike | None = None
) -> FloatArray:
    """Whether each output is verified as the person of its original: 1, 0, or NaN.

    Parameters
    ----------
    identity_cosines : array_like, (n,)
        NaN where either image has no embedding.
    threshold : Threshold or float
        A cosine.
    found : array_like of bool, (n,), optional
        Whether a face was found in the original. An output without a findable face is then not
        verified (0), as no system would; without it all NaN stay NaN.

    Returns
    -------
    array, (n,)
        float64: 1 verified, 0 not, NaN where the original has no embedding.
    """
    values = np.asarray(identity_cosines, dtype=np.float64)
    limit = threshold.cosine if isinstance(threshold, Threshold) else threshold
    known = ~np.isnan(values) if found is None else np.asarray(found, dtype=bool)
    # An output without a face has no cosine and is not accepted.
    accepted = np.nan_to_num(values, nan=-np.inf) > limit
    return np.where(known, accepted.astype(np.float64), np.nan)


def false_accepts(
    embeddings: ArrayLike,
    threshold: Threshold | float,
) -> Estimate | Unavailable:
    """Share of pairs of different faces above a threshold, with an interval over faces.

    Pairs that share a face are not independent; the jackknife leaves out a face at a time, with
    all its pairs.

    Parameters
    ----------
    embeddings : array_like, (faces, d)
        Rows with NaN are left out.
    threshold : Threshold or float
        A cosine, taken as given: for the faces it was computed from, the interval says how well
        the rate is known, and the value is the rate by construction.

    Returns
    -------
    Estimate or Unavailable
        ``n_draws`` counts pairs; Unavailable with fewer than three faces that have a stranger.
    """
    similarity, strangers = _pairs(embeddings)
    limit = threshold.cosine if isinstance(threshold, Threshold) else threshold
    # Per face: its pairs above the threshold, and all its pairs.
    above, pairs = (np.where(strangers, similarity > limit, 0).sum(1), strangers.sum(1))
    n, total = len(pairs), int(pairs.sum())
    if n < 3 or np.any(total == 2 * pairs):
        return Unavailable(f"a false-accept rate needs three different people, not {n} faces")
    value = above.sum() / total
    # Jackknife: the rate without each face and all its pairs.
    left_out = (above.sum() - 2 * above) / (total - 2 * pairs)
    error = math.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())
    # Student's interval, cut to what a share can be.
    half = error * float(stdtrit(n - 1, 0.5 + 0.95 / 2))
    low, high = max(0.0, value - half), min(1.0, value + half)
    return Estimate(float(value), low, high, n, total // 2, METHOD)


def group_false_accepts(
    embeddings: ArrayLike,
    groups: Sequence[str],
    threshold: Threshold | float,
) -> dict[str, Estimate | Unavailable]:
    """Share of pairs of strangers within each group that lie above a threshold.

    Returns
    -------
    dict
        A value as of `false_accepts` for every group, in the order of their names.
    """
    rows, labels = np.asarray(embeddings, dtype=np.float64), np.asarray(groups)
    return {
        str(group): false_accepts(rows[labels == group], threshold) for group in np.unique(labels)
    }


def _pairs(embeddings: ArrayLike) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Cosines of all pairs of faces (n, n), and which of them are of different faces."""
    rows = np.asarray(embeddings, dtype=np.float64)
    rows = rows[~np.isnan(rows).any(1)]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T, ~np.eye(len(rows), dtype=bool)
