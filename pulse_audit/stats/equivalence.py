"""Tests that a difference is small: non-inferiority, and equivalence by two one-sided tests.

References
----------
D. J. Schuirmann (1987), J. Pharmacokinetics and Biopharmaceutics 15:657. C. P. Farrington and
G. Manning (1990), Statistics in Medicine 9:1447.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtr, stdtr

from pulse_audit.stats.intervals import FloatArray, cluster_totals
from pulse_audit.stats.samples import Groups, by_group, mean_error, outcomes
from pulse_audit.stats.score import difference_score
from pulse_audit.stats.tests import TestResult


def noninferiority_paired(
    faces: ArrayLike,
    trial: ArrayLike,
    baseline: ArrayLike,
    margin: float,
    *,
    proportion: bool,
) -> TestResult:
    """Test the hypothesis that the trial's mean lies at or below the baseline's less ``margin``.

    Student's t of differences over faces. Of proportions the standard error is at least that of
    the least varying faces that would still lie on the margin, so that a few identical pairs do
    not pass for proof.

    Parameters
    ----------
    faces : array_like, (draws,)
    trial, baseline : array_like, (draws,)
        Values on the same face, draw and seed; larger is better.
    margin : float
        At least 0, in units of the values.
    proportion : bool
        Whether values are 0 and 1.

    Returns
    -------
    TestResult
        One-sided: a small p shows non-inferiority. NaN with one face.

    Raises
    ------
    ValueError
        If lengths differ, there is no draw, a value is not finite, or the margin is negative.
    """
    better, worse = _pair(trial, baseline, proportion)
    return _one_sided_paired(faces, better - worse, _margin(margin), proportion)


def equivalence_paired(
    faces: ArrayLike,
    trial: ArrayLike,
    baseline: ArrayLike,
    margin: float,
    *,
    proportion: bool,
) -> TestResult:
    """Two one-sided tests: a small p shows that the paired means differ by less than ``margin``.

    Parameters, errors and conditions as in `noninferiority_paired`.
    """
    first, second = _pair(trial, baseline, proportion)
    both = [
        _one_sided_paired(faces, difference, _margin(margin), proportion)
        for difference in (first - second, second - first)
    ]
    return _weaker(*both)


def noninferiority_unpaired(
    trial: tuple[ArrayLike, ArrayLike],
    baseline: tuple[ArrayLike, ArrayLike],
    margin: float,
    *,
    proportion: bool,
) -> TestResult:
    """Test the hypothesis that the trial's mean lies at or below the baseline's less ``margin``.

    Parameters
    ----------
    trial, baseline : tuple of array_like
        Values and faces, (draws,) each, of two samples that share no face.
    margin : float
    proportion : bool
        Farrington and Manning's score test; of faces with several draws at effective sample sizes,
        which are themselves estimated, so that the score is referred to Student's t over faces.
        Else Welch's t over faces.

    Returns
    -------
    TestResult
        One-sided: a small p shows non-inferiority. NaN where a mean has one face.

    Raises
    ------
    ValueError
        As `noninferiority_paired`.
    """
    return _one_sided_unpaired(trial, baseline, _margin(margin), proportion)


def equivalence_unpaired(
    trial: tuple[ArrayLike, ArrayLike],
    baseline: tuple[ArrayLike, ArrayLike],
    margin: float,
    *,
    proportion: bool,
) -> TestResult:
    """Two one-sided tests: a small p shows that two samples' means differ by less than ``margin``.

    Parameters, errors and conditions as in `noninferiority_unpaired`.
    """
    there = _one_sided_unpaired(trial, baseline, _margin(margin), proportion)
    back = _one_sided_unpaired(baseline, trial, _margin(margin), proportion)
    return _weaker(there, back)


def _one_sided_paired(
    faces: ArrayLike, differences: FloatArray, margin: float, proportion: bool
) -> TestResult:
    sums, counts = cluster_totals(differences, faces)
    mean, error = mean_error(sums, counts)
    if proportion and len(sums) > 1:
        error = max(error, math.sqrt(margin * (1 - margin) / len(sums)) if margin < 1 else 0.0)
    statistic = _ratio(mean + margin, error)
    p = float(stdtr(len(sums) - 1, -statistic)) if len(sums) > 1 else math.nan
    return TestResult(p, statistic, len(sums), int(counts.sum()), "t of paired differences by face")


def _one_sided_unpaired(
    trial: tuple[ArrayLike, ArrayLike],
    baseline: tuple[ArrayLike, ArrayLike],
    margin: float,
    proportion: bool,
) -> TestResult:
    values = np.concatenate([_numbers(trial[0], proportion), _numbers(baseline[0], proportion)])
    groups = np.repeat([0, 1], [np.size(trial[0]), np.size(baseline[0])])
    # numbers of faces mean nothing across samples that share none
    places = [np.unique(np.asarray(part[1]), return_inverse=True)[1] for part in (trial, baseline)]
    faces = np.concatenate([places[0], places[1] + len(places[0])])
    sample = by_group(values, faces, groups, k=2)
    statistic, df, method = _distance(sample, margin, proportion)
    p = float(ndtr(-statistic)) if math.isinf(df) else float(stdtr(df, -statistic))
    n_faces = int(sum(sample.n_faces))
    return TestResult(p, statistic, n_faces, len(values), method)


def _distance(sample: Groups, margin: float, proportion: bool) -> tuple[float, float, str]:
    """Statistic of the first mean above the second less the margin, its degrees of freedom."""
    if not sample.n_faces.all():
        raise ValueError("each sample needs a draw")
    if proportion:
        p, n = sample.means(), sample.effective_sizes()
        score = float(difference_score(p[0], n[0], p[1], n[1], -min(margin, 1.0)))
        n_faces = int(sum(sample.n_faces))
        repeated = int(sum(sample.n_draws)) > n_faces
        df = float(max(n_faces - 2, 1)) if repeated else math.inf
        return score, df, "Farrington-Manning score at effective sample sizes"
    errors, freedoms = sample.errors(), sample.n_faces - 1
    if (freedoms < 1).any():
        return math.nan, math.nan, "no test: one face"
    means, squares = sample.means(), errors**2
    spread = float((squares**2 / freedoms).sum())
    freedom = float(squares.sum() ** 2 / spread) if spread else float(freedoms.sum())
    statistic = _ratio(float(means[0] - means[1]) + margin, math.sqrt(squares.sum()))
    return statistic, freedom, "Welch t over faces"


def _weaker(first: TestResult, second: TestResult) -> TestResult:
    larger = first if math.isnan(first.p) or first.p >= second.p else second
    return TestResult(
        larger.p,
        larger.statistic,
        larger.n_faces,
        larger.n_draws,
        f"two one-sided tests, {larger.method}",
    )


def _ratio(distance: float, error: float) -> float:
    """Distance in standard errors; identical pairs at a margin are infinitely far from it."""
    if error > 0 or math.isnan(error):
        return distance / error
    return math.copysign(math.inf, distance) if distance else 0.0


def _pair(first: ArrayLike, second: ArrayLike, proportion: bool) -> tuple[FloatArray, FloatArray]:
    return _numbers(first, proportion), _numbers(second, proportion)


def _numbers(values: ArrayLike, proportion: bool) -> FloatArray:
    return outcomes(values) if proportion else np.asarray(values, dtype=np.float64)


def _margin(margin: float) -> float:
    if not margin >= 0:
        raise ValueError(f"a margin must be a number of at least 0, not {margin}")
    return margin
