"""Files from outside, kind by kind: how sound ones are made, damaged, and read by the package."""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests"
#: Made once for all kinds, in the process of the first that needs it, and removed at the end.
SOUND_RUN = Path(tempfile.gettempdir(), f"faults-run-{os.getpid()}")

Change = Callable[[bytes, random.Random], bytes]
Write = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """Files of a kind.

    Attributes
    ----------
    prepare : callable
        Writes the sound files into a folder.
    damage : callable
        Changes some of them: folder, source of random numbers, number of the case.
    read : callable
        Reads the folder as the package does; InputError where it is refused, Fault where reading
        did harm.
    cases : int, optional
        How many there are; None: as many as there is time for.
    """

    prepare: Write
    damage: Callable[[Path, random.Random, int], None]
    read: Callable[[Path], object]
    cases: Callable[[], int] | None = None


class Fault(Exception):
    """What a command must not do: end (``text``, ``lost``, ``half-written``) and what it was."""


def one_of(files: str, change: Change) -> Callable[[Path, random.Random, int], None]:
    """Damage one of the files that a pattern matches."""

    def damage(folder: Path, rng: random.Random, case: int) -> None:
        victim = rng.choice(sorted(folder.glob(files)))
        victim.write_bytes(change(victim.read_bytes(), rng))

    return damage


def handmade(prepare: Write, files: Mapping[str, Write], name: str, read: Write) -> Kind:
    """Files made by hand, each read once in the place of a sound one."""

    def damage(folder: Path, rng: random.Random, case: int) -> None:
        write = list(files.values())[case]
        write(next(folder.glob(name)))

    return Kind(prepare, damage, read, lambda: len(files))


@functools.cache
def code_of_tests(name: str) -> Any:
    """Load a file of the tests, whose writers of foreign files are used here too."""
    spec = importlib.util.spec_from_file_location("code_of_tests", TESTS / name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- Data sets and specifications ---


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


def prepare_images(folder: Path) -> None:
    from PIL import Image

    pixels = random.Random(0).randbytes(24 * 24 * 3)
    image = Image.frombytes("RGB", (24, 24), pixels)
    for suffix in ("png", "jpg", "gif", "webp", "bmp", "tiff", "ppm"):
        image.save(folder / f"photo.{suffix}")


def read_images(folder: Path) -> None:
    from pulse_audit.datasets.images import UnreadableImage, decode
    from pulse_audit.types import InputError

    for path in sorted(folder.iterdir()):
        try:
            decode(path.read_bytes())
        except UnreadableImage as error:
            raise InputError(str(error)) from None


# --- Runs ---


def prepare_run(folder: Path) -> None:
    """Copy a small finished run with sources; the first call makes it."""
    if not SOUND_RUN.exists():
        code = f"from benchmarks import foreign_files as f; f.make_run(f.Path({str(SOUND_RUN)!r}))"
        command = [sys.executable, "-c", code]
        subprocess.run(command, check=True, capture_output=True, cwd=TESTS.parent)
    shutil.copytree(SOUND_RUN, folder / "run")


def make_run(out: Path) -> None:
    """Make a run with every part that a run can have: images, features, references, sources."""
    from pulse_audit.harness.run import run_audit
    from pulse_audit.harness.sources import SourcesConfig, run_sources
    from pulse_audit.harness.spec import make_spec

    values = {
        "dataset": "synthetic-faces", "resolution": 32, "generators": ["faces-balanced"],
        "arms": ["bicubic"], "search": "fast", "per_group": 1, "limit": 2, "draws": 1, "batch": 2,
        "device": "cpu", "threads": 1, "keep_images": "all", "sources": True,
    }  # fmt: skip
    few = SourcesConfig(prior_samples=4, uninformative_draws=1)
    run_sources.__defaults__ = (few,)
    run_audit(make_spec(values), out)
    for unused in ("images", "report"):
        shutil.rmtree(out / unused)


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


def prepare_references(folder: Path) -> None:
    tests = code_of_tests("harness/test_references.py")
    groups = ["a", "b"] * 25
    fitted = tests.fit_references(iter(tests.originals(50)), groups, 32, verify=True)
    (folder / "references.json").write_text(json.dumps(fitted.as_json()))


def read_references_file(folder: Path) -> None:
    from pulse_audit.harness.measure import read_references
    from pulse_audit.store import Manifest, Run

    empty = {"spec": {}, "dataset": {"vocabulary": {}}, "faces": [], "arms": {}, "units": []}
    stored = Run(folder, Manifest(schema=1, **empty)).read_references()
    assert stored is not None
    read_references(stored)


# --- Checkpoints and programs ---


def prepare_checkpoint(name: str) -> Write:
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


def checkpoint(name: str, change: Change, files: str = "") -> Kind:
    """A small StyleGAN 2 or decoder in a file of this name; its card is damaged by ``files``."""
    return Kind(prepare_checkpoint(name), one_of(files or name, change), read_checkpoint_file)


def published(name: str, change: Change) -> Kind:
    """One of the small files in a published layout that the tests write."""

    def prepare(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as place:
            path = code_of_tests("harness/conftest.py").write_families(Path(place))[name]
            shutil.copy(path, folder)

    return Kind(prepare, one_of("*", change), read_checkpoint_file)


def bombs() -> Kind:
    """The checkpoints of the tests that ask for hours or for all memory."""
    prepare, tests = prepare_checkpoint("plain.pt"), "generators/checkpoints/test_bombs.py"

    def damage(folder: Path, rng: random.Random, case: int) -> None:
        (folder / "plain.pt").unlink()
        code = code_of_tests(tests)
        name = list(code.FILES)[case]
        code.FILES[name](folder / f"bomb{code.suffix(name)}")

    return Kind(prepare, damage, read_checkpoint_file, lambda: len(code_of_tests(tests).FILES))


# --- ONNX ---


def prepare_onnx(folder: Path) -> None:
    from benchmarks.handmade import onnx_model

    (folder / "model.onnx").write_bytes(onnx_model().SerializeToString())
    (folder / "model.yaml").write_text(
        "resolution: 8\ncrop: ffhq\nmean: [0.5, 0.4, 0.3]\nattributes:\n"
        "  age: {output: logits, words: [young, middle, old]}\nconfusion:\n"
        "  age: [[8, 1, 1], [1, 8, 1], [1, 1, 8]]\nnotes: [small]\n"
    )


def read_onnx(folder: Path) -> None:
    from pulse_audit.faces.onnx_attributes import load_onnx

    load_onnx(folder / "model.onnx")
