"""Every estimator and test that the summary calls is evaluated, and none that it does not call."""

import ast
import importlib
import inspect
from pathlib import Path

import pulse_audit
from pulse_audit.calibration import study

PACKAGE = Path(pulse_audit.__file__).parent
#: Rooms of statistics, and the files through which the summary calls them.
ROOMS = ("pulse_audit.stats", "pulse_audit.fairness")
CALLERS = [*sorted((PACKAGE / "summary").glob("*.py")), PACKAGE / "fairness" / "parity.py"]
#: Functions that estimate and test nothing by themselves: data and parts of estimators.
PARTS = {
    "pulse_audit.fairness.drift.tipping_point": "a function of a bound, without sampling error",
    "pulse_audit.fairness.divergence.reference_shares": "composition of a known set",
    "pulse_audit.fairness.parity.compare": "calls the functions of stats.gaps",
    "pulse_audit.fairness.parity.named": "names of the results of stats.gaps",
    "pulse_audit.fairness.sets.joint_shares": "counts and resamples for rdp, pr, cpr and spe",
    "pulse_audit.fairness.shift.original_baseline": "originals in the form of draws",
    "pulse_audit.fairness.sources.census": "count of a known set",
    "pulse_audit.fairness.sources.less_known": "moves an interval by a known share",
    "pulse_audit.stats.bootstrap.mean": "the statistic of cluster_bca",
    "pulse_audit.stats.contrasts.joint_bounds": "bounds of the first screen",
    "pulse_audit.stats.contrasts.proportion_pairs": "bounds of the first screen",
    "pulse_audit.stats.intervals.by_group": "totals of the faces of groups",
    "pulse_audit.stats.intervals.cluster_totals": "totals of faces",
    "pulse_audit.stats.intervals.intraclass_correlation": "an input of proportion_interval",
}


def called_by(path: Path) -> set[str]:
    """Dotted names of the functions of the statistics that a file imports or takes of a module."""
    modules, functions = {}, set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(ROOMS):
            home = importlib.import_module(str(node.module))
            for alias in node.names:
                member = getattr(home, alias.name, None)
                if inspect.ismodule(member):
                    modules[alias.asname or alias.name] = member
                elif inspect.isfunction(member):
                    functions.add(f"{member.__module__}.{member.__name__}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            member = getattr(modules.get(node.value.id), node.attr, None)
            if inspect.isfunction(member):
                functions.add(f"{member.__module__}.{member.__name__}")
    return {name for name in functions if name.startswith(ROOMS)}


def test_estimators_called_and_estimators_evaluated_are_the_same() -> None:
    called = set().union(*(called_by(path) for path in CALLERS)) - PARTS.keys()
    evaluated = {name for one in study.all_scenarios() for name in one.code}
    evaluated = {name for name in evaluated if not name.startswith("pulse_audit.summary")}
    assert called - evaluated == set(), "called by the summary, and in no scenario"
    assert evaluated - called == set(), "in a scenario, and not called by the summary"


def test_what_is_evaluated_exists() -> None:
    for name in {name for one in study.all_scenarios() for name in one.code} | PARTS.keys():
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function)), name
