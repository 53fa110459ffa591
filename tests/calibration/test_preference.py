"""What the study of preference calls the truth, and what an audit would call preference."""

import numpy as np
import pytest

from pulse_audit.calibration import preference


@pytest.mark.parametrize("found", [*preference.NONE, *preference.SOME])
def test_estimates_tend_to_the_shares_of_the_scenario(found: preference.Found) -> None:
    both, guided, placebo = found
    estimates = preference.simulated(np.random.default_rng(0), found, 4000, 2)
    truth = {
        "source_retained": preference.RETAINED,
        "source_found": both + guided,
        "source_chance": both + placebo,
        "source_preference": guided - placebo,
        "source_incapacity": 1 - preference.RETAINED - both - guided,
    }
    # three standard errors of a share of 4,000 faces, each about 1.3 draws, are at most .025
    for metric, value in truth.items():
        assert estimates[metric].value == pytest.approx(value, abs=0.025), metric


def test_what_the_placebo_explains_is_not_called_preference() -> None:
    """Nor would it be without: chance alone is then called preference in every audit."""
    random, (worst, replicates) = np.random.default_rng(1), (preference.NONE[2], 200)
    below = preference.called_preference(
        random, replicates, metric="source_preference", found=worst, faces=30, draws=2
    )
    alone = preference.called_preference(
        random, replicates, metric="source_found", found=worst, faces=30, draws=2
    )
    # 5 % of 200 is 10; 17 occur once in a hundred such studies
    assert below.value <= 17 / 200
    assert alone.value > 0.95
