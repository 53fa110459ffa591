"""Whole checks of simulated runs of known truth: false verdicts, power, and the table of faces.

    python -m benchmarks.gate [--repeats 500] [--seed 0] [--out runs/gate]

Every repeat makes the samples of a run, and of a baseline where rules need one, as a run leaves
them, and judges them as ``pulse-audit check`` does, from the rules to the verdicts. Draws are
correlated within faces: with probability sqrt(ICC) a draw has its face's own number, else one of
its own, and a number below the group's rate is an outcome. Faces of both sides share their own
number with a probability that gives the wanted correlation of their means.

*Truth on the limit.* Four rules on two arms, each with its true value exactly on its limit, in the
hardest pattern for a pass (one group, or pair of groups, on the limit and all others within) and
for a fail (as many as possible on it). A repeat counts where any verdict is false; at alpha = 5 %
at most 35 of 500 may. *Equal models* differ in the seeds of their draws alone; the *identity* arm
returns its originals.

Finished repeats are kept in ``--out``, and the same command goes on. The page is written to
``benchmarks/results/gate.md``, whose further sections ``benchmarks.drop`` (power, numbers of faces)
and ``benchmarks.sequential`` write.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.__main__ import RESULTS
from pulse_audit import store, terminal
from pulse_audit.calibration.audits import AuditDesign, held_out, simulated_audit
from pulse_audit.files import as_json, atomic_write
from pulse_audit.gate.measure import measure
from pulse_audit.gate.rules import check_rules
from pulse_audit.gate.verdicts import Verdict, judge, plan
from pulse_audit.seeding import fingerprint

GROUPS, COUNTS = held_out()
K = len(GROUPS)
BASE = 0.6
#: Base rates of the seven groups where a drop may hit any of them: the mean is `BASE`.
BASES = (0.60, 0.45, 0.75, 0.50, 0.70, 0.55, 0.65)
ALLOWED = 35
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Size and correlation of simulated runs.

    ``correlation`` is that of a face's means on both sides; None where these have other faces.
    """

    faces: int
    draws: int
    icc: float
    correlation: float | None = None

    def share(self, before: FloatArray, after: FloatArray) -> FloatArray:
        """Chance that a face has one number of its own on both sides, by group.

        Outcomes at two rates of one number are correlated by less than 1: at q < p by
        q (1 - p) / sqrt(p (1 - p) q (1 - q)).
        """
        low, high = np.minimum(before, after), np.maximum(before, after)
        of_rates = low * (1 - high) / np.sqrt(low * (1 - low) * high * (1 - high))
        within = self.icc * self.draws / (1 + (self.draws - 1) * self.icc)
        chance = (self.correlation or 0.0) / (within * of_rates)
        assert (chance <= 1).all(), "no such correlation"
        return chance[:, None]


def manifest_of(arms: Sequence[str]) -> store.Manifest:
    words = {"race": list(GROUPS)}
    return store.check_manifest(
        {
            "schema": 1,
            "spec": {"group_by": ["race"], "conditions": ["clean"], "scales": [8]},
            "dataset": {"vocabulary": words, "labels_from": "people"},
            "attributes": {
                "name": "net",
                "vocabulary": words,
                "predicted_as": {"race": "race"},
                "labels_from": "people",
                "confusion": {"race": COUNTS.tolist()},
            },
            "arms": {arm: {"kind": "folder"} for arm in arms},
            "faces": [],
            "units": [],
        }
    )


def numbers(random: np.random.Generator, sample: Sample, usual: FloatArray) -> FloatArray:
    """Uniform numbers (groups, faces, draws), correlated within faces."""
    shape = (K, sample.faces, sample.draws)
    has_usual = random.random(shape) < np.sqrt(sample.icc)
    return np.where(has_usual, usual[..., None], random.random(shape))


def frame(
    arm: str, retained: NDArray[np.bool_], feasible: NDArray[np.bool_], light: FloatArray, name: str
) -> pd.DataFrame:
    """Rows of one arm from arrays (groups, faces, draws)."""
    k, n, draws = retained.shape
    group, face, draw = (each.ravel() for each in np.indices(retained.shape))
    words = np.array(GROUPS, dtype=object)
    kept = retained.ravel()
    return pd.DataFrame(
        {
            "face_id": np.array(
                [f"{name}{g}-{i:05d}" for g in range(k) for i in range(n)], dtype=object
            )[group * n + face],
            "arm": arm,
            "condition": "clean",
            "scale": 8,
            "draw": draw,
            "status": "ok",
            "feasible": feasible.ravel(),
            "label_race": words[group],
            "hr_race": words[group],
            "sr_race": words[np.where(kept, group, (group + 1) % k)],
            "hr_lightness": 50.0,
            "sr_lightness": 50.0 + light.ravel(),
        }
    )


def check(
    rules: Sequence[dict[str, Any]],
    trial: Sequence[pd.DataFrame],
    base: Sequence[pd.DataFrame],
    alpha: float = 0.05,
) -> list[Verdict]:
    """Judge frames of arms as the command judges runs."""
    held_to = check_rules({"alpha": alpha, "rules": list(rules)}, "rules")
    sides = []
    for frames in (trial, base):
        if frames:
            manifest = manifest_of([str(each["arm"].iloc[0]) for each in frames])
            samples = pd.concat(frames, ignore_index=True)
            sides.append(measure(manifest, samples, held_to.rules, "rules"))
    other = sides[1].record if len(sides) > 1 else None
    cases = plan(held_to, sides[0].record, other, where="rules")
    return judge(held_to, sides[0], other, cases)


# What is simulated ----------------------------------------------------------------------------


def four_rules(limit: float) -> list[dict[str, Any]]:
    by = {"group_by": "race"}
    return [
        {"metric": "feasible_rate", "statistic": "max_gap", "at_most": limit, **by},
        {"metric": "feasible_rate", "statistic": "min_ratio", "at_least": 0.7 / 0.9, **by},
        {"metric": "lightness_shift", "statistic": "max_abs", "at_most": 2.0, **by},
        {"metric": "retention", "statistic": "worst_group", "no_worse_than_baseline_by": 0.05,
         **by},
    ]  # fmt: skip


def on_the_limit(random: np.random.Generator, sample: Sample, hardest_for: str) -> list[Verdict]:
    """Four rules on two arms whose true values all lie on their limits."""
    if hardest_for == "a pass":
        feasible = np.array([0.7, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8])
        light, drops = np.array([2.0, 0, 0, 0, 0, 0, 0]), np.array([0.05, 0, 0, 0, 0, 0, 0])
    else:
        feasible = np.array([0.7, 0.7, 0.7, 0.7, 0.9, 0.9, 0.9])
        light, drops = np.array([2.0, -2, 2, -2, 2, -2, 2]), np.full(K, 0.05)
    trial, base = [], []
    rates = np.full(K, BASE)
    for arm in ("first", "second"):
        usual = random.random((K, sample.faces))
        is_shared = random.random(usual.shape) < sample.share(rates, rates - drops)
        theirs = np.where(is_shared, usual, random.random(usual.shape))
        after, before = (numbers(random, sample, each) for each in (usual, theirs))
        feasibility = numbers(random, sample, random.random(usual.shape))
        shades = random.normal(0, 3, (K, sample.faces, 1)) + random.normal(0, 3, after.shape)
        name = "" if sample.correlation is not None else "other-"
        nothing = np.zeros(after.shape)
        trial.append(
            frame(arm, after < (rates - drops)[:, None, None], feasibility <
                  feasible[:, None, None], light[:, None, None] + shades, "")
        )  # fmt: skip
        base.append(frame(arm, before < rates[:, None, None], feasibility < 2, nothing, name))
    return check(four_rules(0.2), trial, base)


def drop_of_one_group(
    random: np.random.Generator,
    sample: Sample,
    group: int,
    drop: float,
    margin: float,
    rules: int,
    bases: Sequence[float] = BASES,
) -> list[Verdict]:
    """One group's rate drops; further rules of the family are on what did not change."""
    rates = np.array(bases)
    drops = np.where(np.arange(K) == group, drop, 0.0)
    usual = random.random((K, sample.faces))
    is_shared = random.random(usual.shape) < sample.share(rates, rates - drops)
    theirs = np.where(is_shared, usual, random.random(usual.shape))
    after, before = (numbers(random, sample, each) for each in (usual, theirs))
    everything, nothing = np.ones(after.shape, dtype=bool), np.zeros(after.shape)
    name = "" if sample.correlation is not None else "other-"
    trial = frame("arm", after < (rates - drops)[:, None, None], everything, nothing, "")
    base = frame("arm", before < rates[:, None, None], everything, nothing, name)
    by = {"group_by": "race"}
    wanted = {"metric": "retention", "statistic": "worst_group", **by,
              "no_worse_than_baseline_by": margin}  # fmt: skip
    others = [
        {"metric": "feasible_rate", "statistic": "max_gap", "at_most": 0.2, **by},
        {"metric": "feasible_rate", "statistic": "worst_group", "at_least": 0.8, **by},
        {"metric": "feasible_rate", "statistic": "mean", "at_least": 0.9},
    ][: rules - 1]
    return check([wanted, *others], [trial], [base])[:1]


def equal_models(random: np.random.Generator, sample: Sample) -> list[Verdict]:
    """Four rules against a baseline that is the same model with other seeds; none may be broken."""
    usual = random.random((K, sample.faces))
    sides = []
    for _ in range(2):
        kept, fits = (
            numbers(random, sample, each) < np.array(BASES)[:, None, None]
            for each in (usual, (usual * 7919) % 1)
        )
        shades = random.normal(0, 3, kept.shape)
        sides.append(frame("arm", kept, fits, shades, ""))
    by = {"group_by": "race", "no_worse_than_baseline_by": 0.0}
    rules = [
        {"metric": "retention", "statistic": "worst_group", **by},
        {"metric": "retention", "statistic": "max_gap", **by},
        {"metric": "feasible_rate", "statistic": "min_ratio", **by},
        {"metric": "lightness_shift", "statistic": "max_abs", **by},
    ]
    return check(rules, sides[:1], sides[1:])


def identity_arm(random: np.random.Generator, sample: Sample) -> list[Verdict]:
    """The arm returns its originals, read by a net with the errors of the shipped one."""
    audit = simulated_audit(AuditDesign("the originals", sample.faces, sample.draws), random)
    samples = audit.samples.assign(hr_lightness=50.0, sr_lightness=50.0)
    by = {"group_by": "race"}
    rules = check_rules(
        {
            "rules": [
                {"metric": "retention", "statistic": "max_gap", "at_most": 0.0, **by},
                {"metric": "retention", "statistic": "min_ratio", "at_least": 1.0, **by},
                {"metric": "retention", "statistic": "worst_group", "at_least": 1.0, **by},
                {"metric": "lightness_shift", "statistic": "max_abs", "at_most": 0.0, **by},
            ]
        },
        "rules",
    )
    trial = measure(audit.manifest, samples, rules.rules, "rules")
    return judge(rules, trial, None, plan(rules, trial.record, None, where="rules"))


def corrected_on_the_limit(random: np.random.Generator, sample: Sample) -> list[Verdict]:
    """Corrected retention of one group lies exactly the limit below that of all others."""
    design = AuditDesign("shifted", sample.faces, sample.draws, model="accuracy .9", shift=0.2)
    audit = simulated_audit(design, random)
    matrix = audit.truth.shift["first"].diagonal()
    rule = {"metric": "retention", "group_by": "race", "statistic": "max_gap", "arm": "first",
            "at_most": float(matrix.max() - matrix.min())}  # fmt: skip
    rules = check_rules({"rules": [rule]}, "rules")
    trial = measure(audit.manifest, audit.samples, rules.rules, "rules")
    return judge(rules, trial, None, plan(rules, trial.record, None, where="rules"))


@dataclass(frozen=True)
class Scenario:
    """A situation, what is counted in it, and what the count may be."""

    name: str
    section: str
    run: Callable[[np.random.Generator, int], list[Verdict]]
    most: dict[str, int]
    least: dict[str, int]


def scenarios() -> list[Scenario]:
    every = []
    for correlation in (0.63, None):
        for faces in (30, 100) if correlation else (30,):
            for hardest in ("a pass", "a fail"):
                sample = Sample(faces, 5, 0.5, correlation)
                pairing = "other faces" if correlation is None else "the same faces"
                name = f"4 rules x 2 arms, {pairing}, {faces} a group, hardest for {hardest}"
                every.append(
                    Scenario(
                        name,
                        "limit",
                        lambda random, _, s=sample, h=hardest: on_the_limit(random, s, h),
                        {"pass": ALLOWED, "fail": ALLOWED},
                        {},
                    )
                )
    for margin in (0.0, 0.05):
        for correlation in (0.63, None):
            sample = Sample(60, 5, 0.5, correlation)
            pairing = "other faces" if correlation is None else "the same faces"
            every.append(
                Scenario(
                    f"1 rule, worst_group, a drop of {100 * margin:.0f} at a margin of "
                    f"{100 * margin:.0f} points, {pairing}, 60 a group",
                    "limit",
                    lambda random, repeat, s=sample, m=margin: drop_of_one_group(
                        random, s, repeat % K, m, m, 1
                    ),
                    {"pass": ALLOWED, "fail": ALLOWED},
                    {},
                )
            )
    every.append(
        Scenario(
            "corrected retention, max_gap, one group the limit below all others, 100 a group",
            "limit",
            lambda random, _: corrected_on_the_limit(random, Sample(100, 5, 0.5)),
            {"pass": ALLOWED, "fail": ALLOWED},
            {},
        )
    )
    for faces in (20, 100):
        every.append(
            Scenario(
                f"equal models, 4 rules with margin 0, {faces} a group",
                "equal",
                lambda random, _, n=faces: equal_models(random, Sample(n, 5, 0.5)),
                {"fail": ALLOWED},
                {},
            )
        )
        every.append(
            Scenario(
                f"identity arm, 4 rules that ask for perfection, {faces} a group",
                "equal",
                lambda random, _, n=faces: identity_arm(random, Sample(n, 2, 0.5)),
                {"fail": ALLOWED},
                {},
            )
        )
    return every


# Running and writing --------------------------------------------------------------------------


def repeated(scenario: Scenario, repeats: int, seed: int, folder: Path, report: Any) -> list[dict]:
    """Outcomes of every repeat, those of an earlier process read back."""
    path = folder / f"{fingerprint(scenario.name):016x}.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rows = kept.get("rows", []) if kept.get("seed") == seed else []
    for repeat in range(len(rows), repeats):
        random = np.random.default_rng(fingerprint(seed, scenario.name, repeat))
        verdicts = scenario.run(random, repeat)
        rows.append({"outcomes": [v.outcome for v in verdicts], "judged": [v.judged for v in
                     verdicts], "group": repeat % K})  # fmt: skip
        if repeat % 25 == 24 or repeat == repeats - 1:
            content = {"name": scenario.name, "seed": seed, "rows": rows}
            atomic_write(path, as_json(content))
        report(repeat + 1)
    return rows[:repeats]


def line(scenario: Scenario, rows: Sequence[dict[str, Any]]) -> tuple[list[str], bool]:
    """Cells of a table, and whether what is asked for holds."""
    n = len(rows)
    counts = {
        kind: sum(kind in row["outcomes"] for row in rows)
        for kind in ("pass", "fail", "inconclusive")
    }
    # requirements are of 500 repeats
    holds = all(counts[kind] <= most * n / 500 for kind, most in scenario.most.items())
    holds &= all(counts[kind] >= least * n / 500 for kind, least in scenario.least.items())
    judged = sum(all(row["judged"]) for row in rows)
    asked = [f"{kind} at most {most}" for kind, most in scenario.most.items()]
    asked += [f"{kind} at least {least}" for kind, least in scenario.least.items()]
    cells = [scenario.name, str(counts["pass"]), str(counts["fail"]), f"{judged} of {n}",
             ", ".join(asked), "yes" if holds else "**no**"]  # fmt: skip
    return cells, holds


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


#: Headings with which sections of the page begin, in their order.
FIRST = "# The gate on trial"
SECTIONS = (
    FIRST,
    "## Rules on derived numbers",
    "## A drop of ten points",
    "## Sampling until decided",
    "## Whole gates until decided",
)


def write_section(page: Path, title: str, text: str) -> None:
    """Write one of the `SECTIONS` of the page, and leave the others as they are."""
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    starts = {each: before.find(each) for each in SECTIONS}
    ends = sorted(place for place in starts.values() if place >= 0) + [len(before)]
    parts = {
        each: before[place : ends[ends.index(place) + 1]]
        for each, place in starts.items()
        if place >= 0
    }
    parts[title] = text
    whole = "\n\n".join(parts[each].strip("\n") for each in SECTIONS if each in parts)
    atomic_write(page, (whole + "\n").encode())


TITLES = {
    "limit": "Truth on the limit",
    "equal": "Equal models, and the identity",
}


def page(found: Sequence[tuple[Scenario, list[dict[str, Any]]]], repeats: int, seed: int) -> str:
    text = [f"{FIRST}\n"]
    text.append(
        f"`python -m benchmarks.gate --repeats {repeats} --seed {seed}`: whole checks of simulated "
        "runs, from samples to verdicts. Numbers of repeats with any pass, and with any fail, "
        "beside what is asked of 500; judged: repeats in which every rule could be judged.\n"
    )
    header = ["situation", "any pass", "any fail", "judged", "asked", "holds"]
    for section, title in TITLES.items():
        here = [(scenario, rows) for scenario, rows in found if scenario.section == section]
        text += [f"## {title}\n", markdown(header, [line(*each)[0] for each in here])]
    return "\n".join(text)


def arguments(description: str | None, repeats: int, name: str) -> argparse.Namespace:
    """Read the options of a benchmark that writes a section of the page."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    parser.add_argument("--page", type=Path, default=RESULTS / "gate.md")
    return parser.parse_args()


def main() -> None:
    asked = arguments(__doc__, 500, "gate")
    every, found = scenarios(), []
    total = len(every) * asked.repeats
    with terminal.progress("checking", "repeats") as progress:
        for number, scenario in enumerate(every):
            before = number * asked.repeats
            rows = repeated(scenario, asked.repeats, asked.seed, asked.out,
                            lambda done, b=before: progress(b + done, total, 0))  # fmt: skip
            found.append((scenario, rows))
            cells, holds = line(scenario, rows)
            print(" | ".join(cells), flush=True)
    text = page(found, asked.repeats, asked.seed)
    write_section(asked.page, FIRST, text)
    print(f"page: {asked.page}")
    sys.exit(0 if all(line(*each)[1] for each in found) else 1)


if __name__ == "__main__":
    main()
