import numpy as np
import pytest
from numpy.testing import assert_allclose

from pulse_audit.fairness import sets
from pulse_audit.fairness.divergence import DIVERGENCES, tv
from pulse_audit.fairness.sets import joint_shares
from pulse_audit.fairness.shift import Draws
from pulse_audit.types import Unavailable

K = 4


def square_of(retained):
    """Lost draws are spread evenly over the other groups; 1 % are not classified."""
    matrix = np.zeros((K, K + 1))
    for group, kept in enumerate(retained):
        matrix[group, :K] = (0.99 - kept) / (K - 1)
        matrix[group, group], matrix[group, K] = kept, 0.01
    return matrix


UNFAIR = square_of([0.85, 0.38, 0.85, 0.80])
FAIR = square_of([0.6] * K)


def true_values(matrix):
    recall, uniform = np.diag(matrix), np.full(K, 1 / K)
    outputs = matrix[:, :K].sum(axis=0)
    square = matrix[:, :K] / matrix[:, :K].sum()
    return {
        sets.rdp: tv(recall / recall.sum(), uniform),
        sets.pr: tv(outputs / outputs.sum(), uniform),
        sets.spe: tv(square.ravel(), square.T.ravel()),
    }


def joint_of(truth, predicted, faces=None, k=3, **options):
    faces = np.arange(len(truth)) if faces is None else faces
    return joint_shares(Draws(faces, truth, predicted, k), seed=0, replicates=200, **options)


TRUTH = np.repeat([0, 1, 2], [4, 4, 2])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 0, -1, 2, 0])


def test_joint_shares_are_counts_of_draws():
    joint = joint_of(TRUTH, PREDICTED)
    assert_allclose(joint.shares * 10, [[3, 1, 0, 0], [1, 2, 0, 1], [1, 0, 1, 0]])
    assert_allclose(joint.noise.mean(axis=0), 0, atol=0.05)
    assert joint.pairs is None and (joint.n_faces, joint.n_draws) == (10, 10)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_plug_in_values_are_the_divergences_of_the_counts(name):
    joint, divergence = joint_of(TRUTH, PREDICTED), DIVERGENCES[name]
    recall = np.array([3 / 4, 2 / 4, 1 / 2])
    expected = divergence(recall / recall.sum(), np.full(3, 1 / 3))
    assert sets.rdp(joint, name).plug_in == pytest.approx(expected)
    outputs = np.array([5, 3, 1]) / 9
    assert sets.pr(joint, name).plug_in == pytest.approx(divergence(outputs, [0.4, 0.4, 0.2]))


def test_rdp_chi2_is_the_squared_coefficient_of_variation_of_retention():
    recall = np.array([0.75, 0.5, 0.5])
    found = sets.rdp(joint_of(TRUTH, PREDICTED), "chi2").plug_in
    assert found == pytest.approx((recall.std() / recall.mean()) ** 2)


def test_a_group_without_faces_leaves_proportions_finite_and_retention_to_the_others():
    joint = joint_of([0, 0, 1, 1], [0, 2, 1, 1])
    assert np.isfinite(sets.pr(joint, "kl").plug_in)
    assert sets.rdp(joint, "chebyshev").plug_in == pytest.approx(2 / 3 - 1 / 2)


def test_a_symmetric_exchange_fulfils_spe_and_an_unequal_one_does_not():
    even = joint_of([0, 0, 1, 1, 2], [0, 1, 0, 1, 2])
    assert sets.spe(even, "tv").plug_in == 0
    uneven = joint_of([0, 0, 1, 1, 2], [0, 0, 0, 0, 2])
    assert sets.spe(uneven, "tv").plug_in == pytest.approx(2 / 5)


def test_cpr_compares_input_and_output_with_two_outputs():
    # faces 0 and 1 (groups 0, 1) each give 0 and 1: pairs are (0, 1) and (1, 0), never equal
    joint = joint_of([0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1], k=2)
    assert_allclose(joint.pairs, [[0, 0.5], [0.5, 0]])
    # (X, X') is uniform over four cells: half of the mass differs from the pairs
    assert sets.cpr(joint, "tv").plug_in == pytest.approx(0.5)


def posterior_sampler(rng, per_group, draws):
    """Faces whose group, given the input, is drawn like the outputs are: CPR holds."""
    rows = rng.dirichlet(np.full(K, 0.5), 12 * per_group)
    drawn = (rng.random((len(rows), draws + 1))[..., None] > rows.cumsum(axis=1)[:, None]).sum(-1)
    drawn = np.minimum(drawn, K - 1)
    # an evaluation set balanced by design
    drawn = np.concatenate([drawn[drawn[:, 0] == g][:per_group] for g in range(K)])
    faces, truth = np.arange(len(drawn)), drawn[:, 0]
    return Draws(np.repeat(faces, draws), np.repeat(truth, draws), drawn[:, 1:].ravel(), K)


def test_posterior_sampling_fulfils_pr_cpr_and_spe_but_a_mode_seeker_does_not():
    rng = np.random.default_rng(0)
    held = np.zeros(3)
    for seed in range(30):
        draws = posterior_sampler(rng, 30, 3)
        joint = joint_shares(draws, seed=seed, replicates=200)
        held += [f(joint, "tv").estimate.low == 0 for f in (sets.pr, sets.cpr, sets.spe)]
    assert (held >= 26).all()
    seeker = Draws(draws.faces, draws.truth, np.repeat(draws.predicted[::3], 3), K)
    assert sets.cpr(joint_shares(seeker, seed=0), "tv").estimate.low > 0.1


def test_one_draw_a_face_says_nothing_of_cpr():
    assert isinstance(sets.cpr(joint_of(TRUTH, PREDICTED), "tv"), Unavailable)


def test_nothing_classified_is_unavailable():
    joint = joint_of([0, 1], [-1, -1])
    for measure in (sets.rdp, sets.pr, sets.spe, sets.cpr):
        assert isinstance(measure(joint, "tv"), Unavailable)
    assert isinstance(sets.ucpr([0, 0], [-1, -1], [0.5, 0.5], "tv", seed=0), Unavailable)


@pytest.mark.parametrize("matrix", [FAIR, UNFAIR], ids=["fair", "unfair"])
def test_bias_and_coverage_at_twenty_faces_a_group(planted, matrix):
    # 80 replicates of 20 faces, 2 draws, correlation .5: standard error of coverage 2.4 points
    rng, truth = np.random.default_rng(1), true_values(matrix)
    inside, bias, plug_in = (dict.fromkeys(truth, 0.0) for _ in range(3))
    for seed in range(80):
        joint = joint_shares(planted(rng, matrix, 20, 2, 0.5), seed=seed, replicates=150)
        for measure, value in truth.items():
            found = measure(joint, "tv")
            inside[measure] += found.estimate.low <= value + 1e-9 <= found.estimate.high + 2e-9
            bias[measure] += (found.estimate.value - value) / 80
            plug_in[measure] += (found.plug_in - value) / 80
    assert min(inside.values()) / 80 >= 0.88
    for measure in truth:
        assert abs(bias[measure]) <= abs(plug_in[measure]) + 0.005
    if matrix is FAIR:
        assert all(bias[m] < 0.7 * plug_in[m] for m in truth)


def test_a_perfect_arm_has_an_upper_bound():
    truth = np.repeat(np.arange(3), 20)
    made = sets.pr(joint_of(truth, truth), "tv").estimate
    assert made.value == made.low == 0 and 0.01 < made.high < 0.2


def test_faces_and_not_draws_set_the_width(planted):
    once = planted(np.random.default_rng(2), UNFAIR, 20, 1, 0.5)
    copied = Draws(*(np.repeat(a, 6) for a in (once.faces, once.truth, once.predicted)), K)
    first, second = (sets.rdp(joint_shares(d, seed=0), "tv").estimate for d in (once, copied))
    assert second.high - second.low == pytest.approx(first.high - first.low, rel=0.02)


def test_ucpr_is_the_divergence_of_the_outputs_from_the_reference():
    inputs, predicted = np.repeat([0, 1], 50), np.repeat([0, 1, 0, -1], [40, 10, 30, 20])
    made = sets.ucpr(inputs, predicted, [0.5, 0.5], "chebyshev", seed=0)
    assert made.plug_in == pytest.approx(70 / 80 - 0.5)
    assert made.estimate.low < 70 / 80 - 0.5 < made.estimate.high
    assert (made.estimate.n_faces, made.estimate.n_draws) == (2, 80)


def test_ucpr_covers_the_truth():
    rng, rows = np.random.default_rng(3), np.array([[0.6, 0.2, 0.2], [0.4, 0.5, 0.1]])
    truth, inside = tv(rows.mean(axis=0), np.full(3, 1 / 3)), 0
    for seed in range(100):
        predicted = np.concatenate([rng.choice(3, 60, p=row) for row in rows])
        made = sets.ucpr(
            np.repeat([0, 1], 60), predicted, np.full(3, 1 / 3), "tv", seed=seed, replicates=200
        )
        inside += made.estimate.low <= truth <= made.estimate.high
    assert inside / 100 >= 0.9


def test_many_faces_that_do_not_differ_are_resampled_together(monkeypatch):
    rng = np.random.default_rng(6)
    truth = np.repeat(rng.integers(0, 3, 1200), 3)
    predicted = np.where(rng.random(3600) < 0.6, truth, rng.integers(-1, 3, 3600))
    faces = np.repeat(np.arange(1200), 3)
    draws = Draws(faces, truth, predicted, 3)
    merged = joint_shares(draws, seed=0, replicates=3000)
    monkeypatch.setattr("pulse_audit.fairness.sets.MANY_FACES", 10**9)
    single = joint_shares(draws, seed=0, replicates=3000)
    assert_allclose(merged.shares, single.shares, rtol=1e-12)
    assert_allclose(merged.pairs, single.pairs, rtol=1e-12)
    # standard errors of 3,000 replicates are known to 1.3 %
    assert_allclose(merged.noise.std(axis=0), single.noise.std(axis=0), rtol=0.08)
    assert_allclose(merged.pair_noise.std(axis=0), single.pair_noise.std(axis=0), rtol=0.08)
    assert (merged.n_faces, merged.n_draws) == (1200, 3600)
