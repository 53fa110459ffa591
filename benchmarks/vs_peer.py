"""A step of a search at 1024 px beside the same step in other people's code, one run for all.

    python -m benchmarks.vs_peer --pulse DIR --ada DIR --rosinality DIR --stylegan3 DIR

Each DIR is the user's checkout: adamian98/pulse, NVlabs/stylegan2-ada-pytorch,
rosinality/stylegan2-pytorch, NVlabs/stylegan3; one that is not named is left out. A checkout is
imported in a process of its own, with its folder first on the path, and nothing of it is kept.

A step renders one picture of 1024 px from 18 styles (StyleGAN 3: 16), shrinks it to 32 px by
averaging, takes the squared error, and differentiates it with respect to the styles; weights are
random and frozen, noise maps fixed. Peers run their own code for a CPU (where theirs is for CUDA,
the reference path they ship). All processes have the same allocator settings and threads, and run
in turn, round by round, each with a step to warm up. The convolution floor is the time of the
network's convolutions alone, forward and back to their inputs, without weights' gradients. Written
to ``benchmarks/results/vs_peer.md`` and ``.json``, a section for each machine, with a figure.
"""

import argparse
import importlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from packaging.version import Version
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.__main__ import RESULTS, machine, write_section
from pulse_audit.generators.network import StyleNetwork
from pulse_audit.generators.stylegan1 import StyleGAN1
from pulse_audit.generators.stylegan2 import StyleGAN2
from pulse_audit.generators.stylegan2_layers import StyleGAN2Config
from pulse_audit.generators.stylegan3 import StyleGAN3

SIDE = 1024
#: Feature maps at 4, 8, ... 1024 px: of StyleGAN 1, and of StyleGAN 2's config-f.
CHANNELS_1 = (512, 512, 512, 512, 256, 128, 64, 32, 16)
CHANNELS_2 = (512, 512, 512, 512, 512, 256, 128, 64, 32)
#: The same for every process: the C library keeps what is freed, and waiting threads sleep.
SETTINGS = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "OMP_WAIT_POLICY": "PASSIVE",
}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

#: Styles (1, L, 512) to a picture (1, 3, R, R).
Render = Callable[[Tensor], Tensor]


def own_stylegan1() -> StyleNetwork:
    """A StyleGAN 1 of 1024 px with random weights, from a file as PULSE lays it out."""
    shapes: dict[str, tuple[int, ...]] = {"blocks.4x4.const": (1, 512, 4, 4)}
    before = 512
    for index, width in enumerate(CHANNELS_1):
        block = f"blocks.{4 << index}x{4 << index}"
        first, second = ("", "conv") if index == 0 else ("conv0_up", "conv1")
        if first:
            shapes |= {f"{block}.{first}.weight": (width, before, 3, 3)}
            shapes |= {f"{block}.{first}.bias": (width,)}
        else:
            shapes |= {f"{block}.bias": (width,)}
        shapes |= {f"{block}.{second}.weight": (width, width, 3, 3)}
        shapes |= {f"{block}.{second}.bias": (width,)}
        for epilogue in ("epi1", "epi2"):
            shapes |= {f"{block}.{epilogue}.noise.weight": (width,)}
            shapes |= {f"{block}.{epilogue}.style_mod.lin.weight": (2 * width, 512)}
            shapes |= {f"{block}.{epilogue}.style_mod.lin.bias": (2 * width,)}
        before = width
    shapes |= {"torgb.weight": (3, before, 1, 1), "torgb.bias": (3,)}
    source = torch.Generator().manual_seed(0)
    return StyleGAN1({k: torch.randn(s, generator=source) for k, s in shapes.items()})


def own_stylegan2() -> StyleNetwork:
    """A StyleGAN 2 (config-f) of 1024 px with random weights."""
    return StyleGAN2.fresh(StyleGAN2Config(CHANNELS_2), seed=0).requires_grad_(False)


def pulse_official() -> Render:
    network = importlib.import_module("stylegan").G_synthesis().eval().requires_grad_(False)
    noise = [torch.randn(1, 1, 4 << i // 2, 4 << i // 2) for i in range(18)]
    return lambda w: network(w, noise)


def ada(fused: bool) -> Render:
    made = importlib.import_module("training.networks").Generator(512, 0, 512, SIDE, 3)
    network = made.synthesis.eval().requires_grad_(False)
    return lambda w: network(w, noise_mode="const", force_fp32=True, fused_modconv=fused)


def rosinality() -> Render:
    # Its extensions are for CUDA alone; on a CPU its own plain path is taken.
    importlib.import_module("torch.utils.cpp_extension").load = lambda *given, **named: None
    network = importlib.import_module("model").Generator(SIDE, 512, 8).eval().requires_grad_(False)
    return lambda w: network([w], input_is_latent=True, randomize_noise=False)[0]


def stylegan3_network() -> torch.nn.Module:
    """The checkout's network, configuration T."""
    # It asks setuptools for a comparison of versions that newer ones do not hold.
    sys.modules.setdefault("pkg_resources", types.SimpleNamespace(parse_version=Version))  # type: ignore[arg-type]
    made = importlib.import_module("training.networks_stylegan3").Generator(512, 0, 512, SIDE, 3)
    return made.eval().requires_grad_(False)


def stylegan3_official() -> Render:
    synthesis = stylegan3_network().synthesis
    return lambda w: synthesis(w, force_fp32=True)


def own_stylegan3() -> StyleNetwork:
    """A network of the checkout's weights: its filters are designed where it is made."""
    return StyleGAN3.from_state(stylegan3_network().state_dict())


#: Family, what it is, the option that names its checkout (None: no need of one), how it is made.
PEERS: dict[str, tuple[str, str, str | None, Callable[[], Render]]] = {
    "pulse": ("StyleGAN 1", "official PULSE", "pulse", pulse_official),
    "ada": ("StyleGAN 2", "stylegan2-ada-pytorch", "ada", lambda: ada(True)),
    "ada-scaled": ("StyleGAN 2", "the same, fused_modconv=False", "ada", lambda: ada(False)),
    "rosinality": ("StyleGAN 2", "rosinality", "rosinality", rosinality),
    "stylegan3": ("StyleGAN 3 T", "stylegan3", "stylegan3", stylegan3_official),
}
OURS: dict[str, tuple[str, str | None, Callable[[], StyleNetwork]]] = {
    "own1": ("StyleGAN 1", None, own_stylegan1),
    "own2": ("StyleGAN 2", None, own_stylegan2),
    "own3": ("StyleGAN 3 T", "stylegan3", own_stylegan3),
}


class Convolutions(TorchDispatchMode):
    """Keeps the arguments of every convolution but the depthwise ones, to run them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        # (input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
        if operator is torch.ops.aten.convolution.default and args[8] == 1:
            self.calls.append(args)
        return operator(*args, **(kwargs or {}))


def floor_of(render: Render, w: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """The convolutions of a picture alone: forward, and forward and back to their inputs."""
    with Convolutions() as seen, torch.no_grad():
        render(w)
    gradients = [torch.ops.aten.convolution(*call) for call in seen.calls]

    def forward() -> None:
        for call in seen.calls:
            torch.ops.aten.convolution(*call)

    def step() -> None:
        forward()
        for (x, weight, _, *how), gradient in zip(seen.calls, gradients, strict=True):
            torch.ops.aten.convolution_backward(
                gradient, x, weight, None, *how, [True, False, False]
            )

    return forward, step


def measured(name: str, folder: str | None, threads: int, steps: int) -> dict[str, float]:
    """Median wall and CPU seconds of a forward pass and of a step, in this process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if folder:
        sys.path.insert(0, folder)
    base, _, mode = name.partition("/")
    if base in PEERS:
        render = PEERS[base][3]()
    else:
        network = OURS[base][2]().to(dtype=TYPES[mode.removesuffix("-floor")])
        render = network.synthesis
    styles = 16 if "3" in base else 18
    w = torch.randn(1, styles, 512).requires_grad_()
    target = torch.rand(1, 3, 32, 32)

    def forward() -> object:
        with torch.no_grad():
            return F.avg_pool2d(render(w), SIDE // 32)

    def step() -> object:
        error = (F.avg_pool2d(render(w), SIDE // 32) - target).square().mean()
        return torch.autograd.grad(error, w)

    if mode.endswith("-floor"):
        forward, step = floor_of(render, w)
    step()
    taken: dict[str, list[float]] = {}
    for _ in range(steps):
        for what, call in (("forward", forward), ("step", step)):
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken.setdefault(f"{what} wall", []).append(time.perf_counter() - wall)
            taken.setdefault(f"{what} cpu", []).append(time.process_time() - cpu)
    return {what: statistics.median(seconds) for what, seconds in taken.items()}


def run_all(
    folders: dict[str, str], names: list[str], asked: argparse.Namespace
) -> Iterator[list[dict]]:
    """Run every variant in turn, round after round; the results so far after each round."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    environment = {**os.environ, **SETTINGS, "OMP_NUM_THREADS": str(asked.threads)}
    for number in range(asked.rounds):
        for name in names:
            folder = folders.get(option_of(name) or "", "")
            command = [sys.executable, "-m", "benchmarks.vs_peer", "--variant", name]
            options = ["--folder", folder, "--threads", asked.threads, "--steps", asked.steps]
            done = subprocess.run(
                [*command, *map(str, options)], env=environment, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}: {name} {found[name][-1]}", flush=True)
        yield [
            {
                "variant": name,
                "family": family_of(name),
                "what": what_of(name),
                # Medians over rounds, and every round's.
                **{key: statistics.median(r[key] for r in runs) for key in runs[0]},
                "rounds": runs,
            }
            for name, runs in found.items()
        ]


def option_of(name: str) -> str | None:
    base = name.partition("/")[0]
    return PEERS[base][2] if base in PEERS else OURS[base][1]


def family_of(name: str) -> str:
    base = name.partition("/")[0]
    return (PEERS[base] if base in PEERS else OURS[base])[0]


def what_of(name: str) -> str:
    base, _, mode = name.partition("/")
    if base in PEERS:
        return f"{PEERS[base][1]}, fp32"
    words = {"fp32": "fp32", "bf16": "bf16"}[mode.removesuffix("-floor")]
    return f"convolutions alone, {words}" if mode.endswith("-floor") else f"pulse-audit, {words}"


def table(rows: list[dict]) -> list[str]:
    """One table for each family, ratios to our float32 and bfloat16 within each round."""
    by_name = {row["variant"]: row for row in rows}
    lines = []
    for family in dict.fromkeys(row["family"] for row in rows):
        own = next(k for k, v in OURS.items() if v[0] == family)
        lines += [
            f"**{family}**",
            "",
            "| code | forward, wall s | step, wall s | step, CPU s | step, CPU: x ours fp32 "
            "| x ours bf16 |",
            "|---|---|---|---|---|---|",
        ]
        for row in (r for r in rows if r["family"] == family):
            cells = [row["what"], *(f"{row[k]:.2f}" for k in ("forward wall", "step wall"))]
            cells.append(f"{row['step cpu']:.2f}")
            for precision in TYPES:
                ours = by_name.get(f"{own}/{precision}")
                # Of CPU seconds, since other work on the machine enters the wall's.
                cells.append(f"{ratio(row, ours, 'step cpu'):.2f}" if ours else "–")
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines


def ratio(row: dict, ours: dict, key: str) -> float:
    """Median over rounds of the ratio within a round."""
    pairs = zip(row["rounds"], ours["rounds"], strict=True)
    return statistics.median(r[key] / o[key] for r, o in pairs)


def figure(rows: list[dict], path: Path) -> None:
    """Bars of a step's seconds, one panel a family."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 8, "svg.hashsalt": "vs_peer", "svg.fonttype": "none"})
    shown = [r for r in rows if r["variant"] != "ada-scaled"]
    families = list(dict.fromkeys(row["family"] for row in shown))
    counts = [sum(r["family"] == f for r in shown) for f in families]
    fig, axes = plt.subplots(
        len(families), 1, figsize=(6.9, 0.35 + 0.27 * sum(counts)), layout="constrained",
        gridspec_kw={"height_ratios": counts}, squeeze=False,
    )  # fmt: skip
    for axis, family in zip(axes[:, 0], families, strict=True):
        of_family = [r for r in shown if r["family"] == family][::-1]
        for place, row in enumerate(of_family):
            kind = row["what"].split(",")[0]
            colour = {"pulse-audit": "#0b6e99", "convolutions alone": "#b8c4cc"}.get(
                kind, "#d98032"
            )
            axis.barh(place, row["step cpu"], color=colour)
            axis.text(row["step cpu"], place, f" {row['step cpu']:.2f} s", va="center")
        axis.set_yticks(range(len(of_family)), [r["what"] for r in of_family])
        axis.set_title(family, loc="left", fontsize=8, fontweight="bold")
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("CPU seconds a step at 1024 px, one image (median)")
    fig.savefig(path, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vs_peer", description=__doc__)
    folders = ("pulse", "ada", "rosinality", "stylegan3")
    for option in folders:
        parser.add_argument(f"--{option}", metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a process")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--precisions", nargs="+", choices=TYPES, default=list(TYPES), help="of our own networks"
    )
    parser.add_argument("--note", default="", help="what to say of the machine's load")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.variant:
        print(json.dumps(measured(asked.variant, asked.folder, asked.threads, asked.steps)))
        return

    given = {name: getattr(asked, name) for name in folders if getattr(asked, name)}
    given = {name: str(Path(folder).resolve()) for name, folder in given.items()}
    peers = [name for name, peer in PEERS.items() if peer[2] in given]
    ours = [
        f"{name}/{mode}"
        for name, (_, option, _) in OURS.items()
        if option is None or option in given
        for mode in (*asked.precisions, *(f"{precision}-floor" for precision in asked.precisions))
    ]
    names = sorted([*ours, *peers], key=lambda name: family_of(name))
    for rows in run_all(given, names, asked):
        write(rows, asked)


def write(rows: list[dict], asked: argparse.Namespace) -> None:
    """Write the machine's tables, numbers and figure; those of other machines stay."""
    facts, rounds = machine(), len(rows[0]["rounds"])
    numbers = RESULTS / "vs_peer.json"
    known = json.loads(numbers.read_text()) if numbers.exists() else {}
    known[facts["cpu"]] = {"machine": facts, "note": asked.note, "rows": rows}
    numbers.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    head = (
        "# A step at 1024 px beside other people's code\n\n"
        "What a step is, and what the convolutions alone are, is said in `benchmarks/vs_peer.py`: "
        "every variant in turn in a process of its own, with the same allocator settings "
        f"({', '.join(f'{k}={v}' for k, v in SETTINGS.items())}). Ratios are medians of the ratios "
        "within a round. Peers are float32: their half precision is for CUDA.\n"
    )
    made = (
        f"{asked.threads} thread{'s' * (asked.threads > 1)}, torch {facts['torch']}, Python "
        f"{facts['python']}, {rounds} round{'s' * (rounds > 1)}, medians of {asked.steps} "
        f"step{'s' * (asked.steps > 1)}. {asked.note}"
    )
    title = str(facts["cpu"])
    write_section(RESULTS / "vs_peer.md", head, title, [made.rstrip(), "", *table(rows)])
    figure(rows, RESULTS / f"vs_peer-{'-'.join(re.findall(r'[a-z0-9]+', title.lower()))}.svg")


if __name__ == "__main__":
    main()
