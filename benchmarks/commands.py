"""Commands on damaged folders: how they end, and what is on the disk afterwards."""

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import damage as ways
from benchmarks.foreign_files import Fault, Kind, Write, code_of_tests, prepare_onnx

#: Parts of a run that are rendered from the others, and that a command may remove.
RENDERED = ("run/report/", "run/gate/", "run/summary.json", "run/.lock")
SPEC = """\
dataset: fairface
split: val
arms: [bicubic]
scales: [4]
resolution: 32
crop: fairface-0.25
per_group: 1
limit: 3
draws: 2
batch: 2
metrics: [psnr]
attributes: own/model.onnx
keep_images: all
device: cpu
threads: 1
"""
RUN = ("run", "own/spec.yaml", "--data-root", "data", "--datasets", "own/datasets.yaml", "--quiet")
FRESH, RESUME = (*RUN, "--out", "new"), (*RUN, "--out", "run")
REPORT = ("report", "run")
RULES, BASELINE, VERDICTS = "own/rules.yaml", "own/baseline.json", "run/gate/verdicts.json"
CHECK = (
    "check",
    "run",
    "--rules",
    RULES,
    "--baseline",
    BASELINE,
    "--junit",
    "run/gate/new.xml",
    "--github",
)
#: Rules of every kind of evidence, on the run that `prepare_gate` makes.
JUDGED = """\
alpha: 0.05
rules:
  - {metric: retention, group_by: race, statistic: worst_group, no_worse_than_baseline_by: 0.05}
  - {metric: retention, group_by: race, statistic: max_gap, at_most: 0.2, arm: "pulse:*"}
  - {metric: feasible_rate, group_by: gender, statistic: min_ratio, at_least: 0.8}
  - {metric: lightness_shift, group_by: race, statistic: max_abs, no_worse_than_baseline_by: 1.0}
  - {metric: flip_rate, group_by: race, statistic: max_gap, no_worse_than_baseline_by: 0.1}
  - {metric: output_share, group_by: race, statistic: max_abs, no_worse_than_baseline_by: 0.1}
  - {metric: retention_corrected, group_by: race, statistic: mean, no_worse_than_baseline_by: 0.1}
  - {metric: pr_tv, group_by: race, statistic: mean, at_most: 0.1}
"""


def prepare_folder(folder: Path) -> None:
    """Write photos, their labels, an attribute model, a specification, and the run made of them."""
    from PIL import Image

    from pulse_audit.cli import outcome
    from pulse_audit.datasets.registry import builtin_file
    from pulse_audit.store import open_run

    tests = code_of_tests("conftest.py")
    (folder / "data" / "val").mkdir(parents=True)
    rows = ["file,age,gender,race,service_test"]
    for number in range(14):
        Image.fromarray(tests.paint_face(number, 32)).save(folder / f"data/val/{number}.jpg")
        rows.append(f"val/{number}.jpg,20-29,Male,{tests.RACES[number % 7]},True")
    (folder / "data" / "fairface_label_val.csv").write_text("\n".join(rows) + "\n")
    (folder / "own").mkdir()
    prepare_onnx(folder / "own")
    own = (folder / "own/model.yaml").read_text()
    words = own.partition("attributes:")[0] + (
        "attributes:\n  gender: {output: logits, words: [Male, Female, other]}\nfeatures: plain\n"
    )
    (folder / "own/model.yaml").write_text(words)
    (folder / "own/spec.yaml").write_text(SPEC)
    shutil.copy(builtin_file(), folder / "own/datasets.yaml")
    (folder / "own/letter.txt").write_text("mine")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert outcome(RESUME) == 0
    open_run(folder / "run").samples().drop(columns="seconds").to_parquet(folder / "samples")


def prepare_gate(folder: Path) -> None:
    """Write a finished run, rules, the baseline file of an earlier run, and the verdicts on it."""
    from pulse_audit.gate.check import check, publish

    tests = code_of_tests("gate/conftest.py")
    (folder / "own").mkdir()
    (folder / RULES).write_text(JUDGED)
    for name, rates, seed in (("before", [0.9, 0.8, 0.9], 1), ("run", [0.9, 0.3, 0.9], 2)):
        tests.make_run(folder / name, {"pulse:a": tests.draw_outcomes(rates, 20, 2, seed=seed)})
    check(folder / "before", folder / RULES, new_baseline=folder / BASELINE)
    shutil.rmtree(folder / "before")
    with contextlib.chdir(folder):
        publish(check("run", RULES, BASELINE))


def damage_run(folder: Path, rng: random.Random, case: int) -> None:
    """Damage a file of the run by its kind, or put something else in its place."""
    # The report has most of the files, and few of them matter.
    part = rng.choice(sorted(path for path in (folder / "run").iterdir() if path.name != "report"))
    inside = sorted(path for path in part.rglob("*") if path.is_file())
    place(folder, rng.choice(inside or [part]), rng)


def damage_given(folder: Path, rng: random.Random, case: int) -> None:
    """Damage a photo, the labels, or one of the user's own files."""
    files = [*(folder / "own").iterdir(), *(folder / "data").iterdir(), folder / "own/spec.yaml"]
    victim = rng.choice([*sorted(path for path in files if path.is_file()), None, None])
    place(folder, victim or folder / f"data/val/{rng.randrange(14)}.jpg", rng)


CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    ".json": ways.damaged_json,
    ".parquet": ways.damaged_shard,
    ".npz": ways.damaged_features,
    ".png": ways.damaged_image,
    ".jpg": ways.damaged_image,
    ".sha256": ways.damaged_text,
    ".csv": ways.damaged_text,
    ".yaml": ways.damaged_text,
}


def place(folder: Path, victim: Path, rng: random.Random) -> None:
    """Change the content of a file, or put a link, a folder, a pipe or nothing in its place."""
    content, way = victim.read_bytes(), rng.randrange(16)
    if way > 5:
        victim.write_bytes(CHANGES.get(victim.suffix, ways.damaged_bytes)(content, rng))
        return
    victim.unlink()
    if way == 1:
        victim.write_bytes(b"")
    elif way == 2:
        victim.mkdir()
    elif way == 3:
        os.mkfifo(victim)
    elif way in (4, 5):
        victim.symlink_to([folder / "own/letter.txt", "/dev/zero"][way - 4])


def command(
    damage: Callable[[Path, random.Random, int], None],
    arguments: tuple[str, ...],
    prepare: Write = prepare_folder,
    cases: Callable[[], int] | None = None,
) -> Kind:
    """A command in a damaged folder, held to its promises.

    One line on the standard error, or none where it is done or has verdicts; exit code 0, 2 or 3,
    of a check also 1; the files of the user as they were; no file of the run gone, and none
    half-written.
    """
    is_check = arguments == CHECK

    def read(folder: Path) -> None:
        import pandas as pd

        from pulse_audit.cli import BAD_INPUT, DONE, INCOMPLETE, RULE_FAILED, outcome
        from pulse_audit.store import open_run
        from pulse_audit.types import InputError

        os.environ["PULSE_AUDIT_HOME"] = str(folder.parent / "cache")
        before, said = contents(folder), io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said),
        ):
            code = outcome(arguments)
        lines, after = said.getvalue().splitlines(), contents(folder)
        if any("please report it" in line for line in lines):
            raise Fault("traceback", lines[0])
        is_quiet = code == DONE or (is_check and code in (RULE_FAILED, INCOMPLETE))
        if not (is_quiet or code in (BAD_INPUT, INCOMPLETE)) or len(lines) != (not is_quiet):
            raise Fault("text", f"exit code {code} and {len(lines)} lines: {' / '.join(lines)}")
        for name, state in before.items():
            if name.startswith("run/"):
                lost = name not in after and not name.startswith(RENDERED)
            else:
                lost = after.get(name) != state
            if lost:
                raise Fault("lost", f"{name} is gone or changed (exit code {code})")
        for name in after:
            if before.get(name) != after[name] and not is_whole(folder / name):
                raise Fault("half-written", f"{name} (exit code {code})")
        if code == BAD_INPUT:
            raise InputError(lines[0])
        # A run that goes on after damage ends with the samples that it had before.
        if code == DONE and arguments == RESUME:
            rows = open_run(folder / "run").samples().drop(columns="seconds")
            if not rows.equals(pd.read_parquet(folder / "samples")):
                raise Fault("lost", "the samples are others than before")

    return Kind(prepare, damage, read, cases)


def gate(name: str, files: Mapping[str, Write] | None = None) -> Kind:
    """`check` beside a damaged file of the gate, or one made by hand, which it has to refuse."""
    cases = None if files is None else (lambda: len(files))
    kind = command(damage_of(name, files), CHECK, prepare_gate, cases)

    def read(folder: Path) -> None:
        kind.read(folder)
        if (folder / name).read_bytes() != (folder / "sound").read_bytes():
            raise Fault("text", "was not refused")

    def prepare(folder: Path) -> None:
        prepare_gate(folder)
        shutil.copy(folder / name, folder / "sound")

    return kind if files is None else Kind(prepare, kind.damage, read, cases)


def verdicts(files: Mapping[str, Write] | None = None) -> Kind:
    """Verdicts as a report reads them back; those made by hand must not be shown."""

    def read(folder: Path) -> None:
        from pulse_audit.gate.check import stored_result
        from pulse_audit.store import open_run
        from pulse_audit.types import InputError

        if stored_result(open_run(folder / "run")) is None:
            raise InputError("nothing is shown")
        if files is not None and (folder / "case").exists():
            raise Fault("text", "its verdicts are shown")

    def damage(folder: Path, rng: random.Random, case: int) -> None:
        damage_of(VERDICTS, files)(folder, rng, case)
        (folder / "case").write_text(str(case))

    return Kind(prepare_gate, damage, read, None if files is None else (lambda: len(files)))


def damage_of(
    name: str, files: Mapping[str, Write] | None
) -> Callable[[Path, random.Random, int], None]:
    """Damage a file by its kind, or write one made by hand in its place."""

    def damage(folder: Path, rng: random.Random, case: int) -> None:
        if files is None:
            place(folder, folder / name, rng)
        else:
            list(files.values())[case](folder / name)

    return damage


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file in a folder, by name; where links lead to is not followed."""
    states = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            state = f"link to {os.readlink(path)}"
        elif path.is_file():
            state = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            state = "folder" if path.is_dir() else "pipe"
        states[str(path.relative_to(folder))] = state
    return states


def is_whole(path: Path) -> bool:
    """Whether a file that was written can be read to its end, and none was left under way."""
    import numpy as np
    import pyarrow.parquet as pq

    from pulse_audit.store.images import is_whole as is_whole_image

    if path.suffix == ".tmp":
        return False
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                return all(len(arrays[name]) for name in arrays)
        elif path.suffix == ".png":
            return is_whole_image(path)
        elif path.suffix == ".html":
            return path.read_text().rstrip().endswith("</html>")
    except Exception:
        return False
    return path.is_dir() or path.name == ".lock" or path.stat().st_size > 0
