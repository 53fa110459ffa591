"""Identity cosine, and verification at a stated false-accept rate."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import norm

from pulse_audit.metrics import identity
from pulse_audit.types import Unavailable


def unit(n: int, d: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cosines_are_scipy_s() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 7, 16))
    wanted = [1 - cosine(a, b) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(identity.cosines(x, y), wanted, rtol=1e-12)


def test_an_image_and_itself_have_cosine_one() -> None:
    rows = unit(5, 512, 1).astype(np.float32)
    np.testing.assert_allclose(identity.cosines(rows, 3 * rows), 1, atol=1e-7)


@pytest.mark.parametrize("hole", [np.nan, 0.0])
def test_no_vector_no_cosine(hole: float) -> None:
    x = unit(2, 4, 2)
    x[0] = hole
    assert np.isnan(identity.cosines(x, unit(2, 4, 3))).tolist() == [True, False]


def test_sets_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        identity.cosines(np.ones((2, 3)), np.ones((3, 3)))


def test_the_threshold_lets_the_stated_share_of_impostors_through() -> None:
    faces = unit(150, 32, 4)
    threshold = identity.impostor_threshold(faces)
    pairs = [1 - cosine(faces[i], faces[j]) for i in range(150) for j in range(i)]
    assert (threshold.rate, threshold.n_pairs, threshold.n_faces) == (1e-3, 11_175, 150)
    assert np.sum(np.array(pairs) > threshold.cosine) == 11
    assert "11,175 pairs" in threshold.describe()


def test_the_threshold_is_the_population_s() -> None:
    """Cosines of random directions are normal with variance 1/d, nearly, where d is large."""
    threshold = identity.impostor_threshold(unit(400, 512, 5), rates=(1e-2,))
    assert threshold.cosine == pytest.approx(norm.ppf(0.99) / np.sqrt(512), rel=0.03)


def test_fewer_pairs_give_a_looser_rate_or_none() -> None:
    assert identity.impostor_threshold(unit(50, 8, 6)).rate == 1e-2
    none = identity.impostor_threshold(unit(40, 8, 6))
    assert isinstance(none, Unavailable)
    assert "1,000 pairs" in none.reason
    assert "780 (40 faces)" in none.reason


def test_faces_that_were_not_found_do_not_count() -> None:
    faces = unit(60, 16, 8)
    holes = np.concatenate([faces, np.full((3, 16), np.nan)])
    assert identity.impostor_threshold(holes) == identity.impostor_threshold(faces)


def test_no_face_in_the_output_is_not_verified_and_none_in_the_original_is_unknown() -> None:
    values = [0.9, 0.1, np.nan, np.nan]
    known = identity.verified(values, 0.5, found=[True, True, True, False])
    np.testing.assert_array_equal(known, [1, 0, 0, np.nan])
    np.testing.assert_array_equal(identity.verified(values, 0.5), [1, 0, np.nan, np.nan])


def test_false_accepts_of_random_directions_have_their_known_rate() -> None:
    """Two random directions in three dimensions: the cosine is uniform on [-1, 1] (Archimedes)."""
    hits, widths = 0, []
    for seed in range(100):
        estimate = identity.false_accepts(unit(40, 3, seed), 0.8)
        hits += estimate.low <= 0.1 <= estimate.high
        widths.append(estimate.high - estimate.low)
    assert 0.93 <= hits / 100 <= 1
    assert np.mean(widths) < 0.07


def test_a_group_of_look_alikes_shows_in_its_rate() -> None:
    alike = np.array([1.0] * 16) + unit(30, 16, 9)
    groups = ["a"] * 30 + ["b"] * 30 + ["c"]
    rates = identity.group_false_accepts(np.concatenate([alike, unit(31, 16, 10)]), groups, 0.5)
    assert list(rates) == ["a", "b", "c"]
    assert rates["a"].value > 0.9 > 0.1 > rates["b"].value
    assert rates["a"].n_draws == 30 * 29 // 2
    assert isinstance(rates["c"], Unavailable)
