"""Carry an audit out: plan, run the units, resume, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pulse_audit import store
from pulse_audit.gate.until import UntilDecided
from pulse_audit.harness.arms import prepare_arms
from pulse_audit.harness.executors import Workers
from pulse_audit.harness.hand_labels import hand_labels_of, keep_hand_labels
from pulse_audit.harness.inputs import AuditInputs
from pulse_audit.harness.plan import Plan, plan_audit
from pulse_audit.harness.prior import run_priors
from pulse_audit.harness.rounds import check_rounds, check_same_budget, first_rounds
from pulse_audit.harness.source_models import resolve_sources
from pulse_audit.harness.sources import run_sources
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.harness.storage import Copy
from pulse_audit.harness.suite import reasons_of_run
from pulse_audit.harness.unit import UnitResult, UnitRunner
from pulse_audit.harness.workers import Job, carry_out, make_pool
from pulse_audit.report import html
from pulse_audit.search.memory import keep_freed_memory
from pulse_audit.store import Manifest
from pulse_audit.store.images import SHARED
from pulse_audit.store.manifest import Execution, ShardEntry, WorkUnit
from pulse_audit.types import InputError, Progress, UnfinishedRun


def run_audit(
    spec: AuditSpec,
    out: Path,
    progress: Progress | None = None,
    inputs: AuditInputs | None = None,
    announce: Callable[[str], None] | None = None,
    hand_labels: Path | None = None,
    until: UntilDecided | None = None,
    shard: tuple[int, int] | None = None,
    workers: Workers | None = None,
    copy: Copy | None = None,
) -> store.Run:
    """Run an audit into a directory, or resume the one that is there after any interruption.

    Parameters
    ----------
    spec : AuditSpec
    out : Path
        The run directory; made if missing.
    progress : callable, optional
        Called as ``progress(done, total, restored)`` in draws.
    inputs : AuditInputs, optional
        Result of `find_inputs` for the spec; None looks it up here.
    announce : callable, optional
        Called with each note of the plan before the work begins.
    hand_labels : Path, optional
        CSV of people's labels of outputs, as ``--hand-labels`` takes it; no part of the spec.
    until : UntilDecided, optional
        Rules that rounds of ``per_group`` faces are added for until they are decided; no part of
        the spec. Its verdicts are in ``gate/``.
    shard : tuple of int, optional
        ``(index, of)``, counted from 1: only this part of the plan's units is carried out, and
        nothing is summarised; `harness.merge.merge_runs` joins the shards.
    workers : Workers, optional
        Processes that carry out the units; None: this one. No part of the spec: the samples are
        the same.
    copy : Copy, optional
        Where the run's files are copied to as they are written.

    Returns
    -------
    store.Run
        Complete, with ``summary.json`` and ``report/``; of a shard, with all units of the shard.

    Raises
    ------
    InputError
        If the spec, its data, the labels or the directory cannot be used.
    UnfinishedRun
        If units failed in the workers; what is finished stays.
    """
    progress = progress or (lambda done, total, restored: None)
    budget, looks = (None, None) if until is None else (until.budget, until.looks)
    if budget is not None:
        check_rounds(spec, budget, looks)
    if shard is not None and (until is not None or hand_labels is not None):
        option = "--hand-labels" if until is None else "--until-decided"
        raise InputError(f"--shard does not go with {option}, which is about a whole run")
    with store.locked(out) as existing:
        before = existing.manifest if existing else None
        if before is not None:
            check_same_spec(before, spec, out)
            check_same_budget(before, budget, looks, out)
            check_same_shard(before, shard, out)
        here = workers.number if workers else 1
        plan = plan_audit(spec, before, inputs, budget, looks, progress, here)
        planned, remarks = plan.manifest, list[str]()
        if until is not None:
            # Rules and baseline are checked against all rounds; those that were begun go on.
            remarks = until.check_plan(plan.manifest)
            begun = before.rounds.planned if before and before.rounds else 1
            planned = first_rounds(plan.manifest, begun)
        if shard is not None:
            entry = ShardEntry(index=shard[0], of=shard[1])
            planned = planned.model_copy(update={"shard": entry})
        models = resolve_sources(plan) if spec.sources and shard is None else None
        if hand_labels is not None:
            hand_labels_of(hand_labels, planned)
        # Nothing is written before the whole plan is known to work.
        if existing is None:
            run = store.create_run(out, planned)
        else:
            run = existing
            check_same_plan(run.manifest, planned, out)
            move(run, planned.execution)
        if announce is not None:
            for note in [*run.manifest.notes, *remarks]:
                announce(note)
        runner = cache(lambda: UnitRunner(plan, run))
        run_units(run, plan, runner, progress, spec, workers, copy)
        if shard is not None:
            return run
        # Another round, as long as the rules ask for one.
        while until is not None and not until.is_decided(run):
            begun += 1
            planned = first_rounds(plan.manifest, begun)
            run.write_manifest(faces=planned.faces, units=planned.units, rounds=planned.rounds)
            run_units(run, plan, runner, progress, spec, workers, copy)
        # The sources of the shifts, once all units are finished.
        if models is not None:
            started = time.monotonic()
            run_sources(run, plan, models, progress)
            run_priors(run, plan, models.guide, progress, spec.trusted_files)
            add_time(run, started)
        # Complete: the reasons of empty columns, the summary and the report.
        samples = run.samples()
        if hand_labels is not None:
            keep_hand_labels(hand_labels, run, samples)
        run.write_manifest(
            status="complete",
            finished=run.manifest.finished or _now(),
            unavailable=reasons_of_run(samples, run.manifest),
        )
        if until is not None:
            until.publish(run)
        html.publish(run, samples)
        if copy is not None:
            copy.update(run)
        return run


def move(run: store.Run, execution: Execution) -> None:
    """Record that a run goes on on another device, where it does and units are missing."""
    before, units = run.manifest.execution.device, run.manifest.own_units
    missing = {*run.missing_units} & {unit.id for unit in units}
    if execution.device == before or not missing:
        return
    done = len(units) - len(missing)
    note = (
        f"{done} of {len(units)} work units were made on {before}, the others on "
        f"{execution.device}: results of two devices agree up to rounding, which a search of many "
        "steps can magnify"
    )
    run.write_manifest(execution=execution, notes=[*run.manifest.notes, note])


def run_units(
    run: store.Run,
    plan: Plan,
    make_runner: Callable[[], UnitRunner],
    progress: Progress,
    spec: AuditSpec,
    workers: Workers | None = None,
    copy: Copy | None = None,
) -> None:
    """Carry out every unit of the run's own that is not finished, here or in workers."""
    units = run.manifest.own_units
    total = sum(len(unit.draws) for unit in units)
    # A unit whose shard or images are damaged or missing is made again.
    checked: dict[str, bool] = {}
    waiting = [
        unit for unit in units if not (run.is_finished(unit.id) and run.has_images(unit, checked))
    ]
    if copy is not None:
        copy.update(run)
    if not waiting and (run.features_dim is None or run.has_originals):
        return
    done = restored = total - sum(len(unit.draws) for unit in waiting)
    prepare_arms(plan.arms, plan.manifest, progress)
    keep_freed_memory()
    runner = make_runner()
    started = time.monotonic()
    run.write_manifest(status="running", started=run.manifest.started or _now())
    progress(done, total, restored)
    # A unit is written whole before the next begins, so a killed run loses one unit at most; with
    # workers one for each.
    failed: dict[str, str] = {}
    here = ((unit, runner.run(unit)) for unit in waiting)
    there = results_of_workers(run, plan, runner, spec, workers, waiting, failed)
    with closing(here), closing(there):
        for unit, result in here if workers is None else there:
            run.write_unit(unit.id, result.rows, result.features)
            if result.at_once is not None:
                note_memory(run, unit, result.at_once)
            if copy is not None:
                copy.send(run, unit)
            done += len(unit.draws)
            progress(done, total, restored)
    if failed:
        names = ", ".join(list(failed)[:8]) + ", ..." * (len(failed) > 8)
        raise UnfinishedRun(
            f"{run.path} is unfinished: {len(failed):,} of {len(units):,} work units failed "
            f"({names}; the last: {list(failed.values())[-1]}); the others are done, and the same "
            "command tries these again"
        )
    if run.features_dim is not None:
        run.write_originals(runner.features_of_originals())
    add_time(run, started)
    if copy is not None:
        copy.update(run)


def note_memory(run: store.Run, unit: WorkUnit, at_once: int) -> None:
    """Record that the device's memory did not hold a unit."""
    note = (
        f"{unit.arm}: memory ran out in work unit {unit.id}; from there on the process that "
        f"searched it took at most {at_once} images at once: results agree up to rounding, which a "
        "search of many steps can magnify"
    )
    run.write_manifest(notes=[*run.manifest.notes, note])


def add_time(run: store.Run, started: float) -> None:
    """Add the time since then to the run's: wall time, over all processes that worked on it."""
    seconds = run.manifest.seconds + time.monotonic() - started
    run.write_manifest(seconds=round(seconds, 3))


def results_of_workers(
    run: store.Run,
    plan: Plan,
    runner: UnitRunner,
    spec: AuditSpec,
    workers: Workers | None,
    waiting: Sequence[WorkUnit],
    failed: dict[str, str],
) -> Generator[tuple[WorkUnit, UnitResult], None, None]:
    """Yield units with their results as workers finish them; their images are written here."""
    assert workers is not None
    # All workers measure with the references of one process.
    references = runner.references().as_json()
    content = plan.manifest.as_dict() | {"units": []}
    pool = make_pool(workers, Job(spec, content, references))
    try:
        for unit, answer in carry_out(waiting, pool, workers.number, failed):
            for name, png in answer.images.items():
                # Units share their originals and inputs.
                if not (name.startswith(SHARED) and run.has_image(name)):
                    run.write_image(name, png)
            runner.original_features |= answer.originals
            yield unit, answer.result
    finally:
        pool.close()


def check_same_spec(manifest: Manifest, spec: AuditSpec, out: Path) -> None:
    """Refuse to resume a run of another specification, and show the difference."""
    if manifest.fingerprint == spec.fingerprint:
        return
    stored, requested = manifest.spec.as_dict(), spec.requested()
    differences = [
        f"{key} {stored.get(key)!r} -> {requested.get(key)!r}"
        for key in sorted({*stored, *requested})
        # The manifest holds the data set's own groupings, and the resolution's scale, where none
        # were requested.
        if stored.get(key) != requested.get(key)
        and not (key in ("group_by", "scales") and requested[key] is None)
    ]
    raise InputError(
        f"{out}: holds another audit ({'; '.join(differences) or 'another version wrote it'}); "
        "choose another --out, or give the same options to resume"
    )


def check_same_shard(manifest: Manifest, shard: tuple[int, int] | None, out: Path) -> None:
    """Refuse to go on with another part of the plan than the one that was begun."""
    names = [
        "the whole audit" if part is None else "shard {}/{}".format(*part)
        for part in (manifest.shard and (manifest.shard.index, manifest.shard.of), shard)
    ]
    if names[0] != names[1]:
        raise InputError(f"{out}: holds {names[0]}, not {names[1]}; choose another --out")


def check_same_plan(before: Manifest, after: Manifest, out: Path) -> None:
    """Refuse to resume where faces, weights or units are no longer those of the manifest."""
    if (found := plan_difference(before, after)) is not None:
        subject, change = found
        raise InputError(
            f"{out}: {subject} changed since this run was planned ({change}); choose another --out"
        )


def plan_difference(before: Manifest, after: Manifest) -> tuple[str, str] | None:
    """Say in what two plans of one specification differ first, and where; None where they agree."""
    for key, subject in (
        ("faces", "the faces on disk"),
        ("skipped", "the faces left out"),
        ("prepared", "the frame of the comparison"),
        ("arms", "an arm or its weights"),
        ("attributes", "the attribute model"),
        ("second_attributes", "the second attribute model"),
        ("metrics", "the metrics or their weights"),
        ("units", "the work units"),
    ):
        old, new = getattr(before, key), getattr(after, key)
        if old == new:
            continue
        # Name what changed: the first entry of a list, or the keys of a mapping.
        if isinstance(old, list):
            ids = [b.id for b, a in zip(old, new, strict=False) if b != a]
            return subject, ids[0] if ids else f"{len(old)} -> {len(new)}"
        old, new = dict(old or {}), dict(new or {})
        changed = [name for name in {*old, *new} if old.get(name) != new.get(name)]
        return subject, ", ".join(sorted(changed))
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
