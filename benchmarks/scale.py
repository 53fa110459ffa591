"""What a large audit takes: ``python -m benchmarks.scale`` simulates one; ``--rows N`` measures.

The simulation shares the work units of FairFace (97,698 faces, 10 draws, 4 arms) out among 8 and 64
GPUs, as `harness.workers` and ``--shard`` do, and counts what is stored. Bytes and the time of
checking a shard are measured here; the seconds of a draw are assumptions, printed with the results.
"""

import argparse
import heapq
import json
import resource
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pulse_audit import store
from pulse_audit.seeding import sha256
from pulse_audit.store.features import as_npz

PUBLISHED = Path(__file__).parents[1] / "reports" / "default" / "data"
FACES, DRAWS, ARMS, BATCH = 97_698, 10, 4, 640


# --- A run of any size ---


def make_run(folder: Path, n_faces: int, n_draws: int, width: int, features: bool) -> store.Run:
    """Write a run of four arms with all draws of ``width`` faces in a work unit.

    A face has the labels of a face of the default audit; what is measured on its draws are those of
    random draws of that face by the same arm, so that rates and correlations are real ones.
    """
    rng = np.random.default_rng(0)
    content = json.loads((PUBLISHED / "manifest.json").read_text())
    content["arms"]["lanczos"] = {**content["arms"]["bicubic"], "kind": "lanczos"}
    published = pd.read_parquet(PUBLISHED / "samples.parquet")
    others = published[published["arm"] == "bicubic"].assign(arm="lanczos")
    published = pd.concat([published, others], ignore_index=True).assign(image=None)

    # Faces like published ones, the groups in turn as in a balanced draw.
    groups: dict[str, list[dict]] = {}
    for face in content["faces"]:
        groups.setdefault(face["labels"]["race"], []).append(face)
    like = [
        members[int(rng.integers(len(members)))]
        for number in range(n_faces)
        for members in [list(groups.values())[number % len(groups)]]
    ]
    ids = [f"val/{number}.jpg" for number in range(n_faces)]
    content["faces"] = [
        {**face, "id": name, "sha256": sha256(name.encode())}
        for face, name in zip(like, ids, strict=True)
    ]
    starts = [(s, arm) for s in range(0, n_faces, width) for arm in content["arms"]]
    content["units"] = [
        {
            "id": f"u{number:05d}", "arm": arm, "condition": "clean", "scale": 4,
            "draws": [
                (name, draw) for name in ids[start : start + width] for draw in range(n_draws)
            ],
        }
        for number, (start, arm) in enumerate(starts)
    ]  # fmt: skip
    content["status"] = "complete"
    content["spec"] |= {"draws": n_draws, "per_group": n_faces // 7, "keep_images": "none"}
    if not features:
        content["features"] = {"network": None, "dim": None, "why": "left out of this benchmark"}
    folder.mkdir(parents=True)
    run = store.create_run(folder, store.check_manifest(content))
    write_shards(run, published, {n: f["id"] for n, f in zip(ids, like, strict=True)}, rng)
    return run


def write_shards(
    run: store.Run, published: pd.DataFrame, like: dict[str, str], rng: np.random.Generator
) -> None:
    """Write the shards of a run from published rows of the faces that its own are like."""
    schema, dim = run.schema, run.features_dim
    names = [column for column in published if column in schema.names]
    table = pa.Table.from_pandas(published[names], preserve_index=False)
    rows_of = {k: rows.index.to_numpy() for k, rows in published.groupby(["arm", "face_id"])}
    for unit in run.manifest.units:
        ids, draws = zip(*unit.draws, strict=True)
        rows = table.take(pa.array([rng.choice(rows_of[unit.arm, like[i]]) for i in ids]))
        keys = {"face_id": ids, "draw": draws, "arm": [unit.arm] * len(ids)}
        columns = [
            pa.array(list(keys[field.name]), field.type)
            if field.name in keys
            else rows[field.name].cast(field.type)
            if field.name in names
            else pa.nulls(len(ids), field.type)
            for field in schema
        ]
        shard = store.as_parquet(pa.table(columns, schema=schema), statistics=False)
        files = {f"samples/{unit.id}.parquet": shard}
        sums = f"{sha256(shard)}  {unit.id}.parquet\n"
        if dim is not None:
            vectors = as_npz(sr_features=rng.standard_normal((len(ids), dim)).astype(np.float32))
            files[f"features/{unit.id}.npz"] = vectors
            sums += f"{sha256(vectors)}  ../features/{unit.id}.npz\n"
        run_files = {**files, f"samples/{unit.id}.sha256": sums.encode()}
        for name, data in run_files.items():
            path = run.path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)


# --- The simulation ---


@dataclass(frozen=True)
class Costs:
    """Seconds: assumptions, but for those that `measured_bytes` and the command line measure."""

    search: float = 0.2  # of a draw: 100 steps at 1024 px and 2 ms an image
    measure: float = 0.1  # of a draw
    decode: float = 0.005  # of a photo, at planning
    load: float = 60.0  # of the models
    write: float = 0.05  # of a unit, by the one process that writes
    reference: float = 0.1  # of an original that references are fitted on


def makespan(workers: int, costs: Costs, lost_an_hour: float, seed: int = 0) -> dict[str, float]:
    """Simulate one process that writes and workers that are lost at a rate; hours."""
    rng = np.random.default_rng(seed)
    faces = BATCH // DRAWS
    n_units = -(-FACES // faces) * ARMS
    plan = FACES * costs.decode + 2000 * costs.reference
    # Units are not alike: arms differ, and machines do.
    searched = np.resize([1.0, 1.0, 0.0, 0.0], n_units)
    seconds = BATCH * (costs.measure + costs.search * searched) * rng.lognormal(0, 0.1, n_units)
    queue = list(seconds[::-1])
    writer = busy = lost = 0.0
    # Events: when a worker is done with its unit, or lost with it; the unit's seconds.
    events: list[tuple[float, bool, float]] = []

    def begin(at: float) -> None:
        if queue:
            unit = queue.pop()
            alive = rng.exponential(3600 / lost_an_hour) if lost_an_hour else np.inf
            heapq.heappush(events, (at + min(unit, alive), alive < unit, unit))

    for _ in range(workers):
        begin(plan + costs.load)
    while events:
        now, is_lost, unit = heapq.heappop(events)
        if is_lost:
            # Half of the unit on average; another worker loads the models.
            lost += unit / 2 + costs.load
            queue.insert(0, unit)
            begin(now + costs.load)
            continue
        # The next unit is given out once the result is written.
        writer, busy = max(writer, now) + costs.write, busy + costs.write
        begin(writer)
    return {
        "hours": writer / 3600, "planning": plan / 3600, "GPU hours": seconds.sum() / 3600,
        "writer busy": busy / writer, "lost GPU hours": lost / 3600, "units": float(n_units),
    }  # fmt: skip


def measured_bytes() -> dict[str, float]:
    """Bytes of a draw in a shard, in features, and in the manifest, of a run of 5,600 draws."""
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        run = make_run(Path(place, "run"), 140, DRAWS, BATCH // DRAWS, features=True)
        features = sum(path.stat().st_size for path in (run.path / "features").iterdir())
        draws = run.manifest.planned_draws
        started = time.process_time()
        run.samples()
        reading = (time.process_time() - started) / len(run.manifest.units)
        # Rows of this run repeat published ones, which compresses well: the published are counted.
        published = pd.read_parquet(PUBLISHED / "samples.parquet")
        rows = pa.Table.from_pandas(published, preserve_index=False)
        return {
            "samples": len(store.as_parquet(rows, statistics=False)) / len(rows),
            "features": features / draws,
            "manifest": (run.path / "manifest.json").stat().st_size / draws,
            "reading": reading,
        }


def simulate() -> str:
    """Markdown of the simulation."""
    # It needs torch, which reading a run does not: its memory would count below.
    from pulse_audit.harness.plan import MAX_DRAWS

    costs, size = Costs(), measured_bytes()
    draws = FACES * DRAWS * ARMS
    lines = [
        "| GPUs | lost workers an hour and GPU | hours | of them planning | GPU hours | lost GPU "
        "hours | writer busy |",
        "|---|---|---|---|---|---|---|",
    ]
    for workers in (8, 64):
        for rate in (0.0, 0.01, 0.1):
            found = makespan(workers, costs, rate)
            lines.append(
                f"| {workers} | {rate:g} | {found['hours']:.1f} | {found['planning']:.2f} | "
                f"{found['GPU hours']:.0f} | {found['lost GPU hours']:.2f} | "
                f"{found['writer busy']:.1%} |"
            )
    units = makespan(8, costs, 0.0)["units"]
    lines += [
        "",
        f"Assumed: {costs}; a unit has {BATCH} draws, half of the arms search.",
        "",
        f"Stored: {units:,.0f} work units; a draw takes {size['samples']:.0f} bytes in its shard, "
        f"{size['features']:.0f} in features of 256 numbers (eight times that for Inception's "
        f"2,048), {size['manifest']:.0f} in the manifest. Together {draws:,} draws take "
        f"{draws * size['samples'] / 1e9:.1f} GB of samples, {draws * size['features'] / 1e9:.1f} "
        f"GB of features and {draws * size['manifest'] / 1e6:.0f} MB of manifest; a shard of 64 "
        f"takes {draws * (size['samples'] + size['features']) / 64e6:.0f} MB. Reading a shard file "
        f"takes {1000 * size['reading']:.0f} ms of CPU time.",
        "",
        f"What breaks first: the plan. A run holds {MAX_DRAWS:,} draws at most, and {draws:,} are "
        f"refused at planning. {-(-draws // MAX_DRAWS)} runs of two arms each fit, on the same "
        "faces and seeds; `compare` pairs them.",
    ]
    return "\n".join(lines)


def measure(rows: int) -> str:
    """Time and memory of reading and summarising a run of so many rows."""
    from pulse_audit.report import html
    from pulse_audit.summary import summarise_run, write

    steps: list[str] = []
    with tempfile.TemporaryDirectory(prefix="scale-") as place:
        folder = Path(place, "run")
        # In a process of its own, so that the peak is that of reading and summarising.
        size = rows // (DRAWS * ARMS), DRAWS, BATCH // DRAWS
        maker = get_context("spawn").Process(target=make_run, args=(folder, *size, False))
        maker.start()
        maker.join()
        began = time.monotonic(), time.process_time()

        def step(name: str) -> None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            wall, cpu = time.monotonic() - began[0], time.process_time() - began[1]
            steps.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {peak:.2f} |")
            print(steps[-1], flush=True)

        run = store.open_run(folder)
        step("manifest read")
        samples = run.samples()
        step("samples read")
        found = summarise_run(run, samples)
        write(run, found)
        step("summarised")
        page = html.render(run, summary=found, samples=samples)
        step("report rendered")
        opened = opening(page)
    header = f"| {rows:,} rows, since the beginning | wall s | CPU s | peak GB |\n|---|---|---|---|"
    return "\n".join([header, *steps, "", opened])


def opening(page: Path) -> str:
    """Say how large a page is, and when Chromium has loaded it; the better of two."""
    from tests.report.browser import PROGRAM, Browser

    size = f"The page has {page.stat().st_size / 1e6:.2f} MB"
    if PROGRAM is None:
        return f"{size}; its loading was not measured, because there is no Chromium."
    timing = "performance.getEntriesByType('navigation')[0]"
    with tempfile.TemporaryDirectory(prefix="scale-", ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        loaded = []
        for _ in range(2):
            browser.open(page.as_uri())
            browser.wait(f"{timing}.loadEventEnd > 0")
            loaded.append(browser.value(f"{timing}.loadEventEnd") / 1000)
        elements = browser.value("document.querySelectorAll('*').length")
        browser.close()
    return f"{size} and {elements:,} elements; Chromium has loaded it after {min(loaded):.2f} s."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--rows", type=int, help="measure a run of so many rows instead")
    rows = parser.parse_args().rows
    print(simulate() if rows is None else measure(rows))


if __name__ == "__main__":
    main()
