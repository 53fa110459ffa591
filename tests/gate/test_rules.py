"""rules.yaml from outside: every mistake is one line that says where and what to do."""

from pathlib import Path

import pytest

from pulse_audit.gate.rules import (
    Rule,
    check_rules,
    choose_arms,
    metric_of,
    read_rules,
    shipped_rules,
)
from pulse_audit.types import InputError

GAP = {"metric": "retention", "group_by": "race", "statistic": "max_gap", "at_most": 0.2}


def test_the_rules_of_the_contract_are_read():
    rules = check_rules(
        {
            "alpha": 0.05,
            "rules": [
                {"metric": "retention_corrected", "group_by": "race", "statistic": "max_gap",
                 "at_most": 0.20},
                {"metric": "feasible_rate", "group_by": "race", "statistic": "min_ratio",
                 "at_least": 0.8, "arm": "pulse:*"},
                {"metric": "lightness_shift", "group_by": "skin_tone", "statistic": "max_abs",
                 "at_most": 2.0},
                {"metric": "retention", "group_by": "race", "statistic": "worst_group",
                 "no_worse_than_baseline_by": 0.05},
            ],
        },
        "rules.yaml",
    )  # fmt: skip
    assert [rule.limit for rule in rules.rules] == [0.2, 0.8, 2.0, 0.05]
    assert [rule.against_baseline for rule in rules.rules] == [False, False, False, True]
    for rule in rules.rules:
        assert metric_of(rule, {}, "rules.yaml").name == rule.metric


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"statistic": "max_gpa"}, "rule 1: statistic"),
        ({"atmost": 0.2}, "unknown key 'atmost'; did you mean at_most"),
        ({"at_most": None}, "exactly one limit"),
        ({"at_least": 0.1}, "at_most and at_least"),
        ({"at_most": "0.2"}, "rule 1: at_most"),
        ({"at_most": True}, "rule 1: at_most"),
        ({"at_most": float("nan")}, "rule 1: at_most"),
        ({"at_most": -0.2}, "below 0"),
        ({"group_by": None}, "needs group_by"),
        ({"at_most": None, "at_least": 0.2}, "max_gap takes at_most"),
        ({"statistic": "min_ratio", "at_most": None, "at_least": 1.5}, "at most 1"),
        ({"group": "White"}, "for the statistic mean"),
        ({"metric": None}, "rule 1: metric"),
        ({"scale": 0}, "rule 1: scale"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(changes, told):
    rule = {key: value for key, value in {**GAP, **changes}.items()}
    with pytest.raises(InputError) as caught:
        check_rules({"rules": [rule]}, "rules.yaml")
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "wanted `rules:`"),
        ([GAP], "wanted `rules:`"),
        ({"rules": []}, "rules"),
        ({"rules": [GAP] * 201}, "rules"),
        ({"rules": [GAP], "alhpa": 0.1}, "did you mean alpha?"),
        ({"rules": [GAP], "alpha": 0.5}, "alpha"),
        ({"rules": [GAP], "alpha": 1e-5}, "alpha"),
        ({"rules": [GAP, GAP]}, "rules 1 and 2 both limit retention by race by at_most"),
        (
            {"rules": [
                {"metric": "retention", "statistic": "mean", "at_least": 0.7},
                {"metric": "retention", "statistic": "mean", "at_most": 0.6},
            ]},
            "rules 1 and 2 contradict each other",
        ),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_together_are_refused(content, told):
    with pytest.raises(InputError) as caught:
        check_rules(content, "rules.yaml")
    assert told in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "rules: !!python/object/apply:os.system ['true']",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]"
                    for i in range(9)),
        "rules: [" * 100,
        "rules: [{metric: \x00}]",
        "\xff\xfe",
        "alpha: .inf\nrules: []",
    ],
)  # fmt: skip
def test_hostile_yaml_is_one_line(tmp_path, text):
    path = tmp_path / "rules.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read_rules(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="neither a file nor shipped rules"):
        read_rules(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", shipped_rules())
def test_shipped_rules_are_explained_and_can_be_judged(name):
    text = shipped_rules()[name].read_text()
    assert text.startswith("# ") and text.split("\n")[0].endswith(".")
    for rule in read_rules(Path(name)).rules:
        assert metric_of(rule, {}, name).name == rule.metric


def test_shipped_rules_are_known_by_name():
    assert set(shipped_rules()) == {
        "equal-retention", "four-fifths", "no-lightening", "no-regression",
    }  # fmt: skip
    with pytest.raises(InputError, match="did you mean four-fifths"):
        read_rules(Path("four-fifth"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": "retentoin"}, "did you mean retention"),
        ({"metric": "kid", "at_most": None, "no_worse_than_baseline_by": 0.1}, "from a baseline"),
        ({"metric": "gpi_kid"}, "use metric kid"),
        ({"metric": "rdp_chi2"}, "takes the statistic mean, not max_gap"),
        ({"metric": "pr_tv", "statistic": "mean", "group": "White"}, "it takes no group"),
        ({"metric": "flip_rate", "statistic": "worst_group"}, "no worst group; use max_abs"),
        ({"metric": "shift"}, "no rule can be judged on shift"),
        ({"metric": "downscale_rmse"}, "no rule can be judged on downscale_rmse"),
        ({"at_most": 20}, "20 % is 0.2"),
        (
            {"metric": "lightness_shift", "statistic": "worst_group", "at_most": 1},
            "no worst group; use max_abs",
        ),
        ({"statistic": "worst_group", "at_most": 0.5}, "use at_least"),
        (
            {"metric": "no_face_rate", "statistic": "worst_group", "at_most": None,
             "at_least": 0.5},
            "use at_most",
        ),
        (
            {"metric": "lightness_shift", "statistic": "mean", "at_most": None,
             "no_worse_than_baseline_by": 1},
            "neither direction",
        ),
    ],
)  # fmt: skip
def test_a_rule_has_to_fit_its_metric(changes, told):
    values = {key: value for key, value in {**GAP, **changes}.items() if value is not None}
    rule = Rule.model_validate(values)
    with pytest.raises(InputError) as caught:
        metric_of(rule, {}, "rules.yaml: rule 1")
    assert told in str(caught.value)


def test_arms_are_chosen_by_name_or_glob():
    arms, judged = ["pulse:a", "pulse:b", "bicubic"], ["pulse:a", "pulse:b"]
    rule = Rule.model_validate(GAP)
    assert choose_arms(rule, arms, judged, "") == judged
    for glob, chosen in (("pulse:*", judged), ("bicubic", ["bicubic"]), ("*", arms)):
        assert choose_arms(rule.model_copy(update={"arm": glob}), arms, judged, "") == chosen
    with pytest.raises(InputError, match="did you mean pulse:a"):
        choose_arms(rule.model_copy(update={"arm": "pulse:aa"}), arms, judged, "")
