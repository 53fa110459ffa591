"""Hierarchical multinomial model of the shift matrix: rows of groups borrow from one another.

The draws of a group are classified or not, the classified ones kept or converted, and the converted
ones have a destination. Each split has a Dirichlet prior about what the other groups show, of a
strength that is averaged over by its marginal likelihood: alike groups are pooled, different ones
are not.
Draws of a face are counted at Kish's effective sample size. The intervals are credible ones: they
cover on average over cells, and a cell unlike all others is drawn toward them. They stand beside
the intervals of `pulse_audit.fairness.shift`, which assume nothing of other groups.

References
----------
I. J. Good (1965), The Estimation of Probabilities (Dirichlet-multinomial hierarchies). C. N. Morris
(1983), JASA 78:47 (parametric empirical Bayes). A. Gelman (2006), Bayesian Analysis 1:515 (uniform
prior of the standard deviation between groups). L. Kish (1965), Survey Sampling.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from pulse_audit.fairness.pooling import STRENGTHS, Pooled
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.intervals import FloatArray, by_group
from pulse_audit.types import Estimate

#: Pseudo-draws, spread evenly, in what the other groups show.
PRIOR_DRAWS = 1.0


def hierarchical_shift(
    draws: Draws, *, seed: int, samples: int = 4000, confidence: float = 0.95
) -> list[list[Pooled | None]]:
    """Estimate the shift matrix with partial pooling of its rows.

    Parameters
    ----------
    draws : Draws
        Of k groups, of which at least three have faces.
    seed : int
        Of the draws from the posterior distribution.
    samples : int
        Number of these draws.
    confidence : float
        Of equal-tailed credible intervals, in (0, 1).

    Returns
    -------
    list of lists of Pooled or None, (k, k + 1)
        Last column: not classified. Rows of groups without faces are None.

    Raises
    ------
    ValueError
        If fewer than three groups have faces: there is nothing to pool.

    Notes
    -----
    Prior means come from the other groups alone, so that no group is shrunk toward itself; their
    own uncertainty reduces the strength. The destination of conversions has the shares that the
    other groups' conversions have, among the groups that both can become.
    """
    k, groups = draws.k, np.unique(draws.truth)
    if len(groups) < 3:
        raise ValueError(f"{len(groups)} groups with faces: nothing to pool")
    # shares of the groups' draws by column, (k, k + 1), at the effective number of draws, (k,)
    counts = np.zeros((k, k + 1))
    np.add.at(counts, (draws.truth, draws.predicted), 1.0)
    every = by_group(draws.retained, draws.faces, draws.truth, k)
    size = np.zeros(k)
    size[groups] = every.effective_sizes()[groups]
    counts *= (size / np.maximum(counts.sum(axis=1), 1))[:, None]

    # three splits: not classified or classified, kept or converted, destination of conversions
    diagonal, everything = np.arange(k), np.ones((k, 2), dtype=bool)
    kept, lost = counts[diagonal, diagonal], counts[:, k]
    conversions = counts[:, :k].copy()
    conversions[diagonal, diagonal] = 0.0
    rng = np.random.default_rng(seed)
    outcome = np.column_stack([lost, size - lost])
    unclassified, _ = _posterior(outcome, everything, groups, samples, rng)
    outcome = np.column_stack([kept, conversions.sum(axis=1)])
    retained, shrunk = _posterior(outcome, everything, groups, samples, rng)
    destination, _ = _posterior(conversions, ~np.eye(k, dtype=bool), groups, samples, rng)

    # cells of the matrix in every posterior draw, (samples, k, k + 1)
    cells = np.zeros((samples, k, k + 1))
    classified = unclassified[:, :, 1]
    cells[:, :, :k] = (classified * retained[:, :, 1])[:, :, None] * destination
    cells[:, diagonal, diagonal] = classified * retained[:, :, 0]
    cells[:, :, k] = unclassified[:, :, 0]
    tail = (1 - confidence) / 2
    low, high = np.quantile(cells, [tail, 1 - tail], axis=0)
    value = cells.mean(axis=0)
    matrix: list[list[Pooled | None]] = [[None] * (k + 1) for _ in range(k)]
    for group in groups.tolist():
        method = (
            f"hierarchical multinomial: {100 * shrunk[group]:.0f} % from the other groups; "
            "credible interval, covers on average over cells"
        )
        numbers = int(every.n_faces[group]), int(every.n_draws[group])
        for column in range(k + 1):
            ends = float(low[group, column]), float(high[group, column])
            mean = float(value[group, column])
            estimate = Estimate(mean, *ends, *numbers, method, confidence)
            matrix[group][column] = Pooled(estimate, float(shrunk[group]))
    return matrix


def _posterior(
    counts: FloatArray,
    possible: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    groups: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    samples: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Posterior shares of the rows of (effective) counts, (samples, k, m), and weights of priors.

    ``possible`` is (k, m): False where a row cannot have a category. The weight of a row's prior,
    (k,), is the share of its posterior mean that comes from the other rows.
    """
    k, m = counts.shape
    means, strengths = np.zeros((k, m)), np.zeros((k, len(STRENGTHS)))
    # uniform on the standard deviation between groups, as 1 / sqrt(strength) on a log grid
    likelihood = -0.5 * np.log(STRENGTHS + 1)
    for row in groups.tolist():
        others = np.setdiff1d(groups, row)
        # share of each category among the counts of other rows that can have it
        seen = counts[others].sum(axis=0) + PRIOR_DRAWS / m
        exposed = (counts[others].sum(axis=1)[:, None] * possible[others]).sum(axis=0)
        share = np.where(possible[row], seen / (exposed + PRIOR_DRAWS), 0.0)
        means[row] = share / share.sum()
        # strengths less the error of this mean: spread of the other rows, and their counts
        spread = (1 + 1 / len(others)) / (STRENGTHS + 1)
        error = 1 / (counts[others].sum() + PRIOR_DRAWS)
        strengths[row] = np.maximum(1 / (spread + error) - 1, 0.05)
        # Dirichlet-multinomial likelihood of the row's counts at each strength
        prior = strengths[row][:, None] * means[row][possible[row]]
        after = prior + counts[row][possible[row]]
        likelihood += (gammaln(after) - gammaln(prior)).sum(axis=1)
        likelihood += gammaln(strengths[row]) - gammaln(strengths[row] + counts[row].sum())
    weights = np.exp(likelihood - likelihood.max())
    weights /= weights.sum()

    # draws of strengths, the same for all rows, then of shares
    drawn = rng.choice(len(STRENGTHS), size=samples, p=weights)
    shape = strengths[:, drawn].T[:, :, None] * means + counts
    gammas = np.where(possible, rng.gamma(np.where(possible, np.maximum(shape, 1e-9), 1.0)), 0.0)
    shares = gammas / np.maximum(gammas.sum(axis=2, keepdims=True), 1e-300)
    total = strengths + counts.sum(axis=1)[:, None]
    prior_weight = (strengths / np.maximum(total, 1e-9)) @ weights
    return shares, prior_weight
