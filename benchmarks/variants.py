"""What a closer prior costs the search: four variants of PULSE on the same real faces.

    python -m benchmarks.variants [--generator mobilestylegan-ffhq@256 --device cuda --per-group 5]

Latents are drawn from PULSE's *diagonal* Gaussian or from one of the *full* covariance of the
mapped latents, and searched *per layer* or as one for all layers, *tied*: the arms ``GENERATOR``,
``GENERATOR@full``, ``GENERATOR@tied`` and ``GENERATOR@full@tied`` of one audit, the first the
official one. Faces are FairFace's validation sample (``../shared/fairface-sample``), none of which
the twins were trained on; ``--dataset`` and ``--data-root`` choose others.

Of each variant: the shares of draws that are feasible and that keep the apparent group of their
face (of all draws, and of feasible ones), with their differences from the official variant on the
same faces; the mean squared error that was reached; diversity, as the variance of a pixel between
the draws of a face and the share of pairs of draws that show different groups; steps and seconds.
``official`` takes all of its steps; ``fast`` tells how many are needed, being the same search left
at its first feasible iterate. Draws of a face are one cluster in every interval: Wilson at the
effective sample size for shares, Tango's paired interval for their differences, BCa for means.

Runs are kept in ``runs/variants`` and resume. Results of a generator and a search take the place of
earlier ones in ``benchmarks/results/variants.csv`` and ``variants.md``; the others stay.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.__main__ import RESULTS, machine, write_section
from pulse_audit import terminal
from pulse_audit.harness.run import run_audit
from pulse_audit.harness.spec import make_spec
from pulse_audit.names import parse_generator
from pulse_audit.seeding import fingerprint
from pulse_audit.stats.bootstrap import cluster_bca
from pulse_audit.stats.intervals import proportion_interval
from pulse_audit.stats.paired import paired_proportions
from pulse_audit.types import Estimate

FACES = Path(__file__).resolve().parents[2] / "shared" / "fairface-sample"
#: Full covariance, tied.
VARIANTS = {
    "diagonal, per layer (PULSE)": (False, False),
    "full, per layer": (True, False),
    "diagonal, tied": (False, True),
    "full, tied": (True, True),
}
#: Heading, factor of display and decimals of what is measured, in the order of the tables.
MEASURES = {
    "feasible": ("feasible, %", 100, 0),
    "feasible less PULSE's": ("less PULSE's, points", 100, 0),
    "error": ("MSE / 1e-3", 1000, 2),
    "retention": ("retention, %", 100, 0),
    "retention less PULSE's": ("less PULSE's, points", 100, 0),
    "retention, feasible": ("retention of feasible draws, %", 100, 0),
    "pixel variance": ("pixel variance / 1e-3", 1000, 1),
    "pixel variance, feasible": ("of feasible draws", 1000, 1),
    "different groups": ("pairs of different groups, %", 100, 0),
    "steps": ("steps", 1, 0),
    "seconds": ("seconds", 1, 3),
}
Found = Iterator[tuple[str, Estimate]]


def mean(name: str, values: pd.Series) -> Found:
    """Mean of a number a draw or a face, by face; nothing where none was measured."""
    known = values.dropna()
    if len(known):
        yield name, cluster_bca(known, known.index, seed=fingerprint("variants", name))


def share(name: str, values: pd.Series) -> Found:
    """Share of draws, by face."""
    if len(values):
        yield name, proportion_interval(values, values.index)


def estimates(rows: pd.DataFrame, official: pd.DataFrame, run: Path) -> Found:
    """What is measured of an arm, beside the official one; both have a row a draw, by face."""
    retained, feasible = rows["sr_race"] == rows["label_race"], rows["feasible"].eq(True)
    for name, values, own in (
        ("feasible", feasible, official["feasible"].eq(True)),
        ("retention", retained, official["sr_race"] == official["label_race"]),
    ):
        yield from share(name, values)
        if rows is not official:
            by_face = values.groupby(level=0).mean() - own.groupby(level=0).mean()
            yield f"{name} less PULSE's", paired_proportions(by_face)
    yield from share("retention, feasible", retained[feasible])
    for name in ("error", "steps", "seconds"):
        yield from mean(name, rows["downscale_error" if name == "error" else name].astype(float))

    # Pairs of draws of a face: half the mean squared difference is the variance of a pixel.
    pairs = pd.DataFrame(
        [
            {
                "face": face,
                "pixel variance": half_difference(run / one.image, run / other.image),
                "feasible": bool(one.feasible and other.feasible),
                "different groups": float(one.sr_race != other.sr_race),
            }
            for face, draws in rows.dropna(subset=["image", "sr_race"]).groupby(level=0)
            for one, other in combinations(draws.itertuples(), 2)
        ],
        columns=["face", "pixel variance", "feasible", "different groups"],
    ).set_index("face")
    yield from mean("pixel variance", pairs["pixel variance"])
    yield from mean("pixel variance, feasible", pairs["pixel variance"][pairs["feasible"].eq(True)])
    yield from mean("different groups", pairs["different groups"])


def half_difference(one: Path, other: Path) -> float:
    """Half the mean squared difference of two kept outputs, on the scale [0, 1]."""
    pictures = []
    for path in (one, other):
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture, dtype=np.float64) / 255)
    return float(np.square(pictures[0] - pictures[1]).mean() / 2)


def study(generator: str, search: str, asked: argparse.Namespace) -> tuple[pd.DataFrame, str]:
    """Audit the variants of a generator; return all estimates, and what they were made on."""
    base = parse_generator(generator)
    variants = {name: replace(base, full=f, tied=t) for name, (f, t) in VARIANTS.items()}
    spec = make_spec(
        {
            "dataset": asked.dataset,
            "data_root": asked.data_root,
            "generators": [str(variant) for variant in variants.values()],
            "arms": ["pulse"],
            "search": search,
            "per_group": asked.per_group,
            "limit": asked.limit,
            "draws": asked.draws,
            "metrics": ["psnr"],
            "second_attributes": "none",
            "group_by": ["race"],
            "keep_images": "all",
            "device": asked.device,
            "threads": asked.threads,
        }
    )
    place = f"{base.stem}-{search}-{asked.dataset}-{asked.per_group}x{asked.draws}-{asked.device}"
    place += f"-first-{asked.limit}" if asked.limit else ""
    out = asked.out / re.sub(r"[^\w.@-]+", "-", place)
    with terminal.progress(f"{generator}, {search}", "pieces of work") as progress:
        run = run_audit(spec, out, progress)

    rows = run.samples().set_index("face_id")
    arms = {name: rows[rows["arm"] == f"pulse:{v.stem}"] for name, v in variants.items()}
    official = next(iter(arms.values()))
    table = pd.DataFrame(
        {
            "generator": base.stem, "search": search, "variant": variant, "measure": name,
            "value": e.value, "low": e.low, "high": e.high,
            "faces": e.n_faces, "draws": e.n_draws, "method": e.method,
        }
        for variant, arm in arms.items()
        for name, e in estimates(arm, official, out)
    )  # fmt: skip
    originals = official[~official.index.duplicated()]
    read_right = (originals["hr_race"] == originals["label_race"]).mean()
    prepared, scale = run.manifest.prepared, int(rows["scale"].iloc[0])
    told = (
        f"{len(originals)} faces of {asked.dataset}, {asked.draws} draws each, "
        f"{prepared.resolution} px from {prepared.resolution // scale} px, crop {prepared.crop}, "
        f"on {asked.device}. The attribute model reads {100 * read_right:.0f} % of the originals "
        "as people labelled them."
    )
    return table, told


def tables(found: pd.DataFrame) -> Iterator[str]:
    """The estimates of one search, a row a variant."""
    cells = {
        (row.variant, row.measure): interval(row, *MEASURES[row.measure][1:])
        for row in found.itertuples()
    }
    for columns in (list(MEASURES)[:6], list(MEASURES)[6:]):
        yield "| | " + " | ".join(MEASURES[name][0] for name in columns) + " |"
        yield "|---" * (len(columns) + 1) + "|"
        for variant in VARIANTS:
            yield f"| {variant} | {' | '.join(cells.get((variant, n), '–') for n in columns)} |"
        yield ""


def interval(row: Estimate, factor: float, decimals: int) -> str:
    """``12 [8, 17]``, as it is shown."""
    ends = (row.value, row.low, row.high)
    value, low, high = (f"{round(factor * end, decimals) + 0.0:.{decimals}f}" for end in ends)
    return f"{value} (one face)" if np.isnan(row.low) else f"{value} [{low}, {high}]"


def write(found: pd.DataFrame, section: Sequence[str]) -> None:
    """Put the results of a generator and a search in the place of earlier ones."""
    table, page, key = RESULTS / "variants.csv", RESULTS / "variants.md", ["generator", "search"]
    generator, search = found[key].iloc[0]
    if table.exists():
        earlier = pd.read_csv(table)
        replaced = (earlier["generator"] == generator) & (earlier["search"] == search)
        found = pd.concat([earlier[~replaced], found])
    found.sort_values(key, kind="stable").to_csv(table, index=False, float_format="%.6g")

    head = (
        "# Four variants of the search\n\nWhat is compared is said in `benchmarks/variants.py`; "
        "every number with its interval's method is in `variants.csv`. Brackets: 95 %.\n"
    )
    write_section(page, head, f"{generator}, {search}", section)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=__doc__)
    parser.add_argument("--generator", action="append")
    parser.add_argument("--search", action="append", choices=["official", "paper", "fast"])
    parser.add_argument("--dataset", default="fairface")
    parser.add_argument("--data-root", type=Path, default=FACES)
    parser.add_argument("--per-group", type=int, default=15)
    parser.add_argument("--limit", type=int, help="stop after this many faces, a trial")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/variants"))
    asked = parser.parse_args()
    command, facts = " ".join(["python -m benchmarks.variants", *sys.argv[1:]]), machine()
    where = facts["gpu"] if asked.device.startswith("cuda") else facts["cpu"]
    for search in asked.search or ["official", "fast"]:
        for generator in asked.generator or ["faces-balanced", "faces-skewed"]:
            found, told = study(generator, search, asked)
            ran = f"`{command}` on {where}, torch {facts['torch']}."
            write(found, [told, "", *tables(found), ran])


if __name__ == "__main__":
    main()
