"""Tests of earlier suites: as wrong as they were found to be."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency

from pulse_audit.calibration import prior_work


def test_the_published_test_of_pr_hardly_ever_rejects_and_the_right_one_does() -> None:
    published, right = (
        prior_work.rejections(np.random.default_rng(0), 300, name=name, retention=0.5)
        for name in ("pr_p_published", "pr_p")
    )
    assert published.value <= 0.01 < right.value <= 0.09


def test_the_published_test_of_rdp_rejects_equal_retention_where_it_is_low() -> None:
    low, high, right = (
        prior_work.rejections(np.random.default_rng(1), 200, name=name, retention=retention)
        for name, retention in (("rdp_p_published", 0.1), ("rdp_p_published", 0.9), ("rdp_p", 0.1))
    )
    assert low.value == pytest.approx(0.83, abs=0.08) and high.value == 0
    assert right.value == pytest.approx(0.05, abs=0.04)


def test_rows_resampled_as_if_independent_cover_three_times_in_four() -> None:
    found = prior_work.nested_coverage(
        np.random.default_rng(2), 400, ends=prior_work.rows_bootstrap
    )
    assert found.value == pytest.approx(0.76, abs=0.07)


def test_binomial_quantiles_are_the_percentile_bootstrap_of_rows() -> None:
    rng = np.random.default_rng(3)
    sums = rng.binomial(5, 0.4, 60).astype(float)
    rows = (np.arange(5) < sums[:, None]).ravel()
    means = rows[rng.integers(0, 300, size=(20_000, 300))].mean(axis=1)
    expected = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(prior_work.rows_bootstrap(sums), expected, atol=0.006)


def test_an_unpaired_table_loses_power() -> None:
    table = np.array([300.0, 60, 100, 940])
    expected = chi2_contingency([[360, 400], [1040, 1000]])[1]
    assert prior_work.unpaired(table) == pytest.approx(expected)
    # McNemar's exact test of the 160 discordant images
    assert binomtest(60, 160).pvalue < 0.01 < prior_work.unpaired(table)


def test_rows_are_resampled_as_fairlearn_does() -> None:
    # tests/data/fairlearn_bootstrap.json: MetricFrame of 2 groups x 40 faces x 5 draws, n_boot 300
    path = Path(__file__).resolve().parents[1] / "data" / "fairlearn_bootstrap.json"
    told = json.loads(path.read_text())
    low, _, high = told["ci"]
    for group, kept in enumerate(told["kept"]):
        found = prior_work.rows_bootstrap(np.array(kept, dtype=float))
        np.testing.assert_allclose(found, (low[group], high[group]), atol=0.025)
        assert np.sum(kept) / 200 == pytest.approx(told["by_group"][group])
