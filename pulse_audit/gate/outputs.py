"""Verdicts as CI systems read them: JUnit XML, SARIF, GitHub's summary and annotations, a badge.

Names of arms and groups come from runs of others: they are escaped for every format.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pulse_audit
from pulse_audit.gate.verdicts import Outcome, Verdict

#: GitHub's limits: bytes of a step summary, characters of a comment, annotations of a kind.
SUMMARY_BYTES, COMMENT_LENGTH, ANNOTATIONS = 1024 * 1024, 65_536, 10
MARKS: dict[Outcome, str] = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive"}
_COLOURS: dict[Outcome, tuple[str, str]] = {
    "pass": ("brightgreen", "#2e7d32"),
    "fail": ("red", "#c62828"),
    "inconclusive": ("yellow", "#8a6d00"),
}
# What XML 1.0 cannot hold.
_NO_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(name: str, verdicts: Sequence[Verdict]) -> bytes:
    """Write JUnit XML: a rule that failed is a failure, an undecided one is skipped.

    What could not be judged at all (an unavailable metric, an unusable correction) is an error. The
    structure is what Surefire's and Jenkins' schemas have in common.
    """
    numbers = _counts(verdicts)
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(numbers["failure"]),
        "errors": str(numbers["error"]),
    }
    root = ElementTree.Element("testsuites", {"name": "pulse-audit check", **counts, "time": "0"})
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {"name": _plain(name), **counts, "skipped": str(numbers["skipped"]), "time": "0"},
    )
    for verdict in verdicts:
        setting = f"{verdict.arm} ({verdict.condition}, x{verdict.scale})"
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {
                "classname": _plain(f"pulse-audit.{setting}"),
                "name": _plain(f"rule {verdict.rule}: {verdict.text}"),
                "time": "0",
            },
        )
        kind = _kind(verdict)
        if kind == "passed":
            ElementTree.SubElement(case, "system-out").text = _plain(detail(verdict))
            continue
        about = {"message": _plain(verdict.reason)}
        if kind != "skipped":
            about["type"] = "unfair" if kind == "failure" else "not judged"
        ElementTree.SubElement(case, kind, about).text = _plain(detail(verdict))
    ElementTree.indent(root)
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root) + b"\n"


def _kind(verdict: Verdict) -> str:
    if verdict.outcome == "pass":
        return "passed"
    if verdict.outcome == "fail":
        return "failure"
    return "skipped" if verdict.judged else "error"


def _counts(verdicts: Iterable[Verdict]) -> Counter[str]:
    return Counter(map(_kind, verdicts))


def _plain(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


def detail(verdict: Verdict) -> str:
    """Say in one line what was measured."""
    if not verdict.judged:
        return f"{verdict.title}: {verdict.reason}"
    groups = f", {' and '.join(verdict.groups)}" if verdict.groups != ("all",) else ""
    return (
        f"{verdict.title}: {verdict.metric} {number(verdict.value)}{groups}; {verdict.reason}. "
        f"{verdict.method}"
    )


def number(value: float | None) -> str:
    """Three significant digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"


def sarif(rules: Path, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Make a SARIF 2.1.0 log; what is not a failure has level ``none``, as the format asks."""
    kinds = {"pass": "pass", "fail": "fail", "inconclusive": "open"}
    uri = rules.as_uri() if rules.is_absolute() else quote(rules.as_posix())
    texts = {verdict.rule: verdict.text for verdict in verdicts}
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "pulse-audit",
                        "semanticVersion": pulse_audit.__version__,
                        "rules": [
                            {"id": f"rule-{place}", "shortDescription": {"text": text}}
                            for place, text in texts.items()
                        ],
                    }
                },
                "results": [
                    {
                        "ruleId": f"rule-{verdict.rule}",
                        "kind": kinds[verdict.outcome],
                        "level": "error" if verdict.outcome == "fail" else "none",
                        "message": {"text": detail(verdict)},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": uri},
                                    "region": {"startLine": 1},
                                },
                                "logicalLocations": [{"name": verdict.arm, "kind": "object"}],
                            }
                        ],
                    }
                    for verdict in verdicts
                ],
            }
        ],
    }


def badge(outcome: Outcome, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Make the JSON that shields.io's endpoint badge reads."""
    colour = _COLOURS[outcome][0]
    return {
        "schemaVersion": 1,
        "label": "fairness gate",
        "message": _message(outcome, verdicts),
        "color": colour,
    }


def _message(outcome: Outcome, verdicts: Sequence[Verdict]) -> str:
    passed = sum(verdict.outcome == "pass" for verdict in verdicts)
    return f"{outcome}, {passed} of {len(verdicts)} pass"


def badge_svg(outcome: Outcome, verdicts: Sequence[Verdict]) -> bytes:
    """Draw the badge: no script, no font and no file from elsewhere."""
    label, message = "fairness gate", _message(outcome, verdicts)
    # seven pixels a character are wide enough for any sans-serif of 11 px
    left, right = 7 * len(label) + 10, 7 * len(message) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{label}: {message}"><title>{label}: {message}</title>'
        f'<rect width="{left}" height="20" fill="#444"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{_COLOURS[outcome][1]}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" '
        f'text-anchor="middle"><text x="{left / 2:g}" y="14">{label}</text>'
        f'<text x="{left + right / 2:g}" y="14">{message}</text></g></svg>\n'
    ).encode()


def markdown(outcome: Outcome, verdicts: Sequence[Verdict], notes: Sequence[str]) -> list[str]:
    """Lines of a page: the outcome, what failed and is undecided first, then what passes."""
    order: list[Outcome] = ["fail", "inconclusive", "pass"]
    ranked = sorted(verdicts, key=lambda verdict: order.index(verdict.outcome))
    lines = [f"## Fairness gate: {_message(outcome, verdicts)}", ""]
    lines += [f"> {_cell(note)}" for note in notes] + [""] * bool(notes)
    if ranked:
        lines += ["| outcome | rule | arm | value | why |", "|---|---|---|---|---|"]
    for verdict in ranked:
        arm = _cell(f"{verdict.arm}{f' against {verdict.minus}' if verdict.minus else ''}")
        setting = _cell(f"{verdict.condition}, x{verdict.scale}")
        cells = (
            MARKS[verdict.outcome],
            _cell(verdict.text),
            f"{arm}<br>{setting}",
            number(verdict.value),
            _cell(verdict.reason),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(text: str) -> str:
    """Make text that neither ends a cell nor is HTML, a link, code or a mention."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\|`*_\[\]@#~])", lambda found: f"&#{ord(found[1])};", escaped)


def _within(lines: Sequence[str], limit: int, *, in_bytes: bool) -> str:
    """Join as many lines as fit, with a last one that says how many do not."""
    more = "\n_{} more lines are in RUN/gate/verdicts.json._\n"
    room, kept = limit - len(more) - 10, list[str]()
    for line in lines:
        room -= (len(line.encode()) if in_bytes else len(line)) + 1
        if room < 0:
            break
        kept.append(line)
    left = len(lines) - len(kept)
    return "\n".join(kept) + "\n" + (more.format(left) if left else "")


def step_summary(
    outcome: Outcome, verdicts: Sequence[Verdict], notes: Sequence[str], used: int = 0
) -> str:
    """Write GitHub's step summary, of which ``used`` bytes of its 1 MiB are taken."""
    lines = markdown(outcome, verdicts, notes)
    return _within(lines, SUMMARY_BYTES - used, in_bytes=True) if used < SUMMARY_BYTES else ""


def comment(outcome: Outcome, verdicts: Sequence[Verdict], notes: Sequence[str]) -> str:
    """Write the body of a pull-request comment, within GitHub's length."""
    return _within(markdown(outcome, verdicts, notes), COMMENT_LENGTH, in_bytes=False)


def workflow_commands(verdicts: Sequence[Verdict], notes: Sequence[str]) -> list[str]:
    """Workflow commands that annotate: errors, warnings and notices, at most ten of each."""
    lines = {
        "error": [detail(each) for each in verdicts if each.outcome == "fail"],
        "warning": [detail(each) for each in verdicts if each.outcome == "inconclusive"],
        "notice": list(notes),
    }
    commands = []
    for kind, texts in lines.items():
        if len(texts) > ANNOTATIONS:
            left = len(texts) - ANNOTATIONS + 1
            texts = [*texts[: ANNOTATIONS - 1], f"{left} more are in the step summary"]
        commands += [f"::{kind} title=Fairness gate::{_command(text)}" for text in texts]
    return commands


def _command(text: str) -> str:
    """Escape the data of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
