"""What a statistician's simulations found wrong before version 0.1, and the same after.

The figures before are of simulations through the functions of that time, with a Monte Carlo error
of 1 to 2 points. Those after are of the scenarios named, the worst of them: the lowest coverage or
power, the highest share of errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pulse_audit.calibration.scenarios import PerformanceMeasure
from pulse_audit.calibration.study import ScenarioResult

#: Measures of which the lowest value is the worst.
LOWEST = ("coverage", "power")


@dataclass(frozen=True)
class Figure:
    """A figure of before, and the scenarios that give the one after.

    Parameters
    ----------
    finding, before : str
    study : str
    measure : str
    settings : mapping
        Settings that a scenario has to have, each one of several values.
    method : str
        Part of the method's name.
    """

    finding: str
    before: str
    study: str
    measure: PerformanceMeasure
    settings: Mapping[str, Sequence[str | int | float]] = field(default_factory=dict)
    method: str = ""

    def results(self, results: Sequence[ScenarioResult]) -> list[ScenarioResult]:
        """Return the results that this figure is the worst of."""
        return [
            result
            for result in results
            if (result.scenario.study, result.scenario.measure) == (self.study, self.measure)
            and self.method in result.scenario.method
            and all(
                result.scenario.settings.get(name) in allowed
                for name, allowed in self.settings.items()
            )
        ]


FIGURES = (
    Figure("1. A perfect upsampler is told that it treats groups unequally, or shifts them",
           "86 and 93 % of audits", "sentences", "false claim",
           {"outputs": ["the originals"], "labels": ["people"]}),
    Figure("1. The same where outputs are other photos of the same group", "not simulated",
           "sentences", "false claim", {"outputs": ["other photos"], "labels": ["people"]}),
    Figure("2. Labels made by the model: a false claim where everyone was kept",
           "reported as kept: .43-.83", "sentences", "false claim", {"labels": ["model"]}),
    Figure("3. Equal arms are told that a selected difference or flow is there", "27-50 %",
           "sentences", "false claim", {"outputs": ["equal arms"]}),
    Figure("4. One group with ICC .9, others .1: coverage of the worst group", "73-86 %",
           "retention, one ICC apart", "coverage"),
    Figure("5. Differences of arms, .98 against .90, 2 draws, 6 faces: coverage", "63 %",
           "difference of arms", "coverage",
           {"faces": [6], "draws": [2], "rates": ["0.98 and 0.9"]}, "Tango"),
    Figure("5. The same at 10 faces", "81 %", "difference of arms", "coverage",
           {"faces": [10], "draws": [2], "rates": ["0.98 and 0.9"]}, "Tango"),
    Figure("5. Equal arms, 25 faces: size", "up to 9 %", "difference of arms", "size",
           {"faces": [25]}, "Tango"),
    Figure("6. Worst group, ICCs differ, 10 draws: false pass", "11.6 %", "worst group",
           "false pass", {"draws": [10]}),
    Figure("6. Worst group, all groups at .98: false fail", "9.2 %", "worst group", "false fail",
           {"worst": [0.98]}),
    Figure("7. Corrected cells off the diagonal, given that they are graded usable: coverage",
           "84 %", "corrected, given usable", "coverage", {"of": ["cells"]}),
    Figure("7. Corrected retention, given usable, the shipped net's matrix: coverage", "89 %",
           "corrected, given usable", "coverage", {"of": ["retention"], "model": ["shipped net"]}),
    Figure("7. A gap of corrected retention between equal groups", "5.7 %", "corrected gap",
           "false fail", {"limit": [0.0]}),
    Figure("8. Guidance of weight 0 is said to show a preference",
           "13 of 34 lost draws shown", "preference", "false claim", {}, "guided less placebo"),
    Figure("9. Detectable difference, for 90 % power: power", "73-83 %", "detectable difference",
           "power", {}, "score test"),
    Figure("9. Faces needed for a rise from .15: power", "49 %", "faces needed", "power",
           {"rates": ["0.15 and 0.250"]}),
)  # fmt: skip


def before_and_after(results: Sequence[ScenarioResult]) -> list[str]:
    """Lines of a table in Markdown; none where no scenario of it was simulated."""
    lines = []
    for figure in FIGURES:
        found = figure.results(results)
        if not found:
            continue
        choose = min if figure.measure in LOWEST else max
        worst = choose(found, key=lambda result: result.performance.value)
        value, error = worst.performance.value, worst.performance.error
        after = f"{100 * value:.1f} % (± {100 * error:.1f})"
        count = f"{'lowest' if figure.measure in LOWEST else 'highest'} of {len(found)}"
        lines.append(
            f"| {figure.finding} | {figure.before} | {after} | {figure.measure}, {count} |"
        )
    if not lines:
        return []
    called = len({name for result in results for name in result.scenario.code})
    lines.append(
        "| 10. Requirements of functions that no audit calls | 37 of 98 | 0: every scenario with a "
        f"requirement is of one of the {called} functions that a summary calls | test |"
    )
    return ["| finding | before | after | of scenarios |", "|---|---|---|---|", *lines]
