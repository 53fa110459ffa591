"""Remedies on trial: what bias each removes from PULSE on the skewed twin, and what that costs.

    python -m benchmarks.remedies [--rebalanced FILE.safetensors] [--remedy @balanced ...]

The arms are PULSE on a generator as it is, on a closer prior (``@full``, ``@full@tied``), with
starts spread over apparent groups in turn (``@strata``), and from a prior reweighted toward equal
groups (``@balanced``); ``--rebalanced`` adds a generator trained on with balanced photos, whose run
is a second one. PULSE on ``faces-balanced`` stands beside them: the same network, trained on equal
groups from the beginning. Faces, seeds and settings are the same for all.

Differences from PULSE are those of ``pulse-audit compare``, paired by face; all groups of a
measure hold together at 95 %. The largest gap is that of retention between two of the groups; the
bounds of a difference of two are those of each at 97.5 %. Starts are told apart by
``faces-attributes-check``, outputs are judged by ``faces-attributes``. KID is that of the features
of ``faces-attributes``, which ship: low where outputs and originals are alike to this network, and
of another scale than Inception's.

Runs are kept in ``runs/remedies`` and resume. Results of a generator and a data set take the place
of earlier ones in ``benchmarks/results/remedies.csv`` and ``remedies.md``; the others stay.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.__main__ import RESULTS, machine, write_section
from benchmarks.variants import FACES, interval
from pulse_audit import summary, terminal
from pulse_audit.fairness import parity
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.stats.intervals import proportion_interval
from pulse_audit.store import Run
from pulse_audit.summary.compare import compare_runs
from pulse_audit.types import Estimate

#: What follows a generator, and what that is called.
REMEDIES = {
    "": "PULSE",
    "@full": "full covariance",
    "@full@tied": "full covariance, tied latents",
    "@strata": "stratified starts",
    "@balanced": "reweighted prior",
}
BALANCED = "faces-balanced"
#: A measure, its group, and whether it is the value itself or the difference from PULSE.
Key = tuple[str, str, str]
#: Columns: heading, the measure, factor of display and decimals.
BIAS = {
    "retention, %": ("retention", "all", "value", 100.0, 0),
    "less PULSE's, points": ("retention", "all", "less PULSE's", 100.0, 0),
    "largest gap, points": ("retention", "largest gap", "value", 100.0, 0),
    "largest gap less PULSE's": ("retention", "largest gap", "less PULSE's", 100.0, 0),
    "White share of outputs, %": ("White share", "all", "value", 100.0, 0),
    "White share less PULSE's": ("output_share", "White", "less PULSE's", 100.0, 0),
}
PRICE = {
    "feasible, %": ("feasible_rate", "all", "value", 100.0, 0),
    "feasible less PULSE's": ("feasible_rate", "all", "less PULSE's", 100.0, 0),
    "PSNR less PULSE's, dB": ("psnr", "all", "less PULSE's", 1.0, 1),
    "KID, attribute features": ("kid", "all", "value", 1.0, 3),
    "pairs of draws of other groups, %": ("pairs_apart", "all", "value", 100.0, 0),
    "seconds": ("seconds", "all", "value", 1.0, 1),
}


def audit(generators: list[str], asked: argparse.Namespace, out: Path) -> Run:
    """Audit PULSE on generators, or go on with what is there."""
    spec = make_spec(
        {
            "dataset": asked.dataset,
            "data_root": asked.data_root if asked.dataset == "fairface" else None,
            "generators": generators,
            "arms": ["pulse"],
            "per_group": asked.per_group,
            "draws": asked.draws,
            "metrics": ["psnr"],
            "second_attributes": "none",
            "group_by": ["race"],
            "keep_images": "all",
            "threads": asked.threads,
        }
    )
    with terminal.progress(", ".join(generators), "draws") as progress:
        return run_audit(spec, out, progress)


def measures(run: Run, arm: str, base: Run, baseline: str) -> tuple[dict[Key, Estimate], int]:
    """What is measured of an arm, and its differences from the baseline; also the faces."""
    rows = run.samples().query("arm == @arm").set_index("face_id")
    found: dict[Key, Estimate] = {}
    flags = {
        "feasible_rate": rows["feasible"].eq(True),
        "retention": rows["sr_race"] == rows["label_race"],
        "White share": rows["sr_race"] == "White",
    }
    for name, values in flags.items():
        found[name, "all", "value"] = proportion_interval(values, values.index)
    compared = compare_runs(run, base, arm, baseline)
    for d in compared.differences if arm != baseline else ():
        group = "largest gap" if d.statistic == "max_gap" else d.group
        found[d.metric, group, "less PULSE's"] = d.estimate
    for price in compared.prices:
        found[price.name, "all", "value"] = price.first
    # The gap of the arm itself, as in a report.
    codes = rows["label_race"].astype("category").cat.codes
    numbers = {face: n for n, face in enumerate(dict.fromkeys(rows.index))}
    gap = parity.compare(
        flags["retention"], [numbers[face] for face in rows.index], codes,
        proportion=True, better="higher", seed=0,
    )["max_gap"]  # fmt: skip
    found["retention", "largest gap", "value"] = gap.estimate
    return found, compared.faces


def tables(found: dict[str, dict[Key, Estimate]]) -> Iterator[str]:
    """Three tables, a row an arm: bias, price, retention by group."""
    groups = {key[1] for of in found.values() for key in of if key[0] == "retention"}
    by_group = {
        f"{group}": ("retention", group, "less PULSE's", 100.0, 0)
        for group in sorted(groups - {"all", "largest gap"})
    }
    for columns in (BIAS, PRICE, by_group):
        yield "| | " + " | ".join(columns) + " |"
        yield "|---" * (len(columns) + 1) + "|"
        for name, of in found.items():
            cells = [
                interval(of[column[:3]], column[3], column[4]) if column[:3] in of else "–"
                for column in columns.values()
            ]
            yield f"| {name} | {' | '.join(cells)} |"
        yield ""


def write(title: str, found: dict[str, dict[Key, Estimate]], section: Sequence[str]) -> None:
    """Put the results of a generator and a data set in the place of earlier ones."""
    table, page = RESULTS / "remedies.csv", RESULTS / "remedies.md"
    rows = pd.DataFrame(
        {
            "run": title, "arm": arm, "measure": key[0], "group": key[1], "kind": key[2],
            "value": e.value, "low": e.low, "high": e.high,
            "confidence": e.confidence, "faces": e.n_faces, "method": e.method,
        }
        for arm, of in found.items()
        for key, e in of.items()
    )  # fmt: skip
    if table.exists():
        earlier = pd.read_csv(table)
        rows = pd.concat([earlier[earlier["run"] != title], rows])
    rows.to_csv(table, index=False, float_format="%.6g")
    head = (
        "# Remedies on trial\n\nWhat is compared is said in `benchmarks/remedies.py`; every number "
        "with its interval's method is in `remedies.csv`. Brackets: 95 %; differences hold "
        "together over the groups of a measure. The last table is the difference of retention "
        "from PULSE's, by the labelled group of the face, in points.\n"
    )
    write_section(page, head, title, section)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remedies", description=__doc__)
    parser.add_argument("--generator", default="faces-skewed")
    parser.add_argument("--rebalanced", type=Path)
    parser.add_argument("--remedy", nargs="*", choices=list(REMEDIES), default=list(REMEDIES)[1:])
    parser.add_argument("--dataset", default="fairface")
    parser.add_argument("--data-root", type=Path, default=FACES)
    parser.add_argument("--per-group", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/remedies"))
    asked = parser.parse_args()
    place = f"{asked.dataset}-{asked.per_group}x{asked.draws}"
    arms = [f"{asked.generator}{remedy}" for remedy in ("", *asked.remedy)]
    arms += [BALANCED] if asked.generator != BALANCED else []
    run = audit(arms, asked, asked.out / f"{asked.generator}-{place}")
    baseline = f"pulse:{asked.generator}"
    names = {f"pulse:{asked.generator}{end}": name for end, name in REMEDIES.items()}
    found: dict[str, dict[Key, Estimate]] = {}
    for arm, name in (names | {f"pulse:{BALANCED}": f"PULSE on {BALANCED}"}).items():
        if arm in run.manifest.arms:
            found[name], faces = measures(run, arm, run, baseline)
    if asked.rebalanced:
        other = audit([str(asked.rebalanced)], asked, asked.out / f"rebalanced-{place}")
        (arm,) = other.manifest.arms
        found["trained on with balanced photos"], faces = measures(other, arm, run, baseline)
    rows = run.samples()
    originals = rows[~rows["face_id"].duplicated()]
    read_right = (originals["hr_race"] == originals["label_race"]).mean()
    prepared, scale = run.manifest.prepared, int(rows["scale"].iloc[0])
    told = (
        f"{faces} faces of {asked.dataset}, {asked.draws} draws each, {prepared.resolution} px "
        f"from {prepared.resolution // scale} px. The attribute model reads "
        f"{100 * read_right:.0f} % of the originals as people labelled them."
    )
    starts = [
        f"{name}: {note}."
        for arm, name in names.items()
        for note in run.manifest.arms[arm].notes
        if "starts" in note
    ]
    if missing := summary.read(run.path).unavailable.get("kid"):
        starts.append(f"KID is unavailable, because {missing}.")
    facts = machine()
    ran = f"On {facts['cpu']}, torch {facts['torch']}, beside other work: compare times within."
    section = [told, "", *tables(found), *starts, "", ran]
    # A table with a generator trained on, often of fewer faces, stands beside the other.
    beside = ", trained on" if asked.rebalanced else ""
    write(f"{asked.generator}{beside}, {asked.dataset}", found, section)


if __name__ == "__main__":
    main()
