"""What PULSE shows beside exact draws of the posterior, at the same eps and on the same inputs.

    python -m benchmarks.posterior [--generator NAME] [--eps MSE] [--per-group 20] [--draws 8]

Inputs are faces that each generator made itself (``samples:GENERATOR``). Three arms answer them:
the official search, stopped at its first feasible image; draws of the posterior under the prior
that these searches start from (``posterior-pulse``); and draws of the generator's own posterior
(``posterior``). Compared are the shares of apparent groups on the inputs that both banks keep, as
the total variation between two arms. PULSE against ``posterior-pulse`` is what the search does,
``posterior-pulse`` against ``posterior`` what its prior does.

Intervals are percentiles of 2,000 resamplings of the faces. The sampling floor is what two samples
of one distribution, of the same size, differ by: the draws of both arms are shuffled within every
face 2,000 times. Runs are kept in ``runs/posterior`` and resume; the tables are written to
``benchmarks/results/posterior.md``.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.__main__ import RESULTS, machine
from pulse_audit import terminal
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.search.posterior import LEAST

REPLICATES = 2_000
ARMS = {"PULSE": "pulse", "its prior": "posterior-pulse", "own posterior": "posterior"}
PAIRS = (
    ("search", "PULSE", "its prior"),
    ("prior", "its prior", "own posterior"),
    ("both", "PULSE", "own posterior"),
)


def counts_by_face(rows: pd.DataFrame, words: Sequence[str]) -> NDArray[np.int64]:
    """Counts (faces, groups) of the apparent groups of an arm's feasible outputs."""
    shown = rows[rows["feasible"]]
    table = pd.crosstab(shown["face_id"], shown["sr_race"])
    faces = sorted(rows["face_id"].unique())
    return table.reindex(index=faces, columns=words, fill_value=0).to_numpy(dtype=np.int64)


def shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Shares of the groups, of counts (..., faces, groups)."""
    total = counts.sum(-2)
    return total / total.sum(-1, keepdims=True)


def variation(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """Total variation between the shares of two arms."""
    return np.abs(shares(one) - shares(other)).sum(-1) / 2


def floor(
    one: NDArray[np.int64], other: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    """Total variations of two arms whose draws are shuffled within every face."""
    found = []
    for _ in range(REPLICATES):
        # Of each face as many of the pooled draws as the first arm has.
        first = np.array(
            [
                random.multivariate_hypergeometric(a + b, a.sum())
                for a, b in zip(one, other, strict=True)
            ]
        )
        found.append(variation(first, one + other - first))
    return np.array(found)


def percent(value: float, ends: Sequence[float]) -> str:
    """``12 [8, 17]``, in per cent."""
    low, high = (100 * end for end in ends)
    return f"{100 * value:.0f} [{low:.0f}, {high:.0f}]"


def study(generator: str, eps: float, per_group: int, draws: int) -> list[str]:
    """Run one audit, and return its part of the page."""
    spec = make_spec(
        {
            "dataset": f"samples:{generator}",
            "generators": [generator],
            "arms": [f"{form}:{generator}" for form in ("posterior", "posterior-pulse")],
            "search": "fast",
            "eps": eps,
            "per_group": per_group,
            "draws": draws,
            "metrics": ["psnr"],
            "keep_images": "none",
            "threads": 1,
        }
    )
    out = Path("runs/posterior") / f"{generator}-{eps:g}-{per_group}x{draws}"
    with terminal.progress(f"{generator}, eps {eps:g}", "pieces of work") as progress:
        run = run_audit(spec, out, progress)
    rows, words = run.samples(), run.manifest.dataset.vocabulary["race"]
    arms = {name: rows[rows["arm"] == f"{form}:{generator}"] for name, form in ARMS.items()}

    # Inputs that each arm answers, and those that all of them do.
    answered = {name: arm[arm["feasible"]] for name, arm in arms.items()}
    ids = {name: set(arm["face_id"]) for name, arm in answered.items()}
    n_faces, kept = len(run.manifest.faces), set.intersection(*ids.values())
    kept_rows = {name: arm[arm["face_id"].isin(kept)] for name, arm in arms.items()}
    counts = {name: counts_by_face(arm, words) for name, arm in kept_rows.items()}

    lines = [
        f"## {generator}, eps {eps:g} (RMSE {eps**0.5:.2f})",
        "",
        f"{n_faces} inputs of 8 px, {draws} draws each. Dropped because the bank holds fewer than "
        f"{LEAST} samples within eps: {100 - 100 * len(ids['own posterior']) / n_faces:.0f} % (own "
        f"prior), {100 - 100 * len(ids['its prior']) / n_faces:.0f} % (PULSE's prior); compared "
        f"are the {len(kept)} that all arms answer. PULSE is feasible in "
        f"{100 * arms['PULSE']['feasible'].mean():.0f} % of draws. Mean squared error of the "
        "outputs on these inputs: "
        + ", ".join(
            f"{name} {arm.loc[arm['feasible'], 'downscale_error'].mean():.4f}"
            for name, arm in kept_rows.items()
        )
        + ".",
        "",
        "Groups of the compared inputs, and of the outputs, % with 95 % intervals; agreement is "
        "the share of outputs with the model's label of their input.",
        "",
        "| | inputs | " + " | ".join(ARMS) + " |",
        "|---|---" + "|---" * len(ARMS) + "|",
    ]
    random = np.random.default_rng(0)
    resampled = random.integers(len(kept), size=(REPLICATES, len(kept)))
    truth = kept_rows["PULSE"].drop_duplicates("face_id")["label_race"]
    ends = {n: np.quantile(shares(c[resampled]), (0.025, 0.975), axis=0) for n, c in counts.items()}
    for i, word in enumerate(words):
        cells = [percent(shares(counts[n])[i], ends[n][:, i]) for n in ARMS]
        lines.append(f"| {word} | {100 * (truth == word).mean():.0f} | {' | '.join(cells)} |")
    cells = []
    for rows_of_arm in kept_rows.values():
        shown = rows_of_arm[rows_of_arm["feasible"]]
        by_face = (shown["sr_race"] == shown["label_race"]).groupby(shown["face_id"]).mean()
        means = by_face.to_numpy()[resampled].mean(1)
        cells.append(percent(by_face.mean(), np.quantile(means, (0.025, 0.975))))
    lines += [
        f"| agreement | | {' | '.join(cells)} |",
        "",
        "| what differs | total variation, points | sampling floor: mean, 95 % quantile | p |",
        "|---|---|---|---|",
    ]
    for label, one, other in PAIRS:
        a, b = counts[one], counts[other]
        value, chance = float(variation(a, b)), floor(a, b, random)
        ends_of = np.quantile(variation(a[resampled], b[resampled]), (0.025, 0.975))
        p = (1 + (chance >= value).sum()) / (1 + REPLICATES)
        quantile = 100 * np.quantile(chance, 0.95)
        lines.append(
            f"| {label}: {one} against {other} | {percent(value, ends_of)} | "
            f"{100 * chance.mean():.1f}, {quantile:.1f} | {p:.4f} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.posterior", description=__doc__)
    parser.add_argument("--generator", action="append")
    parser.add_argument("--eps", action="append", type=float)
    parser.add_argument("--per-group", type=int, default=20)
    parser.add_argument("--draws", type=int, default=8)
    asked = parser.parse_args()
    began, parts = time.process_time(), []
    for generator in asked.generator or ["faces-balanced", "faces-skewed"]:
        for eps in asked.eps or [0.015, 0.025]:
            parts += study(generator, eps, asked.per_group, asked.draws)
    command = " ".join(["python -m benchmarks.posterior", *sys.argv[1:]])
    minutes, facts = (time.process_time() - began) / 60, machine()
    head = [
        "# PULSE beside exact draws of the posterior",
        "",
        f"`{command}` on {facts['cpu']}, Python {facts['python']}, torch {facts['torch']}: "
        f"{minutes:.0f} CPU minutes, less what was in the cache. Banks of 60,000 samples; what is "
        "compared is said in `benchmarks/posterior.py`.",
        "",
    ]
    (RESULTS / "posterior.md").write_text("\n".join([*head, *parts]))


if __name__ == "__main__":
    main()
