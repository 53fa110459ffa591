import math

import pytest
from scipy.stats import studentized_range, t

from pulse_audit.stats.studentised import distribution, quantile


@pytest.mark.parametrize("df", [1.0, 2.0, 5.0, 9.0, 19.0, 120.0, 5000.0, math.inf])
@pytest.mark.parametrize("k", [3, 7, 30])
@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
def test_quantiles_are_those_of_scipy(k, df, alpha):
    q = quantile(1 - alpha, k, df)
    # scipy's own quantile is good to about eight digits, so its distribution is asked, too.
    assert studentized_range.cdf(q, k, df) == pytest.approx(1 - alpha, abs=2e-8)
    assert distribution(q, k, df) == pytest.approx(1 - alpha, abs=1e-11)
    assert q == pytest.approx(studentized_range.ppf(1 - alpha, k, df), rel=2e-5)


def test_the_range_of_two_is_student_s_difference():
    for df in (1.0, 8.0, 100.0):
        expected = t.ppf(0.975, df) * math.sqrt(2)
        assert quantile(0.95, 2, df) == pytest.approx(expected, rel=1e-9)


def test_published_tables():
    """Harter 1960: upper 5 % points."""
    for k, df, printed in ((3, 10, 3.877), (5, 20, 4.232), (10, 60, 4.646), (7, math.inf, 4.170)):
        assert quantile(0.95, k, float(df)) == pytest.approx(printed, abs=6e-4)
