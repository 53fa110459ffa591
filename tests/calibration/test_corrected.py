"""Simulated audits: the planted matrix comes back, drift does not show."""

from dataclasses import replace

import numpy as np
import pytest

from pulse_audit.calibration import corrected
from pulse_audit.calibration.corrected import Situation

LARGE = Situation(2000, 2, 0.5, 0.7, "planted")


def test_the_planted_matrix_is_the_one_of_the_paper_claim() -> None:
    matrix = corrected.planted_matrix()
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (matrix[1, 1], matrix[1, 0]) == (0.38, 0.52)
    np.testing.assert_allclose(np.delete(matrix.diagonal(), 1), 0.88)


@pytest.mark.parametrize("errors_of", ["run", "pooled", "labels"])
def test_the_planted_matrix_is_recovered(errors_of: str) -> None:
    # also where the labels err as the outputs do
    situation = replace(LARGE, errors_of=errors_of)
    found, draws = corrected.audited(np.random.default_rng(1), situation)
    atol = 0.15 if errors_of == "labels" else 0.06
    np.testing.assert_allclose(found.values, corrected.planted_matrix(), atol=atol)
    assert len(draws.faces) == 7 * 2000 * 2
    source = {"run": "run", "pooled": "run and card", "labels": "card"}[errors_of]
    assert found.confusion.source == source


def test_outputs_that_are_their_originals_have_their_predictions() -> None:
    situation = replace(LARGE, shift="original", errors_of="run")
    found, _ = corrected.audited(np.random.default_rng(1), situation)
    np.testing.assert_allclose(found.values, np.eye(7), atol=1e-9)


def test_drift_biases_what_correction_returns() -> None:
    # closed form at retention 1: q = .8, M = .9 and .1/6 off: (q - .1/6) / (.9 - .1/6) - 1
    expected = (0.8 - 0.1 / 6) / (0.9 - 0.1 / 6) - 1
    situation = Situation(100, 2, 0.5, 0.9, 1.0, "run")
    found = corrected.drift(np.random.default_rng(2), 40, situation=situation)
    assert found.value == pytest.approx(expected, abs=4 * found.error)
    assert expected == pytest.approx(-0.113, abs=0.001)


def test_a_card_of_another_accuracy_is_told_apart_more_often_with_more_faces() -> None:
    def told(faces: int, better: float) -> float:
        random = np.random.default_rng(3)
        return corrected.told(random, 60, faces=faces, better=better).value

    assert told(30, 0.0) <= 0.15
    assert told(200, 0.05) > told(10, 0.05)


# 30 audits: the worst of 7 groups is above 80 % with a coverage of 95 % in each
@pytest.mark.parametrize("of", ["retention", "cells", "net gains", "net flows", "composition"])
def test_corrected_numbers_cover_the_truth(of: str) -> None:
    situation = Situation(30, 2, 0.5, "shipped net", "planted")
    found = corrected.coverage(np.random.default_rng(4), 30, situation=situation, of=of)
    assert found.value >= 0.8 and 0 < found.width < 1


@pytest.mark.parametrize("errors_of", ["pooled", "labels"])
@pytest.mark.parametrize("shift", [1.0, "original"])
def test_no_gap_is_shown_where_groups_are_kept_alike(errors_of: str, shift: str | float) -> None:
    found = corrected.decided(
        np.random.default_rng(5),
        30,
        situation=Situation(60, 2, 0.5, 0.8, shift, errors_of),
        limit=0.0,
        decision="fail",
    )
    assert found.value <= 0.1


def test_where_no_audit_is_usable_there_is_no_coverage() -> None:
    situation = Situation(5, 2, 0.5, "shipped net", 0.9)
    found = corrected.coverage(np.random.default_rng(6), 5, situation=situation, of="retention")
    assert np.isnan(found.value)
