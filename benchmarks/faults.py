"""Damages files that come from others and reads them: each must be read, or refused in one line.

``python -m benchmarks.faults --seconds 300 --seed 0`` writes ``benchmarks/results/faults.md``;
``--kind manifests --case 17`` repeats one case and shows its end; one or more ``--kind`` with
``--update`` replace their own rows of the page. A nightly check, not part of CI.
Every case runs in a child process with limits on memory and time. What is damaged, and how, follows
from the seed, the kind and the number of the case.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import commands, damage, gate_files, handmade
from benchmarks import foreign_files as files
from benchmarks.foreign_files import Kind, checkpoint, one_of

RESULTS = Path(__file__).parent / "results"
#: Limits of a case: bytes of memory, seconds.
MEMORY = 2 << 30
SECONDS = 20.0
#: In this order: files by their readers, then whole commands.
KINDS = {
    "label tables (CSV)": Kind(
        files.prepare_labels, one_of("*.csv", damage.damaged_text), files.read_labels
    ),
    "datasets.yaml": Kind(
        files.prepare_registry, one_of("*.yaml", damage.damaged_text), files.read_registry
    ),
    "specifications (YAML)": Kind(
        files.prepare_spec, one_of("*.yaml", damage.damaged_text), files.read_spec_file
    ),
    "images": Kind(
        files.prepare_images, one_of("photo.*", damage.damaged_image), files.read_images
    ),
    "manifests": Kind(
        files.prepare_run, one_of("run/manifest.json", damage.damaged_json), files.read_run
    ),
    "shards": Kind(
        files.prepare_run, one_of("run/samples/*.parquet", damage.damaged_shard), files.read_run
    ),
    "tables of sources": Kind(
        files.prepare_run, one_of("run/sources/*.parquet", damage.damaged_shard), files.read_run
    ),
    "feature archives": Kind(
        files.prepare_run, one_of("run/features/*.npz", damage.damaged_features), files.read_run
    ),
    "references.json": Kind(
        files.prepare_references, one_of("*.json", damage.damaged_json), files.read_references_file
    ),
    "pickles": checkpoint("plain.pt", damage.damaged_pickle),
    "torch archives": checkpoint("zip.pt", damage.damaged_torch_zip),
    "safetensors": checkpoint("net.safetensors", damage.damaged_safetensors),
    "cards of safetensors": checkpoint("net.safetensors", damage.damaged_json, "net.json"),
    "programs (.pt2)": checkpoint("net.pt2", damage.damaged_program),
    "NVIDIA snapshots, StyleGAN 2": files.published("cond32", damage.damaged_pickle),
    "NVIDIA snapshots, StyleGAN 3": files.published("three", damage.damaged_pickle),
    "StyleGAN 1 of PULSE": files.published("synthesis", damage.damaged_torch_zip),
    "StyleGAN 1 of rosinality": files.published("grown", damage.damaged_torch_zip),
    "StyleGAN 2 of rosinality": files.published("rosinality", damage.damaged_torch_zip),
    "ONNX sidecars": Kind(
        files.prepare_onnx, one_of("*.yaml", damage.damaged_text), files.read_onnx
    ),
    "ONNX models": Kind(
        files.prepare_onnx, one_of("*.onnx", damage.damaged_bytes), files.read_onnx
    ),
    "checkpoints made by hand": files.bombs(),
    "ONNX models made by hand": files.handmade(
        files.prepare_onnx, handmade.ONNX, "*.onnx", files.read_onnx
    ),
    "shards made by hand": files.handmade(
        files.prepare_run, handmade.PARQUET, "run/samples/u00000.parquet", files.read_run
    ),
    "`run` on damaged data": commands.command(commands.damage_given, commands.FRESH),
    "`run` on a damaged run": commands.command(commands.damage_run, commands.RESUME),
    "`report` of a damaged run": commands.command(commands.damage_run, commands.REPORT),
    "`check` by damaged rules": commands.gate(commands.RULES),
    "`check` against a damaged baseline": commands.gate(commands.BASELINE),
    "damaged verdicts": commands.verdicts(),
    "rules made by hand": commands.gate(commands.RULES, gate_files.RULES),
    "baselines made by hand": commands.gate(commands.BASELINE, gate_files.BASELINES),
    "verdicts made by hand": commands.verdicts(gate_files.VERDICTS),
}

# --- Running the cases ---


@dataclass(frozen=True)
class Outcome:
    """The end of a case.

    read, refused; traceback, killed, lost (a file), half-written, text (too much of it), executed.
    """

    case: int
    end: str
    detail: str
    seconds: float
    megabytes: float


def run_case(kind: Kind, sound: Path, name: str, seed: int, case: int) -> Outcome:
    """Damage a copy of the sound files and read it in a child process."""
    rng = random.Random(f"{seed} {name} {case}")
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        folder = Path(place, "case")
        shutil.copytree(sound, folder)
        # In a process of its own, whose memory is not that of the reader.
        if os.fork() == 0:
            try:
                kind.damage(folder, rng, case)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        if os.wait()[1]:
            raise SystemExit("the files cannot be damaged")
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(kind, folder, Path(place))
        # Wait for the child, and kill it and what it started when its time is over.
        pid, status, usage = os.wait4(child, os.WNOHANG)
        while pid == 0 and time.monotonic() - started < SECONDS:
            time.sleep(0.002)
            pid, status, usage = os.wait4(child, os.WNOHANG)
        late = pid == 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        if late:
            pid, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - started
        result, output = Path(place, "result"), Path(place, "output").read_text(errors="replace")
        if late:
            end, detail = "killed", f"after {SECONDS:.0f} s"
        elif not result.exists():
            end, detail = "killed", f"by signal {os.waitstatus_to_exitcode(status)}"
        else:
            end, detail = json.loads(result.read_text())
        if end in ("read", "refused") and output.strip():
            end, detail = "text", output.strip().splitlines()[0][:120]
        if any(Path(place).rglob(damage.CANARY)):
            end, detail = "executed", "code in the file was run"
    return Outcome(case, end, detail, seconds, usage.ru_maxrss / 1024)


def _child(kind: Kind, folder: Path, place: Path) -> None:
    """Read the files within the limits, and write how it ended; does not return."""
    from pulse_audit.types import InputError

    os.setsid()
    os.chdir(place)
    output = os.open("output", os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # Address space that is reserved already, but not used, does not count.
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    size, resident = (int(fields[key].split()[0]) * 1024 for key in ("VmSize", "VmRSS"))
    resource.setrlimit(resource.RLIMIT_AS, (size - resident + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    end, detail = "read", ""
    try:
        kind.read(folder)
    except (InputError, OSError) as error:  # the command line prints both as one line
        end, detail = "refused", str(error)[:120]
        if isinstance(error, InputError) and "\n" in str(error):
            end, detail = "text", f"several lines: {detail!r}"
    except files.Fault as fault:
        end, detail = fault.args
    except MemoryError:
        end, detail = "killed", f"over {MEMORY >> 30} GB"
    except BaseException as error:  # panics of Rust are no Exception
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if "pulse_audit" in f.filename
        ]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"
        reason = " ".join(str(error).split())[:80]
        end, detail = "traceback", f"{type(error).__name__} in {where}: {reason}"
    Path("result").write_text(json.dumps([end, detail]))
    os._exit(0)


def run_kind(name: str, seed: int, seconds: float, most: int, only: int | None) -> list[Outcome]:
    """Run the cases of one kind in a process that has loaded no more than that kind needs."""
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        sound, report = Path(place, "sound"), Path(place, "report.json")
        sound.mkdir()
        child = os.fork()
        if child == 0:
            try:
                kind, outcomes = KINDS[name], []
                kind.prepare(sound)
                kind.read(sound)  # loads the modules; a sound file has to be read
                until = time.monotonic() + seconds
                count = most if kind.cases is None else kind.cases()
                for case in range(count) if only is None else [only]:
                    # Files made by hand are all tried, whatever time it takes.
                    if kind.cases is None and time.monotonic() > until:
                        break
                    outcomes.append(run_case(kind, sound, name, seed, case))
                report.write_text(json.dumps([asdict(outcome) for outcome in outcomes]))
            except BaseException:
                traceback.print_exc()
            os._exit(0)
        os.waitpid(child, 0)
        if not report.exists():
            raise SystemExit(f"{name}: the sound files are not read")
        return [Outcome(**outcome) for outcome in json.loads(report.read_text())]


def updated(page: str, text: str, command: str) -> str:
    """Put rows and causes of some kinds into an earlier page, after the command that made them."""
    new, old = text.splitlines(), page.splitlines()
    kinds = [name for name in KINDS if any(line.startswith(f"| {name} |") for line in new)]

    def of(lines: list[str], name: str) -> list[str]:
        return [line for line in lines if line.startswith((f"| {name} |", f"- {name}, case "))]

    rows: list[str] = []
    for name in KINDS:
        found = of(new if name in kinds else old, name)
        rows += [line for line in found if line.startswith("|")]
    causes = [
        line
        for name in KINDS
        for line in of(new if name in kinds else old, name)
        if line.startswith("-")
    ]
    start = next(place for place, line in enumerate(old) if line.startswith("|---")) + 1
    notes = [line for line in old if line.startswith("Rows of ")]
    notes = [note for note in notes if f"`{command}`" not in note]
    dated = f"Rows of {', '.join(kinds)}: `{command}`, {time.strftime('%Y-%m-%d')}."
    parts = [*old[:start], *rows, "", *notes, dated, "", "## What did not hold", ""]
    return "\n".join([*parts, *(causes or ["Nothing."])]) + "\n"


def table(results: dict[str, list[Outcome]], arguments: argparse.Namespace) -> str:
    """Markdown: one row for each kind, then what did not hold, each cause once."""
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    lines = [
        "# Damaged files",
        "",
        f"`python -m benchmarks.faults --seconds {arguments.seconds:.0f} --seed {arguments.seed}` "
        f"on {len(cpus)} x {cpus[0].split(':')[1].strip()}, Python {platform.python_version()}, "
        f"{time.strftime('%Y-%m-%d')}. Limits of a case: {SECONDS:.0f} s, {MEMORY >> 30} GB.",
        "",
        "Held: read, or refused in one line. Tracebacks: any other exception, for which the "
        "command line writes a crash file. Killed: by a signal, or at a limit. Lost: a file of the "
        "user or a sample is gone, changed or half-written. Other: more text than one line, or "
        "code of the file was executed. Peak memory includes the program itself; seconds are "
        "wall-clock, and the machine may be busy.",
        "",
        "| input | tried | held | tracebacks | killed | lost | other | slowest, s | peak, MB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, outcomes in results.items():
        ends = Counter(outcome.end for outcome in outcomes)
        held, other = ends["read"] + ends["refused"], ends["text"] + ends["executed"]
        lost = ends["lost"] + ends["half-written"]
        slowest, peak = max(o.seconds for o in outcomes), max(o.megabytes for o in outcomes)
        lines.append(
            f"| {name} | {len(outcomes)} | {held} | {ends['traceback']} | {ends['killed']} | "
            f"{lost} | {other} | {slowest:.1f} | {peak:,.0f} |"
        )
    # A cause is a kind of end and where it came from; its first case repeats it.
    causes: dict[tuple[str, str], list[Outcome]] = {}
    for name, outcomes in results.items():
        for outcome in outcomes:
            if outcome.end not in ("read", "refused"):
                cause = f"{outcome.end}: {outcome.detail.partition(':')[0]}"
                causes.setdefault((name, cause), []).append(outcome)
    lines += ["", "## What did not hold", ""]
    for (name, _), outcomes in causes.items():
        first = outcomes[0]
        text = first.detail.replace("|", "/").replace("`", "'").replace("\0", "")
        lines.append(f"- {name}, case {first.case} ({len(outcomes)} alike): {first.end}, `{text}`")
    return "\n".join(lines + ([] if causes else ["Nothing."])) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="time for all kinds together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000, help="most cases of a kind")
    parser.add_argument(
        "--kind", action="append", choices=list(KINDS), help="only these; writes no table"
    )
    parser.add_argument("--update", action="store_true", help="write the rows of --kind")
    parser.add_argument("--case", type=int, help="only this case of the kind")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads cannot be forked safely
    names = arguments.kind or list(KINDS)
    results = {}
    try:
        for name in names:
            share = arguments.seconds / len(names)
            results[name] = run_kind(name, arguments.seed, share, arguments.count, arguments.case)
            print(name, dict(Counter(outcome.end for outcome in results[name])), flush=True)
    finally:
        shutil.rmtree(files.SOUND_RUN, ignore_errors=True)
    text = table(results, arguments)
    if arguments.update:
        page = RESULTS / "faults.md"
        command = f"python -m benchmarks.faults --seconds {arguments.seconds:.0f} --seed "
        command += f"{arguments.seed} --kind ... --update"
        page.write_text(updated(page.read_text(), text, command))
    elif arguments.kind:
        cases = [case for name in names for case in results[name]]
        print(text, *cases if arguments.case is not None else (), sep="\n")
    else:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "faults.md").write_text(text)


if __name__ == "__main__":
    main()
