"""Rules on numbers of whole faces (flip rate) and of whole sets of draws (RDP, CPR, KID)."""

import numpy as np
import pytest

from pulse_audit.calibration.audits import AuditDesign, simulated_audit
from pulse_audit.gate.check import check
from pulse_audit.gate.measure import measure
from pulse_audit.gate.rules import check_rules
from pulse_audit.gate.sets import of_distances
from pulse_audit.gate.verdicts import judge, plan
from pulse_audit.stats.distances import KernelDistance, kernel_distance, kernel_distance_gap
from pulse_audit.stats.gaps import worst_group
from pulse_audit.types import Estimate, InputError

RACE = {"group_by": "race"}
FLIPS = {"metric": "flip_rate", **RACE, "statistic": "max_abs"}


def mean_of(metric, **more):
    return {"metric": metric, **RACE, "statistic": "mean", **more}


def features(distances, faces, draws=2, seed=0):
    """Features of originals, and of outputs that lie so far from them, by group."""
    rng = np.random.default_rng(seed)
    originals = rng.normal(size=(len(distances), faces, 4))
    outputs = 0.5 * originals[:, :, None] + rng.normal(size=(len(distances), faces, draws, 4))
    outputs = outputs / np.sqrt(1.25) + np.array(distances)[:, None, None, None]
    return outputs.astype(np.float32), originals.astype(np.float32)


def test_flips_are_shares_of_faces_whatever_the_number_of_draws(run_of, rules_of, outcomes):
    kept = outcomes([0.5, 0.95, 0.95], 120, 3)
    run = run_of("a", {"pulse:g": kept})
    # kept and lost draws of a face differ: 2/3 of its pairs where one of three is of another kind
    n = kept.sum(axis=2)
    flips = (2 * n * (3 - n) / 6).mean(axis=1)
    broken, kept_to, gap = check(
        run,
        rules_of(
            {**FLIPS, "at_most": 0.05}, {**FLIPS, "at_most": 0.6, "arm": "*"},
            {**FLIPS, "statistic": "max_gap", "at_most": 0.05},
        ),
    ).verdicts  # fmt: skip
    assert (broken.outcome, kept_to.outcome, gap.outcome) == ("fail", "pass", "fail")
    assert broken.value == pytest.approx(flips.max()) and broken.groups == ("White",)
    assert gap.value == pytest.approx(np.ptp(flips))
    assert "errors of the attribute model count" in broken.reason
    assert broken.faces == 120


def test_no_flip_on_few_faces_is_no_proof(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes([1.0, 1.0, 1.0], 10, 2)})
    share = {"metric": "infeasible_rate", **RACE, "statistic": "max_abs", "at_most": 0.05}
    for verdict in check(run, rules_of({**FLIPS, "at_most": 0.05}, share)).verdicts:
        assert (verdict.value, verdict.outcome) == (0.0, "inconclusive")
        # 0 of 10, at level .025 of one side
        assert verdict.pass_bound == pytest.approx(1 - 0.025 ** (1 / 10), abs=1e-6)


def test_flips_on_the_limit_are_rarely_decided():
    # a face of chance p flips with probability 2 p (1 - p), and has three pairs of draws here
    rng, wrong = np.random.default_rng(0), {"pass": 0, "fail": 0, "inconclusive": 0}
    faces, groups = np.arange(120), np.repeat(np.arange(3), 40)
    for _ in range(300):
        chances = rng.choice([0.05, 0.95, 0.5], size=(120, 1), p=[0.4, 0.4, 0.2])
        n = (rng.random((120, 3)) < chances).sum(axis=1)
        flips = 2 * n * (3 - n) / 6
        limit = 2 * (0.8 * 0.05 * 0.95 + 0.2 * 0.25)
        gap = worst_group(flips, faces, groups, proportion=True, higher_is_better=False)
        wrong[gap.decide(limit)] += 1
    # at most 5 % either way; 26 or more of 300 have a chance of 0.5 %
    assert wrong["fail"] < 26 and wrong["pass"] < 26
    with pytest.raises(ValueError, match="between 0 and 1"):
        worst_group([0.5, 1.5], [0, 1], [0, 0], proportion=True)
    with pytest.raises(ValueError, match="0 or 1"):
        worst_group([0.5, 0.5], [0, 0], [0, 0], proportion=True)


def test_entropy_of_two_draws_is_judged_as_the_flip_rate(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes([0.6, 0.9, 0.9], 80, 2)})
    rules = [{**FLIPS, "metric": metric, "at_most": 0.3} for metric in ("flip_rate", "entropy")]
    one, other = check(run, rules_of(*rules)).verdicts
    assert one.value == pytest.approx(other.value) and one.outcome == other.outcome
    assert one.pass_bound == pytest.approx(other.pass_bound)


def test_flips_against_a_baseline_are_paired(run_of, rules_of, outcomes):
    before = outcomes([0.95, 0.95, 0.95], 100, 2, icc=0.9)
    after = before.copy()
    after[1, :50, 0] = False
    base, run = run_of("a", {"pulse:g": before}), run_of("b", {"pulse:g": after})
    rule = {**FLIPS, "no_worse_than_baseline_by": 0.1}
    file = base.parent / "base.json"
    check(base, rules_of(rule), new_baseline=file)
    for other in (base, file):
        verdict = check(run, rules_of(rule), other).verdicts[0]
        assert (verdict.outcome, verdict.groups) == ("fail", ("Black",))
    assert check(base, rules_of(rule), file).outcome == "pass"


def test_a_face_with_one_draw_has_no_flip(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes([0.9, 0.9, 0.9], 8, 1)})
    verdict = check(run, rules_of({**FLIPS, "at_most": 0.9})).verdicts[0]
    assert not verdict.judged and "two classified draws" in verdict.reason


def test_rdp_and_pr_are_judged_corrected_for_the_model_s_errors(run_of, rules_of, outcomes):
    fair = run_of("a", {"pulse:g": outcomes([0.9, 0.9, 0.9], 200, 2)})
    unfair = run_of("b", {"pulse:g": outcomes([0.95, 0.3, 0.95], 200, 2)})
    rules = rules_of(mean_of("rdp_chi2", at_most=0.05), mean_of("pr_tv", at_most=0.1))
    assert [verdict.outcome for verdict in check(fair, rules).verdicts] == ["pass", "pass"]
    verdicts = check(unfair, rules).verdicts
    assert [verdict.outcome for verdict in verdicts] == ["fail", "fail"]
    assert all("corrected for the attribute model's errors" in each.method for each in verdicts)
    assert verdicts[0].faces == 600


def test_errors_of_the_attribute_model_are_not_taken_for_those_of_the_arm():
    # an identity arm, read by a model that knows some groups far better than others
    rule = mean_of("rdp_chi2", at_most=0.0)
    rules = check_rules({"rules": [rule]}, "rules")
    outcomes = []
    for seed in range(3):
        design = AuditDesign("the originals", 60, 2)
        audit = simulated_audit(design, np.random.default_rng(seed))
        trial = measure(audit.manifest, audit.samples, rules.rules, "rules")
        (verdict,) = judge(rules, trial, None, plan(rules, trial.record, None, where="rules"))
        outcomes.append(verdict.outcome)
        assert verdict.judged or "the correction is" in verdict.reason
    assert "fail" not in outcomes


def test_cpr_and_spe_can_be_broken_but_never_kept(run_of, rules_of, outcomes):
    kept = outcomes([0.95, 0.2, 0.95], 150, 2)
    run = run_of("a", {"pulse:g": kept})
    rules = rules_of(*(mean_of(metric, at_most=0.02) for metric in ("cpr_tv", "spe_tv")))
    assert [verdict.outcome for verdict in check(run, rules).verdicts] == ["fail", "fail"]
    rules = rules_of(*(mean_of(metric, at_most=0.9) for metric in ("cpr_tv", "spe_tv")))
    for verdict in check(run, rules).verdicts:
        assert verdict.outcome == "inconclusive" and "a pass cannot be shown" in verdict.reason


def test_kid_is_judged_by_its_own_interval(run_of, rules_of, outcomes):
    kept = outcomes([0.9, 0.9, 0.9], 60, 2)
    vectors = features([0.0, 0.0, 1.5], 60)
    run = run_of("a", {"pulse:g": kept}, vectors=vectors)
    kid = {"metric": "kid", **RACE}
    verdicts = check(
        run,
        rules_of(
            {**kid, "statistic": "worst_group", "at_most": 1.0},
            {**kid, "statistic": "max_gap", "at_most": 1.0},
            {**kid, "statistic": "mean", "group": "White", "at_most": 1.0},
            {**kid, "statistic": "mean", "at_least": 0.01},
        ),
    ).verdicts
    assert [each.outcome for each in verdicts] == ["fail", "fail", "pass", "pass"]
    assert verdicts[0].groups == ("Indian",) and verdicts[1].groups[0] == "Indian"
    # each of four verdicts, and each of three groups of a fail, has its part of the level
    numbers = np.arange(60)
    distance = kernel_distance(
        vectors[0][2].reshape(-1, 4), vectors[1][2], np.repeat(numbers, 2), numbers
    )
    level = 0.05 / 4
    assert verdicts[0].fail_bound == pytest.approx(distance.at(1 - 2 * level / 3).low, rel=1e-4)
    assert verdicts[0].pass_bound == pytest.approx(distance.at(1 - 2 * level).high, rel=1e-4)


def test_a_gap_of_distances_holds_for_all_pairs():
    found = [
        KernelDistance(Estimate(value, 0, 0, 50, 100, "m"), error, 49)
        for value, error in ((0.1, 0.02), (0.3, 0.01), (0.2, 0.2))
    ]
    rule = {"metric": "kid", **RACE, "statistic": "max_gap", "at_most": 0.3}
    (checked,) = check_rules({"rules": [rule]}, "rules").rules
    gap, compared = of_distances(checked, found, 0.05)
    assert (gap.value, gap.groups, compared) == (pytest.approx(0.2), (1, 0), 6)
    # a pass is of every pair, that of the uncertain group too; a fail at a sixth of the level
    loose = kernel_distance_gap(found[1], found[2], confidence=0.9)
    other = kernel_distance_gap(found[2], found[0], confidence=0.9)
    assert gap.pass_bound == pytest.approx(max(loose.high, other.high))
    tight = kernel_distance_gap(found[1], found[0], confidence=1 - 0.1 / 6)
    assert gap.fail_bound == pytest.approx(tight.low)


def test_what_has_no_interval_is_inconclusive_and_says_why(run_of, rules_of, outcomes):
    kept = outcomes([0.9, 0.9, 0.9], 6, 2)
    run = run_of("a", {"pulse:g": kept}, vectors=features([0, 0, 0], 6))
    plain = run_of("b", {"pulse:g": kept})
    rules = rules_of(mean_of("fid", at_most=1e9), mean_of("kid", at_most=1e9))
    fid, kid = check(run, rules).verdicts
    assert not fid.judged and "no interval" in fid.reason
    assert not kid.judged or kid.outcome == "pass"
    for verdict in check(plain, rules).verdicts:
        assert (verdict.judged, verdict.outcome) == (False, "inconclusive")
        assert "features" in verdict.reason
    with pytest.raises(InputError, match="no interval of its difference from a baseline"):
        check(run, rules_of(mean_of("kid", no_worse_than_baseline_by=0.1)), run)
