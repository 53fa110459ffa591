"""Damages files that come from others and reads them: each must be read, or refused in one line.

``python -m benchmarks.faults --seconds 300 --seed 0`` writes ``benchmarks/results/faults.md``;
``--kind manifest --case 17`` repeats one case and shows its end. A nightly check, not part of CI.
Every case runs in a child process with limits on memory and time. What is damaged, and how, follows
from the seed, the kind and the number of the case.
"""

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.damage import (
    CANARY,
    damaged_bytes,
    damaged_features,
    damaged_image,
    damaged_json,
    damaged_pickle,
    damaged_program,
    damaged_safetensors,
    damaged_shard,
    damaged_text,
    damaged_torch_zip,
)

RESULTS = Path(__file__).parent / "results"
#: Limits of a case: bytes of memory, seconds.
MEMORY = 2 << 30
SECONDS = 20.0
#: Made once for all kinds, in the process of each of them, and removed at the end.
SOUND_RUN = Path(tempfile.gettempdir(), f"faults-run-{os.getpid()}")

# --- Kinds of input: how a sound one is made, and how it is read ---


@dataclass(frozen=True)
class Kind:
    """Files that are damaged, the way of damage, and the reader."""

    prepare: Callable[[Path], None]
    files: str
    damage: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], object]


def prepare_labels(folder: Path) -> None:
    rows = [f"val/{n}.jpg,20-29,Male,{race},True" for n, race in enumerate(["White", "Black"] * 20)]
    text = "\n".join(["file,age,gender,race,service_test", *rows]) + "\n"
    (folder / "fairface_label_val.csv").write_text(text)
    (folder / "val").mkdir()
    for n in range(40):
        (folder / f"val/{n}.jpg").write_bytes(b"x")


def read_labels(folder: Path) -> None:
    from pulse_audit.datasets.readers import read_faces
    from pulse_audit.datasets.registry import load_registry

    read_faces(load_registry().get("fairface"), folder)


def prepare_registry(folder: Path) -> None:
    from pulse_audit.datasets.registry import builtin_file

    shutil.copy(builtin_file(), folder / "datasets.yaml")


def read_registry(folder: Path) -> None:
    from pulse_audit.datasets.registry import load_registry

    load_registry(folder / "datasets.yaml")


def prepare_spec(folder: Path) -> None:
    (folder / "spec.yaml").write_text(
        "dataset: lfw\nsplit: val\narms: [bicubic, 'pulse:faces']\nscales: [8, 16]\n"
        "conditions:\n  - clean\n  - gaussian:25\ngroup_by: [race]\nper_group: 10\ndraws: 2\n"
        "seed: 0\nresolution: 64\nsearch: fast\nmetrics: [psnr]\nsources: false\nbatch: 4\n"
    )


def read_spec_file(folder: Path) -> None:
    from pulse_audit.harness.spec import make_spec, read_spec

    assert make_spec(read_spec(str(folder / "spec.yaml"))).fingerprint


def prepare_run(folder: Path) -> None:
    """Copy a small finished run; the first call makes it, in a process that may load torch."""
    if SOUND_RUN.exists():
        shutil.copytree(SOUND_RUN, folder / "run")
        return
    options = "--dataset synthetic-faces --resolution 64 --arm bicubic --per-group 2 --draws 1"
    command = [sys.executable, "-m", "pulse_audit.cli", "run", *options.split(), "--quiet"]
    subprocess.run([*command, "--out", folder / "run"], check=True, capture_output=True)
    for unused in ("images", "report"):
        shutil.rmtree(folder / "run" / unused)
    shutil.copytree(folder / "run", SOUND_RUN)


def read_run(folder: Path) -> None:
    from pulse_audit.store import open_run
    from pulse_audit.summary.estimates import summarise_run

    # The checksums of a stranger fit the shards of a stranger.
    for sums in folder.glob("run/samples/*.sha256"):
        names = [line.split()[1] for line in sums.read_text().splitlines()]
        sums.write_text("".join(f"{digest(sums.parent / name)}  {name}\n" for name in names))
    run = open_run(folder / "run")
    summarise_run(run)
    run.features()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def prepare_checkpoint(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        import torch

        from pulse_audit.generators.native_format import save_generator
        from pulse_audit.generators.stylegan2 import StyleGAN2
        from pulse_audit.generators.stylegan2_layers import StyleGAN2Config

        config = StyleGAN2Config(channels=(8, 8), z_dim=8, w_dim=8, hidden=(8, 8))
        network, path = StyleGAN2.fresh(config, 0), folder / name
        if path.suffix == ".safetensors":
            save_generator(network, path, {"name": "small", "crop": "ffhq"})
        elif path.suffix == ".pt2":
            layers = torch.nn.ConvTranspose2d(10, 6, 4), torch.nn.ConvTranspose2d(6, 3, 4, 2, 1)
            decoder = torch.nn.Sequential(torch.nn.Unflatten(1, (10, 1, 1)), *layers).eval()
            torch.export.save(torch.export.export(decoder, (torch.zeros(1, 10),)), path)
        else:
            zipped = "zip" in name
            torch.save({"G_ema": network.weights()}, path, _use_new_zipfile_serialization=zipped)

    return prepare


def read_checkpoint_file(folder: Path) -> None:
    from pulse_audit.generators.checkpoints import read_checkpoint

    path = next(path for path in sorted(folder.iterdir()) if path.suffix != ".json")
    if path.suffix == ".safetensors":
        # The card of a stranger fits the weights of a stranger.
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            card = json.loads(path.with_suffix(".json").read_bytes())
            card["sha256"] = digest(path)
            path.with_suffix(".json").write_text(json.dumps(card))
    read_checkpoint(path)


def prepare_onnx(folder: Path) -> None:
    import onnx

    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", floats, ["n", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", floats, ["n", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "net", [image], [logits]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, folder / "model.onnx")
    (folder / "model.yaml").write_text(
        "resolution: 8\ncrop: ffhq\nmean: [0.5, 0.4, 0.3]\nattributes:\n"
        "  age: {output: logits, words: [young, middle, old]}\nconfusion:\n"
        "  age: [[8, 1, 1], [1, 8, 1], [1, 1, 8]]\nnotes: [small]\n"
    )


def read_onnx(folder: Path) -> None:
    from pulse_audit.faces.onnx_attributes import load_onnx

    load_onnx(folder / "model.onnx")


def prepare_image(folder: Path) -> None:
    from PIL import Image

    pixels = random.Random(0).randbytes(24 * 24 * 3)
    image = Image.frombytes("RGB", (24, 24), pixels)
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tiff", "ppm"):
        image.save(folder / f"photo.{suffix}")


def read_image(folder: Path) -> None:
    from pulse_audit.datasets.images import UnreadableImage, decode
    from pulse_audit.types import InputError

    for path in sorted(folder.iterdir()):
        try:
            decode(path.read_bytes())
        except UnreadableImage as error:
            raise InputError(str(error)) from None


def checkpoint(name: str, damage: Callable[..., bytes], files: str = "") -> Kind:
    return Kind(prepare_checkpoint(name), files or name, damage, read_checkpoint_file)


KINDS = {
    "label tables (CSV)": Kind(prepare_labels, "*.csv", damaged_text, read_labels),
    "datasets.yaml": Kind(prepare_registry, "*.yaml", damaged_text, read_registry),
    "specifications (YAML)": Kind(prepare_spec, "*.yaml", damaged_text, read_spec_file),
    "manifests": Kind(prepare_run, "run/manifest.json", damaged_json, read_run),
    "Parquet shards": Kind(prepare_run, "run/samples/*.parquet", damaged_shard, read_run),
    "feature archives": Kind(prepare_run, "run/features/*.npz", damaged_features, read_run),
    "pickles": checkpoint("plain.pt", damaged_pickle),
    "torch archives": checkpoint("zip.pt", damaged_torch_zip),
    "safetensors": checkpoint("net.safetensors", damaged_safetensors),
    "cards of safetensors": checkpoint("net.safetensors", damaged_json, "net.json"),
    "programs (.pt2)": checkpoint("net.pt2", damaged_program),
    "ONNX sidecars": Kind(prepare_onnx, "*.yaml", damaged_text, read_onnx),
    "ONNX models": Kind(prepare_onnx, "*.onnx", damaged_bytes, read_onnx),
    "images": Kind(prepare_image, "photo.*", damaged_image, read_image),
}

# --- Running the cases ---


@dataclass(frozen=True)
class Outcome:
    """The end of a case: read, refused, traceback, killed, text (too much of it), executed."""

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
        victim = rng.choice(sorted(folder.glob(kind.files)))
        victim.write_bytes(kind.damage(victim.read_bytes(), rng))
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
        if any(Path(where, CANARY).exists() for where in (place, folder)):
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
                for case in range(most) if only is None else [only]:
                    if time.monotonic() > until:
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
        "command line writes a crash file. Killed: by a signal, or at a limit. Other: more text "
        "than one line, or code of the file was executed. Peak memory includes the program "
        "itself; seconds are wall-clock, and the machine may be busy.",
        "",
        "| input | tried | held | tracebacks | killed | other | slowest, s | peak memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, outcomes in results.items():
        ends = Counter(outcome.end for outcome in outcomes)
        held, other = ends["read"] + ends["refused"], ends["text"] + ends["executed"]
        slowest, peak = max(o.seconds for o in outcomes), max(o.megabytes for o in outcomes)
        lines.append(
            f"| {name} | {len(outcomes)} | {held} | {ends['traceback']} | {ends['killed']} | "
            f"{other} | {slowest:.1f} | {peak:,.0f} |"
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
    parser.add_argument("--kind", choices=list(KINDS), help="only this one; writes no table")
    parser.add_argument("--case", type=int, help="only this case of the kind")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads cannot be forked safely
    names = [arguments.kind] if arguments.kind else list(KINDS)
    results = {}
    try:
        for name in names:
            share = arguments.seconds / len(names)
            results[name] = run_kind(name, arguments.seed, share, arguments.count, arguments.case)
            print(name, dict(Counter(outcome.end for outcome in results[name])), flush=True)
    finally:
        shutil.rmtree(SOUND_RUN, ignore_errors=True)
    text = table(results, arguments)
    if arguments.kind:
        print(text, *results[arguments.kind] if arguments.case is not None else (), sep="\n")
    else:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "faults.md").write_text(text)


if __name__ == "__main__":
    main()
