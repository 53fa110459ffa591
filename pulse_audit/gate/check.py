"""`pulse-audit check`: read, judge, write what CI systems read, and answer with an exit code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from pulse_audit import store
from pulse_audit.documents import read_json
from pulse_audit.files import as_json, atomic_write, refuse_links
from pulse_audit.gate import outputs
from pulse_audit.gate.baseline import check_match, open_finished, read_baseline, write_baseline
from pulse_audit.gate.measure import measure_run
from pulse_audit.gate.record import pair_faces
from pulse_audit.gate.rules import read_rules
from pulse_audit.gate.verdicts import Outcome, Verdict, judge, plan
from pulse_audit.summary import schema, summarise_run
from pulse_audit.types import InputError

#: Folder of a run that the gate writes.
FOLDER = "gate"
#: Exit codes by outcome.
CODES: dict[Outcome, Literal[0, 1, 3]] = {"pass": 0, "fail": 1, "inconclusive": 3}
SCHEMA_VERSION = 1
#: More verdicts than this are no record of a check.
MOST_VERDICTS = 100_000


@dataclass(frozen=True)
class GateResult:
    """All verdicts of a check.

    ``notes`` say what a reader has to know beside them, such as a summary that was edited;
    ``missing_draws`` of an unfinished run, which has no verdict; ``samples_sha256`` those judged.
    """

    run: Path
    rules: Path
    baseline: Path | None
    alpha: float
    verdicts: Sequence[Verdict]
    notes: Sequence[str] = ()
    missing_draws: int = 0
    samples_sha256: str = ""

    @property
    def outcome(self) -> Outcome:
        """``fail`` if a rule failed, else ``inconclusive`` if one is, else ``pass``."""
        found = {verdict.outcome for verdict in self.verdicts}
        if "fail" in found:
            return "fail"
        return "inconclusive" if "inconclusive" in found or self.missing_draws else "pass"

    @property
    def exit_code(self) -> int:
        """0, 1 or 3."""
        return CODES[self.outcome]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values: the content of ``verdicts.json``."""
        return {
            "schema": SCHEMA_VERSION,
            "run": str(self.run),
            "rules": str(self.rules),
            "baseline": None if self.baseline is None else str(self.baseline),
            "alpha": self.alpha,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "samples_sha256": self.samples_sha256,
            "notes": list(self.notes),
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
        }


def check(
    run: Path | str,
    rules: Path | str,
    baseline: Path | str | None = None,
    *,
    arm: str | None = None,
    baseline_arm: str | None = None,
    accept_differences: Sequence[str] = (),
    new_baseline: Path | None = None,
) -> GateResult:
    """Judge a run by the rules of a file.

    Parameters
    ----------
    run : Path or str
        A run directory.
    rules : Path or str
        A ``rules.yaml``.
    baseline : Path or str, optional
        A run directory, or a file that an earlier check wrote.
    arm, baseline_arm : str, optional
        Judge this arm alone; compare it with this arm of the baseline.
    accept_differences : sequence of str
        Keys of the baseline that may differ.
    new_baseline : Path, optional
        Write what the rules need of the run into this file. Without ``baseline``, rules against one
        then wait for the next run.

    Raises
    ------
    InputError
        If something given cannot be used.
    """
    run, rules = Path(run), Path(rules)
    held_to, stored = read_rules(rules), open_finished(run)
    where, notes = Path(baseline) if baseline is not None else None, list[str]()
    if not stored.complete:
        return GateResult(run, rules, where, held_to.alpha, (), (), max(_missing(stored), 1))
    trial = measure_run(stored, held_to.rules, str(rules))
    notes += edited_summary(stored)
    other = None
    if where is not None:
        other = read_baseline(where, held_to.rules)
        check_match(trial.record, other, accept_differences, str(where))
        pairing = pair_faces(trial.record, other)
        if len(pairing.trial) < len(trial.record.faces):
            notes.append(f"compared on the {len(pairing.trial)} faces that both sides share")
        elif not pairing.paired:
            notes.append("the sides share too few faces to be paired: compared as two samples")
    elif accept_differences or baseline_arm:
        raise InputError("--accept-difference and --baseline-arm need --baseline")
    if new_baseline is not None:
        write_baseline(new_baseline, trial)
        notes.append(f"baseline written: {new_baseline}")
        if other is None and held_to.against_baseline:
            waiting = [n for n, rule in enumerate(held_to.rules, 1) if rule.against_baseline]
            notes.append(f"rules {', '.join(map(str, waiting))} wait for a run to compare with it")
    cases = plan(
        held_to,
        trial.record,
        other,
        where=str(rules),
        arm=arm,
        baseline_arm=baseline_arm,
        can_wait=new_baseline is not None,
    )
    verdicts, digest = judge(held_to, trial, other, cases), stored.samples_sha256
    return GateResult(run, rules, where, held_to.alpha, verdicts, notes, samples_sha256=digest)


def _missing(run: store.Run) -> int:
    """Draws of the units without a shard."""
    missing = set(run.missing_units)
    return sum(len(unit.draws) for unit in run.manifest.units if unit.id in missing)


def edited_summary(run: store.Run) -> list[str]:
    """Name the first estimate of the stored summary that the samples do not give.

    Verdicts are made from the samples, whatever the summary says.
    """
    try:
        stored = schema.read(run.path)
    except InputError as error:
        return [f"{error}; verdicts are of the samples"]
    made = summarise_run(run)
    if stored == made:
        return []
    for told, is_so in zip(stored.estimates, made.estimates, strict=False):
        if told != is_so:
            what = f"{is_so.column} of {is_so.arm}, {is_so.group_by} {is_so.group}"
            said, true = (
                "none" if row.value is None else f"{row.value:g}" for row in (told, is_so)
            )
            detail = f"{said}, the samples {true}"
            if said == true:
                detail = "something else than the samples"
            return [f"summary.json was edited or is of another version: it says of {what} {detail}"]
    return ["summary.json was edited or is of another version: its samples give another one"]


def stored_result(run: store.Run) -> GateResult | None:
    """Read what a check of these samples said; None where there is none, or only of others."""
    try:
        content = read_json(run.path / FOLDER / "verdicts.json")
        if (content["schema"], content["samples_sha256"]) != (SCHEMA_VERSION, run.samples_sha256):
            return None
        if not 0 < len(content["verdicts"]) <= MOST_VERDICTS:
            return None
        verdicts = TypeAdapter(list[Verdict]).validate_python(content["verdicts"])
        rules, alpha = Path(str(content["rules"])), float(content["alpha"])
        if not 0 < alpha < 0.5 or not all(verdict.is_possible for verdict in verdicts):
            return None
    except (FileNotFoundError, InputError, LookupError, TypeError, ValueError):
        # Of a file from outside that is no record of verdicts nothing is shown.
        return None
    return GateResult(run.path, rules, None, alpha, verdicts)


def publish(result: GateResult, junit: Path | None = None, github: bool = False) -> list[str]:
    """Write ``RUN/gate/`` and what was asked for beside it.

    Returns
    -------
    list of str
        Lines for stdout: workflow commands that annotate, where ``github``.
    """
    folder = result.run / FOLDER
    refuse_links(result.run, [FOLDER])
    content = result.as_dict()
    xml = outputs.junit(result.run.name, result.verdicts)
    files = {
        "verdicts.json": as_json(content),
        "junit.xml": xml,
        "verdicts.sarif": as_json(outputs.sarif(result.rules, result.verdicts)),
        "badge.json": as_json(outputs.badge(result.outcome, result.verdicts)),
        "badge.svg": outputs.badge_svg(result.outcome, result.verdicts),
        "comment.md": outputs.comment(result.outcome, result.verdicts, result.notes).encode(),
    }
    for name, data in files.items():
        atomic_write(folder / name, data)
    if junit is not None:
        atomic_write(junit, xml)
    if not github:
        return []
    # GitHub gives the file of the step summary; other steps may have written to it
    if target := os.environ.get("GITHUB_STEP_SUMMARY"):
        page = Path(target)
        used = page.stat().st_size if page.exists() else 0
        text = outputs.step_summary(result.outcome, result.verdicts, result.notes, used)
        with page.open("a", encoding="utf-8") as file:
            file.write(text)
    return outputs.workflow_commands(result.verdicts, result.notes)
