"""Whole gates until decided: rules, baseline, rounds of faces and verdicts, as of a run.

    python -m benchmarks.until [--repeats 300] [--seed 0] [--out runs/until]

Each repeat writes rules (and a baseline file where they need one), and adds rounds of faces of
three groups to a simulated run until `pulse_audit.gate.until.UntilDecided` says that it is decided,
as ``pulse-audit run --until-decided`` does: after every round by betting, or at five looks (O'Brien
and Fleming). No search is run: rows are drawn as in ``benchmarks.gate``, with two draws a face. The
budget is 1.35 times the sample of fixed size at which a group ten points beyond the limit fails
with 90 % power (normal approximation at the level of a fail; against a baseline the tabulated
number).

*On the limit* every verdict but *inconclusive* is wrong; at most 35 of 500 of either may be.

Finished repeats are kept in ``--out``. The section is the last of ``benchmarks/results/gate.md``.
"""

import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from scipy.special import ndtri

from benchmarks.derived import allowed, share
from benchmarks.gate import arguments, markdown, write_section
from pulse_audit import store, terminal
from pulse_audit.files import as_json, atomic_write
from pulse_audit.gate.baseline import write_baseline
from pulse_audit.gate.measure import measure
from pulse_audit.gate.rules import check_rules
from pulse_audit.gate.until import UntilDecided
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.power import DropDesign, faces_for_drop

TITLE = "## Whole gates until decided"
GROUPS = ("White", "Black", "Indian")
ALPHA, POWER, CAP, LIMIT, ROUNDS, LOOKS = 0.05, 0.9, 1.35, 0.6, 10, 5
DRAWS, ICC, CORRELATION = 2, 0.5, 0.5
K = len(GROUPS)
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Situation:
    """True rates of the groups, those of the baseline if any, and what the rule ought to say.

    ``right`` is None on the limit, where either verdict is wrong.
    """

    name: str
    rates: tuple[float, ...]
    before: tuple[float, ...] | None
    right: str | None

    @property
    def fixed(self) -> int:
        """Faces of a group, of a sample of fixed size that shows ten points."""
        if self.before is not None:
            return faces_for_drop(0.1, DropDesign(LIMIT, DRAWS, ICC, CORRELATION, K, 1, 0.0, ALPHA))
        variance = (LIMIT - 0.1) * (1.1 - LIMIT) * (1 + (DRAWS - 1) * ICC) / DRAWS
        distance = float(ndtri(POWER) - ndtri(ALPHA / K))
        return math.ceil(variance * (distance / 0.1) ** 2)

    @property
    def per_round(self) -> int:
        return math.ceil(CAP * self.fixed / ROUNDS)

    @property
    def budget(self) -> int:
        return self.per_round * ROUNDS


FAR = LIMIT + 0.3
SITUATIONS = [
    Situation("rate: all groups on the limit", (LIMIT,) * K, None, None),
    Situation("rate: one group on the limit, others 30 points within",
              (LIMIT, FAR, FAR), None, None),
    Situation("rate: one group 5 points beyond, others 10 within",
              (LIMIT - 0.05, LIMIT + 0.1, LIMIT + 0.1), None, "fail"),
    Situation("rate: one group 10 points beyond, others 10 within",
              (LIMIT - 0.1, LIMIT + 0.1, LIMIT + 0.1), None, "fail"),
    Situation("rate: all groups 10 points within", (LIMIT + 0.1,) * K, None, "pass"),
    Situation("baseline: no group changed", (LIMIT,) * K, (LIMIT,) * K, None),
    Situation("baseline: one group dropped by 5 points", (LIMIT - 0.05, LIMIT, LIMIT), (LIMIT,) * K,
              "fail"),
    Situation("baseline: one group dropped by 10 points", (LIMIT - 0.1, LIMIT, LIMIT), (LIMIT,) * K,
              "fail"),
]  # fmt: skip


class SimulatedRun:
    """A run directory as the gate reads it, of which only some rounds are finished."""

    path, samples_sha256 = Path("simulated"), ""

    def __init__(self, plan: store.Manifest, rows: pd.DataFrame) -> None:
        self.plan, self.manifest, self._rows = plan, plan, rows

    def begin(self, rounds: int) -> None:
        """Finish so many rounds."""
        assert self.plan.rounds is not None
        entry = self.plan.rounds.model_copy(update={"planned": rounds})
        faces = self.plan.faces[: K * entry.faces]
        self.manifest = self.plan.model_copy(update={"rounds": entry, "faces": faces})

    def samples(self) -> pd.DataFrame:
        return self._rows.iloc[: len(self.manifest.faces) * DRAWS]


def plan_of(situation: Situation, looks: int | None) -> store.Manifest:
    """The whole plan: one face of each group after the other, up to the budget."""
    words = {"race": list(GROUPS)}
    names = [f"{number:05d}" for number in range(K * situation.budget)]
    rounds = {"per_round": situation.per_round, "budget": situation.budget, "planned": ROUNDS}
    return store.check_manifest(
        {
            "schema": 1,
            "spec": {"group_by": ["race"], "conditions": ["clean"], "scales": [8]},
            "dataset": {"name": "simulated", "vocabulary": words, "labels_from": "people"},
            "attributes": {
                "name": "net",
                "vocabulary": words,
                "predicted_as": {"race": "race"},
                "labels_from": "people",
                "confusion": {"race": [[98, 1, 1], [1, 98, 1], [1, 1, 98]]},
            },
            "arms": {"arm": {"kind": "folder"}},
            "faces": [{"id": name, "sha256": name} for name in names],
            "units": [
                {
                    "id": "u0",
                    "arm": "arm",
                    "condition": "clean",
                    "scale": 8,
                    "draws": [[name, draw] for name in names for draw in range(DRAWS)],
                }
            ],
            "rounds": {**rounds, **({} if looks is None else {"looks": looks})},
        }
    )


def rows_of(kept: NDArray[np.bool_], plan: store.Manifest) -> pd.DataFrame:
    """Samples of outcomes (faces, draws), faces in the order of the plan."""
    n, group = len(kept), np.arange(len(kept)) % K
    words, outcome = np.array(GROUPS, dtype=object), kept.ravel()
    group, face = np.repeat(group, DRAWS), np.repeat(np.arange(n), DRAWS)
    return pd.DataFrame(
        {
            "face_id": np.array([each.id for each in plan.faces], dtype=object)[face],
            "arm": "arm",
            "condition": "clean",
            "scale": 8,
            "draw": np.tile(np.arange(DRAWS), n),
            "status": "ok",
            "feasible": outcome,
            "label_race": words[group],
            "hr_race": words[group],
            "sr_race": words[np.where(outcome, group, (group + 1) % K)],
        }
    )


def outcomes_of(
    random: np.random.Generator, usual: FloatArray, rates: tuple[float, ...]
) -> NDArray[np.bool_]:
    """Outcomes (faces, draws) whose faces have a number of their own each."""
    shape = (len(usual), DRAWS)
    has_usual = random.random(shape) < math.sqrt(ICC)
    drawn = np.where(has_usual, usual[:, None], random.random(shape))
    return np.asarray(drawn < np.resize(rates, len(usual))[:, None])


def decided(situation: Situation, looks: int | None, seed: int, folder: Path) -> tuple[str, int]:
    """Outcome of one gate, and the faces of each group that it took."""
    random = np.random.default_rng(fingerprint(seed, situation.name))
    plan = plan_of(situation, looks)
    usual = random.random(len(plan.faces))
    rows = rows_of(outcomes_of(random, usual, situation.rates), plan)
    rule = {"metric": "feasible_rate", "group_by": "race", "statistic": "worst_group",
            "at_least": LIMIT}  # fmt: skip
    baseline = None
    if situation.before is not None:
        rule = {"metric": "retention", "group_by": "race", "statistic": "worst_group",
                "no_worse_than_baseline_by": 0.0}  # fmt: skip
        # a face has one number on both sides with the chance that gives the correlation
        within = ICC * DRAWS / (1 + (DRAWS - 1) * ICC)
        is_shared = random.random(len(usual)) < CORRELATION / within
        theirs = np.where(is_shared, usual, random.random(len(usual)))
        before = rows_of(outcomes_of(random, theirs, situation.before), plan)
        baseline, held_to = folder / "baseline.json", check_rules({"rules": [rule]}, "rules")
        write_baseline(baseline, measure(plan, before, held_to.rules, "rules"))
    rules = folder / "rules.yaml"
    rules.write_text(yaml.safe_dump({"alpha": ALPHA, "rules": [rule]}))
    # as `harness.run.run_audit` goes on from round to round
    until, run = UntilDecided(rules, situation.budget, baseline, looks), SimulatedRun(plan, rows)
    until.check_plan(plan)
    for number in range(1, ROUNDS + 1):
        run.begin(number)
        if until.is_decided(run):  # type: ignore[arg-type]
            break
    assert until.result is not None and run.manifest.rounds is not None
    return until.result.outcome, run.manifest.rounds.faces


def repeated(
    situation: Situation, looks: int | None, repeats: int, seed: int, folder: Path
) -> list[Any]:
    """Outcome and faces of every repeat; those of an earlier process are read back."""
    path = folder / f"{fingerprint(situation.name, looks or 0, seed):016x}.json"
    rows: list[Any] = json.loads(path.read_text()) if path.exists() else []
    with tempfile.TemporaryDirectory() as place:
        for repeat in range(len(rows), repeats):
            of_repeat = fingerprint(seed, repeat)
            rows.append(decided(situation, looks, of_repeat, Path(place)))
            if repeat % 10 == 9 or repeat == repeats - 1:
                atomic_write(path, as_json(rows))
    return rows[:repeats]


def section(found: list[tuple[Situation, int | None, list[Any]]], seed: int) -> str:
    """Write the section of the page."""
    repeats, wrong, saved = max(len(rows) for _, _, rows in found), [], []
    for situation, looks, rows in found:
        n, how = len(rows), "betting" if looks is None else f"{looks} looks"
        counts = {kind: sum(each[0] == kind for each in rows) for kind in ("pass", "fail")}
        faces = float(np.mean([each[1] for each in rows]))
        change = f"{100 * (faces / situation.fixed - 1):+.0f} %"
        size = [str(situation.fixed), str(situation.budget)]
        if situation.right is None:
            holds = "yes" if max(counts.values()) <= allowed(n) else "**no**"
            wrong.append([situation.name, how, *size, *(share(c, n) for c in counts.values()),
                          str(n), change, holds])  # fmt: skip
        else:
            right = counts.pop(situation.right)
            saved.append([situation.name, how, *size, f"{situation.right} {share(right, n)}",
                          str(*counts.values()), str(n), change])  # fmt: skip
    return f"""{TITLE}

`python -m benchmarks.until --repeats {repeats} --seed {seed}`: from rules (and a baseline file) over rounds of simulated faces to verdicts, three groups, {DRAWS} draws a face, ICC {ICC}, a correlation of {CORRELATION} with the baseline, {ROUNDS} rounds to a budget of {CAP} times the sample of fixed size that shows ten points beyond the limit with 90 % power. Counts, of as many repeats as the tables say, have exact 95 % intervals in percent; faces are the mean number beside the sample of fixed size.

Truth on the limit, where a pass and a fail are both wrong; at most 35 of 500 of either may be, and of fewer as many as an error rate of 5 % exceeds once in forty studies:

{markdown(["situation", "judged by", "fixed size", "budget", "passes, [95 %]", "fails, [95 %]", "of", "faces", "holds"], wrong)}
Off the limit:

{markdown(["situation", "judged by", "fixed size", "budget", "right, [95 %]", "wrong", "of", "faces"], saved)}"""  # noqa: E501


def main() -> None:
    asked = arguments(__doc__, 300, "until")
    found: list[tuple[Situation, int | None, list[Any]]] = []
    with terminal.progress("sampling", "situations") as progress:
        for situation in SITUATIONS:
            for looks in (None, LOOKS):
                rows = repeated(situation, looks, asked.repeats, asked.seed, asked.out)
                found.append((situation, looks, rows))
                progress(len(found), 2 * len(SITUATIONS), 0)
    text = section(found, asked.seed)
    write_section(asked.page, TITLE, text)
    print(text)
    sys.exit("**no**" in text)


if __name__ == "__main__":
    main()
