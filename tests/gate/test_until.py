"""Evidence that holds at every look, and which rules have any."""

import pytest

from pulse_audit import store
from pulse_audit.gate.baseline import open_finished
from pulse_audit.gate.case import Case
from pulse_audit.gate.measure import measure
from pulse_audit.gate.rules import check_rules
from pulse_audit.gate.sequential import evidence_so_far, why_once
from pulse_audit.gate.verdicts import plan
from pulse_audit.stats.sequential import EveryLook, FixedLooks, lower_bound, upper_bound
from pulse_audit.summary.schema import SubsetKey
from pulse_audit.types import InputError

BUDGET, LEVEL = 60, 0.05


def evidence(rule, trial, baseline=None, last=False, schedule=None):
    """Evidence of a rule on run directories of the same faces, one face of a group a block."""
    held_to = check_rules({"rules": [rule]}, "rules")
    sides = []
    for path in (trial, baseline) if baseline else (trial,):
        run = store.open_run(path)
        sides.append(measure(run.manifest, run.samples(), held_to.rules, "rules"))
    other = sides[1].record if baseline else None
    (case,) = plan(held_to, sides[0].record, other, where="rules")
    blocks = {name: int(name[-8:-4]) for name, _ in sides[0].record.faces}
    return evidence_so_far(
        case, sides[0], other, blocks, LEVEL, schedule or EveryLook(BUDGET), last
    )


def test_a_pass_is_of_every_group_and_a_fail_of_all_simultaneously(run_of, outcomes):
    kept = outcomes([0.9, 0.8, 0.7], 40, 2)
    run = run_of("run", {"pulse:a": kept})
    rule = {"metric": "feasible_rate", "group_by": "race", "statistic": "worst_group"}
    found = evidence({**rule, "at_least": 0.5}, run)
    means = kept.mean(axis=2)
    assert found.gap.value == pytest.approx(means.mean(axis=1).min())
    passes = min(lower_bound(group, LEVEL, BUDGET) for group in means)
    fails = min(upper_bound(group, LEVEL / 3, BUDGET) for group in means)
    assert found.gap.pass_bound == pytest.approx(passes, abs=1e-8)
    assert found.gap.fail_bound == pytest.approx(fails, abs=1e-8)
    assert (found.faces, found.gap.larger_is_worse) == (40, False)
    assert found.groups == (["White", "Black", "Indian"][int(means.mean(axis=1).argmin())],)


def test_a_mean_over_groups_is_of_blocks_of_one_face_each(run_of, outcomes):
    # faces of groups of unequal rates are not alike; blocks of one of each are
    kept = outcomes([0.9, 0.5, 0.1], 40, 1)
    run = run_of("run", {"pulse:a": kept})
    found = evidence({"metric": "feasible_rate", "statistic": "mean", "at_most": 0.6}, run)
    blocks = kept.mean(axis=(0, 2))
    assert found.gap.pass_bound == pytest.approx(upper_bound(blocks, LEVEL, BUDGET), abs=1e-8)
    assert found.faces == 40


def test_against_a_baseline_faces_are_compared_with_themselves(run_of, outcomes):
    before, after = outcomes([0.8, 0.8], 50, 2, seed=1), outcomes([0.8, 0.5], 50, 2, seed=1)
    runs = [run_of(name, {"pulse:a": kept}) for name, kept in (("b", before), ("t", after))]
    rule = {"metric": "retention", "group_by": "race", "statistic": "worst_group",
            "no_worse_than_baseline_by": 0.0}  # fmt: skip
    found = evidence(rule, runs[1], runs[0])
    drops = before.mean(axis=2) - after.mean(axis=2)
    assert found.gap.value == pytest.approx(drops.mean(axis=1).max())
    fails = max(lower_bound(drop, LEVEL / 2, BUDGET, -1, 1) for drop in drops)
    assert found.gap.fail_bound == pytest.approx(fails, abs=1e-8)
    assert found.gap.decide(0.0) == "fail" and found.groups == ("Black",)


def test_values_that_did_not_change_pass_at_the_last_look_alone(run_of, outcomes):
    kept = outcomes([0.8, 0.5], 20, 2)
    runs = [run_of(name, {"pulse:a": kept}) for name in "bt"]
    rule = {"metric": "retention", "group_by": "race", "statistic": "worst_group",
            "no_worse_than_baseline_by": 0.0}  # fmt: skip
    assert evidence(rule, runs[1], runs[0]).gap.decide(0.0) == "inconclusive"
    assert evidence(rule, runs[1], runs[0], last=True).gap.decide(0.0) == "pass"


def test_groups_on_the_limit_are_rarely_ever_decided(run_of, outcomes):
    # 5 % of 20 are 1; 6 or more have a chance of 0.03 %
    rule = {"metric": "feasible_rate", "group_by": "race", "statistic": "worst_group"}
    decided = 0
    for seed in range(20):
        run = run_of(f"run-{seed}", {"pulse:a": outcomes([0.6, 0.6], BUDGET, 1, seed=seed)})
        decided += evidence({**rule, "at_least": 0.6}, run).gap.decide(0.6) != "inconclusive"
    assert decided < 6


def test_fixed_looks_keep_what_an_earlier_look_decided(run_of, outcomes):
    kept = outcomes([0.95, 0.9, 0.4], 60, 2)
    kept[2, 40:] = True
    run = run_of("run", {"pulse:a": kept})
    rule = {"metric": "feasible_rate", "group_by": "race", "statistic": "worst_group"}
    looks = (20, 40, 60)
    found = [
        evidence({**rule, "at_least": 0.6}, run, schedule=FixedLooks(looks, done)).gap
        for done in (1, 2, 3)
    ]
    # a third of the faces decides nothing at its level; what two thirds show is not undone
    assert [gap.decide(0.6) for gap in found] == ["inconclusive", "fail", "fail"]
    assert found[1].fail_bound == found[2].fail_bound
    assert "O'Brien-Fleming" in found[0].method


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"metric": "feasible_rate", "statistic": "worst_group", "at_least": 0.5}, ""),
        ({"metric": "feasible_rate", "statistic": "max_gap", "at_most": 0.5}, "max_gap has no"),
        ({"metric": "retention", "statistic": "worst_group", "at_least": 0.5}, "corrected"),
        ({"metric": "lpips", "statistic": "worst_group", "at_most": 0.5}, "greatest value"),
        ({"metric": "feasible_rate", "statistic": "worst_group", "at_least": 0.5,
          "group_by": "gender"}, "balanced over race, not over gender"),
    ],
)  # fmt: skip
def test_which_rules_are_judged_once(run_of, outcomes, rule, why):
    run = store.open_run(run_of("run", {"pulse:a": outcomes([0.5, 0.5], 4, 1)}))
    (checked,) = check_rules({"rules": [{"group_by": "race", **rule}]}, "rules").rules
    trial = measure(run.manifest, run.samples(), [checked], "rules")
    case = Case(1, checked, SubsetKey("pulse:a", "clean", 4), None)
    found = why_once(case, trial.metrics[checked.metric], ["race"])
    assert (why in found) if why else found == ""


def test_a_run_that_its_rules_ended_is_refused_by_bounds_of_a_fixed_size(run_of, outcomes):
    kept = {"pulse:a": outcomes([0.5, 0.5], 4, 1)}
    stopped = run_of("stopped", kept, rounds={"per_round": 2, "budget": 8, "planned": 2})
    with pytest.raises(InputError, match="its rules decided its size"):
        open_finished(stopped)
    open_finished(run_of("whole", kept, rounds={"per_round": 2, "budget": 4, "planned": 2}))
