import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests

from pulse_audit.stats.multiplicity import benjamini_hochberg, holm


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_holm_agrees_with_statsmodels(m):
    p = np.random.default_rng(m).beta(0.3, 1, m)
    assert_allclose(holm(p), multipletests(p, method="holm")[1])


@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_benjamini_hochberg_agrees_with_scipy_and_statsmodels(m):
    p = np.random.default_rng(m).beta(0.3, 1, m)
    assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])
    assert_allclose(benjamini_hochberg(p), false_discovery_control(p))


def test_ties_and_ends_are_kept():
    p = [0.02, 0.02, 1.0, 0.0]
    assert_allclose(holm(p), [0.06, 0.06, 1, 0])
    assert_allclose(benjamini_hochberg(p), [0.08 / 3, 0.08 / 3, 1, 0])


def test_a_family_of_none_is_empty():
    assert len(holm([])) == len(benjamini_hochberg([])) == 0


def test_holm_holds_the_family_s_level():
    # 10 true nulls: some rejection in at most 5 % of 4,000 families; standard error .3 points
    p = np.random.default_rng(0).random((4000, 10))
    assert np.mean([(holm(family) <= 0.05).any() for family in p]) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("p", [[0.5, np.nan], [-0.1], [1.1], [[0.5]]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm(p)
