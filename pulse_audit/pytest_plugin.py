"""A pytest plugin: the fixture ``pulse_audit_gate`` judges a run by rules inside a test.

Installed with the package, and loaded by pytest through its entry point::

    def test_the_new_model_treats_no_group_worse(pulse_audit_gate):
        verdicts = pulse_audit_gate("runs/branch", "rules.yaml", "baseline.json")
        assert verdicts.passed, verdicts.text

or, where every rule has to pass, by the marker alone::

    @pytest.mark.pulse_audit(run="runs/branch", rules="rules.yaml", baseline="baseline.json")
    def test_the_gate(pulse_audit_verdicts):
        assert pulse_audit_verdicts.passed, pulse_audit_verdicts.text
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pulse_audit.gate.verdicts import Verdict

MARKER = "pulse_audit"


@dataclass(frozen=True)
class Verdicts:
    """Verdicts of a check, as a sequence; ``outcome`` is ``pass``, ``fail`` or ``inconclusive``."""

    outcome: str
    verdicts: Sequence[Verdict]
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether every rule is shown to hold."""
        return self.outcome == "pass"

    @property
    def failed(self) -> bool:
        """Whether some rule is shown to be broken."""
        return self.outcome == "fail"

    @property
    def text(self) -> str:
        """One line for each verdict that is no pass, and the notes."""
        open_ones = [each for each in self.verdicts if each.outcome != "pass"]
        lines = [f"{each.outcome}: {each.title}: {each.reason}" for each in open_ones]
        return "\n".join([*lines, *self.notes])

    def __iter__(self) -> Iterator[Verdict]:
        """Iterate over the verdicts."""
        return iter(self.verdicts)

    def __len__(self) -> int:
        """Return the number of verdicts."""
        return len(self.verdicts)

    def __getitem__(self, place: int) -> Verdict:
        """Return the verdict at a place."""
        return self.verdicts[place]


def gate(run: Path | str, rules: Path | str, baseline: Path | str | None = None, **options: Any
         ) -> Verdicts:  # fmt: skip
    """Judge a run; options as of `pulse_audit.gate.check.check`. Nothing is written to the run.

    Raises
    ------
    InputError
        If something given cannot be used.
    """
    # imported here: pytest loads plugins in every session, also where no test uses this one
    from pulse_audit.gate.check import check

    result = check(run, rules, baseline, **options)
    notes = list(result.notes)
    if result.missing_draws:
        notes.append(f"{result.run} is unfinished: {result.missing_draws:,} draws are missing")
    return Verdicts(result.outcome, tuple(result.verdicts), notes)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    line = f"{MARKER}(run, rules, baseline=None, **options): of the fixture pulse_audit_verdicts"
    config.addinivalue_line("markers", line)


@pytest.fixture(scope="session")
def pulse_audit_gate() -> Callable[..., Verdicts]:
    """Return the function that judges a run: ``(run, rules, baseline=None, **options)``."""
    return gate


@pytest.fixture
def pulse_audit_verdicts(request: pytest.FixtureRequest) -> Verdicts:
    """Return the verdicts of the check that the test's marker describes."""
    marker = request.node.get_closest_marker(MARKER)
    if marker is None:
        raise pytest.UsageError(f"pulse_audit_verdicts needs @pytest.mark.{MARKER}(run=, rules=)")
    return gate(*marker.args, **marker.kwargs)
