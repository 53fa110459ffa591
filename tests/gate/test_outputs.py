"""What CI systems read: structure, escaping and limits of every format."""

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pulse_audit.gate import outputs
from pulse_audit.gate.check import GateResult, publish
from pulse_audit.gate.verdicts import Verdict

PASSED = Verdict(
    rule=1, text="retention by race: max_gap at_most 0.2", arm="pulse:g", condition="clean",
    scale=4, minus=None, outcome="pass", judged=True, metric="retention_corrected", value=0.05,
    pass_bound=0.12, fail_bound=0.0, limit=0.2, groups=("White", "Black"), faces=100,
    faces_needed=None, detectable=0.1, reason="shown to be within 0.2 (bound 0.12)", method="t",
)  # fmt: skip
FAILED = replace(PASSED, rule=2, outcome="fail", value=0.4, reason="shown to be beyond 0.2")
UNDECIDED = replace(PASSED, rule=3, outcome="inconclusive", reason="neither bound settles it")
UNJUDGED = replace(
    UNDECIDED, rule=4, judged=False, value=None, pass_bound=None, fail_bound=None, groups=(),
    faces=None, detectable=None, reason="its weights are not fetched", method="",
)  # fmt: skip
ALL = [PASSED, FAILED, UNDECIDED, UNJUDGED]
HOSTILE = 'a<b>&"]]>\x00\x1b|`@you` [x](http://y)\n::error::%0A'

#: Attributes (required, optional) and children that Jenkins' and Surefire's schemas both allow.
SCHEMA = {
    "testsuites": (set(), {"name", "tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time"},
        {"id", "package", "timestamp", "hostname", "group"},
        {"testcase", "properties", "system-out", "system-err"},
    ),
    "testcase": (
        {"name", "time"},
        {"classname", "group"},
        {"failure", "error", "skipped", "system-out", "system-err"},
    ),
    "failure": ({"type"}, {"message"}, set()),
    "error": ({"type"}, {"message"}, set()),
    "skipped": (set(), {"message"}, set()),
    "system-out": (set(), set(), set()),
}


def check_junit(data: bytes) -> ElementTree.Element:
    root = ElementTree.fromstring(data)
    assert root.tag == "testsuites"
    for element in root.iter():
        required, optional, children = SCHEMA[element.tag]
        assert required <= set(element.attrib) <= required | optional, element.tag
        assert {child.tag for child in element} <= children
        if "time" in element.attrib:
            assert re.fullmatch(r"[0-9]+(\.[0-9]*)?", element.attrib["time"])
    for suite in root.iter("testsuite"):
        cases = list(suite.iter("testcase"))
        counts = {
            "tests": len(cases),
            **{f"{k}s": len(list(suite.iter(k))) for k in ("failure", "error")},
            "skipped": len(list(suite.iter("skipped"))),
        }
        assert {key: int(suite.attrib[key]) for key in counts} == counts
    return root


def test_junit_tells_failure_error_and_skipped_apart():
    root = check_junit(outputs.junit("run", ALL))
    cases = list(root.iter("testcase"))
    kinds = [[child.tag for child in case] for case in cases]
    assert kinds == [["system-out"], ["failure"], ["skipped"], ["error"]]
    assert cases[1].find("failure").attrib["message"] == "shown to be beyond 0.2"
    assert "pulse:g" in cases[0].attrib["classname"]
    check_junit(outputs.junit("run", []))


def test_names_from_outside_cannot_break_a_format():
    verdict = replace(FAILED, arm=HOSTILE, text=HOSTILE, reason=HOSTILE, groups=(HOSTILE, "b"))
    root = check_junit(outputs.junit(HOSTILE, [verdict]))
    assert "\ufffd" in next(root.iter("testcase")).attrib["name"]
    page = "\n".join(outputs.markdown("fail", [verdict], [HOSTILE]))
    assert not re.search(r"<b>|@you|\]\(http", page)
    # the row has five cells
    row = next(line for line in page.splitlines() if line.startswith("| FAIL"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    commands = outputs.workflow_commands([verdict], [HOSTILE])
    assert len(commands) == 2 and all("\n" not in line for line in commands)
    assert all(line.count("::") >= 2 and "%250A" in line for line in commands)
    json.dumps(outputs.sarif(Path("rules.yaml"), [verdict]), allow_nan=False)


def test_sarif_has_what_the_format_requires():
    log = outputs.sarif(Path("my rules/rules.yaml"), ALL)
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert run["tool"]["driver"]["name"] == "pulse-audit"
    for result in run["results"]:
        assert result["ruleId"] in rules and result["message"]["text"]
        # a kind other than fail asks for the level none
        assert result["level"] == ("error" if result["kind"] == "fail" else "none")
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "my%20rules/rules.yaml"
        assert place["region"]["startLine"] >= 1
    assert [result["kind"] for result in run["results"]] == ["pass", "fail", "open", "open"]
    absolute = outputs.sarif(Path("/a b/rules.yaml"), [PASSED])
    place = absolute["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "file:///a%20b/rules.yaml"


def test_the_badge_is_an_endpoint_and_a_drawing():
    made = outputs.badge("fail", ALL)
    assert made == {
        "schemaVersion": 1, "label": "fairness gate", "message": "fail, 1 of 4 pass",
        "color": "red",
    }  # fmt: skip
    drawing = ElementTree.fromstring(outputs.badge_svg("pass", [PASSED]))
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert drawing[0].text == "fairness gate: pass, 1 of 1 pass"


def test_failures_come_first():
    lines = outputs.markdown("fail", ALL, ["a note"])
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == [
        "| FAIL", "| inconclusive", "| inconclusive", "| pass",
    ]  # fmt: skip
    assert "> a note" in lines


def test_github_s_limits_are_kept():
    many = [replace(FAILED, rule=n, reason="x" * 400 + "é") for n in range(5000)]
    comment = outputs.comment("fail", many, [])
    assert len(comment) <= outputs.COMMENT_LENGTH and "more lines are in" in comment
    for used in (0, 1_000_000, 2_000_000):
        text = outputs.step_summary("fail", many, [], used)
        assert len(text.encode()) + used <= max(outputs.SUMMARY_BYTES, used)
    commands = outputs.workflow_commands([*many, *[UNDECIDED] * 3], ["note"] * 20)
    counts = {
        kind: sum(line.startswith(f"::{kind} ") for line in commands)
        for kind in ("error", "warning", "notice")
    }
    assert counts == {"error": 10, "warning": 3, "notice": 10}
    assert "4991 more" in commands[9]


@pytest.mark.parametrize("github", [True, False])
def test_files_are_written_whole_and_the_summary_is_appended(tmp_path, monkeypatch, github):
    page = tmp_path / "summary.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    result = GateResult(tmp_path, Path("rules.yaml"), None, 0.05, ALL, ["a note"])
    lines = publish(result, tmp_path / "deep" / "junit.xml", github)
    assert (result.outcome, result.exit_code) == ("fail", 1)
    assert page.read_text().startswith("before\n")
    assert ("Fairness gate" in page.read_text()) == github
    assert len(lines) == (4 if github else 0)
    written = json.loads((tmp_path / "gate" / "verdicts.json").read_text())
    assert [each["outcome"] for each in written["verdicts"]] == [v.outcome for v in ALL]
    check_junit((tmp_path / "deep" / "junit.xml").read_bytes())
