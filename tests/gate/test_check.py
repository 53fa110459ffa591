"""Whole checks of runs on disk: outcomes, exit codes, refusals, what is written."""

import html
import json

import numpy as np
import pytest

from pulse_audit import store
from pulse_audit.cli import outcome
from pulse_audit.gate.check import check, publish, stored_result
from pulse_audit.report.html import render
from pulse_audit.types import InputError

DROP = {
    "metric": "retention", "group_by": "race", "statistic": "worst_group",
    "no_worse_than_baseline_by": 0.0,
}  # fmt: skip
RATES = [0.7, 0.7, 0.7]


def only(result):
    assert len(result.verdicts) == 1
    return result.verdicts[0]


def test_a_run_passes_against_itself(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes(RATES, 12, 2)})
    result = check(run, rules_of(DROP), run)
    verdict = only(result)
    assert (verdict.outcome, result.exit_code) == ("pass", 0)
    assert (verdict.value, verdict.pass_bound) == (0.0, 0.0) and "alike" in verdict.method


def test_a_group_that_drops_fails_whichever_it_is(run_of, rules_of, outcomes):
    before = outcomes(RATES, 80, 2)
    base = run_of("a", {"pulse:g": before})
    for group in range(3):
        after = before.copy()
        after[group, :40] = False
        result = check(run_of(f"b{group}", {"pulse:g": after}), rules_of(DROP), base)
        verdict = only(result)
        assert (verdict.outcome, result.exit_code) == ("fail", 1)
        assert verdict.groups == (["White", "Black", "Indian"][group],)
        assert 0 < verdict.fail_bound < verdict.value < verdict.pass_bound


def test_the_largest_drop_counts_not_the_difference_of_the_minima(run_of, rules_of, outcomes):
    before = outcomes([0.95, 0.3, 0.7], 60, 1, seed=1)
    after = before.copy()
    after[0, :30] = False
    base, run = run_of("a", {"pulse:g": before}), run_of("b", {"pulse:g": after})
    # the lowest group is untouched
    assert after[0].mean() > after[1].mean()
    assert only(check(run, rules_of(DROP), base)).outcome == "fail"


def test_few_faces_are_inconclusive_and_say_how_many_would_do(run_of, rules_of, outcomes):
    before = outcomes(RATES, 10, 2)
    after = before.copy()
    after[1, :2] = False
    result = check(
        run_of("b", {"pulse:g": after}), rules_of(DROP), run_of("a", {"pulse:g": before})
    )
    verdict = only(result)
    assert (verdict.outcome, result.exit_code) == ("inconclusive", 3) and verdict.judged
    assert verdict.faces == 10 and verdict.faces_needed > 10
    assert f"{verdict.faces_needed:,} faces a group" in verdict.reason
    # below the tabulated number the detectable drop is told
    assert "10 points need" in verdict.reason


def test_other_faces_are_two_samples_and_need_consent(run_of, rules_of, outcomes):
    base = run_of("a", {"pulse:g": outcomes(RATES, 150, 1)})
    worse = outcomes([0.7, 0.2, 0.7], 150, 1, seed=4)
    run = run_of("b", {"pulse:g": worse}, prefix="other-")
    with pytest.raises(InputError, match="faces differs: .*--accept-difference 'faces'"):
        check(run, rules_of(DROP), base)
    result = check(run, rules_of(DROP), base, accept_differences=["faces"])
    assert only(result).outcome == "fail" and only(result).groups == ("Black",)
    assert any("two samples" in note for note in result.notes)
    with pytest.raises(InputError, match="did you mean faces"):
        check(run, rules_of(DROP), base, accept_differences=["face"])


def test_a_baseline_file_gives_the_verdict_of_its_run(run_of, rules_of, outcomes, tmp_path):
    before = outcomes(RATES, 40, 2)
    after = outcomes([0.6, 0.7, 0.1], 40, 2, seed=2)
    base, run = run_of("a", {"pulse:g": before}), run_of("b", {"pulse:g": after})
    gap = {"metric": "retention_corrected", "group_by": "race", "statistic": "max_gap",
           "no_worse_than_baseline_by": 0.1}  # fmt: skip
    shift = {"metric": "lightness_shift", "group_by": "gender", "statistic": "max_abs",
             "at_most": 2.0}  # fmt: skip
    rules, file = rules_of(DROP, gap, shift), tmp_path / "base.json"
    first = check(base, rules, new_baseline=file)
    # without a baseline only the absolute rule is judged, under its own number
    assert [verdict.rule for verdict in first.verdicts] == [3]
    assert any("wait" in note for note in first.notes)
    by_run, by_file = (check(run, rules, side).verdicts for side in (base, file))
    assert by_run == by_file and len(by_run) == 3
    assert by_run[0].outcome == "fail"


def test_an_absolute_rule_on_retention_is_judged_on_corrected_estimates(run_of, rules_of, outcomes):
    kept = outcomes([0.9, 0.2, 0.9], 60, 2)
    run = run_of("a", {"pulse:g": kept})
    rule = {"metric": "retention", "group_by": "race", "statistic": "max_gap", "at_most": 0.2}
    verdict = only(check(run, rules_of(rule)))
    assert (verdict.metric, verdict.outcome) == ("retention_corrected", "fail")
    assert verdict.pass_bound <= 1
    # more is lost than an imperfect attribute model shows
    raw = kept.mean(axis=(1, 2))
    assert verdict.value > raw.max() - raw.min()
    classified = {**rule, "metric": "retention_classified"}
    verdict = only(check(run, rules_of(classified)))
    assert (verdict.outcome, verdict.judged) == ("inconclusive", False)
    assert "cannot be corrected" in verdict.reason


def test_a_correction_that_is_not_usable_is_inconclusive(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes([1.0, 1.0, 1.0], 6, 1)})
    rule = {"metric": "retention", "group_by": "race", "statistic": "max_gap", "at_most": 1.0}
    result = check(run, rules_of(rule))
    assert (only(result).outcome, only(result).judged) == ("inconclusive", False)
    assert "correction is" in only(result).reason and result.exit_code == 3


def test_a_metric_that_was_not_measured_never_passes(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes(RATES, 6, 1)})
    rule = {"metric": "lpips", "group_by": "race", "statistic": "max_gap", "at_most": 100}
    verdict = only(check(run, rules_of(rule)))
    assert (verdict.outcome, verdict.judged) == ("inconclusive", False)
    assert verdict.reason == "its weights are not fetched"


def test_absolute_statistics_pass_fail_and_agree_with_the_data(run_of, rules_of, outcomes):
    kept = outcomes([0.95, 0.6, 0.95], 150, 1, icc=0.0)
    run = run_of("a", {"pulse:g": kept, "bicubic": kept}, lightness=3.0)
    rates = kept.mean(axis=(1, 2))
    by = {"group_by": "race"}
    cases = [
        ({"metric": "feasible_rate", "statistic": "max_gap", "at_most": 0.1, **by}, "fail",
         rates.max() - rates.min()),
        ({"metric": "feasible_rate", "statistic": "min_ratio", "at_least": 0.95, **by}, "fail",
         rates.min() / rates.max()),
        ({"metric": "feasible_rate", "statistic": "worst_group", "at_least": 0.4, **by}, "pass",
         rates.min()),
        ({"metric": "feasible_rate", "statistic": "mean", "at_least": 0.95}, "fail",
         rates.mean()),
        ({"metric": "feasible_rate", "statistic": "mean", "group": "Black", "at_most": 0.8, **by},
         "pass", rates[1]),
        ({"metric": "lightness_shift", "statistic": "max_abs", "at_most": 2.0, **by}, "fail", None),
        ({"metric": "lightness_shift", "statistic": "max_gap", "at_most": 2.0, **by}, "pass", None),
    ]  # fmt: skip
    result = check(run, rules_of(*(rule for rule, _, _ in cases)))
    # bicubic is judged where a rule names it, and nowhere else
    assert [verdict.arm for verdict in result.verdicts] == ["pulse:g"] * len(cases)
    for verdict, (rule, expected, value) in zip(result.verdicts, cases, strict=True):
        assert verdict.outcome == expected, rule
        if value is not None:
            assert verdict.value == pytest.approx(value)


def test_nothing_is_said_of_a_group_without_a_value(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes(RATES, 6, 1)})
    rule = {"metric": "feasible_rate", "statistic": "mean", "group": "Blak", "group_by": "race",
            "at_least": 0.1}  # fmt: skip
    with pytest.raises(InputError, match="did you mean Black"):
        check(run, rules_of(rule))
    with pytest.raises(InputError, match="did you mean race"):
        check(run, rules_of({**rule, "group": "Black", "group_by": "rac"}))
    with pytest.raises(InputError, match="names race twice"):
        check(run, rules_of({**rule, "group": "Black", "group_by": "race,race"}))
    with pytest.raises(InputError, match="unknown arm 'pulse:h'; did you mean pulse:g"):
        check(run, rules_of({**rule, "group": "Black"}), arm="pulse:h")


def test_arms_pair_by_name_or_alone(run_of, rules_of, outcomes):
    kept = outcomes(RATES, 8, 1)
    one, other = run_of("a", {"pulse:old": kept}), run_of("b", {"pulse:new": kept})
    assert only(check(other, rules_of(DROP), one)).minus == "pulse:old"
    both = run_of("c", {"pulse:old": kept, "pulse:new": kept})
    with pytest.raises(InputError, match="has no arm 'pulse:new'"):
        check(both, rules_of(DROP), one)
    verdict = only(check(both, rules_of(DROP), both, arm="pulse:new", baseline_arm="pulse:old"))
    assert (verdict.arm, verdict.minus) == ("pulse:new", "pulse:old")
    with pytest.raises(InputError, match="2 arms are on trial"):
        check(both, rules_of(DROP), both, baseline_arm="pulse:old")
    with pytest.raises(InputError, match="rule 1 needs a baseline"):
        check(both, rules_of(DROP))


def test_trial_runs_are_refused_on_either_side(run_of, rules_of, outcomes):
    kept = outcomes(RATES, 6, 1)
    spec = {"dataset": "x", "conditions": ["clean"], "scales": [4], "group_by": ["race"]}
    trial = run_of("a", {"pulse:g": kept}, spec={**spec, "limit": 18})
    whole = run_of("b", {"pulse:g": kept})
    for sides in ((trial, whole), (whole, trial)):
        with pytest.raises(InputError, match="--limit 18"):
            check(sides[0], rules_of(DROP), sides[1])


def test_an_edited_summary_is_named_and_not_believed(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes([0.9, 0.3, 0.9], 60, 1)})
    rule = {"metric": "feasible_rate", "group_by": "race", "statistic": "worst_group",
            "at_least": 0.6}  # fmt: skip
    assert not check(run, rules_of(rule)).notes
    path = run / "summary.json"
    content = json.loads(path.read_text())
    row = next(r for r in content["estimates"] if (r["metric"], r["group"]) == (
        "feasible_rate", "Black"))  # fmt: skip
    row["value"] = 0.99
    path.write_text(json.dumps(content))
    result = check(run, rules_of(rule))
    assert only(result).outcome == "fail"
    assert "feasible_rate of pulse:g, race Black 0.99, the samples" in result.notes[0]


def test_damaged_and_empty_baselines_are_refused(run_of, rules_of, outcomes, tmp_path):
    run = run_of("a", {"pulse:g": outcomes(RATES, 6, 1)})
    file, rules = tmp_path / "base.json", rules_of(DROP)
    check(run, rules, new_baseline=file)
    content = json.loads(file.read_text())
    assert only(check(run, rules, file)).outcome == "pass"
    damages = [
        ({"faces": []}, "empty"),
        ({"settings": []}, "empty"),
        ({"schema": 2}, "schema 2"),
        ({"faces": content["faces"][:-1]}, "damaged"),
        ({"groupings": [{**content["groupings"][0], "of_face": [99]}]}, "damaged"),
        ({"more": 1}, "damaged"),
    ]
    for change, told in damages:
        file.write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match=told):
            check(run, rules, file)
    # more outcomes than draws
    values = content["settings"][0]["values"]
    values[0]["sums"] = [7.0] * len(content["faces"])
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="more outcomes than draws"):
        check(run, rules, file)
    for text, told in (("{}", "no baseline"), ("[", "unreadable")):
        file.write_text(text)
        with pytest.raises(InputError, match=told):
            check(run, rules, file)
    with pytest.raises(InputError, match="no such baseline"):
        check(run, rules, tmp_path / "none")
    other = rules_of({**DROP, "metric": "feasible_rate"})
    file.write_text(json.dumps({**content}))
    with pytest.raises(InputError, match="write it again"):
        check(run, other, file)


def test_the_command_answers_with_its_exit_codes(run_of, rules_of, outcomes, capsys, tmp_path):
    before = outcomes(RATES, 60, 1)
    after = before.copy()
    after[0, :40] = False
    good, bad = run_of("a", {"pulse:g": before}), run_of("b", {"pulse:g": after})
    rules = rules_of(DROP)
    arguments = ["--rules", str(rules), "--baseline", str(good)]
    assert outcome(["check", str(good), *arguments]) == 0
    assert "gate: pass" in capsys.readouterr().out
    junit = tmp_path / "reports" / "gate.xml"
    assert outcome(["check", str(bad), *arguments, "--json", "--junit", str(junit)]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["outcome"] == "fail"
    assert shown == json.loads((bad / "gate" / "verdicts.json").read_text())
    assert junit.read_bytes() == (bad / "gate" / "junit.xml").read_bytes()
    assert sorted(path.name for path in (bad / "gate").iterdir()) == [
        "badge.json", "badge.svg", "comment.md", "junit.xml", "verdicts.json", "verdicts.sarif",
    ]  # fmt: skip
    # bad input: one line
    assert outcome(["check", str(good), "--rules", str(rules)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert outcome(["check", str(tmp_path / "none"), "--rules", str(rules)]) == 2
    # inconclusive
    unknown = rules_of({"metric": "lpips", "group_by": "race", "statistic": "max_gap",
                        "at_most": 1})  # fmt: skip
    assert outcome(["check", str(good), "--rules", str(unknown)]) == 3
    # unfinished
    capsys.readouterr()
    (bad / "samples" / "u0.parquet").unlink()
    assert outcome(["check", str(bad), *arguments]) == 3
    assert "unfinished" in capsys.readouterr().err


def test_a_link_in_the_place_of_the_folder_is_refused(run_of, rules_of, outcomes, tmp_path):
    run = run_of("a", {"pulse:g": outcomes(RATES, 6, 1)})
    (tmp_path / "elsewhere").mkdir()
    (run / "gate").symlink_to(tmp_path / "elsewhere")
    assert outcome(["check", str(run), "--rules", str(rules_of(DROP)), "--baseline", str(run)]) == 2
    assert not list((tmp_path / "elsewhere").iterdir())


def test_verdicts_do_not_depend_on_the_order_of_rows(run_of, rules_of, outcomes):
    kept = outcomes(RATES, 30, 2)
    one, two = run_of("a", {"pulse:g": kept}), run_of("b", {"pulse:g": np.roll(kept, 1, axis=2)})
    rule = {"metric": "retention_corrected", "group_by": "race", "statistic": "worst_group",
            "at_least": 0.3}  # fmt: skip
    made = [only(check(run, rules_of(rule))) for run in (one, two)]
    assert made[0] == made[1]


def test_a_rise_of_an_apparent_group_s_share_fails(run_of, rules_of, outcomes):
    before = outcomes([0.9, 0.9, 0.9], 60, 2)
    after = before.copy()
    # what is lost of White turns Black
    after[0, :40] = False
    base, run = run_of("a", {"pulse:g": before}), run_of("b", {"pulse:g": after})
    rule = {"metric": "output_share", "group_by": "race", "statistic": "max_abs",
            "no_worse_than_baseline_by": 0.05}  # fmt: skip
    verdict = only(check(run, rules_of(rule), base))
    assert (verdict.outcome, verdict.groups) == ("fail", ("Black",))
    assert verdict.value == pytest.approx(before[0, :40].mean() * 40 / 180)
    assert only(check(base, rules_of(rule), base)).outcome == "pass"
    # the same against a file
    file = base.parent / "base.json"
    check(base, rules_of(rule), new_baseline=file)
    assert only(check(run, rules_of(rule), file)) == verdict
    with pytest.raises(InputError, match="output_share takes max_abs"):
        check(run, rules_of({**rule, "statistic": "worst_group"}), base)


def test_a_group_without_a_value_is_inconclusive(run_of, rules_of, outcomes):
    nothing = np.zeros((3, 8, 1))
    nothing[1] = np.nan
    run = run_of("a", {"pulse:g": outcomes(RATES, 8, 1)}, lightness=nothing)
    rule = {"metric": "lightness_shift", "group_by": "race", "statistic": "max_abs",
            "at_most": 50}  # fmt: skip
    verdict = only(check(run, rules_of(rule)))
    assert (verdict.outcome, verdict.judged) == ("inconclusive", False)
    assert verdict.reason == "no face of Black has a value"
    # single faces without one are left out, and counted
    some = np.zeros((3, 8, 1))
    some[1, :2] = np.nan
    run = run_of("b", {"pulse:g": outcomes(RATES, 8, 1)}, lightness=some)
    verdict = only(check(run, rules_of(rule)))
    assert verdict.judged and "2 faces have no value" in verdict.reason


def test_labels_of_a_model_cannot_show_that_retention_is_high(run_of, rules_of, outcomes):
    kept = outcomes([0.9, 0.9, 0.9], 80, 2)
    model = {
        "name": "net", "vocabulary": {"race": ["White", "Black", "Indian"]},
        "predicted_as": {"race": "race"}, "labels_from": "model",
        "confusion": {"race": [[970, 15, 15], [15, 970, 15], [15, 15, 970]]},
    }  # fmt: skip
    run = run_of("a", {"pulse:g": kept}, attributes=model)
    by = {"metric": "retention", "group_by": "race"}
    low = {**by, "statistic": "worst_group", "at_least": 0.2}
    most = {**by, "statistic": "mean", "at_most": 0.5}
    gap = {**by, "statistic": "max_gap", "at_most": 0.9}
    verdicts = check(run, rules_of(low, most, gap)).verdicts
    assert [verdict.judged for verdict in verdicts] == [True] * 3
    # retention comes out too high: neither is it shown to be at least, nor to exceed, a limit
    assert [verdict.outcome for verdict in verdicts] == ["inconclusive", "inconclusive", "pass"]
    assert "a pass cannot be shown: a model gave the labels" in verdicts[0].reason
    assert "a fail cannot be shown: a model gave the labels" in verdicts[1].reason


def test_corrected_retention_needs_every_group_on_both_sides(run_of, rules_of, outcomes):
    kept = outcomes([0.9, 0.9, 0.9], 40, 2)
    run = run_of("a", {"pulse:g": kept})
    # the baseline has no Indian face
    other = run_of("b", {"pulse:g": kept[:2]})
    rule = {"metric": "retention_corrected", "group_by": "race", "statistic": "worst_group",
            "no_worse_than_baseline_by": 0.5}  # fmt: skip
    rules = rules_of(rule)
    with pytest.raises(InputError, match="outputs by race in these groups"):
        check(run, rules, other, accept_differences=["faces"])
    raw = rules_of({**rule, "metric": "retention"})
    verdict = only(check(run, raw, other, accept_differences=["faces"]))
    assert (verdict.judged, verdict.reason) == (False, "no face of Indian has a value")


def test_a_baseline_that_labels_or_draws_some_faces_otherwise(run_of, rules_of, outcomes):
    kept = outcomes([0.9, 0.9, 0.9], 40, 2)
    run = run_of("a", {"pulse:g": kept})
    by = {"group_by": "race", "no_worse_than_baseline_by": 0.2}
    rules = rules_of(
        {"metric": "retention_corrected", "statistic": "worst_group", **by},
        {"metric": "output_share", "statistic": "max_abs", **by},
        {"metric": "retention", "statistic": "worst_group", **by},
    )
    file = run.parent / "base.json"
    check(run, rules, new_baseline=file)
    content = json.loads(file.read_text())
    # one face has another label there, another no draw
    content["attributes"][0]["truth"][0] = 1
    content["settings"][0]["outputs"][0]["predicted"][1] = []
    file.write_text(json.dumps(content))
    verdicts = check(run, rules, file).verdicts
    assert [verdict.judged for verdict in verdicts] == [True] * 3
    # a face that has no draw on one side is on neither; so is one of two labels
    assert [verdict.faces for verdict in verdicts] == [39, 119, 40]
    assert verdicts[1].value == 0


def test_the_report_shows_the_verdicts_of_its_samples_and_of_no_others(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes(RATES, 6, 2)})
    rules = rules_of({"metric": "feasible_rate", "statistic": "mean", "at_least": 0.1})
    assert stored_result(store.open_run(run)) is None
    result = check(run, rules)
    publish(result)
    stored = stored_result(store.open_run(run))
    assert stored.verdicts == list(result.verdicts) and stored.outcome == result.outcome
    page = render(store.open_run(run)).read_text("utf-8")
    assert f"Rules of {rules.name}: {result.outcome}." in page
    assert result.verdicts[0].reason in html.unescape(page)
    # Of other samples, and of files that are no verdicts, nothing is shown.
    path = run / "gate" / "verdicts.json"
    verdict = result.verdicts[0].as_dict()
    unshown = {"pass": {"pass_bound": None}, "fail": {"fail_bound": 0.5}}
    changed = [{**verdict, "outcome": kind, **bound} for kind, bound in unshown.items()]
    for damage in (
        {"samples_sha256": "0"}, {"verdicts": [{"rule": 1}]}, {"alpha": None}, {"alpha": -0.1},
        {"verdicts": []}, {"schema": 2}, *({"verdicts": [each]} for each in changed),
    ):  # fmt: skip
        path.write_text(json.dumps(result.as_dict() | damage), "utf-8")
        assert stored_result(store.open_run(run)) is None
    path.write_text("[]")
    assert stored_result(store.open_run(run)) is None


def test_a_rule_s_words_are_text_on_the_page(run_of, rules_of, outcomes):
    run = run_of("a", {"pulse:g": outcomes(RATES, 6, 2)})
    rules = rules_of({"metric": "feasible_rate", "statistic": "mean", "at_least": 0.1})
    content = check(run, rules).as_dict()
    content["verdicts"][0] |= {"text": "<script>alert(1)</script>: mean at_least 0.1"}
    content["verdicts"][0]["reason"] = "<img src=x>"
    (run / "gate").mkdir()
    (run / "gate" / "verdicts.json").write_text(json.dumps(content), "utf-8")
    page = render(store.open_run(run)).read_text("utf-8")
    assert "<script>alert" not in page and "<img src=x>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
