import numpy as np
import pytest
from numpy.testing import assert_allclose

from pulse_audit.fairness.confusion import Confusion, saerens
from pulse_audit.fairness.correction import corrected_shares, corrected_shifts
from pulse_audit.fairness.shift import Draws
from pulse_audit.stats.gaps import max_gap_of_replicates
from pulse_audit.stats.intervals import wilson

K = 7


def corrected_shift(faces, truth, predicted, k, confusion, **options):
    """Correction of a single arm, given as one number a draw."""
    return corrected_shifts([Draws(faces, truth, predicted, k)], confusion, **options)[0]


def even(k, hit):
    """Matrix with the same share on the diagonal and the rest spread evenly."""
    return np.full((k, k), (1 - hit) / (k - 1)) + np.eye(k) * (hit - (1 - hit) / (k - 1))


def drawn(rng, matrix, rows):
    """One column a row number, with that row's probabilities."""
    cumulated = matrix.cumsum(axis=1)
    return np.minimum(
        (rng.random(rows.shape)[..., None] > cumulated[rows]).sum(-1), len(matrix) - 1
    )


def retention_of(result):
    return [row[group] for group, row in enumerate(result.estimates)]


def audit(rng, shift, model, faces, draws):
    """A planted audit: faces, labels, predictions on the draws, confusion of the originals."""
    truth = np.repeat(np.arange(len(shift)), faces)
    numbers = np.arange(len(truth))
    outputs = drawn(rng, shift, np.repeat(truth, draws))
    confusion = Confusion.of_faces(numbers, truth, drawn(rng, model, truth), len(shift))
    return np.repeat(numbers, draws), np.repeat(truth, draws), drawn(rng, model, outputs), confusion


def test_a_planted_matrix_is_recovered():
    # Black retained .38 and turned White .52; the model is right 80 % of the time
    shift = even(K, 0.88)
    shift[1] = [0.52, 0.38, 0.02, 0.02, 0.02, 0.02, 0.02]
    faces, truth, predicted, confusion = audit(
        np.random.default_rng(0), shift, even(K, 0.8), 600, 2
    )
    result = corrected_shift(faces, truth, predicted, K, confusion, seed=1)
    assert result.grade == "usable" and result.reason == ""
    raw = (predicted == truth)[truth == 1].mean()
    assert raw < 0.35  # what the model's errors make of .38
    held = [
        e.low <= shift[i, j] <= e.high
        for i, row in enumerate(result.estimates)
        for j, e in enumerate(row)
    ]
    assert sum(held) >= 43  # 49 intervals of 95 %: 43 or more in 98 % of audits
    assert_allclose(result.values, shift, atol=0.08)
    assert_allclose(result.em, shift, atol=0.08)
    assert_allclose(result.values.sum(axis=1), 1)
    e = result.estimates[1][1]
    assert (e.n_faces, e.n_draws, e.confidence) == (600, 1200, 0.95)


# 60 audits a cell, 7 groups each: the standard error at 95 % is 1.1 to 1.4 points (groups share
# the confusion), so 3.5 points is about 3 of them; widths are those of an independent simulation
@pytest.mark.parametrize(
    ("accuracy", "retention", "width"),
    [(0.6, 0.5, 0.41), (0.6, 1.0, 0.23), (0.9, 0.5, 0.23), (0.9, 1.0, 0.09)],
)
def test_coverage_of_corrected_retention_at_100_faces(accuracy, retention, width):
    rng = np.random.default_rng([int(10 * accuracy), int(10 * retention)])
    held, widths = [], []
    for replicate in range(60):
        planted = audit(rng, even(K, retention), even(K, accuracy), 100, 1)
        result = corrected_shift(*planted[:3], K, planted[3], replicates=200, seed=replicate)
        held += [e.low <= retention <= e.high for e in retention_of(result)]
        widths += [e.high - e.low for e in retention_of(result)]
    assert 0.915 <= np.mean(held) <= 0.99
    assert np.mean(widths) == pytest.approx(width, abs=0.02)


def test_coverage_with_draws_nested_in_faces_and_a_card_s_counts():
    # face rates beta(.5, .5): within-face correlation .5; the confusion is of other faces
    rng, model = np.random.default_rng(5), even(2, 0.9)
    truth, held = np.repeat([0, 1], 60), []
    for replicate in range(200):
        rates = rng.beta(0.5, 0.5, 120)
        stays = rng.random((120, 5)) < rates[:, None]
        outputs = np.where(stays, truth[:, None], 1 - truth[:, None])
        counts = [rng.multinomial(300, row) for row in model]
        result = corrected_shift(
            np.repeat(np.arange(120), 5),
            np.repeat(truth, 5),
            drawn(rng, model, outputs).ravel(),
            2,
            Confusion.from_counts(counts),
            replicates=200,
            seed=replicate,
        )
        held += [e.low <= 0.5 <= e.high for e in retention_of(result)]
    assert 0.92 <= np.mean(held) <= 0.98  # 400 intervals: standard error 1.1 points


def test_two_groups_have_a_closed_form():
    # accuracy .9 for both; 62 of 100 draws predicted as labelled: (.62 - .1) / (.9 - .1) = .65
    predicted = np.r_[np.zeros(62), np.ones(38)].astype(int)
    result = corrected_shift(
        np.arange(100),
        np.zeros(100),
        predicted,
        2,
        Confusion.from_counts([[9000, 1000], [1000, 9000]]),
        replicates=20_000,
        seed=0,
    )
    estimate = result.estimates[0][0]
    assert estimate.value == pytest.approx(0.65)
    error = np.sqrt(0.62 * 0.38 / 99 + (0.65**2 + 0.35**2) * 0.09 / 10_000) / 0.8
    assert estimate.high - estimate.value == pytest.approx(1.984217 * error, rel=0.02)
    assert result.estimates[1] == [None, None]


def test_a_perfect_model_changes_nothing():
    predicted = np.r_[np.zeros(13), np.ones(7), np.full(5, -1)].astype(int)
    confusion = Confusion.from_counts([[500, 0], [0, 500]])
    result = corrected_shift(np.arange(25), np.zeros(25), predicted, 2, confusion, seed=0)
    assert_allclose(result.values[0], [13 / 25, 7 / 25])
    assert_allclose(result.em[0], [13 / 25, 7 / 25])


def test_draws_without_prediction_are_known_exactly():
    rng = np.random.default_rng(7)
    faces, truth, predicted, confusion = audit(rng, even(3, 0.7), even(3, 0.8), 50, 2)
    gone = np.where(rng.random(300) < 0.2, -1, predicted)
    result = corrected_shift(faces, truth, gone, 3, confusion, seed=0)
    missing = [(gone[truth == g] == -1).mean() for g in range(3)]
    assert_allclose(result.values.sum(axis=1), 1 - np.array(missing))
    assert_allclose(result.em.sum(axis=1), 1 - np.array(missing))
    assert_allclose(result.replicates.sum(axis=2).std(axis=0) > 0, True)


def test_where_all_draws_agree_the_interval_reaches_as_far_as_wilson_s():
    confusion = Confusion.from_counts([[300, 0], [0, 300]])
    result = corrected_shift(range(20), [0] * 20, [0] * 20, 2, confusion, seed=0)
    assert (result.estimates[0][0].low, result.estimates[0][0].high) == (wilson(20, 20)[0], 1.0)
    assert (result.estimates[0][1].low, result.estimates[0][1].high) == (0.0, wilson(0, 20)[1])


def test_originals_as_outputs_are_retained_beyond_doubt():
    # each output is its original: model errors cancel, face by face, only if resampled jointly
    rng = np.random.default_rng(8)
    truth = np.repeat(np.arange(3), 40)
    answers = drawn(rng, even(3, 0.8), truth)
    confusion = Confusion.of_faces(np.arange(120), truth, answers, 3)
    joint = corrected_shift(np.arange(120), truth, answers, 3, confusion, seed=0)
    assert_allclose(joint.values, np.eye(3), atol=1e-12)
    # beside the two faces added to each group nothing varies
    assert all(e.low > 0.85 and e.high == 1 for e in retention_of(joint))


def literal_em(shares, confusion):
    """Saerens et al. (2002), section 2.2, one loop a symbol."""
    k = len(shares)
    prior = [1 / k] * k
    for _ in range(20_000):
        new = [0.0] * k
        for seen in range(k):
            evidence = sum(prior[j] * confusion[j][seen] for j in range(k))
            for j in range(k):
                new[j] += shares[seen] * prior[j] * confusion[j][seen] / evidence
        prior = new
    return prior


@pytest.mark.parametrize("shares", [[0.5, 0.3, 0.2], [0.7, 0.05, 0.25]])
def test_em_agrees_with_a_literal_implementation(shares):
    confusion = [[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.05, 0.1, 0.85]]
    assert_allclose(saerens(shares, confusion), literal_em(shares, confusion), atol=1e-6)


def test_em_equals_the_inverse_inside_the_simplex():
    confusion = np.array([[0.8, 0.15, 0.05], [0.1, 0.7, 0.2], [0.05, 0.1, 0.85]])
    composition = np.array([0.5, 0.3, 0.2])
    assert_allclose(saerens(composition @ confusion, confusion), composition, atol=1e-6)


def test_em_spreads_a_class_the_model_never_predicted_over_the_others():
    confusion = np.array([[0.8, 0.2, 0.0], [0.3, 0.7, 0.0], [0.5, 0.5, 0.0]])
    shares = saerens([0.5, 0.25, 0.05], confusion)
    assert shares.sum() == pytest.approx(0.8)
    assert_allclose(shares @ confusion, [0.8 * 2 / 3, 0.8 / 3, 0], atol=1e-6)


def test_shares_of_a_set_are_the_weighted_rows_of_its_shift():
    planted = audit(np.random.default_rng(9), even(3, 0.6), even(3, 0.8), 80, 2)
    faces, truth, predicted, confusion = planted
    shift = corrected_shift(faces, truth, predicted, 3, confusion, seed=4)
    shares = corrected_shares(faces, predicted, 3, confusion.counts, seed=4)
    assert_allclose([share.value for share in shares], shift.values.mean(axis=0))
    assert_allclose(sum(share.value for share in shares), 1)
    assert shares[0].n_faces == 240


def test_shares_of_uninformative_inputs_have_no_labels():
    # 100 draws of one grey input: one face, so an estimate without interval
    shares = corrected_shares([0] * 100, [0] * 70 + [1] * 30, 2, [[19, 1], [0, 20]], seed=0)
    assert shares[0].value == pytest.approx(0.7 / 0.95)
    assert np.isnan(shares[0].low) and "one face" in shares[0].method


def test_a_combination_of_cells_is_the_difference_it_says():
    planted = audit(np.random.default_rng(10), even(3, 0.7), even(3, 0.85), 60, 2)
    result = corrected_shift(*planted[:3], 3, planted[3], seed=2)
    difference = result.combination(np.diag([1, -1, 0]))
    assert difference.value == pytest.approx(result.values[0, 0] - result.values[1, 1])
    draws = result.replicates[:, 0, 0] - result.replicates[:, 1, 1]
    # two groups of 60 faces: between 59 and 118 degrees of freedom
    half = (difference.high - difference.value) / draws.std(ddof=1)
    assert 1.980272 < half < 2.000996
    assert (difference.n_faces, difference.n_draws) == (120, 240)


def test_the_gap_of_corrected_retention_is_decided_from_joint_replicates():
    # Black retained .38, others .88: a gap of .5 that noise of the model must not hide
    shift = even(K, 0.88)
    shift[1] = [0.52, 0.38, 0.02, 0.02, 0.02, 0.02, 0.02]
    planted = audit(np.random.default_rng(12), shift, even(K, 0.8), 200, 2)
    result = corrected_shift(*planted[:3], K, planted[3], seed=3)
    gap = max_gap_of_replicates(
        np.diag(result.values),
        np.diagonal(result.replicates, axis1=1, axis2=2),
        result.faces,
        result.draws,
    )
    assert gap.decide(0.2) == "fail" and gap.groups[1] == 1
    assert gap.fail_bound < 0.5 < gap.pass_bound


def test_the_order_of_draws_does_not_matter():
    faces, truth, predicted, confusion = audit(
        np.random.default_rng(11), even(3, 0.7), even(3, 0.85), 30, 2
    )
    order = np.random.default_rng(0).permutation(len(faces))
    first = corrected_shift(faces, truth, predicted, 3, confusion, seed=2)
    second = corrected_shift(faces[order], truth[order], predicted[order], 3, confusion, seed=2)
    assert first.estimates == second.estimates


@pytest.mark.parametrize(
    ("counts", "why"),
    [
        ([[30, 10], [0, 0]], "no face of group number 1"),
        ([[20, 20], [20, 20]], "cannot be inverted"),
        ([[3, 2], [2, 3]], "too many errors of the attribute model"),
    ],
)
def test_what_cannot_be_inverted_is_unavailable(counts, why):
    confusion = Confusion.from_counts(counts)
    result = corrected_shift(range(20), [0, 1] * 10, [0, 1, 1, 0] * 5, 2, confusion, seed=0)
    assert result.grade == "unavailable" and why in result.reason
    assert result.estimates == [[None, None]] * 2
    assert np.isnan(result.em).all() and result.combination(np.eye(2)) is None


def test_a_small_sample_or_an_imprecise_matrix_is_weak_or_nothing():
    # of 20, 10 and 5 faces a group all are retained; errors of the model are known well, or badly
    def corrected(faces, counts):
        numbers, groups = range(2 * faces), [0, 1] * faces
        return corrected_shift(numbers, groups, groups, 2, Confusion.from_counts(counts), seed=0)

    known, unknown = [[900, 100], [100, 900]], [[60, 20], [20, 60]]
    assert corrected(20, known).grade == "usable"
    few = corrected(10, known)
    assert few.grade == "weak" and "only 10 faces" in few.reason
    imprecise = corrected(40, unknown)
    assert imprecise.grade == "weak" and "to within" in imprecise.reason
    assert 0.3 < imprecise.half_width < 0.5 and imprecise.estimates[0][0].value == 1.0
    nothing = corrected(4, unknown)
    assert nothing.grade == "unavailable" and nothing.estimates == [[None, None]] * 2


def test_outputs_without_a_face_are_not_known_to_be_lost_without_error():
    # 2 of 40 outputs show a face: retention is near 0, with an interval, and decides nothing
    predicted = np.full(40, -1)
    predicted[:2] = 0
    confusion = Confusion.from_counts([[900, 100], [100, 900]])
    result = corrected_shift(range(40), np.repeat([0, 1], 20), predicted, 2, confusion, seed=0)
    assert result.grade == "weak" and "classified" in result.reason
    kept = result.estimates[1][1]
    assert kept.value == 0 and kept.low == 0 and 0.1 < kept.high < 0.25
    whole = result.combination(np.eye(2), 0.0, 1.0, joint=True)
    assert whole.high - whole.low > 0.05


def test_a_single_face_has_an_estimate_without_interval():
    confusion = Confusion.from_counts([[90, 10], [10, 90]])
    faces, truth = [0, 0, *range(1, 21)], [0, 0] + [1] * 20
    result = corrected_shift(faces, truth, [0] + [1] * 21, 2, confusion, seed=0)
    estimate = result.estimates[0][0]
    assert estimate.value == pytest.approx(0.5)
    assert np.isnan([estimate.low, estimate.high]).all() and "one face" in estimate.method
    assert np.isfinite(result.estimates[1][1].low)


@pytest.mark.parametrize(
    ("truth", "options", "message"),
    [
        ([0, 0], {"replicates": 10}, "give no interval"),
        ([0, 0], {"confidence": 1.0}, "give no interval"),
        ([0, 1], {}, "different labels"),
        ([0, 3], {}, "groups must be 0 to 1"),
    ],
)
def test_unusable_input_is_refused(truth, options, message):
    confusion = Confusion.from_counts([[9, 1], [1, 9]])
    with pytest.raises(ValueError, match=message):
        corrected_shift([0, 0], truth, [0, 1], 2, confusion, seed=0, **options)


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(ValueError, match="has 2 groups, not 3"):
        corrected_shift([0], [0], [0], 3, Confusion.from_counts(np.eye(2)), seed=0)


def test_arms_corrected_together_share_faces_and_confusion_in_every_replicate():
    # the first and the last arm return the same outputs for the same faces
    rng = np.random.default_rng(13)
    faces, truth, predicted, confusion = audit(rng, even(3, 0.6), even(3, 0.8), 40, 2)
    other = drawn(rng, even(3, 0.5), truth)
    arms = [Draws(faces, truth, p, 3) for p in (predicted, other, predicted)]
    first, second, same = corrected_shifts(arms, confusion, seed=0)

    # of equal arms only the added faces differ; of others the confusion is common
    def spread(one, other):
        apart = np.hypot(one.replicates.std(axis=0), other.replicates.std(axis=0))
        return ((one.replicates - other.replicates).std(axis=0) / apart).diagonal()

    assert (spread(first, same) < 0.4).all()
    assert (spread(first, second) > spread(first, same)).all()
    assert (spread(first, second) < 0.95).all()
    assert_allclose(second.values, corrected_shifts(arms[1:2], confusion, seed=0)[0].values)


def test_arms_may_have_other_faces_of_the_same_groups():
    confusion = Confusion.of_faces(range(40), [0] * 20 + [1] * 20, [0] * 19 + [1] * 21, 2)
    whole = Draws(np.arange(40), np.repeat([0, 1], 20), np.repeat([0, 1], 20), 2)
    part = Draws(np.arange(20), np.repeat(0, 20), np.repeat(0, 20), 2)
    found = corrected_shifts([whole, part], confusion, seed=0)
    assert found[1].estimates[0][0].n_faces == 20 and found[1].estimates[1] == [None, None]
    assert np.isnan(found[1].replicates[:, 1]).all() and np.isfinite(found[0].replicates).all()


def test_labels_of_a_model_with_uneven_errors_leave_the_composition_open():
    # faces were chosen for equal numbers of labels: who they are depends on who there was
    def corrected(counts):
        card, labels = Confusion.from_counts(counts), np.repeat([0, 1], 100)
        outputs = np.where(np.arange(200) % 10 < 8, labels, 1 - labels)
        arm = Draws(np.arange(200), labels, outputs, 2)
        return corrected_shifts([arm], card, labels_from="model", seed=0)[0]

    assert corrected([[900, 100], [100, 900]]).grade == "usable"
    uneven = corrected([[980, 20], [350, 650]])
    assert uneven.grade == "weak" and "composition" in uneven.reason


def test_labels_of_a_model_cannot_measure_its_errors():
    run = Confusion.of_faces([0, 1], [0, 1], [0, 1], 2)
    with pytest.raises(ValueError, match="give a card's counts"):
        corrected_shifts([Draws([0], [0], [0], 2)], run, labels_from="model", seed=0)
