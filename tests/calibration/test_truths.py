"""What scenarios call the truth is what their simulations tend to in large samples."""

import numpy as np
import pytest

from pulse_audit.calibration import apparent, distances, means, set_fairness
from pulse_audit.calibration.scenarios import draws_of_faces, worst
from pulse_audit.fairness.sets import joint_shares


@pytest.mark.parametrize("name", apparent.ESTIMATORS)
@pytest.mark.parametrize("draws", [2, 4])
def test_estimates_of_apparent_groups_tend_to_their_truth(name: str, draws: int) -> None:
    matrix = apparent.with_unclassified(0.0 if name in ("flip_rate", "entropy") else 0.05)
    sample = apparent.draws_of(np.random.default_rng(0), matrix, 3000, draws)
    truth = apparent.true_values(matrix, draws)[name]
    estimates = apparent.ESTIMATORS[name](sample, 0)
    pairs = [(e.value, t) for e, t in zip(estimates, truth, strict=True) if e is not None]
    # three standard errors of a share of 3,000 faces are at most .027
    assert len(pairs) >= 1 and max(abs(value - t) for value, t in pairs) < 0.027


@pytest.mark.parametrize("divergence", ["chi2", "tv"])
@pytest.mark.parametrize("arm", ["fair", "planted"])
@pytest.mark.parametrize("name", set_fairness.MEASURES)
def test_divergences_tend_to_their_truth(name: str, arm: str, divergence: str) -> None:
    draws = set_fairness.draws_of(np.random.default_rng(1), arm, 3000)
    joint = joint_shares(draws, seed=0, replicates=2)
    found = set_fairness.MEASURES[name](joint, divergence).plug_in
    assert found == pytest.approx(set_fairness.true_value(name, divergence, arm), abs=0.035)


@pytest.mark.parametrize("arm", distances.ARMS)
def test_kernel_distances_tend_to_their_truth(arm: str) -> None:
    (shift, scale), spread = distances.ARMS[arm], np.diag(distances.variances())
    mean, ones = np.full(distances.FEATURES, 1 + shift), np.ones(distances.FEATURES)
    truth = distances.true_distance(mean, scale**2 * spread, ones, spread)
    random = np.random.default_rng(2)
    found = [distances.simulated(random, arm, 60).estimate.value for _ in range(40)]
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / np.sqrt(40))


@pytest.mark.parametrize("shape", means.LOWEST)
def test_values_have_mean_zero_and_variance_one(shape: means.Shape) -> None:
    values = means.standardised(np.random.default_rng(3), shape, 400_000)
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.var() == pytest.approx(1, abs=0.1)


def test_draws_of_faces_have_the_rows_and_the_correlation_given() -> None:
    matrix = np.array([[0.7, 0.3], [0.2, 0.8]])
    drawn = draws_of_faces(np.random.default_rng(4), matrix, 20_000, 2, 0.5)
    assert drawn.mean(axis=(1, 2)) == pytest.approx([0.3, 0.8], abs=0.01)
    assert np.corrcoef(drawn[0, :, 0], drawn[0, :, 1])[0, 1] == pytest.approx(0.5, abs=0.03)


def test_the_worst_of_kinds_counts_those_of_one_kind_together() -> None:
    hits = np.array([[1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    assert worst(hits).value == 0.75
    assert worst(hits, kinds=[0, 0, 1, 1]).value == pytest.approx(6 / 8)
    assert worst(hits, np.ones((4, 4)), [0, 0, 0, 1]).width == 1.0
