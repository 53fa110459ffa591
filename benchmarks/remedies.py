"""Remedies on trial: what bias each removes from PULSE on the skewed twin, and what that costs.

    python -m benchmarks.remedies [--rebalanced FILE.safetensors] [--generator faces-skewed]

The arms are PULSE on a generator as it is, on a closer prior (``@full``, ``@full@tied``), with
starts spread over apparent groups in turn (``@strata``), and from a prior reweighted toward equal
groups (``@balanced``); ``--rebalanced`` adds a generator trained on with balanced photos, whose run
is a second one. PULSE on ``faces-balanced`` stands beside them: the same network, trained on equal
groups from the beginning. Faces, seeds and settings are the same for all.

Differences from PULSE are those of ``pulse-audit compare``, paired by face; all groups of a
measure hold together at 95 %. The largest gap is that of retention between two of the groups; the
bounds of a difference of two are those of each at 97.5 %. Starts are told apart by
``faces-attributes-check``, outputs are judged by ``faces-attributes``.

Runs are kept in ``runs/remedies`` and resume. Results of a generator and a data set take the place
of earlier ones in ``benchmarks/results/remedies.csv`` and ``remedies.md``; the others stay.
"""

import argparse
from pathlib import Path

from benchmarks.variants import FACES
from pulse_audit import terminal
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.store import Run

#: What follows a generator, and what that is called.
REMEDIES = {
    "": "PULSE",
    "@full": "full covariance",
    "@full@tied": "full covariance, tied latents",
    "@strata": "stratified starts",
    "@balanced": "reweighted prior",
}
BALANCED = "faces-balanced"


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
            "metrics": ["psnr", "fid"],
            "second_attributes": "none",
            "group_by": ["race"],
            "keep_images": "all",
            "threads": asked.threads,
        }
    )
    with terminal.progress(", ".join(generators), "draws") as progress:
        return run_audit(spec, out, progress)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remedies", description=__doc__)
    parser.add_argument("--generator", default="faces-skewed")
    parser.add_argument("--rebalanced", type=Path)
    parser.add_argument("--dataset", default="fairface")
    parser.add_argument("--data-root", type=Path, default=FACES)
    parser.add_argument("--per-group", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/remedies"))
    asked = parser.parse_args()
    place = f"{asked.dataset}-{asked.per_group}x{asked.draws}"
    arms = [f"{asked.generator}{remedy}" for remedy in REMEDIES]
    arms += [BALANCED] if asked.generator != BALANCED else []
    audit(arms, asked, asked.out / f"{asked.generator}-{place}")


if __name__ == "__main__":
    main()
