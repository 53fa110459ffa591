import numpy as np
import pytest
from scipy.special import expit

from pulse_audit.fairness.pooling import partial_pooling

PARTS = [(race, gender) for race in "ABCDEFG" for gender in "MF"]


def simulate(rng, interaction=0.3, draws=2):
    """True rates and draws of 14 cells of 4 to 12 faces; within-face correlation about .5."""
    race, gender = rng.normal(0.3, 0.8, 7), rng.normal(0, 0.4, 2)
    logits = (race[:, None] + gender).ravel() + rng.normal(0, interaction, 14)
    rates = expit(logits)
    cells = np.repeat(np.arange(14), rng.integers(4, 13, 14))
    of_face = rng.beta(rates[cells], 1 - rates[cells])
    outcomes = (rng.random((len(cells), draws)) < of_face[:, None]).ravel()
    faces = np.repeat(np.arange(len(cells)), draws)
    return rates, outcomes, faces, np.repeat(cells, draws)


def raw_rates(outcomes, cells):
    return np.array([outcomes[cells == cell].mean() for cell in range(14)])


def test_error_is_reduced_and_intervals_cover_on_average():
    # 40 replicates of 14 cells: standard error of coverage 0.9 points if cells were independent
    rng, ours, raw, inside = np.random.default_rng(0), [], [], []
    for _ in range(40):
        rates, outcomes, faces, cells = simulate(rng)
        pooled = partial_pooling(outcomes, faces, cells, PARTS)
        ours.append(np.square([p.estimate.value for p in pooled] - rates).mean())
        raw.append(np.square(raw_rates(outcomes, cells) - rates).mean())
        inside.append(
            [p.estimate.low <= r <= p.estimate.high for p, r in zip(pooled, rates, strict=True)]
        )
    assert np.mean(ours) < 0.65 * np.mean(raw)
    assert 0.925 <= np.mean(inside) <= 0.985


def test_cells_that_contradict_their_parts_keep_more_of_their_own():
    rng = np.random.default_rng(1)
    near, far = (
        np.mean([[p.shrunk for p in partial_pooling(o, f, c, PARTS)] for _, o, f, c in runs])
        for runs in ([simulate(rng, s) for _ in range(6)] for s in (0.0, 3.0))
    )
    assert far < near - 0.2


def test_it_is_marked_as_pooled_with_the_share_it_was_shrunk():
    _, outcomes, faces, cells = simulate(np.random.default_rng(2))
    for made in partial_pooling(outcomes, faces, cells, PARTS):
        assert made.estimate.method.startswith(f"partially pooled: {100 * made.shrunk:.0f} %")
        assert 0 < made.shrunk < 1
        assert made.estimate.low < made.estimate.value < made.estimate.high


def test_many_faces_leave_a_cell_where_it_is():
    outcomes = np.repeat([1, 0] * 4, [400, 600, 400, 600, 400, 600, 900, 100])
    cells = np.repeat(np.arange(4), 1000)
    parts = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    pooled = partial_pooling(outcomes, np.arange(4000), cells, parts)
    assert pooled[3].estimate.value == pytest.approx(0.9, abs=0.03)
    assert pooled[0].estimate.value == pytest.approx(0.4, abs=0.03)


def test_a_cell_without_a_draw_gets_what_the_others_predict():
    outcomes = np.repeat([1, 0, 1, 0, 1, 0], [8, 2, 8, 2, 2, 8])
    cells = np.repeat([0, 1, 2], 10)
    parts = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")]
    empty = partial_pooling(outcomes, np.arange(30), cells, parts)[3]
    assert empty.estimate.n_faces == 0 and empty.shrunk == pytest.approx(1)
    assert empty.estimate.high - empty.estimate.low > 0.3
