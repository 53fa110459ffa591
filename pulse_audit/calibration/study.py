"""Simulate all scenarios, one result file each, so that an interrupted study resumes."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pulse_audit.calibration import (
    apparent,
    compositions,
    corrected,
    distances,
    gaps,
    hand,
    means,
    paired,
    power,
    preference,
    prior_work,
    ratings,
    retention,
    sentences,
    set_fairness,
    starts,
)
from pulse_audit.calibration.scenarios import Performance, Scenario
from pulse_audit.files import atomic_write
from pulse_audit.seeding import fingerprint
from pulse_audit.types import InputError, Progress

#: Replicates of a scenario; the published table is made with the former.
FULL, QUICK = 1000, 25


@dataclass(frozen=True)
class ScenarioResult:
    """A scenario with the performance estimated from some number of replicates."""

    scenario: Scenario
    performance: Performance
    replicates: int

    @property
    def verdict(self) -> Literal["met", "missed", "unclear", ""]:
        """Whether the requirement is met.

        Empty where there is none; ``unclear`` where the value is outside what is required by no
        more than three Monte Carlo standard errors.
        """
        value, reach = self.performance.value, 3 * self.performance.error
        is_met = self.scenario.accepts(value)
        # nothing required, met, or outside by less than three standard errors
        if is_met is None:
            return ""
        if is_met:
            return "met"
        near = any(self.scenario.accepts(value + shift) for shift in (-reach, reach))
        return "unclear" if near else "missed"


def all_scenarios() -> list[Scenario]:
    """Every scenario, in the order of the table."""
    rates = (retention, paired, corrected, hand, gaps, power, apparent, set_fairness, compositions)
    studies = (sentences, *rates, preference, means, distances, starts, ratings, prior_work)
    return [scenario for study in studies for scenario in study.scenarios()]


def run_study(
    scenarios: Sequence[Scenario],
    replicates: int,
    seed: int,
    out: Path,
    progress: Progress | None = None,
    workers: int | None = None,
) -> list[ScenarioResult]:
    """Simulate every scenario that has no result file yet, and return all results in order.

    In a full study (`FULL` replicates) scenarios that turn out unclear at a fraction of the
    replicates are simulated again with all of them.

    Parameters
    ----------
    scenarios : sequence of Scenario
    replicates : int
        Of a scenario whose fraction is 1, at least 2.
    seed : int
        Of the study; each scenario has its own random numbers, whatever runs beside it.
    out : Path
        Gets ``cells/*.json``, one small file a scenario; made if missing.
    progress : callable, optional
        Called as ``progress(done, total, restored)`` in scenarios.
    workers : int, optional
        Processes; default one a core, 1 simulates in this one.

    Raises
    ------
    InputError
        If ``out`` cannot be written, or a file there is damaged.
    """
    report = progress or (lambda done, total, restored: None)
    tasks = [(scenario, scenario.times(replicates), seed) for scenario in scenarios]
    results = _results(tasks, out, report, workers)
    again = [
        i
        for i, result in enumerate(results)
        if result.verdict == "unclear" and 0 < result.replicates < replicates
    ]
    if replicates >= FULL and again:
        tasks = [(scenarios[i], replicates, seed) for i in again]
        for i, result in zip(again, _results(tasks, out, report, workers), strict=True):
            results[i] = result
    return results


def _results(
    tasks: Sequence[tuple[Scenario, int, int]], out: Path, report: Progress, workers: int | None
) -> list[ScenarioResult]:
    """Results of (scenario, replicates, seed), simulated where they have no file yet."""
    # the name of a file holds everything that its content depends on
    files = []
    for scenario, replicates, seed in tasks:
        mark = fingerprint(scenario.key, replicates, seed)
        name = scenario.study.replace(" ", "-").replace(",", "")
        files.append(out / "cells" / f"{name}-{mark:016x}.json")
    # simulate what has no file yet
    waiting = [i for i, file in enumerate(files) if not file.exists()]
    restored = done = len(tasks) - len(waiting)
    report(done, len(tasks), restored)
    for place, performance in _simulated([tasks[i] for i in waiting], workers):
        path = files[waiting[place]]
        try:
            atomic_write(path, (json.dumps(asdict(performance)) + "\n").encode())
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        done += 1
        report(done, len(tasks), restored)

    # read all of them, in the order of the scenarios
    results = []
    for (scenario, replicates, _), path in zip(tasks, files, strict=True):
        try:
            # Our own file, in which a width may be NaN.
            performance = Performance(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError, RecursionError):
            message = f"{path}: damaged; delete it and run the same command again"
            raise InputError(message) from None
        results.append(ScenarioResult(scenario, performance, replicates))
    return results


def _simulated(
    tasks: Sequence[tuple[Scenario, int, int]], workers: int | None
) -> Iterator[tuple[int, Performance]]:
    """Yield number and performance of every task as it is done."""
    processes = min(workers or os.cpu_count() or 1, len(tasks))
    if processes <= 1:
        yield from ((i, simulate(*task)) for i, task in enumerate(tasks))
        return
    # spawn: a fork would copy the threads of numerical libraries
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        futures = {pool.submit(simulate, *task): i for i, task in enumerate(tasks)}
        try:
            yield from ((futures[future], future.result()) for future in as_completed(futures))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def simulate(scenario: Scenario, replicates: int, seed: int) -> Performance:
    """Simulate one scenario from its own random numbers."""
    return scenario.simulate(np.random.default_rng(scenario.seed(seed)), replicates)
