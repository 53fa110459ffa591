"""Simulated audits: the planted matrix comes back, drift does not show."""

import numpy as np
import pytest

from pulse_audit.calibration import corrected


def test_categories_follow_their_rows() -> None:
    row = np.array([0.2, 0.0, 0.5, 0.3])
    drawn = corrected.categories(np.random.default_rng(0), np.tile(row, (40_000, 1)))
    np.testing.assert_allclose(np.bincount(drawn, minlength=4) / 40_000, row, atol=0.01)
    sure = corrected.categories(np.random.default_rng(0), np.eye(4))
    np.testing.assert_array_equal(sure, np.arange(4))


def test_the_planted_matrix_is_the_one_of_the_paper_claim() -> None:
    matrix = corrected.planted_matrix()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (matrix[1, 1], matrix[1, 0]) == (0.38, 0.52)
    np.testing.assert_allclose(np.delete(matrix.diagonal(), 1), 0.88)


def test_the_planted_matrix_is_recovered() -> None:
    matrix, model = corrected.planted_matrix(), corrected.diagonal(0.7)
    found = corrected.audited(np.random.default_rng(1), 2000, matrix, model, model)
    np.testing.assert_allclose(found.values, matrix, atol=0.06)
    kept, made_white = found.estimates[1][1], found.estimates[1][0]
    assert kept.low <= 0.38 <= kept.high and made_white.low <= 0.52 <= made_white.high


def test_drift_biases_what_correction_returns() -> None:
    # closed form at retention 1: q = .8, M = .9 and .1/6 off: (q - .1/6) / (.9 - .1/6) - 1
    expected = (0.8 - 0.1 / 6) / (0.9 - 0.1 / 6) - 1
    given = {"faces": 100, "accuracy": 0.9, "retention": 1.0, "on_outputs": 0.8}
    found = corrected.bias(np.random.default_rng(2), 40, **given)
    assert found.value == pytest.approx(expected, abs=4 * found.error)
    assert expected == pytest.approx(-0.113, abs=0.001)


def test_draws_of_a_face_correlate_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, np.ndarray] = {}

    def keep(faces, truth, predicted, k, confusion, **options):
        seen["kept"] = (predicted == truth).reshape(-1, corrected.DRAWS)

    monkeypatch.setattr(corrected, "corrected_shift", keep)
    perfect = corrected.diagonal(1.0)
    corrected.audited(np.random.default_rng(3), 3000, corrected.diagonal(0.5), perfect, perfect)
    kept = seen["kept"].astype(float)
    assert np.corrcoef(kept[:, 0], kept[:, 1])[0, 1] == pytest.approx(corrected.ICC, abs=0.03)
