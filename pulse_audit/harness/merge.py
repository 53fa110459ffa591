"""Join the shards of an audit, each made by ``run --shard I/N``, into one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulse_audit import store
from pulse_audit.documents import read_file
from pulse_audit.harness.run import plan_difference
from pulse_audit.harness.suite import reasons_of_run
from pulse_audit.report import html
from pulse_audit.store import Manifest, Run, as_parquet
from pulse_audit.store.images import is_whole
from pulse_audit.store.manifest import WorkUnit, check_manifest
from pulse_audit.store.parquet import MAX_FILE
from pulse_audit.types import InputError, Progress

#: Work units that are named where many are missing.
NAMED = 8
#: Relative difference of two fits of the same references on machines that round otherwise.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Merged:
    """The joined run, and what it lacks; None where it is complete."""

    run: Run
    problem: str | None


def merge_runs(
    paths: Sequence[Path],
    out: Path,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
) -> Merged:
    """Copy the finished work units of shards into one run, and summarise it once none is missing.

    Parameters
    ----------
    paths : sequence of Path
        Runs of one plan: shards, or interrupted runs; they are only read.
    out : Path
        The joined run; made if missing. One that is there already is completed.
    progress : callable, optional
        Called as ``progress(done, total, restored)`` in work units.
    announce : callable, optional
        Called with a line for each work unit that is damaged or lacks images.

    Returns
    -------
    Merged

    Raises
    ------
    InputError
        If two runs differ in specification, plan, data, weights, versions or execution, or hold
        different samples of the same work unit; nothing is written then.
    """
    progress, announce = progress or (lambda *_: None), announce or (lambda _: None)
    runs = [store.open_run(path) for path in dict.fromkeys(paths)]
    for run in runs[1:]:
        check_agreement(runs[0], run)
    if any(path.resolve() == out.resolve() for path in paths):
        raise InputError(f"--out {out}: is one of the runs to join; choose another")
    with store.locked(out) as existing:
        if existing is not None:
            if existing.manifest.shard is not None:
                raise InputError(f"{out}: holds shard {existing.manifest.shard}; choose another")
            check_agreement(runs[0], existing)
        # Every unit and reference is read before anything is written.
        readable = [*([existing] if existing else []), *runs]
        sources = find_units(readable, progress, announce)
        references = common_references(readable)
        joined = existing or store.create_run(out, joined_manifest(runs))

        total = len(joined.manifest.units)
        for done, (unit, source, images) in enumerate(sources, 1):
            if source.path != joined.path:
                copy_unit(joined, source, unit, images)
            progress(total + done, 2 * total, 0)
        if references is not None and joined.read_references() is None:
            joined.write_references(references)
        entry = next((r.manifest.references for r in runs if r.manifest.references), None)
        if entry is not None and joined.manifest.references is None:
            joined.write_manifest(references=entry)
        join_originals(joined, runs)
        return Merged(joined, finish(joined))


def finish(run: Run) -> str | None:
    """Complete and summarise a joined run, or say what it lacks."""
    missing = run.missing_units
    command = f"the audit's run command with --out {run.path} and without --shard"
    if missing:
        names = ", ".join(missing[:NAMED]) + ", ..." * (len(missing) > NAMED)
        return (
            f"{len(missing):,} of {len(run.manifest.units):,} work units are missing ({names}); "
            f"finish their shards and merge again, or make them here: {command}"
        )
    if run.manifest.spec.sources and run.source_tables() is None:
        return f"all draws are there, what --sources adds is not; {command} makes it"
    if run.features_dim is not None and len(run.originals()) < len(run.manifest.faces):
        return f"features of originals are missing; {command} makes them"
    samples = run.samples()
    run.write_manifest(
        status="complete",
        finished=run.manifest.finished or datetime.now(UTC).isoformat(timespec="seconds"),
        unavailable=reasons_of_run(samples, run.manifest),
    )
    html.publish(run, samples)
    return None


# --- Do they belong together? ---


def check_agreement(first: Run, other: Run) -> None:
    """Refuse two runs that are not of one plan, made with the same means; name the difference."""
    found = difference(first.manifest, other.manifest)
    if found is not None:
        subject, change = found
        raise InputError(
            f"{other.path}: not of the same audit as {first.path}: {subject} differ ({change})"
        )


def difference(first: Manifest, other: Manifest) -> tuple[str, str] | None:
    """Say in what two manifests of one audit differ first; None where they agree."""
    # Of the execution, the number of the GPU is of no account.
    devices = [m.execution.device.partition(":")[0] for m in (first, other)]
    executions = [
        m.execution.as_dict() | {"device": device}
        for m, device in zip((first, other), devices, strict=True)
    ]
    rounds = [{} if m.rounds is None else m.rounds.as_dict() for m in (first, other)]
    pairs: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("their specifications", first.spec.as_dict(), other.spec.as_dict()),
        ("their specifications", {"sha256": first.fingerprint}, {"sha256": other.fingerprint}),
        ("versions", first.versions, other.versions),
        ("device, precision, threads or batch", executions[0], executions[1]),
        ("the data set or its labels", first.dataset.as_dict(), other.dataset.as_dict()),
        ("the features", first.features.as_dict(), other.features.as_dict()),
        ("rounds", rounds[0], rounds[1]),
    ]
    for subject, one, two in pairs:
        if one != two:
            changed = [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]
            return subject, "; ".join(f"{k} {one.get(k)!r}, {two.get(k)!r}"[:200] for k in changed)
    return plan_difference(first, other)


# --- What is where? ---


def find_units(
    runs: Sequence[Run], progress: Progress, announce: Callable[[str], None]
) -> list[tuple[WorkUnit, Run, list[str]]]:
    """Find a run that holds each finished unit, and the images that it kept.

    Units that no run holds are left out.

    Raises
    ------
    InputError
        If two runs hold different samples of a unit.
    """
    sources: dict[str, tuple[WorkUnit, Run, list[str]]] = {}
    whole: dict[Path, bool] = {}
    units = runs[0].manifest.units
    there = {run.path: {u.id for u in units} - {*run.missing_units} for run in runs}
    for number, unit in enumerate(units):
        progress(number, 2 * len(units), 0)
        for run in runs:
            if unit.id not in there[run.path]:
                continue
            try:
                run.unit_files(unit.id)
                names = run.images_of(unit)
            except InputError as error:
                announce(f"{run.path}: work unit {unit.id} is damaged and left out ({error})")
                continue
            for path in (run.path / name for name in names):
                if path not in whole:
                    whole[path] = is_whole(path)
            if not all(whole[run.path / name] for name in names):
                announce(f"{run.path}: work unit {unit.id} lacks images and is left out")
            elif unit.id not in sources:
                sources[unit.id] = (unit, run, names)
            else:
                check_same_samples(unit, sources[unit.id][1], run)
    return list(sources.values())


def check_same_samples(unit: WorkUnit, first: Run, other: Run) -> None:
    """Refuse two versions of a unit that differ in more than the time they took."""
    files = [run.unit_files(unit.id) for run in (first, other)]
    if files[0] == files[1]:
        return
    differing = {name for name in files[0] if files[0][name] != files[1].get(name)}
    # Rows as bytes: not-a-number equals itself there.
    rows = [as_parquet(run.rows_of(unit).drop_columns(["seconds"])) for run in (first, other)]
    if rows[0] != rows[1] or any(name.endswith(".npz") for name in differing):
        raise InputError(
            f"{other.path}: work unit {unit.id} holds other samples than in {first.path}; remove "
            "one of the two (samples, checksum and features of that name) and merge again"
        )


def common_references(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Return what the shards fitted on the originals; InputError where they differ."""
    found = [(run, content) for run in runs if (content := run.read_references()) is not None]
    for run, content in found[1:]:
        if not alike(found[0][1], content):
            raise InputError(
                f"{run.path}: references.json, fitted on the originals, differs from that of "
                f"{found[0][0].path}; were both made on like machines?"
            )
    return found[0][1] if found else None


def alike(first: Any, other: Any) -> bool:
    """Whether two JSON values agree, numbers up to rounding."""
    if isinstance(first, dict) and isinstance(other, dict):
        return first.keys() == other.keys() and all(alike(first[k], other[k]) for k in first)
    if isinstance(first, list) and isinstance(other, list):
        pairs = zip(first, other, strict=False)
        return len(first) == len(other) and all(alike(a, b) for a, b in pairs)
    if isinstance(first, float) and isinstance(other, float):
        return math.isclose(first, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(first == other)


# --- Joining ---


def joined_manifest(runs: Sequence[Run]) -> Manifest:
    """Make the manifest of the whole run: the plan of all, and what became of the shards."""
    manifests = [run.manifest for run in runs]
    content = manifests[0].as_dict()
    content.pop("shard", None)
    content["status"] = "running"
    content["seconds"] = round(sum(m.seconds for m in manifests), 3)
    if started := [m.started for m in manifests if m.started]:
        content["started"] = min(started)
    content.pop("finished", None)
    # Notes of one shard alone, such as a change of device, are kept too.
    content["notes"] = list(dict.fromkeys(note for m in manifests for note in m.notes))
    others = {m.platform for m in manifests} - {manifests[0].platform}
    if others:
        content["notes"].append(f"shards were made on {manifests[0].platform}; {'; '.join(others)}")
    return check_manifest(content)


def copy_unit(joined: Run, source: Run, unit: WorkUnit, images: Sequence[str]) -> None:
    """Copy a unit's images, then its features and its samples: where these are, all of it is."""
    for name in images:
        # Units share originals and inputs.
        if not is_whole(joined.path / name):
            joined.write_image(name, read_file(source.path / name, MAX_FILE))
    joined.write_files(source.unit_files(unit.id))


def join_originals(joined: Run, runs: Sequence[Run]) -> None:
    """Write the features of all originals that any run has, in the order of the plan."""
    if joined.features_dim is None:
        return
    known: dict[str, store.Features] = {}
    for run in [joined, *runs]:
        try:
            for face_id, vector in run.originals().items():
                known.setdefault(face_id, vector)
        except InputError:  # missing or damaged: what is lacking is made again by the run command
            continue
    if known:
        ids = [face.id for face in joined.manifest.faces if face.id in known]
        joined.write_originals({face_id: known[face_id] for face_id in ids})
