"""Frechet and kernel distances against literal formulas, closed forms and known truth."""

import itertools
import math

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.stats import binom

from pulse_audit.stats import distances
from pulse_audit.stats.distances import (
    KernelDistance,
    frechet_bias,
    frechet_distance,
    kernel_distance,
    kernel_distance_gap,
    widest_gap,
)
from pulse_audit.types import Estimate, Unavailable


def sample(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return shift + rng.standard_normal((n, d)) @ np.random.default_rng(d).standard_normal((d, d))


def test_frechet_is_the_published_formula() -> None:
    """FID as its authors write it, with scipy's matrix root."""
    x, y = sample(200, 12, 0), sample(150, 12, 1, 0.3)
    s, t = np.cov(x.T), np.cov(y.T)
    root = np.trace(sqrtm(s @ t).real)
    wanted = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * root
    assert frechet_distance(x, y).value == pytest.approx(wanted, rel=1e-10)


def test_frechet_of_features_that_never_vary() -> None:
    """Dead units: columns of zeros."""
    x, y = sample(50, 6, 2), sample(60, 6, 3)
    dead = np.pad(x, ((0, 0), (0, 9))), np.pad(y, ((0, 0), (0, 9)))
    assert frechet_distance(*dead).value == pytest.approx(frechet_distance(x, y).value)


def test_frechet_of_a_set_and_itself_is_zero() -> None:
    x = sample(60, 20, 4)
    assert abs(frechet_distance(x, x).value) < 1e-9 * np.square(x).sum()


def test_frechet_needs_more_images_than_features() -> None:
    answer = frechet_distance(sample(20, 20, 5), sample(90, 20, 6))
    assert isinstance(answer, Unavailable)
    assert "more than 20 images" in answer.reason


def test_frechet_bias_is_what_equal_samples_score() -> None:
    scores = [
        frechet_distance(sample(400, 8, 2 * k), sample(200, 8, 2 * k + 1)) for k in range(200)
    ]
    mixing = np.random.default_rng(8).standard_normal((8, 8))
    wanted = frechet_bias(np.linalg.svd(mixing)[1] ** 2, 400, 200)
    assert np.mean([s.value for s in scores]) == pytest.approx(wanted, rel=0.06)
    assert np.mean([s.if_equal for s in scores]) == pytest.approx(wanted, rel=0.03)


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3


def literal(x: np.ndarray, y: np.ndarray, fx: list, fy: list) -> float:
    """Three double sums over pairs of different faces."""

    def mean(a: np.ndarray, b: np.ndarray, fa: list, fb: list) -> float:
        pairs = itertools.product(range(len(a)), range(len(b)))
        return np.mean([kernel(a[i], b[j]) for i, j in pairs if fa[i] != fb[j]])

    return mean(x, x, fx, fx) + mean(y, y, fy, fy) - 2 * mean(x, y, fx, fy)


def uneven(seed: int = 7) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Faces with one to three outputs; one lacks its original, one its outputs."""
    fx = [f"f{k}" for k in range(12) for _ in range(1 + k % 3)]
    fy = [f"f{k}" for k in range(1, 13)]
    return sample(len(fx), 5, seed), sample(len(fy), 5, seed + 1, 0.2), fx, fy


def test_kernel_distance_is_the_literal_double_sum() -> None:
    x, y, fx, fy = uneven()
    found = kernel_distance(x, y, fx, fy)
    assert found.estimate.value == pytest.approx(literal(x, y, fx, fy), rel=1e-12)
    assert (found.estimate.n_faces, found.estimate.n_draws) == (13, len(x))


def test_without_faces_it_is_binkowski_s_unbiased_estimator() -> None:
    x, y = sample(40, 6, 9), sample(30, 6, 10)
    a, b, c = ((p @ q.T / 6 + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    wanted = (a.sum() - np.trace(a)) / (40 * 39) + (b.sum() - np.trace(b)) / (30 * 29)
    assert kernel_distance(x, y).estimate.value == pytest.approx(wanted - 2 * c.mean(), rel=1e-12)


def test_the_standard_error_is_the_jackknife_s() -> None:
    x, y, fx, fy = uneven()
    left_out = []
    for face in sorted({*fx, *fy}):
        a, b = ([f != face for f in faces] for faces in (fx, fy))
        names = [f for f in fx if f != face], [f for f in fy if f != face]
        left_out.append(literal(x[a], y[b], *names))
    wanted = math.sqrt(12 / 13 * np.square(np.array(left_out) - np.mean(left_out)).sum())
    assert kernel_distance(x, y, fx, fy).standard_error == pytest.approx(wanted, rel=1e-9)


def test_large_sets_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, fx, fy = uneven()
    whole = kernel_distance(x, y, fx, fy)
    monkeypatch.setattr(distances, "_ROWS", 5)
    parts = kernel_distance(x, y, fx, fy)
    assert parts.estimate.value == pytest.approx(whole.estimate.value, rel=1e-12)
    assert parts.standard_error == pytest.approx(whole.standard_error, rel=1e-10)


def test_the_order_of_the_images_does_not_matter() -> None:
    x, y, fx, fy = uneven()
    order = np.random.default_rng(0).permutation(len(x))
    mixed = kernel_distance(x[order], y, [fx[k] for k in order], fy)
    assert mixed.estimate.value == pytest.approx(kernel_distance(x, y, fx, fy).estimate.value)


def expected_kernel(m: np.ndarray, s: np.ndarray, n: np.ndarray, t: np.ndarray) -> float:
    """E (x.y/d + 1)^3 for independent Gaussians: moments of x.y given x, then over x."""
    d = len(m)
    c, v = 1 + m @ n / d, n @ s @ n / d**2
    quadratic = c * (np.trace(t @ s) + m @ t @ m) + 2 * n @ s @ t @ m / d
    return c**3 + 3 * c * v + 3 * quadratic / d**2


def true_distance(m: np.ndarray, s: np.ndarray, n: np.ndarray, t: np.ndarray) -> float:
    within = expected_kernel(m, s, m, s) + expected_kernel(n, t, n, t)
    return within - 2 * expected_kernel(m, s, n, t)


def test_the_known_truth_is_true() -> None:
    """The closed form that the simulations rely on, against many pairs."""
    rng = np.random.default_rng(3)
    m, n, a, b = rng.standard_normal(3), rng.standard_normal(3), *rng.standard_normal((2, 3, 3))
    x = m + rng.standard_normal((300_000, 3)) @ a
    y = n + rng.standard_normal((300_000, 3)) @ b
    draws = (np.einsum("nd,nd->n", x, y) / 3 + 1) ** 3
    error = draws.std() / math.sqrt(len(draws))
    assert abs(draws.mean() - expected_kernel(m, a.T @ a, n, b.T @ b)) < 4 * error


def audit(n: int, seed: int, shift: float, d: int = 16) -> KernelDistance:
    """Three outputs a face that resemble the original and each other; originals are N(1, S)."""
    rng = np.random.default_rng(seed)
    scale = np.sqrt(np.linspace(1, 0.1, d))
    face, arm, draw = (rng.standard_normal((n, k, d)) * scale for k in (1, 1, 3))
    outputs = 1 + shift + 0.5 * face + math.sqrt(0.375) * (arm + draw)
    faces = np.arange(n)
    return kernel_distance(outputs.reshape(-1, d), 1 + face[:, 0], faces.repeat(3), faces.tolist())


@pytest.mark.parametrize(
    ("n", "shift", "least", "most"),
    [(10, 0.0, 0.97, 1), (10, 1.0, 0.92, 0.98), (30, 0.2, 0.92, 0.98), (30, 1.0, 0.92, 0.98)],
)
def test_intervals_cover_and_the_value_is_unbiased(
    n: int, shift: float, least: float, most: float
) -> None:
    d, s = 16, np.diag(np.linspace(1, 0.1, 16))
    truth = true_distance(np.full(d, 1 + shift), s, np.ones(d), s)
    found = [audit(n, seed, shift) for seed in range(400)]
    hits = [f.estimate.low <= truth <= f.estimate.high for f in found]
    values = np.array([f.estimate.value for f in found])
    assert least <= np.mean(hits) <= most
    assert abs(values.mean() - truth) < 4 * values.std() / 20


@pytest.mark.parametrize(("n", "shift"), [(15, 0.0), (15, 1.0), (40, 1.0)])
def test_bounds_for_tests_are_missed_no_more_often_than_their_level(n: int, shift: float) -> None:
    d, s = 16, np.diag(np.linspace(1, 0.1, 16))
    truth = true_distance(np.full(d, 1 + shift), s, np.ones(d), s)
    bounds = [audit(n, seed, shift).at(0.9) for seed in range(400)]
    most = binom.ppf(0.999, 400, 0.05)
    assert sum(bound.high < truth for bound in bounds) <= most
    assert sum(bound.low > truth for bound in bounds) <= most


def test_counting_pairs_of_one_face_would_bias_it() -> None:
    """An output that copies its original is no evidence that strangers look alike."""
    x = sample(30, 4, 12)
    outputs, faces = x.repeat(3, axis=0), np.arange(30)
    right = kernel_distance(outputs, x, faces.repeat(3), faces)
    assert right.estimate.value == pytest.approx(0, abs=1e-9)
    assert kernel_distance(outputs, x).estimate.value != pytest.approx(0, abs=0.1)


def test_few_faces_have_no_kernel_distance() -> None:
    answer = kernel_distance(sample(40, 4, 13), sample(9, 4, 14), np.arange(40) // 4, np.arange(9))
    assert isinstance(answer, Unavailable)
    assert "not 9" in answer.reason


def test_gaps_of_two_groups_cover_their_truth() -> None:
    d, s = 16, np.diag(np.linspace(1, 0.1, 16))
    truth = [true_distance(np.full(d, 1 + t), s, np.ones(d), s) for t in (1.0, 0.5)]
    gaps = [
        kernel_distance_gap(audit(12, 2 * k, 1.0), audit(20, 2 * k + 1, 0.5)) for k in range(300)
    ]
    hits = [g.low <= truth[0] - truth[1] <= g.high for g in gaps]
    assert 0.92 <= np.mean(hits) <= 0.98
    assert gaps[0].n_faces == 32


def test_the_widest_gap_names_its_groups_at_a_corrected_level() -> None:
    def group(value: float) -> KernelDistance:
        return KernelDistance(Estimate(value, value - 1, value + 1, 10, 30, "t"), 0.5, 9)

    found = {"a": group(1.0), "b": group(3.0), "c": Unavailable("few"), "d": group(2.0)}
    larger, smaller, gap = widest_gap(found)
    assert (larger, smaller, gap.value) == ("b", "a", 2.0)
    assert gap.confidence == pytest.approx(1 - 0.05 / 3)
    assert isinstance(widest_gap({"a": group(1.0)}), Unavailable)


@pytest.mark.parametrize("bad", [np.ones((20, 3)), np.full((20, 4), np.nan)])
def test_features_that_do_not_fit_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="features"):
        kernel_distance(np.ones((20, 4)), bad)


def test_faces_of_one_set_only_are_refused() -> None:
    with pytest.raises(ValueError, match="both sets"):
        kernel_distance(np.ones((20, 4)), np.ones((20, 4)), np.arange(20))
