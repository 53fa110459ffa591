"""Carry an audit out: plan, work, resume, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from pulse_audit import store
from pulse_audit.harness.inputs import AuditInputs
from pulse_audit.harness.plan import Plan, plan_audit
from pulse_audit.harness.sources_models import settle_sources
from pulse_audit.harness.sources_run import run_sources
from pulse_audit.harness.spec import AuditSpec
from pulse_audit.harness.suite import NOT_REQUESTED
from pulse_audit.harness.unit import UnitRunner
from pulse_audit.report import html
from pulse_audit.store import Manifest
from pulse_audit.types import InputError

NOT_MEASURED = "no draw has a value"


#: Hears how far a run is: draws done, in all, and of those done the ones of an earlier process.
Progress = Callable[[int, int, int], None]


def run_audit(
    spec: AuditSpec,
    out: Path,
    progress: Progress | None = None,
    inputs: AuditInputs | None = None,
) -> store.Run:
    """Run an audit into a directory, or resume the one that is there.

    Interrupt it at any instant: finished units stay, the one in flight is made again by the
    same call.

    Parameters
    ----------
    spec : AuditSpec
    out : Path
        The run directory; made if missing.
    progress : callable, optional
        Called as ``progress(done, total, restored)`` in draws.
    inputs : AuditInputs, optional
        What `find_inputs` found for the spec; None looks it up here.

    Returns
    -------
    store.Run
        Complete, with ``summary.json`` and ``report/``.

    Raises
    ------
    InputError
        If the spec, its data or the directory cannot be used.
    """
    with store.locked(out):
        existing = store.open_run(out) if (out / "manifest.json").exists() else None
        if existing is not None:
            check_same_spec(existing.manifest, spec, out)
        plan = plan_audit(spec, existing.manifest if existing else None, inputs)
        models = settle_sources(plan, spec.second_attributes) if spec.sources else None
        if existing is None:
            run = store.create_run(out, plan.manifest)
        else:
            run = existing
            check_same_plan(run.manifest, plan.manifest, out)
        report = progress or (lambda done, total, restored: None)
        work_off(run, plan, report)
        if models is not None:
            run_sources(run, plan, models, report)
        return finish(run)


def work_off(run: store.Run, plan: Plan, progress: Progress) -> None:
    """Carry out every unit that is not finished."""
    units = run.manifest.units
    total = sum(len(unit.draws) for unit in units)
    waiting = [unit for unit in units if not run.is_finished(unit.id)]
    if not waiting and (run.features_dim is None or run.has_originals):
        return
    done = restored = total - sum(len(unit.draws) for unit in waiting)
    bench = UnitRunner(plan, run)
    started = time.monotonic()
    run.write_manifest(status="running", started=run.manifest.started or _now())
    progress(done, total, restored)
    for unit in waiting:
        measured = bench.measure(unit)
        run.write_unit(unit.id, measured.rows, measured.features)
        done += len(unit.draws)
        progress(done, total, restored)
    if run.features_dim is not None:
        run.write_originals(bench.features_of_originals())
    spent = run.manifest.seconds + time.monotonic() - started
    run.write_manifest(seconds=round(spent, 3))


def finish(run: store.Run) -> store.Run:
    """Mark a run complete, sum it up and render its report."""
    run.write_manifest(
        status="complete",
        finished=run.manifest.finished or _now(),
        unavailable=unavailable(run.samples(), run.manifest.unavailable, run.manifest.references),
    )
    html.publish(run)
    return run


def unavailable(
    samples: pd.DataFrame, planned: Mapping[str, str], references: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Say why each column without a single value has none.

    ``planned`` are reasons known when the run was planned, ``references`` the manifest's entry of
    what was taken from the originals.
    """
    reasons = dict(planned)
    reasons |= (references or {}).get("unavailable", {})
    reasons["hr_aligned"] = "the faces came in the run's crop, so none was aligned"
    tones = [f"{side}_{name}" for side in ("hr", "sr") for name in ("ita", "hue", "lightness")]
    for column in (*tones, "hr_monk", "sr_monk"):
        reasons[column] = "no skin was found in any image (greyscale photos have no skin colour)"
    reasons["image"] = "images were not kept (--keep-images none)"
    reasons["reason"] = "no draw needed one"
    empty = [column for column in map(str, samples) if samples[column].isna().all()]
    without = {c: why for c, why in planned.items() if c not in samples and why != NOT_REQUESTED}
    return {**{column: reasons.get(column, NOT_MEASURED) for column in empty}, **without}


def check_same_spec(manifest: Manifest, spec: AuditSpec, out: Path) -> None:
    """Refuse to resume a run that was asked something else, and show the difference."""
    if manifest.fingerprint == spec.fingerprint:
        return
    stored, asked = manifest.spec.as_dict(), spec.asked()
    differing = [
        f"{key} {stored.get(key)!r} -> {asked.get(key)!r}"
        for key in sorted({*stored, *asked})
        if stored.get(key) != asked.get(key) and not (key == "group_by" and asked[key] is None)
    ]
    raise InputError(
        f"{out}: holds another audit ({'; '.join(differing) or 'another version wrote it'}); "
        "choose another --out, or give the same options to resume"
    )


def check_same_plan(before: Manifest, after: Manifest, out: Path) -> None:
    """Refuse to resume where faces, weights or units are no longer those of the manifest."""
    stored, planned = before.as_dict(), after.as_dict()
    for key, what in (
        ("faces", "the faces on disk"),
        ("skipped", "the unreadable faces"),
        ("arms", "an arm or its weights"),
        ("attributes", "the attribute model"),
        ("metrics", "the metrics or their weights"),
        ("units", "the work units"),
    ):
        if stored[key] != planned[key]:
            raise InputError(
                f"{out}: {what} changed since this run was planned"
                f"{_first_change(stored[key], planned[key])}; choose another --out"
            )


def _first_change(before: Any, after: Any) -> str:
    if isinstance(before, dict):
        changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
        return f" ({', '.join(sorted(changed))})"
    changed = [b["id"] for b, a in zip(before, after, strict=False) if b != a]
    return f" ({changed[0]})" if changed else f" ({len(before)} -> {len(after)})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
